"""How many POSTs are refused for each way of keeping "30 a minute", by servers that count it in every way.

Run it with ``python -m benchmarks limit``. All but the last tables are the same at every run with the same
``--uploads`` and ``--seed``.

Eight workers upload one certificate after another, in virtual time: the limiters and the event loop are real, the
clock and the network are not. A POST travels to the server, is counted when it arrives, is worked on, and its answer
travels back. The times vary from POST to POST, and some are long, so that POSTs sent 2 s apart may arrive closer
together. The first POST leaves in the middle of a minute of the clock.

The first table compares limiters, at servers that never refuse ours. A refused POST is sent again as soon as the
limiter lets it. For each client it shows the POSTs that each server refused; the most POSTs that arrived in any 60 s,
at the worst of the servers; and the time when the last POST left, at the fastest and the slowest of the servers, as a
multiple of the ideal, in which thirty leave at the beginning of every minute.

The next table shows the whole client, with its decisions after a refusal: each upload is a real `Upload`, and only
the connection is simulated. For each way of counting it shows the refused POSTs, when the body of the refusal says
nothing and when it names the limit; and, for the worse of these two, the most POSTs in any 60 s, the failed rows, and
the time. The third table is the same beside another client with the same key, which posts ten times a minute at random
moments, whatever the server answers. (No number includes its POSTs. Where only a silence of all clients resets the
count, no client would ever get in, so that way is left out.)

The last table is measured in real time, over sockets, against the sandbox: see `benchmarks.limit_sandbox`.

It does not measure the speed of the code, the real latencies of the network or of Springest (the model below is a guess
that only has to be uneven), lost connections, or invalid certificates.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import looptime
from attrs import define, field, frozen

from benchmarks.limit_clients import CLIENTS, PERIOD, POSTS, Pacer
from benchmarks.limit_sandbox import measure_sandbox
from benchmarks.report import Table, parser, publish
from springest_async.api.protocol import Answer
from springest_async.api.verdicts import Verdicts
from springest_async.errors import SpringestError
from springest_async.http.api_key import ApiKey
from springest_async.http.exchange import Exchange
from springest_async.http.transport import Timeouts, Transport
from springest_async.limits.limiter import Limiter
from springest_async.records import CertificateUpload
from springest_async.sandbox.audit import most_in_any
from springest_async.sandbox.windows import (
    ElasticWindow,
    FirstHitWindow,
    FixedWindow,
    Paced,
    SlidingWindow,
    TokenBucket,
    Window,
)
from springest_async.source_file import SourceFile
from springest_async.upload import Upload, Uploader

__all__ = ["CLIENTS", "SERVERS", "WAYS", "Row", "Way", "main", "measure", "measure_ways"]

CONCURRENCY = 8
_BEGIN = 37.0  # the clock when the first POST leaves: in the middle of a fixed minute

# The clock ticks in a power of two, because aiolimiter adds and subtracts times: with decimal ticks it can lack 1e-16
# of a token, and then sets a timer for "now" again and again. A real clock moves on in between; a virtual one only
# moves when nothing is due, so it would stop for ever. Multiples of 2**-20 s add up exactly.
_TICK = 2**-20

# --- the servers and the way to them ---

WAYS: dict[str, Callable[[], Window]] = {
    "fixed window, aligned to the epoch": lambda: FixedWindow(POSTS, PERIOD),
    "fixed window from the first hit": lambda: FirstHitWindow(POSTS, PERIOD),
    "expiry pushed back at each hit": lambda: ElasticWindow(POSTS, PERIOD),
    "sliding window": lambda: SlidingWindow(POSTS, PERIOD),
    "sliding window, refusals count": lambda: SlidingWindow(POSTS, PERIOD, count_refusals=True),
    "bucket of 30": lambda: TokenBucket(POSTS, PERIOD),
    "strict spacing, one every 2 s": lambda: Paced(POSTS, PERIOD),
}

ELASTIC, SPACED = "expiry pushed back at each hit", "strict spacing, one every 2 s"

# The other two servers require more than a limit: a client that does not slow down would never finish there.
SERVERS = {name: make for name, make in WAYS.items() if name not in (ELASTIC, SPACED)}

REFUSALS = {
    "says nothing": b'{"status": 400, "error": "Bad Request"}',
    "names the limit": b'{"error": "Too many requests"}',
}


def _latency(chance: random.Random) -> tuple[float, float]:
    """Return the seconds from the send to the arrival, and from there to the answer.

    The medians are 0.1 s and 0.4 s; one POST in fifty has a delay of some seconds on its way, and one in fifty at the
    server.
    """

    def spread(middle: float) -> float:
        slow = chance.expovariate(1 / 4.0) if chance.random() < 0.02 else 0.0
        return chance.lognormvariate(math.log(middle), 0.6) + slow

    return spread(0.1), spread(0.4)


# --- the simulation ---


@frozen
class Run:
    """The result of one client at one server.

    Attributes:
        refused: how many POSTs were refused.
        most: the most arrivals in any 60 s.
        seconds: when the last POST left.
        failed: how many rows failed.
    """

    refused: int
    most: int
    seconds: float
    failed: int = 0


@define
class _Server:
    """A server, the network before it, and what it counts in one run."""

    window: Window
    chance: random.Random
    arrivals: list[float] = field(factory=list)
    refused: int = 0
    last_sent: float = _BEGIN

    async def accepts(self) -> bool:
        """Take one POST from its send to its answer, and return whether it was accepted."""
        loop = asyncio.get_running_loop()
        self.last_sent = loop.time()
        to_arrival, to_answer = _latency(self.chance)
        await asyncio.sleep(to_arrival)
        self.arrivals.append(loop.time())
        accepted = self.window.admit(loop.time())
        await asyncio.sleep(to_answer)
        self.refused += not accepted
        return accepted

    async def serve_another(self, a_minute: int) -> None:
        """Take the POSTs of another client at random moments, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.chance.expovariate(a_minute / PERIOD))
            self.window.admit(loop.time())

    def run(self, failed: int = 0) -> Run:
        """Return the result of the run."""
        return Run(self.refused, most_in_any(self.arrivals, PERIOD), self.last_sent - _BEGIN, failed)


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

    @property
    def numbers(self) -> list[float]:
        """Return those of a table: refused by each server, the most, and the time as a multiple of the ideal."""
        refused = [run.refused for run in self.runs.values()]
        return [*refused, self.most, *_times(self.runs.values(), self.ideal)]


