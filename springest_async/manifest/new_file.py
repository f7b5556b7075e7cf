"""A new file that is there whole or not at all, and that only its owner can read."""

import errno
import filecmp
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attrs import define

from springest_async.random_names import random_name

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}  # FAT, some shares


@define(eq=False)
class NewFile:
    """A file that is being written. It has no name of its own before `publish`.

    Attributes:
        stream: writes its bytes.
    """

    stream: IO[bytes]
    _hidden: Path

    def equals(self, path: Path) -> bool:
        """Return whether a file has the same content as this one, as far as it is written."""
        self.stream.flush()
        return path.is_file() and filecmp.cmp(self._hidden, path, shallow=False)

    def publish(self, paths: Iterable[Path]) -> Path:
        """Close the file, and name it with the first of these paths that is free. Nothing is overwritten.

        Raises:
            FileExistsError: when none of them is free.
            OSError: when it cannot be written.
        """
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        for path in paths:
            try:
                _name(self._hidden, path)
            except FileExistsError:
                continue
            return path
        raise FileExistsError(errno.EEXIST, "exists already")


@contextmanager
def new_file(folder: Path) -> Generator[NewFile, None, None]:
    """Write a file in a folder. Without `NewFile.publish`, nothing is left of it.

    Usage::

        with new_file(folder) as file:
            file.stream.write(b"all of it")
            file.publish([folder / "name.csv", folder / "name-2.csv"])

    Raises:
        OSError: when there can be no file in that folder.
    """
    hidden = folder / f".springest-{random_name()}.part"
    descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield NewFile(stream, hidden)
    finally:
        hidden.unlink(missing_ok=True)


def _name(hidden: Path, path: Path) -> None:
    """Name a file, unless there is one of that name.

    Raises:
        FileExistsError: there is one.
    """
    try:
        os.link(hidden, path)  # unlike a renaming, it never overwrites
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists already") from None
        hidden.rename(path)
