"""Write rows as an XLSX workbook that any spreadsheet opens, in the memory of one row.

All cells are text, also those that look like numbers, dates or formulas: Excel changes none of them.
"""

import errno
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Protocol

import xlsxwriter
from xlsxwriter.exceptions import FileCreateError, FileSizeError

MAX_ROWS = 1_048_576
"""Of a sheet, with its header."""

_MAX_CHARS = 32_767  # of a cell
_WIDTH = 24  # of a column, in characters
_MADE = datetime(2000, 1, 1)  # noqa: DTZ001 # the same rows make the same file, whenever it is written
_ALL_CELLS = "A1:XFD1048576"


class RowWriter(Protocol):
    """Writes rows of cells, as `csv.writer` does."""

    def writerow(self, row: Iterable[str], /) -> object:
        """Write a row."""


class _SheetWriter:
    def __init__(self, workbook: xlsxwriter.Workbook, name: str) -> None:
        self.sheet = workbook.add_worksheet(name)
        self.sheet.freeze_panes(1, 0)
        self.sheet.ignore_errors({"number_stored_as_text": _ALL_CELLS})
        self._text = workbook.add_format({"num_format": "@"})
        self._title = workbook.add_format({"num_format": "@", "bold": True})
        self._rows = 0

    def writerow(self, row: Iterable[str], /) -> None:
        """Write a row. The first one has the titles of the columns.

        Raises:
            ValueError: when a sheet cannot have so many rows.
        """
        if self._rows == MAX_ROWS:
            raise ValueError(f"a sheet has at most {MAX_ROWS} rows: write a CSV")
        cells = list(row)
        if not self._rows:
            self.sheet.set_column(0, max(len(cells) - 1, 0), _WIDTH)
        for column, cell in enumerate(cells):
            if cell:
                self.sheet.write_string(self._rows, column, _storable(cell), self._text if self._rows else self._title)
        self._rows += 1


class _Target:
    """The stream that a workbook is written to. After an error it takes everything, and writes nothing.

    XlsxWriter does not close the ZIP whose writing failed, so Python does when it frees it, and complains again.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream: IO[bytes] | None = stream

    def write(self, piece: bytes) -> int:
        return self._do(lambda stream: stream.write(piece))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._do(lambda stream: stream.seek(offset, whence))

    def tell(self) -> int:
        return self._do(lambda stream: stream.tell())

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def _do(self, function: Callable[[IO[bytes]], int]) -> int:
        if self._stream is None:
            return 0
        try:
            return function(self._stream)
        except OSError:
            self._stream = None
            raise


@contextmanager
def xlsx_rows(stream: IO[bytes], sheet: str = "certificates") -> Generator[RowWriter, None, None]:
    """Write a workbook of one sheet to a stream; its rows stay in temporary files until the block ends.

    Args:
        stream: of a new file. Nothing is written to it if the block raises.
        sheet: its name.

    Raises:
        OSError: when the stream or the temporary files cannot be written.
        ValueError: when a sheet cannot have so many rows.
    """
    with tempfile.TemporaryDirectory(prefix="springest-") as folder:
        options = {"constant_memory": True, "tmpdir": folder}
        workbook = xlsxwriter.Workbook(_Target(stream), options)
        workbook.set_properties({"created": _MADE})
        writer = _SheetWriter(workbook, sheet)
        try:
            yield writer
            workbook.close()
        except FileCreateError as error:
            raise error.args[0] from None
        except FileSizeError:
            raise OSError(errno.EFBIG, "is too large for a workbook: write a CSV") from None
        finally:
            writer.sheet.row_data_fh.close()


def _storable(cell: str) -> str:
    """Return a text that a cell can hold: as long as it may be, and with escapes for what is no text in XML."""
    text = cell if len(cell) <= _MAX_CHARS else f"{cell[: _MAX_CHARS - 1]}…"
    return text.encode("utf-8", "backslashreplace").decode()
