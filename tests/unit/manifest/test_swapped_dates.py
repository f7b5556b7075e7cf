"""Workbooks in which a spreadsheet of another country has made dates of a list."""

from datetime import date
from pathlib import Path

import openpyxl
import pytest

from springest_async.errors import InvalidUpload
from springest_async.manifest.manifest import Manifest

HEADER = ["file", "certification_id", "email", "valid_from"]


def dates_of(path: Path, *cells: str | date) -> list[date | str]:
    """Return the dates of a column, or what is wrong with them."""
    workbook = openpyxl.Workbook()
    workbook.active.append(HEADER)
    for cell in cells:
        workbook.active.append(["a.pdf", 1, "jan@example.org", cell])
    workbook.save(path / "a.xlsx")
    manifest = Manifest.open(path / "a.xlsx")
    found: list[date | str] = []
    for row in manifest:
        try:
            found.append(manifest.fields(row).valid_from)
        except InvalidUpload as error:
            found.append(error.faults[0].reason)
    return found


@pytest.mark.parametrize("text", ["12/31/2026", "31/12/2026", "31-12-2026", "31.12.26"])
def test_dates_that_may_be_swapped_are_refused(tmp_path: Path, text: str) -> None:
    first, second, _, _ = dates_of(tmp_path, date(2026, 6, 5), date(2026, 6, 6), text, "a")
    assert first == (
        f"'2026-06-05' may have day and month the wrong way round, as {text} in row 4 stayed text when a spreadsheet"
        " made dates of this column: compare them with their source, and correct both"
    )
    assert second == date(2026, 6, 6)


def test_a_day_after_the_twelfth_shows_the_right_order(tmp_path: Path) -> None:
    days = [date(2026, 6, 5), date(2026, 6, 13)]
    assert dates_of(tmp_path, *days, "31/12/2026") == [*days, date(2026, 12, 31)]


def test_real_dates_alone_are_right(tmp_path: Path) -> None:
    days = [date(2026, 6, 5), date(2026, 7, 1)]
    assert dates_of(tmp_path, *days, "1 May 2026") == [*days, date(2026, 5, 1)]


def test_texts_were_never_swapped(tmp_path: Path) -> None:
    assert dates_of(tmp_path, "2026-06-05", "31/12/2026") == [date(2026, 6, 5), date(2026, 12, 31)]
