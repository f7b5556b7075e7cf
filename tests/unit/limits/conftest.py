"""Makers of limiters, in memory and in one file."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from springest_async.limits.limiter import Limiter

from .virtual import New, Store


@pytest.fixture(scope="module", autouse=True)
def _no_accidental_loop() -> None:
    # looptime asks for the current event loop also in tests that are not async. If none was ever set, Python makes a
    # new one, which is never closed; after None was set, it makes none.
    asyncio.set_event_loop(None)


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[], Store]:
    """Return a maker of stores of one file, each as if in a process of its own."""
    return lambda: Store(tmp_path / "limits.sqlite3", "a budget")


@pytest.fixture
def process(stores: Callable[[], Store]) -> New:
    """Return a maker of limiters that share one bucket, each as if in a process of its own."""
    return lambda **numbers: Limiter(store=stores(), **numbers)


@pytest.fixture(params=["memory", "file"])
def new(request: pytest.FixtureRequest, process: New) -> New:
    """Return a maker of limiters: what one alone does is the same wherever its bucket is."""
    return Limiter if request.param == "memory" else process
