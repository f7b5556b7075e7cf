"""New workbooks, read again with calamine and with openpyxl."""

import gc
import io
from pathlib import Path

import openpyxl
import pytest

from springest_async.manifest import xlsx_rows as module
from springest_async.manifest.table import open_table
from springest_async.manifest.xlsx_rows import xlsx_rows

STRANGE = [
    "0012", "=HYPERLINK(1)", "+1", "-x", "@x", " spaces ", "two\nlines", "a\ttab", "é😀", "_x0041_", "\x01", "<&>\"'",
    "2026-12-31", "TRUE", "1e5", "http://example.nl", "x" * 32_767,
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new.xlsx"


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("wb") as stream, xlsx_rows(stream) as writer:
        for row in rows:
            writer.writerow(row)


def test_cells_come_back_as_they_were_written(path: Path) -> None:
    write(path, [STRANGE, ["", "second"]])
    padding = [""] * (len(STRANGE) - 2)
    assert list(open_table(path).rows()) == [(1, STRANGE), (2, ["", "second", *padding])]


def test_no_cell_is_a_formula_or_a_number(path: Path) -> None:
    write(path, [STRANGE])
    (row,) = openpyxl.load_workbook(path).active.iter_rows()
    assert {cell.data_type for cell in row} == {"s"}
    assert {cell.number_format for cell in row} == {"@"}


def test_a_cell_that_is_too_long_ends_with_dots(path: Path) -> None:
    write(path, [["x" * 32_768]])
    assert list(open_table(path).rows()) == [(1, ["x" * 32_766 + "…"])]


def test_invalid_text_is_escaped(path: Path) -> None:
    write(path, [["a\udc80b"]])
    assert list(open_table(path).rows()) == [(1, ["a\\udc80b"])]


def test_the_same_rows_make_the_same_file(path: Path, tmp_path: Path) -> None:
    write(path, [["a"], ["b"]])
    write(tmp_path / "again.xlsx", [["a"], ["b"]])
    assert path.read_bytes() == (tmp_path / "again.xlsx").read_bytes()


def test_no_temporary_file_is_left(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    write(path, [["a"]])
    stream = io.BytesIO()
    with pytest.raises(TypeError), xlsx_rows(stream) as writer:
        writer.writerow([7])  # type: ignore[list-item]
    assert not list(temporary.iterdir())
    assert not stream.getvalue()


def test_a_sheet_has_a_maximum_of_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 2)
    with pytest.raises(ValueError, match="at most 2 rows"):
        write(path, [["a"], ["b"], ["c"]])


def test_a_full_disk_is_an_os_error() -> None:
    full = Path("/dev/full")
    with full.open("wb", 0) as stream, pytest.raises(OSError, match="No space left"), xlsx_rows(stream) as writer:
        writer.writerow(["a"])
    gc.collect()  # complains of what was not closed
