"""The upload queue: upload the waiting rows of a migration, a few at a time, and continue past those that fail.

Only the rows in flight are in memory. Rows are claimed in the journal, which other workers share; each POST is in the
journal before its first byte is sent, and its outcome soon after the answer. Rows in doubt are settled by asking
Springest. The queue prints nothing; it reports events to a listener.
"""

import asyncio
import contextlib
import hashlib
import os
from collections import Counter, deque
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from springest_async.api.verdicts import TRIES, backoff
from springest_async.bulk.events import BulkListener, RowDone, RowSettling, RowStep
from springest_async.bulk.preflight import EDGE_BYTES, no_pdf
from springest_async.client import Springest
from springest_async.errors import (
    CancelledTooLate,
    Forbidden,
    InDoubt,
    InvalidUpload,
    JournalError,
    NoAnswer,
    NotFound,
    NotSent,
    Redirected,
    Rejected,
    ServerError,
    SpringestError,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.file_hashes import storable_time
from springest_async.journal.journal import Claim
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, FileHash, KnownCertificate, State
from springest_async.records import CertificateUpload, Receipt
from springest_async.settling import doubt_of, settle_claimed
from springest_async.source_file import PIECE, SourceFile, open_regular
from springest_async.upload import UploadStep

# After so many unclear answers in a row, the server is probably down behind a gateway that still answers.
_OUTAGE = 4

# Seconds between two looks at what other workers do.
_LOOK_EVERY = 2.0

# Seconds that the end of a run waits for a journal that is away.
_PATIENCE_AT_END = 2.0


class UploadQueue:
    """Uploads the waiting rows of a migration, together with all other workers of the journal.

    Usage::

        async with Journal() as journal, Springest(api_key="…", journal=journal) as springest:
            migration, loaded = await load_manifest(journal, manifest, springest.origin)
            error = await UploadQueue(springest, migration, listener).run()

    Every row that this worker takes ends in exactly one `RowDone`, unless another worker has its certificate or takes
    it over. Cancelling `run` aborts at once, and leaves a row that was being sent in doubt.
    """

    def __init__(self, client: Springest, migration: OpenMigration, listener: BulkListener) -> None:
        self._client = client
        self._migration = migration
        self._journal = migration.journal
        self._listener = listener
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._doubted = asyncio.Event()  # there is one more to settle
        self._claiming = asyncio.Lock()
        self._outage = asyncio.Lock()
        self._claimed: deque[Entry] = deque()  # rows that no task has begun
        self._in_flight = 0
        self._rechecked = 0  # the key of the last row whose file was compared at the end
        self._shared = False  # whether other workers were seen
        self._doubts = 0  # unclear answers in a row
        self._strikes = 0  # answers in a row that suggest a wrong key or host
        self._answered = False  # whether the server was ever reached in this run
        self._error: SpringestError | None = None
        self._bug: Exception | None = None
        self._in_doubt: dict[int, tuple[Entry, InDoubt]] = {}  # by certificate, until they are settled
        self._joined: dict[int, Entry] = {}  # by certificate: rows of those that are settled without one
        self._hopeless: set[int] = set()  # certificates whose doubt cannot be settled in this run
        self._not_stored: Counter[int] = Counter()  # how often a certificate was in doubt and then not stored
        self._again: dict[int, Entry] = {}  # by row: those that were in doubt, are not stored, and wait again
        self._waiting: dict[int, asyncio.Task[Any]] = {}  # the uploads of which no POST is in progress, by row
        self.waits_for_others = False
        """Whether it has nothing to do but to wait for what other workers are sending."""

    def __repr__(self) -> str:
        state = "stopping" if self._stopped.is_set() else "running"
        return f"<UploadQueue {self._journal.where}, {self._in_flight} in flight, {state}>"

    def stop(self) -> None:
        """Take no more rows, put back those that only wait, and finish the uploads in progress."""
        self._stopped.set()
        self._notify()
        for task in self._waiting.values():
            task.cancel()

    async def run(self) -> SpringestError | None:
        """Upload the rows, and return the error that ended the run early, if any.

        It ends when no row waits and no other worker has any. It ends early when the key or the host is refused, when
        no connection can be made at the start, and when the journal cannot be written. If the network fails later on,
        it waits until the network is back.
        """
        states: dict[int, State] = {}
        try:
            await self._journal.work(self._migration.id)
            self._shared = await self._migration.has_other_workers()
            async with asyncio.TaskGroup() as group:
                settling = group.create_task(self._settle_doubts())
                while True:
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(self._client.settings.concurrency):
                            workers.create_task(self._work())
                    if self._stopped.is_set() or not self._shared or not await self._claim_changed_files():
                        break
                settling.cancel()
            await self._client.limiter.finish_changes()
        except* JournalError as errors:
            self._end_run(_first(errors))
        finally:
            for entry in self._claimed:
                self._migration.release(entry)
            try:
                states = await self._states_of_doubts()
            finally:
                for certificate, (entry, doubt) in self._in_doubt.items():
                    state = states.get(certificate, State.IN_DOUBT)
                    for row in (entry, self._joined.get(certificate)):
                        if row is not None:
                            self._report(RowDone(row, state, error=doubt if state is State.IN_DOUBT else None))
                for entry in self._again.values():
                    self._report(RowDone(entry, State.WAITING))
        if self._bug is not None:
            raise self._bug
        return self._error

    async def _states_of_doubts(self) -> dict[int, State]:
        """Return the states of certificates that were not seen to be settled, unless the journal is away.

        They may have been settled in a commit that this run has not awaited.
        """
        states: dict[int, State] = {}
        with contextlib.suppress(JournalError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_AT_END):
                for certificate in self._in_doubt:
                    states[certificate] = (await self._journal.certificate(certificate)).state
        return states

    def _report(self, event: RowStep | RowSettling | RowDone) -> None:
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
        claim = partial(self._migration.recheck_files, self._client.settings.concurrency)
        rows = await claim(after=self._rechecked)
        if not rows and self._rechecked:
            rows = await claim(after=0)
        self._claimed.extend(rows)
        self._rechecked = max((row.id for row in rows), default=0)
        return bool(rows)

    async def _work(self) -> None:
        while (entry := await self._next()) is not None:
            self._in_flight += 1
            try:
                await self._until_done(entry)
            finally:
                self._in_flight -= 1
                self._notify()

    async def _next(self) -> Entry | None:
        """Take the next row, or wait for one: a row in flight, in doubt or of another worker may have to be sent."""
        try:
            return await self._claim_next()
        except JournalError as error:
            self._end_run(error)  # the uploads in progress are finished
            return None

    async def _claim_next(self) -> Entry | None:
        while not self._stopped.is_set():
            changed = self._changed
            async with self._claiming:
                if self._stopped.is_set():
                    break
                if not self._claimed:
                    self._claimed.extend(await self._migration.claim(self._client.settings.concurrency))
                if self._claimed:
                    self.waits_for_others = False
                    return self._claimed.popleft()
                self._shared = self._shared or await self._migration.has_other_workers()
                if not self._in_flight:
                    self.waits_for_others = await self._migration.has_unfinished(self._hopeless)
                    if not self.waits_for_others:
                        return None
            await _wait(changed, _LOOK_EVERY)
        return None

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def _alone_in_an_outage(self) -> AsyncIterator[None]:
        """In an outage, pause and let one row try alone; every row sent meanwhile would end up in doubt."""
        if self._doubts >= _OUTAGE:
            async with self._outage:
                if self._doubts >= _OUTAGE:  # still so, after waiting for the lock
                    await self._pause(backoff(self._doubts, longest=600.0))
                    yield
                    return
        yield

    async def _pause(self, seconds: float) -> None:
        await _wait(self._stopped, seconds)

    def _end_run(self, error: SpringestError) -> None:
        self._error = self._error or error
        self.stop()

    # --- one row ---

    async def _until_done(self, entry: Entry) -> None:
        self._again.pop(entry.id, None)
        try:
            try:
                async with self._alone_in_an_outage():
                    await self._identify_and_upload(entry)
            except (UnusableFile, InvalidUpload) as error:
                state = await self._migration.unreadable(entry, getattr(error, "reason", str(error)))
                self._report(RowDone(entry, state, error=error))
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

    async def _identify_and_upload(self, entry: Entry) -> None:
        upload = entry.upload()
        source, sha256 = await asyncio.get_running_loop().run_in_executor(None, _read, entry.path, entry.hashed)
        known, claim = await self._migration.identify(entry, source.size, source.modified_ns, sha256)
        if known.state is not State.IN_DOUBT:
            self._forget_doubt(entry, known.id)
        if claim is None:
            self._known(entry, known)
            return
        lost = 0
        while not await self._upload(entry, upload, claim, source):
            lost += 1
            await self._pause(backoff(lost))

    def _forget_doubt(self, entry: Entry, certificate: int) -> None:
        """Forget that this row was in doubt: another worker has settled that, and the row has its turn again."""
        joined = self._joined.get(certificate)
        if joined is not None and joined.id == entry.id:
            del self._joined[certificate]
        doubted, doubt = self._in_doubt.get(certificate, (None, None))
        if doubted is not None and doubt is not None and doubted.id == entry.id:
            del self._in_doubt[certificate]
            if (other := self._joined.pop(certificate, None)) is not None:
                self._in_doubt[certificate] = other, doubt

    def _known(self, entry: Entry, known: KnownCertificate) -> None:
        """Finish a row whose certificate needs no POST of this worker."""
        match known.state:
            case State.STORED:
                self._report(RowDone(entry, State.STORED, stored_before=True))
            case State.REJECTED:
                self._report(RowDone(attrs.evolve(entry, reason=known.reason), State.REJECTED))
            case State.IN_DOUBT if known.id in self._hopeless:
                self._report(RowDone(entry, State.IN_DOUBT, error=doubt_of(known)))
            case State.IN_DOUBT:
                first, _ = self._in_doubt.setdefault(known.id, (entry, doubt_of(known)))
                if first.number is None:  # it is being settled as a certificate without a row, but it is this row's
                    self._joined[known.id] = entry
                self._doubted.set()
            case _:
                pass  # another worker or task has it, and this row gets what becomes of it

    async def _upload(self, entry: Entry, upload: CertificateUpload, claim: Claim, source: SourceFile) -> bool:
        """Upload one row; return False when there was no network and the row must be tried again."""
        if self._stopped.is_set():
            self._done(entry, claim, State.WAITING, error=self._error)
            return True

        sending = False
        last = ""

        def follow(step: UploadStep) -> None:
            nonlocal sending, last
            last = step.kind
            if step.kind in ("stored", "rejected", "not stored", "in doubt"):
                return  # a `RowDone` says so
            sending = step.kind == "sending"
            self._set_waiting(entry, asyncio.current_task(), waits=not sending)  # an eager task has no name here yet
            self._answered = self._answered or step.kind == "refused"
            self._listener(RowStep(entry, step))
            if self._stopped.is_set() and entry.id in self._waiting:
                self._waiting[entry.id].cancel()

        task = asyncio.create_task(self._client.upload_claimed(upload, claim, source, listener=follow))
        self._set_waiting(entry, task, waits=not sending)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            # Aborted: note this row's outcome all the same, and let no worker take another row.
            self._stopped.set()
            task.cancel()
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        finally:
            self._set_waiting(entry, task, waits=False)
        return self._ended(entry, claim, task, last)

    def _set_waiting(self, entry: Entry, task: asyncio.Task[Any] | None, *, waits: bool) -> None:
        if waits and task is not None:
            self._waiting[entry.id] = task
        else:
            self._waiting.pop(entry.id, None)

    def _ended(self, entry: Entry, claim: Claim, task: asyncio.Task[Receipt], last: str) -> bool:
        """Report the result of a finished task; return False when the row must be tried again."""
        try:
            receipt = task.result()
        except asyncio.CancelledError as cancelled:
            match cancelled.__cause__:
                case CancelledTooLate():
                    self._done(entry, claim, State.STORED)
                case InDoubt() as doubt:
                    self._into_doubt(entry, claim, doubt)
                case _:
                    self._done(entry, claim, State.WAITING, error=self._error)
            return True
        except SpringestError as error:
            return self._failed(entry, claim, error)
        except ClaimLost:
            raise
        except Exception as bug:  # noqa: BLE001 (raised by `run`)
            # Let no worker take another row, and report this one.
            self._end_with_bug(bug)
            self._done(entry, claim, State.IN_DOUBT if last == "in doubt" else State.WAITING)
            return True
        self._answered = True
        self._doubts = self._strikes = 0
        self._done(entry, claim, State.STORED, receipt=receipt)
        return True

    def _failed(self, entry: Entry, claim: Claim, error: SpringestError) -> bool:
        match error:
            case NotSent(connected=False) if self._answered:
                return False  # no network: try again until it is back
            case Forbidden() | NotFound() | Redirected() if self._answered and self._strikes == 0:
                # Key and host were right so far, so it may be this row. A second such answer in a row ends the run.
                self._strikes += 1
                self._done(entry, claim, State.FAILED, error=error)
            case UnusableFile():
                self._done(entry, claim, State.FAILED, error=error)
            case UnexpectedStatus() | NotSent(connected=True):
                # Mostly the answer of a gateway whose server is down.
                self._doubts += 1
                self._done(entry, claim, State.FAILED, error=error)
            case Rejected():
                self._answered = True
                self._doubts = self._strikes = 0
                self._done(entry, claim, State.REJECTED, error=error)
            case InDoubt():
                self._answered = True
                self._doubts += 1
                self._into_doubt(entry, claim, error)
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
        self._report(RowDone(entry, state, receipt, error, changed=entry.changed))

    # --- rows in doubt ---

    def _into_doubt(self, entry: Entry, claim: Claim, doubt: InDoubt) -> None:
        self._in_doubt[claim.certificate] = (entry, doubt)
        self._doubted.set()

    async def _settle_doubts(self) -> None:
        try:
            await self._settle_all()
        except JournalError as error:
            self._end_run(error)  # the uploads in progress are finished

    async def _settle_all(self) -> None:
        while True:
            self._doubted.clear()
            if not self._stopped.is_set():
                claimed = await self._migration.claim_doubt(self._hopeless)
                if claimed is not None and self._stopped.is_set():  # meanwhile: its row is reported as in doubt
                    self._journal.stop_settling(claimed[1])
                elif claimed is not None:
                    await self._settle(*claimed)
                    self._notify()
                    continue
            await _wait(self._doubted, _LOOK_EVERY)

    async def _settle(self, entry: Entry, known: KnownCertificate) -> None:
        entry, _ = self._in_doubt.setdefault(known.id, (entry, doubt_of(known)))
        self._report(RowSettling(entry))
        try:
            settled = await self._ask(known)
        except ClaimLost:
            return  # this worker was asleep or cut off: whoever claims it now asks again
        except BaseException as error:
            if isinstance(error, SpringestError) and not isinstance(error, JournalError):
                self._give_up_settling(entry, known, error)
                return
            self._journal.stop_settling(known)
            raise
        match settled.state:
            case State.STORED:
                self._end_doubt(entry, known, State.STORED)
            case State.IN_DOUBT:
                self._hopeless.add(known.id)
                self._end_doubt(entry, known, State.IN_DOUBT, doubt_of(settled))
            case State.WAITING:
                await self._was_not_stored(entry, known)

    def _end_doubt(
        self, entry: Entry, known: KnownCertificate, state: State, error: SpringestError | None = None
    ) -> None:
        """Report what became of a certificate that was in doubt."""
        self._in_doubt.pop(known.id, None)
        self._report(RowDone(entry, state, error=error))
        if (joined := self._joined.pop(known.id, None)) is not None:
            self._report(RowDone(joined, state, error=error))

    async def _ask(self, known: KnownCertificate) -> KnownCertificate:
        """Ask Springest about a certificate, and again after errors while the run has other work to do."""
        asked = 0
        while True:
            try:
                return await settle_claimed(self._journal, known, self._client.settle)
            except (ServerError, NoAnswer, NotSent):
                asked += 1
                if asked >= TRIES and not self._in_flight:
                    self.stop()  # nothing else is left to do, and the server does not answer
                if self._stopped.is_set():
                    raise
                await self._pause(backoff(asked, longest=600.0))

    async def _was_not_stored(self, entry: Entry, known: KnownCertificate) -> None:
        """Fail a certificate that was in doubt and not stored so many times; else it is sent again."""
        self._not_stored[known.id] += 1
        if self._not_stored[known.id] >= TRIES:
            reason = f"{TRIES} times there was no answer and it was not stored: {known.reason}"
            await self._journal.fail(known, reason)
            self._end_doubt(entry, known, State.FAILED, NotSent(f"POST {known.origin}", reason))
        elif entry.number is None:
            if (joined := self._joined.pop(known.id, None)) is not None:
                self._again[joined.id] = joined
            self._end_doubt(entry, known, State.WAITING)
        else:
            self._in_doubt.pop(known.id, None)
            self._again[entry.id] = entry

    def _give_up_settling(self, entry: Entry, known: KnownCertificate, error: SpringestError) -> None:
        self._hopeless.add(known.id)
        doubt = doubt_of(known, f"Springest could not be asked ({error})")
        self._journal.stop_settling(known, doubt.reason)
        self._end_doubt(entry, known, State.IN_DOUBT, doubt)


def _read(path: Path, hashed: FileHash | None) -> tuple[SourceFile, bytes]:
    """Check a PDF again, because the preflight may be weeks ago, and return the SHA-256 of the whole file.

    Raises:
        UnusableFile: it cannot be read, is no PDF, or changed meanwhile.
    """
    try:
        with open_regular(path) as stream:
            source = SourceFile.at(path, os.fstat(stream.fileno()))
            if source.size == 0:
                raise UnusableFile(path, "is empty")
            if (reason := no_pdf(beginning := stream.read(EDGE_BYTES))) is not None:
                raise UnusableFile(path, reason)
            if hashed and (hashed.size, hashed.modified_ns) == (source.size, storable_time(source.modified_ns)):
                return source, hashed.sha256
            # A buffer of a whole file costs less than one of file_digest's; but some network disks read less at once.
            whole = beginning + stream.read(source.size) if source.size <= PIECE else b""
            if len(whole) == source.size:
                sha256 = hashlib.sha256(whole)
            else:
                stream.seek(0)
                sha256 = hashlib.file_digest(stream, "sha256")
            unchanged = source.is_still(stream)
    except OSError as error:
        raise UnusableFile(path, error.strerror or "cannot be read") from None
    if not unchanged:
        raise UnusableFile(path, "changed while it was being read")
    return source, sha256.digest()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _first(errors: ExceptionGroup[JournalError]) -> JournalError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
