"""The facts of the sheets of an XLS: BIFF records in a compound file, as [MS-XLS] and [MS-CFB] describe them."""

import struct
from collections.abc import Iterator

from springest_async.manifest.sheet_facts import BadPartError, SheetFacts

_NO_SECTOR = 0xFFFFFFF0  # these numbers and greater ones mean the end of a stream
_ENTRY_BYTES = 128  # of the directory

_BEGIN, _END = 0x0809, 0x000A
_EPOCH, _SHEET, _PASSWORD = 0x0022, 0x0085, 0x002F
_SIZE, _TEXTS = 0x0200, 0x00FC
_MAX_ROWS, _MAX_COLUMNS = 65_536, 256
_FORMULA, _BOOL_OR_ERROR, _ROW, _MERGED = 0x0006, 0x0205, 0x0208, 0x00E5
_CELLS = {_FORMULA, _BOOL_OR_ERROR, 0x0203, 0x0204, 0x00FD, 0x027E, 0x00BD, 0x00D6}
_ERRORS = {0: "#NULL!", 7: "#DIV/0!", 15: "#VALUE!", 23: "#REF!", 29: "#NAME?", 36: "#NUM!", 42: "#N/A"}


class CompoundFile:
    """A file of streams, as XLS and encrypted workbooks are.

    Raises:
        BadPartError: when it is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            self._sector_bytes = 1 << struct.unpack_from("<H", data, 30)[0]
            directory, self._mini_cutoff, mini_fat, more_fat = struct.unpack_from("<I4xII4xI", data, 48)
            fat = list(struct.unpack_from("<109I", data, 76))
            while more_fat < _NO_SECTOR and len(fat) <= len(data):
                *numbers, more_fat = self._numbers(self._sector(more_fat))
                fat.extend(numbers)
            parts = (self._sector(number) for number in fat if number < _NO_SECTOR)
            self._next = self._numbers(b"".join(parts))
            self._streams = dict(self._entries(self._chain(directory)))
            self._mini_next = self._numbers(self._chain(mini_fat))
        except (struct.error, ValueError):
            raise BadPartError("it is cut off") from None

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._streams

    def read(self, name: str) -> bytes:
        """Read a stream.

        Raises:
            BadPartError: when it is cut off, or there is none.
        """
        if name not in self:
            raise BadPartError(f"it has no {name}")
        start, size = self._streams[name.lower()]
        if size >= self._mini_cutoff:
            stream = self._chain(start)
        else:
            small = self._chain(self._streams[""][0])  # the stream of the root, which holds all small ones
            pieces = (small[64 * number : 64 * number + 64] for number in _followed(self._mini_next, start))
            stream = b"".join(pieces)
        if len(stream) < size:  # calamine would not say so
            raise BadPartError("a stream is cut off")
        return stream[:size]

    def _entries(self, directory: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
        for at in range(0, len(directory) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
            name_bytes, kind = struct.unpack_from("<HB", directory, at + 64)
            name = directory[at : at + max(name_bytes - 2, 0)].decode("utf-16-le", "replace")
            if kind:
                yield "" if kind == 5 else name.lower(), struct.unpack_from("<II", directory, at + 116)

    def _chain(self, start: int) -> bytes:
        return b"".join(self._sector(number) for number in _followed(self._next, start))

    def _sector(self, number: int) -> bytes:
        at = (number + 1) * self._sector_bytes
        if at + self._sector_bytes > len(self._data):
            raise BadPartError("it is cut off")
        return self._data[at : at + self._sector_bytes]

    @staticmethod
    def _numbers(data: bytes) -> tuple[int, ...]:
        return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])


def _followed(following: tuple[int, ...], number: int) -> Iterator[int]:
    """Yield the numbers of a chain.

    Raises:
        BadPartError: when it leads out of the file, or in a circle.
    """
    for _ in range(len(following) + 1):
        if number >= _NO_SECTOR:
            return
        if number >= len(following):
            break
        yield number
        number = following[number]
    raise BadPartError("a stream is cut off")


class XlsFacts:
    """Knows the sheets of an XLS.

    Attributes:
        counts_from_1904: whether its numbers of days do, as on an old Mac.
        is_encrypted: whether a password is needed to read it.

    Raises:
        BadPartError: when it is damaged.
    """

    def __init__(self, file: CompoundFile) -> None:
        self._records = memoryview(file.read("Workbook" if "Workbook" in file else "Book"))
        # Excel and LibreOffice always write one. A script that does not writes formulas without their values.
        self._is_from_a_script = "\x05SummaryInformation" not in file
        self.counts_from_1904 = self.is_encrypted = False
        try:
            starts = list(self._global_records())
            self._sheets = [self._look_through(start) for start in starts if not self.is_encrypted]
        except (struct.error, IndexError):
            raise BadPartError("a record is cut off") from None

    def facts(self, index: int) -> SheetFacts:
        """Return what was found in a sheet; the first one has the index 0."""
        return self._sheets[index]

    def _global_records(self) -> Iterator[int]:
        """Read what concerns the whole workbook, and yield where each sheet begins."""
        for kind, data in self._substream(0):
            if kind == _EPOCH:
                self.counts_from_1904 = data[0] == 1
            elif kind == _PASSWORD:
                self.is_encrypted = True
                return  # what comes after it cannot be read
            elif kind == _SHEET:
                yield struct.unpack_from("<I", data)[0]
            elif kind == _TEXTS and struct.unpack_from("<4xI", data)[0] > len(self._records):
                raise BadPartError("its number of texts is wrong")  # calamine would take memory for so many

    def _look_through(self, start: int) -> SheetFacts:
        facts = SheetFacts()
        for kind, data in self._substream(start):
            if kind in _CELLS:
                row, column = struct.unpack_from("<HH", data)
                facts.height = max(facts.height, row + 1)
                facts.width = max(facts.width, column + 1)
                self._look_at(kind, data, row + 1, column + 1, facts)
            elif kind == _ROW:
                facts.hidden_rows += bool(data[12] & 0x20)
            elif kind == _MERGED:
                for first, last, left, right in struct.iter_unpack("<4H", data[2 : len(data) - (len(data) - 2) % 8]):
                    facts.add_merged(first + 1, last + 1, left + 1, right + 1)
            elif kind == _SIZE and len(data) >= 14:
                above, height, left, width = struct.unpack_from("<IIHH", data)
                if not (above <= height <= _MAX_ROWS and left <= width <= _MAX_COLUMNS):
                    raise BadPartError("the size of a sheet is wrong")  # calamine would take memory for it
        if facts.width > _MAX_COLUMNS:
            raise BadPartError("a cell of a sheet is out of bounds")
        return facts

    def _look_at(self, kind: int, data: memoryview, row: int, column: int, facts: SheetFacts) -> None:
        if kind == _BOOL_OR_ERROR and data[7]:
            facts.add_error(row, column, _ERRORS.get(data[6], ""))
        elif kind == _FORMULA and data[12] == data[13] == 0xFF:  # no number
            if data[6] == 2:
                facts.add_error(row, column, _ERRORS.get(data[8], ""))
            elif data[6] == 3 and self._is_from_a_script:
                facts.add_uncomputed(row, column)

    def _substream(self, at: int) -> Iterator[tuple[int, memoryview]]:
        """Yield the kinds and the data of the records from this place on to the end of the part that begins there."""
        depth = 0
        while at + 4 <= len(self._records):
            kind, size = struct.unpack_from("<HH", self._records, at)
            data = self._records[at + 4 : at + 4 + size]
            at += 4 + size
            depth += (kind == _BEGIN) - (kind == _END)
            if not depth:
                return
            if depth == 1:  # within it there may be charts
                yield kind, data
        raise BadPartError("a sheet is cut off")
