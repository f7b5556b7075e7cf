"""Read a journal: the state of a migration, also while another process writes it.

Nothing is written here; `journal` does that.
"""

import contextlib
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from springest_async.bulk import schema
from springest_async.bulk.entries import Entry, Siblings, State
from springest_async.bulk.manifest import Fields
from springest_async.bulk.plan import digest, is_unchanged
from springest_async.errors import JournalError

_COLUMNS = (
    "id, number, file, certification_id, email, valid_from, valid_until, conversion_id, origin, state, sha256,"
    " springest_id, reason, sent_at, given_up_at, extra"
)
ENTRY = f"SELECT {_COLUMNS} FROM entry"  # noqa: S608 # names of columns
"""The SQL that reads what an `Entry` needs."""

_RUNNING = "SELECT entry FROM attempt WHERE ended_at IS NULL"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The journal's times are microseconds since then."""


class JournalReader:
    """Reads a journal, also while another process writes it.

    Usage::

        with JournalReader.open(path) as journal:
            print(journal.counts())

    It blocks no writer and creates no journal. It may be used from any thread. All methods raise `JournalError` when
    the file cannot be read.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Not for use: see `open`."""
        self.path = path
        self._connection = connection
        self._one_at_a_time = threading.RLock()
        self._folder: Path | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing journal.

        Raises:
            JournalError: when there is none, or it cannot be read.
        """
        path = schema.real_path(path)
        if not schema.check(path):
            raise JournalError(path, "there is no journal yet: springest upload makes it")
        return cls(path, schema.connect(path, write=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        with self._one_at_a_time:  # SQLite crashes when a connection is closed while another thread uses it
            self._connection.close()

    @property
    def writer(self) -> int | None:
        """The id of the process that is writing the journal, or None."""
        pid = self._one("SELECT value FROM meta WHERE key = 'pid'")
        return pid if pid is not None and schema.is_locked(self.path) else None

    def counts(self) -> Counter[State]:
        """Count the manifest's rows by state. "Sending" counts as in doubt while no process writes the journal."""
        found: Counter[State] = Counter()
        written = self._is_written()
        lines = self._all("SELECT state, count(*) FROM entry WHERE number IS NOT NULL GROUP BY state")
        with self._reporting_damage():
            for state, count in lines:
                found[_state(state, written=written)] += count
        return found

    def entries(self, *states: State) -> Iterator[Entry]:
        """Yield the manifest's entries in these states (default: all), in the manifest's order, with little memory."""
        wanted = set(states or State)
        if not (written := self._is_written()):
            wanted = wanted | {State.SENDING} if State.IN_DOUBT in wanted else wanted - {State.SENDING}
        marks = ", ".join("?" * len(wanted))
        with schema.translate_errors(self.path):
            cursor = self._connection.execute(
                f"{ENTRY} WHERE number IS NOT NULL AND state IN ({marks}) ORDER BY number",
                [state.value for state in wanted],
            )
            with contextlib.closing(cursor):
                for line in cursor:
                    yield self._entry(line, written=written)

    def doubts(self) -> list[Entry]:
        """Return all entries in doubt: the manifest's, in its order, then those no longer in it (`number` is None)."""
        written = self._is_written()
        lines = self._all(f"{ENTRY} WHERE state = 'in doubt'")
        if not written:
            lines += self._all(f"{ENTRY} WHERE id IN ({_RUNNING})")
        entries = [self._entry(line, written=written) for line in lines]
        return sorted(entries, key=lambda entry: (entry.number is None, entry.number or entry.id))

    def siblings(self, entry: Entry) -> Siblings:
        """Return what is known of the other certificates that Springest lists in the same way as this one."""
        lines = self._all(
            "SELECT springest_id FROM entry WHERE state IN ('stored', 'in doubt', 'sending')"
            " AND fields = (SELECT fields FROM entry WHERE id = ?) AND id <> ?",
            entry.id,
            entry.id,
        )
        ids = [springest_id for (springest_id,) in lines]
        return Siblings(frozenset(ids) - {None}, uncertain=None in ids)

    def is_settled(self, fields: Fields, origin: str, path: Path) -> bool:
        """Return whether the preflight can skip a row's file, because it will not be sent again.

        That is so when the row is stored, rejected or in doubt, and the file is unchanged or was moved away.
        """
        lines = self._all(
            "SELECT size, modified_ns FROM entry WHERE file = ? AND fields = ? AND conversion_id = ? AND copy > 0"
            " AND state IN ('stored', 'rejected', 'in doubt')",
            fields.file,
            digest(fields, origin),
            fields.conversion_id or 0,
        )
        same_folder = path.absolute() == self._loaded_folder() / fields.file
        return any(is_unchanged(path, size, modified_ns, when_gone=same_folder) for size, modified_ns in lines)

    def known_hash(self, path: Path, size: int, modified_ns: int) -> bytes | None:
        """Return the SHA-256 of the whole file when it had this size (bytes) and time (ns), if it is known."""
        sql = "SELECT sha256 FROM hash WHERE path = ? AND size = ? AND modified_ns = ?"
        sha256: bytes | None = self._one(sql, self._portable(path), size, modified_ns)
        return sha256

    # --- for all methods ---

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._one_at_a_time, schema.translate_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _is_written(self) -> bool:
        """Return whether "sending" means that a process is sending now."""
        # Looking for the writer is slow, so it comes last.
        return not self._all(f"{_RUNNING} LIMIT 1") or self.writer is not None

    @contextlib.contextmanager
    def _reporting_damage(self) -> Iterator[None]:
        """Raise a `JournalError` for values that we never write; opening the journal does not check each value."""
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            raise JournalError(self.path, schema.DAMAGED) from error

    def _one(self, sql: str, *values: object) -> Any:
        lines = self._all(sql, *values)
        return lines[0][0] if lines else None

    def _loaded_folder(self) -> Path:
        """Return the folder of the manifest that was loaded last, also after it was moved with its journal."""
        if self._folder is None:
            folder = self._one("SELECT value FROM meta WHERE key = 'folder'")
            self._folder = self.path.parent.absolute() / os.fsdecode(folder or b"")
        return self._folder

    def _portable(self, path: Path) -> bytes:
        """Return a path relative to the journal, if it is below it, so that both can be moved together."""
        path, here = path.absolute(), self.path.parent.absolute()
        return os.fsencode(path.relative_to(here) if path.is_relative_to(here) else path)

    def _entry(self, line: tuple[Any, ...], *, written: bool = True) -> Entry:
        with self._reporting_damage():
            values = dict(zip(_COLUMNS.split(", "), line, strict=True))
            # One bit can change the type of a value, and SQLite takes any type for any column.
            texts = {type(values[name]) for name in ("file", "email", "origin", "reason")}
            if texts != {str} or isinstance(values["number"], str | bytes):
                raise TypeError("a value of another type")
            if values["state"] == "sending" and not written:
                values["reason"] = "interrupted while it was being sent"
            return Entry(
                **values
                | {
                    "path": self._loaded_folder() / values["file"],
                    "valid_from": date.fromisoformat(values["valid_from"]),
                    "valid_until": values["valid_until"] and date.fromisoformat(values["valid_until"]),
                    "conversion_id": values["conversion_id"] or None,
                    "state": _state(values["state"], written=written),
                    "sent_at": _moment(values["sent_at"]),
                    "given_up_at": _moment(values["given_up_at"]),
                    "extra": json.loads(values["extra"] or "{}"),
                }
            )


def _state(value: str, *, written: bool) -> State:
    state = State(value)
    return State.IN_DOUBT if state is State.SENDING and not written else state


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)
