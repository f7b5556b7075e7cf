"""One thread runs all jobs, many in one transaction."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from springest_async.errors import AnotherServer, JournalError, JournalUnavailable
from springest_async.journal import group_commit
from springest_async.journal.engine import Connection
from springest_async.journal.group_commit import GroupCommit


class Database:
    """Counts what is asked of it, and fails when it is told to."""

    def __init__(self) -> None:
        self.connects = self.commits = self.rollbacks = self.closes = self.saves = 0
        self.away = False
        self.down_for = 0  # transactions that fail from now on
        self.tried = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()

    def connect(self) -> Connection:
        self.connects += 1
        self._answer()
        return self

    def save(self, connection: Connection) -> None:
        """Count what is done once before each commit."""
        self.saves += 1

    def _answer(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.down_for -= self.down_for > 0
        if self.away or self.down_for:
            self.tried.set()
            raise JournalUnavailable("here", "away")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._answer()
        try:
            yield
        except BaseException:
            self.rollbacks += 1
            raise
        self.gate.wait()
        self.commits += 1

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        yield

    def execute(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return []

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        pass

    def now(self) -> float:
        return 0.0

    def check_space(self) -> None:
        pass

    def erase(self) -> None:
        pass

    def size(self) -> int:
        return 0

    def close(self) -> None:
        self.closes += 1


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    for pause in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(group_commit, pause, 0.001)
    return Database()


@pytest.fixture
def commits(database: Database) -> Iterator[GroupCommit]:
    commits = GroupCommit(database.connect, database.save)
    yield commits
    database.away = False
    database.gate.set()
    commits.close()


def returns(value: object) -> Callable[[Connection], object]:
    return lambda _: value


def fails(error: BaseException) -> Callable[[Connection], object]:
    def run(_: Connection) -> object:
        raise error

    return run


def hold(database: Database, commits: GroupCommit) -> "Future[None]":
    """Keep the thread in a commit until the gate opens."""
    database.gate.clear()
    entered = threading.Event()
    held = commits.submit(lambda _: entered.set())
    entered.wait()
    return held


def test_a_job_has_its_result_after_the_commit(database: Database, commits: GroupCommit) -> None:
    held = hold(database, commits)
    assert not held.done()

    database.gate.set()

    held.result()
    assert database.commits == 1
    assert database.threads == {"springest-journal"}


def test_all_that_wait_share_a_transaction(database: Database, commits: GroupCommit) -> None:
    hold(database, commits)
    futures = [commits.submit(returns(number)) for number in range(20)]

    database.gate.set()

    assert [future.result() for future in futures] == list(range(20))
    assert (database.commits, database.connects, database.saves) == (2, 1, 2)


@pytest.mark.parametrize("error", [ValueError("no"), JournalError("here", "full"), SystemExit(1)])
def test_a_job_that_fails_hurts_no_other(error: BaseException, database: Database, commits: GroupCommit) -> None:
    hold(database, commits)
    futures = [commits.submit(returns(1)), commits.submit(fails(error)), commits.submit(returns(3))]

    database.gate.set()

    assert [futures[0].result(), futures[2].result()] == [1, 3]
    assert futures[1].exception() is error
    assert (database.commits, database.rollbacks) == (3, 2)


def test_what_can_wait_rides_with_what_cannot(
    database: Database, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_LONGEST_DELAY", 3600.0)
    order: list[int] = []
    later = [commits.submit(lambda _, n=n: order.append(n), later=True) for n in range(3)]  # type: ignore[misc]

    commits.submit(lambda _: order.append(3)).result()

    assert all(future.done() for future in later)
    assert order == [0, 1, 2, 3]
    assert database.commits == 1


def test_what_can_wait_goes_alone_at_last(
    database: Database, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert group_commit._LONGEST_DELAY <= 0.1
    monkeypatch.setattr(group_commit, "_LONGEST_DELAY", 0.01)

    assert commits.submit(returns(1), later=True).result() == 1
    assert database.commits == 1


def test_a_later_job_does_not_postpone_the_first_one(commits: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_LONGEST_DELAY", 0.01)
    first = commits.submit(returns(1), later=True)
    monkeypatch.setattr(group_commit, "_LONGEST_DELAY", 3600.0)
    second = commits.submit(returns(2), later=True)

    assert (first.result(), second.result()) == (1, 2)


def test_a_database_that_is_away_is_waited_for(database: Database, commits: GroupCommit) -> None:
    database.down_for = 6
    future = commits.submit(returns(1))

    assert future.result() == 1
    assert database.commits == 1
    assert commits.trouble == ""


def test_it_says_why_it_waits(database: Database, commits: GroupCommit, caplog: pytest.LogCaptureFixture) -> None:
    database.away = True
    future = commits.submit(returns(1))
    database.tried.wait()
    database.tried.clear()
    database.tried.wait()

    assert "away" in commits.trouble
    assert not future.done()
    assert len(caplog.records) == 1


def test_it_says_so_when_it_waits_for_a_person(commits: GroupCommit, caplog: pytest.LogCaptureFixture) -> None:
    unavailable, another = JournalUnavailable("here", "away"), AnotherServer("here", "another server")
    failures = [unavailable, unavailable, another, another]

    def job(_: Connection) -> int:
        if failures:
            raise failures.pop(0)
        return 1

    assert commits.submit(job).result() == 1
    assert [record.args for record in caplog.records] == [(unavailable,), (another,)]


def test_a_commit_that_failed_runs_again_on_a_new_connection(database: Database, commits: GroupCommit) -> None:
    commits.submit(returns(0)).result()
    database.down_for = 2
    runs: list[int] = []

    commits.submit(lambda _: runs.append(1)).result()

    assert runs == [1]
    assert (database.connects, database.closes) == (2, 1)


def test_an_answer_that_is_lost_runs_the_job_again(database: Database, commits: GroupCommit) -> None:
    runs: list[int] = []

    def job(_: Connection) -> int:
        runs.append(1)
        if len(runs) == 1:
            raise JournalUnavailable("here", "gone")
        return len(runs)

    assert commits.submit(job).result() == 2


def test_a_database_may_be_away_for_hours(database: Database, commits: GroupCommit) -> None:
    """There were once more tries than a float has powers of two."""
    group_commit._FIRST_PAUSE = group_commit._LONGEST_PAUSE = 0.0  # the fixture restores them
    database.down_for = 1200

    assert commits.submit(returns(1)).result() == 1


def test_a_cancelled_job_never_runs(database: Database, commits: GroupCommit) -> None:
    hold(database, commits)
    runs: list[int] = []
    future = commits.submit(lambda _: runs.append(1))
    other = commits.submit(returns(2))
    assert future.cancel()

    database.gate.set()

    assert other.result() == 2
    assert runs == []


def test_only_cancelled_jobs_need_no_transaction(database: Database, commits: GroupCommit) -> None:
    hold(database, commits)
    commits.submit(returns(1)).cancel()
    database.gate.set()
    commits.close()

    assert database.commits == 1


def test_a_job_that_runs_cannot_be_cancelled(database: Database, commits: GroupCommit) -> None:
    held = hold(database, commits)

    assert not held.cancel()


async def test_a_caller_that_is_cancelled_disturbs_nobody(database: Database, commits: GroupCommit) -> None:
    hold(database, commits)
    commits.run(returns(1)).cancel()
    database.gate.set()

    assert await commits.run(returns(2)) == 2


async def test_a_caller_cancelled_at_the_last_moment_disturbs_nobody(commits: GroupCommit) -> None:
    """The thread has handed over the results, and the loop has not taken them yet."""
    first, second = commits.run(returns(1)), commits.run(returns(2))
    commits.submit(returns(3)).result()  # which holds up the event loop
    asyncio.get_running_loop().call_soon(first.cancel)

    assert await second == 2
    assert first.cancelled() or first.result() == 1


def test_a_loop_that_was_closed_disturbs_no_other(database: Database, commits: GroupCommit) -> None:
    async def begin() -> None:
        commits.run(returns(1))

    async def result() -> object:
        return await commits.run(returns(2))

    held = hold(database, commits)
    asyncio.run(begin())
    database.gate.set()
    held.result()

    assert asyncio.run(result()) == 2


async def test_the_loop_is_woken_once_for_a_transaction(
    database: Database, commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call from the thread writes to the loop's pipe."""
    loop = asyncio.get_running_loop()
    wake, calls = loop.call_soon_threadsafe, []

    def counted(*call: Any, **options: Any) -> asyncio.Handle:
        calls.append(call)
        return wake(*call, **options)

    hold(database, commits)
    waiters = [commits.run(returns(number)) for number in range(20)]
    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    database.gate.set()

    assert await asyncio.gather(*waiters) == [*range(20)]
    assert len(calls) == 1


