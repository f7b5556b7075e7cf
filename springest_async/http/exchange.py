"""One request and its answer: how far it has got, the key in its request line, and what is read of the answer.

An `Exchange` belongs to one try. aiohttp calls it, through a client middleware and a class of requests, when the
request is made and when it leaves. Which connection it takes, and what a failure means, is decided by `transport`.

The key is in no URL that a log, an exception or a response could show: the middleware puts a stand-in for the URL where
aiohttp reads the request line from, and that returns the key only the first time.
"""

import asyncio
import contextlib
import io
import zlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.http import HttpProcessingError
from attrs import define, field
from multidict import CIMultiDict
from yarl import URL

from springest_async.api.protocol import Answer
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.watchdog import Watchdog

REQUEST_ID = "X-Request-Id"
"""The header in which a Rails site takes a client's id of a request, logs it, and sends it back."""

_MAX_REQUEST_ID_CHARS = 255  # of Rails

MAX_POST_ANSWER_BYTES = 256 * 1024
"""A POST's answer is an id or a few words; of an error page only the beginning is of use."""

# In bytes a second: an answer that comes more slowly for long is meant to hold us up.
_SLOWEST_ANSWER = 1024

# How long to wait for the "100 Continue" of a server that may not know it (RFC 9110, section 10.1.1, allows to go on).
_ASK_WAIT = 1.0


async def at_once() -> None:
    """Return at once."""


class QuietRequest(aiohttp.ClientRequest):
    """A request that says when it leaves, and fails as others do when its connection breaks before its body is written.

    aiohttp leaves a failed task behind. asyncio would log it, and log handlers that show variables would show the head
    of the request, with the key. From Python 3.12 on, where the task begins at once, aiohttp then fails with an
    AttributeError as well.

    Attributes:
        exchange: what it belongs to.
        reused: whether its connection was used before.
    """

    exchange: "Exchange"
    reused = False

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request."""
        self.exchange.on_leaving()
        response = await super().send(conn)
        if conn.protocol is None:
            raise aiohttp.ServerDisconnectedError
        return response

    async def write_bytes(self, *args: Any, **options: Any) -> None:
        """Write the body."""
        # aiohttp has closed the connection by now, which ends the wait for the answer.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await super().write_bytes(*args, **options)


@define(eq=False)
class Exchange:
    """One request and its answer: what is known of them at any moment. Each try of a POST has one of its own.

    Attributes:
        method: ``"GET"`` or ``"POST"``.
        path: the path of the address.
        key: the key that is added to its query.
        query: the rest of the query.
        body: of a POST.
        request_id: of a POST, which Springest's staff can find it by: it is sent as ``X-Request-Id``.
        before_resending: awaited before aiohttp sends a GET once more by itself.
        headers_sent: whether a byte of it can have left.
        watchdog: started when it leaves.
        reused: whether its connection was used before.
        status: the status of the answer, as soon as its head has come.
    """

    method: str
    path: str
    key: ApiKey
    query: Mapping[str, str] = field(factory=dict)
    body: CertificateBody | None = None
    request_id: str = ""
    before_resending: Callable[[], Awaitable[None]] = at_once
    headers_sent: bool = field(default=False, init=False)
    reused: bool = field(default=False, init=False)
    status: int | None = field(default=None, init=False)
    watchdog: Watchdog | None = field(default=None, init=False)
    _go_ahead: Callable[[], None] | None = field(default=None, init=False)
    _ask_timer: asyncio.TimerHandle | None = field(default=None, init=False)
    # Not in a local variable, which a traceback may show: the server may have sent the key back.
    _response: aiohttp.ClientResponse | None = field(default=None, init=False, repr=False)

    @property
    def fully_written(self) -> bool:
        """Whether the last byte was given to the connection, so that the server may have all of it."""
        return self.body is not None and self.body.progress.fully_written

    @property
    def written_at(self) -> datetime | None:
        """When the last byte was given to the connection (UTC), if it was."""
        return self.body.written_at if self.body else None

    @property
    def server_date(self) -> str:
        """The ``Date`` of the answer, or an empty text."""
        return self._header("Date")

    @property
    def server_request_id(self) -> str:
        """The ``X-Request-Id`` of the answer, shortened, or an empty text."""
        return self._header(REQUEST_ID)[:_MAX_REQUEST_ID_CHARS]

    @property
    def left(self) -> bool:
        """Whether the server can know of it."""
        return self.headers_sent or self.status is not None  # mocks of aiohttp answer what never left

    def _header(self, name: str) -> str:
        text = self._response.headers.get(name, "") if self._response else ""
        return self.key.hide_in(text.encode(errors="replace")).decode(errors="replace")

    async def send_with_key(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request with the key in its request line; a client middleware of aiohttp's."""
        assert isinstance(request, QuietRequest)
        request.exchange = self
        if self.headers_sent and self.watchdog is not None:
            self.watchdog.stop()
            await self.before_resending()
        keyed = KeyedUrl(request.url, self.key)
        request.url = cast(URL, keyed)
        self._go_ahead = _go_ahead_of(request)
        try:
            return await handler(request)
        except BaseException as error:
            strip(error)
            raise
        finally:
            keyed.drop_key()
            self.reused = request.reused

    def on_leaving(self) -> None:
        """Note that the request leaves: right before its first byte does.

        Raises:
            SendingForbidden: when its body may not be sent; then nothing leaves.
        """
        assert self.watchdog is not None
        if self.body is not None:
            self.body.check_may_send()
        self.headers_sent = True
        self.watchdog.start()
        if self._go_ahead is not None:
            wait = min(_ASK_WAIT, self.watchdog.stall_timeout / 2)  # which must not look like standing still
            self._ask_timer = asyncio.get_running_loop().call_later(wait, self._go_ahead)

    def on_response(self, response: aiohttp.ClientResponse) -> None:
        """Note that the head of the answer has come."""
        self._response = response
        self.status = response.status

    async def read(self, max_bytes: int, patience: float) -> Answer:
        """Read the body of the answer up to a bound, and take the key out of all that the server said.

        An answer that breaks off is no failure: its status says already what happened. One that is silent for
        `patience` seconds counts as broken off, and so does one that trickles: it has that long, and more only in
        proportion to what has come.
        """
        assert self._response is not None
        content = self._response.content
        body = io.BytesIO()  # whose repr does not show it, for the same reason as the response
        complete = False
        now = asyncio.get_running_loop().time
        gives_up_at = now() + patience
        with contextlib.suppress(aiohttp.ClientError, OSError, HttpProcessingError):  # the last is aiohttp's parser's
            if content.is_eof():  # it has come whole, with its head
                body.write(content.read_nowait(max_bytes))
                complete = content.at_eof()
            while (length := body.tell()) < max_bytes and not complete:
                async with asyncio.timeout_at(min(now() + patience, gives_up_at + length / _SLOWEST_ANSWER)):
                    complete = body.write(await content.read(max_bytes - length)) == 0
        compressed = self.method == "POST" and "Content-Encoding" in self._response.headers
        return Answer(
            self._response.status,
            self._answer_headers(),
            self.key.hide_in(_decompressed(body.getvalue()) if compressed else body.getvalue()),
            complete=complete,
            too_long=not complete and body.tell() >= max_bytes,  # what hides a key is shorter than the key
        )

    def _answer_headers(self) -> CIMultiDict[str]:
        assert self._response is not None
        raw = b"\n".join(chain.from_iterable(self._response.raw_headers))
        if self.key.hide_in(raw) == raw:
            return self._response.headers.copy()
        return CIMultiDict(
            (self.key.hide_in(name).decode(errors="replace"), self.key.hide_in(value).decode(errors="replace"))
            for name, value in self._response.raw_headers
        )

    def close_file(self) -> None:
        """Close the file of a body that nothing has begun to write."""
        if self.body is not None:
            self.body.close_file()

    async def close(self) -> None:
        """Close the response, stop the timers, and wait until nothing writes the body."""
        self.watchdog = self._go_ahead = None
        if self._ask_timer is not None:
            self._ask_timer.cancel()
        if self.body is not None and self.body.progress.has_unsent:
            # It was answered early. Its connection may be in the pool, and the next request would wait behind it; or it
            # is closed now, and what asyncio holds of it would still go out. Closed, it does not tell what it holds.
            self.body.progress.reset()
        if self._response is not None:
            # Not `async with response`: it cancels the writer of a body and awaits it, and if this task was ever
            # cancelled before, it takes that CancelledError for one of the caller's. Closing awaits nothing; a
            # connection whose answer was read to its end is in the pool by now, and is left there.
            self._response.close()
        if self.body is not None:
            await self.body.wait_written()


