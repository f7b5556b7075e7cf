"""Migrations: manifests that were loaded for a host.

A manifest fills the journal; its name decides nothing. A migration is known by the host and the SHA-256 of the
manifest's bytes, wherever it lies; else by the host, the machine and the path, for a manifest that was edited; else it
is a new one. A manifest that is read otherwise than before (with other options) is like one that was edited.
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Protocol

from attrs import frozen

from springest_async.errors import MigrationMissing
from springest_async.journal.certificates import microseconds, moment, storable
from springest_async.journal.engine import Connection
from springest_async.journal.records import Worker
from springest_async.source_file import exists


class FoundNames(Protocol):
    """What finds the file that is meant where there is none of a name."""

    def meant(self, name: str) -> str | None:
        """Return its name below the same folder, or None."""


@frozen(kw_only=True)
class Source:
    """A manifest on this machine, and the host that it is for.

    Attributes:
        origin: the host.
        sha256: of the manifest's bytes.
        reading: a digest of all that decides what these bytes mean, such as the order of day and month; empty where
            nothing does.
        path: the real path of the manifest.
        folder: what the files' paths are relative to; it may be a ZIP.
        machine: the name of this machine.
        names: finds files whose names are written otherwise in the manifest, if that is asked for.
    """

    origin: str
    sha256: bytes
    reading: bytes = b""
    path: Path
    folder: Path
    machine: str
    names: FoundNames | None = None

    def path_of(self, file: str) -> Path:
        """Return where the file of a row is on this machine; `file` is what the manifest says."""
        path = self.folder / file
        if self.names is None or exists(path) or (meant := self.names.meant(file)) is None:
            return path
        return self.folder / meant

    @property
    def shown_path(self) -> str:
        """The path as text that a database can store."""
        return storable(os.fsencode(self.path).decode(errors="backslashreplace"))

    @property
    def shown_name(self) -> str:
        """The name of the manifest as text that a database can store."""
        return storable(os.fsencode(self.path.name).decode(errors="backslashreplace"))


def find(connection: Connection, source: Source) -> int | None:
    """Return the key of the migration that this manifest belongs to, if there is one."""
    found = connection.execute(
        "SELECT id FROM migrations WHERE manifest = ? AND origin = ? ORDER BY id LIMIT 1",
        (source.sha256, source.origin),
    ) or connection.execute(
        "SELECT id FROM migrations WHERE origin = ? AND machine = ? AND path = ? ORDER BY id DESC LIMIT 1",
        (source.origin, source.machine, source.shown_path),
    )
    return found[0][0] if found else None


def look_up(connection: Connection, sha256: bytes | None, machine: str, path: Path) -> list[tuple[int, str]]:
    """Return the migrations of a manifest, whatever host they are for, and their hosts.

    It is found by its content, else by its path, and when the file is gone (`sha256` is None) by its name, too.
    """
    source = Source(origin="", sha256=sha256 or b"", path=path, folder=path.parent, machine=machine)
    newest = "SELECT id, origin FROM migrations WHERE id IN (SELECT max(id) FROM migrations WHERE {} GROUP BY origin)"
    found = sha256 and connection.execute(newest.format("manifest = ?"), (sha256,))
    found = found or connection.execute(newest.format("machine = ? AND path = ?"), (machine, source.shown_path))
    if not found and sha256 is None:
        found = connection.execute(newest.format("name = ?"), (source.shown_name,))
    return [(id_, origin) for id_, origin in found]


def load_of(connection: Connection, migration: int) -> int:
    """Return the key of the load of a migration that counts.

    Raises:
        MigrationMissing: it was erased since its key was read, as while this worker was asleep; or it never was there.
    """
    found = connection.execute("SELECT load FROM migrations WHERE id = ?", (migration,))
    if not found:
        raise MigrationMissing(
            "the journal", "this manifest was erased from it meanwhile (springest journal forget): nothing more is sent"
        )
    return int(found[0][0])


def source_of(connection: Connection, migration: int, machine: str) -> Source:
    """Return the manifest of a migration, as it was loaded last; its files may not be on this machine.

    Raises:
        MigrationMissing: the migration was erased.
    """
    load_of(connection, migration)
    ((origin, sha256, reading, path),) = connection.execute(
        "SELECT origin, manifest, reading, path FROM migrations WHERE id = ?", (migration,)
    )
    manifest = Path(path)
    return Source(
        origin=origin,
        sha256=bytes(sha256),
        reading=bytes(reading),
        path=manifest,
        folder=manifest.parent,
        machine=machine,
    )


def faulty_rows(connection: Connection, migration: int) -> int:
    """Return how many rows of its manifest a migration does not have, because of their faults (``--skip-faulty``)."""
    lines = connection.execute("SELECT faulty FROM migrations WHERE id = ?", (migration,))
    return int(lines[0][0]) if lines else 0


def paused_at(connection: Connection, migration: int) -> datetime | None:
    """Return since when a migration is paused (UTC), or None."""
    lines = connection.execute("SELECT paused_at FROM migrations WHERE id = ?", (migration,))
    return moment(lines[0][0]) if lines else None


def set_paused(connection: Connection, migration: int, at: datetime | None) -> bool:
    """Pause a migration at this time, or let it go on (None); return False if that changes nothing.

    Raises:
        MigrationMissing: the migration was erased.
    """
    load_of(connection, migration)
    is_paused = paused_at(connection, migration) is not None
    if is_paused == (at is not None):
        return False
    connection.execute("UPDATE migrations SET paused_at = ? WHERE id = ?", (microseconds(at), migration))
    return True


def set_budget(connection: Connection, migration: int, budget: str) -> None:
    """Record the budget that the latest run of a migration uses."""
    connection.execute("UPDATE migrations SET budget = ? WHERE id = ? AND budget <> ?", (budget, migration, budget))


def budget_of(connection: Connection, migration: int) -> str:
    """Return the budget that the latest run of a migration uses; empty before it was recorded."""
    lines = connection.execute("SELECT budget FROM migrations WHERE id = ?", (migration,))
    return lines[0][0] if lines else ""


def was_answered(connection: Connection, budget: str) -> bool:
    """Return whether any POST that used a budget was taken or rejected: so key and host were right."""
    return bool(
        connection.execute("SELECT 1 FROM attempts WHERE budget = ? AND status IN (201, 400) LIMIT 1", (budget,))
    )


def is_current(connection: Connection, migration: int, source: Source) -> bool:
    """Return whether the rows of a migration are those of this manifest, as it was read."""
    lines = connection.execute("SELECT manifest, reading FROM migrations WHERE id = ?", (migration,))
    return [tuple(line) for line in lines] == [(source.sha256, source.reading)]


def has_other_workers(connection: Connection, migration: int, worker: str) -> bool:
    """Return whether other workers work on the migration now."""
    return bool(
        connection.execute("SELECT 1 FROM workers WHERE migration = ? AND id <> ? LIMIT 1", (migration, worker))
    )


def workers(connection: Connection, migration: int, *, without: str = "") -> tuple[Worker, ...]:
    """Return the workers that work on the migration now, apart from one, by the names of their machines."""
    now = connection.now()
    lines = connection.execute(
        "SELECT host, trouble, reason, trouble_since, again_at FROM workers"
        " WHERE migration = ? AND id <> ? AND lease_until >= ? ORDER BY host, id",
        (migration, without, now),
    )
    return tuple(
        Worker(host, trouble, reason, now - (since or now), None if again_at is None else max(0.0, again_at - now))
        for host, trouble, reason, since, again_at in lines
    )