@frozen
class Way:
    """Our client at a server that counts in one way, by what the refusals say; `ideal` is in seconds."""

    name: str
    ideal: float
    runs: dict[str, Run] = field(factory=dict)

    @property
    def numbers(self) -> list[float]:
        """Return those of a table: refused for each kind of refusal, the most, the failed, and the time."""
        runs = self.runs.values()
        refused = [run.refused for run in runs]
        return [*refused, max(run.most for run in runs), max(run.failed for run in runs), *_times(runs, self.ideal)]


def _times(runs: Iterable[Run], ideal: float) -> tuple[float, float]:
    times = [run.seconds / ideal for run in runs]
    return min(times), max(times)


async def _simulate(make_pacer: Callable[[float], Pacer], window: Window, uploads: int, seed: int) -> Run:
    pacer, server = make_pacer(PERIOD), _Server(window, random.Random(seed))
    waiting = iter(range(uploads))

    async def post() -> bool:
        async with pacer():
            return await server.accepts()

    async def work() -> None:
        for _ in waiting:
            while not await post():
                pass

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return server.run()


class _Connection(Transport):
    """A simulated network: it reads no file and sends no byte."""

    def __init__(self, server: _Server, refusal: bytes) -> None:
        super().__init__("https://api.springest.nl", timeouts=Timeouts(), user_agent="benchmark")
        self._server, self._refusal = server, refusal

    async def post(self, exchange: Exchange) -> Answer:
        """Take a POST to the server, and return its answer."""
        exchange.headers_sent = True
        accepted = await self._server.accepts()
        exchange.status = 201 if accepted else 400
        return Answer(exchange.status, body=b'{"id": 1}' if accepted else self._refusal)


async def _migrate(window: Window, refusal: bytes, uploads: int, seed: int, others: int) -> Run:
    random.seed(seed)  # the client's own jitter
    server = _Server(window, random.Random(seed))
    connection, limiter, verdicts = _Connection(server, refusal), Limiter(), Verdicts()
    waiting, failed = iter(range(uploads)), 0

    async def work() -> None:
        nonlocal failed
        for _ in waiting:
            try:
                await _deliver(connection, limiter, verdicts)
            except SpringestError:
                failed += 1

    another = asyncio.create_task(server.serve_another(others)) if others else None
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    if another is not None:
        another.cancel()
    return server.run(failed)


async def _deliver(connection: Transport, limiter: Limiter, verdicts: Verdicts) -> None:
    file = Path("certificate.pdf")
    uploader = Uploader(
        transport=connection,
        key=ApiKey("key"),
        wire_format="json",
        timeouts=Timeouts(),
        limiter=limiter,
        verdicts=verdicts,
        executor=_NO_FILES,
    )
    await Upload(
        uploader,
        CertificateUpload(file=file, certification_id=1, email="jan@example.org", valid_from=date(2026, 1, 31)),
        lambda _: None,
        bulk=True,
        source=SourceFile(file, size=100_000, modified_ns=0, inode=0, device=0),
    ).run()


