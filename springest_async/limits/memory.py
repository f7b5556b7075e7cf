"""The ledger of a bucket that only one process uses: in memory, and gone with the process."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import field, frozen

from springest_async.limits.bucket import Bucket, Change, Intent


class Guard:
    """A lock for what loops in several threads look at.

    A fork may copy a lock that another thread holds, so the child makes a new one.
    """

    def __init__(self) -> None:
        self._pid, self._lock = os.getpid(), threading.RLock()

    def __call__(self) -> threading.RLock:
        """Return the lock of this process."""
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.RLock()
        return self._lock


@frozen
class Memory:
    """The ledger of a bucket that only this process uses. Its clock is the event loop's, and it records no intent."""

    bucket: Bucket = field(factory=Bucket)
    guarded: Guard = field(factory=Guard)

    def now(self) -> float:
        """Return the time of the running event loop, in seconds."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()  # the clock of asyncio's own loops

    @contextmanager
    def peek(self) -> Iterator[Bucket]:
        """Lend the bucket, locked for the block."""
        with self.guarded():
            yield self.bucket

    async def change(self, change: Change, intent: Intent | None = None) -> float:
        """Change the bucket at once; see `Ledger.change`."""
        with self.guarded():
            result = change(self.bucket, self.now())
            self.bucket.touched.clear()
        return result

    def note(self, change: Callable[[Bucket, float], object], outcome: object | None = None) -> None:
        """Change the bucket at once; see `Ledger.note`."""
        with self.guarded():
            change(self.bucket, self.now())
            self.bucket.touched.clear()
