"""The files of ``springest report``: there whole or not at all, and never in the place of another one."""

import asyncio
import io
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from springest_async import ConfigurationError
from springest_async.bulk import Manifest, State
from springest_async.cli import report
from springest_async.cli.report import ReportOptions
from springest_async.manifest.csv_rows import CsvForm
from springest_async.reports.summary import read_summary, rows_for_person
from tests.bulk_runs import loaded, rows_of, settle


class _StoppedError(Exception):
    pass


async def _run(manifest: Manifest, options: ReportOptions, *, rows: int = 1000) -> list[str]:
    """Write a report, stop after so many rows, and return what is said of its files."""
    left = iter(range(rows))

    def go_on() -> None:
        if next(left, None) is None:
            raise _StoppedError

    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, State.REJECTED, State.FAILED, reason="why")
        await migration.journal.run(lambda _: None)  # what was only noted
        reading = report._Reading(migration.journal, migration.id, manifest.path, options)
        await asyncio.to_thread(reading.run, go_on)
    return reading.written


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "journal" not in path.name)


async def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 4)
    files = _names(tmp_path)
    with pytest.raises(_StoppedError):
        await _run(manifest, ReportOptions(csv=tmp_path / "result.csv"), rows=2)

    assert _names(tmp_path) == files


async def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    taken = tmp_path / "result.csv"
    taken.write_text("precious")
    with pytest.raises(ConfigurationError, match=r"result\.csv cannot be written: it exists already"):
        await _run(rows_of(tmp_path, 4), ReportOptions(csv=taken))

    assert taken.read_text() == "precious"


async def test_all_files_are_of_one_moment(tmp_path: Path) -> None:
    csv, failed, page = (tmp_path / name for name in ("result.csv", "failed.csv", "page.html"))
    said = await _run(rows_of(tmp_path, 4), ReportOptions(csv=csv, failed=failed, html=page))

    assert said == [
        f"All rows: {csv}",
        f"2 rows to correct: {failed}. Then run: springest upload {failed}",
        f"The page: {page}",
    ]
    lines = [path.read_text(encoding="utf-8-sig").splitlines()[1:] for path in (csv, failed)]
    assert [line.split(",")[7] for line in lines[0]] == ["stored", "rejected", "failed", "waiting"]
    assert [line.split(",")[0] for line in lines[1]] == ["2.pdf", "3.pdf"]
    assert "1 of 4 certificates are stored." in page.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")


async def test_rows_that_a_run_asks_about_need_no_person(tmp_path: Path) -> None:
    out = io.StringIO()
    async with loaded(rows_of(tmp_path, 2)) as migration:
        await settle(migration, State.IN_DOUBT, State.IN_DOUBT)
        claimed = await migration.claim_doubt(())
        assert claimed is not None
        connection = migration.journal.connect()
        with closing(connection), connection.snapshot():
            summary = read_summary(connection, migration.id)
            rows = [row.number for row in rows_for_person(connection, migration.id, 10)]
    report._print(summary, tmp_path / "certificates.csv", Console(file=out, width=200))

    assert rows == [5 - (claimed[0].number or 0)]
    assert "1 row in doubt: a run is asking Springest about it now.\n1 row in doubt: springest status" in out.getvalue()


@pytest.mark.parametrize("name", ["certificates.xlsx", "gone.csv"])
def test_beside_what_is_no_csv_cells_are_separated_as_usual(name: str, tmp_path: Path) -> None:
    assert report._form(tmp_path / name) == CsvForm(";", "utf-8-sig")


def test_beside_a_csv_cells_are_separated_as_there(tmp_path: Path) -> None:
    manifest = tmp_path / "certificates.csv"
    manifest.write_text("file\tcertification_id\temail\tvalid_from\n1.pdf\t7\ta@example.org\t2026-01-31\n")

    assert report._form(manifest) == CsvForm("\t", "utf-8")
