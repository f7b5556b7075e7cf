"""Open files without ever blocking, read them in pieces, and notice a file that has changed since it was checked.

A file in a ZIP archive is a file too: its path leads through the archive as if that were a folder. What is in the files
means nothing here.
"""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Self

from attrs import define, field, frozen

from springest_async import archives
from springest_async.archives import ArchiveError, Member, NotAnArchiveError
from springest_async.errors import UnusableFile

PIECE = 1024 * 1024
"""Bytes that are read at once: certificates are 30 KB to 2 MB, so most are read in one hop to a thread."""

_FRESH_SECONDS = 1.0

_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such folder",
    errno.EISDIR: "is a folder",
    errno.EACCES: "may not be read: permission denied",
    errno.EPERM: "may not be read: permission denied",
    errno.ELOOP: "is a link that leads in a circle",
    errno.ENAMETOOLONG: "its name is too long",
}


def why_unreadable(error: OSError) -> str:
    """Return why a file or folder cannot be read: what the system says is for programmers, and in its language."""
    number = error.errno or 0
    if error.strerror and error.strerror != os.strerror(number) and getattr(error, "winerror", None) is None:
        return error.strerror  # our own words
    said = f" ({error.strerror})" if error.strerror else ""
    return _REASONS.get(number, f"cannot be read{said}")


@frozen
class SourceFile:
    """A file as it was when it was checked: its path, and what shows whether it has changed since.

    Attributes:
        size: in bytes.
        modified_ns: ``st_mtime_ns``. A file in an archive has no time that shows a change, so it has a number that
            stands for its checksum; its inode and device are 0. It stays the same when others are added to the archive.
    """

    path: Path
    size: int
    modified_ns: int
    inode: int
    device: int

    @classmethod
    def at(cls, path: Path, status: os.stat_result) -> Self:
        """Make one from the result of ``stat``."""
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    @classmethod
    def of(cls, path: Path, stream: "SourceStream") -> Self:
        """Make one from an open file.

        Raises:
            OSError: when it cannot be looked at.
        """
        if isinstance(stream, Member):
            return cls.listed(path, stream.entry)
        return cls.at(path, os.fstat(stream.fileno()))

    @classmethod
    def look(cls, path: Path) -> Self:
        """Make one from a path; the file is not opened.

        Raises:
            OSError: when there is no such file, or it cannot be looked at.
            ValueError: when the path contains a NUL.
        """
        try:
            return cls.at(path, path.stat())
        except _NO_FOLDER as error:
            stream, archive, name = _open_archive(path, error)
            with stream, _says_which(error):
                return cls.listed(path, archives.index_of(stream, archive).find(stream, name))

    @classmethod
    def listed(cls, path: Path, entry: archives.Entry) -> Self:
        """Make one of a file in an archive from what the archive's list says of it."""
        # No two checksums are within 2 s, which is how exactly times are compared, and all of them are before 1963.
        return cls(path, entry.size, -(2**63) + entry.crc * 2_100_000_000, 0, 0)

    def is_still(self, stream: "SourceStream") -> bool:
        """Return whether an open file is the one that was checked, and unchanged, and so is its archive, if any."""
        return SourceFile.of(self.path, stream) == self and not (
            isinstance(stream, Member) and not stream.is_unchanged()
        )


SourceStream = FileIO | Member
"""An open file on a disk, or in an archive."""

# Windows says of "certificates.zip\\jan.pdf" that there is no such file.
_NO_FOLDER = (NotADirectoryError, FileNotFoundError)


def open_source(path: Path) -> SourceStream:
    """Open a file for reading, as `open_regular`, or one in an archive.

    Raises:
        OSError: as `open_regular`, or the file cannot be read from the archive; `strerror` says why.
    """
    try:
        return open_regular(path)
    except _NO_FOLDER as error:
        stream, archive, name = _open_archive(path, error)
        try:
            with _says_which(error):
                return archives.open_member(stream, archive, name)
        except BaseException:
            stream.close()
            raise


