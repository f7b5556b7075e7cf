"""The rows of a CSV file, in any form that Excel, LibreOffice, pandas or a database writes.

The separator is ``,``, ``;`` or a tab, or what a first line ``sep=;`` names, which Excel reads and does not show. The
text is UTF-8, UTF-16 or, if it cannot be UTF-8 anywhere, Windows-1252. Quotes stand around cells, as Excel writes them,
and one that would join rows to one is an error; but databases write tabs without quotes. Rows are read in pieces of
64 KiB and have a maximum length, so a million rows take no more memory than ten thousand. What the cells mean is not
known here.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, Self, TextIO

from attrs import evolve, frozen

from springest_async.errors import ManifestError
from springest_async.manifest.table_file import TableFile, opened

_MAX_ROW_CHARS = 128 * 1024  # also Python's limit for one CSV cell
_PIECE_CHARS = 64 * 1024  # read at a time; at most _MAX_ROW_CHARS
_SIGNATURE_CHARS = 16  # a picture and what is not saved completely have a NUL among them
_START_BYTES = 64 * 1024  # that show the encoding and the separator

SEPARATORS = (",", ";", "\t")
"""Those that are known without a line that names one."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NAMES = {"utf-8": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "cp1252": "Windows-1252"}
_NO_TEXT = {
    codecs.BOM_UTF32_LE: "is in UTF-32",
    codecs.BOM_UTF32_BE: "is in UTF-32",
    b"PK\x03\x04": "is a workbook (XLSX or ODS) or a ZIP",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is a workbook (XLS)",
    b"\x09\x00\x04\x00": "is a workbook of Excel 2",
    b"\x09\x02\x06\x00": "is a workbook of Excel 3",
    b"\x09\x04\x06\x00": "is a workbook of Excel 4",
    b"%PDF-": "is a PDF",
    b"{\\rtf": "is a text with formats (RTF)",
    b"\x1f\x8b": "is compressed (gzip)",
    b"Rar!": "is an archive (RAR)",
    b"7z\xbc\xaf": "is an archive (7z)",
    b"SQLite format 3": "is a database (SQLite)",
    b"PAR1": "is a table for programs (Parquet)",
    b"ID;P": "is a table for programs (SYLK)",
}
_MARKUP = re.compile(r"\s*<(?:!doctype|html|head|meta|style|table|\?xml)\b", re.IGNORECASE)
_INSTEAD = "open it in a spreadsheet, and save it as XLSX or as “CSV UTF-8”"

_NOT_IN_WINDOWS = b"\0\x81\x8d\x8f\x90\x9d"
_INVALID_BYTE = re.compile("[\udc80-\udcff]")  # as "surrogateescape" lets it through
_LINE_END = re.compile(r"\r\n?|\n")
_BEYOND_ASCII = re.compile("[^\x00-\x7f\udc80-\udcff]")


