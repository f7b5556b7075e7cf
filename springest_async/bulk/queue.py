"""The upload queue: takes rows one by one, keeps a few in flight, and goes on past those that fail.

It holds as many rows as are in flight, however long the manifest is. It opens nothing and prints nothing: what happens
is told as events. Which rows there are is the manifest's business, how one is uploaded the client's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

from attrs import define

from springest_async.bulk.events import BulkListener, RowDone, RowStep, State
from springest_async.bulk.manifest import Manifest, Row
from springest_async.client import Springest
from springest_async.delivery import UploadStep
from springest_async.errors import (
    Forbidden,
    InDoubt,
    InvalidUpload,
    ManifestError,
    NotAuthorized,
    NotFound,
    NotSent,
    Redirected,
    Rejected,
    SpringestError,
)
from springest_async.records import CertificateUpload, Receipt
from springest_async.retry import backoff

__all__ = ["UploadQueue"]

# So many rows in doubt one after the other are no accident: the server is down, behind a gateway that is not.
_OUTAGE = 4


@define(eq=False)
class _Job:
    """A row in flight: the task that uploads it, and since when a POST of it is under way, if one is."""

    upload: CertificateUpload
    task: asyncio.Task[Receipt] | None = None
    sent_at: datetime | None = None


class UploadQueue:
    """Uploads the rows of a manifest.

    Usage::

        queue = UploadQueue(springest, manifest, listener)
        error = await queue.run()

    Every row ends in exactly one `RowDone`. Cancelling `run` gives up at once: a row that was just being sent is then
    in doubt, and told as such.
    """

    def __init__(self, client: Springest, manifest: Manifest, listener: BulkListener) -> None:
        self._client = client
        self._manifest = manifest
        self._tell = listener
        self._stopped = asyncio.Event()
        self._outage = asyncio.Lock()
        self._doubts = 0  # rows in doubt in a row, with nothing definite in between
        self._strikes = 0  # answers in a row that looked like the key's or the host's fault
        self._answered = False  # whether the server was ever reached in this run
        self._error: SpringestError | None = None
        self._jobs: set[_Job] = set()

    def __repr__(self) -> str:
        state = "stopping" if self._stopped.is_set() else "going"
        return f"<UploadQueue {self._manifest.path}, {len(self._jobs)} in flight, {state}>"

    def stop(self) -> None:
        """Take no more rows, give up those that only wait, and let those end that are being sent."""
        self._stopped.set()
        for job in self._jobs:
            if job.sent_at is None and job.task is not None:
                job.task.cancel()

    async def run(self) -> SpringestError | None:
        """Upload the rows, and give the error that ended the run early, if one did.

        It ends early when the key or the host is refused, and when no connection can be made at the very beginning;
        later on, a network that fails is waited for. Rows that were not reached are told as waiting.
        """
        rows = iter(self._manifest)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._client.settings.concurrency):
                    group.create_task(self._work(rows))
        finally:
            while (row := self._next(rows)) is not None:
                self._tell(RowDone(row, State.WAITING, error=self._error))
        return self._error

    async def _work(self, rows: Iterator[Row]) -> None:
        # All workers share one iterator: whoever is free takes the next row.
        while not self._stopped.is_set():
            async with self._alone_in_an_outage():
                if self._stopped.is_set() or (row := self._next(rows)) is None:
                    return
                self._tell(await self._until_done(row))

    @contextlib.asynccontextmanager
    async def _alone_in_an_outage(self) -> AsyncIterator[None]:
        """Let a server that answers nothing definite rest, or each row that it gets would need a person."""
        if self._doubts < _OUTAGE:
            yield
            return
        async with self._outage:
            if self._doubts >= _OUTAGE:
                await self._pause(backoff(self._doubts, longest=600.0))
            yield

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _until_done(self, row: Row) -> RowDone:
        lost = 0
        while (done := await self._upload(row)) is None:
            lost += 1
            try:
                await self._pause(backoff(lost))
            except asyncio.CancelledError:
                self._stopped.set()
                return RowDone(row, State.WAITING)
        return done

    def _next(self, rows: Iterator[Row]) -> Row | None:
        try:
            return next(rows, None)
        except ManifestError as error:  # it was readable at the preflight, so somebody changed it
            self._end_run(error)
            return None

    def _end_run(self, error: SpringestError) -> None:
        self._error = self._error or error
        self.stop()

    async def _upload(self, row: Row) -> RowDone | None:
        """Upload one row once; None when the network was away and the row is to be tried again."""
        if self._stopped.is_set():
            return RowDone(row, State.WAITING, error=self._error)
        try:
            job = _Job(self._manifest.upload(row))
        except InvalidUpload as error:
            return RowDone(row, State.FAILED, error=error)

        def note(step: UploadStep) -> None:
            job.sent_at = datetime.now(UTC) if step.kind == "sending" else None
            self._answered = self._answered or step.kind == "refused"
            self._tell(RowStep(row, step))
            if self._stopped.is_set() and job.sent_at is None and job.task is not None:
                job.task.cancel()

        job.task = asyncio.create_task(self._client.upload(job.upload, listener=note))
        self._jobs.add(job)
        try:
            await asyncio.wait([job.task])
        except asyncio.CancelledError:
            # Given up: the row's outcome still has to be told, and no worker goes on after it.
            self._stopped.set()
            job.task.cancel()
            while not job.task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([job.task])
        finally:
            self._jobs.discard(job)
        return self._outcome(row, job, job.task)

    def _outcome(self, row: Row, job: _Job, task: asyncio.Task[Receipt]) -> RowDone | None:
        """Say what a finished task means for its row; None for "again"."""
        if task.cancelled():
            if job.sent_at is None:
                return RowDone(row, State.WAITING, error=self._error)
            return RowDone(row, State.IN_DOUBT, error=self._interrupted(job.upload, job.sent_at))
        error = task.exception()
        match error:
            case None:
                self._answered = True
                self._doubts = self._strikes = 0
                return RowDone(row, State.STORED, receipt=task.result())
            case NotSent(connected=False) if self._answered:
                return None  # the network is away: again, for as long as it takes
            case Forbidden() | NotFound() | Redirected() if self._answered and self._strikes == 0:
                # So far key and host were right, so it may be this row: a second one in a row ends the run.
                self._strikes += 1
                return RowDone(row, State.FAILED, error=error)
            # About the key or the host and not about the row: the next row would fail in the same way.
            case NotSent(connected=False) | NotAuthorized() | Forbidden() | NotFound() | Redirected():
                self._end_run(error)
                return RowDone(row, State.WAITING, error=error)
            case Rejected():
                self._answered = True
                self._doubts = self._strikes = 0
                return RowDone(row, State.REJECTED, error=error)
            case InDoubt():
                self._answered = True
                self._doubts += 1
                return RowDone(row, State.IN_DOUBT, error=error)
            case SpringestError():
                return RowDone(row, State.FAILED, error=error)
        # A mistake of our own, which nobody has thought of: told before it ends the run.
        if job.sent_at is None:
            self._tell(RowDone(row, State.WAITING))
        else:
            self._tell(RowDone(row, State.IN_DOUBT, error=self._interrupted(job.upload, job.sent_at)))
        raise error

    def _interrupted(self, upload: CertificateUpload, sent_at: datetime) -> InDoubt:
        return InDoubt(
            self._client.origin,
            "interrupted before the answer came",
            email=upload.email,
            certification_id=upload.certification_id,
            sent_at=sent_at,
        )
