"""The rows of CSV files: what quotes mean in them."""

from pathlib import Path

import pytest

from springest_async.errors import ManifestError
from springest_async.manifest.csv_table import CsvTable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


def rows_of(path: Path, text: str) -> list[list[str]]:
    path.write_bytes(text.encode())
    return [cells for _, cells in CsvTable.open(path).rows()]


HEADER = ["name", "file", "remark"]


@pytest.mark.parametrize(
    "rows",
    [
        [["Jan", "1.pdf", '"good'], ["Piet", "2.pdf", ""], ["An", "3.pdf", 'very good"']],
        [['"Jan" Jansen', "1.pdf", ""]],
        [["Jan", "1.pdf", '"never closed'], ["Piet", "2.pdf", ""]],
        [['"Jan', "1.pdf", ""], ["Piet", '2.pdf"', ""]],
    ],
)
def test_tabs_without_quotes_keep_every_row(path: Path, rows: list[list[str]]) -> None:
    text = "".join("\t".join(row) + "\n" for row in [HEADER, *rows])
    assert rows_of(path, text) == [HEADER, *rows]
    assert CsvTable.open(path).form == "CSV in UTF-8, separated by tabs, without quotes around cells"


def test_tabs_with_quotes_are_read_as_excel_writes_them(path: Path) -> None:
    text = 'name\tfile\tremark\n"Jan ""J"" Jansen"\t1.pdf\t"two\nlines"\n'
    assert rows_of(path, text) == [HEADER, ['Jan "J" Jansen', "1.pdf", "two\nlines"]]
    assert CsvTable.open(path).form == "CSV in UTF-8, separated by tabs"


@pytest.mark.parametrize(
    "lines",
    [
        ['Jan;1.pdf;"good', "Piet;2.pdf;", 'An;3.pdf;very good"'],
        ['"Jan;1.pdf;', 'Piet";2.pdf;'],
        ['Jan;"1.pdf;', 'Piet;2.pdf;"'],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_that_joins_rows_is_an_error(path: Path, lines: list[str], end: str) -> None:
    text = end.join(["name;file;remark", "Bo;0.pdf;x", *lines, ""])
    with pytest.raises(ManifestError, match=r"row 3: a quote \(\"\) in it joins it to the rows below it"):
        rows_of(path, text)


@pytest.mark.parametrize("remark", ["two\nlines", "one; two\nlines", "a\nb\nc", "a;b;c;d\ne"])
def test_a_cell_of_several_lines_joins_no_rows(path: Path, remark: str) -> None:
    assert rows_of(path, f'name;file;remark\nJan;1.pdf;"{remark}"\n') == [HEADER, ["Jan", "1.pdf", remark]]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<html><table><tr><td>file</td></tr></table></html>", "is a web page or XML"),
        (b"\r\n<!DOCTYPE HTML>", "is a web page or XML"),
        ("\ufeff<table>".encode("utf-16-le"), "is a web page or XML"),
        (b'<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?>', "is a web page or XML"),
        (b"\x09\x04\x06\x00\x00\x00\x10\x00", "is a workbook of Excel 4, not a CSV"),
        (b"ID;PWXL;N;E", "is a table for programs (SYLK), not a CSV"),
        (b"%PDF-1.4", "is a PDF, not a CSV"),
        ("a,b".encode("utf-32"), "is in UTF-32, not a CSV"),
        (bytes(5000), "is neither text nor a workbook"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "is neither text nor a workbook"),
    ],
)
def test_what_is_no_csv_is_refused(path: Path, content: bytes, what: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        CsvTable.open(path)
    assert caught.value.reason.startswith(what)
    assert caught.value.reason.endswith("open it in a spreadsheet, and save it as XLSX or as “CSV UTF-8”")


def test_a_name_in_angle_brackets_is_no_web_page(path: Path) -> None:
    assert rows_of(path, "<name>,b,c\n") == [["<name>", "b", "c"]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('"Jan;1.pdf', 'a quote (") in it is never closed: delete it, or write it twice within quotes around the cell'),
        ('"Jan" J;1.pdf', 'there is text behind the quote (") that ends a cell: write quotes within a cell twice'),
        ("x" * 200_000, "it is longer than 131072 characters (is a closing quote missing?)"),
    ],
)
def test_a_row_that_is_no_csv_is_told(path: Path, row: str, reason: str) -> None:
    with pytest.raises(ManifestError) as caught:
        rows_of(path, f"name;file\n{row}\n")
    assert caught.value.reason == f"row 2 is not valid CSV: {reason}"


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="is a folder: name the spreadsheet in it, or make one with springest template"
    ):
        CsvTable.open(tmp_path)