@frozen
class CsvTable:
    """A CSV file. Make it with `open`.

    Attributes:
        encoding: Python's name of its encoding.
        bom: whether it begins with a byte order mark.
        separator: of its cells.
        quoted: whether a quote at the beginning of a cell stands around it; else it belongs to the cell.
    """

    encoding: str
    bom: bool
    separator: str
    _file: TableFile
    quoted: bool = True

    has_day_numbers: ClassVar[bool] = False  # in a CSV, a number is no date that somebody has seen
    has_sheets: ClassVar[bool] = False
    real_dates: ClassVar[frozenset[int]] = frozenset()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Find out how a file is written. Unless it is UTF-16, all of it is read for that.

        The separator is the one that is most frequent in the first line.

        Raises:
            ManifestError: when it cannot be read, or is no text.
        """
        with opened(path) as stream:
            file = TableFile.of(path, stream)
            start = stream.read(_START_BYTES)
            for mark, what in _NO_TEXT.items():
                if start.startswith(mark):
                    raise ManifestError(path, f"{what}, not a CSV: {_INSTEAD}")
            encoding = _encoding_of(start)
            if encoding == "utf-8" and not start.startswith(codecs.BOM_UTF8):
                stream.seek(0)
                encoding = _utf_8_or_windows(stream)
        bom = start.startswith(tuple(_MARKS))
        text = start.decode(encoding, "replace").lstrip("\ufeff")
        if "\0" in text[:_SIGNATURE_CHARS]:  # further on, a cell may have one
            raise ManifestError(path, f"is neither text nor a workbook, or is damaged: {_INSTEAD}")
        if _MARKUP.match(text):
            reason = "is a web page or XML, which some systems export with the name of a workbook or CSV"
            raise ManifestError(path, f"{reason}: {_INSTEAD}")
        if named := re.match(r"""sep=(\t|[^\w\s"])[\r\n]""", text):
            return cls(encoding, bom, named[1], file)
        unquoted = re.sub(r'"[^"]*"', "", text).lstrip("\r\n")
        line = re.split(r"[\r\n]", unquoted, maxsplit=1)[0]
        table = cls(encoding, bom, max(SEPARATORS, key=line.count), file)
        if table.separator == "\t" and table._has_stray_quotes:
            return evolve(table, quoted=False)
        return table

    @property
    def _has_stray_quotes(self) -> bool:
        """Whether the quotes cannot all stand around cells; that takes a reading of the whole file."""
        try:
            for _ in self.rows():
                pass
        except _NotQuotedError:
            return True
        except ManifestError:
            pass  # raised again when its row is read
        return False

    def readings(self) -> Iterator[Self]:
        """Yield this table, and the same file with each of the other separators."""
        yield self
        for separator in SEPARATORS:
            if separator != self.separator:
                yield evolve(self, separator=separator, quoted=True)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def form(self) -> str:
        """How the file is written, for people, as in ``CSV in UTF-8, separated by “;”``."""
        separator = "tabs" if self.separator == "\t" else f"“{self.separator}”"
        quotes = "" if self.quoted else ", without quotes around cells"
        return f"CSV in {self.encoding_name}, separated by {separator}{quotes}"

    @property
    def encoding_name(self) -> str:
        """The name of the encoding, for people."""
        return _NAMES[self.encoding]

    @property
    def sha256(self) -> bytes:
        """Read the whole file, and return its SHA-256.

        Raises:
            ManifestError: when it cannot be read, or has changed since `open`.
        """
        return self._file.sha256

    def rows(self) -> Generator[tuple[int, list[str]], None, None]:
        """Yield the number of each row, as a spreadsheet shows it, and its cells. Close the generator to stop early.

        Raises:
            ManifestError: when a row cannot be read, or the file has changed since `open`.
        """
        number = 0  # of the last row that was read
        width = 0  # of the last row that is on one line
        try:
            # "surrogateescape" lets invalid bytes through until their row is read.
            errors = "surrogateescape" if self.encoding == "utf-8" else "strict"
            with (
                opened(self.path) as raw,
                io.TextIOWrapper(io.BufferedReader(raw), self.encoding, errors=errors, newline="") as stream,
            ):
                lines = _Lines(stream, self.separator, self.quoted, lambda: self._file.check(raw, number + 1))
                for cells in lines.rows:
                    if lines.end_row() == 1:
                        width = len(cells)
                    elif _joins_rows(cells, self.separator, width):
                        reason = 'a quote (") in it joins it to the rows below it: delete the quote, or write it twice'
                        raise _NotQuotedError(self.path, f"row {number + 1}: {reason} within quotes around the cell")
                    if not number and cells == ["sep=", ""]:
                        continue
                    number += 1
                    yield number, cells
        except UnicodeEncodeError:
            reason = f"row {number + 1}: the file is not in UTF-8 (in Excel, save it as “CSV UTF-8”)"
            raise ManifestError(self.path, reason) from None
        except UnicodeDecodeError:
            reason = f"after row {number}: the file is not in {self.encoding_name} (in Excel, save it as “CSV UTF-8”)"
            raise ManifestError(self.path, reason) from None
        except csv.Error as error:
            raise _NotQuotedError(self.path, f"row {number + 1} is not valid CSV: {_plain(error)}") from None


def _plain(error: csv.Error) -> str:
    """Return in plain words what the CSV reader says of a row."""
    words = str(error)
    if words == "unexpected end of data":
        return 'a quote (") in it is never closed: delete it, or write it twice within quotes around the cell'
    if "expected after" in words:
        return 'there is text behind the quote (") that ends a cell: write quotes within a cell twice'
    return words


class _NotQuotedError(ManifestError):
    """A row has quotes that do not stand around cells."""


def _joins_rows(cells: list[str], separator: str, width: int) -> bool:
    """Return whether a row of several lines has exactly the separators of as many rows of this width."""
    broken = [(cell, len(_LINE_END.findall(cell))) for cell in cells]
    within = sum(cell.count(separator) for cell, breaks in broken if breaks)
    lines = 1 + sum(breaks for _, breaks in broken)
    return width > 2 and within + len(cells) - 1 == lines * (width - 1)


def _encoding_of(start: bytes) -> str:
    """Return the encoding that the beginning of a file shows: UTF-16, or else UTF-8 for the time being."""
    for mark, encoding in _MARKS.items():
        if start.startswith(mark) and not start.startswith(codecs.BOM_UTF32_LE):
            return encoding
    even, odd = start[:1024:2], start[1:1024:2]
    # Names of columns are ASCII for the most part, so every other byte is a NUL.
    if odd.count(0) > len(odd) // 2 and not even.count(0):
        return "utf-16-le"
    if even.count(0) > len(even) // 2 and not odd.count(0):
        return "utf-16-be"
    return "utf-8"


def _utf_8_or_windows(stream: io.FileIO) -> str:
    """Return ``"cp1252"`` for a text that has letters beyond ASCII of which none is UTF-8, else ``"utf-8"``."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    is_windows = False
    piece = b"-"
    while piece:
        piece = stream.read(_START_BYTES)
        if (text := decoder.decode(piece, final=not piece)).isascii():
            continue
        if _BEYOND_ASCII.search(text.removeprefix("\ufeff")):
            return "utf-8"  # what is invalid beside it is damage
        is_windows = is_windows or _INVALID_BYTE.search(text) is not None
        if any(byte in piece for byte in _NOT_IN_WINDOWS):
            return "utf-8"
    return "cp1252" if is_windows else "utf-8"


class _Lines:
    """The lines of a CSV, many at a time, for a CSV reader; what is wrong in a row is raised when it is its turn.

    Only the CSV reader knows where a row ends. A row that ends in the piece in which it begins is no longer than the
    piece, so only the length of one that goes on in the next is counted. Each piece is checked before any of its rows
    is read: a file that is saved while it is read would let rows shift, and one could come twice.

    Attributes:
        rows: the CSV reader; call `end_row` after each row.
    """

    def __init__(self, stream: TextIO, separator: str, quoted: bool, check: Callable[[], None]) -> None:
        self._stream = stream
        self._check = check
        self._length = 0  # characters of the row that is being read
        self._ended = 0  # how many lines had been read when the last row ended
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        self.rows = csv.reader(chain.from_iterable(self), delimiter=separator, quoting=quoting, strict=True)

    def end_row(self) -> int:
        """Remember that the row that was just read ends here, and return how many lines it has."""
        lines = self._open_lines()
        self._ended = self.rows.line_num
        return lines

    def __iter__(self) -> Iterator[Sequence[str]]:
        rest = ""
        at_start = True
        while True:
            piece = self._stream.read(_PIECE_CHARS)
            self._check()
            text = rest + piece
            if at_start:
                text = text.lstrip("\ufeff")  # a second byte order mark: a file that was saved twice has two
                at_start = False
            lines = io.StringIO(text, newline="").readlines()
            # A line may go on in the next piece, and one that ends with a return may have a newline there.
            rest = lines.pop() if piece and lines and not lines[-1].endswith("\n") else ""
            yield from self._checked(lines, _is_text(text))
            self._refuse_long(rest)
            if not piece:
                return

    def _checked(self, lines: list[str], is_text: bool) -> Iterator[Sequence[str]]:
        for index, line in enumerate(lines):
            if index and is_text and not self._open_lines():
                yield lines[index:]
                self._length = sum(map(len, lines[len(lines) - self._open_lines() :]))
                return
            self._refuse_long(line)
            if not is_text:
                line.encode()  # raises for invalid UTF-8
            self._length += len(line)
            yield (line,)
            if not self._open_lines():
                self._length = 0

    def _open_lines(self) -> int:
        """Return how many lines of an unfinished row the CSV reader has read."""
        return self.rows.line_num - self._ended

    def _refuse_long(self, line: str) -> None:
        if self._length + len(line) > _MAX_ROW_CHARS:
            raise csv.Error(f"it is longer than {_MAX_ROW_CHARS} characters (is a closing quote missing?)")


def _is_text(text: str) -> bool:
    """Return whether all of it was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
