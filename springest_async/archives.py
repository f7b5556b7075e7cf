"""Read files in a ZIP archive without unpacking it: find them by name, and read them in pieces.

The rules are those of PKWARE's APPNOTE (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT). Only the list of
an archive is kept, as 16 bytes for each member, so an archive of a million needs little memory. (`zipfile` makes an
object of each member, again whenever an archive is opened.) Nothing is opened here, and nothing written.
"""

import bz2
import errno
import io
import lzma
import os
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, Self

from attrs import define, frozen

from springest_async.records import shown

MAX_MEMBER_BYTES = 512 * 1024 * 1024
"""A larger member is refused: it has to be unpacked again whenever its file is looked at."""

MAX_RATIO = 100
"""A member that unpacks to more than so many times its size is refused, if it is also larger than `_BOMB_BYTES`."""

_BOMB_BYTES = 10 * 1024 * 1024

MAX_MEMBERS = 5_000_000

_MAX_LISTED = 100_000  # members of an archive in which similar names are looked for

_MAX_DICTIONARY_BYTES = 64 * 1024 * 1024  # which LZMA needs in memory, for each file that is open

_MAX_PLACE = 2**63 - 1

_PIECE = 64 * 1024
_LARGEST_PIECE = 1024 * 1024

_END = struct.Struct("<4s2H2xH2L2x")
_END_64_PLACE = struct.Struct("<4s4xQ4x")
_END_64 = struct.Struct("<4s12x2L8x3Q")
_ENTRY = struct.Struct("<4s4x2H4x3L3H8xL")
_LOCAL = struct.Struct("<4s22x2H")
_LONGEST_COMMENT = 0xFFFF

_ENCRYPTED = 1 << 0
_UTF_8 = 1 << 11
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}


_INCOMPLETE = "is damaged or incomplete: copy or download it again"
_PACKED_OTHERWISE = "is packed with {} in the archive: make a usual ZIP (Deflate), or unpack it and name the folder"
_DAMAGED = "is damaged in the archive: copy or download the archive again, or make it anew"


