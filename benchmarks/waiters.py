"""What uploads cost that wait for the limit, and what a POST costs with many tokens out.

Run it with ``python -m benchmarks waiters``. All numbers are processor time, and only the last table sends anything.

The first table shows a POST that leaves at once and is answered in the next cycle of the event loop, with so many
tokens out and so many POSTs in flight (with a limit of a million a minute, so that a token is always free); beside
`AsyncLimiter`, which keeps no token. The second one shows uploads that wait for a token: what each costs until it
waits, what all of them cost together while they wait, and what each costs that leaves, or gives up. The third one
shows a whole bulk run with its journal, which has sent the POSTs of the minute and waits for the next one.

What is compared runs in turns.
"""

import asyncio
import csv
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aiolimiter import AsyncLimiter
from attrs import frozen

from benchmarks.report import Table, in_turns, medians, parser, publish
from benchmarks.sink import Sink
from springest_async import Journal, Limiter, Settings, Springest
from springest_async.bulk import COLUMNS, BulkEvent, Manifest, RowDone, UploadQueue, load_manifest

__all__ = ["main"]

_MANY = 10**6  # POSTs a minute
_NO_LIMIT = 10**9  # requests an hour
_WINDOW = 120.0  # seconds
_THEIRS = "`AsyncLimiter`"
_RUN = "a bulk run"
_PDF = b"%PDF-1.7\n" + b"\n" * 1000 + b"%%EOF\n"


