"""aiohttp's request and response, with the key nowhere but in the request line while it is written.

What a trace, a log, an exception or a traceback can show of them is without it, and without what a server says of it.
Here is also what must be otherwise than in aiohttp on the connection of a request: how long to wait for the leave to
send a body and for the beginning of an answer, and which connections may be used again.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from springest_async.http.api_key import ApiKey

__all__ = ["KeyedRequest", "KeyedResponse"]

# How long to wait for the "100 Continue" of a server that may not know it (RFC 9110, section 10.1.1, allows to go on).
_ASK_WAIT = 1.0

_END_OF_HEAD = b"\r\n\r\n"
_INTERIM = b"HTTP/1.1 1"


class _KeyedUrl:
    """Stands in for a request's address while aiohttp makes the request line of it, and has the key there only."""

    def __init__(self, plain: URL, key: ApiKey) -> None:
        self._plain = plain
        self._key = key

    def __repr__(self) -> str:
        return repr(self._plain)

    def __str__(self) -> str:
        return str(self._plain)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    @property
    def raw_path_qs(self) -> str:
        return self._key.added_to(self._plain.raw_path_qs)


class KeyedRequest(aiohttp.ClientRequest):
    """aiohttp's request, with the key added while the request line is written and taken away right after.

    `begun` is called when the first byte may leave.
    """

    key: ApiKey
    begun: Callable[[], None]
    _patience: asyncio.TimerHandle | None = None

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Write the request, on a connection on which nothing was said before."""
        # Traces are told here, and not by aiohttp, in whose frames the request line is then.
        await super()._on_headers_request_sent(self.method, self.url, self.headers)
        if conn.protocol.should_close:
            # What came while the connection was idle would be taken for the answer to this request. aiohttp gives it up
            # and asks on another one.
            raise aiohttp.ServerDisconnectedError
        self.begun()
        if self.method == "POST":
            # What aiohttp pools is up to the server's "Connection" header, and not to ours.
            conn.protocol.force_close()
        conn.protocol.data_received = _Incoming(conn.protocol)
        plain = self.url
        self.url = cast(URL, _KeyedUrl(plain, self.key))
        try:
            response = await super().send(conn)
        except BaseException as error:
            _bare(error)
            raise
        finally:
            self.url = plain
        assert isinstance(response, KeyedResponse)
        response.key, response.came = self.key, self._have_an_answer
        if self._continue is not None:
            asyncio.get_running_loop().call_later(_ASK_WAIT, _go_on, self._continue)
        if self.method == "GET":
            self._expect_an_answer(conn.protocol)
        return response

    async def write_bytes(self, writer: Any, conn: Any, content_length: int | None = None) -> None:
        """Write the body; the time for the answer begins behind it."""
        protocol = conn.protocol
        try:
            await super().write_bytes(writer, conn, content_length)
        except (aiohttp.ClientError, OSError):
            # The connection is closed by now, which tells whoever waits for the answer. What is raised here nobody
            # fetches, so that asyncio would tell it to all who listen, with the request line in its frames.
            return
        self._expect_an_answer(protocol)

    def _expect_an_answer(self, protocol: Any) -> None:
        # aiohttp's own clock stops at an interim answer (1xx), behind which a server may be silent for ever.
        if self.response is not None and self.response.status is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(
                protocol.read_timeout, protocol.set_exception, aiohttp.SocketTimeoutError()
            )

    def _have_an_answer(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    @property
    def request_info(self) -> RequestInfo:
        """What exceptions and responses keep of the request."""
        return super().request_info._replace(url=self.original_url)

    async def _on_headers_request_sent(self, method: str, url: URL, headers: Any) -> None:
        """Tell nobody: they know already."""

    async def _on_chunk_request_sent(self, method: str, url: URL, chunk: bytes) -> None:
        await super()._on_chunk_request_sent(method, self.original_url, chunk)

    @property
    def connection_key(self) -> ConnectionKey:
        """Which connections of the pool will do."""
        # A reused connection that the server is just closing would put a POST in doubt. A key of their own keeps POSTs
        # from the connections that GETs left in the pool; `send` sees to it that a POST leaves none.
        key = super().connection_key
        return key._replace(proxy_headers_hash=hash("POST")) if self.method == "POST" else key


class KeyedResponse(aiohttp.ClientResponse):
    """aiohttp's response, but for the key: servers like to say what they were asked for."""

    key: ApiKey
    came: Callable[[], None]

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the head of the answer."""
        try:
            await super().start(connection)
        except BaseException as error:
            _bare(error)
            raise
        finally:
            self.came()
        said = b"\n".join(
            (*chain.from_iterable(self._raw_headers), (self.reason or "").encode("utf-8", "surrogateescape"))
        )
        if self.key.hide_in(said) != said:
            self._hide_key()
        return self

    def _hide_key(self) -> None:
        self.reason = self._hidden(self.reason or "")
        self._raw_headers = tuple(
            (self.key.hide_in(name), self.key.hide_in(value)) for name, value in self._raw_headers
        )
        self._cache.clear()  # aiohttp keeps there what it has made of them
        headers = ((self._hidden(name), self._hidden(value)) for name, value in self._headers.items())
        self._headers = CIMultiDictProxy(CIMultiDict(headers))
        self._raw_cookie_headers = tuple(map(self._hidden, self._raw_cookie_headers or ())) or None

    def _hidden(self, text: str) -> str:
        return self.key.hide_in(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


class _Incoming:
    """Gives each head of an answer to aiohttp by itself: of a piece with an error in it aiohttp forgets all the rest.

    So the status counts, whatever is wrong behind it, and wherever the network divides the answer. A body that is not
    whole by then breaks off there: aiohttp would have its reader wait for more.
    """

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = protocol
        self._head_is_due = True
        self._first = self._last = b""  # bytes of a head that has not come whole

    def __call__(self, data: bytes) -> None:
        protocol = self._protocol
        failure = protocol.exception()
        for piece in self._pieces(data):
            if not protocol.is_connected():  # which aiohttp ends when a head is none
                break
            ResponseHandler.data_received(protocol, piece)
        body = protocol._payload  # noqa: SLF001 (there is no other way to it)
        if protocol.exception() is not failure and body is not None and not body.is_eof():
            body.set_exception(aiohttp.ClientPayloadError())

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while self._head_is_due and (end := (self._last + data).find(_END_OF_HEAD)) >= 0:
            size = end + len(_END_OF_HEAD) - len(self._last)
            self._head_is_due = (self._first + data).startswith(_INTERIM)
            self._first = self._last = b""
            yield data[:size]
            data = data[size:]
            if not data:
                return
        self._first = (self._first + data)[: len(_INTERIM)]
        self._last = (self._last + data)[1 - len(_END_OF_HEAD) :]
        yield data  # also if it is empty, with which aiohttp has itself go on decompressing


def _bare(error: BaseException) -> None:
    """Take from what aiohttp raises all that can show the key: what the server said, the frames, and the causes."""
    match error:
        case aiohttp.ClientResponseError():
            error.message, error.headers = "", None
        case aiohttp.ServerDisconnectedError():
            error.__init__()  # type: ignore[misc] # its argument is half an answer
    error.__cause__ = error.__context__ = error.__traceback__ = None


def _go_on(go_on: "asyncio.Future[bool]") -> None:
    if not go_on.done():
        go_on.set_result(True)
