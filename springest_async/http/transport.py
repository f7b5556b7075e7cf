"""The session layer: aiohttp's session, the key, the timeouts, and what each failure means for a request.

An answer comes back as it came, whatever its status; what it means is not decided here. A failure says whether the
server can have the request (`NotSent`: it cannot; `NoAnswer`: it may). No retries.

The key is in no URL that a trace, a log, an exception or a response could show: `keyed` adds it while the request line
is written. aiohttp's exceptions are never chained to ours, not even as context, because their texts hold URLs and
headers: so `_exchange` returns failures and never raises them.
"""

import asyncio
import contextlib
import io
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.http import HttpProcessingError
from attrs import field, frozen
from attrs.validators import and_, gt, le
from multidict import CIMultiDict
from yarl import URL

from springest_async.api.protocol import Answer
from springest_async.errors import ConfigurationError, NoAnswer, NotSent
from springest_async.http.api_key import ApiKey
from springest_async.http.failures import Failure, system_words
from springest_async.http.keyed import KeyedRequest, KeyedResponse
from springest_async.http.proxy import Proxy
from springest_async.http.watchdog import hearing_socket

__all__ = ["Timeouts", "Transport"]

# Lists come in pages of about a hundred records, whose longest texts a database keeps in 64 KiB each. What is longer
# is no list of ours, and a list of tiny values takes up to forty times its bytes when it is taken apart.
_MAX_LIST_ANSWER_BYTES = 8 * 1024 * 1024
# A POST's answer is an id or a few words; of an error page only the beginning is of use.
_MAX_POST_ANSWER_BYTES = 256 * 1024
# In bytes a second: an answer that comes more slowly for long is meant to hold us up.
_SLOWEST_ANSWER = 1024

_AN_HOUR_AT_MOST = and_(gt(0.0), le(3600.0))

# Bodies above this ask first (Expect: 100-continue), so that an early 400 reaches us instead of a broken pipe.
_ASK_FIRST = 64 * 1024


@frozen(kw_only=True)
class Timeouts:
    """How long to wait, in seconds.

    `connect` is for the connection, with the finding of its addresses, TLS and through a proxy. (With a session of your
    own that has no proxy it is for each address, once they are found.) `stall` is for a certificate on its way of which
    nothing moves any more; what moves may take as long as its size does at 1 KiB a second, and five times `stall` more.
    `answer` is for the beginning of an answer, whatever interim ones (1xx) come before it, and for each stretch of
    silence in it.

    The time for an answer begins when the certificate has arrived: Linux tells what the other end has acknowledged. On
    other systems, and for a certificate of up to 60 KiB, it begins when the system has taken the last of it. (And on
    other systems half a megabyte must move within `stall` over TLS.)

    Each is over 0 and an hour at most, because a POST without an answer keeps its token of the limit for as long.
    """

    connect: float = field(default=30.0, validator=_AN_HOUR_AT_MOST)
    answer: float = field(default=120.0, validator=_AN_HOUR_AT_MOST)
    stall: float = field(default=60.0, validator=_AN_HOUR_AT_MOST)


def _nothing() -> None:
    """Nobody wants to know."""


def _ignore(_: int) -> None:
    """Nobody wants to know."""


async def _at_once() -> None:
    """Wait for nothing."""


