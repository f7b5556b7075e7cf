"""A journal in a file, its clock and two workers."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from springest_async.journal.sqlite import SQLiteConnection

from .model import Clock, Worker, opened, set_clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    with set_clock(Clock()) as clock:
        yield clock


@pytest.fixture
def connection(tmp_path: Path, clock: Clock) -> Iterator[SQLiteConnection]:
    with closing(opened(tmp_path / "journal.sqlite3")) as connection:
        yield connection


@pytest.fixture
def worker(connection: SQLiteConnection) -> Callable[[str], Worker]:
    """Make a worker that lives."""

    def make(name: str) -> Worker:
        worker = Worker(connection, name)
        worker.renew()
        return worker

    return make


@pytest.fixture
def a(worker: Callable[[str], Worker]) -> Worker:
    return worker("a")


@pytest.fixture
def b(worker: Callable[[str], Worker]) -> Worker:
    return worker("b")
