"""Changes of a bucket that must end properly when the task that waits for them is cancelled."""

import asyncio
from collections.abc import Callable

from springest_async.limits.bucket import Change, Intent, Ledger


class Changes:
    """The changes of the bucket in a ledger.

    Args:
        ledger: where the bucket is kept.
        may_wait: whether a change waits for a disk or a server, and so can be cancelled before its result comes.
    """

    def __init__(self, ledger: Ledger, *, may_wait: bool) -> None:
        self._ledger, self._may_wait = ledger, may_wait
        self._unfinished: set[asyncio.Future[float]] = set()  # those whose task was cancelled

    async def make(self, change: Change, abandoned: Callable[[float], None], intent: Intent | None = None) -> float:
        """Change the bucket. If this task is cancelled meanwhile, `abandoned` is called later with the result.

        Raises:
            SpringestError: the ledger failed, and nothing was changed.
        """
        if not self._may_wait:
            return await self._ledger.change(change, intent)
        changing = asyncio.ensure_future(self._ledger.change(change, intent))

        def finish(changing: asyncio.Future[float]) -> None:
            self._unfinished.discard(changing)
            if not changing.cancelled() and changing.exception() is None:
                abandoned(changing.result())

        try:
            return await asyncio.shield(changing)
        except asyncio.CancelledError:
            self._unfinished.add(changing)
            changing.add_done_callback(finish)
            raise

    async def finish(self) -> None:
        """Wait until the changes whose tasks were cancelled have ended."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)
