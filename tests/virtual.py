"""Journals in virtual time, where threads do not work: each job runs at once on the event loop, and leases are virtual.

The jobs, the transactions and the file are real. What several tasks wait for together in a thread, each has alone here.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from springest_async import Journal
from springest_async.journal.engine import Connection

__all__ = ["Clock", "InlineCommit", "die", "run_at_once"]

T = TypeVar("T")


class InlineCommit:
    """A drop-in for `GroupCommit` that runs each job at once, in a transaction of its own, and is done then."""

    trouble = ""

    def __init__(self, connect: Callable[[], Connection], before_commit: Callable[[Connection], None]) -> None:
        self._connection: Connection | None = connect()
        self._before_commit = before_commit
        self.transactions = 0

    def submit(self, run: Callable[[Connection], T], *, later: bool = False) -> "Future[T]":
        future: Future[T] = Future()
        if self._connection is None:
            raise RuntimeError("the journal is closed")
        self.transactions += 1
        try:
            with self._connection.transaction():
                result = run(self._connection)
                self._before_commit(self._connection)
        except Exception as error:  # noqa: BLE001 # whoever waits for the future gets it
            future.set_exception(error)
        else:
            future.set_result(result)
        return future

    def run(self, run: Callable[[Connection], T]) -> "asyncio.Future[T]":
        return asyncio.wrap_future(self.submit(run))

    def note(self, run: Callable[[Connection], object], failed: Callable[[BaseException], None]) -> None:
        if (error := self.submit(run).exception()) is not None:
            failed(error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Clock:
    """The clock of leases: the loop's, which is virtual, and what a test adds to it, as if the machine slept."""

    def __init__(self) -> None:
        self.slept = 1000.0
        self._last = 0.0

    def __call__(self) -> float:
        with suppress(RuntimeError):  # a test that looks into a journal when its loop is closed
            self._last = asyncio.get_running_loop().time()
        return self.slept + self._last


def run_at_once(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let journals and files work without threads from now on, and return the clock of the leases."""

    def run_in_executor(loop: asyncio.AbstractEventLoop, _: object, job: Callable[..., Any], *arguments: Any) -> Any:
        future = loop.create_future()

        def finish() -> None:
            if future.done():
                return
            try:
                future.set_result(job(*arguments))
            except Exception as error:  # noqa: BLE001 # whoever waits for the future gets it
                future.set_exception(error)

        loop.call_soon(finish)
        return future

    clock = Clock()
    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.run_in_executor", run_in_executor)
    monkeypatch.setattr("springest_async.journal.journal.GroupCommit", InlineCommit)
    monkeypatch.setattr("springest_async.journal.journal.elapsed", clock)
    monkeypatch.setattr("springest_async.journal.sqlite.elapsed", clock)
    return clock


def die(journal: Journal) -> None:
    """Drop a journal without a word, as a process does that is killed. Its lease goes on."""
    if journal._beat is not None:
        journal._beat.cancel()
        journal._beat = None
    if journal._is_open and journal._commits is not None:
        journal._is_open = False
        journal._commits.close()