class AddedToTarget(Protocol):
    """A secret that belongs into the request line."""

    @property
    def added_to(self) -> Callable[[str], str]:
        """Return the target of a request with the secret in it."""


class KeyedUrl:
    """A stand-in for a request's address. It returns the key only the first time that the request line is built.

    So traces, exceptions and ``repr`` show the address without it.
    """

    def __init__(self, plain: URL, key: AddedToTarget) -> None:
        self._plain = plain
        self._key: AddedToTarget | None = key

    def __repr__(self) -> str:
        return repr(self._plain)

    def __str__(self) -> str:
        return str(self._plain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def __reduce__(self) -> tuple[type[URL], tuple[str]]:
        return URL, (str(self._plain),)  # a copy has no key, and no need to stand in for anything

    def drop_key(self) -> None:
        """Return the key no more."""
        self._key = None

    @property
    def raw_path_qs(self) -> str:
        """The path and the query, with the key the first time."""
        key, self._key = self._key, None
        return self._plain.raw_path_qs if key is None else key.added_to(self._plain.raw_path_qs)


def _go_ahead_of(request: aiohttp.ClientRequest) -> Callable[[], None] | None:
    """Return a function that lets a request that asked first (``Expect: 100-continue``) send its body unasked.

    aiohttp waits for the server's word for ever, and has no public way to end that.
    """
    word = request._continue  # noqa: SLF001 (the one private name of aiohttp's: see the docstring)
    if word is None:
        return None

    def go_ahead() -> None:
        if not word.done():
            word.set_result(True)

    return go_ahead


def strip(error: BaseException) -> None:
    """Remove from an exception of aiohttp's what the server said, and all frames: one of them has the request line."""
    match error:
        case aiohttp.ClientResponseError():
            error.message, error.headers = "", None
        case aiohttp.ServerDisconnectedError():
            error.message, error.args = "", ()  # half an answer
    error.__cause__ = error.__context__ = error.__traceback__ = None


def _decompressed(body: bytes) -> bytes:
    """Undo gzip or deflate, for a server that compresses although it was asked not to; a bomb only up to a bound."""
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, MAX_POST_ANSWER_BYTES)
    except zlib.error:
        return body
