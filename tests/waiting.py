"""How tests wait: for what is to happen, however long a busy machine takes, and not for a time that should do."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

__all__ = ["A_WHILE", "heard", "leaping_clock", "until"]

A_WHILE = 60.0
"""Seconds within which all that is waited for comes, also where many processes share a core: what hangs must fail."""


async def until(condition: Callable[[], bool], *, within: float = A_WHILE) -> None:
    """Wait for what tells nobody that it has happened, because it does in another process or in the kernel."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 # see above
            await asyncio.sleep(0.02)


async def heard(*, within: float = 0.05) -> None:
    """Wait until both ends of the connections within this process have read what was sent on them.

    Loopback delivers within the time (seconds); and if all of it goes by in one turn of the loop, because another
    process had the core, there are still the turns that reading and answering take.
    """
    await asyncio.sleep(within)
    for _ in range(60):
        await asyncio.sleep(0)


@contextmanager
def leaping_clock(*, quiet: float = 0.3) -> Iterator[bool]:
    """Make the running loop's clock leap to its next timer when no byte has moved for `quiet` seconds.

    So a test has the patience of a busy machine and does not wait for a silence, where both ends of all connections
    are in this process. What works in a thread is waited for. Yields whether the loop can do that; uvloop's cannot.

    By default `quiet` is longer than the 0.2 s for which a system may keep what is sent, when the other end has hardly
    any room for it.
    """
    loop: Any = asyncio.get_running_loop()
    if not hasattr(loop, "_selector"):
        yield False
        return
    select, time, run_in_executor = loop._selector.select, loop.time, loop.run_in_executor
    leapt, moved_at, has_moved, at_work = 0.0, time(), False, set[asyncio.Future[Any]]()

    def select_and_leap(timeout: float | None = None) -> Sequence[Any]:
        nonlocal leapt, moved_at, has_moved
        if has_moved:  # and what came has been seen to only now
            moved_at = time()
        # What was sent at the last leap gets its moment, too.
        patience = max(moved_at + quiet - time(), 0.02)
        if timeout is None or timeout <= patience or at_work:
            events = select(timeout)
        elif not (events := select(patience)):
            leapt += timeout - patience
        has_moved = bool(events)
        return events  # type: ignore[no-any-return]

    def run_and_note(*arguments: Any) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = run_in_executor(*arguments)
        at_work.add(future)
        future.add_done_callback(at_work.discard)
        return future

    with (
        patch.object(loop, "time", lambda: time() + leapt),
        patch.object(loop._selector, "select", select_and_leap),
        patch.object(loop, "run_in_executor", run_and_note),
    ):
        yield True
