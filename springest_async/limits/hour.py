"""The requests of an hour, of which all kinds of requests take: the wait for the bucket's `HourlyBudget`."""

import asyncio

from attrs import define

from springest_async.limits.bucket import Bucket, Ledger
from springest_async.limits.changes import Changes
from springest_async.limits.memory import Guard

# Where a change is a commit, requests are taken so many at a time, to be used within so many seconds.
_REQUESTS_AT_ONCE = 10
_RESERVE_LASTS = 1.0


@define
class _Taken:
    """When a change took requests, and how many."""

    at: float = 0.0
    requests: int = 1


class HourlyRequests:
    """The requests that one limiter takes of the hour.

    Args:
        per_hour: how many there are in any hour.
        ledger: where the bucket is kept.
        changes: of this bucket.
        reserves: whether several are taken at a time, because a change is a commit.
    """

    def __init__(self, per_hour: int, ledger: Ledger, changes: Changes, *, reserves: bool) -> None:
        self._per_hour, self._ledger, self._changes, self._reserves = per_hour, ledger, changes, reserves
        self._guarded = Guard()
        self._left = 0  # requests that were taken and not used yet
        self._until = 0.0  # the time until which they may be used
        self._is_filling = False  # whether a task is taking more

    async def take(self) -> float:
        """Take a request of the hour and wait until it may leave; return when it could.

        Raises:
            SpringestError: the ledger failed.
        """
        with self._guarded():
            now = self._ledger.now()
            if self._left and now < self._until:
                self._left -= 1
                return now
            at_once = _REQUESTS_AT_ONCE if self._reserves and not self._is_filling else 1
            self._is_filling = self._is_filling or at_once > 1
        taken = _Taken()

        def take(bucket: Bucket, now: float) -> float:
            taken.at, taken.requests = now, 1
            if at_once > 1 and bucket.hour.take_ahead(self._per_hour, now, requests=at_once, within=_RESERVE_LASTS):
                taken.requests = at_once
                return 0.0
            return bucket.hour.take(self._per_hour, now)

        try:
            wait = await self._changes.make(take, lambda wait: self.give_back(taken.at + wait, taken.requests))
            if taken.requests > 1:
                with self._guarded():
                    self._left, self._until = taken.requests - 1, taken.at + _RESERVE_LASTS
        finally:
            if at_once > 1:
                self._is_filling = False
        if wait > 0:
            try:
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                self.give_back(taken.at + wait)
                raise
        return taken.at + wait

    def give_back(self, free_at: float, requests: int = 1) -> None:
        """Put back requests that did not leave, and could have since `free_at`."""

        def give_back(bucket: Bucket, now: float) -> None:
            bucket.hour.give_back(self._per_hour, now, free_at=free_at, requests=requests)

        self._ledger.note(give_back)
