"""A file that is to be sent, as it was when it was looked at: opened without ever waiting, and known again.

What it contains is nobody's business here.
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

__all__ = ["SourceFile", "inspect_file", "open_regular"]


@frozen
class SourceFile:
    """A file as it was when it was looked at: where it is, and what tells whether its content is still the same."""

    path: Path
    size: int
    modified_ns: int
    inode: int
    device: int

    @classmethod
    def at(cls, path: Path, status: os.stat_result) -> Self:
        """Make one of what ``stat`` says."""
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    def is_still(self, stream: FileIO) -> bool:
        """Say whether an open file is the one that was looked at, with the same content."""
        return SourceFile.at(self.path, os.fstat(stream.fileno())) == self


def open_regular(path: Path) -> FileIO:
    """Open a file for reading, unbuffered, and never wait: a pipe in its place would wait for a writer for ever.

    Raises:
        OSError: when it cannot be opened; `strerror` says why, also of folders, pipes, devices, and of names that no
            file can have.
    """
    try:
        _refuse_irregular(path.stat().st_mode)  # before it is opened, because to open a device is to use it
        stream = FileIO(path, opener=_without_waiting)
    except ValueError:  # a NUL in the path
        raise OSError(errno.EINVAL, "is no name that a file can have") from None
    try:
        _refuse_irregular(os.fstat(stream.fileno()).st_mode)  # something else may have been put in its place
    except OSError:
        stream.close()
        raise
    return stream


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _refuse_irregular(mode: int) -> None:
    if S_ISDIR(mode):
        raise OSError(errno.EISDIR, "is a folder")
    if not S_ISREG(mode):
        raise OSError(errno.EINVAL, "is no regular file")


async def inspect_file(path: Path, executor: Executor | None) -> SourceFile:
    """Look at a file that is to be sent, in a thread of this executor (None: the default one).

    Raises:
        UnusableFile: when it is no readable file, or empty.
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
