"""One thread that runs everything that a journal does, and commits together what waits together.

A commit waits for the disk or for a server, so the event loop never makes one. All jobs that have come meanwhile run in
one transaction, so many of them share one flush. A job is a function of a connection. It changes nothing but the
database and may run more than once: when another job of the same transaction fails, each runs again alone, and when the
database went away, they run again when it is back, also if the commit was durable and only its answer was lost. So
they do when another server has taken its place, as soon as a person trusts that one.
"""

import asyncio
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from attrs import define, field

from springest_async.errors import AnotherServer, JournalError, JournalUnavailable
from springest_async.journal.engine import Connection

T = TypeVar("T")

_LONGEST_DELAY = 0.1  # seconds that an outcome waits for a commit to ride with
_FIRST_PAUSE = 0.2  # seconds between two tries to reach the database
_LONGEST_PAUSE = 5.0
_PATIENCE_AT_CLOSE = 10.0  # seconds for a database that is away when the journal is closed

_log = logging.getLogger(__name__)


_Served = tuple["asyncio.Future[Any]", Any, BaseException | None]


@define(eq=False)
class _Job(Generic[T]):
    """A job whose result goes to a future of any thread."""

    run: Callable[[Connection], T]
    result: "Future[T]" = field(factory=Future)

    def begin(self) -> bool:
        """Return whether somebody still wants it."""
        return self.result.set_running_or_notify_cancel()

    def succeed(self, result: T) -> None:
        """Hand over its result."""
        self.result.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Hand over its error."""
        self.result.set_exception(error)


@define(eq=False)
class _Note:
    """A job that nobody waits for, whose error is handed to a function."""

    run: Callable[[Connection], object]
    fail: Callable[[BaseException], None]

    def begin(self) -> bool:
        return True

    def succeed(self, result: object) -> None:
        """Do nothing: nobody waits for it."""


@define(eq=False)
class _Awaited(Generic[T]):
    """A job that a task waits for; all tasks of a transaction are woken together, because each call costs a write."""

    run: Callable[[Connection], T]
    served: "deque[_Served]"
    waiter: "asyncio.Future[T]"

    def begin(self) -> bool:
        return not self.waiter.cancelled()

    def succeed(self, result: T) -> None:
        self.served.append((self.waiter, result, None))

    def fail(self, error: BaseException) -> None:
        self.served.append((self.waiter, None, error))


_AnyJob = _Job[Any] | _Note | _Awaited[Any]


class GroupCommit:
    """The thread, its connection and the jobs that wait for it.

    Args:
        connect: opens the connection; called in the thread, and again after the database was away.
        before_commit: called at the end of each transaction, to write once what several jobs have changed.

    Attributes:
        transactions: how many were begun, in the thread.
        at_work: the number of what the thread is doing, such as one transaction however often it is tried; None when it
            has nothing to do.
        waited: the seconds of transactions in which the thread used no processor, mostly because the disk was writing.
    """

    def __init__(self, connect: Callable[[], Connection], before_commit: Callable[[Connection], None]) -> None:
        self._connect = connect
        self._before_commit = before_commit
        self.transactions = 0
        self.waited = 0.0
        self.at_work: int | None = None
        self._connection: Connection | None = None
        self._jobs: list[_AnyJob] = []
        self._served: deque[_Served] = deque()  # the results of this transaction
        self._due: float | None = None  # when the jobs must be run
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._closed_at = 0.0
        self._process = os.getpid()
        self.trouble: str = ""
        """Why the database cannot be reached at the moment; empty while it can."""
        self._thread = threading.Thread(target=self._work, name="springest-journal", daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[Connection], T], *, later: bool = False) -> "Future[T]":
        """Run a job in the next transaction, and return the future of its result, which is durable then.

        With `later`, it waits for another job to share the transaction with, for at most 100 ms.

        Raises:
            RuntimeError: it is closed, or this process was forked from the one that made it and has no such thread.
        """
        job = _Job(run)
        self._add(job, _LONGEST_DELAY if later else 0.0)
        return job.result

    def run(self, run: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """Run a job in the next transaction, as `submit`, and return a future of the running event loop."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._add(_Awaited(run, self._served, waiter), 0.0)
        return waiter

    def note(self, run: Callable[[Connection], object], failed: Callable[[BaseException], None]) -> None:
        """Run a job with one of the next transactions, within 100 ms; `failed` is called in the thread if it fails."""
        self._add(_Note(run, failed), _LONGEST_DELAY)

    def _add(self, job: "_AnyJob", delay: float) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("the journal was opened before this process was forked: open it again here")
        due = time.monotonic() + delay
        with self._wake:
            if self._closing.is_set():
                raise RuntimeError("the journal is closed")
            self._jobs.append(job)
            if self._due is None or due < self._due:
                self._due = due
                self._wake.notify()

    def close(self) -> None:
        """Run the jobs that are left, close the connection and end the thread; closing again does nothing."""
        if os.getpid() != self._process:
            return
        with self._wake:
            self._closed_at = self._closed_at or time.monotonic()
            self._closing.set()
            self._wake.notify()
        self._thread.join()

    # --- in the thread ---

    def _work(self) -> None:
        works = itertools.count()
        while jobs := self._next():
            self.at_work = next(works)
            self._run([job for job in jobs if job.begin()])
            self.at_work = None
        self._disconnect()

    def _wake_tasks(self) -> None:
        """Hand the results of this transaction to the tasks that wait for them, with one call for each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Served]] = {}
        while self._served:
            served = self._served.popleft()
            by_loop.setdefault(served[0].get_loop(), []).append(served)
        for loop, results in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_serve, results)

    def _next(self) -> list[_AnyJob]:
        with self._wake:
            while not self._closing.is_set():
                now = time.monotonic()
                if self._due is not None and self._due <= now:
                    break
                self._wake.wait(None if self._due is None else self._due - now)
            jobs, self._jobs, self._due = self._jobs, [], None
        return jobs

    def _run(self, jobs: list[_AnyJob]) -> None:
        if not jobs:
            return
        pause, known = 0.0, None
        while True:
            try:
                results = self._in_one_transaction(jobs)
            except (JournalUnavailable, AnotherServer) as error:
                self._disconnect()
                self.trouble = str(error)
                if known is not type(error):  # who waits for a restart, and then for a person, must hear of both
                    known = type(error)
                    _log.warning("waiting for the journal: %s", error)
                if self._gives_up():
                    self._fail(jobs, error)
                    return
                pause = min(_LONGEST_PAUSE, 2 * pause or _FIRST_PAUSE)
                self._pause(pause)
            except BaseException as error:  # noqa: BLE001 (the job's owner hears of it)
                if len(jobs) == 1:
                    self._fail(jobs, error)
                    return
                for job in jobs:
                    self._run([job])
                return
            else:
                self.trouble = ""
                for job, result in zip(jobs, results, strict=True):
                    job.succeed(result)
                self._wake_tasks()
                return

    def _fail(self, jobs: list[_AnyJob], error: BaseException) -> None:
        for job in jobs:
            job.fail(error)
        self._wake_tasks()

    def _in_one_transaction(self, jobs: list[_AnyJob]) -> list[Any]:
        if self._connection is None:
            self._connection = self._connect()
        self.transactions += 1
        began, cpu = time.monotonic(), time.thread_time()
        with self._connection.transaction():
            results = [job.run(self._connection) for job in jobs]
            self._before_commit(self._connection)
        self.waited += time.monotonic() - began - (time.thread_time() - cpu)
        return results

    def _pause(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            time.sleep(_FIRST_PAUSE)

    def _gives_up(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._closed_at + _PATIENCE_AT_CLOSE

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.close()
            except JournalError as error:
                _log.debug("the journal's connection could not be closed: %s", error)


def _serve(results: list[_Served]) -> None:
    for waiter, result, error in results:
        if waiter.done():
            continue  # its task was cancelled meanwhile
        if error is None:
            waiter.set_result(result)
        else:
            waiter.set_exception(error)
