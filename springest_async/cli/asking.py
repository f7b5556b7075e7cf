"""Ask Springest for long lists: say first how many requests that takes, and then how far it is."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from rich.console import Console

from springest_async.cli.console import cell
from springest_async.cli.times import duration
from springest_async.limits.limiter import Limiter
from springest_async.reports.numbers import count, number

_TICK = 0.25  # seconds between two updates of a line


def requests_words(requests: int, limiter: Limiter) -> str:
    """Return how many requests something takes, and how long that is: ``12 requests (of 4 000 an hour)``."""
    seconds = limiter.seconds_until(0, requests=requests)
    long = f", which takes at least {duration(seconds)}" if seconds >= 1 else ""
    return f"{count(requests, 'request')}{long} (of {number(limiter.requests_per_hour)} an hour)"


async def asking(work: Coroutine[Any, Any, None], asked: Callable[[], int], err: Console) -> None:
    """Run what asks Springest, and show meanwhile how many requests it has made, if there is a terminal.

    Args:
        work: what asks.
        asked: returns how many requests have been made.
        err: where to show it.

    Raises:
        SpringestError: what `work` raises.
    """
    fetching = asyncio.create_task(work)
    with err.status("") as status:
        try:
            while not (await asyncio.wait([fetching], timeout=_TICK))[0]:
                status.update(cell(f"Asking Springest for its lists: {count(asked(), 'request')}"))
        finally:
            fetching.cancel()
            await asyncio.wait([fetching])
    fetching.result()
