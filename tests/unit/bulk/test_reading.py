"""A file of a bulk run is read once before it is sent: the hash of the whole file, as it is now, identifies it."""

import hashlib
import os
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from springest_async import UnusableFile
from springest_async.bulk import queue
from springest_async.journal.records import FileHash


class HaltingFile(FileIO):
    """A file of which the system reads less at once than was asked for, as some network disks do."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size, 1000) if size and size > 0 else 1000) or b""

    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[:1000]) or 0


@pytest.mark.parametrize("size", [10_000, 1_500_000])
def test_a_file_that_is_read_little_by_little_is_hashed_whole(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(size) + b"%%EOF")
    monkeypatch.setattr(queue, "open_regular", HaltingFile)

    assert queue._read(path, None)[1] == hashlib.sha256(path.read_bytes()).digest()


def test_a_hash_counts_only_for_a_file_of_the_same_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(1000) + b"%%EOF")
    status = path.stat()
    known = FileHash(status.st_size, status.st_mtime_ns, b"known before")

    assert queue._read(path, known)[1] == b"known before"
    os.utime(path, ns=(1, status.st_mtime_ns + 1))
    assert queue._read(path, known)[1] == hashlib.sha256(path.read_bytes()).digest()


def test_a_file_that_changes_while_it_is_hashed_is_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            os.utime(path, ns=(1, 1))
            return super().read(size) or b""

    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(1000) + b"%%EOF")
    monkeypatch.setattr(queue, "open_regular", Changing)

    with pytest.raises(UnusableFile, match="changed while it was being read"):
        queue._read(path, None)
