"""What is printed of a comparison with Springest's lists."""

import csv
import io
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from springest_async import NoAnswer
from springest_async.bulk import State
from springest_async.cli.reconcile import ReconcileOptions, _Commands, _exit_of, _look_for_missing, _show
from springest_async.records import Certificate
from springest_async.reports.reconcile import Reconciliation
from tests.bulk_runs import settle
from tests.unit.reports.lists import Lists, certificate, compared, fails_with, sent, set_ids, set_times

STORED, IN_DOUBT, WAITING = State.STORED, State.IN_DOUBT, State.WAITING
COMMANDS = _Commands(Path("my certificates.csv"), None)


async def shown(
    folder: Path,
    rows: list[str],
    states: list[State],
    listed: list[Certificate],
    *,
    form: str = "table",
    commands: _Commands = COMMANDS,
    lists: Lists | None = None,
    ids: Collection[int] = (),
    marked: Collection[int] = (),
    faulty: int = 0,
) -> tuple[str, int]:
    """Return what is printed of a comparison of rows in these states with what is listed, and the exit code.

    The journal knows Springest's ids of the rows in `ids`, which are their numbers. A person has marked the rows in
    doubt in `marked` as stored; `faulty` other rows were left out.
    """
    out = io.StringIO()
    async with sent(folder, *rows) as migration:
        await settle(migration, *states)
        if marked:
            await migration.resolve(list(marked), State.STORED)
        await set_times(migration)
        await set_ids(migration, **{str(number): number for number in ids})
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE migrations SET faulty = ?", (faulty,))
        )
        async with compared(migration, lists or Lists(listed)) as comparison:
            _show(comparison, commands, form, console(out))  # type: ignore[arg-type] # it is one of three
            return out.getvalue(), _exit_of(comparison)


@asynccontextmanager
async def missing(folder: Path, lists: Lists) -> AsyncIterator[Reconciliation]:
    """Compare three stored rows with lists that have the third one only."""
    async with sent(folder, row(1), row(2), row(3)) as migration:
        await settle(migration, STORED, STORED, STORED)
        await set_times(migration)
        await set_ids(migration, **{"1": 1, "2": 2, "3": 3})
        async with compared(migration, lists) as comparison:
            assert comparison.count_missing() == 2
            yield comparison


def console(out: io.StringIO) -> Console:
    return Console(file=out, width=200)


def row(number: int, certification: int = 7) -> str:
    return f"{number}.pdf;{certification};employee{number}@example.org;2026-01-31;"


def listed(*numbers: int) -> list[Certificate]:
    return [certificate(number, f"employee{number}@example.org") for number in numbers]


async def test_everything_stored_and_shown_is_one_line(tmp_path: Path) -> None:
    text, code = await shown(tmp_path, [row(1), row(2)], [STORED, STORED], listed(1, 2))

    lines = text.splitlines()
    assert (len(lines), code) == (6, 0)
    assert lines[-1] == "No difference: each of 2 rows is stored, and Springest shows it."


async def test_rows_left_out_with_faults_are_no_whole(tmp_path: Path) -> None:
    """They are no difference between the journal and Springest, and the manifest is not proved either."""
    text, code = await shown(tmp_path, [row(1), row(2)], [STORED, STORED], listed(1, 2), faulty=12)

    *_, said, verdict = text.splitlines()
    check = "springest check 'my certificates.csv'"
    assert said == f"12 rows of the manifest have faults and were left out (--skip-faulty): see {check}"
    assert verdict == "No difference was found, but not everything is proved: 12 rows left out with faults."
    assert code == 1


async def test_json_counts_rows_left_out_with_faults(tmp_path: Path) -> None:
    text, code = await shown(tmp_path, [row(1)], [STORED], listed(1), form="json", faulty=1)

    found = json.loads(text)
    assert (found["faulty"], found["differences"], found["whole"], code) == (1, 0, False, 1)


async def test_the_first_of_many_are_shown(tmp_path: Path) -> None:
    numbers = range(1, 27)
    rows = [row(number) for number in numbers]
    text, code = await shown(tmp_path, rows, [STORED] * 26, listed(26), ids=numbers)

    assert code == 6
    assert text.count("@example.org") == 20
    assert "… and 5 more; --format csv lists all" in text
    assert "Or send them again: springest reconcile 'my certificates.csv' --repair" in text


