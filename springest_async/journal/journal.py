"""`Journal`: everything that was ever sent, and the budgets, for any number of tasks, processes and machines.

It composes: `group_commit` has the thread, `certificates` the state machine and `ledger` the budgets; `sqlite` and
`postgres` are the two databases. It sends nothing and never sees the API key. The rows of a manifest are worked on
through an `OpenMigration`.
"""

import asyncio
import logging
import os
import platform
import re
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

from attrs import Factory, field, frozen

from springest_async.errors import ConfigurationError, JournalError
from springest_async.journal import certificates, erasure, file_hashes, manifest_rows, migrations, place
from springest_async.journal.clock import elapsed
from springest_async.journal.engine import Connection, Engine
from springest_async.journal.erasure import Forgotten, Info
from springest_async.journal.group_commit import GroupCommit
from springest_async.journal.identity import CertificateFields
from springest_async.journal.ledger import JournalLedger, rest_all
from springest_async.journal.postgres import PostgresEngine
from springest_async.journal.records import Intent, KnownCertificate, Siblings, State
from springest_async.journal.sqlite import SQLiteEngine
from springest_async.random_names import new_request_id

T = TypeVar("T")

LEASE_SECONDS = 60.0
"""How long a worker that is not heard of keeps what it has."""

CUT_OFF = "this program was stopped, asleep or cut off from its journal for too long"
"""Why a worker may not send after its lease."""

_RESERVE_SECONDS = 5.0  # before the end of its lease a worker stops sending
_BEATS = 6  # in the time of a lease

# As for other databases or other programs; a file of such a name would be another journal in each folder.
_ADDRESS = re.compile(r"^[a-z][\w+.-]+://|\b(host|dbname|password)=", re.IGNORECASE)

_log = logging.getLogger(__name__)


