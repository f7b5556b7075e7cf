"""Where a migration stands: its tables, and what a person says of rows in doubt."""

import io
import json
import platform
import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from springest_async import ConfigurationError, Journal, JournalMissing
from springest_async.bulk import Manifest, State, load_manifest
from springest_async.bulk.rows import RowSet
from springest_async.cli.exit_codes import Exit
from springest_async.cli.status import resolve, runs_on, status, table_of
from tests.bulk_runs import ORIGIN, found, journal_of, loaded, manifest_of, rows_of, settle
from tests.statuses import counted

HEADER = "file,certification_id,email,valid_from\n"


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def console(out: io.StringIO) -> Console:
    return Console(file=out, width=200, force_terminal=True, color_system=None)


async def doubtful(folder: Path, *doubts: tuple[str, str]) -> tuple[Path, str]:
    """Load a manifest whose rows (a file and a reason) are all in doubt, and one more that waits.

    Return its path and that of the journal.
    """
    lines = [f"{file},7,jan{number}@example.org,2026-01-31\n" for number, (file, _) in enumerate(doubts)]
    manifest = manifest_of(folder, "".join([HEADER, *lines, "last.pdf,7,last@example.org,2026-01-31\n"]), "x.csv")
    async with loaded(manifest) as migration:
        for _, reason in doubts:
            await settle(migration, State.IN_DOUBT, reason=reason)
    return manifest.path, str(journal_of(manifest))


def test_the_table_of_outcomes_has_right_aligned_numbers(out: io.StringIO) -> None:
    console(out).print(table_of(counted(stored=12, rejected=3)))

    rows = [line.split("│") for line in out.getvalue().splitlines() if line.startswith("│")]
    assert [(name.strip(), rows) for _, name, rows, _ in rows] == [
        ("stored", "   12 "),
        ("rejected", "    3 "),
        ("failed", "    0 "),
        ("in doubt", "    0 "),
        ("waiting", "    0 "),
    ]


def test_rows_being_sent_are_shown(out: io.StringIO) -> None:
    console(out).print(table_of(counted(waiting=2, sending=8)))

    assert "│ being sent │    8 │" in out.getvalue()


async def test_rows_that_a_run_asks_about_are_told_apart(tmp_path: Path, out: io.StringIO) -> None:
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await settle(migration, State.IN_DOUBT, State.IN_DOUBT)
        claimed = await migration.claim_doubt(())
        assert claimed is not None
        manifest, journal = tmp_path / "certificates.csv", migration.journal.where
        assert await status(manifest, journal, console(out)) is Exit.IN_DOUBT
        assert await status(None, journal, console(out)) is Exit.STORED
        as_json = io.StringIO()
        assert await status(manifest, journal, console(as_json), form="json") is Exit.IN_DOUBT
        other = await migration.claim_doubt({claimed[1].id})
        assert other is not None
        only_asked = io.StringIO()
        assert await status(manifest, journal, console(only_asked)) is Exit.IN_DOUBT

    run = f"A run on {platform.node()} is asking Springest about"
    asked, waits = claimed[0].number, 5 - (claimed[0].number or 0)
    assert f"{run} 1 row in doubt now, so it needs no answer yet.\n" in out.getvalue()
    assert "In doubt: these were sent" in out.getvalue()
    assert f"  row {waits}: " in out.getvalue()
    assert f"  row {asked}: " not in out.getvalue()
    assert "│ 2 in doubt (Springest is being asked about 1) │" in out.getvalue()
    assert json.loads(as_json.getvalue())["settling"] == 1
    assert f"{run} 2 rows in doubt now, so they need no answer yet.\n" in only_asked.getvalue()
    assert "In doubt: these were sent" not in only_asked.getvalue()
    assert "springest resolve" not in only_asked.getvalue()


async def test_rows_left_out_with_faults_are_said(tmp_path: Path, out: io.StringIO) -> None:
    manifest = rows_of(tmp_path, 3)
    faulty = RowSet()
    faulty.add(3)
    async with Journal(journal_of(manifest)) as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN, faulty=faulty)
        await settle(migration, State.STORED, State.STORED)

    assert await status(manifest.path, str(journal_of(manifest)), console(out)) is Exit.NOT_ALL
    assert await status(None, str(journal_of(manifest)), console(out)) is Exit.STORED
    check = f"springest check {manifest.path}"
    assert f"1 row of the manifest has faults and was left out (--skip-faulty): see {check}\n" in out.getvalue()
    assert "│ done  │ 2 of 2 │ 1 left out with faults │" in out.getvalue()


async def test_manifests_with_the_same_name_are_told_apart(tmp_path: Path, out: io.StringIO) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        for rows, year in enumerate(("2024", "2025"), 1):
            (tmp_path / year).mkdir()
            await load_manifest(journal, rows_of(tmp_path / year, rows), ORIGIN)

    assert await status(None, str(tmp_path / "journal.sqlite3"), console(out)) is Exit.STORED
    shown = [line.split("│")[1].strip() for line in out.getvalue().splitlines() if line.startswith("│")]
    assert shown == ["2025/certificates.csv", "2024/certificates.csv"]


