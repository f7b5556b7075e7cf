"""An HTTP proxy of the tests' own: connects as it is told to (CONNECT), and keeps every byte that it passes on.

And proxies that do not connect, each with the reason that the client gives for it.
"""

import asyncio
from contextlib import suppress

from attrs import define, field

from .raw_server import Behaviour, Exchange

__all__ = ["FAULTY", "TOO_LATE", "ConnectProxy", "answering", "trickles"]


@define(eq=False)
class ConnectProxy:
    """What a `raw_server` does that is a proxy.

    It knows one machine only: whatever name it is given, it connects to that port of loopback. `authorization` is what
    it wants to be told in Proxy-Authorization.
    """

    authorization: str | None = None
    heads: list[tuple[str, dict[str, str]]] = field(factory=list)  # of the requests that were made of it
    passed: bytearray = field(factory=bytearray)  # in both directions
    open: int = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.heads.append((exchange.line, dict(exchange.headers)))
        method, target, _ = exchange.line.split()
        if exchange.header("Proxy-Authorization") != self.authorization:
            await exchange.answer(407, b"Who are you?", Proxy_Authenticate='Basic realm="proxy"')
            return
        assert method == "CONNECT"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
        self.open += 1
        try:
            await exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pumps = [self._pump(exchange.reader, writer), self._pump(reader, exchange.writer)]
            # Both sides of a connection end together here.
            await asyncio.wait(map(asyncio.create_task, pumps), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.open -= 1
            writer.close()
            exchange.hang_up()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                self.passed += data
                writer.write(data)
                await writer.drain()


def answering(status: int) -> Behaviour:
    """Answer to CONNECT with what it was asked for, as error pages do."""

    async def behaviour(exchange: Exchange) -> None:
        line = f"{exchange.line} {exchange.header('Proxy-Authorization')}"
        await exchange.answer(status, f"<html>{line}</html>".encode(), X_Line=line, Location=f"http://x/?{line}")

    return behaviour


async def hangs_up(exchange: Exchange) -> None:
    exchange.hang_up()


async def resets(exchange: Exchange) -> None:
    exchange.reset()


async def says_nothing(exchange: Exchange) -> None:
    assert await exchange.reader.read(1) == b""


async def trickles(exchange: Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.02)


async def speaks_no_http(exchange: Exchange) -> None:
    await exchange.send(b"220 mail.example ESMTP\r\n")
    exchange.hang_up()


async def sends_endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000)


async def connects_to_no_tls(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
    await exchange.reader.read(1)
    await exchange.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def connects_and_hangs_up(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
    await exchange.reader.read(1)
    exchange.hang_up()


async def connects_and_says_nothing(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while await exchange.reader.read(1 << 16):
        pass


WANTS_A_NAME = "the proxy wants a name and a password, or does not accept those that it was given (407)"
NOT_HTTP = "the proxy's answer is not HTTP, or too long in its headers"
TOO_LATE = "no connection through the proxy within the time allowed"
FAULTY: list[tuple[str, Behaviour, str]] = [
    ("a proxy that wants a name and a password (407)", answering(407), WANTS_A_NAME),
    (
        "a proxy that does not allow it (403)",
        answering(403),
        "the proxy makes no connection to the server: it answered 403",
    ),
    (
        "a proxy that cannot connect (502)",
        answering(502),
        "the proxy makes no connection to the server: it answered 502",
    ),
    ("a proxy that answers 201", answering(201), "the proxy makes no connection to the server: it answered 201"),
    ("a proxy that answers 302", answering(302), "the proxy makes no connection to the server: it answered 302"),
    ("a proxy that hangs up", hangs_up, "the proxy closed the connection"),
    ("a proxy that resets the connection", resets, "the proxy closed the connection"),
    ("a proxy that says nothing", says_nothing, TOO_LATE),
    ("a proxy that says 102 for ever", trickles, TOO_LATE),
    ("a proxy that speaks no HTTP", speaks_no_http, NOT_HTTP),
    ("a proxy that sends headers without end", sends_endless_headers, NOT_HTTP),
    ("a proxy that connects to what speaks no TLS", connects_to_no_tls, "no TLS connection could be made"),
    ("a proxy that connects and hangs up", connects_and_hangs_up, "the proxy closed the connection"),
    ("a proxy that connects and says nothing", connects_and_says_nothing, TOO_LATE),
]