async def test_a_task_gets_its_error_and_others_their_results(commits: GroupCommit) -> None:
    failing, other = commits.run(fails(ValueError("no"))), commits.run(returns(1))

    with pytest.raises(ValueError, match="no"):
        await failing
    assert await other == 1


def test_closing_runs_what_is_left(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_LONGEST_DELAY", 3600.0)
    commits = GroupCommit(database.connect, database.save)
    future = commits.submit(returns(1), later=True)

    commits.close()
    commits.close()

    assert future.result() == 1
    assert database.closes == 1


def test_closing_unused_opens_nothing(database: Database) -> None:
    GroupCommit(database.connect, database.save).close()

    assert database.connects == 0


def test_nothing_is_submitted_after_closing(database: Database) -> None:
    commits = GroupCommit(database.connect, database.save)
    commits.close()

    with pytest.raises(RuntimeError, match="closed"):
        commits.submit(returns(1))


def test_closing_gives_up_a_database_that_stays_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_PATIENCE_AT_CLOSE", 0.02)
    database.away = True
    commits = GroupCommit(database.connect, database.save)
    future = commits.submit(returns(1))

    commits.close()

    assert isinstance(future.exception(), JournalUnavailable)


def test_closing_waits_without_haste(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pause that the closing ended, it once tried again thousands of times."""
    monkeypatch.setattr(group_commit, "_PATIENCE_AT_CLOSE", 0.3)
    monkeypatch.setattr(group_commit, "_FIRST_PAUSE", 0.1)
    database.away = True
    commits = GroupCommit(database.connect, database.save)
    commits.submit(returns(1))

    commits.close()

    assert database.connects <= 10


def test_a_connection_that_cannot_be_closed_ends_well(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def close() -> None:
        raise JournalError("here", "broken")

    monkeypatch.setattr(database, "close", close)
    commits = GroupCommit(database.connect, database.save)
    commits.submit(returns(1)).result()

    commits.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_has_no_thread(commits: GroupCommit) -> None:
    commits.submit(returns(1)).result()
    child = os.fork()
    if child == 0:
        try:
            commits.submit(returns(2))
        except RuntimeError:
            commits.close()
            os._exit(0)
        os._exit(1)

    assert os.waitpid(child, 0)[1] == 0
    assert commits.submit(returns(3)).result() == 3
