"""Reads a journal: where a migration stands, also while another process is at it.

It writes nothing, and tells what the lines mean; `journal` writes them.
"""

import contextlib
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, Self, TypeVar

from springest_async.bulk import schema
from springest_async.bulk.entries import Attempt, Entry, Siblings, State
from springest_async.bulk.manifest import Fields
from springest_async.bulk.plan import digest, is_unchanged
from springest_async.errors import JournalError

__all__ = ["ENTRY", "EPOCH", "JournalReader"]

_ENTRY: Mapping[str, tuple[type, ...]] = {
    "id": (int,),
    "number": (int, NoneType),
    "file": (str,),
    "certification_id": (int,),
    "email": (str,),
    "valid_from": (str,),
    "valid_until": (str, NoneType),
    "conversion_id": (int,),
    "origin": (str,),
    "state": (str,),
    "sha256": (bytes, NoneType),
    "springest_id": (int, NoneType),
    "reason": (str,),
    "sent_at": (int, NoneType),
    "given_up_at": (int, NoneType),
    "extra": (str, NoneType),
}
ENTRY = f"SELECT {', '.join(_ENTRY)} FROM entry"  # noqa: S608 # names of columns
"""What an `Entry` is made of."""

_ATTEMPT: Mapping[str, tuple[type, ...]] = {
    "number": (int,),
    "sent_at": (int,),
    "ended_at": (int, NoneType),
    "outcome": (str, NoneType),
    "status": (int, NoneType),
    "words": (str,),
}
Value = TypeVar("Value")

