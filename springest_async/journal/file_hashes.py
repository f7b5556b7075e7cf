"""The hashes of the files that this machine has read, and what shows that a file has changed since."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from springest_async.journal.engine import Connection
from springest_async.journal.identity import place
from springest_async.journal.records import FileHash
from springest_async.source_file import SourceFile

_MTIME_TOLERANCE_NS = 2_000_000_000  # FAT stores times in steps of two seconds


def known_hash(connection: Connection, machine: str, path: Path, size: int, modified_ns: int) -> bytes | None:
    """Return the SHA-256 of the whole file when it had this size (bytes) and time (ns), if it is known."""
    lines = connection.execute(
        "SELECT sha256 FROM file_hashes WHERE place = ? AND size = ? AND modified_ns = ?",
        (_place(machine, path), size, storable_time(modified_ns)),
    )
    return lines[0][0] if lines else None


def known_hashes(connection: Connection, machine: str, paths: Iterable[Path]) -> dict[Path, FileHash]:
    """Return what is known of these files, whatever their size and time are now."""
    places = {_place(machine, path): path for path in paths}
    marks = ", ".join("?" * len(places))
    lines = connection.execute(
        f"SELECT place, size, modified_ns, sha256 FROM file_hashes WHERE place IN ({marks})",  # noqa: S608 # only marks
        [*places],
    )
    return {places[place]: FileHash(*known) for place, *known in lines}


def remember_hash(connection: Connection, machine: str, path: Path, size: int, modified_ns: int, sha256: bytes) -> None:
    """Remember the SHA-256 of a whole file with this size (bytes) and time (ns), so that it is read only once."""
    connection.execute(
        "INSERT INTO file_hashes (place, size, modified_ns, sha256) VALUES (?, ?, ?, ?) ON CONFLICT (place) DO UPDATE"
        " SET size = excluded.size, modified_ns = excluded.modified_ns, sha256 = excluded.sha256",
        (_place(machine, path), size, storable_time(modified_ns), sha256),
    )


def _place(machine: str, path: Path) -> bytes:
    return place(machine, os.fsencode(os.path.abspath(path)))  # noqa: PTH100 (Path.absolute keeps "..")


def look_at(path: Path) -> SourceFile | None:
    """Return what a file is like, or None if it cannot be read."""
    with suppress(OSError, ValueError):  # ValueError: a NUL in the path
        return SourceFile.look(path)
    return None


def is_same(found: SourceFile, size: int | None, modified_ns: int | None) -> bool:
    """Return whether a file has this size (bytes) and time (ns of `storable_time`, to 2 s)."""
    if size is None or modified_ns is None:
        return False
    return found.size == size and abs(storable_time(found.modified_ns) - modified_ns) <= _MTIME_TOLERANCE_NS


def storable_time(nanoseconds: int) -> int:
    """Return a file's time in 64 bits: from 1677 to 2262 as it is; others, such as NTFS's 1601, wrap around."""
    return (nanoseconds + 2**63) % 2**64 - 2**63