class Journal:
    """A journal, in a file of this machine or in PostgreSQL.

    Usage::

        async with Journal("postgresql://db.example/springest") as journal:
            async with Springest(api_key="…", host="nl", journal=journal) as springest:
                ...

    Any number of clients of one event loop may share it. Nothing is opened before the ``async with``.

    Args:
        where: the path of a file, or ``postgresql://…``; by default a file in the user's state folder.
        lease: seconds for which a worker that is killed or cut off keeps what it has.

    Raises:
        ConfigurationError: `where` is missing, and this user has no state folder.
        JournalError: from ``async with``: it cannot be opened or made.
    """

    def __init__(self, where: str | PathLike[str] | None = None, *, lease: float = LEASE_SECONDS) -> None:
        self._engine = engine_of(where)
        self._lease = lease
        self.worker = uuid4().hex
        self.machine = place.machine()
        self._commits: GroupCommit | None = None
        self._first: list[Connection] = []  # the connection that the thread begins with
        self._is_open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._lease_ends = 0.0  # on this machine's clock
        self.lives = 0
        """How often this worker began to live: again after others had taken over what it had."""
        self._migration: int | None = None
        self._ledgers: dict[str, JournalLedger] = {}
        self._unwritten: deque[Callable[[Connection], object]] = deque()  # notes that failed
        self._changed_ledgers: set[JournalLedger] = set()

    def __repr__(self) -> str:
        return f"<Journal {self.where}, {'open' if self._is_open else 'closed'}>"

    @property
    def where(self) -> str:
        """Its place, for people to read; contains no password."""
        return self._engine.where

    @property
    def trouble(self) -> str:
        """Why it cannot be reached at the moment; empty while it can."""
        return self._commits.trouble if self._commits and self._is_open else ""

    @property
    def at_work(self) -> int | None:
        """The number of what its thread is doing, which may wait for a server or a disk; None when it does nothing."""
        return self._commits.at_work if self._commits else None

    @property
    def waited(self) -> float:
        """Seconds that its transactions have waited since it was opened, mostly for its disk or its server."""
        return self._opened().waited

    @property
    def warning(self) -> str | None:
        """What people should know about its place; see `place.warning_about`."""
        return place.warning_about(self._engine.path) if isinstance(self._engine, SQLiteEngine) else None

    @property
    def kind(self) -> str:
        """The name of its database."""
        return "SQLite" if isinstance(self._engine, SQLiteEngine) else "PostgreSQL"

    def clock(self) -> float:
        """Return the time on the journal's clock in seconds, without asking it."""
        return self._engine.clock()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self, *, create: bool = True) -> None:
        """Open it; `create` says whether a missing one is made. ``async with`` does this.

        Raises:
            RuntimeError: it is open already.
            JournalMissing: there is none, and `create` is false.
            JournalError: it cannot be opened or made.
        """
        if self._is_open:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("the journal is open already")
            # Its event loop was closed before it, so nobody else can close it any more.
            await asyncio.to_thread(self._opened().close)
            self._is_open, self._beat = False, None
        # The first time here, so that what cannot be opened is reported and not waited for.
        self._first = first = [await asyncio.to_thread(partial(self._engine.connect, create=create))]
        self._loop = asyncio.get_running_loop()
        before = self._commits
        self._commits = GroupCommit(
            lambda: first.pop() if first else self._engine.connect(create=False), self._save_ledgers
        )
        if before is not None:
            self._commits.transactions = before.transactions  # a ledger must never see the same number again
        self._is_open = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what is left, give up what this worker has, and close it; closing again does nothing."""
        if not self._is_open:
            return
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
            unwritten, self._unwritten = self._unwritten, deque()
            for job in unwritten:
                self.note(job)
            self.note(partial(certificates.leave, worker=self.worker))
        commits, unused = self._opened(), self._first
        self._is_open = False

        def end() -> None:
            commits.close()
            for connection in unused:  # no job was ever run
                connection.close()

        # In a thread: the last commit may take long.
        await asyncio.shield(asyncio.to_thread(end))

    # --- jobs ---

    async def run(self, job: Callable[[Connection], T], *, undo: Callable[[Connection], object] | None = None) -> T:
        """Run a job in the next transaction, and return its result when that is durable.

        A note that failed before is run again first: else a full disk would let a journal forget an outcome.

        Args:
            job: the job.
            undo: noted when the caller is cancelled, so that nobody keeps what the job has claimed. It may also be the
                job itself, which is then done in any case.

        Raises:
            JournalError: the journal cannot be written.
        """
        while self._unwritten:
            unwritten = self._unwritten.popleft()
            try:
                await self._opened().run(unwritten)
            except BaseException:
                self._unwritten.appendleft(unwritten)
                raise
        try:
            return await self._opened().run(job)
        except asyncio.CancelledError:
            if undo is not None:
                self.note(undo)
            raise

    def start(self, job: Callable[[Connection], T]) -> Awaitable[T]:
        """Run a job as `run` does; mostly the result is a future, which goes on without a task.

        Raises:
            RuntimeError: it is closed.
        """
        return self.run(job) if self._unwritten else self._opened().run(job)

    def note(self, job: Callable[[Connection], object]) -> None:
        """Run a job with one of the next transactions, within 100 ms. A failure is logged, and `run` tries it again."""

        def failed(error: BaseException) -> None:
            is_known = isinstance(error, JournalError)
            if is_known:
                self._unwritten.append(job)
            level = logging.WARNING if is_known else logging.ERROR
            _log.log(level, "the journal could not record a step: %s", error, exc_info=not is_known)

        self._opened().note(job, failed)

    def _opened(self) -> GroupCommit:
        if self._commits is None or not self._is_open:
            raise RuntimeError("the journal is closed: use it inside `async with Journal(...)`")
        return self._commits

    # --- the lease of this worker ---

    async def work(self, migration: int | None = None) -> None:
        """Begin to work: others see this worker, and that it lives, from now on.

        Args:
            migration: the migration that it works on.
        """
        self._migration = migration or self._migration
        if self._beat is None or migration:
            began = elapsed()
            await self.run(self._renew)
            self._lease_ends = began + self._lease
            self._schedule()

    def _renew(self, connection: Connection) -> None:
        certificates.take_over(connection)  # perhaps what this worker has
        if not certificates.is_alive(connection, self.worker):
            self.lives += 1
        host = platform.node() or "a machine without a name"
        certificates.renew(connection, self.worker, self.machine, host, self._lease, self._migration)

    def prepare_to_claim(self, connection: Connection) -> None:
        """Take over what dead workers had, and let this one live: what a worker claims that does not is lost."""
        certificates.take_over(connection)
        if not certificates.is_alive(connection, self.worker):
            self._renew(connection)

    def note_trouble(
        self, trouble: str, reason: str = "", *, seconds: float = 0.0, again_in: float | None = None
    ) -> None:
        """Note what keeps this worker from sending, for other processes to show; see `Worker`."""
        noted_at = elapsed()

        def job(connection: Connection) -> None:
            now = connection.now() - (elapsed() - noted_at)
            since = now - seconds if trouble else None
            again_at = None if again_in is None else now + again_in
            certificates.set_trouble(connection, self.worker, trouble, reason, since, again_at)

        self.note(job)

    def _schedule(self) -> None:
        assert self._loop is not None
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.call_later(self._lease / _BEATS, self._renew_later)

    def _renew_later(self) -> None:
        began = elapsed()
        renewed = self._opened().submit(self._renew, later=True)

        def extend(done: object) -> None:
            if renewed.exception() is None:
                self._lease_ends = max(self._lease_ends, began + self._lease)

        renewed.add_done_callback(extend)
        self._schedule()

    def may_send(self) -> str | None:
        """Return None while this worker may send, else why not: others may take over what it has."""
        if self._lease_ends - elapsed() > min(_RESERVE_SECONDS, self._lease / 4):
            return None
        return CUT_OFF

    # --- certificates ---

    def ledger(self, budget: str) -> JournalLedger:
        """Return the ledger of a budget, which is a digest of host and key."""
        # One for all clients of this journal: within a transaction, two would not see what the other changes.
        return self._ledgers.setdefault(budget, JournalLedger(self, budget))

    async def was_answered(self, budget: str) -> bool:
        """Return whether Springest has ever taken or rejected a POST that used this budget."""
        return await self.run(partial(migrations.was_answered, budget=budget))

    def has_ledger(self, ledger: object) -> bool:
        """Return whether a ledger is one of this journal's."""
        return any(ledger is known for known in self._ledgers.values())

    @property
    def transaction(self) -> int:
        """The number of the transaction that runs in the journal's thread, also while the journal is closed."""
        assert self._commits is not None
        return self._commits.transactions

    def save_before_commit(self, ledger: JournalLedger) -> None:
        """Write a ledger's changes at the end of this transaction, in the journal's thread."""
        self._changed_ledgers.add(ledger)

    def _save_ledgers(self, connection: Connection) -> None:
        changed, self._changed_ledgers = self._changed_ledgers, set()
        for ledger in changed:
            ledger.save(connection)

    async def claim(
        self, certificate: CertificateFields, origin: str, sha256: bytes, *, claim: str, send_again: bool = False
    ) -> KnownCertificate:
        """Claim a certificate; see `certificates.claim`. It is this caller's if its `claim` is the same afterwards."""
        await self.work()

        def job(connection: Connection) -> KnownCertificate:
            self.prepare_to_claim(connection)
            return certificates.claim(
                connection, certificate, origin, sha256, claim=claim, worker=self.worker, send_again=send_again
            )

        return await self.run(job, undo=partial(certificates.drop, claim=claim, worker=self.worker))

    async def certificate(self, certificate: int) -> KnownCertificate:
        """Return a certificate as it is now, after taking over what dead workers had."""

        def job(connection: Connection) -> KnownCertificate:
            certificates.take_over(connection)
            return certificates.read(connection, certificate)

        return await self.run(job)

    async def claim_doubt(self, certificate: int) -> KnownCertificate | None:
        """Return a certificate in doubt for this worker to settle, or None when another settles it or it is settled."""
        await self.work()
        claim = uuid4().hex

        def job(connection: Connection) -> KnownCertificate | None:
            self.prepare_to_claim(connection)
            return certificates.claim_doubt(connection, certificate, claim=claim, worker=self.worker)

        return await self.run(job, undo=partial(certificates.drop, claim=claim, worker=self.worker))

    async def settled(
        self, certificate: KnownCertificate, state: State, *, reason: str = "", springest_id: int | None = None
    ) -> KnownCertificate:
        """Record what Springest said of a certificate in doubt, and return it; see `certificates.settled`."""
        return await self.run(
            partial(
                certificates.settled, certificate=certificate, state=state, reason=reason, springest_id=springest_id
            )
        )

    def stop_settling(self, certificate: KnownCertificate, reason: str = "") -> None:
        """Leave a certificate in doubt to others, because Springest could not be asked."""
        reason = reason or certificate.reason
        self.note(partial(certificates.settled, certificate=certificate, state=State.IN_DOUBT, reason=reason))

    async def siblings(self, certificate: KnownCertificate) -> Siblings:
        """Return what is known of the certificates that Springest lists in the same way."""
        return await self.run(partial(certificates.siblings, certificate=certificate.id))

    async def has_id(self, certificate: KnownCertificate, springest_id: int) -> bool:
        """Return whether another certificate of the same host has this id at Springest."""
        return await self.run(lambda connection: certificates.has_id(connection, certificate, springest_id))

    async def orphans(self) -> list[KnownCertificate]:
        """Return the certificates in doubt that no manifest names, at all hosts."""
        return await self.run(manifest_rows.all_orphans)

    # --- files ---

    async def known_hash(self, path: Path, size: int, modified_ns: int) -> bytes | None:
        """Return the SHA-256 of the whole file when it had this size (bytes) and time (ns), if it is known."""
        return await self.run(
            lambda connection: file_hashes.known_hash(connection, self.machine, path, size, modified_ns)
        )

    def remember_hash(self, path: Path, size: int, modified_ns: int, sha256: bytes) -> None:
        """Remember the SHA-256 of a whole file with this size (bytes) and time (ns), so that it is read only once."""
        self.note(
            lambda connection: file_hashes.remember_hash(connection, self.machine, path, size, modified_ns, sha256)
        )

    # --- care ---

    async def take_over(self) -> None:
        """Put in doubt what dead workers were sending, and free what they had only claimed."""
        await self.run(certificates.take_over)

    async def info(self) -> Info:
        """Return how much it holds."""
        return await self.run(erasure.info)

    async def erase(self, job: Callable[[Connection], Forgotten]) -> Forgotten:
        """Run a job that deletes, and remove what it has deleted from the disk, too."""

        def erase() -> Forgotten:
            connection = self._engine.connect(create=False)
            try:
                with connection.transaction():
                    certificates.take_over(connection)
                    forgotten = job(connection)
                connection.erase()
            finally:
                connection.close()
            return forgotten

        return await asyncio.to_thread(erase)

    async def trust(self, *, answer: float) -> None:
        """Take a person's word that the database server which is there now has all that was sent; see `AnotherServer`.

        It is for a journal that is not open, and uploads go on later: `answer` is the longest time-out in seconds that
        any program has had for an answer, and all tokens rest for that time and a minute.

        Raises:
            ConfigurationError: the journal is not in PostgreSQL.
            JournalError: it cannot be reached.
        """
        engine = self._engine
        if not isinstance(engine, PostgresEngine):
            raise ConfigurationError("only a journal in PostgreSQL can be on another server than before")

        def trust() -> None:
            with engine.trust() as connection:
                rest_all(connection, answer + 60)

        await asyncio.to_thread(trust)

    def is_in(self, path: Path) -> bool:
        """Return whether the journal is this file, which must not be opened then."""
        return isinstance(self._engine, SQLiteEngine) and self._engine.is_in(path)

    def connect(self) -> Connection:
        """Return a connection of its own to read with, for a thread that looks at every row of a manifest."""
        return self._engine.connect(create=False)