_RUNNING = "SELECT entry FROM attempt WHERE ended_at IS NULL"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The journal counts its microseconds from here."""


class JournalReader:
    """Reads a journal, also while another process writes it.

    Usage::

        with JournalReader.open(path) as journal:
            print(journal.counts())

    It keeps nobody from writing and makes no journal. May be used from any thread, one at a time or several. All
    methods raise `JournalError` when the file cannot be read.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Not for use: see `open`."""
        self.path = path
        self._connection = connection
        self._one_at_a_time = threading.RLock()
        self._folder: Path | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal that is there.

        Raises:
            JournalError: when there is none, or it cannot be read.
        """
        path = schema.located(path)
        if not schema.check(path):
            raise JournalError(path, "there is no journal yet: it is made by the first upload")
        return cls(path, schema.connect(path, write=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        with self._one_at_a_time:  # SQLite would crash if it were closed under another thread's hands
            self._connection.close()

    @property
    def writer(self) -> int | None:
        """The process that writes the journal now, or None when none does."""
        pid = self._meta("pid", int)
        return pid if pid is not None and schema.is_locked(self.path) else None

    def counts(self) -> Counter[State]:
        """Count the manifest's rows by state. What is found "sending" when nobody writes is counted as in doubt."""
        found: Counter[State] = Counter()
        written = self._is_written()
        lines = self._all("SELECT state, count(*) FROM entry WHERE number IS NOT NULL GROUP BY state")
        with self._understood():
            for state, count in lines:
                found[_state(state, written=written)] += count
        return found

    def entries(self, *states: State) -> Iterator[Entry]:
        """Give the manifest's entries in these states, or all, in the manifest's order, as they are at this moment.

        However many there are, they take little memory.
        """
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
        """Give all that is in doubt: the manifest's in its order, then what it names no more (`number` is None)."""
        written = self._is_written()
        lines = self._all(f"{ENTRY} WHERE state = 'in doubt'")
        if not written:
            lines += self._all(f"{ENTRY} WHERE id IN ({_RUNNING})")
        entries = [self._entry(line, written=written) for line in lines]
        return sorted(entries, key=lambda entry: (entry.number is None, entry.number or entry.id))

    def attempts(self, entry_id: int) -> list[Attempt]:
        """Give all POSTs of an entry, in their order."""
        lines = self._all(
            f"SELECT {', '.join(_ATTEMPT)} FROM attempt WHERE entry = ? ORDER BY number",  # noqa: S608 # likewise
            entry_id,
        )
        with self._understood():
            return [
                Attempt(
                    number=number,
                    sent_at=EPOCH + timedelta(microseconds=sent_at),
                    ended_at=_moment(ended_at),
                    outcome=None if outcome is None else State(outcome),
                    status=status,
                    words=words,
                )
                for number, sent_at, ended_at, outcome, status, words in (_typed(line, _ATTEMPT) for line in lines)
            ]

    def siblings(self, entry: Entry) -> Siblings:
        """Give what is known of the other certificates that Springest lists in the same way as this one."""
        lines = self._all(
            "SELECT springest_id FROM entry WHERE state IN ('stored', 'in doubt', 'sending')"
            " AND fields = (SELECT fields FROM entry WHERE id = ?) AND id <> ?",
            entry.id,
            entry.id,
        )
        ids = [springest_id for (springest_id,) in lines]
        return Siblings(frozenset(ids) - {None}, uncertain=None in ids)

    def is_settled(self, fields: Fields, origin: str, path: Path) -> bool:
        """Say whether a row's file need not be looked at: it will not be sent, since it was.

        It is stored, rejected or in doubt, and the file is what it was, or gone.
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
        """Give the SHA-256 that the whole file had when it was of this size (bytes) and time (ns), if it is known."""
        lines = self._all(
            "SELECT sha256 FROM hash WHERE path = ? AND size = ? AND modified_ns = ?",
            self._portable(path),
            size,
            modified_ns,
        )
        with self._understood():
            return _one(lines, bytes)

    # --- for all methods ---

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._one_at_a_time, schema.translate_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _is_written(self) -> bool:
        """Say whether what is found "sending" is being sent; asking for the writer takes longer, so it comes last."""
        return not self._all(f"{_RUNNING} LIMIT 1") or self.writer is not None

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Raise what a line that nobody wrote so comes to as a `JournalError`.

        When the journal was opened it was whole, but what its values mean nobody had looked at.
        """
        try:
            yield
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise JournalError(self.path, schema.DAMAGED) from error

    def _meta(self, key: str, kind: type[Value]) -> Value | None:
        lines = self._all("SELECT value FROM meta WHERE key = ?", key)
        with self._understood():
            return _one(lines, kind)

    def _loaded_folder(self) -> Path:
        """Give the folder of the manifest that was loaded last, wherever it has been moved with its journal."""
        if self._folder is None:
            self._folder = self.path.parent.absolute() / os.fsdecode(self._meta("folder", bytes) or b"")
        return self._folder

    def _portable(self, path: Path) -> bytes:
        """Write a path so that it holds after the journal and what is beside it have moved together."""
        path, here = path.absolute(), self.path.parent.absolute()
        return os.fsencode(path.relative_to(here) if path.is_relative_to(here) else path)

    def _entry(self, line: tuple[Any, ...], *, written: bool = True) -> Entry:
        with self._understood():
            (
                key, number, file, certification_id, email, valid_from, valid_until, conversion_id, origin, state,
                sha256, springest_id, reason, sent_at, given_up_at, extra,
            ) = _typed(line, _ENTRY)  # fmt: skip
            return Entry(
                id=key,
                number=number,
                file=file,
                path=self._loaded_folder() / file,
                certification_id=certification_id,
                email=email,
                valid_from=date.fromisoformat(valid_from),
                valid_until=None if valid_until is None else date.fromisoformat(valid_until),
                conversion_id=conversion_id or None,
                origin=origin,
                state=_state(state, written=written),
                sha256=sha256,
                springest_id=springest_id,
                reason=reason if written or state != "sending" else "interrupted while it was being sent",
                sent_at=_moment(sent_at),
                given_up_at=_moment(given_up_at),
                extra={} if extra is None else _cells(extra),
            )


def _typed(line: Sequence[Any], kinds: Mapping[str, tuple[type, ...]]) -> Sequence[Any]:
    # SQLite keeps what it is given, whatever the column's type.
    if not all(map(isinstance, line, kinds.values())):
        raise TypeError("a value of another type")
    return line


def _one(lines: Sequence[tuple[Any]], kind: type[Value]) -> Value | None:
    if not lines:
        return None
    ((value,),) = lines
    if not isinstance(value, kind):
        raise TypeError("a value of another type")
    return value


def _cells(text: str) -> dict[str, str]:
    cells = json.loads(text)
    if not isinstance(cells, dict) or not all(isinstance(cell, str) for cell in cells.values()):
        raise TypeError("no cells")
    return cells


def _state(value: str, *, written: bool) -> State:
    state = State(value)
    return State.IN_DOUBT if state is State.SENDING and not written else state


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)
