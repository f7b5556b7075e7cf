"""The upload queue: upload the waiting rows of a migration, a few at a time, and continue past those that fail.

Only the rows in flight are in memory. Rows are claimed in the journal, which other workers share; each POST is in the
journal before its first byte is sent, and its outcome soon after the answer. Rows in doubt are settled by asking
Springest. The queue prints nothing; it reports events to a listener.
"""

import asyncio
from collections import deque
from functools import partial
from itertools import islice
from typing import Any

import attrs
from attrs import frozen

from springest_async.bulk.events import (
    BulkEvent,
    BulkListener,
    Outage,
    OutageOver,
    Paused,
    Resumed,
    RowDone,
    RowStep,
)
from springest_async.bulk.gate import Gate
from springest_async.bulk.reading import ReadRow, read_row, read_together
from springest_async.bulk.settling import Settler, wait_at_most
from springest_async.client import Springest
from springest_async.errors import (
    CancelledTooLate,
    Forbidden,
    InDoubt,
    InvalidUpload,
    JournalError,
    NotFound,
    NotSent,
    Redirected,
    Rejected,
    SpringestError,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.journal import Claim
from springest_async.journal.ledger import JournalLedger
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, KnownCertificate, State
from springest_async.records import Receipt
from springest_async.source_file import FileReader, inspect_file
from springest_async.upload import UploadStep

# Seconds between two looks at what other workers do.
_LOOK_EVERY = 2.0

# Rows that are claimed at once, at least: a commit for each would cost more than the row itself.
_CLAIM_AHEAD = 8

# Bytes of files that are kept to be sent, after they were read to be hashed. More are read again.
_KEPT = 8 * 1024 * 1024

# Seconds for which a row may wait for its turn: then it is left to others, or its file is looked at again.
_TURN_WITHIN = 10.0

# Seconds within which the small files of some rows are read, or each is read at the turn of its row.
_READ_WITHIN = 1.0


@frozen
class _Identified:
    """A row whose file has been read, and whose certificate this worker may send.

    Attributes:
        at: when it was read, on the loop's clock.
        kept: bytes of the file that are kept.
    """

    row: ReadRow
    claim: Claim
    at: float
    kept: int


class UploadQueue:
    """Uploads the waiting rows of a migration, together with all other workers of the journal.

    Usage::

        async with Journal() as journal, Springest(api_key="…", journal=journal) as springest:
            migration, loaded = await load_manifest(journal, manifest, springest.origin)
            error = await UploadQueue(springest, migration, listener).run()

    Every row that this worker takes ends in exactly one `RowDone`, unless another worker takes it over, or its
    certificate is being sent for another row or by another worker. A row that was put back because of a pause is taken
    anew when that is over. Cancelling `run` aborts at once, and leaves a row that was being sent in doubt.
    """

    def __init__(self, client: Springest, migration: OpenMigration, listener: BulkListener) -> None:
        self._client = client
        self._migration = migration
        self._journal = migration.journal
        self._listener = listener
        self._stopped = asyncio.Event()
        self._paused_at: float | None = None  # when this run noticed that it is paused, on the loop's clock
        self._changed = asyncio.Event()  # there may be rows to claim, or nothing left to do
        self._gate = Gate(self._report_outage)
        self._settler = Settler(
            client, migration, self._gate, self._report, is_idle=lambda: self._is_idle, stop=self.stop
        )
        self._concurrency = client.settings.concurrency
        self._claim_size = max(_CLAIM_AHEAD, self._concurrency)
        self._claimed: deque[Entry] = deque()  # rows that are not ready
        self._ready: deque[Entry | _Identified] = deque()  # rows that no worker has begun
        self._moved_at = 0.0  # when the last of these came or went, on the loop's clock
        self._has_more = True  # whether rows may wait that are not claimed
        self._goes_on = True  # whether a row has ended since the last ones were made ready
        self._is_quick = True  # whether the files of several rows could always be read in a moment
        self._kept = 0  # bytes of files
        self._workers = 0  # tasks
        self._in_flight = 0  # rows
        self._rechecked = 0  # the key of the last row whose file was compared at the end
        self._shared = False  # whether other workers were seen
        self._strikes = 0  # answers in a row that suggest a wrong key or host
        self._error: SpringestError | None = None
        self._bug: Exception | None = None
        self._waiting: dict[int, asyncio.Task[Any]] = {}  # workers whose upload has no POST in progress, by row
        self.waits_for_others = False
        """Whether it has nothing to do but to wait for what other workers are sending."""

    def __repr__(self) -> str:
        state = "stopping" if self._stopped.is_set() else "paused" if self._is_paused else "running"
        return f"<UploadQueue {self._journal.where}, {self._in_flight} in flight, {state}>"

    def stop(self) -> None:
        """Take no more rows, put back those that only wait, and finish the uploads in progress."""
        self._stopped.set()
        self._gate.stop()
        self._settler.stop()
        self._put_back_what_waits()

    def _put_back_what_waits(self) -> None:
        self._changed.set()
        for task in self._waiting.values():
            task.cancel()

    async def run(self) -> SpringestError | None:
        """Upload the rows, and return the error that ended the run early, if any.

        It ends when no row waits and no other worker has any. It ends early when the key or the host is refused, when
        no connection can be made at the start, and when the journal cannot be written. If the network fails later on,
        or at the start although the same key was right before, it waits until the network is back. While the migration
        is paused, it sends nothing and waits.
        """
        try:
            await self._journal.work(self._migration.id)
            if isinstance(ledger := self._client.limiter.ledger, JournalLedger):
                await self._migration.note_budget(ledger.budget)
            self._shared = await self._migration.has_other_workers()
            await self._note_pause()
            async with asyncio.TaskGroup() as group:
                settling = group.create_task(self._settle_doubts())
                pausing = group.create_task(self._note_pauses())
                while True:
                    async with asyncio.TaskGroup() as workers:
                        await self._feed(workers)
                    if self._stopped.is_set() or not self._shared or not await self._claim_changed_files():
                        break
                settling.cancel()
                pausing.cancel()
            await self._client.limiter.finish_changes()
        except* JournalError as errors:
            self._end_run(_first(errors))
        finally:
            self._gate.close()
            self._put_back()
            await self._settler.finish()
        if self._bug is not None:
            raise self._bug
        return self._error

    def _report_outage(self, event: Outage | OutageOver) -> None:
        """Report an outage, also to those who look into the journal."""
        if isinstance(event, OutageOver):
            self._journal.note_trouble("")
        else:
            now = asyncio.get_running_loop().time()
            again_in = None if event.again_at is None else event.again_at - now
            self._journal.note_trouble(event.what, event.reason, seconds=now - event.since, again_in=again_in)
        self._report(event)

    def _report(self, event: BulkEvent) -> None:
        """Call the listener; a bug of its own ends the run, and is raised when the uploads in progress have ended."""
        try:
            self._listener(event)
        except Exception as error:  # noqa: BLE001 (raised by `run`)
            self._end_with_bug(error)

    def _end_with_bug(self, error: Exception) -> None:
        self._bug = self._bug or error
        self.stop()

    async def _claim_changed_files(self) -> bool:
        """Claim rows whose file here is not the one that was sent: the manifest may lie in two folders."""
        claim = partial(self._migration.recheck_files, self._concurrency)
        rows = await claim(after=self._rechecked)
        if not rows and self._rechecked:
            rows = await claim(after=0)
        self._claimed.extend(rows)
        self._rechecked = max((row.id for row in rows), default=0)
        return bool(rows)

    # --- pauses ---

    @property
    def _is_paused(self) -> bool:
        return self._paused_at is not None

    @property
    def _may_send(self) -> bool:
        """Whether rows may have their turn."""
        return not (self._stopped.is_set() or self._is_paused)

    async def _note_pauses(self) -> None:
        """Look from time to time whether somebody has paused the migration, or lets it go on."""
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY)
                await self._note_pause()
        except JournalError as error:
            self._end_run(error)  # the uploads in progress are finished

    async def _note_pause(self) -> None:
        since, now = await self._migration.paused_at(), asyncio.get_running_loop().time()
        if self._stopped.is_set():
            return
        if since is not None and self._paused_at is None:
            self._paused_at = now
            self._gate.pause()
            self._put_back_what_waits()
            self._report(Paused(since))
        elif since is None and self._paused_at is not None:
            paused_at, self._paused_at = self._paused_at, None
            self._gate.resume()
            self._changed.set()
            self._report(Resumed(now - paused_at))

    # --- whose turn it is ---

    async def _feed(self, workers: asyncio.TaskGroup) -> None:
        """Keep rows ready, and a worker for each that may be in flight, until nothing is left to do.

        Without any it waits: a row that is in flight, in doubt or of another worker may have to be sent.
        """
        try:
            while not self._stopped.is_set():
                self._changed.clear()
                made_ready = False
                if self._is_paused:
                    self._put_back()
                    if await self._is_finished():
                        break
                elif self._needs_rows:
                    self._goes_on = False
                    made_ready = await self._make_ready()
                    if not made_ready and not self._ready and await self._is_finished():
                        break
                if await self._start(workers) < self._concurrency and made_ready:
                    continue
                await wait_at_most(_LOOK_EVERY, self._changed)
                rows_wait = self._ready or self._claimed
                if rows_wait and asyncio.get_running_loop().time() > self._moved_at + _TURN_WITHIN:
                    self._put_back()
        except JournalError as error:
            self._end_run(error)  # the uploads in progress are finished
        except asyncio.CancelledError:
            self._stopped.set()  # let no worker take another row
            raise

    @property
    def _is_idle(self) -> bool:
        """Whether no row has its turn or will have one soon; in a pause they may have it later."""
        return not (self._in_flight or self._ready or self._claimed or self._is_paused)

    @property
    def _needs_rows(self) -> bool:
        """Whether there is a worker without a row, or will be soon; rows that nobody takes are left to others."""
        return len(self._ready) <= self._claim_size // 2 and (self._goes_on or self._workers < self._concurrency)

    async def _start(self, workers: asyncio.TaskGroup) -> int:
        """Start workers for the rows that are ready, and return how many are there."""
        if missing := min(len(self._ready), self._concurrency - self._workers):
            for _ in range(missing):
                self._workers += 1
                workers.create_task(self._work())
            await asyncio.sleep(0)  # each takes its row
        return self._workers

    def _put_back(self) -> None:
        """Release the rows that no worker has begun; more are claimed when a row has ended."""
        for row in (*self._claimed, *self._ready):
            self._migration.release(_entry_of(row))
            self._kept -= row.kept if isinstance(row, _Identified) else 0
        self._claimed.clear()
        self._ready.clear()
        self._has_more, self._goes_on = True, False

    async def _make_ready(self) -> bool:
        """Make some rows ready; return False if none waits for anybody."""
        if not self._claimed:
            self._claimed.extend(await self._migration.claim(self._claim_size))
            self._has_more = bool(self._claimed)
            if not self._claimed:
                return False
        self.waits_for_others = False
        self._moved_at = asyncio.get_running_loop().time()
        if not (read := await self._read_together()):
            for _ in range(min(len(self._claimed), max(1, self._concurrency - self._workers))):
                self._ready.append(self._claimed.popleft())
            return True
        identified = iter(
            await self._migration.identify_all([(row.entry, row.hashed) for row in read if row is not None])
        )
        for row in read:
            entry = self._claimed.popleft()
            if row is None:
                self._ready.append(entry)
            elif (found := next(identified)) is None:
                self._settler.has_turn(entry)  # another worker has taken over
            elif (claim := found[1]) is not None:
                self._ready.append(self._keep(row, claim))
            else:
                self._settler.has_turn(entry)
                self._known(entry, found[0])
        return True

    def _keep(self, row: ReadRow, claim: Claim) -> _Identified:
        """Keep what was read of a file until its row is done, unless that is too much."""
        kept = 0 if row.reader is None else row.source.size
        if self._kept + kept > _KEPT:
            row, kept = attrs.evolve(row, reader=None), 0
        self._kept += kept
        return _Identified(row, claim, self._moved_at, kept)

    async def _read_together(self) -> list[ReadRow | None]:
        """Read the files of rows that may leave at once; those of others are read at the turn of their rows."""
        rows = len(self._claimed)
        while rows > 1 and self._client.limiter.seconds_until(rows) > 0:
            rows //= 2
        if rows < 2 or self._gate.is_outage or not self._is_quick:
            return []
        first = [*islice(self._claimed, rows)]
        reading = asyncio.get_running_loop().run_in_executor(None, read_together, first)
        if not (await asyncio.wait([reading], timeout=_READ_WITHIN))[0]:
            # A disk that is slow, or away for one of them: each worker had better wait for the file of its own row.
            self._is_quick = False
            reading.cancel()
            return []
        return reading.result()

    async def _is_finished(self) -> bool:
        """Return whether there is nothing to wait for."""
        self._shared = self._shared or await self._migration.has_other_workers()
        if self._in_flight:
            return False
        is_unfinished = await self._migration.has_unfinished(self._settler.hopeless)
        self.waits_for_others = is_unfinished and not self._is_paused
        return not is_unfinished

    async def _work(self) -> None:
        """Upload the rows that are ready, one after another."""
        task, time = asyncio.current_task(), asyncio.get_running_loop().time
        assert task is not None
        try:
            while self._ready and self._may_send and not task.cancelling():
                row = self._ready.popleft()
                self._moved_at = time()
                self._in_flight += 1
                try:
                    await self._until_done(row, task)
                finally:
                    self._in_flight -= 1
                    self._kept -= row.kept if isinstance(row, _Identified) else 0
                    self._goes_on = self._has_more
                if self._needs_rows and self._goes_on:
                    self._changed.set()
                if self._gate.is_unclear:
                    await asyncio.sleep(0)  # others may end just now, and show that it is an outage
        except Exception:
            self._stopped.set()  # the other workers are cancelled, and must not take another row
            raise
        finally:
            self._workers -= 1
            if self._has_more or not self._in_flight:
                self._changed.set()

    def _claim_again(self) -> None:
        """Look for rows that wait now."""
        self._has_more = True
        self._changed.set()

    def _end_run(self, error: SpringestError) -> None:
        self._error = self._error or error
        self.stop()

    # --- one row ---

    async def _until_done(self, row: Entry | _Identified, worker: asyncio.Task[Any]) -> None:
        entry = _entry_of(row)
        self._settler.has_turn(entry)
        try:
            try:
                await self._identify_and_upload(row, worker)
            except (UnusableFile, InvalidUpload) as error:
                self._report(RowDone(entry, await self._unreadable(entry, error), error=error))
        except ClaimLost:
            pass  # this worker was stopped or cut off for so long that another one has taken over
        except JournalError as error:
            self._migration.release(entry)
            self._end_run(error)
            self._report(RowDone(entry, State.WAITING, error=error))
        except asyncio.CancelledError:
            self._migration.release(entry)
            self._report(RowDone(entry, State.WAITING))
            raise
        except Exception:
            self._migration.release(entry)
            raise

    async def _unreadable(self, entry: Entry, error: UnusableFile | InvalidUpload) -> State:
        """Record that the file of a row cannot be sent, also if this worker is cancelled; return the row's state."""
        reason = error.reason if isinstance(error, UnusableFile) else str(error)
        try:
            return await self._migration.unreadable(entry, reason)
        except asyncio.CancelledError:
            return State.WAITING if self._shared else State.FAILED

    async def _identify_and_upload(self, row: Entry | _Identified, worker: asyncio.Task[Any]) -> None:
        identified = await self._identify(row) if isinstance(row, Entry) else row
        if identified is None:
            return
        entry, reader = identified.row.entry, identified.row.reader
        self._settler.forget(entry, identified.claim.certificate)
        while True:
            is_alone = not self._gate.is_open and await self._gate.wait_turn()
            try:
                if not await self._is_unchanged(identified):
                    self._migration.release(entry)
                    self._claim_again()  # and identify it anew
                    return
                if await self._upload(identified.row, identified.claim, worker, reader):
                    return
            finally:
                if is_alone:
                    self._gate.leave()
            reader = None

    async def _identify(self, row: Entry) -> _Identified | None:
        """Read the file of a row, and claim its certificate; None if it needs no POST of this worker."""
        at = asyncio.get_running_loop().time()
        read = await asyncio.get_running_loop().run_in_executor(None, read_row, row)
        known, claim = await self._migration.identify(row, read.source.size, read.source.modified_ns, read.sha256)
        if claim is not None:
            return _Identified(read, claim, at, 0)
        self._known(row, known)
        return None

    async def _is_unchanged(self, row: _Identified) -> bool:
        """Return whether the file of a row is as it was, if its turn comes much later than was expected."""
        if asyncio.get_running_loop().time() <= row.at + _TURN_WITHIN:
            return True
        source = row.row.source
        try:
            return await inspect_file(source.path, None) == source
        except UnusableFile:
            return False

    def _known(self, entry: Entry, known: KnownCertificate) -> None:
        """Finish a row whose certificate needs no POST of this worker."""
        if known.state is not State.IN_DOUBT:
            self._settler.forget(entry, known.id)
        match known.state:
            case State.STORED:
                self._report(RowDone(entry, State.STORED, stored_before=True))
            case State.REJECTED:
                self._report(RowDone(attrs.evolve(entry, reason=known.reason), State.REJECTED))
            case State.IN_DOUBT:
                self._settler.join(entry, known)
            case _:
                pass  # another worker or task has it, and this row gets what becomes of it

    async def _upload(
        self, row: ReadRow, claim: Claim, worker: asyncio.Task[Any], reader: FileReader | None = None
    ) -> bool:
        """Upload one row; return False when there was no network and the row must be tried again."""
        entry = row.entry
        if not self._may_send:
            self._done(entry, claim, State.WAITING, error=self._error)
            return True

        last = ""

        def follow(step: UploadStep) -> None:
            nonlocal last
            before, last = last, step.kind
            self._follow(entry, step, before, worker)

        self._waiting[entry.id] = worker
        try:
            try:
                receipt = await self._client.upload_claimed(
                    row.upload, claim, row.source, listener=follow, reader=reader
                )
            finally:
                self._waiting.pop(entry.id, None)
        except asyncio.CancelledError as cancelled:
            # Stopped, aborted, or the client is closed: note this row's outcome; its worker takes no other row.
            self._cancelled(entry, claim, cancelled.__cause__)
        except SpringestError as error:
            if isinstance(error, NotSent) and not error.connected and error.trusted and not self._gate.was_reached:
                self._gate.was_reached = await self._migration.was_answered()
            return self._failed(entry, claim, error)
        except ClaimLost:
            raise
        except Exception as bug:  # noqa: BLE001 (raised by `run`)
            # Let no worker take another row, and report this one.
            self._end_with_bug(bug)
            self._done(entry, claim, State.IN_DOUBT if last == "in doubt" else State.WAITING)
        else:
            self._gate.answered()
            self._strikes = 0
            self._done(entry, claim, State.STORED, receipt=receipt)
        return True

    def _follow(self, entry: Entry, step: UploadStep, before: str, worker: asyncio.Task[Any]) -> None:
        """Note and report a step of an upload, whose last one was `before`."""
        match step.kind:
            case "stored" | "rejected" | "not stored" | "in doubt":  # a `RowDone` says so
                if before == "sending" and not step.connected:  # stopped while it was connecting
                    self._listener(RowStep(entry, attrs.evolve(step, kind="unsent")))
                return
            case "sending":
                self._waiting.pop(entry.id, None)
            case kind:
                self._waiting[entry.id] = worker
                if kind == "refused":
                    self._gate.answered()
                elif kind == "unsent" and step.connected:
                    self._gate.connected()
        self._listener(RowStep(entry, step))
        if not self._may_send and entry.id in self._waiting:
            worker.cancel()

    def _cancelled(self, entry: Entry, claim: Claim, cause: BaseException | None) -> None:
        match cause:
            case CancelledTooLate():
                self._done(entry, claim, State.STORED)
            case InDoubt():
                self._settler.add(entry, claim.certificate, cause)
            case _:
                self._done(entry, claim, State.WAITING, error=self._error)

    def _failed(self, entry: Entry, claim: Claim, error: SpringestError) -> bool:
        match error:
            case NotSent(connected=False) if self._gate.lost(error):
                return False  # no network: try again until it is back
            case Forbidden() | NotFound() | Redirected() if self._gate.is_proved and self._strikes == 0:
                # Key and host were right so far, so it may be this row. A second such answer in a row ends the run.
                self._strikes += 1
                self._gate.connected()
                self._done(entry, claim, State.FAILED, error=error)
            case UnusableFile():
                self._done(entry, claim, State.FAILED, error=error)
            case UnexpectedStatus() | NotSent(connected=True):
                # Mostly the answer of a gateway whose server is down.
                self._gate.unclear(_reason_of(error))
                self._done(entry, claim, State.FAILED, error=error)
            case Rejected():
                self._gate.answered()
                self._strikes = 0
                self._done(entry, claim, State.REJECTED, error=error)
            case InDoubt():
                self._gate.unclear(_reason_of(error))
                self._gate.was_reached = True
                self._settler.add(entry, claim.certificate, error)
            case _:
                # The limit, the key, the host or the journal is at fault, so the next row would fail in the same way.
                self._end_run(error)
                self._done(entry, claim, State.WAITING, error=error)
        return True

    def _done(
        self,
        entry: Entry,
        claim: Claim,
        state: State,
        *,
        receipt: Receipt | None = None,
        error: SpringestError | None = None,
    ) -> None:
        """Release the claim, and report the outcome, which the journal has already if a POST showed it."""
        if state not in (State.STORED, State.IN_DOUBT):
            claim.release(state, "" if state is State.WAITING else str(error or ""))
        self._settler.forget(entry, claim.certificate)
        self._report(RowDone(entry, state, receipt, error, changed=entry.changed))

    # --- rows in doubt ---

    async def _settle_doubts(self) -> None:
        try:
            while True:
                if await self._settler.settle_next():
                    self._claim_again()
                else:
                    await self._settler.wait_for_doubts(_LOOK_EVERY)
        except JournalError as error:
            self._end_run(error)  # the uploads in progress are finished


def _reason_of(error: UnexpectedStatus | NotSent | InDoubt) -> str:
    return f"the server answered {error.status}" if isinstance(error, UnexpectedStatus) else error.reason


def _entry_of(row: Entry | _Identified) -> Entry:
    return row if isinstance(row, Entry) else row.row.entry


def _first(errors: ExceptionGroup[JournalError]) -> JournalError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
