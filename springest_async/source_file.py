"""Open files without ever blocking, read them in pieces, and notice a file that has changed since it was checked.

What is in them means nothing here.
"""

import asyncio
import errno
import os
import threading
import time
from concurrent.futures import Executor
from io import FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Self

from attrs import define, field, frozen

from springest_async.errors import UnusableFile

PIECE = 1024 * 1024
"""Bytes that are read at once: certificates are 30 KB to 2 MB, so most are read in one hop to a thread."""

_FRESH_SECONDS = 1.0


@frozen
class SourceFile:
    """A file as it was when it was checked: its path, and what shows whether it has changed since.

    Attributes:
        size: in bytes.
        modified_ns: ``st_mtime_ns``.
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

    def is_still(self, stream: FileIO) -> bool:
        """Return whether an open file is the one that was checked, and unchanged."""
        return SourceFile.at(self.path, os.fstat(stream.fileno())) == self


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
    _stream: FileIO
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
            stream = open_regular(path)
        except OSError as error:
            raise UnusableFile(path, error.strerror or "cannot be opened") from None
        try:
            source = SourceFile.at(path, os.fstat(stream.fileno()))
            _refuse_other(source, expected)
            reader = cls(source, source.size, stream)
            reader.beginning = reader.read()
        except OSError as error:
            stream.close()
            raise UnusableFile(path, error.strerror or "cannot be read") from None
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
            raise UnusableFile(path, error.strerror or "cannot be read") from None
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
        with open_regular(path) as stream:
            status = os.fstat(stream.fileno())
    except OSError as error:
        raise UnusableFile(path, error.strerror or "cannot be opened") from None
    if status.st_size == 0:
        raise UnusableFile(path, "is empty")
    return SourceFile.at(path, status)