def _open_archive(path: Path, missing: OSError) -> tuple[FileIO, Path, str]:
    """Open the file in this path that may be an archive; return it, where it is, and the rest of the path.

    Raises:
        OSError: `missing` if there is no file in the path, or the file cannot be opened.
    """
    text = str(path)
    end = len(text)
    while (end := text.rfind(os.sep, 0, end)) > 0:  # of `Path.parents`, each costs as much as all else here
        try:
            status = os.stat(text[:end])  # noqa: PTH116 (as above)
        except _NO_FOLDER:
            continue
        if not S_ISREG(status.st_mode):
            break
        archive = Path(text[:end])
        return open_regular(archive), archive, text[end + 1 :].replace(os.sep, "/")
    raise missing


@contextmanager
def _says_which(missing: OSError) -> Iterator[None]:
    """Raise what is wrong with an archive as a fault of a file in it; `missing` if there is no archive."""
    try:
        yield
    except NotAnArchiveError:
        raise missing from None
    except ArchiveError as error:
        raise OSError(error.errno, f"its archive {error.strerror}") from None


def size_of(stream: SourceStream) -> int:
    """Return how many bytes an open file has.

    Raises:
        OSError: when it cannot be looked at.
    """
    return stream.entry.size if isinstance(stream, Member) else os.fstat(stream.fileno()).st_size