_NO_FILES = ThreadPoolExecutor(max_workers=1)  # starts no thread because no file is read


def _new_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = looptime.new_event_loop(start=_BEGIN, resolution=_TICK, noop_cycles=0)
    return loop


def _ideal(uploads: int) -> float:
    if uploads <= POSTS:
        raise ValueError(f"{uploads} uploads need no limit: simulate more than {POSTS}")
    return (uploads / POSTS - 1) * PERIOD


def measure(uploads: int, seed: int) -> list[Row]:
    """Return one row for each client.

    Raises:
        ValueError: `uploads` is 30 or less, so that there is no ideal to compare with.
    """
    rows = []
    for client, make_pacer in CLIENTS.items():
        row = Row(client, _ideal(uploads))
        for name, make_server in SERVERS.items():
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                row.runs[name] = runner.run(_simulate(make_pacer, make_server(), uploads, seed))
        rows.append(row)
    return rows


def measure_ways(uploads: int, seed: int, *, others: int = 0) -> list[Way]:
    """Return the results of our client for each way of counting, beside another client with `others` POSTs a minute.

    Raises:
        ValueError: `uploads` is 30 or less, so that there is no ideal to compare with.
    """
    ways = []
    for name, make_server in WAYS.items():
        if others and name == ELASTIC:
            continue
        way = Way(name, _ideal(uploads))
        for says, refusal in REFUSALS.items():
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                way.runs[says] = runner.run(_migrate(make_server(), refusal, uploads, seed, others))
        ways.append(way)
    return ways


_MOST, _TIMES = "most in any 60 s", ("time / ideal, at best", "time / ideal, at worst")
_OURS = list(CLIENTS)[-1]


def _tables(uploads: int, seed: int) -> list[Table]:
    """Measure in virtual time.

    Raises:
        ValueError: `uploads` is 30 or less, so that there is no ideal to compare with.
    """
    rows = measure(uploads, seed)
    kept = [name for name in WAYS if name not in (ELASTIC, SPACED)]
    tables = [
        Table(
            key="clients",
            title=f"POSTs that each kind of server refuses of {uploads} uploads",
            unit="POSTs, and the time as a multiple of the ideal",
            columns=[*SERVERS, _MOST, *_TIMES],
            rows={row.client: row.numbers for row in rows},
            picture=None,
            ceilings={(_OURS, name): 0 for name in kept} | {(_OURS, _MOST): POSTS, (_OURS, _TIMES[1]): 1.1},
            floors={(next(iter(CLIENTS)), _MOST): 50},
        ),
        Table(
            key="most",
            title="The most POSTs in any 60 s, of which a server accepts 30",
            unit="POSTs",
            columns=[row.client.strip("*").replace("`", "") for row in rows],
            rows={"most in any 60 s": [row.most for row in rows]},
        ),
    ]
    refused = [f"refused, when the answer {says}" for says in REFUSALS]
    columns = [*refused, _MOST, "rows failed", *_TIMES]
    for key, where, others in ("alone", "alone", 0), ("beside", "beside another client with the same key", 10):
        ways = {way.name: way.numbers for way in measure_ways(uploads, seed, others=others)}
        ceilings = {(name, column): 0.0 for name in ways for column in ["rows failed"]}
        ceilings |= {(name, column): 0.0 for name in ways if name in kept and not others for column in refused}
        ceilings |= {(name, _MOST): POSTS for name in ways}
        tables.append(
            Table(
                key=key,
                title=f"Our client with each way of counting, {where}",
                unit="POSTs, rows, and the time as a multiple of the ideal",
                columns=columns,
                rows=ways,
                picture=None,
                ceilings=ceilings,
            )
        )
    return tables


def main(arguments: list[str]) -> int:
    """Print the tables, and return the exit code."""
    options = parser("limit", __doc__)
    options.add_argument("--uploads", type=int, default=None, help="how many certificates (3000; 200 when quick)")
    options.add_argument("--seed", type=int, default=1, help="a different seed gives different latencies (1)")
    options.add_argument("--virtual", action="store_true", help="leave out what takes real time")
    given = options.parse_args(arguments)
    uploads = given.uploads or (200 if given.quick else 3000)
    try:
        tables = _tables(uploads, given.seed)
    except ValueError as error:
        options.error(str(error))
    if not given.virtual:
        tables.append(asyncio.run(measure_sandbox(quick=given.quick)))
    return publish("limit", tables, given)
