"""How the POSTs of one event loop wait: in a queue, of which the first waits for the bucket.

A POST that waits is one future in a queue. Only the first has a timer, and it looks at the bucket again when that is
over, or when a POST of this loop ended.
"""

import asyncio
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Self

from attrs import define, field

from springest_async.limits.permit import Permit

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter


class Queue:
    """A lock that is handed over in the order in which it was asked for.

    Giving up costs the same wherever one stands (`asyncio.Lock` searches its whole queue).
    """

    def __init__(self) -> None:
        self.held = False
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    async def acquire(self) -> None:
        """Wait for the turn."""
        if not self.held:
            self.held = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()  # it was handed over meanwhile
            self._waiting.pop(turn, None)
            raise

    def release(self) -> None:
        """Hand the turn over to the next one."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.held = False


class Signal:
    """Wakes those that wait for a change; it costs nothing while none waits.

    Attributes:
        count: how many changes there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake those that wait, because something may have changed for them."""
        self.count += 1
        while self._waiting:
            _wake(self._waiting.pop())

    async def wait(self, seen: int, seconds: float) -> None:
        """Wait until there were more changes than `seen`, or for so many seconds."""
        if self.count != seen:
            return
        loop = asyncio.get_running_loop()
        change = loop.create_future()
        timer = loop.call_later(seconds, _wake, change)
        self._waiting.add(change)
        try:
            await change
        finally:
            timer.cancel()
            self._waiting.discard(change)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Turn:
    """The turn of a POST at the head of its queues; `shared` if it ends before the POST has left."""

    def __init__(self, queues: list[Queue]) -> None:
        self._queues = queues
        self._held: list[Queue] = []
        self.shared = False

    async def __aenter__(self) -> Self:
        try:
            for queue in self._queues:
                await queue.acquire()
                self._held.append(queue)
        except BaseException:
            self.pass_on()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pass_on()

    def pass_on(self) -> None:
        """End the turn; ending it again does nothing."""
        while self._held:
            self._held.pop().release()


@define(eq=False)
class LoopState:
    """Everything that belongs to one event loop: its queues, its POSTs, and the signal that wakes those that wait."""

    loop: asyncio.AbstractEventLoop
    burst_limiter: "AsyncLimiter"
    pid: int = field(factory=os.getpid)
    users: int = 0  # blocks of `Limiter._in_use`
    head_of_queue: Queue = field(factory=Queue)
    bulk_queue: Queue = field(factory=Queue)
    one_probe: asyncio.Lock = field(factory=asyncio.Lock)
    signal: Signal = field(factory=Signal)
    interactive: set[str] = field(factory=set)  # the names of the POSTs that wait
    bulk: set[str] = field(factory=set)
    leaving: set[str] = field(factory=set)  # the names of those that leave with one of the next commits
    left: int = 0  # how many the bucket was last told to wait behind the head of the queue
    under_way: dict[str, Permit] = field(factory=dict)
    probing: bool = False
    pulse: asyncio.TimerHandle | None = None

    @property
    def wanted(self) -> int:
        """How many POSTs wait, of the kind that goes first."""
        return len(self.interactive or self.bulk)

    @property
    def is_empty(self) -> bool:
        """Whether no POST waits here."""
        return not self.head_of_queue.held and not self.bulk_queue.held