async def test_what_is_in_doubt_is_listed_with_all_that_a_person_needs(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await doubtful(tmp_path, ("a.pdf", "no answer"), ("b.pdf", "the server answered 500"))

    assert await status(manifest, journal, console(out)) is Exit.IN_DOUBT
    shown = [" ".join(line.replace("│", " ").split()) for line in out.getvalue().splitlines()]
    sent = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"2 a\.pdf jan0@example\.org 7 2026-01-31 {sent} no answer", shown[-7])
    assert re.fullmatch(rf"3 b\.pdf jan1@example\.org 7 2026-01-31 {sent} the server answered 500", shown[-6])
    assert shown[-4] == "Springest's staff can find them in their logs by the X-Request-Id:"
    assert [re.fullmatch("row [23]: ([0-9a-f]{32})", line) is not None for line in shown[-3:-1]] == [True, True]
    assert "last.pdf" not in out.getvalue()
    assert "is uploading" not in out.getvalue()


async def test_of_many_doubts_the_first_ids_are_shown(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await doubtful(tmp_path, *((f"{number}.pdf", "no answer") for number in range(23)))
    await status(manifest, journal, console(out))

    assert len(re.findall("^  row [0-9]+: [0-9a-f]{32}$", out.getvalue(), re.MULTILINE)) == 20
    assert "  … and 3 others: springest report --csv writes those of all rows to a file.\n" in out.getvalue()


async def test_as_json_it_is_one_object_without_addresses(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await doubtful(tmp_path, ("a.pdf", "no answer"))

    assert await status(manifest, journal, console(out), form="json") is Exit.IN_DOUBT
    shown = json.loads(out.getvalue())
    assert (shown["manifest"], shown["activity"], shown["rows"]) == ("x.csv", "stopped", 2)
    assert (shown["counts"]["in_doubt"], shown["counts"]["waiting"]) == (1, 1)
    assert "example.org" not in out.getvalue()


async def test_all_migrations_as_json_are_a_list(tmp_path: Path, out: io.StringIO) -> None:
    _, journal = await doubtful(tmp_path, ("a.pdf", "no answer"))

    assert await status(None, journal, console(out), form="json") is Exit.STORED
    assert [each["manifest"] for each in json.loads(out.getvalue())] == ["x.csv"]


async def test_all_migrations_are_shown_with_what_needs_a_person(tmp_path: Path, out: io.StringIO) -> None:
    path, journal = await doubtful(tmp_path, ("a.pdf", "no answer"), ("b.pdf", "no answer"))

    assert await status(None, journal, console(out)) is Exit.STORED
    async with loaded(Manifest.open(path)) as migration:
        await settle(migration, State.REJECTED, reason="email: is unknown")
        await status(None, journal, console(out))
        await migration.pause()
        await status(None, journal, console(out))

    lines = [line.split("│")[1:-2] for line in out.getvalue().splitlines() if line.startswith("│ x.csv")]
    assert [[part.strip() for part in line[2:]] for line in lines] == [
        ["stopped", "0 of 3", "2 in doubt"],
        [f"running on {platform.node()}", "0 of 3", "2 in doubt, 1 rejected"],
        ["paused", "0 of 3", "2 in doubt, 1 rejected"],
    ]


async def test_in_a_narrow_terminal_a_doubt_is_two_sentences(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await doubtful(tmp_path, ("2024/noord/Johannes-van-den-Berg.pdf", "the server answered 500"))
    await status(manifest, journal, Console(file=out, width=60, force_terminal=True, color_system=None))

    text = out.getvalue()[out.getvalue().index("row 2: ") : out.getvalue().index("Springest's")]
    assert re.fullmatch(
        r"row 2: 2024/noord/Johannes-van-den-Berg\.pdf, jan0@example\.org, certification 7 from 2026-01-31"
        r" sent \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(UTC\): the server answered 500",
        " ".join(text.split()),
    )
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize(("width", "shown"), [(80, "^row [0-9]+: "), (200, "^│ [0-9]+ +│ ")])
async def test_of_very_many_doubts_the_first_are_shown(
    tmp_path: Path, out: io.StringIO, width: int, shown: str
) -> None:
    manifest, journal = await doubtful(tmp_path, *((f"{number}.pdf", "no answer") for number in range(52)))
    await status(manifest, journal, Console(file=out, width=width))

    assert len(re.findall(shown, out.getvalue(), re.MULTILINE)) == 50
    assert "\n… and 2 others: springest report --csv writes all rows to a file.\n" in out.getvalue()


async def test_the_machine_of_a_running_upload_is_shown(tmp_path: Path, out: io.StringIO) -> None:
    path, journal = await doubtful(tmp_path, ("a.pdf", "no answer"))
    async with loaded(Manifest.open(path)) as migration:
        await settle(migration, State.SENDING)
        assert await status(path, journal, console(out)) is Exit.IN_DOUBT

    assert f"A run on {platform.node()} is uploading.\n" in out.getvalue()
    assert "│ being sent │    1 │" in out.getvalue()


@pytest.mark.parametrize("everything", [False, True], ids=["of one", "of all"])
async def test_an_outage_of_a_running_upload_is_shown(tmp_path: Path, out: io.StringIO, everything: bool) -> None:
    path, journal = await doubtful(tmp_path, ("a.pdf", "no answer"))
    async with loaded(Manifest.open(path)) as migration:
        migration.journal.note_trouble("no connection", "Connection refused", seconds=40, again_in=3600)
        await migration.counts()  # with which it is written
        await status(None if everything else path, journal, console(out))
        words = r"no connection for 4\d s \(Connection refused\), trying again in (60 min|1 h 00 min)"
        assert re.search(rf"{re.escape(platform.node())}: {words}", out.getvalue())
        assert "is uploading" not in out.getvalue()

        migration.journal.note_trouble("")
        await migration.counts()
        await status(None if everything else path, journal, console(out))

    assert out.getvalue().count("no connection") == 1


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (("anna",), "A run on anna is"),
        (("anna", "anna"), "2 runs on anna are"),
        (("anna", "bert", "carl"), "3 runs on anna, bert and carl are"),
    ],
)
async def test_runs_are_named_by_their_machines(hosts: tuple[str, ...], words: str) -> None:
    assert runs_on(hosts) == words


@pytest.mark.parametrize(
    "hostile",
    ["[bold red]no answer[/bold red]", "[/]", "[link=https://x.example]x[/link]", ":smile: no answer"],
)
async def test_what_servers_and_manifests_say_is_not_markup(tmp_path: Path, out: io.StringIO, hostile: str) -> None:
    manifest, journal = await doubtful(tmp_path, (hostile.replace("/", "|"), hostile))
    await status(manifest, journal, console(out))

    assert hostile in out.getvalue()
    assert hostile.replace("/", "|") in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("hostile", ["\x1b[2J\x1b]0;title\x07no", "\x9b2Jno", "one\rtwo", "\x08\x08no"])
async def test_what_servers_and_manifests_say_does_not_move_the_cursor(
    tmp_path: Path, out: io.StringIO, hostile: str
) -> None:
    manifest, journal = await doubtful(tmp_path, (f"{hostile.strip()}.pdf".replace("\r", "-"), hostile))
    await status(manifest, journal, console(out))

    assert not {"\x1b", "\x9b", "\x07", "\r", "\x08"} & set(out.getvalue())


async def test_half_a_letter_in_a_reason_breaks_no_table(tmp_path: Path) -> None:
    manifest, journal = await doubtful(tmp_path, ("a.pdf", "no \ud800 answer"))
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", errors="replace")
    await status(manifest, journal, Console(file=stream, width=200))
    stream.flush()

    assert "no \\ud800 answer" in raw.getvalue().decode()


@pytest.mark.parametrize(
    ("rows", "state", "words"),
    [
        ((2,), State.STORED, "1 row marked as stored.\n"),
        ((2, 3), State.WAITING, "2 rows put back to waiting for the next springest upload.\n"),
        (None, State.STORED, "2 rows marked as stored.\n"),
    ],
)
async def test_a_decision_is_recorded_and_shown(
    tmp_path: Path, out: io.StringIO, rows: tuple[int, ...] | None, state: State, words: str
) -> None:
    manifest, journal = await doubtful(tmp_path, ("a.pdf", "no answer"), ("b.pdf", "no answer"))
    assert state in (State.STORED, State.WAITING)
    await resolve(manifest, journal, rows, state, console(out))

    assert out.getvalue() == words
    decided = 2 if rows is None else len(rows)
    expected = Counter({State.IN_DOUBT: 2 - decided, State.WAITING: 1}) + Counter({state: decided})
    async with found(Manifest.open(manifest)) as migration:
        assert await migration.counts() == expected


async def test_a_decision_about_a_row_not_in_doubt_is_refused(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await doubtful(tmp_path, ("a.pdf", "no answer"))
    with pytest.raises(ConfigurationError, match=r"not in doubt: row 3, 4 of the manifest\. Nothing was changed\."):
        await resolve(manifest, journal, (2, 3, 4), State.STORED, console(out))

    assert out.getvalue() == ""
    assert await status(manifest, journal, console(out)) is Exit.IN_DOUBT


async def test_a_mistyped_name_creates_no_journal(tmp_path: Path, out: io.StringIO) -> None:
    path = str(tmp_path / "y.sqlite3")
    for ask in (
        status(None, path, console(out)),
        status(tmp_path / "x.csv", path, console(out)),
        resolve(tmp_path / "x.csv", path, None, State.STORED, console(out)),
    ):
        with pytest.raises(JournalMissing, match="there is no journal yet"):
            await ask

    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240