class Transport:
    """An HTTP session to one origin, opened and closed by ``async with``.

    Args:
        origin: scheme, host and port.
        timeouts: how long to wait for what.
        user_agent: what to call ourselves.
        session: the caller's own session, of which the connector (TLS, resolver), the headers, the cookies and the
            traces are used; it is not closed.
        ca_file: certificates of CAs (PEM) that are trusted beside those of the system; not for a session of the
            caller's.
        proxy: what to connect through, to an origin that is ``https``. To any other, a proxy would be shown the key.
    """

    def __init__(
        self,
        origin: str,
        *,
        timeouts: Timeouts,
        user_agent: str,
        session: aiohttp.ClientSession | None = None,
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self.origin = origin
        self._timeouts = timeouts
        self._user_agent = user_agent
        self._given = session
        self._ca_file = ca_file
        self._proxy = proxy if origin.startswith("https:") else None
        self._session: aiohttp.ClientSession | None = None
        self._ask_first = True

    def __repr__(self) -> str:
        return f"<Transport {self.origin}, {'closed' if self._session is None else 'open'}>"

    async def __aenter__(self) -> Self:
        given = self._given
        headers = CIMultiDict(given.headers if given else ())
        headers["User-Agent"] = self._user_agent
        # True stands for the system's CAs, or those that SSL_CERT_FILE and SSL_CERT_DIR named when aiohttp was loaded.
        tls = await asyncio.to_thread(_trusting, self._ca_file) if self._ca_file else True
        self._session = aiohttp.ClientSession(
            connector=given.connector if given else _PunctualConnector(ssl=tls, socket_factory=hearing_socket),
            connector_owner=given is None,
            cookie_jar=given.cookie_jar if given else aiohttp.DummyCookieJar(),
            headers=headers,
            trace_configs=given.trace_configs if given else None,
            # The environment's proxy would be shown the key of an origin that is http, and ~/.netrc is for others.
            trust_env=False,
            request_class=KeyedRequest,
            response_class=KeyedResponse,
            timeout=aiohttp.ClientTimeout(
                total=None,  # the default, 300 s, cuts long uploads
                # aiohttp waits for a proxy's answer for ever. (The wait for a connection of the pool counts as well.)
                connect=self._timeouts.connect if given and self._proxy else None,
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

    async def get(
        self,
        path: str,
        query: Mapping[str, str],
        key: ApiKey,
        *,
        again: Callable[[], Awaitable[None]] = _at_once,
    ) -> Answer:
        """Ask for a list.

        A list whose connection the server closed is asked for a second time at once, because it may have been a
        connection of the pool that was closed already. `again` is awaited before that: it is one more request.

        Raises:
            NotSent: there was no connection.
            NoAnswer: the connection broke before the answer had come whole.
        """
        where = self.where("GET", path)
        answer, failure = await self._exchange(
            "GET", path, key, longest=_MAX_LIST_ANSWER_BYTES, again=again, params=query
        )
        if failure is not None:
            if failure.connected:
                raise NoAnswer(where, failure.reason)
            raise NotSent(where, failure.reason, connected=False, trusted=failure.trusted)
        assert answer is not None
        if not answer.complete and not answer.too_long:
            raise NoAnswer(where, "the connection broke in the middle of the answer")
        return answer

    async def post(
        self,
        path: str,
        body: aiohttp.Payload,
        key: ApiKey,
        *,
        fully_written: Callable[[], bool],
        begun: Callable[[], None] = _nothing,
        answered: Callable[[int], None] = _ignore,
    ) -> Answer:
        """Post a body of a known size, once; `fully_written` tells whether its last byte was given to the connection.

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
        left = False

        def leaves() -> None:
            nonlocal left
            left = True
            begun()

        answer, failure = await self._exchange(
            "POST",
            path,
            key,
            longest=_MAX_POST_ANSWER_BYTES,
            begun=leaves,
            answered=answered,
            data=body,
            # Its type is named here because the headers of a caller's session would go before it.
            headers={"Connection": "close", "Content-Type": body.content_type, "Accept-Encoding": "identity"},
            # aiohttp would not even tell the status of an answer that it cannot decompress.
            auto_decompress=False,
            expect100=asked,
        )
        if failure is not None:
            if fully_written():
                raise NoAnswer(where, failure.reason)
            raise NotSent(where, failure.reason, connected=failure.connected, trusted=failure.trusted)
        assert answer is not None
        if asked and answer.status == 417:
            self._ask_first = False
            raise NotSent(where, "the server does not know “Expect: 100-continue” (417)")
        if fully_written() or (answer.status < 300 and not left):  # mocks answer what never left
            return answer
        if answer.status == 201:
            raise NoAnswer(where, "the server answered 201 before it had the whole certificate")
        if answer.status < 300 or answer.status == 408 or answer.status >= 500:
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
        again: Callable[[], Awaitable[None]] = _at_once,
        **options: Any,
    ) -> tuple[Answer | None, Failure | None]:
        """Send one request and read its answer. A failure is returned, so that it is raised outside of ``except``."""
        if self._session is None:
            raise RuntimeError("the session is closed: use it inside `async with`")

        left = False

        def leaves() -> None:
            nonlocal left
            left = True
            begun()

        async def as_ours(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            nonlocal left
            assert isinstance(request, KeyedRequest)
            if left:  # aiohttp asks once more by itself
                await again()
                left = False
            request.key, request.begun = key, leaves
            if self._proxy is not None:
                # As an option of the session's, the headers of a caller's session would go to the proxy too.
                request.update_proxy(self._proxy.url, None, self._proxy.headers)
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
                body, complete, too_long = await _read(response, longest, self._timeouts.answer, key)
                return Answer(response.status, response.headers.copy(), body, complete, too_long), None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            at_proxy = self._proxy is not None and not left
            return None, Failure.at_proxy(error) if at_proxy else Failure.of(error)


class _PunctualConnector(aiohttp.TCPConnector):
    """Makes a connection in time: aiohttp's own time begins anew with each address of a name, once they are found.

    Its `connect` would do so too, and count the wait for a connection of the pool as well.
    """

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: Any,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 (aiohttp's word for several)
    ) -> Any:
        async with asyncio.timeout(timeout.sock_connect):
            return await super()._create_connection(req, traces, timeout)


async def _read(
    response: aiohttp.ClientResponse, longest: int, patience: float, key: ApiKey
) -> tuple[bytes, bool, bool]:
    """Read a body up to a bound; say whether it is whole, and whether it is not because it is too long.

    One that breaks off is no failure: its status has told already what happened. One that trickles breaks off too: it
    has `patience` seconds, and more only in proportion to what came.
    """
    # In no variable as it came, because a traceback may show those, and the server may have said the key.
    body = io.BytesIO()
    complete = False
    begun = asyncio.get_running_loop().time()
    with contextlib.suppress(aiohttp.ClientError, OSError, HttpProcessingError):  # of which one is aiohttp's parser's
        while (length := body.tell()) < longest and not complete:
            async with asyncio.timeout_at(begun + patience + length / _SLOWEST_ANSWER):
                complete = body.write(await response.content.read(longest - length)) == 0
    compressed = response.method == "POST" and "Content-Encoding" in response.headers
    shown = key.hide_in(_decompressed(body.getvalue()) if compressed else body.getvalue())
    return shown, complete, not complete and body.tell() >= longest  # what hides a key is shorter than the key


def _decompressed(body: bytes) -> bytes:
    """Undo gzip or deflate, for a server that compresses although it was asked not to; a bomb only up to a bound."""
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, _MAX_POST_ANSWER_BYTES)
    except zlib.error:
        return body


def _trusting(ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])  # as aiohttp's own do
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        reason = "there are no certificates in it (PEM)"
    except OSError as error:
        reason = system_words(error)
    except ValueError:
        reason = "it is no name that a file can have"
    else:
        return context
    raise ConfigurationError(f"the file of CAs {ca_file}: {reason}")
