"""The session layer: aiohttp's session, the key, the timeouts, and what each failure means for a request.

An answer comes back as it came, whatever its status; what it means is not decided here. A failure says whether the
server can have the request (`NotSent`: it cannot; `NoAnswer`: it may). No retries.

The key is put into the request line at the last moment (`_KeyedRequest.send`), so that it is in no URL object that a
trace, a log, an exception or a response could show. aiohttp's exceptions are never chained to ours, not even as
context, because their texts hold URLs and headers: so `_exchange` returns failures and never raises them.
"""

import asyncio
import contextlib
import html
import json
import os
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from attrs import field, frozen
from attrs.validators import gt
from multidict import CIMultiDict
from yarl import URL

from springest_async.errors import NoAnswer, NotSent
from springest_async.protocol import Answer

__all__ = ["ApiKey", "Timeouts", "Transport"]

# Lists come in pages of about a hundred records; what is longer than this is no list of ours.
_LONGEST_LIST = 32 * 1024 * 1024
# A POST's answer is an id or a few words; of an error page only the beginning is of use.
_LONGEST_WORDS = 256 * 1024

# A shorter key is a placeholder: taking it out of a list would take it out of people's names too.
_SHORTEST_SECRET = 6

# Bodies above this ask first (Expect: 100-continue), so that an early 400 reaches us instead of a broken pipe.
_ASK_FIRST = 64 * 1024
# How long to wait for the "100 Continue" of a server that may not know it (RFC 9110, section 10.1.1, allows to go on).
_ASK_WAIT = 1.0


@frozen(repr=False)
class ApiKey:
    """An API key that shows itself to nobody: `value` is for the request line only."""

    value: str = field(repr=False)

    def __repr__(self) -> str:
        return "ApiKey('***')"

    __str__ = __repr__

    def added_to(self, url: URL) -> URL:
        """Give the address with the key in its query; whoever holds it must let go of it at once."""
        before = f"{url.raw_query_string}&" if url.raw_query_string else ""
        return URL(f"{url.with_query(None)}?{before}api_key={quote(self.value, safe='')}", encoded=True)

    def hide_in(self, data: bytes) -> bytes:
        """Take the key out of what a server sent back, however it is escaped: error pages like to show the address."""
        if len(self.value) < _SHORTEST_SECRET:
            return data
        return re.sub(b"".join(map(_written, self.value)), b"***", data)


def _written(letter: str) -> bytes:
    """Give a pattern of all ways to write a letter: raw, percent-encoded, and escaped as in HTML, XML and JSON."""
    code = ord(letter)
    forms = {quote(letter, safe=""), html.escape(letter), json.dumps(letter)[1:-1], f"\\{letter}"}
    forms |= {f"&#{code};", f"&#x{code:x};", f"\\u{code:04x}"} | ({"+"} if letter == " " else set())
    escaped = b"|".join(re.escape(form.encode()) for form in sorted(forms - {letter}))
    return b"(?:" + re.escape(letter.encode()) + b"|(?i:" + escaped + b"))"


@frozen(kw_only=True)
class Timeouts:
    """How long to wait, in seconds.

    `connect` is for the connection with TLS, `answer` for each stretch of silence before and in an answer, `stall`
    for a server that stops reading in the middle of a body. There is no limit on a whole upload: a slow line is slow.
    """

    connect: float = field(default=30.0, validator=gt(0))
    answer: float = field(default=120.0, validator=gt(0))
    stall: float = field(default=60.0, validator=gt(0))


