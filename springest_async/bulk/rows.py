"""Sets of rows, by their numbers, in an eighth of a byte for each row of a manifest."""

import hashlib
from collections.abc import Iterator


class RowSet:
    """A set of numbers of rows. A million rows need 125 KB, however many of them are in it."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, row: int) -> None:
        """Add a row; twice is as once."""
        index, bit = row >> 3, 1 << (row & 7)
        if index >= len(self._bits):
            self._bits.extend(bytes(index + 1 - len(self._bits)))
        if not self._bits[index] & bit:
            self._bits[index] |= bit
            self._count += 1

    def discard(self, row: int) -> None:
        """Remove a row, if it is in the set."""
        if row in self:
            self._bits[row >> 3] ^= 1 << (row & 7)
            self._count -= 1

    @property
    def digest(self) -> bytes:
        """A digest that two sets share only if they have the same rows."""
        return hashlib.sha256(self._bits.rstrip(b"\0")).digest()

    def __or__(self, other: "RowSet") -> "RowSet":
        both = RowSet()
        for row in (*self, *other):
            both.add(row)
        return both

    def __contains__(self, row: int) -> bool:
        index = row >> 3
        return index < len(self._bits) and bool(self._bits[index] & 1 << (row & 7))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """Yield the rows in order."""
        for index, bits in enumerate(self._bits):
            if bits:
                yield from (index << 3 | place for place in range(8) if bits & 1 << place)