async def test_what_is_not_certain_is_said(tmp_path: Path) -> None:
    rows = [row(1), row(2), "x.pdf;7;employee2@example.org;2026-01-31;"]
    text, _ = await shown(tmp_path, rows, [STORED] * 3, listed(2), ids=(1, 2))

    assert "To send those again that are certainly missing (1): springest reconcile" in text


async def test_what_is_shown_and_not_stored_has_its_state(tmp_path: Path) -> None:
    commands = _Commands(Path("a.csv"), "/a journal")
    text, code = await shown(tmp_path, [row(1), row(2)], [IN_DOUBT, WAITING], listed(1, 2), commands=commands)

    assert code == 6
    assert "│ 2 (in doubt)" in text
    assert "│ 3 (waiting)" in text
    assert "springest resolve a.csv --journal '/a journal' --row N --stored." in text


async def test_rows_in_doubt_are_not_called_not_stored(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(3), row(4)]
    states = [IN_DOUBT, IN_DOUBT, State.REJECTED, STORED]
    text, code = await shown(tmp_path, rows, states, listed(4))

    assert code == 1
    assert "│ in doubt         │    2 │" in text
    assert "│ not stored       │    1 │" in text
    assert "In doubt (2): Nobody knows whether Springest has stored these. Its lists do not show them.\n" in text
    assert "What to do: springest upload 'my certificates.csv' asks Springest again." in text
    assert "--row N --stored (or --send-again)" in text
    assert "Not stored (1): 1 rejected." in text
    assert text.endswith("but not everything is proved: 1 row not stored, 2 rows in doubt.\n")


async def test_json_counts_rows_in_doubt_and_those_of_a_person(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(3, 9), row(4)]
    states = [IN_DOUBT, IN_DOUBT, IN_DOUBT, STORED]
    text, _ = await shown(tmp_path, rows, states, listed(4), form="json", marked=(3, 4))

    document = json.loads(text)
    counts = {kind: rows for kind, rows in document["counts"].items() if rows}
    assert counts == {"shown": 1, "in_doubt": 1, "marked_missing": 1, "marked_not_shown": 1}
    assert {one["row"]: one["kind"] for one in document["findings"]} == {
        2: "in_doubt",
        3: "marked_missing",
        4: "marked_not_shown",
    }


async def test_springest_has_not_confirmed_what_a_person_marked(tmp_path: Path) -> None:
    rows = [row(1), row(2, 9), row(3)]
    text, code = await shown(tmp_path, rows, [IN_DOUBT, IN_DOUBT, STORED], listed(3), marked=(2, 3))

    assert code == 6
    assert "Springest has confirmed" not in text
    assert "Marked stored, missing (1): A person has marked these as stored (springest resolve)." in text
    assert "Marked stored, not shown (1): A person has marked these as stored (springest resolve)." in text
    assert text.count("springest report 'my certificates.csv' --csv FILE\n") == 2
    assert "--repair" not in text


async def test_what_is_being_sent_is_compared_later(tmp_path: Path) -> None:
    text, code = await shown(tmp_path, [row(1), row(2)], [State.SENDING, STORED], listed(2))

    assert code == 1
    assert "Being sent (1): when the upload has ended, run this again: springest reconcile" in text
    assert text.endswith("proved: 1 row being sent.\n")


async def test_each_certification_that_is_not_shown_is_counted(tmp_path: Path) -> None:
    rows = [row(n, 10 + n % 12) for n in range(24)]
    text, code = await shown(tmp_path, rows, [STORED] * 24, [])

    assert code == 1
    assert "  certification 10: 2 rows\n" in text
    assert "  … and 2 other certifications\n" in text
    assert text.endswith("No difference was found, but not everything is proved: 24 rows stored, and not shown yet.\n")


async def test_a_list_that_may_not_be_whole_proves_nothing(tmp_path: Path) -> None:
    lists = Lists(listed(1), says_totals=False)
    text, code = await shown(tmp_path, [row(1), row(2)], [STORED, STORED], [], lists=lists)

    assert code == 1
    assert "Not compared: what Springest lists of certification 7 (nobody knows how long the list is).\n" in text
    assert text.endswith("proved: 1 row stored, and not compared.\n")


async def test_asking_by_person_is_said(tmp_path: Path) -> None:
    lists = Lists([*listed(1), *(certificate(n, f"x{n}@example.org") for n in range(100, 1201))])
    text, code = await shown(tmp_path, [row(1)], [STORED], [], lists=lists)

    assert code == 0
    assert "Asked by person, which takes fewer requests: what other people have was not looked at." in text