class _KeyedRequest(aiohttp.ClientRequest):
    """aiohttp's request, with the key added while the request line is written and taken away right after."""

    key: ApiKey
    begun: Callable[[], None]

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        self.begun()
        if self.method == "POST":
            # What aiohttp pools is up to the server's "Connection" header, and not to ours.
            conn.protocol.force_close()
        plain = self.url
        self.url = self.key.added_to(plain)
        try:
            response = await super().send(conn)
        finally:
            self.url = plain
        if self._continue is not None:
            asyncio.get_running_loop().call_later(_ASK_WAIT, _go_on, self._continue)
        return response

    @property
    def request_info(self) -> RequestInfo:
        return super().request_info._replace(url=self.original_url)

    async def _on_headers_request_sent(self, method: str, url: URL, headers: Any) -> None:
        await super()._on_headers_request_sent(method, self.original_url, headers)

    async def _on_chunk_request_sent(self, method: str, url: URL, chunk: bytes) -> None:
        await super()._on_chunk_request_sent(method, self.original_url, chunk)

    @property
    def connection_key(self) -> ConnectionKey:
        # A reused connection that the server is just closing would put a POST in doubt. A key of their own keeps POSTs
        # from the connections that GETs left in the pool; `send` sees to it that a POST leaves none.
        key = super().connection_key
        return key._replace(proxy_headers_hash=hash("POST")) if self.method == "POST" else key


def _go_on(go_on: "asyncio.Future[bool]") -> None:
    if not go_on.done():
        go_on.set_result(True)


def _nothing() -> None:
    """Nobody wants to know."""


def _ignore(_: int) -> None:
    """Nobody wants to know."""


