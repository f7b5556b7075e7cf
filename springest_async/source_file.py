"""Open files without ever blocking, and recognise a file that has changed since it was checked.

The content of a file is not looked at here.
"""

import asyncio
import errno
import os
from concurrent.futures import Executor
from io import FileIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Self

from attrs import frozen

from springest_async.errors import UnusableFile


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
