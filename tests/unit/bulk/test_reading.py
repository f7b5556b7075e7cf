"""A file of a bulk run is read once before it is sent: the hash of the whole file, as it is now, identifies it."""

import hashlib
import os
from datetime import date
from io import FileIO
from pathlib import Path
from typing import Any

import attrs
import pytest

from springest_async import UnusableFile
from springest_async.bulk import reading
from springest_async.journal.records import Entry, FileHash, State


class HaltingFile(FileIO):
    """A file of which the system reads less at once than was asked for, as some network disks do."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size, 1000) if size and size > 0 else 1000) or b""

    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[:1000]) or 0


def row(folder: Path, number: int) -> Entry:
    path = folder / f"{number}.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(994) + b"%%%%EOF%d" % number)
    return Entry(
        id=number,
        number=number + 2,
        file=path.name,
        path=path,
        certification_id=1,
        email=f"employee{number}@example.org",
        valid_from=date(2026, 1, 31),
        valid_until=None,
        conversion_id=None,
        origin="https://springest.example",
        state=State.WAITING,
    )


@pytest.mark.parametrize("size", [10_000, 1_500_000])
def test_a_file_that_is_read_little_by_little_is_hashed_whole(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(size) + b"%%EOF")
    monkeypatch.setattr(reading, "open_source", HaltingFile)

    assert reading.read_file(path, None)[1] == hashlib.sha256(path.read_bytes()).digest()


def test_a_hash_counts_only_for_a_file_of_the_same_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(1000) + b"%%EOF")
    status = path.stat()
    known = FileHash(status.st_size, status.st_mtime_ns, b"known before")

    assert reading.read_file(path, known)[1] == b"known before"
    os.utime(path, ns=(1, status.st_mtime_ns + 1))
    assert reading.read_file(path, known)[1] == hashlib.sha256(path.read_bytes()).digest()


def test_a_file_that_changes_while_it_is_hashed_is_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            os.utime(path, ns=(1, 1))
            return super().read(size) or b""

    path = tmp_path / "x.pdf"
    path.write_bytes(b"%PDF-1.7".ljust(1000) + b"%%EOF")
    monkeypatch.setattr(reading, "open_source", Changing)

    with pytest.raises(UnusableFile, match="changed while it was being read"):
        reading.read_file(path, None)


def test_rows_are_read_together_until_it_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with a fault, and one that may be the same certificate as another, is looked at alone."""
    rows = [row(tmp_path, number) for number in range(7)]
    rows[1] = attrs.evolve(rows[1], email="no address")
    rows[2].path.unlink()
    rows[3] = attrs.evolve(rows[3], email=rows[0].email.upper())
    rows[3].path.write_bytes(rows[0].path.read_bytes())
    monkeypatch.setattr(reading, "_READ_TOGETHER", 5 * 1000)

    read = reading.read_together(rows)

    assert [found and found.entry for found in read] == [rows[0], None, None, None, rows[4], rows[5]]
    assert all(found.sha256 == hashlib.sha256(found.entry.path.read_bytes()).digest() for found in read if found)


def test_a_large_file_is_not_read_with_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_READ_TOGETHER", 999)

    assert reading.read_together([row(tmp_path, 1)]) == []


@pytest.mark.parametrize("is_known", [False, True])
def test_what_is_read_with_others_is_kept_to_be_sent(tmp_path: Path, is_known: bool) -> None:
    entry = row(tmp_path, 1)
    content, status = entry.path.read_bytes(), entry.path.stat()
    if is_known:
        entry = attrs.evolve(entry, hashed=FileHash(status.st_size, status.st_mtime_ns, b"known before"))

    (read,) = reading.read_together([entry])

    assert read is not None
    assert read.reader is not None
    assert (read.reader.beginning, read.reader.left, read.reader.source) == (content, 0, read.source)
    assert read.reader.is_fresh
    assert read.sha256 == hashlib.sha256(content).digest()
    assert reading.read_row(entry).reader is None


def test_what_a_disk_reads_little_by_little_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = row(tmp_path, 1)
    entry.path.write_bytes(b"%PDF-1.7".ljust(10_000) + b"%%EOF")
    monkeypatch.setattr(reading, "open_source", HaltingFile)

    (read,) = reading.read_together([entry])

    assert read is not None
    assert read.reader is None
