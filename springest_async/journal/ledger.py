"""The ledger of a budget in a journal: its bucket, shared by all workers, and the intents and outcomes of POSTs.

A token and the intent of its POST are one commit, as are the end of a token and the outcome. Each token is a row of
`attempts`; the rest of the bucket is JSON. The bucket is kept in memory and read again only when another worker has
changed it, so a POST costs the same whatever the number of tokens.
"""

import asyncio
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from springest_async.journal import certificates
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.engine import Connection
from springest_async.journal.records import Intent, Outcome
from springest_async.limits.bucket import Bucket, Lease

T = TypeVar("T")


class _Journal(Protocol):
    """What a ledger needs of its journal."""

    worker: str

    @property
    def transaction(self) -> int: ...
    def save_before_commit(self, ledger: "JournalLedger") -> None: ...
    def clock(self) -> float: ...
    def start(self, job: Callable[[Connection], T]) -> Awaitable[T]: ...
    def note(self, job: Callable[[Connection], object]) -> None: ...


class JournalLedger:
    """The `Ledger` of one budget in a journal.

    Args:
        journal: the journal, which must be open while the ledger is used.
        budget: the name of what is limited: a digest of host and key.

    Attributes:
        budget: as given.
    """

    def __init__(self, journal: _Journal, budget: str) -> None:
        self._journal = journal
        self.budget = budget
        self._guard = threading.RLock()
        self._bucket = Bucket()
        self._version: int | None = None  # of what is in memory
        self._saved: dict[str, Any] = {}  # what is written of it, without its tokens
        # Tokens that were written in this transaction, with their intents or outcomes.
        self._written: dict[str, Lease | float | None] = {}
        self._is_saved = True  # whether it is what was written
        self._transaction = -1  # the last one in which it was read

    def __repr__(self) -> str:
        return f"<JournalLedger of {self._journal!r}>"

    def now(self) -> float:
        """Return the time on the journal's clock, in seconds."""
        return self._journal.clock()

    @contextmanager
    def peek(self) -> Iterator[Bucket]:
        """Lend the bucket as it was seen last, to look at only."""
        with self._guard:
            yield self._bucket

    def change(self, change: Callable[[Bucket, float], float], intent: object | None = None) -> Awaitable[float]:
        """Change the bucket, and record the intent in the same commit if the result is 0; see `Ledger.change`.

        Raises:
            JournalError: the journal cannot be written. Nothing was changed.
            ClaimLost: the certificate is not this sender's any more. Nothing was changed.
        """
        assert intent is None or isinstance(intent, Intent)
        job: Callable[[Connection], float] = partial(self._apply, change=change, intent=intent)
        changing = asyncio.ensure_future(self._journal.start(job))
        if intent is not None:
            changing.add_done_callback(partial(self._end_if_lost, intent))
        return changing

    def _end_if_lost(self, intent: Intent, changing: "asyncio.Future[float]") -> None:
        """If its commit was durable, but could not be heard of before the lease was over, nothing has left."""
        if not changing.cancelled() and isinstance(changing.exception(), ClaimLost):
            self._journal.note(partial(certificates.end, outcome=intent.unsent))

    def note(self, change: Callable[[Bucket, float], object], outcome: object | None = None) -> None:
        """Change the bucket with one of the next commits, and record the outcome in it; see `Ledger.note`."""
        assert outcome is None or isinstance(outcome, Outcome)

        def job(connection: Connection) -> None:
            self._apply(connection, change)
            if outcome is not None:
                self._end(connection, outcome)

        self._journal.note(job)

    # --- in the journal's thread ---

    def _apply(
        self, connection: Connection, change: Callable[[Bucket, float], Any], intent: Intent | None = None
    ) -> Any:
        with self._guard:
            if self._transaction != self._journal.transaction:
                self._read(connection)
                self._transaction = self._journal.transaction
            # It runs again when the answer to its commit was lost.
            if intent is not None and certificates.was_begun(connection, intent):
                # A synchronous standby may lack it still, and the commit of what only reads would not wait for it.
                connection.execute("UPDATE attempts SET worker = worker WHERE id = ?", (intent.id,))
                return 0.0
            self._is_saved = False  # what an undone transaction leaves in memory is read again
            result = change(self._bucket, connection.now())
            if intent is not None and result == 0:
                self._begin(connection, intent)
        self._journal.save_before_commit(self)
        return result

    def save(self, connection: Connection) -> None:
        """Write what the jobs of this transaction have changed."""
        if self._transaction != self._journal.transaction:
            return  # it was changed in one that was undone, and others may have changed it since
        with self._guard:
            touched, self._bucket.touched = self._bucket.touched, set()
            written, self._written = self._written, {}
            for name in touched:
                token = self._bucket.token(name)
                if name not in written or written[name] != token:
                    self._write_token(connection, name, token)
            state = self._bucket.dump()
            if touched or state != self._saved:
                version = secrets.randbits(62)
                _write_state(connection, self.budget, version, state)
                self._version, self._saved = version, state
            self._is_saved = True

    def _read(self, connection: Connection) -> None:
        """Read the bucket, if another worker has changed it, or a change of ours was undone."""
        found = connection.execute("SELECT version FROM budgets WHERE name = ?", (self.budget,))
        if found and found[0][0] == self._version and self._is_saved:
            return
        self._version, self._saved, self._bucket = read_bucket(connection, self.budget)
        self._written, self._is_saved = {}, True

    def _begin(self, connection: Connection, intent: Intent) -> None:
        token = self._bucket.token(intent.id)
        assert isinstance(token, Lease)
        certificates.begin(
            connection,
            intent,
            worker=self._journal.worker,
            budget=self.budget,
            counted_until=token.counted_until,
            back_at=token.back_at,
            allowed=min(self._bucket.limits, default=None),
        )
        self._written[intent.id] = token

    def _end(self, connection: Connection, outcome: Outcome) -> None:
        """Record an outcome, and in the same statement when the token is back."""
        with self._guard:
            token = self._bucket.token(outcome.attempt)
            if isinstance(token, Lease):
                certificates.end(connection, outcome)
            elif certificates.end(connection, outcome, back_at=token or 0.0):
                self._written[outcome.attempt] = token

    def _write_token(self, connection: Connection, name: str, token: Lease | float | None) -> None:
        counted_until = token.counted_until if isinstance(token, Lease) else None
        back_at = token.back_at if isinstance(token, Lease) else token or 0.0
        connection.execute(
            "UPDATE attempts SET counted_until = ?, back_at = ? WHERE id = ?", (counted_until, back_at, name)
        )


