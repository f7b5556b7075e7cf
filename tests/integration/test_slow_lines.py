"""A slow line is slow and no more: what moves arrives, however long it takes, and what stops moving is told."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from attrs import evolve

from springest_async import CertificateUpload, InDoubt, Limiter, NotSent, Settings, Springest, Timeouts
from tests.waiting import leaping_clock

from .faults.proxy import Direction, Line, fault_proxy
from .raw_server import Behaviour, Exchange, RawServer, created, raw_server
from .tls import Authority
from .wire import PATIENT, file_of, small_socket

# A second and a half for what takes five: a line that moves is never cut off.
TIMEOUTS = evolve(PATIENT, answer=1.5, stall=1.5)
# For what falls silent, on a clock that leaps over silences: one that ends by `stall` did not wait for an answer.
SILENT = evolve(PATIENT, answer=3600.0)


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture
def big(make_upload: Callable[..., CertificateUpload], tmp_path: Path) -> CertificateUpload:
    """Return a certificate of a little more than one piece."""
    return make_upload(file=file_of(600_000, tmp_path / "big.pdf"))


def thin(*, bandwidth: int = 250_000, cut_after: int | None = None) -> Line:
    """Make a line of so many bytes a second upwards that takes nothing ahead."""
    return Line(up=Direction(bandwidth=bandwidth, piece=8192, cut_after=cut_after, cut="silent"), buffer=8192)


@asynccontextmanager
async def over(
    line: Line,
    *,
    send_buffer: int | None,
    behaviour: Behaviour = created,
    timeouts: Timeouts = TIMEOUTS,
    authority: Authority | None = None,
) -> AsyncIterator[tuple[Springest, RawServer]]:
    """Yield a client at the near end of a line, and the server at its far end.

    `send_buffer` bounds the client's system's, in bytes; with an `authority` the line carries TLS.
    """
    connector = aiohttp.TCPConnector(
        socket_factory=partial(small_socket, send_buffer), ssl=authority.client_tls() if authority else True
    )
    async with (
        raw_server(behaviour, tls=authority.right() if authority else None) as server,
        fault_proxy(server.origin, line) as proxy,
        connector,
        Springest(
            api_key="key-of-the-tests",
            host=proxy.origin,
            settings=Settings(limiter=Limiter(), timeouts=timeouts, connector=connector),
        ) as springest,
    ):
        yield springest, server


# With a small buffer it is the writing that takes long. The system's own takes a body at once, and it is the answer
# that comes late, by any clock that begins there.
BUFFERS = (8192, None)


async def test_a_body_that_moves_arrives_however_long_it_takes(authority: Authority, big: CertificateUpload) -> None:
    async def sent(send_buffer: int | None, authority: Authority | None) -> list[int]:
        line = thin(bandwidth=120_000)
        async with over(line, send_buffer=send_buffer, authority=authority) as (springest, server):
            receipt = await springest.upload(big)
        exchange = server.exchanges[-1]
        return [receipt.attempts, len(server.exchanges), exchange.length - len(exchange.body)]

    before = time.monotonic()
    outcomes = await asyncio.gather(*(sent(buffer, tls) for buffer in BUFFERS for tls in (None, authority)))

    assert time.monotonic() - before > 3 * TIMEOUTS.stall
    assert outcomes == [[1, 1, 0]] * 4


async def test_a_body_that_stops_in_the_middle_is_not_sent(
    authority: Authority, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    # It is more than any system takes ahead of a line.
    upload = make_upload(file=file_of(8_000_000, tmp_path / "huge.pdf"))

    async def sent(authority: Authority | None) -> None:
        async with over(thin(cut_after=80_000), send_buffer=None, timeouts=SILENT, authority=authority) as (
            springest,
            server,
        ):
            with pytest.raises(NotSent) as caught:
                await springest.upload(upload)
        assert (caught.value.reason, caught.value.connected) == ("the upload stopped moving", True)
        assert len(server.exchanges) == 4
        assert not any(len(exchange.body) == exchange.length for exchange in server.exchanges)

    with leaping_clock():
        before = asyncio.get_running_loop().time()
        await asyncio.gather(sent(None), sent(authority))
        assert asyncio.get_running_loop().time() - before < SILENT.answer


async def test_a_body_that_stops_in_the_system_buffer_is_in_doubt(big: CertificateUpload) -> None:
    with leaping_clock():
        before = asyncio.get_running_loop().time()
        async with over(thin(cut_after=80_000), send_buffer=None, timeouts=SILENT) as (springest, server):
            with pytest.raises(InDoubt) as caught:
                await springest.upload(big)
        assert asyncio.get_running_loop().time() - before < SILENT.answer

    assert caught.value.reason == "the upload stopped moving"
    assert len(server.exchanges) == 1


async def test_the_answer_timeout_begins_when_the_body_arrived(big: CertificateUpload) -> None:
    loop = asyncio.get_running_loop()

    async def waited(send_buffer: int | None) -> float:
        arrived = 0.0

        async def falls_silent(exchange: Exchange) -> None:
            nonlocal arrived
            await exchange.go_on()
            await exchange.read()
            arrived = loop.time()
            await loop.create_future()

        async with over(thin(), send_buffer=send_buffer, behaviour=falls_silent, timeouts=PATIENT) as (springest, _):
            with pytest.raises(InDoubt) as caught:
                await springest.upload(big)
            assert caught.value.reason == "no answer within the time allowed"
            return loop.time() - arrived

    with leaping_clock():
        # What the proxy has in hand is still on its way when the client's system knows that it arrived.
        for seconds in await asyncio.gather(*map(waited, BUFFERS)):
            assert 0.5 * PATIENT.answer < seconds < 2 * PATIENT.answer


UPLOADER = """
import asyncio, re, sys
from datetime import date
from pathlib import Path
from springest_async import CertificateUpload, Settings, Springest, Timeouts

async def main(origin, *files):
    settings = Settings(timeouts=Timeouts(connect=5.0, answer=2.0, stall=2.0))
    async with Springest(api_key="key-of-the-tests", host=origin, settings=settings) as springest:
        for file in files:
            upload = CertificateUpload(
                file=file, certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31)
            )
            attempts = (await springest.upload(upload)).attempts
            print(attempts, re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.soak
async def test_100_mb_over_a_thin_line_take_no_more_memory_than_2(tmp_path: Path) -> None:
    sizes = (2_000_000, 100_000_000)
    files = [file_of(size, tmp_path / f"{size}.pdf") for size in sizes]
    line = Line(up=Direction(bandwidth=20_000_000))
    before = time.monotonic()
    async with raw_server(created) as server, fault_proxy(server.origin, line) as proxy:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", UPLOADER, proxy.origin, *map(str, files)), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()

    assert process.returncode == 0
    assert time.monotonic() - before > 4.0  # twice the time that is allowed for a line that does not move
    (small_tries, small_kib), (big_tries, big_kib) = (map(int, row.split()) for row in told.splitlines())
    assert (small_tries, big_tries) == (1, 1)
    assert all(file.read_bytes() in exchange.body for file, exchange in zip(files, server.exchanges, strict=True))
    assert big_kib - small_kib < 16 * 1024