class ArchiveError(OSError):
    """An archive as a whole cannot be read; `strerror` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, reason)


class NotAnArchiveError(ArchiveError):
    """A file is no ZIP archive; `strerror` says what it is, as far as that shows."""


def _fault(reason: str) -> OSError:
    return OSError(errno.EIO, reason)


@frozen
class Entry:
    """What the list of an archive says of a member.

    Attributes:
        name: with ``/`` between folders; a folder's ends with one.
        raw_name: its bytes, which are repeated in front of the member.
        method: how it is packed: 0 not at all, 8 deflated, 12 with bzip2, 14 with LZMA.
        crc: the CRC-32 of its content.
        packed_size: bytes in the archive.
        size: bytes of its content.
        offset: where it begins, without what stands before the archive.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    offset: int

    @classmethod
    def read(cls, stream: "io.BufferedReader[FileIO]") -> Self:
        """Read the next one of a list.

        Raises:
            OSError: there is none.
        """
        head = stream.read(_ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\x01\x02"):
            raise ArchiveError(_INCOMPLETE)
        _, flags, method, crc, packed_size, size, name_length, extra_length, comment_length, offset = _ENTRY.unpack(
            head
        )
        rest = stream.read(name_length + extra_length + comment_length)
        raw_name, extra = rest[:name_length], rest[name_length : name_length + extra_length]
        fields = dict(_extra_fields(extra)) if extra else {}
        if 0xFFFFFFFF in (size, packed_size, offset):
            large = iter(_numbers(fields.get(0x0001, b"")))
            try:
                size = next(large) if size == 0xFFFFFFFF else size
                packed_size = next(large) if packed_size == 0xFFFFFFFF else packed_size
                offset = next(large) if offset == 0xFFFFFFFF else offset
            except StopIteration:
                raise ArchiveError(_INCOMPLETE) from None
        name = _name(raw_name, flags, fields.get(0x7075, b""))
        return cls(name, raw_name, flags, method, crc, packed_size, size, offset)

    @property
    def is_file(self) -> bool:
        """Whether a manifest can name it: it is no folder, not outside of the archive, and no addition of a Mac."""
        name = self.name
        is_outside = ".." in name and ".." in name.split("/")
        return not (name.endswith("/") or name.startswith("__MACOSX/") or is_outside or "\0" in name)


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        yield kind, extra[4 : 4 + length]
        extra = extra[4 + length :]


def _numbers(field: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{len(field) // 8}Q", field)


def _name(raw: bytes, flags: int, unicode_path: bytes) -> str:
    """Return the name of a member: in UTF-8 if that is what it can be, as most programs of today write, else in cp437.

    macOS writes UTF-8 without saying so. Windows uses backslashes at times.
    """
    if len(unicode_path) > 5 and unicode_path[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
        raw, flags = unicode_path[5:], flags | _UTF_8  # Info-ZIP's Unicode Path Extra Field
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "replace") if flags & _UTF_8 else raw.decode("cp437")
    name = name.replace("\\", "/")
    return "/".join(part for part in name.split("/") if part not in ("", ".")) + ("/" if name.endswith("/") else "")


@define(eq=False)
class Index:
    """Where the members of an archive are listed, by name.

    Attributes:
        before: bytes that stand before the archive, such as a program that unpacks it.
    """

    before: int
    _hashes: "array[int]"
    _positions: "array[int]"
    _folders: frozenset[int]
    _start: int
    _count: int
    _names: Mapping[str, Sequence[str]] | None = None  # in each folder, once somebody has asked

    @classmethod
    def read(cls, stream: FileIO) -> Self:
        """Read the list of an archive.

        Raises:
            NotAnArchiveError: it is no ZIP archive.
            OSError: it cannot be read, or is damaged, one of several parts, or too large.
        """
        start, count, before = _find_list(stream)
        if count > MAX_MEMBERS:
            raise ArchiveError(f"has {count} files; at most {MAX_MEMBERS} are read")
        keys: list[int] = []
        folders = {_hash("")}
        for position, entry in _entries(stream, start, count):
            if entry.is_file:
                keys.append(_hash(entry.name) << 64 | position)
                folder = entry.name
                while (folder := folder.rpartition("/")[0]) and (key := _hash(folder)) not in folders:
                    folders.add(key)
        keys.sort()
        hashes = array("Q", (key >> 64 for key in keys))
        positions = array("Q", (key & _MASK for key in keys))
        return cls(before, hashes, positions, frozenset(folders), start, count)

    def find(self, stream: FileIO, name: str) -> Entry:
        """Return the member of this name.

        Raises:
            FileNotFoundError: there is none.
            OSError: there are two, it is in an archive inside this one, or the archive cannot be read.
        """
        found = [entry for entry in self._candidates(stream, name) if entry.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise _fault(
                f"there are {len(found)} files of this name in the archive: make the ZIP again, with one of them"
            )
        folder = name
        while folder := folder.rpartition("/")[0]:
            if any(entry.name == folder for entry in self._candidates(stream, folder)):
                raise _fault(f"is in {shown(folder)} inside the archive: unpack that first, ZIPs in ZIPs are not read")
        raise FileNotFoundError(errno.ENOENT, "there is no such file in the archive")

    def is_folder(self, name: str) -> bool:
        """Return whether there is a folder of this name; an empty one is the archive itself."""
        return _hash(name) in self._folders

    def _candidates(self, stream: FileIO, name: str) -> Iterator[Entry]:
        wanted = _hash(name)
        number = bisect_left(self._hashes, wanted)
        while number < len(self._hashes) and self._hashes[number] == wanted:
            stream.seek(self._positions[number])
            with _buffered(stream, 256) as reader:
                yield Entry.read(reader)
            number += 1

    def names_in(self, stream: FileIO, folder: str) -> Sequence[str]:
        """Return the names in a folder; none if the archive has more than 100 000 files."""
        if self._names is None:
            self._names = {} if self._count > _MAX_LISTED else self._read_names(stream)
        return self._names.get(folder, ())

    def _read_names(self, stream: FileIO) -> Mapping[str, Sequence[str]]:
        names: dict[str, dict[str, None]] = {}
        for _, entry in _entries(stream, self._start, self._count):
            folder, _, name = entry.name.rpartition("/")
            if entry.is_file and name not in names.setdefault(folder, {}):
                names[folder][name] = None
                while folder:
                    folder, _, name = folder.rpartition("/")
                    names.setdefault(folder, {})[name] = None
        return {folder: tuple(inside) for folder, inside in names.items()}


_MASK = 2**64 - 1


def _hash(name: str) -> int:
    return hash(name) & _MASK


def _find_list(stream: FileIO) -> tuple[int, int, int]:
    """Return where the list of an archive begins, how many entries it has, and what stands before the archive (bytes).

    Raises:
        NotAnArchiveError: it is no ZIP archive.
        OSError: it cannot be read, or is damaged or one of several parts.
    """
    length = stream.seek(0, io.SEEK_END)
    from_end = min(length, _END.size + _LONGEST_COMMENT)
    stream.seek(length - from_end)
    tail = _read_exactly(stream, from_end)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        stream.seek(0)
        raise _no_archive(stream.read(8))
    _, disk, list_disk, count, list_size, list_start = _END.unpack_from(tail, found)
    end = length - from_end + found
    if 0xFFFF in (disk, count) or 0xFFFFFFFF in (list_size, list_start):
        large = _find_large_end(stream, end)
        if large is not None:
            end, disk, list_disk, count, list_size, list_start = large
    if disk or list_disk:
        raise ArchiveError("is one of several parts of a ZIP archive: unpack them, and name the folder")
    before = end - list_size - list_start
    if before < 0:
        raise ArchiveError(_INCOMPLETE)
    return before + list_start, count, before


def _find_large_end(stream: FileIO, end: int) -> tuple[int, int, int, int, int, int] | None:
    if end < _END_64_PLACE.size + _END_64.size:
        return None
    stream.seek(end - _END_64_PLACE.size)
    mark, place = _END_64_PLACE.unpack(_read_exactly(stream, _END_64_PLACE.size))
    if mark != b"PK\x06\x07":
        return None
    # It stands right before its place is told, also if other bytes stand before the archive.
    for start in (end - _END_64_PLACE.size - _END_64.size, place):
        if start > _MAX_PLACE:
            break
        stream.seek(start)
        record = stream.read(_END_64.size)
        if len(record) == _END_64.size and record.startswith(b"PK\x06\x06"):
            _, disk, list_disk, count, list_size, list_start = _END_64.unpack(record)
            return start, disk, list_disk, count, list_size, list_start
    raise ArchiveError(_INCOMPLETE)


def _no_archive(head: bytes) -> ArchiveError:
    if head.startswith(b"PK\x03\x04"):
        return ArchiveError(_INCOMPLETE)
    for mark, kind in ((b"Rar!", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"\x1f\x8b", "gzip")):
        if head.startswith(mark):
            return NotAnArchiveError(f"is a {kind} archive, not a ZIP: unpack it, and name the folder")
    return NotAnArchiveError("is neither a folder nor a ZIP archive")


def _entries(stream: FileIO, start: int, count: int) -> Iterator[tuple[int, Entry]]:
    """Yield the place of each entry of the list, and the entry."""
    stream.seek(start)
    with _buffered(stream, 1024 * 1024) as reader:
        for _ in range(count):
            position = reader.tell()
            yield position, Entry.read(reader)


@contextmanager
def _buffered(stream: FileIO, size: int) -> Iterator["io.BufferedReader[FileIO]"]:
    reader = io.BufferedReader(stream, size)
    try:
        yield reader
    finally:
        reader.detach()


def _read_exactly(stream: FileIO, length: int) -> bytes:
    read = bytearray()
    while len(read) < length:
        piece = stream.read(length - len(read))
        if not piece:
            raise ArchiveError(_INCOMPLETE)
        read += piece
    return bytes(read)


class Member(io.RawIOBase):
    """A file in an archive, unpacked while it is read, from its beginning to its end.

    To go back begins anew. After its last byte it is known to be undamaged. One thread at a time may use it.

    Attributes:
        archive: where the archive is.
        entry: what the list of the archive says of it.
    """

    def __init__(self, stream: FileIO, archive: Path, entry: Entry, before: int) -> None:
        """Take over the open archive, which is closed with this.

        Raises:
            OSError: it cannot be read, and `strerror` says why: it is encrypted, too large, damaged, or packed in a
                way that is not known here.
        """
        super().__init__()
        self._stream = stream
        _refuse_unreadable(entry)
        self.archive = archive
        self.entry = entry
        self._state = state_of(os.fstat(stream.fileno()))
        self._start = _content_start(stream, entry, before)
        self._rewind()

    def _rewind(self) -> None:
        self._stream.seek(self._start)
        self._packed_left = self.entry.packed_size
        self._left = self.entry.size
        self._crc = 0
        self._unpacker = _unpacker(self.entry, self._packed)

    def is_unchanged(self) -> bool:
        """Return whether its archive is still where it was, and the one that was opened."""
        try:
            return state_of(self.archive.stat()) == self._state
        except OSError:
            return False

    def close(self) -> None:
        """Close the archive; closing again does nothing."""
        self._stream.close()
        super().close()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True; what is passed over is read."""
        return True

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self.entry.size - self._left

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place that is counted from the beginning.

        Raises:
            OSError: as `read`.
        """
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a place in an archive is counted from the beginning")
        if offset < self.tell():
            self._rewind()
        while self.tell() < offset and self.read(min(_PIECE, offset - self.tell())):
            pass
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return how many bytes.

        Raises:
            OSError: as `read`.
        """
        view = memoryview(buffer).cast("B")
        piece = self.read(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes (-1: all), or fewer at the end.

        Raises:
            OSError: it cannot be read, or is damaged.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        pieces: list[bytes] = []
        while wanted:
            piece = self._unpack(min(wanted, _LARGEST_PIECE))
            self._crc = zlib.crc32(piece, self._crc)
            self._left -= len(piece)
            wanted -= len(piece)
            pieces.append(piece)
        if not self._left and self._crc != self.entry.crc:
            raise _fault(_DAMAGED)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _unpack(self, most: int) -> bytes:
        """Return the next bytes, at least one.

        Raises:
            OSError: there are no more, though there should be.
        """
        if self._unpacker is None:
            piece = self._packed(most)
        else:
            piece = b""
            while not piece and not self._unpacker.eof:
                wants = self._unpacker.needs_input
                packed = self._packed(_PIECE) if wants else b""
                try:
                    piece = self._unpacker.decompress(packed, most)
                except (zlib.error, lzma.LZMAError, OSError):
                    break
                if not packed and wants == self._unpacker.needs_input:
                    break  # it gets nothing more, and makes nothing more of what it has
        if not piece:
            raise _fault(_DAMAGED)
        return piece

    def _packed(self, most: int) -> bytes:
        piece = self._stream.read(min(most, self._packed_left))
        self._packed_left -= len(piece)
        return piece


class _Inflater:
    """Unpacks what was deflated; used as `bz2.BZ2Decompressor` is."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    def decompress(self, packed: bytes, most: int) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + packed, most)


def _unpacker(
    entry: Entry, read: Callable[[int], bytes]
) -> _Inflater | bz2.BZ2Decompressor | lzma.LZMADecompressor | None:
    """Make what unpacks a member; None if it is not packed. `read` reads from its beginning.

    Raises:
        OSError: the member cannot be read, or is damaged.
    """
    if entry.method == _DEFLATED:
        return _Inflater()
    if entry.method == _BZIP2:
        return bz2.BZ2Decompressor()
    return _lzma_unpacker(read(9)) if entry.method == _LZMA else None


def _lzma_unpacker(head: bytes) -> lzma.LZMADecompressor:
    if len(head) < 9 or head[2:4] != b"\x05\0" or head[4] >= 9 * 5 * 5:
        raise _fault(_DAMAGED)
    dictionary = int.from_bytes(head[5:], "little")
    if dictionary > _MAX_DICTIONARY_BYTES:
        raise _fault(_PACKED_OTHERWISE.format(f"LZMA and a dictionary of {dictionary >> 20} MiB"))
    bits = {"pb": head[4] // 45, "lp": head[4] // 9 % 5, "lc": head[4] % 9}
    settings = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary, **bits}]
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=settings)
    except lzma.LZMAError:
        raise _fault(_DAMAGED) from None


def _refuse_unreadable(entry: Entry) -> None:
    if entry.flags & _ENCRYPTED:
        raise _fault("is protected by a password in the archive: unpack it, and name the folder")
    if entry.method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        kind = _METHODS.get(entry.method, f"method {entry.method}")
        raise _fault(
            f"is packed with {kind} in the archive: make a usual ZIP (Deflate), or unpack it and name the folder"
        )
    if entry.size > MAX_MEMBER_BYTES:
        raise _fault(
            f"is too large to be read from an archive: it has {entry.size >> 20} MiB, and at most"
            f" {MAX_MEMBER_BYTES >> 20} are unpacked each time a file is looked at. Unpack it, and name the folder"
        )
    if entry.size > max(_BOMB_BYTES, MAX_RATIO * entry.packed_size):
        raise _fault(
            f"unpacks to more than {MAX_RATIO} times its size, as no certificate does: if it is one, unpack it, and"
            " name the folder"
        )


def _content_start(stream: FileIO, entry: Entry, before: int) -> int:
    place = before + entry.offset
    if place > _MAX_PLACE:
        raise _fault(_DAMAGED)
    stream.seek(place)
    head = stream.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
        raise _fault(_DAMAGED)
    _, name_length, extra_length = _LOCAL.unpack(head)
    if stream.read(name_length) != entry.raw_name:
        raise _fault(_DAMAGED)
    content: int = place + _LOCAL.size + name_length + extra_length
    return content


# --- the lists that were read ---

State = tuple[int, int, int, int]
"""What shows that an archive is the one that was read, and unchanged: device, inode, size and time."""


def state_of(status: os.stat_result) -> State:
    """Return it from the result of ``stat``."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_MOST_KEPT = 8

_kept: dict[Path, tuple[State, Index]] = {}
_lock = Lock()  # also while a list is read, so that threads that need the same one read it once


def index_of(stream: FileIO, archive: Path) -> Index:
    """Return the list of an open archive, which is read only once as long as it stays the same.

    Raises:
        NotAnArchiveError: it is no ZIP archive.
        OSError: as `Index.read`.
    """
    state = state_of(os.fstat(stream.fileno()))
    with _lock:
        if archive in _kept and _kept[archive][0] == state:
            return _kept[archive][1]
        _kept.pop(archive, None)
        index = Index.read(stream)
        if len(_kept) >= _MOST_KEPT:
            del _kept[next(iter(_kept))]
        if state_of(os.fstat(stream.fileno())) == state:
            _kept[archive] = state, index
        return index


def open_member(stream: FileIO, archive: Path, name: str) -> Member:
    """Open a member of an open archive, which is closed with it.

    Raises:
        NotAnArchiveError: it is no ZIP archive.
        FileNotFoundError: it has no such member.
        OSError: it cannot be read; `strerror` says why.
    """
    index = index_of(stream, archive)
    return Member(stream, archive, index.find(stream, name), index.before)
