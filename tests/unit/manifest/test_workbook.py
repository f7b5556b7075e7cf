"""The rows of workbooks, as Excel and others write them."""

from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest
import xlwt

from springest_async.errors import ManifestError
from springest_async.manifest.table import Table, fitting, open_table


def rows_of(path: Path, sheet: str | None = None) -> list[tuple[int, list[str]]]:
    return list(open_table(path, sheet=sheet).rows())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.xlsx"


def test_cells_are_read_as_text(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.append(["0012", 7, 1.5, True, date(2026, 5, 6), datetime(2026, 5, 6, 13, 5), None, 46000])  # noqa: DTZ001
    workbook.save(path)
    expected = ["0012", "7", "1.5", "TRUE", "2026-05-06", "2026-05-06 13:05:00", "", "46000"]
    assert rows_of(path) == [(1, expected)]


def test_rows_have_the_numbers_of_the_spreadsheet(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active["C3"] = "title"
    workbook.active["B5"] = "x"
    workbook.save(path)
    assert rows_of(path) == [
        (1, ["", "", ""]),
        (2, ["", "", ""]),
        (3, ["", "", "title"]),
        (4, [""] * 3),
        (5, ["", "x", ""]),
    ]


def test_an_xls_is_read(path: Path) -> None:
    workbook = xlwt.Workbook()
    sheet = workbook.add_sheet("Blad1")
    sheet.write(0, 0, "ë")
    sheet.write(1, 1, date(2026, 5, 6), xlwt.easyxf(num_format_str="dd-mm-yyyy"))
    workbook.save(str(path))  # named .xlsx: the content decides
    assert rows_of(path) == [(1, ["ë", ""]), (2, ["", "2026-05-06"])]
    assert open_table(path).form == "sheet “Blad1” of an XLS workbook"


def test_the_first_sheet_with_rows_is_read(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.create_sheet("hidden").append(["no"])
    workbook["hidden"].sheet_state = "hidden"
    workbook.create_sheet("rows").append(["yes"])
    workbook.save(path)
    assert rows_of(path) == [(1, ["yes"])]
    assert rows_of(path, "hidden") == [(1, ["no"])]


def test_two_sheets_that_fit_need_a_word(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.append(["x"])
    workbook.create_sheet("other").append(["x"])
    workbook.save(path)

    def fit(table: Table) -> str | None:
        return "fits" if next(table.rows())[1] == ["x"] else None

    with pytest.raises(ManifestError, match="--sheet"):
        fitting(open_table(path), fit)
    assert fitting(open_table(path, sheet="other"), fit) == "fits"


def test_a_table_that_changes_is_refused(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.append(["x"])
    workbook.save(path)
    table = open_table(path)
    workbook.active.append(["y"])
    workbook.save(path)
    with pytest.raises(ManifestError, match="was changed"):
        list(table.rows())
    with pytest.raises(ManifestError, match="was changed"):
        _ = table.sha256