@frozen(kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        tokens: how many are out when POSTs leave, before those of the turn.
        in_flight: how many POSTs at once.
        posts: how many leave in each turn.
        waiters: how many uploads wait.
        seconds: for how long they, and the bulk run, are looked at while they wait.
        rounds: how many turns each has.
    """

    tokens: Sequence[int] = (30, 3_000, 300_000)
    in_flight: Sequence[int] = (1, 8, 64)
    posts: int = 2_000
    waiters: Sequence[int] = (100, 10_000, 100_000)
    seconds: float = 10.0
    rounds: int = 5


_QUICK = Plan(tokens=(30, 30_000), in_flight=(8,), posts=1_000, waiters=(100, 10_000), seconds=2.0, rounds=3)


# --- a POST that leaves at once ---


async def _post(limiter: Limiter) -> None:
    async with limiter.post(count_window=_WINDOW) as permit:
        await asyncio.sleep(0)
        permit.mark_answered()


async def _acquire(limiter: AsyncLimiter) -> None:
    async with limiter:
        await asyncio.sleep(0)


async def _send(post: Callable[[], Awaitable[None]], posts: int, in_flight: int) -> float:
    """Make so many POSTs, and return what each has cost, in microseconds of the processor."""
    left = iter(range(posts))

    async def work() -> None:
        for _ in left:
            await post()

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return (time.process_time() - began) / posts * 1e6


def _limiter(runner: asyncio.Runner, tokens: int) -> Limiter:
    """Make a limiter with so many tokens out."""
    limiter = Limiter(posts=_MANY, requests_per_hour=_NO_LIMIT)
    runner.run(_send(partial(_post, limiter), tokens, 1))
    return limiter


def measure_posts(plan: Plan) -> list[Table]:
    """Measure POSTs that leave with some, many and very many tokens out."""
    labels = {f"{_number(tokens)} tokens out": tokens for tokens in plan.tokens}
    rows: dict[str, list[float]] = {name: [] for name in [*labels, _THEIRS]}
    with asyncio.Runner() as runner:
        most = _limiter(runner, max(plan.tokens))  # which the tokens of the turns hardly change

        def ours(tokens: int, in_flight: int) -> float:
            limiter = most if tokens == max(plan.tokens) else _limiter(runner, tokens)
            return runner.run(_send(partial(_post, limiter), plan.posts, in_flight))

        def theirs(in_flight: int) -> float:
            return runner.run(_send(partial(_acquire, AsyncLimiter(_MANY, 60)), plan.posts, in_flight))

        for in_flight in plan.in_flight:
            ways: dict[str, Callable[[], float]] = {
                name: partial(ours, tokens, in_flight) for name, tokens in labels.items()
            }
            ways[_THEIRS] = partial(theirs, in_flight)
            for name, cost in medians(in_turns(ways, plan.rounds)).items():
                rows[name].append(cost)
    columns = [f"{in_flight} in flight" for in_flight in plan.in_flight]
    first, *_, last, _ = rows
    growth = [many / few for many, few in zip(rows[last], rows[first], strict=True)]
    return [
        Table(
            key="posts",
            title="What the limiter costs a POST that leaves at once",
            unit="µs of a processor",
            columns=columns,
            rows=rows,
        ),
        Table(
            key="growth",
            title="What a POST costs with the most tokens out",
            unit=f"× with {first.removesuffix(' out')}",
            columns=columns,
            rows={last: growth},
            picture=None,
            ceilings={(last, column): 1.5 for column in columns},
        ),
    ]


# --- POSTs that wait ---


async def _wait(waiters: int, seconds: float) -> tuple[float, ...]:
    """Measure so many POSTs that wait: see the columns of `measure_waiters`."""
    limiter = Limiter(posts=30, period=seconds + 1.0, requests_per_hour=_NO_LIMIT)
    for _ in range(30):
        await _post(limiter)
    comes_back = time.monotonic() + seconds + 1.0
    began = time.process_time()
    tasks = [asyncio.create_task(_post(limiter)) for _ in range(waiters)]
    await asyncio.sleep(0)
    beginning = (time.process_time() - began) / waiters * 1e6

    looked, began = time.monotonic(), time.process_time()
    await asyncio.sleep(max(0.0, comes_back - 0.5 - looked))
    waiting = (time.process_time() - began) / (time.monotonic() - looked) * 100

    began = time.process_time()
    await asyncio.wait(tasks[:30])
    leaving = (time.process_time() - began) / 30 * 1e6

    rest = [task for task in tasks if not task.done()]
    random.Random(1).shuffle(rest)
    began = time.process_time()
    for task in rest:
        task.cancel()
    await asyncio.wait(rest)
    return beginning, waiting, leaving, (time.process_time() - began) / len(rest) * 1e6


def measure_waiters(plan: Plan) -> list[Table]:
    """Measure some, many and very many uploads that wait for a token."""
    found = {_number(waiters): asyncio.run(_wait(waiters, plan.seconds)) for waiters in plan.waiters}
    columns = ["until it waits", "when it leaves", "when it gives up"]
    return [
        Table(
            key="waiters",
            title="What an upload costs that waits beside so many others",
            unit="µs of a processor",
            columns=columns,
            rows={waiters: [costs[0], costs[2], costs[3]] for waiters, costs in found.items()},
        ),
        Table(
            key="waiting",
            title="What so many uploads cost together while they wait",
            unit="% of a processor",
            columns=list(found),
            rows={"all": [costs[1] for costs in found.values()]},
            picture=None,
            ceilings={("all", waiters): 0.5 for waiters in found},
        ),
    ]


# --- a bulk run that waits ---


async def _run(origin: str, folder: Path, seconds: float) -> float:
    """Upload a minute's certificates in bulk, and return what the run costs while it waits, in % of a processor."""
    (folder / "certificate.pdf").write_bytes(_PDF)
    with (folder / "certificates.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(
            ["certificate.pdf", 1, f"employee{row}@example.org", "2026-01-31", "", ""] for row in range(90)
        )
    stored, minute_is_full = 0, asyncio.Event()

    def listen(event: BulkEvent) -> None:
        nonlocal stored
        stored += isinstance(event, RowDone)
        if stored == 30:
            minute_is_full.set()

    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(folder / "journal.sqlite3"))
        springest = await stack.enter_async_context(
            Springest(
                api_key="a key for the sink",
                host=origin,
                settings=Settings(limiter=Limiter(ledger=journal.ledger("a benchmark"))),
                journal=journal,
            )
        )
        migration, _ = await load_manifest(journal, Manifest.open(folder / "certificates.csv"), springest.origin)
        queue = UploadQueue(springest, migration, listen)
        running = asyncio.create_task(queue.run())
        await minute_is_full.wait()
        await asyncio.sleep(1.0)  # the last outcomes are on their way to the disk
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        used = (time.process_time() - cpu) / (time.monotonic() - began) * 100
        running.cancel()
        await asyncio.wait([running])
    return used


def measure_run(plan: Plan) -> list[Table]:
    """Measure a bulk run that waits for the limit."""
    with Sink() as sink, tempfile.TemporaryDirectory(prefix="springest-benchmark-") as folder:
        used = asyncio.run(_run(sink.origin, Path(folder), plan.seconds))
    return [
        Table(
            key="run",
            title="What a bulk run with its journal costs while it waits for the limit",
            unit="% of a processor",
            columns=["used"],
            rows={_RUN: [used]},
            picture=None,
            ceilings={(_RUN, "used"): 0.5},
        )
    ]


def _number(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def main(arguments: list[str]) -> int:
    """Measure, publish the tables, and return the exit code."""
    options = parser("waiters", __doc__).parse_args(arguments)
    plan = _QUICK if options.quick else Plan()
    return publish("waiters", [*measure_posts(plan), *measure_waiters(plan), *measure_run(plan)], options)
