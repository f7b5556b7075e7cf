"""Lines that break, at every interesting place of a request and of an answer, and lines that are merely bad."""

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from typing import get_args

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import evolve, frozen

from springest_async.sandbox import Sandbox
from tests.integration.wire import PATIENT, small_socket

from .catalogue import KEY, SMALL, Fault, Happening, Outcome, World
from .proxy import Cut, Direction, Line, fault_proxy

__all__ = ["FAULTS"]

# Of each buffer, so that a large certificate is far from sent when its beginning passes the proxy.
_BUFFER = 16 * 1024
# It asks first, leaves in two pieces, and is more than all those buffers hold.
_LARGE = 1_060_000


def _over(*lines: Line) -> Happening:
    """Put these lines before a sandbox, for its connections in turn; the last one is for all that follow."""

    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with (
            Sandbox(api_key=KEY) as sandbox,
            fault_proxy(sandbox.origin, *(evolve(line, buffer=_BUFFER) for line in lines)) as proxy,
            aiohttp.TCPConnector(socket_factory=partial(small_socket, _BUFFER), keepalive_timeout=1) as connector,
        ):
            yield World(
                proxy.origin,
                lambda: sandbox.summary().stored,
                {"connector": connector},
                posts=lambda: proxy.connections,
            )
            assert bool(proxy.cuts) == any(line.is_cut for line in lines)

    return happens


# --- lines that break ---


@frozen
class _Place:
    """A place of a request (`up`) or of its answer: so many bytes behind the words that are looked for there."""

    name: str
    up: bool
    behind: bytes = b""
    by: int = 0

    def line(self, cut: Cut) -> Line:
        """Return a line that is cut here."""
        direction = Direction(cut_after=self.by, counted_from=self.behind, cut=cut)
        return Line(up=direction) if self.up else Line(down=direction)


_FILE = b"Content-Type: application/pdf\r\n\r\n"
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_EPILOGUE = len("\r\n--" + 32 * "x" + "--\r\n")