def read_bucket(connection: Connection, budget: str) -> tuple[int | None, dict[str, Any], Bucket]:
    """Return the version of a bucket (None before it was written), what is written of it, and the bucket."""
    found = connection.execute("SELECT version, state FROM budgets WHERE name = ?", (budget,))
    version, saved = (found[0][0], json.loads(found[0][1])) if found else (None, Bucket().dump())
    # A dead worker's lease that is over still says when the server was last heard, while a silence is asked for.
    tokens = connection.execute(
        "SELECT id, counted_until, back_at FROM attempts WHERE budget = ? AND back_at > ?"
        " AND (counted_until IS NOT NULL OR back_at > ?)",
        (budget, connection.now() - saved["quiet"], connection.now()),
    )
    return version, saved, Bucket.load(saved, tokens)


def rest_all(connection: Connection, seconds: float) -> None:
    """Hold back the POSTs of all budgets for so many seconds; within a transaction."""
    until = connection.now() + seconds
    states = {name: Bucket().dump() for (name,) in connection.execute("SELECT DISTINCT budget FROM attempts")}
    states |= {name: json.loads(state) for name, state in connection.execute("SELECT name, state FROM budgets")}
    for name, state in states.items():
        # The probe of nobody: all hold their POSTs back until it expires.
        state["probe"] = {"holder": "a person", "expires": until}
        _write_state(connection, name, secrets.randbits(62), state)


def _write_state(connection: Connection, budget: str, version: int, state: object) -> None:
    connection.execute(
        "INSERT INTO budgets (name, version, state) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
        " SET version = excluded.version, state = excluded.state",
        (budget, version, json.dumps(state, allow_nan=False)),
    )
