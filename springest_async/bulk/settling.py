"""Settle the certificates in doubt of a run while its rows are uploaded: ask Springest about one after another.

The journal knows what is in doubt; here is what this run knows of it. The queue sends what certainly is not stored.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

from springest_async.api.verdicts import TRIES, backoff
from springest_async.bulk.events import BulkListener, RowDone, RowSettling
from springest_async.bulk.gate import Gate
from springest_async.client import Springest
from springest_async.errors import InDoubt, JournalError, NoAnswer, NotSent, ServerError, SpringestError
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, KnownCertificate, State
from springest_async.settling import doubt_of, settle_claimed

# Seconds that the end of a run waits for a journal that is away.
_PATIENCE_AT_END = 2.0


class Settler:
    """Settles the certificates in doubt of a migration, and knows which rows wait for that.

    Every row that is given to `add` or `join` ends in one `RowDone`, unless it has its turn again: see `has_turn`.

    Args:
        client: asks Springest.
        migration: its certificates in doubt are claimed from the journal, one at a time.
        gate: is told when there is no connection to ask.
        report: called with each event.
        is_idle: whether the run has nothing else to do.
        stop: called when it has not, and Springest cannot be asked.
    """

    def __init__(
        self,
        client: Springest,
        migration: OpenMigration,
        gate: Gate,
        report: BulkListener,
        *,
        is_idle: Callable[[], bool],
        stop: Callable[[], None],
    ) -> None:
        self._client = client
        self._migration = migration
        self._journal = migration.journal
        self._gate = gate
        self._report = report
        self._is_idle = is_idle
        self._stop_run = stop
        self._stopped = asyncio.Event()
        self._doubted = asyncio.Event()  # there is one more to settle
        self._in_doubt: dict[int, tuple[Entry, InDoubt]] = {}  # by certificate, until they are settled
        self._joined: dict[int, Entry] = {}  # by certificate: rows of those that are settled without one
        self._hopeless: set[int] = set()  # certificates whose doubt cannot be settled in this run
        self._not_stored: Counter[int] = Counter()  # how often a certificate was in doubt and then not stored
        self._again: dict[int, Entry] = {}  # by row: those that were in doubt, are not stored, and wait again

    def __repr__(self) -> str:
        return f"<Settler, {len(self._in_doubt)} in doubt, {len(self._hopeless)} of them for a person>"

    @property
    def hopeless(self) -> set[int]:
        """The certificates whose doubt cannot be settled in this run."""
        return self._hopeless

    # --- which rows wait for it ---

    def add(self, entry: Entry, certificate: int, doubt: InDoubt) -> None:
        """Note a row that this run has sent, and whose certificate is in doubt since."""
        self._in_doubt[certificate] = (entry, doubt)
        self._doubted.set()

    def join(self, entry: Entry, known: KnownCertificate) -> None:
        """Note a row whose certificate is in doubt already, or report it when no answer can be had."""
        if known.id in self._hopeless:
            self._report(RowDone(entry, State.IN_DOUBT, error=doubt_of(known)))
            return
        first, _ = self._in_doubt.setdefault(known.id, (entry, doubt_of(known)))
        if first.number is None:  # it is being settled as a certificate without a row, but it is this row's
            self._joined[known.id] = entry
        self._doubted.set()

    def forget(self, entry: Entry, certificate: int) -> None:
        """Forget that this row was in doubt: it has its turn again, or has ended in another way.

        A worker whose lease was over settles what it is sending itself, and its answer may still come.
        """
        joined = self._joined.get(certificate)
        if joined is not None and joined.id == entry.id:
            del self._joined[certificate]
        doubted, doubt = self._in_doubt.get(certificate, (None, None))
        if doubted is not None and doubt is not None and doubted.id == entry.id:
            del self._in_doubt[certificate]
            if (other := self._joined.pop(certificate, None)) is not None:
                self._in_doubt[certificate] = other, doubt

    def has_turn(self, entry: Entry) -> None:
        """Note that a row that was not stored has its turn again, or that another worker has it."""
        self._again.pop(entry.id, None)

    # --- asking ---

    def stop(self) -> None:
        """Ask about no further certificate, and not again about this one."""
        self._stopped.set()

    async def wait_for_doubts(self, seconds: float) -> None:
        """Wait until one more may be in doubt, at most for this time."""
        await wait_at_most(seconds, self._doubted)

    async def settle_next(self) -> bool:
        """Settle one certificate, and report what became of its rows; return False if there is none to settle.

        Raises:
            JournalError: the journal cannot be written.
        """
        self._doubted.clear()
        if self._stopped.is_set() or (claimed := await self._migration.claim_doubt(self._hopeless)) is None:
            return False
        if self._stopped.is_set():  # meanwhile: its row is reported as in doubt
            self._journal.stop_settling(claimed[1])
            return False
        await self._settle(*claimed)
        return True

    async def _settle(self, entry: Entry, known: KnownCertificate) -> None:
        entry, doubt = self._in_doubt.setdefault(known.id, (entry, doubt_of(known)))
        self._report(RowSettling(entry))
        reason = f"{TRIES} times there was no answer and it was not stored: {known.reason}"
        try:
            settled = await self._ask(known, fails=reason if self._not_stored[known.id] >= TRIES - 1 else "")
        except ClaimLost:
            return  # this worker was asleep or cut off: whoever claims it now asks again
        except BaseException as error:
            if isinstance(error, SpringestError) and not isinstance(error, JournalError):
                self._give_up(known, error)
                return
            self._journal.stop_settling(known)
            raise
        match settled.state:
            case State.STORED:
                self._end(known, State.STORED)
            case State.IN_DOUBT:
                self._hopeless.add(known.id)
                self._end(known, State.IN_DOUBT, doubt_of(settled))
            case State.FAILED:
                self._end(known, State.FAILED, NotSent(f"POST {known.origin}", reason))
            case State.WAITING:
                self._not_stored[known.id] += 1
                self._was_not_stored(known, doubt)

    async def _ask(self, known: KnownCertificate, *, fails: str) -> KnownCertificate:
        """Ask Springest about a certificate, and again after errors while the run has other work to do."""
        asked = 0
        while True:
            try:
                return await settle_claimed(self._journal, known, self._client.settle, fails=fails)
            except (ServerError, NoAnswer, NotSent) as error:
                asked += 1
                if asked >= TRIES and self._is_idle():
                    self._stop_run()
                if self._stopped.is_set():
                    raise
                pause = backoff(asked, longest=600.0)
                if isinstance(error, NotSent):
                    self._gate.is_asked(error, pause)
                await wait_at_most(pause, self._stopped)

    # --- what became of them ---

    def _end(self, known: KnownCertificate, state: State, error: SpringestError | None = None) -> None:
        """Report what became of a certificate that was in doubt, to the rows that still wait for that."""
        if (waiting := self._in_doubt.pop(known.id, None)) is None:
            return
        self._report(RowDone(waiting[0], state, error=error))
        if (joined := self._joined.pop(known.id, None)) is not None:
            self._report(RowDone(joined, state, error=error))

    def _was_not_stored(self, known: KnownCertificate, doubt: InDoubt) -> None:
        """Take the row of a certificate that was in doubt up again, unless it has its turn already."""
        entry, latest = self._in_doubt.get(known.id, (None, None))
        if entry is None or latest is not doubt:
            return
        if entry.number is None:
            if (joined := self._joined.pop(known.id, None)) is not None:
                self._again[joined.id] = joined
            self._end(known, State.WAITING)
        else:
            del self._in_doubt[known.id]
            self._again[entry.id] = entry

    def _give_up(self, known: KnownCertificate, error: SpringestError) -> None:
        self._hopeless.add(known.id)
        doubt = doubt_of(known, f"Springest could not be asked ({error})")
        self._journal.stop_settling(known, doubt.reason)
        self._end(known, State.IN_DOUBT, doubt)

    async def finish(self) -> None:
        """Report the rows that are left at the end of a run: in doubt, or waiting again."""
        states: dict[int, State] = {}
        try:
            # They may have been settled in a commit that this run has not awaited.
            with contextlib.suppress(JournalError, TimeoutError):
                async with asyncio.timeout(_PATIENCE_AT_END):
                    for certificate in self._in_doubt:
                        states[certificate] = (await self._journal.certificate(certificate)).state
        finally:
            for certificate, (entry, doubt) in self._in_doubt.items():
                state = states.get(certificate, State.IN_DOUBT)
                for row in (entry, self._joined.get(certificate)):
                    if row is not None:
                        self._report(RowDone(row, state, error=doubt if state is State.IN_DOUBT else None))
            for entry in self._again.values():
                self._report(RowDone(entry, State.WAITING))


async def wait_at_most(seconds: float, event: asyncio.Event) -> None:
    """Wait until an event is set, at most for this time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
