"""The rows of workbooks, as Excel and others write them, and workbooks that are refused."""

import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter
import xlwt
from odf.opendocument import OpenDocumentSpreadsheet
from odf.table import Table as OdsTable
from odf.table import TableCell, TableRow
from odf.text import P

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


def test_columns_of_real_dates_are_known(path: Path) -> None:
    def write(workbook: Any, sheet: Any) -> None:
        sheet.write_row(1, 1, ["2026-05-06", 46_000])
        sheet.write_datetime(2, 3, date(2026, 5, 6), workbook.add_format({"num_format": "d-m-yyyy"}))

    xlsx(path, write)
    assert open_table(path).real_dates == {3}


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


def xlsx(path: Path, write: Callable[[Any, Any], object], **options: Any) -> None:
    """Make a workbook of one sheet with XlsxWriter, as Excel would write it: nothing is left to compute."""
    workbook = xlsxwriter.Workbook(path, options)
    write(workbook, workbook.add_worksheet("Blad1"))
    workbook.close()
    replace(path, "xl/workbook.xml", b' fullCalcOnLoad="1"', b"")


def ods(path: Path, rows: list[list[dict[str, str]]]) -> None:
    """Make a workbook of one sheet with odfpy: each cell has its attributes, and a text."""
    document = OpenDocumentSpreadsheet()
    table = OdsTable(name="Blad1")
    for row in rows:
        table_row = TableRow()
        for attributes in row:
            text = attributes.pop("text", None)
            cell = TableCell(**attributes)
            if text is not None:
                cell.addElement(P(text=text))
            table_row.addElement(cell)
        table.addElement(table_row)
    document.spreadsheet.addElement(table)
    document.save(str(path))