async def test_what_is_missing_by_person_is_not_called_certain(tmp_path: Path) -> None:
    """The advice names the lists that show more, and no repair as if it were certain."""
    lists = Lists([*listed(1), *(certificate(n, f"x{n}@example.org") for n in range(100, 1201))])
    text, code = await shown(tmp_path, [row(1), row(2)], [STORED, STORED], [], lists=lists, ids=(1, 2))

    assert code == 6
    assert "Not certainly missing: what Springest was asked for by person only" in text
    assert (
        "Nothing is sent again, because it is not certain that they are missing. To ask for the lists of their"
        " certifications first, and send again what is in none: springest reconcile 'my certificates.csv' --repair\n"
    ) in text
    assert "Or send them again" not in text


async def test_a_name_cannot_move_the_cursor(tmp_path: Path) -> None:
    evil = certificate(9, "\x1b[2Jx@example.org")
    text, _ = await shown(tmp_path, [row(1)], [STORED], [*listed(1), evil])

    assert "\x1b" not in text
    assert "[2Jx@example.org" in text


async def test_a_formula_in_a_csv_is_text(tmp_path: Path) -> None:
    evil = certificate(9, "=cmd@example.org")
    text, _ = await shown(tmp_path, [row(1)], [STORED], [*listed(1), evil], form="csv")

    first, second = csv.DictReader(io.StringIO(text))
    assert (first["kind"], first["row"], first["listed_id"]) == ("stored and shown", "2", "1")
    assert (second["kind"], second["row"], second["email"]) == ("not ours", "", "'=cmd@example.org")


async def test_json_has_what_is_not_in_order(tmp_path: Path) -> None:
    other = certificate(1, "employee1@example.org", valid_until=date(2027, 1, 1))
    text, code = await shown(tmp_path, [row(1), row(2)], [STORED, STORED], [other, *listed(2)], form="json")

    document = json.loads(text)
    (finding,) = document.pop("findings")
    assert code == 6
    assert (finding["kind"], finding["row"], finding["listed_valid_until"]) == ("other_dates", 2, "2027-01-01")
    assert document["counts"]["shown"] == 1
    assert (document["since"], document["requests"], document["by_person"]) == ("2026-01-29", 2, False)
    assert "@" not in text


@pytest.mark.parametrize("form", ["table", "csv", "json"])
async def test_nothing_sent_is_not_all(tmp_path: Path, form: str) -> None:
    text, code = await shown(tmp_path, [row(1)], [], [], form=form)

    assert code == 1
    assert form != "table" or "springest check 'my certificates.csv' --skip-listed" in text


@pytest.mark.parametrize(("most", "repair", "certain"), [(1, False, 2), (1, True, 0), (2, False, 0)])
async def test_few_that_are_missing_are_looked_for(
    tmp_path: Path, most: int, repair: bool, certain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a request; before a repair all are looked for."""
    lists = Lists(listed(3))
    lists_after = [certificate(number, f"employee{number}@example.org", certification_id=8) for number in (1, 2)]
    async with missing(tmp_path, lists) as comparison:
        lists.certificates += lists_after
        monkeypatch.setattr("springest_async.cli.reconcile._LOOKED_FOR", most)
        monkeypatch.setattr("springest_async.cli.reconcile.requests_words", lambda *_: "some requests")
        await _look_for_missing(comparison, lists.springest(), ReconcileOptions(repair=repair), console(io.StringIO()))

        assert comparison.count_missing() == certain


async def test_a_failure_to_look_leaves_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lists have shown is shown; only a repair needs the answer."""
    lists = Lists(listed(3))
    monkeypatch.setattr("springest_async.cli.reconcile.requests_words", lambda *_: "some requests")
    async with missing(tmp_path, lists) as comparison:
        lists.failing = fails_with(
            NoAnswer("GET /users/certificates", "the connection broke"), email="employee2@example.org"
        )
        err, springest = console(io.StringIO()), lists.springest()
        await _look_for_missing(comparison, springest, ReconcileOptions(), err)
        (words,) = comparison.not_compared
        with pytest.raises(NoAnswer):
            await _look_for_missing(comparison, springest, ReconcileOptions(repair=True), err)

    assert words == (
        "what is missing in the lists, with those of its people (GET /users/certificates: the connection broke)"
    )