def _beginning(size: int) -> tuple[_Place, ...]:
    """Return the places at which a large certificate cannot have left whole yet."""
    return (
        _Place("within the request line", True, b"POST /users"),
        _Place("within the headers", True, b"\r\nContent-Len"),
        _Place("within the fields", True, b'name="email"'),
        _Place("at the file's first byte", True, _FILE),
        _Place("in its middle", True, _FILE, size // 2),
    )


def _end(size: int) -> tuple[_Place, ...]:
    """Return the places at which it has left, and its answer is not known yet."""
    return (
        _Place("at the file's last byte", True, _FILE, size - 1),
        _Place("before the epilogue's last byte", True, _FILE, size + _EPILOGUE - 1),
        _Place("after the whole request", False, _GO_ON if size == _LARGE else b""),
        _Place("within the answer's status line", False, b"HTTP/1.1 2"),
        _Place("within its headers", False, b"201 Created\r\nContent-"),
    )


_IN_THE_ANSWERS_BODY = _Place("within its body", False, b'{"')
_IN_THE_WORD_TO_GO_ON = _Place("within the word to go on (100)", False, b"HTTP/1.1 1")

_CUTS: tuple[Cut, ...] = get_args(Cut)
_STORED_AT_ONCE = Outcome("stored", 1)
_STORED_THE_SECOND_TIME = Outcome("stored", 2)


def _in_doubt(cut: Cut) -> Outcome:
    """Return what follows when all has left, by what the client sees of a cut: a FIN, a RST, or nothing."""
    told = {
        "closed": "the server closed the connection without an answer",
        "reset": "the connection broke: Connection reset by peer",
        "half closed": "the server closed the connection without an answer",
        "silent": "no answer within the time allowed",
    }
    return Outcome("in doubt", 1, "InDoubt", told[cut])


def _not_sent(told: str) -> Outcome:
    return Outcome("not stored", 4, "NotSent", f"POST …: {told}")


def _once(places: Iterable[_Place], cuts: Iterable[Cut] = _CUTS) -> dict[str, Happening]:
    """Cut the first connection at each of these places in each of these ways; the next one is good."""
    return {f"{cut} {place.name}": _over(place.line(cut), Line()) for place, cut in product(places, cuts)}


def _breaking() -> Iterable[Fault]:
    # A small certificate leaves with its headers at once: wherever the line breaks, the server may have all of it.
    for cut in _CUTS:
        yield Fault(
            name=f"a small certificate's connection is {cut} anywhere before the answer's headers are whole",
            happens=_once((*_beginning(SMALL), *_end(SMALL)), [cut]),
            expected=_in_doubt(cut),
        )
    yield Fault(
        name="a small certificate's connection is closed, reset, half closed or silent within the answer's body",
        happens=_once([_IN_THE_ANSWERS_BODY]),
        expected=_STORED_AT_ONCE,
    )
    yield Fault(
        name="a large certificate's connection is closed, reset or half closed within the word to go on (100)",
        happens=_once([_IN_THE_WORD_TO_GO_ON], ["closed", "reset", "half closed"]),
        expected=_STORED_THE_SECOND_TIME,
        size=_LARGE,
    )
    yield Fault(
        name="a large certificate's connection is silent from within the word to go on (100)",
        # After a second the certificate goes without the word, and its answer never comes.
        happens=_over(_IN_THE_WORD_TO_GO_ON.line("silent")),
        expected=_in_doubt("silent"),
        size=_LARGE,
    )
    yield Fault(
        name="a large certificate's connection is cut in any of these ways anywhere up to the file's middle",
        happens=_once(_beginning(_LARGE)),
        expected=_STORED_THE_SECOND_TIME,
        size=_LARGE,
    )
    for cut in _CUTS:
        yield Fault(
            name=f"a large certificate's connection is {cut} from the file's last byte to the answer's headers",
            happens=_once(_end(_LARGE), [cut]),
            expected=_in_doubt(cut),
            size=_LARGE,
        )
    yield Fault(
        name="a large certificate's connection is closed, reset, half closed or silent within the answer's body",
        happens=_once([_IN_THE_ANSWERS_BODY]),
        expected=_STORED_AT_ONCE,
        size=_LARGE,
    )
    middle = _Place("in the file's middle", True, _FILE, _LARGE // 2)
    yield Fault(
        name="each connection is reset in the middle of a large certificate",
        happens=_over(middle.line("reset")),
        expected=_not_sent("the connection broke: Connection reset by peer"),
        size=_LARGE,
    )
    yield Fault(
        name="each connection is silent from the middle of a large certificate",
        happens=_over(middle.line("silent")),
        expected=_not_sent("the upload stopped moving"),
        size=_LARGE,
    )


# --- lines that are merely bad ---


class _Moves(AbstractResolver):
    """A name that stands for one port for so many `times`, and for another one after that."""

    def __init__(self, first: int, times: int, then: int) -> None:
        self.first, self.times, self.then = first, times, then

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.times -= 1
        port = self.first if self.times >= 0 else self.then
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Close nothing."""


def _refused(times: int) -> Happening:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with Sandbox(api_key=KEY) as sandbox:
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))  # and nobody listens
                moves = _Moves(nobody.getsockname()[1], times, int(sandbox.origin.rpartition(":")[2]))
                async with aiohttp.TCPConnector(resolver=moves, use_dns_cache=False) as connector:
                    yield World("http://localhost", lambda: sandbox.summary().stored, {"connector": connector})

    return happens


_SILENT = Direction(cut_after=0, cut="silent")
_LATE = Direction(latency=0.2)
_IN_BYTES = Direction(piece=1)
_THIN = Direction(bandwidth=66_000, piece=8192)

FAULTS = (
    Fault(name="nothing", happens=_over(Line()), expected=_STORED_AT_ONCE),
    *_breaking(),
    Fault(
        name="nothing of a small certificate's first connection passes",
        happens=_over(Line(up=_SILENT), Line()),
        expected=_in_doubt("silent"),
    ),
    Fault(
        name="nothing of a large certificate's first connection passes",
        happens=_over(Line(up=_SILENT), Line()),
        expected=_STORED_THE_SECOND_TIME,
        size=_LARGE,
    ),
    Fault(name="the first connection is refused", happens=_refused(1), expected=_STORED_THE_SECOND_TIME),
    Fault(
        name="each connection is refused",
        happens=_refused(100),
        expected=_not_sent("no connection: Connection refused"),
    ),
    Fault(
        name="a line of 0.2 s each way",
        happens=_over(Line(up=_LATE, down=_LATE)),
        expected=_STORED_AT_ONCE,
    ),
    Fault(
        name="a line that carries byte by byte, both ways",
        happens=_over(Line(up=_IN_BYTES, down=_IN_BYTES)),
        expected=_STORED_AT_ONCE,
        size=5_000,
    ),
    Fault(
        name="a line so thin that the certificate takes three times as long as any silence may",
        happens=_over(Line(up=_THIN)),
        timeouts=evolve(PATIENT, stall=1.5),
        expected=_STORED_AT_ONCE,
        size=300_000,
    ),
)
