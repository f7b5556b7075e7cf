"""A TCP proxy that spoils the line on purpose, byte by byte: late, thin, cut, reset, half closed, silent, trickling.

It stands between a client and a server and knows no HTTP. What goes wrong is counted in bytes of the connection, so
that a test can cut a request or an answer at any place of it, and the kernels on both sides see what they would see
of a bad network: a FIN, a RST, or nothing at all.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

from attrs import define, field, frozen

from tests.integration.raw_server import until_accepted

__all__ = ["Cut", "Direction", "FaultProxy", "Line", "fault_proxy"]

Cut = Literal["closed", "reset", "half closed", "silent"]
"""How a line ends: with a FIN both ways, with a RST both ways, with a FIN in this direction only, or not at all."""


@frozen(kw_only=True)
class Direction:
    """What happens to the bytes that go one way.

    Each piece, of at most `piece` bytes, is `latency` (seconds) late; `bandwidth` is in bytes a second. `cut_after`
    bytes pass, counted from the connection's first one or from where `counted_from` ends in what comes; at the next
    byte the line is `cut`.
    """

    latency: float = 0.0
    bandwidth: float | None = None
    piece: int = 64 * 1024
    cut_after: int | None = None
    counted_from: bytes = b""
    cut: Cut = "closed"


@frozen(kw_only=True)
class Line:
    """What happens on one connection: `up` is towards the server. `buffer` bounds the system's buffers, in bytes."""

    up: Direction = field(factory=Direction)
    down: Direction = field(factory=Direction)
    buffer: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it is, some time."""
        return self.up.cut_after is not None or self.down.cut_after is not None


@define(eq=False)
class FaultProxy:
    """A proxy that listens at `origin`.

    `passed_up` and `passed_down` are the bytes let through, by connection; `cuts` is how many lines were cut.
    """

    origin: str
    cuts: int = 0
    passed_up: list[int] = field(factory=list)
    passed_down: list[int] = field(factory=list)

    @property
    def connections(self) -> int:
        """How many connections came."""
        return len(self.passed_up)


@asynccontextmanager
async def fault_proxy(origin: str, *lines: Line) -> AsyncIterator[FaultProxy]:
    """Stand in front of `origin` as long as the block lasts.

    The connections get these lines in turn, and all that follow get the last one.
    """
    target = urlsplit(origin)
    host, port = target.hostname, target.port
    tasks: set[asyncio.Task[None]] = set()
    buffers = [line.buffer for line in lines if line.buffer is not None]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = proxy.connections
        proxy.passed_up.append(0)
        proxy.passed_down.append(0)
        line = lines[min(number, len(lines) - 1)]
        async with _closing(writer):
            # A small limit keeps the proxy from taking in what the line would not carry.
            far_reader, far_writer = await asyncio.open_connection(host, port, limit=line.buffer or 2**16)
            both = (writer, far_writer)
            async with _closing(far_writer):
                try:
                    async with asyncio.TaskGroup() as pumps:
                        pumps.create_task(_pump(reader, far_writer, line.up, both, proxy, proxy.passed_up, number))
                        pumps.create_task(_pump(far_reader, writer, line.down, both, proxy, proxy.passed_down, number))
                except* (_Cut, OSError):
                    pass

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, limit=min(buffers, default=2**16))
    if buffers:
        listener.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, min(buffers))  # for what it accepts
    proxy = FaultProxy(f"{target.scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        yield proxy
    finally:
        await until_accepted()
        listener.close()
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if failures := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
            raise ExceptionGroup("the fault proxy failed", failures)


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close a connection in the end: what is still to be sent is, unless we are told to stop."""
    try:
        yield
        writer.close()
        await writer.wait_closed()
    except OSError:
        pass
    finally:
        writer.transport.abort()


class _Cut(Exception):
    """The line is cut: nothing more passes either way."""


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    direction: Direction,
    both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    proxy: FaultProxy,
    passed: list[int],
    number: int,
) -> None:
    begun, end = b"", None
    while True:
        piece = await reader.read(direction.piece)
        if direction.cut_after is not None and end is None:
            begun += piece
            if (place := begun.find(direction.counted_from)) >= 0:
                end = place + len(direction.counted_from) + direction.cut_after
        is_cut = False
        if end is not None and end < passed[number] + len(piece):
            piece, is_cut = piece[: end - passed[number]], True
        elif not piece:
            if not writer.is_closing():
                writer.write_eof()
            return
        await asyncio.sleep(direction.latency + (len(piece) / direction.bandwidth if direction.bandwidth else 0.0))
        writer.write(piece)
        await writer.drain()
        passed[number] += len(piece)
        if is_cut:
            proxy.cuts += 1
            await _cut(direction.cut, writer, both)
            return


async def _cut(cut: Cut, writer: asyncio.StreamWriter, both: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
    match cut:
        case "closed":
            raise _Cut
        case "reset":
            for end in both:
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.transport.abort()
            raise _Cut
        case "half closed":
            writer.write_eof()  # and the other direction goes on
        case "silent":
            await asyncio.get_running_loop().create_future()
