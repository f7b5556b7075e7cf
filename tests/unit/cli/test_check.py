"""What ``springest check`` prints of its plan, and which exit code it has; without a network."""

import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from springest_async.bulk import State
from springest_async.bulk.plan import Plan
from springest_async.bulk.rows import RowSet
from springest_async.bulk.totals import Totals
from springest_async.cli.check import Asked, CheckOptions, check, forecast, show_plan
from springest_async.cli.exit_codes import Exit
from springest_async.cli.reading import ReadingOptions
from springest_async.errors import ConfigurationError, ManifestError
from springest_async.limits.limiter import Limiter
from springest_async.records import Certification
from tests.pdfs import certificate

HEADER = "file,certification_id,email,valid_from,valid_until\n"
AMSTERDAM = timezone(timedelta(hours=1))

AS_IT_IS = ReadingOptions()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("API_KEY", "CERTIFICATIONS_API_KEY", "HOST"):
        monkeypatch.delenv(f"SPRINGEST_{name}", raising=False)
    monkeypatch.setenv("SPRINGEST_JOURNAL", str(tmp_path / "state" / "journal.sqlite3"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (folder := tmp_path / "archive").mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.pdf").write_bytes(certificate(name))
    return folder


def plan(rows: int, *, to_send: int, seconds: float = 0.0, listed: RowSet | None = None, **known: int) -> Plan:
    totals = Totals(rows=rows)
    for row in range(2, to_send + 2):
        totals.add(row, 7, 50_000)
    totals.known.update({State[name.upper()]: count for name, count in known.items()})
    return Plan(totals=totals, listed=listed, seconds=seconds, posts_per_minute=30)


def shown(plan: Plan, **asked: Any) -> list[str]:
    out = io.StringIO()
    show_plan(plan, Asked(origin="https://api.springest.nl", **asked), Console(file=out, width=100))
    return out.getvalue().splitlines()


def row_set(*numbers: int) -> RowSet:
    rows = RowSet()
    for number in numbers:
        rows.add(number)
    return rows


def test_plan_accounts_for_every_row() -> None:
    lines = shown(plan(1012, to_send=1000, listed=row_set(1008, 1009), stored=4, rejected=2, in_doubt=1))
    assert lines[:8] == [
        "Plan for https://api.springest.nl:",
        "      1 012  rows",
        "          4  stored before, so not sent again",
        "          2  rejected before, so not sent again (springest resolve … --send-again)",
        "          1  in doubt: an upload asks Springest whether they are stored",
        "          2  listed by Springest already, so not sent",
        "          3  with faults, so not sent",
        "      1 000  to send (50 MB)",
    ]


def test_plan_says_what_certifications_need() -> None:
    certifications = {7: Certification(id=7, name="VCA Basis", requires_valid_until=True)}
    assert any("required" in line for line in shown(plan(3, to_send=3), certifications=certifications))
    assert any("unknown" in line for line in shown(plan(3, to_send=3)))
    assert any("is not listed" in line for line in shown(plan(3, to_send=3), certifications={8: certifications[7]}))


def test_a_plan_of_nothing_has_no_forecast() -> None:
    assert shown(plan(5, to_send=0, stored=5))[1:] == [
        "          5  rows",
        "          5  stored before, so not sent again",
        "          0  to send",
    ]


def test_many_certifications_are_a_short_table() -> None:
    long = plan(0, to_send=0)
    for key in range(1, 501):
        long.totals.add(key, key, 1)
    assert "… and 480 other certifications" in shown(long)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a moment: done 14:05 if"),
        (3600, "about 1 h 00 min: done 15:05 if"),
        (22 * 3600 + 13 * 60, "about 22 h 13 min: done Wednesday 12:18 if"),
        (23 * 86400, "about 23 d 0 h: done Thursday 24 December 2026 14:05 if"),
    ],
)
def test_forecast_says_when_it_is_done(seconds: float, words: str) -> None:
    now = datetime(2026, 12, 1, 14, 5).astimezone()  # wherever this machine is
    assert words in forecast(plan(40_000, to_send=40_000, seconds=seconds), now)


def test_plan_knows_how_long_the_limit_makes_it_take() -> None:
    totals = Totals(rows=90)
    for row in range(2, 92):
        totals.add(row, 7, 1)
    made = Plan.of(totals, Limiter())
    assert 120 <= made.seconds < 121
    now = datetime(2026, 12, 1, 14, 5, tzinfo=AMSTERDAM)
    assert made.done_at(now) == now + timedelta(seconds=made.seconds)