def replace(path: Path, member: str, old: bytes, new: bytes) -> None:
    """Replace something in a member of a ZIP."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert old in contents[member]
    contents[member] = contents[member].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def refusal(path: Path, sheet: str | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        rows_of(path, sheet)
    return caught.value.reason


def test_error_cells_of_an_xlsx_are_not_empty(path: Path) -> None:
    def write(_: Any, sheet: Any) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_formula(1, 1, "=NA()", None, "#N/A")
        sheet.write_formula(2, 3, "=1/0", None, "#DIV/0!")
        sheet.write_formula(3, 0, '=""', None, "")

    xlsx(path, write)
    replace(path, "xl/worksheets/sheet1.xml", b'<c r="A4">', b'<c r="A4" t="str">')  # as Excel writes it
    expected = [(1, ["a", "b", "", ""]), (2, ["", "#N/A", "", ""]), (3, ["", "", "", "#DIV/0!"]), (4, [""] * 4)]
    assert rows_of(path) == expected


def test_error_cells_of_an_xls_are_not_empty(path: Path) -> None:
    workbook = xlwt.Workbook()
    workbook.add_sheet("other").write(0, 0, "x")
    sheet = workbook.add_sheet("Blad1")
    sheet.write(0, 0, "a")
    sheet.row(1).set_cell_error(1, "#REF!")
    workbook.save(str(path))
    assert rows_of(path, "Blad1") == [(1, ["a", ""]), (2, ["", "#REF!"])]
    assert rows_of(path, "other") == [(1, ["x"])]


@pytest.mark.parametrize(
    "error",
    [
        {"valuetype": "string", "stringvalue": "", "text": "#N/A"},  # as LibreOffice writes it
        {"valuetype": "float", "value": "0", "text": "#N/A"},  # as OpenOffice does
        {"text": "#N/A"},
    ],
)
def test_error_cells_of_an_ods_are_not_empty(path: Path, error: dict[str, str]) -> None:
    a = {"valuetype": "string", "text": "a"}
    ods(path, [[a], [{}, {"formula": "of:=NA()"} | error, dict(a)]])
    assert rows_of(path) == [(1, ["a", "", ""]), (2, ["", "#N/A", "a"])]


def test_cells_of_an_ods_are_read_as_text(path: Path) -> None:
    cells = [
        {"valuetype": "date", "datevalue": "2026-05-06", "text": "06-05-26"},
        {"valuetype": "date", "datevalue": "2026-05-06T13:05:00", "text": "6 mei"},
        {"valuetype": "float", "value": "7", "text": "7,00"},
        {"valuetype": "string", "text": "0012"},
        {"formula": 'of:=""', "text": ""},
        {"valuetype": "string", "text": "two  words"},
    ]
    ods(path, [cells])
    assert rows_of(path) == [(1, ["2026-05-06", "2026-05-06 13:05:00", "7", "0012", "", "two  words"])]
    assert open_table(path).form == "sheet “Blad1” of an ODS workbook"


def test_formulas_that_nobody_computed_are_refused(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active["C2"] = "=A1"
    workbook.save(path)
    assert refusal(path).startswith("the formula in C2 of sheet “Sheet” has no value yet: open the file in Excel")


def test_a_zero_for_each_formula_is_no_value(path: Path) -> None:
    workbook = xlsxwriter.Workbook(path)
    workbook.add_worksheet().write_formula("B3", "=A1")
    workbook.close()
    assert "the formula in B3" in refusal(path)


def test_formulas_of_a_script_have_no_value(path: Path) -> None:
    workbook = xlwt.Workbook()
    workbook.add_sheet("x").write(3, 2, xlwt.Formula("A1"))
    workbook.save(str(path))
    assert "the formula in C4" in refusal(path)
    ods(path, [[{"formula": "of:=[.B1]"}]])
    assert "the formula in A1" in refusal(path)


def test_a_stray_cell_takes_no_memory(path: Path) -> None:
    xlsx(path, lambda _, sheet: (sheet.write("A1", "x"), sheet.write("XFD1048576", "y")))
    assert "a last cell XFD1048576" in refusal(path)
    ods(path, [[{"numbercolumnsrepeated": "16384", "valuetype": "string", "text": "x"}]])
    replace(path, "content.xml", b"<table:table-row>", b'<table:table-row table:number-rows-repeated="1048576">')
    assert "a last cell XFD1048576" in refusal(path)


def test_a_workbook_that_unpacks_to_too_much_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.manifest.workbook._MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", bytes(1 + (1 << 20)))
    assert path.stat().st_size < 2000
    assert refusal(path) == "is larger than the 0 GB that springest reads: save it as a CSV"


def test_formats_far_from_the_table_do_no_harm(path: Path) -> None:
    def write(workbook: Any, sheet: Any) -> None:
        sheet.write("A1", "x")
        sheet.write_blank("XFD1048576", None, workbook.add_format({"bold": True}))

    xlsx(path, write)
    assert next(open_table(path).rows()) == (1, ["x"])


def test_numbers_that_count_from_1904_are_no_dates(path: Path) -> None:
    def write(workbook: Any, sheet: Any) -> None:
        sheet.write_datetime(0, 0, date(2026, 5, 6), workbook.add_format({"num_format": "d-m-yyyy"}))
        sheet.write(0, 1, 46_000)

    xlsx(path, write, date_1904=True)
    assert rows_of(path) == [(1, ["2026-05-06", "46000"])]
    assert not open_table(path).has_day_numbers
    xlsx(path, write)
    assert rows_of(path) == [(1, ["2026-05-06", "46000"])]
    assert open_table(path).has_day_numbers


def test_an_xls_may_count_from_1904(path: Path) -> None:
    workbook = xlwt.Workbook()
    workbook.add_sheet("x").write(0, 0, 46_000)
    workbook.save(str(path))
    assert open_table(path).has_day_numbers
    workbook.dates_1904 = True
    workbook.save(str(path))
    assert not open_table(path).has_day_numbers


def test_hidden_rows_are_told(path: Path) -> None:
    def write(_: Any, sheet: Any) -> None:
        for row in range(4):
            sheet.write(row, 0, "x")
        sheet.set_row(1, None, None, {"hidden": True})
        sheet.set_row(3, None, None, {"hidden": True})

    xlsx(path, write)
    assert open_table(path).form == "sheet “Blad1” of an XLSX workbook (also its 2 hidden rows)"
    assert len(rows_of(path)) == 4


def test_an_ods_may_count_from_1904(path: Path) -> None:
    ods(path, [[{"valuetype": "float", "value": "46000", "text": "46000"}]])
    assert open_table(path).has_day_numbers
    settings = (
        b'<table:calculation-settings><table:null-date table:date-value="1904-01-01"/></table:calculation-settings>'
    )
    replace(path, "content.xml", b"<office:spreadsheet>", b"<office:spreadsheet>" + settings)
    assert not open_table(path).has_day_numbers


def test_an_xlsx_whose_parts_are_elsewhere_is_read(path: Path) -> None:
    """Other programs write no folder xl, absolute paths, prefixes, and spaces between the tags."""
    xlsx(path, lambda _, sheet: sheet.write("A1", 7))
    sheet = (
        '<x:worksheet xmlns:x="http://schemas.openxmlformats.org/spreadsheetml/2006/main"> <x:sheetData> <x:row r="2">'
        ' <x:c r="B2" t="inlineStr"> <x:is> <x:t>a</x:t> <x:family/> </x:is> </x:c>'
        ' <x:c r="C2" t="e"> <x:v>#REF!</x:v> </x:c> </x:row> </x:sheetData> </x:worksheet>'
    )
    with zipfile.ZipFile(path) as archive:
        contents = {name.removeprefix("xl/"): archive.read(name) for name in archive.namelist()}
    contents["worksheets/sheet1.xml"] = sheet.encode()
    contents["_rels/.rels"] = contents["_rels/.rels"].replace(b'"xl/', b'"/')
    contents["[Content_Types].xml"] = contents["[Content_Types].xml"].replace(b"/xl/", b"/")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    assert rows_of(path) == [(1, [""] * 3), (2, ["", "a", "#REF!"])]


def test_numbers_have_the_digits_of_a_spreadsheet(path: Path) -> None:
    numbers = [0.1 + 0.2, 123456789012345, 1234567890123456, -7.0, 1e-7, 7.10]
    xlsx(path, lambda _, sheet: sheet.write_row(0, 0, numbers))
    assert rows_of(path) == [(1, ["0.3", "123456789012345", "1.23456789012346e+15", "-7", "1e-07", "7.1"])]


def test_times_and_durations_are_no_dates(path: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.active.append([time(3, 4), timedelta(hours=50)])
    workbook.save(path)
    assert rows_of(path) == [(1, ["03:04:00", "2 days, 2:00:00"])]


def test_a_merged_title_is_in_its_first_cell(path: Path) -> None:
    xlsx(path, lambda _, sheet: (sheet.merge_range("A1:C1", "Certificates of 2026"), sheet.write("A2", "x")))
    assert rows_of(path) == [(1, ["Certificates of 2026"]), (2, ["x"])]


MERGED = "(merged with the cell above)"


def test_cells_merged_over_rows_of_an_xlsx_are_not_empty(path: Path) -> None:
    """Whether their value is meant for each row can only be guessed."""

    def write(_: Any, sheet: Any) -> None:
        for row in range(4):
            sheet.write(row, 0, f"r{row + 1}")
        sheet.merge_range("B1:C3", "x")
        sheet.merge_range("D2:E2", "y")
        sheet.merge_range("D3:D4", "")  # shows nothing

    xlsx(path, write)
    assert rows_of(path) == [
        (1, ["r1", "x", "", ""]),
        (2, ["r2", MERGED, MERGED, "y"]),
        (3, ["r3", MERGED, MERGED, ""]),
        (4, ["r4", "", "", ""]),
    ]


def test_cells_merged_over_rows_of_an_xls_are_not_empty(path: Path) -> None:
    workbook = xlwt.Workbook()
    sheet = workbook.add_sheet("Blad1")
    sheet.write(0, 0, "r1")
    sheet.write_merge(0, 1, 1, 1, "x")
    sheet.write(2, 0, "r3")
    workbook.save(str(path))
    assert rows_of(path) == [(1, ["r1", "x"]), (2, ["", MERGED]), (3, ["r3", ""])]


def test_cells_merged_over_rows_of_an_ods_are_not_empty(path: Path) -> None:
    merged = {"numberrowsspanned": "2", "numbercolumnsspanned": "1"}
    text = {"valuetype": "string"}
    ods(path, [[text | {"text": "a"}, text | merged | {"text": "x"}], [text | {"text": "b"}]])
    assert rows_of(path) == [(1, ["a", "x"]), (2, ["b", MERGED])]


def test_many_rows_are_read_again_and_again(path: Path) -> None:
    xlsx(path, lambda _, sheet: [sheet.write_row(row, 0, [str(row), "x" * 900]) for row in range(3000)])
    table = open_table(path)
    first, second = table.rows(), table.rows()
    pairs = list(zip(first, second, strict=True))
    assert [number for (number, _), _ in pairs] == list(range(1, 3001))
    assert all(one == other for one, other in pairs)


def test_a_sheet_is_found_in_any_case(path: Path) -> None:
    xlsx(path, lambda _, sheet: sheet.write("A1", "x"))
    assert rows_of(path, "blad1") == [(1, ["x"])]
    assert refusal(path, "Blad2") == "has no sheet “Blad2”: name one of these with --sheet: “Blad1”"


def test_an_empty_workbook_has_no_rows(path: Path) -> None:
    xlsx(path, lambda _, __: None)
    assert refusal(path) == "is empty: no sheet has any rows"


def test_rows_of_hidden_sheets_must_be_asked_for(path: Path) -> None:
    def write(workbook: Any, sheet: Any) -> None:
        workbook.add_worksheet("visible").activate()
        sheet.write("A1", "x")
        sheet.hide()

    xlsx(path, write)
    assert refusal(path) == "has rows in hidden sheets only: name one of these with --sheet: “Blad1”"
    assert refusal(path, "Visible") == "has an empty sheet “Visible”: name one of these with --sheet: “Blad1”"
    assert rows_of(path, "Blad1") == [(1, ["x"])]


def test_a_workbook_without_the_extra_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xlsx(path, lambda _, sheet: sheet.write("A1", "x"))
    monkeypatch.setitem(sys.modules, "springest_async.manifest.workbook", None)
    assert "pip install 'springest-async[xlsx]' (or save it as “CSV UTF-8” in Excel)" in refusal(path)


def test_a_lock_file_of_excel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "~$lijst.xlsx"
    path.write_bytes(b"\x05HR")
    assert refusal(path).endswith("name the one without “~$”")


def test_a_text_has_no_sheets(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\r\n")
    assert refusal(path, "Blad1") == "is no workbook, so it has no sheets: leave out --sheet"


ENCRYPTED_ODS = {
    "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
    "META-INF/manifest.xml": "<manifest:encryption-data>",
    "content.xml": "?",
}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (ENCRYPTED_ODS, "is protected with a password"),
        ({"xl/workbook.bin": ""}, "is an XLSB workbook: open it in Excel and save it as XLSX"),
        ({"Index/Document.iwa": ""}, "is a spreadsheet of Numbers"),
        ({"word/document.xml": ""}, "is a text of Word"),
        ({"a.pdf": ""}, "is a ZIP and no workbook"),
        ({}, "is a ZIP and no workbook"),
        ({"[Content_Types].xml": ""}, "is damaged"),
        ({"[Content_Types].xml": "", "_rels/.rels": "<"}, "is damaged"),
        ({"[Content_Types].xml": "", "_rels/.rels": "<Relationships/>"}, "is damaged"),
        ({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"}, "is damaged"),
        (ENCRYPTED_ODS | {"META-INF/manifest.xml": "", "content.xml": "<"}, "is damaged"),
    ],
)
def test_zips_that_are_no_workbooks_are_refused(path: Path, members: dict[str, str], expected: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert refusal(path).startswith(expected)


def test_encrypted_workbooks_of_excel_are_refused(path: Path) -> None:
    workbook = xlwt.Workbook()
    workbook.add_sheet("x").write(0, 0, "x")
    workbook.save(str(path))
    content = path.read_bytes()
    name = "Workbook".encode("utf-16-le")
    assert content.count(name) == 1
    path.write_bytes(content.replace(name, "Encrypte".encode("utf-16-le")))
    assert refusal(path).startswith("is damaged")
    at = content.index(name)
    whole = "EncryptedPackage".encode("utf-16-le")
    other = content[:at] + whole + content[at + len(whole) : at + 64] + b"\x22" + content[at + 65 :]
    path.write_bytes(other)
    assert refusal(path).startswith("is protected with a password")
    codepage = b"\x42\x00\x02\x00"  # a record of which an encrypted workbook has another one in its place
    path.write_bytes(content.replace(codepage, b"\x2f\x00\x02\x00"))
    assert refusal(path).startswith("is protected with a password")


@pytest.mark.parametrize("make", [xlsx, "xls"])
def test_no_damage_raises_anything_else(path: Path, make: Any) -> None:
    """A workbook that is cut off or has a wrong byte is read, or refused in words."""
    if make is xlsx:
        xlsx(path, lambda _, sheet: sheet.write_row(0, 0, ["x", 7]))
    else:
        workbook = xlwt.Workbook()
        workbook.add_sheet("x").write(0, 0, "x")
        workbook.save(str(path))
    content = path.read_bytes()
    step = len(content) // 80
    for at in range(0, len(content), step):
        for damaged in (content[:at], content[:at] + b"\xff" + content[at + 1 :]):
            path.write_bytes(damaged)
            with suppress(ManifestError):
                list(open_table(path).rows())


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, 0x7FFFFFFF),  # the first row is behind the last one
        (4, 0x7FFFFFFF),  # the last row
        (8, 0xFF00FF00),  # the first and last column
    ],
)
def test_wrong_sizes_of_an_xls_take_no_memory(path: Path, offset: int, value: int) -> None:
    """Calamine takes the memory for them at once, which ends the process."""
    workbook = xlwt.Workbook()
    workbook.add_sheet("x").write(0, 0, "x")
    workbook.save(str(path))
    content = bytearray(path.read_bytes())
    at = content.index(b"\x00\x02\x0e\x00") + 4 + offset
    content[at : at + 4] = value.to_bytes(4, "little")
    path.write_bytes(content)
    assert "the size of a sheet is wrong" in refusal(path)


def test_an_xls_that_is_cut_off_is_told_once(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where calamine finds out, it also writes a trace to the terminal."""
    workbook = xlwt.Workbook()
    workbook.add_sheet("x").write(0, 0, "x" * 5000)
    workbook.save(str(path))
    content = path.read_bytes()
    for length in range(8, len(content), 100):
        path.write_bytes(content[:length])
        assert refusal(path).startswith("is damaged")
    assert capfd.readouterr().err == ""