def exists(path: Path) -> bool:
    """Return whether there is something of this name, if only a link that leads nowhere, on a disk or in an archive."""
    if os.path.lexists(path):
        return True
    with suppress(OSError, ValueError):
        SourceFile.look(path)
        return True
    return is_folder(path)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder of this name, on a disk or in an archive."""
    try:
        status = path.stat()
    except _NO_FOLDER as error:
        with suppress(OSError):
            stream, archive, name = _open_archive(path, error)
            with stream:
                return archives.index_of(stream, archive).is_folder(name)
        return False
    except (OSError, ValueError):
        return False
    return S_ISDIR(status.st_mode)


def check_folder(path: Path) -> None:
    """Check that a manifest's files can be in here: that it is a folder, or a ZIP archive, or a folder in one.

    Raises:
        OSError: it is none of these, or cannot be read; `strerror` says why.
    """
    try:
        stream = open_regular(path)
    except IsADirectoryError:
        return
    except _NO_FOLDER as error:
        stream, archive, name = _open_archive(path, error)
        with stream, _says_which(error):
            index = archives.index_of(stream, archive)
            if index.is_folder(name):
                return
            with suppress(FileNotFoundError):
                index.find(stream, name)
                raise OSError(errno.EIO, "is in an archive: unpack that first, ZIPs in ZIPs are not read") from None
            raise OSError(errno.EIO, "there is no such folder in the archive") from None
    with stream:
        archives.index_of(stream, path)


def names_in(folder: Path) -> Iterator[str]:
    """Yield the names in a folder, on a disk or in an archive.

    Raises:
        OSError: it cannot be read.
        ValueError: the path contains a NUL.
    """
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
    except _NO_FOLDER as error:
        stream, archive, name = _open_archive(folder / "*", error)
        with stream:
            yield from archives.index_of(stream, archive).names_in(stream, "" if name == "*" else name[:-2])


def open_regular(path: Path) -> FileIO:
    """Open a file for reading, unbuffered, and never block: opening a pipe would wait for a writer for ever.

    Raises:
        OSError: when it cannot be opened, is a folder, pipe or device, or its name is invalid; `strerror` says which.
    """
    try:
        _refuse_irregular(path.stat().st_mode)  # before opening it: opening a device may have effects
        stream = FileIO(path, opener=_open_without_blocking)
    except ValueError:  # a NUL in the path
        raise OSError(errno.EINVAL, "is not a valid file name") from None
    try:
        _refuse_irregular(os.fstat(stream.fileno()).st_mode)  # it may have been replaced meanwhile
    except OSError:
        stream.close()
        raise
    return stream


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _refuse_irregular(mode: int) -> None:
    if S_ISDIR(mode):
        raise OSError(errno.EISDIR, "is a folder")
    if not S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file")


@define(eq=False)
class FileReader:
    """A file that is being read to be sent.

    Attributes:
        source: the file as it was when it was opened.
        left: how many bytes of it have not been read.
        beginning: its first piece, which is all of it if nothing is left.
        opened_at: when it was opened, on the clock of `time.monotonic`.
    """

    source: SourceFile
    left: int
    _stream: SourceStream
    beginning: bytes = b""
    opened_at: float = field(factory=time.monotonic)

    @property
    def is_fresh(self) -> bool:
        """Whether its beginning may be sent as it was read: else the file is opened again, and seen to be the same."""
        return bool(self.beginning) and time.monotonic() - self.opened_at < _FRESH_SECONDS

    @classmethod
    def open(cls, path: Path, expected: SourceFile | None = None) -> Self:
        """Open a file and read its beginning; a file that is read whole is closed.

        Args:
            path: the file.
            expected: the file as it was when it was checked, if it was.

        Raises:
            UnusableFile: when it cannot be read, is not a regular file, is empty, or has changed since it was checked.
        """
        try:
            stream = open_source(path)
        except OSError as error:
            raise UnusableFile(path, why_unreadable(error)) from None
        try:
            source = SourceFile.of(path, stream)
            _refuse_other(source, expected)
            reader = cls(source, source.size, stream)
            reader.beginning = reader.read()
        except OSError as error:
            stream.close()
            raise UnusableFile(path, why_unreadable(error)) from None
        except BaseException:
            stream.close()
            raise
        return reader

    def read(self) -> bytes:
        """Read the next piece, and close the file after the last one.

        Raises:
            UnusableFile: when it cannot be read, or has changed since it was opened.
        """
        path = self.source.path
        try:
            piece = self._stream.read(min(self.left, PIECE))
            # The last look is after the last read: what was written in between cannot go out as a mixture unnoticed.
            unchanged = len(piece) < self.left or self.source.is_still(self._stream)
        except OSError as error:
            raise UnusableFile(path, why_unreadable(error)) from None
        if not piece:
            raise UnusableFile(path, "became shorter while it was being read")
        self.left -= len(piece)
        if not self.left:
            self._stream.close()
        if not unchanged:
            raise UnusableFile(path, "changed while it was being read")
        return piece

    def close(self) -> None:
        """Close the file, and forget what was read of it; closing again does nothing."""
        self._stream.close()
        self.beginning = b""  # else it would stay until a garbage collection finds what still knows this reader


def _refuse_other(source: SourceFile, expected: SourceFile | None) -> None:
    if expected is not None and source != expected:
        raise UnusableFile(source.path, "changed between its check and its sending")
    if source.size == 0:
        raise UnusableFile(source.path, "is empty")


async def open_file(path: Path, executor: Executor, expected: SourceFile | None = None) -> FileReader:
    """Open a file in a thread of this executor, and read its beginning; see `FileReader.open`.

    Raises:
        UnusableFile: as `FileReader.open`.
    """
    opening = _Opening(path, expected)
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, opening.run)
    except BaseException:
        opening.abandon()
        raise


@define(eq=False)
class _Opening:
    """A file that a thread opens for a task. If the task is cancelled meanwhile, the one that ends last closes it."""

    path: Path
    expected: SourceFile | None
    _reader: FileReader | None = field(default=None, init=False)
    _abandoned: bool = field(default=False, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def run(self) -> FileReader:
        reader = FileReader.open(self.path, self.expected)
        with self._lock:
            self._reader = reader
            if self._abandoned:
                reader.close()
        return reader

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._reader is not None:
                self._reader.close()


async def inspect_file(path: Path, executor: Executor | None) -> SourceFile:
    """Check a file before it is sent, in a thread of this executor (None: the default one).

    Raises:
        UnusableFile: when it cannot be read, is not a regular file, or is empty.
    """
    return await asyncio.get_running_loop().run_in_executor(executor, _inspect, path)


def _inspect(path: Path) -> SourceFile:
    try:
        with open_source(path) as stream:
            source = SourceFile.of(path, stream)
    except OSError as error:
        raise UnusableFile(path, why_unreadable(error)) from None
    if source.size == 0:
        raise UnusableFile(path, "is empty")
    return source