class Transport:
    """An HTTP session to one origin, opened and closed by ``async with``.

    Args:
        origin: scheme, host and port.
        timeouts: how long to wait for what.
        user_agent: what to call ourselves.
        session: the caller's own session, of which the connector (TLS, proxy, resolver), the headers, the cookies and
            the traces are used; it is not closed.
    """

    def __init__(
        self,
        origin: str,
        *,
        timeouts: Timeouts,
        user_agent: str,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self.origin = origin
        self._timeouts = timeouts
        self._user_agent = user_agent
        self._given = session
        self._session: aiohttp.ClientSession | None = None
        self._ask_first = True

    def __repr__(self) -> str:
        return f"<Transport {self.origin}, {'closed' if self._session is None else 'open'}>"

    async def __aenter__(self) -> Self:
        given = self._given
        headers = CIMultiDict(given.headers if given else ())
        headers["User-Agent"] = self._user_agent
        self._session = aiohttp.ClientSession(
            connector=given.connector if given else aiohttp.TCPConnector(),
            connector_owner=given is None,
            cookie_jar=given.cookie_jar if given else aiohttp.DummyCookieJar(),
            headers=headers,
            trace_configs=given.trace_configs if given else None,
            trust_env=given.trust_env if given else False,
            request_class=_KeyedRequest,
            timeout=aiohttp.ClientTimeout(
                total=None,  # the default, 300 s, cuts long uploads
                sock_connect=self._timeouts.connect,
                sock_read=self._timeouts.answer,
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str, query: Mapping[str, str], key: ApiKey) -> Answer:
        """Ask for a list.

        Raises:
            NotSent: there was no connection.
            NoAnswer: the connection broke before the answer had come whole.
        """
        where = self.where("GET", path)
        answer, failure = await self._exchange("GET", path, key, longest=_LONGEST_LIST, params=query)
        if failure is not None:
            if failure.connected:
                raise NoAnswer(where, failure.reason)
            raise NotSent(where, failure.reason, connected=False)
        assert answer is not None
        if not answer.complete and len(answer.body) < _LONGEST_LIST:
            raise NoAnswer(where, "the connection broke in the middle of the answer")
        return answer

    async def post(
        self,
        path: str,
        body: aiohttp.Payload,
        key: ApiKey,
        *,
        handed_over: Callable[[], bool],
        begun: Callable[[], None] = _nothing,
        answered: Callable[[int], None] = _ignore,
    ) -> Answer:
        """Post a body of a known size, once; `handed_over` tells whether its last byte was given to the connection.

        `answered` is told the status at once when it comes, before the rest of the answer is read: who cancels the
        reading must know whether the certificate is stored.

        (aiohttp's UploadTracker would not do: it calls a body unfinished whose end is still in the connection's
        buffer, from where it may reach the server after all.)

        Raises:
            NotSent: the server cannot have the whole body.
            NoAnswer: it may have, and no answer came.
        """
        where = self.where("POST", path)
        asked = self._ask_first and (body.size or 0) > _ASK_FIRST
        answer, failure = await self._exchange(
            "POST",
            path,
            key,
            longest=_LONGEST_WORDS,
            begun=begun,
            answered=answered,
            data=body,
            # Its type is named here because the headers of a caller's session would go before it.
            headers={"Connection": "close", "Content-Type": body.content_type, "Accept-Encoding": "identity"},
            expect100=asked,
        )
        if failure is not None:
            if handed_over():
                raise NoAnswer(where, failure.reason)
            raise NotSent(where, failure.reason, connected=failure.connected)
        assert answer is not None
        if asked and answer.status == 417:
            self._ask_first = False
            raise NotSent(where, "the server does not know “Expect: 100-continue” (417)")
        if handed_over():
            return answer
        if answer.status == 408 or answer.status >= 500:
            raise NotSent(where, f"the server answered {answer.status} before it had the whole certificate")
        return answer

    def where(self, method: str, path: str) -> str:
        """Name a request for a person: method and address, without the query."""
        return f"{method} {self.origin}{path}"

    async def _exchange(
        self,
        method: str,
        path: str,
        key: ApiKey,
        *,
        longest: int,
        expect100: bool = False,
        begun: Callable[[], None] = _nothing,
        answered: Callable[[int], None] = _ignore,
        **options: Any,
    ) -> tuple[Answer | None, "_Failure | None"]:
        """Send one request and read its answer. A failure is returned, so that it is raised outside of ``except``."""
        if self._session is None:
            raise RuntimeError("the session is closed: use it inside `async with`")

        async def as_ours(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            assert isinstance(request, _KeyedRequest)
            request.key, request.begun = key, begun
            return await handler(request)

        try:
            async with self._session.request(
                method,
                URL(self.origin + path, encoded=True),
                allow_redirects=False,
                expect100=expect100,
                middlewares=(as_ours,),
                **options,
            ) as response:
                answered(response.status)
                body, complete = await _read(response, longest)
                return Answer(response.status, response.headers.copy(), key.hide_in(body), complete), None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return None, _Failure.of(error)


async def _read(response: aiohttp.ClientResponse, longest: int) -> tuple[bytes, bool]:
    """Read a body up to a bound. One that breaks off is no failure: its status has told already what happened."""
    body = bytearray()
    with contextlib.suppress(aiohttp.ClientError, OSError):
        while len(body) < longest:
            piece = await response.content.read(longest - len(body))
            if not piece:
                return bytes(body), True
            body += piece
    return bytes(body), False


@frozen
class _Failure:
    """Why there is no answer, in words of our own: aiohttp's hold addresses and headers."""

    reason: str
    connected: bool = True

    @classmethod
    def of(cls, error: Exception) -> Self:
        match error:
            case aiohttp.ClientConnectorDNSError():
                return cls("the host's name cannot be resolved", connected=False)
            case aiohttp.ClientConnectorCertificateError():
                told = getattr(error.certificate_error, "verify_message", "") or "not valid for this host"
                return cls(f"the server's TLS certificate is not trusted: {told}", connected=False)
            case aiohttp.ClientSSLError():
                return cls("no TLS connection could be made", connected=False)
            case aiohttp.ConnectionTimeoutError():
                return cls("no connection within the time allowed", connected=False)
            case aiohttp.ClientConnectorError():
                return cls(f"no connection: {_system_words(error.os_error)}", connected=False)
            case aiohttp.ServerTimeoutError():
                return cls("no answer within the time allowed")
            case aiohttp.ServerDisconnectedError():
                return cls("the server closed the connection without an answer")
            case aiohttp.ClientResponseError():
                # aiohttp gives this a status of its own (400): it is no answer of the server's.
                return cls("the answer is not HTTP, or too long in its headers")
            case TimeoutError():
                return cls("the server stopped reading")
            case aiohttp.ClientOSError() | OSError():
                return cls(f"the connection broke: {_system_words(error)}")
            case _:
                return cls("the connection broke")


def _system_words(error: OSError) -> str:
    # Not `strerror`: aiohttp and asyncio write addresses into it.
    return os.strerror(error.errno) if error.errno else "lost"
