"""The line to the server: whether what is sent still moves, has arrived, and what was said on it before it broke.

The system's sockets know it, and neither asyncio nor aiohttp asks them. Knows neither files nor requests.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Awaitable
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from attrs import frozen

__all__ = ["SLOWEST", "Line", "hearing_socket"]

# What is slower than this for more than a few times the stall timeout nearly stands still: a server that takes one byte
# a minute must not hold a place and a token of the limit for ever.
SLOWEST = 1024
"""Bytes a second."""
_STALLS = 5

# Of Linux's `struct tcp_info`: segments not acknowledged, bytes acknowledged, and bytes not sent yet.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


@frozen
class _Queue:
    """What of a body is still on this machine, in the order in which it leaves, and how much has arrived.

    `buffered` are asyncio's bytes. The others are the system's, where it tells: bytes that were not sent yet, segments
    that the other end has not acknowledged, and bytes that it has.
    """

    buffered: int = 0
    unsent: int = 0
    unacknowledged: int = 0
    acknowledged: int = 0

    @classmethod
    def of(cls, writer: AbstractStreamWriter) -> Self:
        """Look at a connection; at one that is lost, nothing waits any more."""
        transport = writer.transport if isinstance(writer, StreamWriter) else None
        if transport is None:
            return cls()
        buffered = transport.get_write_buffer_size()
        connection = transport.get_extra_info("socket")
        if connection is None or sys.platform != "linux":
            return cls(buffered)
        try:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(told)
        except (OSError, ValueError, struct.error):  # closed by now, or a system that tells less
            return cls(buffered)
        return cls(buffered, unsent, unacknowledged, acknowledged)

    @property
    def is_empty(self) -> bool:
        """Whether all has arrived."""
        return not (self.buffered or self.unsent or self.unacknowledged)


class Line:
    """A connection that takes a body for as long as something moves.

    aiohttp has no limit of its own on writing. One for the whole body, or for each piece of it, would cut off slow
    lines; so it is looked at from time to time whether anything moved. (Over TLS asyncio does not say all that it
    holds, and only the system sees that it moves.) It is gone when something else than itself ended the body early.
    """

    def __init__(self, writer: AbstractStreamWriter, stall_timeout: float) -> None:
        self._writer = writer
        self._stall_timeout = stall_timeout
        self._step = min(1.0, stall_timeout / 10)
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + _STALLS * stall_timeout  # however it moves
        self._seen = _Queue()
        self._transport = writer.transport if isinstance(writer, StreamWriter) else None
        self._limit: asyncio.Timeout | None = None

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._step, self._look)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._timer.cancel()
        # Closing it, as aiohttp does, would go on sending what is in the buffer, for as long as that takes. (What was
        # said on a line that broke by itself may still be read.)
        if self._transport is not None and error is not None and not isinstance(error, ConnectionError):
            self._transport.abort()

    async def send(self, piece: bytes) -> None:
        """Give the connection a piece, and wait until it would take the next.

        Raises:
            TimeoutError: when nothing moved.
        """
        self._ends += len(piece) / SLOWEST
        await self._while_it_moves(self._writer.write(piece))

    async def arrive(self) -> None:
        """Wait until the other end's system has acknowledged all: only then is its silence the server's.

        Our own may have taken megabytes, for which a thin line needs minutes.

        Raises:
            TimeoutError: when nothing moved.
        """
        await self._while_it_moves(self._emptied())

    async def _emptied(self) -> None:
        while not _Queue.of(self._writer).is_empty:  # noqa: ASYNC110 (the system tells only who asks)
            await asyncio.sleep(self._step)

    async def _while_it_moves(self, waiting: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout_at(self._given_up_at()) as self._limit:
                await waiting
        finally:
            self._limit = None

    def _given_up_at(self) -> float:
        return min(self._loop.time() + self._stall_timeout, self._ends)

    def _look(self) -> None:
        before, self._seen = self._seen, _Queue.of(self._writer)
        if self._seen != before and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._given_up_at())
        self._timer = self._loop.call_later(self._step, self._look)


class _HearingSocket(socket.socket):
    """A socket that tells of a broken line only after what the other end had said before could be read.

    A server that refuses a body early and hangs up breaks the line while its words are still unread on this side.
    asyncio throws them away at the first write that fails; told that there is no room to write, it reads first. (And
    what it then tells of the failure has no variable that holds what was to be written, which may be the key.)
    """

    _has_failed = False

    def send(self, *args: Any) -> int:
        try:
            return super().send(*args)
        except ConnectionError:
            self._let_read()
            raise

    def sendmsg(self, *args: Any) -> int:
        try:
            return super().sendmsg(*args)
        except ConnectionError:
            self._let_read()
            raise

    def _let_read(self) -> None:
        # Once: a connection that is being closed is not read any more, and would be written to for ever.
        if not self._has_failed:
            self._has_failed = True
            raise BlockingIOError


def hearing_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket that hears what was said before the line broke; for `aiohttp.TCPConnector`."""
    return _HearingSocket(*address[:3])
