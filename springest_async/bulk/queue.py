"""The upload queue: upload the waiting rows of a journal, a few at a time, and continue past those that fail.

Only the rows in flight are in memory. Each step is in the journal before the next one begins: "sending" before the
first byte is sent, the outcome right after the answer. Rows in doubt are settled by asking Springest. The queue opens
no file and prints nothing; it reports events to a listener.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from springest_async.api.verdicts import TRIES, backoff
from springest_async.bulk.entries import Entry, State
from springest_async.bulk.events import BulkListener, RowDone, RowSettling, RowStep
from springest_async.bulk.journal import Journal
from springest_async.bulk.preflight import check_pdf
from springest_async.client import Springest
from springest_async.errors import (
    CancelledTooLate,
    ConfigurationError,
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
from springest_async.records import Certificate, Receipt
from springest_async.source_file import SourceFile, inspect_file, open_regular
from springest_async.upload import UploadStep

# After so many unclear answers in a row, the server is probably down behind a gateway that still answers.
_OUTAGE = 4


class UploadQueue:
    """Uploads the waiting rows of a journal.

    Usage::

        with Journal.open(path) as journal:
            journal.load(manifest, springest.origin)
            error = await UploadQueue(springest, journal, listener).run()

    Every row that is taken, and every row that was in doubt at the start, ends in exactly one `RowDone`; the other rows
    stay waiting in the journal. Cancelling `run` aborts at once, and leaves a row that was being sent in doubt.
    """

    def __init__(self, client: Springest, journal: Journal, listener: BulkListener) -> None:
        self._client = client
        self._journal = journal
        self._report = listener
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._outage = asyncio.Lock()
        self._doubts = 0  # unclear answers in a row
        self._strikes = 0  # answers in a row that suggest a wrong key or host
        self._answered = False  # whether the server was ever reached in this run
        self._error: SpringestError | None = None
        self._taken: set[int] = set()  # the entries that workers have
        self._in_doubt: dict[int, Entry] = {}  # the entries to settle, in the order in which they became in doubt
        self._not_stored: Counter[int] = Counter()  # how often an entry was in doubt and then found not to be stored
        self._started = 0.0  # on the loop's clock
        self._given_up: dict[int, float] = {}  # when this run stopped waiting for an answer, on the loop's clock
        self._again: dict[int, Entry] = {}  # entries that were found not to be stored, until they are taken again
        self._waiting: dict[int, asyncio.Task[Any]] = {}  # the uploads of which no POST is in progress, by entry

    def __repr__(self) -> str:
        state = "stopping" if self._stopped.is_set() else "running"
        return f"<UploadQueue {self._journal.path}, {len(self._taken)} in flight, {state}>"

    def stop(self) -> None:
        """Take no more rows, put back those that only wait, and finish the uploads in progress."""
        self._stopped.set()
        self._notify()
        for task in self._waiting.values():
            task.cancel()

    async def run(self) -> SpringestError | None:
        """Upload the rows, and return the error that ended the run early, if any.

        It ends early when the key or the host is refused, when no connection can be made at the start, and when the
        journal cannot be written. If the network fails later on, it waits until the network is back.
        """
        self._started = asyncio.get_running_loop().time()
        origin = self._client.origin  # a journal may contain rows for other hosts
        self._in_doubt = {entry.id: entry for entry in self._journal.doubts() if entry.origin == origin}
        try:
            async with asyncio.TaskGroup() as group:
                settling = group.create_task(self._settle_doubts())
                async with asyncio.TaskGroup() as workers:
                    for _ in range(self._client.settings.concurrency):
                        workers.create_task(self._work())
                settling.cancel()
        finally:
            for entry in self._in_doubt.values():
                self._report(RowDone(entry, State.IN_DOUBT, error=_doubt_of(entry)))
            for entry in self._again.values():
                self._report(RowDone(entry, State.WAITING, error=self._error))
        return self._error

    async def _work(self) -> None:
        while (entry := await self._next()) is not None:
            await self._until_done(entry)

    async def _next(self) -> Entry | None:
        """Take the next row; wait while a row that is in flight or in doubt may have to be sent again."""
        while not self._stopped.is_set():
            try:
                entry = self._journal.next(self._taken)
            except JournalError as error:
                self._end_run(error)
                return None
            if entry is not None and entry.origin != self._client.origin:
                self._end_run(ConfigurationError(f"the journal was loaded for {entry.origin}: load it for this host"))
                return None
            if entry is not None:
                self._taken.add(entry.id)
                self._again.pop(entry.id, None)
                return entry
            if not self._taken and not self._in_doubt:
                return None
            await self._changed.wait()
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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def _end_run(self, error: SpringestError) -> None:
        self._error = self._error or error
        self.stop()

    # --- one row ---

    async def _until_done(self, entry: Entry) -> None:
        lost = 0
        try:
            async with self._alone_in_an_outage():
                source = await inspect_file(entry.path, None)
                entry = await self._identified(entry, source)
                if entry.state is not State.WAITING:
                    self._known(entry)
                    return
                while not await self._upload(entry, source):
                    lost += 1
                    await self._pause(backoff(lost))
        except (UnusableFile, InvalidUpload) as error:
            self._done(entry, State.FAILED, error=error)
        except JournalError as error:
            self._end_run(error)
            self._report(RowDone(entry, State.WAITING, error=error))
        except asyncio.CancelledError:
            self._report(RowDone(entry, State.WAITING))
            raise
        finally:
            self._taken.discard(entry.id)
            self._notify()

    def _known(self, entry: Entry) -> None:
        """Finish a row whose certificate is in the journal already, under another name or row."""
        if entry.state is State.IN_DOUBT:
            self._in_doubt[entry.id] = entry
        else:
            error = UnusableFile(entry.path, entry.reason) if entry.state is State.FAILED else None
            self._report(RowDone(entry, entry.state, error=error))

    async def _identified(self, entry: Entry, source: SourceFile) -> Entry:
        """Hash the file; return the entry of this certificate."""
        sha256 = self._journal.known_hash(entry.path, source.size, source.modified_ns)
        if sha256 is None:
            sha256 = await asyncio.to_thread(_read, source)
        found = self._journal.identify(entry, source.size, source.modified_ns, sha256)
        self._taken.remove(entry.id)
        self._taken.add(found.id)
        self._again.pop(found.id, None)
        return found

    async def _upload(self, entry: Entry, source: SourceFile) -> bool:
        """Upload one row; return False when there was no network and the row must be tried again."""
        if self._stopped.is_set():
            self._done(entry, State.WAITING, error=self._error)
            return True

        sending = False

        def record(step: UploadStep) -> None:
            nonlocal sending
            match step.kind:
                case "stored" | "rejected" | "not stored" | "in doubt":
                    return  # a `RowDone` says so, when the journal has it
                case "sending":
                    self._journal.sending(entry.id, step.at)
                case "refused" | "unsent":
                    self._journal.ended(entry.id, State.WAITING, at=step.at, status=step.status, words=step.words)
            sending = step.kind == "sending"
            self._set_waiting(entry, asyncio.current_task(), waits=not sending)  # an eager task has no name here yet
            self._answered = self._answered or step.kind == "refused"
            try:
                self._report(RowStep(entry, step))
            except BaseException:
                if sending:  # the POST is not sent then
                    sending = False
                    self._journal.ended(entry.id, State.WAITING, at=step.at)
                raise
            if self._stopped.is_set() and entry.id in self._waiting:
                self._waiting[entry.id].cancel()

        task = asyncio.create_task(self._client.upload(entry.upload(), listener=record, bulk=True, source=source))
        self._set_waiting(entry, task, waits=not sending)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            # Aborted: record this row's outcome all the same, and let no worker take another row.
            self._stopped.set()
            task.cancel()
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        finally:
            self._set_waiting(entry, task, waits=False)
        return self._ended(entry, task, sending=sending)

    def _set_waiting(self, entry: Entry, task: asyncio.Task[Any] | None, *, waits: bool) -> None:
        if waits and task is not None:
            self._waiting[entry.id] = task
        else:
            self._waiting.pop(entry.id, None)

    def _ended(self, entry: Entry, task: asyncio.Task[Receipt], *, sending: bool) -> bool:
        """Record the result of a finished task; return False when the row must be tried again."""
        # The state in the journal if the upload ended without an outcome.
        unfinished = State.IN_DOUBT if sending else State.WAITING
        try:
            receipt = task.result()
        except asyncio.CancelledError as cancelled:
            match cancelled.__cause__:
                case CancelledTooLate():
                    self._done(entry, State.STORED)
                case InDoubt() as doubt:
                    self._into_doubt(entry, doubt)
                case None if sending:
                    self._report(RowDone(entry, unfinished))
                case _:
                    self._done(entry, State.WAITING, error=self._error)
            return True
        except JournalError as error:
            self._end_run(error)
            self._report(RowDone(entry, unfinished, error=error))
            return True
        except SpringestError as error:
            return self._failed(entry, error)
        except Exception:
            # A bug: let no worker take another row, report this one, and end the run.
            self.stop()
            self._report(RowDone(entry, unfinished))
            raise
        self._answered = True
        self._doubts = self._strikes = 0
        self._done(entry, State.STORED, receipt=receipt)
        return True

    def _failed(self, entry: Entry, error: SpringestError) -> bool:
        match error:
            case NotSent(connected=False) if self._answered:
                return False  # no network: try again until it is back
            case Forbidden() | NotFound() | Redirected() if self._answered and self._strikes == 0:
                # Key and host were right so far, so it may be this row. A second such answer in a row ends the run.
                self._strikes += 1
                self._done(entry, State.FAILED, error=error)
            case UnusableFile():
                self._done(entry, State.FAILED, error=error)
            case UnexpectedStatus() | NotSent(connected=True):
                # Mostly the answer of a gateway whose server is down.
                self._doubts += 1
                self._done(entry, State.FAILED, error=error)
            case Rejected():
                self._answered = True
                self._doubts = self._strikes = 0
                self._done(entry, State.REJECTED, error=error)
            case InDoubt():
                self._answered = True
                self._doubts += 1
                self._into_doubt(entry, error)
            case _:
                # The limit, the key or the host is at fault, so the next row would fail in the same way.
                self._end_run(error)
                self._done(entry, State.WAITING, error=error)
        return True

    def _done(
        self,
        entry: Entry,
        state: State,
        *,
        receipt: Receipt | None = None,
        springest_id: int | None = None,
        error: SpringestError | None = None,
    ) -> None:
        """Record the outcome in the journal, and report it."""
        entry = self._in_doubt.get(entry.id, entry)  # it may have got a row while we asked Springest
        # The other attributes of a doubt are in the journal anyway.
        reason = error.reason if isinstance(error, InDoubt) else str(error or "")
        try:
            self._journal.ended(
                entry.id,
                state,
                at=receipt.answered_at if receipt else datetime.now(UTC),
                status=201 if state is State.STORED else error.status if error else None,
                words=error.words if error else "",
                reason="" if state is State.WAITING else reason,
                springest_id=receipt.id if receipt else springest_id,
            )
        except JournalError as failure:
            # The journal still says "sending", so the next run settles it.
            self._end_run(failure)
            error = error or failure
        self._report(RowDone(entry, state, receipt, error))

    # --- rows in doubt ---

    def _into_doubt(self, entry: Entry, doubt: InDoubt) -> None:
        try:
            self._journal.ended(
                entry.id,
                State.IN_DOUBT,
                at=doubt.given_up_at,
                status=doubt.status,
                words=doubt.words,
                reason=doubt.reason,
            )
        except JournalError as failure:
            self._end_run(failure)
            self._report(RowDone(entry, State.IN_DOUBT, error=doubt))
        else:
            self._given_up[entry.id] = asyncio.get_running_loop().time()
            self._in_doubt[entry.id] = attrs.evolve(
                entry,
                state=State.IN_DOUBT,
                reason=doubt.reason,
                sent_at=doubt.sent_at,
                given_up_at=doubt.given_up_at,
            )
            self._notify()

    async def _settle_doubts(self) -> None:
        while True:
            while not self._in_doubt or self._stopped.is_set():
                await self._changed.wait()
            entry = next(iter(self._in_doubt.values()))
            self._report(RowSettling(entry))
            try:
                await self._settle(entry)
            except JournalError as error:
                self._end_run(error)
            else:
                del self._in_doubt[entry.id]
                self._notify()

    async def _settle(self, entry: Entry) -> None:
        doubt = _doubt_of(entry)
        try:
            found = await self._find(entry, doubt)
        except JournalError:
            raise
        except InDoubt as still:
            self._done(entry, State.IN_DOUBT, error=still)
        except SpringestError as error:
            self._done(entry, State.IN_DOUBT, error=_doubt_of(entry, f"Springest could not be asked ({error})"))
        else:
            if found is not None:
                self._done(entry, State.STORED, springest_id=found.id)
                return
            self._journal.ended(entry.id, State.WAITING, at=datetime.now(UTC))
            self._not_stored[entry.id] += 1
            if self._not_stored[entry.id] < TRIES:
                self._again[entry.id] = self._in_doubt[entry.id]
                return
            reason = f"{TRIES} times there was no answer and it was not stored: {doubt.reason}"
            self._done(entry, State.FAILED, error=NotSent(doubt.where, reason))

    async def _find(self, entry: Entry, doubt: InDoubt) -> Certificate | None:
        """Ask Springest for a certificate in doubt, and again after errors while the run has other work to do."""
        asked = 0
        while True:
            siblings = self._journal.siblings(entry)
            # The wall clock may have been changed since, so measure on the loop's clock how much time the server had.
            age = asyncio.get_running_loop().time() - self._given_up.get(entry.id, self._started)
            doubt = attrs.evolve(doubt, given_up_at=datetime.now(UTC) - timedelta(seconds=age))
            try:
                found = await self._client.settle(doubt, known=siblings.known_ids)
            except (ServerError, NoAnswer, NotSent):
                asked += 1
                if asked >= TRIES and not self._taken:
                    self.stop()  # nothing else is left to do, and the server does not answer
                    raise
                await self._pause(backoff(asked, longest=600.0))
            else:
                if found is None:
                    return None  # no listed certificate can be this one
                if siblings.uncertain:
                    raise _doubt_of(entry, "another certificate with the same fields may be what Springest lists")
                # If a sibling was stored meanwhile, what we found may be that one: ask again.
                if self._journal.siblings(entry) == siblings:
                    return found


def _doubt_of(entry: Entry, why: str = "") -> InDoubt:
    assert entry.sent_at is not None  # as for every entry in doubt
    assert entry.given_up_at is not None
    return InDoubt(
        f"POST {entry.origin}",
        entry.reason if why in entry.reason else f"{entry.reason}; {why}",
        email=entry.email,
        certification_id=entry.certification_id,
        valid_from=entry.valid_from,
        valid_until=entry.valid_until,
        sent_at=entry.sent_at,
        given_up_at=entry.given_up_at,
    )


def _read(source: SourceFile) -> bytes:
    """Check a PDF again, because the preflight may be weeks ago, and return the SHA-256 of the whole file."""
    for reason, warning in check_pdf(source.path):
        if not warning:
            raise UnusableFile(source.path, reason)
    try:
        with open_regular(source.path) as stream:
            sha256 = hashlib.file_digest(stream, "sha256").digest()
            unchanged = source.is_still(stream)
    except OSError as error:
        raise UnusableFile(source.path, error.strerror or "cannot be read") from None
    if not unchanged:
        raise UnusableFile(source.path, "changed while it was being read")
    return sha256
