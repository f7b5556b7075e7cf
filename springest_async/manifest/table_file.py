"""The file of a table on the disk: opened without ever blocking, and not to change while it is read."""

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Self

from attrs import frozen

from springest_async.errors import ManifestError
from springest_async.source_file import SourceFile, open_regular, why_unreadable


@contextmanager
def opened(path: Path) -> Generator[FileIO, None, None]:
    """Open a file for reading, and translate what fails within the block.

    Raises:
        ManifestError: when it cannot be opened or read.
    """
    try:
        with open_regular(path) as stream:
            yield stream
    except FileNotFoundError:
        raise ManifestError(path, "there is no such file: check its name and folder") from None
    except IsADirectoryError:
        reason = f"is a folder: name the spreadsheet in it, or make one with springest template {path}"
        raise ManifestError(path, reason) from None
    except OSError as error:
        raise ManifestError(path, why_unreadable(error)) from None


@frozen
class TableFile:
    """A file as it was when it was opened first."""

    source: SourceFile

    @classmethod
    def of(cls, path: Path, stream: FileIO) -> Self:
        """Remember an open file as it is now."""
        return cls(SourceFile.at(path, os.fstat(stream.fileno())))

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.source.path

    @property
    def sha256(self) -> bytes:
        """Read the whole file, and return its SHA-256.

        Raises:
            ManifestError: when it cannot be read, or has changed since it was opened first.
        """
        with opened(self.path) as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
            self.check(stream)
        return digest

    def check(self, stream: FileIO, before_row: int = 1) -> None:
        """Check that an open file is still the same.

        Raises:
            ManifestError: when it has changed since it was opened first; it names the row that would have been next.
        """
        if not self.source.is_still(stream):
            reason = f"was changed while springest was reading it (before row {before_row}): run the same command again"
            raise ManifestError(self.path, reason)
