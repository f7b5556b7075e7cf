"""A server on loopback of which a test scripts every byte, and which keeps every byte that arrived.

It knows as little of HTTP as can be: the head of a request up to its blank line, and as many bytes as its
Content-Length says. What it answers, when it stops reading and how it hangs up is a `Behaviour` of the test's.
"""

import asyncio
import email.policy
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.message import Message
from email.parser import BytesParser

from attrs import define, field

__all__ = ["Behaviour", "Exchange", "RawServer", "created", "either", "form_of", "raw_server", "until_accepted"]


@define(eq=False)
class Exchange:
    """One request as it arrived, and the means to answer it."""

    connection: int
    line: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytearray = field(factory=bytearray)

    def header(self, name: str) -> str | None:
        """Return a header's only value, or None when there is none."""
        found = [value for known, value in self.headers if known.lower() == name.lower()]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    @property
    def length(self) -> int:
        """How long the body is said to be."""
        return int(self.header("Content-Length") or 0)

    async def go_on(self) -> None:
        """Send 100 if it was asked for."""
        if self.header("Expect") is not None:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self.writer.drain()

    async def read(self, most: int | None = None) -> None:
        """Read so many bytes of the body, or all that is left of it."""
        left = self.length - len(self.body) if most is None else most
        while left > 0:
            piece = await self.reader.read(min(left, 1 << 18))
            if not piece:
                return
            self.body += piece
            left -= len(piece)

    async def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer; an underscore in a header's name stands for a dash."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join((*lines, "", "")).encode() + body)

    async def send(self, data: bytes) -> None:
        """Send bytes that need not be HTTP."""
        if self.writer.is_closing():
            raise ConnectionResetError  # as asyncio does, and uvloop does not
        self.writer.write(data)
        await self.writer.drain()

    def hang_up(self) -> None:
        """Close the connection in good order."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection, as a router does that forgets it."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


@define(eq=False)
class RawServer:
    """`behaviours` are what is done with each request in turn; the last of them with all that follow.

    `greeting` is said to each connection before it has asked for anything, as no server of HTTP does.
    """

    behaviours: list[Behaviour]
    origin: str = ""
    greeting: bytes = b""
    exchanges: list[Exchange] = field(factory=list)
    connections: int = 0
    closing: bool = False

    @property
    def lines(self) -> list[str]:
        """The request lines, in the order of their arrival."""
        return [exchange.line for exchange in self.exchanges]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        try:
            writer.write(self.greeting)
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
                pairs = [(name, value.strip()) for name, _, value in (header.partition(":") for header in headers)]
                exchange = Exchange(connection, line, pairs, reader, writer)
                behaviour = self.behaviours[min(len(self.exchanges), len(self.behaviours) - 1)]
                self.exchanges.append(exchange)
                await behaviour(exchange)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client hung up
        finally:
            if self.closing:
                writer.transport.abort()
            else:
                writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def until_accepted() -> None:
    """Wait until the connections that a listener already has are served: before it is closed.

    asyncio accepts a connection in one turn of the loop, makes its transport in the next, and tells its protocol in a
    third; in a fourth begins the task that closes it. A listener that is closed in between leaves the socket open,
    and so does a task that is cancelled before it began.
    """
    for _ in range(6):
        await asyncio.sleep(0)


@asynccontextmanager
async def raw_server(
    *behaviours: Behaviour,
    greeting: bytes = b"",
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
    name: str = "127.0.0.1",
) -> AsyncIterator[RawServer]:
    """Serve on a free port of loopback as long as the block lasts.

    `receive_buffer` bounds the system's, in bytes; `tls` makes it ``https``; `name` is what the origin calls it.
    """
    server = RawServer(list(behaviours), greeting=greeting)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(server.serve(reader, writer)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    if receive_buffer is not None:
        listener.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # for what it accepts
    server.origin = f"{'https' if tls else 'http'}://{name}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        await until_accepted()
        listener.close()
        server.closing = True
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures:
            raise ExceptionGroup("the server's script failed", failures)


async def created(exchange: Exchange) -> None:
    """Take a certificate whole and store it under the number of its turn."""
    await exchange.go_on()
    await exchange.read()
    await exchange.answer(201, b'{"id": 5001}')


async def either(exchange: Exchange) -> None:
    """Store a certificate, as `created` does, or list one certification."""
    if exchange.line.startswith("POST"):
        await created(exchange)
    else:
        rows = [{"id": 7, "name": "VCA Basis"}]
        await exchange.answer(200, json.dumps({"certifications": rows, "meta": {"results": 1}}).encode())


def form_of(exchange: Exchange) -> dict[str, Message]:
    """Take a form apart with the standard library's e-mail parser."""
    head = f"Content-Type: {exchange.header('Content-Type')}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + bytes(exchange.body))
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert not message.defects
    return {
        str(part.get_param("name", header="Content-Disposition")): part for part in parts if isinstance(part, Message)
    }
