"""Makers of limiters, in memory and with one shared ledger."""

import asyncio
from collections.abc import Callable

import pytest

from springest_async.limits.limiter import Limiter

from .virtual import New, Place, SharedLedger


@pytest.fixture(scope="module", autouse=True)
def _no_accidental_loop() -> None:
    # looptime asks for the current event loop also in tests that are not async. If none was ever set, Python makes a
    # new one, which is never closed; after None was set, it makes none.
    asyncio.set_event_loop(None)


@pytest.fixture
def ledgers() -> Callable[[], SharedLedger]:
    """Return a maker of ledgers of one place, each as if in a process of its own."""
    place = Place()
    return lambda: SharedLedger(place)


@pytest.fixture
def process(ledgers: Callable[[], SharedLedger]) -> New:
    """Return a maker of limiters that share one bucket, each as if in a process of its own."""
    return lambda **numbers: Limiter(ledger=ledgers(), **numbers)


@pytest.fixture(params=["memory", "shared"])
def new(request: pytest.FixtureRequest, process: New) -> New:
    """Return a maker of limiters: what one alone does is the same wherever its bucket is."""
    return Limiter if request.param == "memory" else process