@frozen
class Claim:
    """The right of one sender to send a certificate, and the journal that records its POSTs.

    It ends by itself when a POST ends as stored, rejected or in doubt, and when the worker's lease is over.

    Attributes:
        certificate: the key of the certificate.
        name: the name of the claim.
    """

    journal: Journal
    certificate: int
    name: str
    _life: int = field(default=Factory(lambda claim: claim.journal.lives, takes_self=True), init=False, repr=False)

    def intent(self) -> Intent:
        """Return a new intent to send the certificate."""
        return Intent(id=new_request_id(), certificate=self.certificate, claim=self.name)

    def may_send(self) -> str | None:
        """Return None while it may be sent, else why not; see `Journal.may_send`.

        A POST that others have taken over stays so when this worker lives again: it may have been sent once more.
        """
        return self.journal.may_send() if self._life == self.journal.lives else CUT_OFF

    def release(self, state: State = State.WAITING, reason: str = "") -> None:
        """Release the claim, if it has not ended; the certificate waits, has failed, or was rejected for good."""
        self.journal.note(
            partial(certificates.release, certificate=self.certificate, claim=self.name, state=state, reason=reason)
        )


def engine_of(where: str | PathLike[str] | None) -> Engine:
    """Return the database that a path or address names; None is a file in the user's state folder.

    Raises:
        ConfigurationError: it is None, and this user has no state folder.
        JournalError: the address cannot be one.
    """
    if where is None:
        return SQLiteEngine(place.default_path())
    text = os.fspath(where)
    if text.startswith(("postgresql://", "postgres://")):
        return PostgresEngine(text)
    if _ADDRESS.search(text):  # which is not shown, because it may contain a password
        raise JournalError("the journal", "must be a file of this machine, or postgresql://USER@HOST:PORT/DATABASE")
    return SQLiteEngine(Path(text))


def where_from_env() -> str | Path:
    """Return where the journal is: ``SPRINGEST_JOURNAL``, or a file in the user's state folder.

    Raises:
        ConfigurationError: the variable is missing, and this user has no state folder.
    """
    return os.environ.get("SPRINGEST_JOURNAL", "").strip() or place.default_path()
