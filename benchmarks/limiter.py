"""How many POSTs each way of keeping "30 a minute" gets refused, by servers that count it in four ways.

Run it with ``python -m benchmarks limiter`` (needs the ``dev`` extra). It prints a Markdown table, the same one at
every run with the same ``--uploads`` and ``--seed``.

Eight workers make the uploads one after another, in virtual time: the limiters and the event loop are real, the
clock and the network are not. A POST takes its time to the server, is counted there when it arrives, is worked on, and
its answer takes its time back. Times vary from POST to POST, and some are slow, so that POSTs sent 2 s apart may
arrive closer. What is refused is sent again at its next turn.

The table tells, for each client: the POSTs that each server refused; the most POSTs that any 60 s held, as they
arrived, on the worst of the servers; and when the last POST left, as a multiple of the ideal, in which thirty leave at
the beginning of every minute (two figures when the fastest and the slowest of the servers differ).

It does not measure: the speed of the code, the network's or Springest's real latencies (the model below is a guess
that only has to be uneven), losses, or what the client does after a refusal (ours would slow down; here it must not
need to).
"""

import argparse
import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import looptime
from aiolimiter import AsyncLimiter
from attrs import field, frozen

from springest_async.limiter import Limiter
from springest_async.sandbox.audit import most_in_any
from springest_async.sandbox.windows import FixedWindow, SlidingWindow, TokenBucket, Window

__all__ = ["CLIENTS", "SERVERS", "Row", "main", "measure"]

POSTS, PERIOD = 30, 60.0
CONCURRENCY = 8

# The clock ticks in a power of two, because aiolimiter adds and subtracts times: with decimal ticks it can be left with
# 1e-16 of a token too few and then sets a timer for "now" again and again. A real clock moves on in between; a virtual
# one only moves when nothing is due, so it would stand still for ever. Multiples of 2**-20 s add up exactly.
_TICK = 2**-20

Turn = Callable[[], AbstractAsyncContextManager[None]]
"""Entered when the POST may leave, and left when its answer has come."""


# --- the clients ---


def _pacing(posts: int, period: float) -> Turn:
    limiter = AsyncLimiter(posts, period)
    return lambda: limiter


def _counting_from_the_send() -> Turn:
    sent: deque[float] = deque(maxlen=POSTS)
    door = asyncio.Lock()

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with door:
            if len(sent) == POSTS:
                await asyncio.sleep(sent[0] + PERIOD - loop.time())
            sent.append(loop.time())
        yield

    return turn


def _resting() -> Turn:
    limiter = Limiter(posts=POSTS, period=PERIOD)

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        async with limiter.post(counted_within=120.0) as post:
            yield
            post.mark_answered()

    return turn


CLIENTS: dict[str, Callable[[], Turn]] = {
    "`AsyncLimiter(30, 60)`": lambda: _pacing(POSTS, PERIOD),
    "`AsyncLimiter(1, 2)`": lambda: _pacing(1, PERIOD / POSTS),
    "30 in any 60 s, counted from the send": _counting_from_the_send,
    "**30 tokens, each resting 60 s from its answer**": _resting,
}

# --- the servers and the way to them ---

SERVERS: dict[str, Callable[[], Window]] = {
    "fixed window": lambda: FixedWindow(POSTS, PERIOD),
    "sliding window": lambda: SlidingWindow(POSTS, PERIOD),
    "sliding, refusals count": lambda: SlidingWindow(POSTS, PERIOD, count_refusals=True),
    "bucket of 30": lambda: TokenBucket(POSTS, PERIOD),
}


def _latency(chance: random.Random) -> tuple[float, float]:
    """Seconds from the send to the arrival, and from there to the answer.

    A tenth of a second each way and three for the work, in the middle; one POST in fifty meets a delay of some
    seconds on its way, and one in fifty at work.
    """

    def spread(middle: float) -> float:
        slow = chance.expovariate(1 / 4.0) if chance.random() < 0.02 else 0.0
        return chance.lognormvariate(math.log(middle), 0.6) + slow

    return spread(0.1), spread(0.4)


# --- the simulation ---


@frozen
class Run:
    """What one client met at one server: refusals, the most arrivals in any 60 s, and when the last POST left (s)."""

    refused: int
    most: int
    seconds: float


@frozen
class Row:
    """One client's runs, by server; `ideal` is in seconds."""

    client: str
    ideal: float
    runs: dict[str, Run] = field(factory=dict)

    @property
    def most(self) -> int:
        """The most POSTs that any 60 s held, on any of the servers."""
        return max(run.most for run in self.runs.values())

    def __str__(self) -> str:
        times = sorted({f"{run.seconds / self.ideal:.2f}" for run in self.runs.values()}, key=float)
        time = times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"
        cells = [self.client, *(str(run.refused) for run in self.runs.values()), str(self.most), time]
        return "| " + " | ".join(cells) + " |"


async def _simulate(make_turn: Callable[[], Turn], server: Window, uploads: int, seed: int) -> Run:
    loop, turn, chance = asyncio.get_running_loop(), make_turn(), random.Random(seed)
    waiting = iter(range(uploads))
    arrivals: list[float] = []
    refused, last_sent = 0, 0.0

    async def post() -> bool:
        nonlocal refused, last_sent
        async with turn():
            last_sent = loop.time()
            to_arrival, to_answer = _latency(chance)
            await asyncio.sleep(to_arrival)
            arrivals.append(loop.time())
            accepted = server.admit(loop.time())
            await asyncio.sleep(to_answer)
        refused += not accepted
        return accepted

    async def work() -> None:
        for _ in waiting:
            while not await post():
                pass

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return Run(refused, most_in_any(arrivals, PERIOD), last_sent)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = looptime.new_event_loop(start=0, resolution=_TICK, noop_cycles=0)
    return loop


def measure(uploads: int, seed: int) -> list[Row]:
    """Return one row for each client; `uploads` is more than 30, so that there is an ideal to compare with.

    Raises:
        ValueError: when there are too few uploads.
    """
    if uploads <= POSTS:
        raise ValueError(f"{uploads} uploads need no limit: simulate more than {POSTS}")
    rows = []
    for client, make_turn in CLIENTS.items():
        row = Row(client, (uploads / POSTS - 1) * PERIOD)
        for name, make_server in SERVERS.items():
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                row.runs[name] = runner.run(_simulate(make_turn, make_server(), uploads, seed))
        rows.append(row)
    return rows


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks limiter", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--uploads", type=int, default=3000, help="how many certificates (3000)")
    parser.add_argument("--seed", type=int, default=1, help="another one gives other latencies (1)")
    options = parser.parse_args(arguments)
    try:
        rows = measure(options.uploads, options.seed)
    except ValueError as error:
        parser.error(str(error))
    print("| client | " + " | ".join(SERVERS) + " | most in any 60 s | time / ideal |")
    print("|---" * (len(SERVERS) + 3) + "|")
    print(*rows, sep="\n")