async def checked(manifest: Path, **options: Any) -> tuple[Exit, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = await check(
        manifest, ReadingOptions(), CheckOptions(**options), Console(file=out, width=200), Console(file=err)
    )
    return code, out.getvalue(), err.getvalue()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write(folder: Path, *rows: str) -> Path:
    (path := folder / "certificates.csv").write_text(HEADER + "\n".join(rows))
    return path


async def test_a_good_manifest_needs_no_key_and_makes_no_journal(archive: Path, tmp_path: Path) -> None:
    code, out, err = await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,2027-01-31"))
    assert code == Exit.STORED
    assert f"{archive / 'certificates.csv'}: nothing to correct." in out
    assert "Not checked: whether the certifications exist, and which of them require valid_until" in out
    assert f"Nothing was sent. To send the rows: springest upload {archive / 'certificates.csv'}" in out
    assert err == ""
    assert names(tmp_path) == ["archive"]


async def test_faults_have_exit_code_2_and_a_way_out(archive: Path) -> None:
    code, out, _ = await checked(
        write(archive, "c.pdf,7,jan@example.org,2026-01-31,", "a.pdf,7,an@example.org,2026-01-31,")
    )
    assert code == Exit.USAGE
    assert "1 fault in 1 row." in out
    assert "row 2, file: there is no such file: 'c.pdf'" in out
    assert "--skip-faulty" in out


@pytest.mark.parametrize(("strict", "code"), [(False, Exit.STORED), (True, Exit.USAGE)])
async def test_warnings_are_faults_if_asked_for(archive: Path, strict: bool, code: Exit) -> None:
    manifest = write(archive, "a.pdf,7,jan@example.org,2026-01-31,2025-01-31")
    assert (await checked(manifest, strict=strict))[0] == code


async def test_findings_are_written_as_the_manifest_is(archive: Path) -> None:
    manifest = write(archive, "c.pdf,7,jan,2026-01-31,")
    code, _, err = await checked(manifest, findings=archive / "findings.csv")
    assert code == Exit.USAGE
    assert err == f"All findings are in {archive / 'findings.csv'}.\n"
    lines = (archive / "findings.csv").read_text("utf-8-sig").splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["2", "email", "fault", "email"],
        ["2", "file", "fault", "no-file"],
    ]


async def test_another_file_is_refused_before_the_check(archive: Path) -> None:
    manifest = write(archive, "c.pdf,7,jan,2026-01-31,")
    with pytest.raises(ConfigurationError, match="something else"):
        await checked(manifest, findings=manifest)


async def test_json_is_one_document(archive: Path) -> None:
    manifest = write(archive, "a.pdf,7,jan@example.org,2026-01-31,", "c.pdf,7,an@example.org,2026-01-31,")
    code, out, _ = await checked(manifest, form="json")
    document = json.loads(out)
    assert code == Exit.USAGE
    assert (document["faults"], document["warnings"], document["notes"]) == (1, 0, 0)
    assert document["findings"][0]["kind"] == "no-file"
    names = ("rows", "to_send", "stored_before", "listed", "faulty")
    assert [document["plan"][name] for name in names] == [2, 1, 0, None, 1]
    assert document["plan"]["certifications"][0]["rows"] == 1


async def test_what_was_found_before_a_broken_row_is_shown(archive: Path) -> None:
    manifest = write(archive, "c.pdf,7,jan,2026-01-31,", f'a.pdf,7,"{"a" * 200_000}",2026-01-31,')
    out = io.StringIO()
    with pytest.raises(ManifestError):
        await check(
            manifest, ReadingOptions(), CheckOptions(), Console(file=out, width=200), Console(file=io.StringIO())
        )
    assert "row 2, email: 'jan' is not an e-mail address" in out.getvalue()


async def test_lists_cannot_be_asked_for_without_a_key(archive: Path) -> None:
    with pytest.raises(ConfigurationError, match="set SPRINGEST_API_KEY"):
        await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,"), skip_listed=True)


async def test_a_journal_that_cannot_be_read_is_told(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (broken := tmp_path / "broken.sqlite3").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("SPRINGEST_JOURNAL", str(broken))
    code, out, _ = await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,"))
    assert code == Exit.STORED
    assert "Not checked: which rows were stored before: the journal cannot be read" in out


async def test_a_journal_that_is_named_must_exist_to_be_asked(archive: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "typing-error.sqlite3")
    code, out, _ = await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,"), journal=where)
    assert code == Exit.STORED
    assert f"Not checked: which rows were stored before: there is no journal in {where}." in out
    assert names(tmp_path) == ["archive"]
