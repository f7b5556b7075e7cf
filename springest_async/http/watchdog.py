"""A watchdog for one request: it ends what stands still, however much time a slow line takes that moves.

aiohttp has no limit of its own on writing a body, and one for the whole body, or for each piece of it, would cut off
slow lines. So one timer looks from time to time whether anything moved. The system's sockets know that, and neither
asyncio nor aiohttp asks them. This module knows neither files nor requests.
"""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, Self

import aiohttp
from attrs import define, frozen

# A line that stays below this for more than a few times the stall timeout nearly stands still: a server that takes one
# byte a minute must not hold a connection and a token of the limit for ever.
_SLOWEST_BODY = 1024
"""Bytes a second."""
_STALLS = 5

# Of Linux's `struct tcp_info`: segments not acknowledged, bytes acknowledged, and bytes not sent yet.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")


@define(eq=False)
class Progress:
    """How far a body has got.

    Attributes:
        transport: the connection that it is written to; None before its first byte.
        socket: of that connection, where asyncio shows it. (A TLS transport that is closed no longer does.)
        bytes_given: how many bytes of it were given to the connection.
        reading: whether it waits for its file now, for which no line is to blame.
        fully_written: whether its last byte was given to the connection, so that the server may have all of it.
    """

    transport: asyncio.Transport | None = None
    socket: Any = None
    bytes_given: int = 0
    reading: bool = False
    fully_written: bool = False

    def begin(self, transport: asyncio.Transport | None) -> None:
        """Note the connection of the body."""
        self.transport = transport
        self.socket = transport.get_extra_info("socket") if transport is not None else None

    @property
    def has_unsent(self) -> bool:
        """Whether something of it that was given to the connection has not left this machine."""
        return self.transport is not None and _SendQueue.of(self.transport, self.socket).has_unsent

    def reset(self) -> None:
        """Break the connection, so that nothing more of the body arrives.

        Closing it, as aiohttp does, goes on sending what is in the buffers, for as long as that takes; and aborting it
        leaves to the system what the system has taken already.
        """
        if self.transport is None:
            return
        if self.socket is not None:
            with suppress(OSError, ValueError):  # it is closed by now; uvloop says so with a ValueError
                linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


@frozen
class _SendQueue:
    """What of a body is still on this machine, in the order in which it leaves, and how much has arrived.

    Attributes:
        buffered: bytes that asyncio holds.
        unsent: bytes that the system has not sent yet, where it tells.
        unacknowledged: segments that the other end has not acknowledged.
        acknowledged: bytes that it has.
    """

    buffered: int = 0
    unsent: int = 0
    unacknowledged: int = 0
    acknowledged: int = 0

    @classmethod
    def of(cls, transport: asyncio.Transport, connection: Any) -> Self:
        """Return the state of a connection; asyncio tells nothing of one that is closing."""
        buffered = 0 if transport.is_closing() else transport.get_write_buffer_size()
        if connection is None or sys.platform != "linux":
            return cls(buffered)
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            unacknowledged, acknowledged, unsent = _TCP_INFO.unpack(info)
        except (OSError, ValueError, struct.error):  # closed by now, or a system that tells less
            return cls(buffered)
        return cls(buffered, unsent, unacknowledged, acknowledged)

    @property
    def has_unsent(self) -> bool:
        """Whether something has not left this machine."""
        return self.buffered > 0 or self.unsent > 0

    @property
    def is_empty(self) -> bool:
        """Whether all has arrived."""
        return not (self.buffered or self.unsent or self.unacknowledged)


def has_unsent(transport: asyncio.Transport) -> bool:
    """Return whether something that was written to a connection has not left this machine."""
    return _SendQueue.of(transport, transport.get_extra_info("socket")).has_unsent


class Watchdog:
    """A timer that ends a request of which nothing moves any more, or whose answer does not begin in time.

    Usage::

        async with asyncio.timeout(None) as limit:
            with Watchdog(limit, stall_timeout=60.0, answer_timeout=120.0, progress=body.progress) as watchdog:
                ...  # calls watchdog.start() when the request leaves, and ends when the answer begins

    Args:
        limit: what it lets expire.
        stall_timeout: seconds within which something of the body must move.
        answer_timeout: seconds within which the answer must begin. They count from the moment when all of the request
            has arrived, as far as the system can tell: our side may have buffered megabytes, for which a thin line
            needs minutes.
        progress: of the body; None for a request without one.

    Attributes:
        verdict: why it ended the request, in words; empty while it has not.
    """

    def __init__(
        self, limit: asyncio.Timeout, *, stall_timeout: float, answer_timeout: float, progress: Progress | None
    ) -> None:
        self.verdict = ""
        self._limit = limit
        self.stall_timeout = stall_timeout
        self._answer_timeout = answer_timeout
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._step = min(1.0, stall_timeout / 10, answer_timeout / 10)
        self._seen: tuple[int, _SendQueue] | None = None
        self._checked_at = self._moved_at = self._gives_up_at = 0.0
        self._arrived_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is not None and self._progress is not None:
            self._progress.reset()  # what was given up must not arrive later

    def start(self) -> None:
        """Begin to watch: the request leaves now."""
        self._checked_at = self._moved_at = self._loop.time()
        self._gives_up_at = self._moved_at + _STALLS * self.stall_timeout
        self._arrived_at = self._moved_at if self._progress is None else None
        self._timer = self._loop.call_later(self._step, self._check)

    def stop(self) -> None:
        """Stop watching, until it is started again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        now = self._loop.time()
        if self._arrived_at is None and self._progress is not None:
            self._look_at(self._progress, now)
        if self._arrived_at is not None:
            due, verdict = self._arrived_at + self._answer_timeout, "no answer within the time allowed"
        else:
            due, verdict = min(self._moved_at + self.stall_timeout, self._gives_up_at), "the upload stopped moving"
        self._checked_at = now
        if now < due:
            self._timer = self._loop.call_later(min(self._step, due - now), self._check)
        else:
            self.verdict = verdict
            self._limit.reschedule(now)

    def _look_at(self, progress: Progress, now: float) -> None:
        queue = _SendQueue() if progress.transport is None else _SendQueue.of(progress.transport, progress.socket)
        if progress.fully_written and queue.is_empty:
            self._arrived_at = now
        before, self._seen = self._seen, (progress.bytes_given, queue)
        given_before = before[0] if before else 0
        self._gives_up_at += (progress.bytes_given - given_before) / _SLOWEST_BODY
        if progress.reading:
            self._gives_up_at += now - self._checked_at
        if progress.reading or before != self._seen:
            self._moved_at = now


class _ReadingSocket(socket.socket):
    """A socket that reports a broken connection only after what the other end sent before could be read.

    A server that refuses a body early and hangs up breaks the connection while its answer is still unread on this side.
    asyncio throws that away at the first write that fails. If it hears instead that there is no room to write, it reads
    first. (And its error then has no variable with what was to be written, which may be the key.)
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


def reading_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket with which an answer is read before a broken connection is reported; for `TCPConnector`."""
    return _ReadingSocket(*address[:3])
