"""The session layer: aiohttp's sessions, the key, the timeouts, and what each failure means for a request.

An answer comes back as it came, whatever its status; what it means is not decided here. A failure says whether the
server can have the request (`NotSent`: it cannot; `NoAnswer`: it may). Nothing is retried here.

aiohttp's exceptions are never chained to ours, not even as context, because their texts hold what the server said: so
`_exchange` returns failures and never raises them.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import aiohttp
from attrs import field, frozen
from attrs.validators import and_, gt, le
from yarl import URL

from springest_async.api.protocol import Answer
from springest_async.errors import ConfigurationError, NoAnswer, NotSent
from springest_async.http.api_key import ApiKey
from springest_async.http.exchange import MAX_POST_ANSWER_BYTES, REQUEST_ID, Exchange, QuietRequest, at_once
from springest_async.http.failures import Failure, system_words
from springest_async.http.proxy import Proxy
from springest_async.http.watchdog import Watchdog, has_unsent, reading_socket

Connector = aiohttp.BaseConnector

# Lists come in pages of about a hundred records, whose longest texts a database keeps in 64 KiB each. A longer answer
# is no list of ours, and a list of tiny values takes up to forty times its bytes when it is taken apart.
_MAX_LIST_ANSWER_BYTES = 8 * 1024 * 1024

_AN_HOUR_AT_MOST = and_(gt(0.0), le(3600.0))

# Bodies above this ask first (Expect: 100-continue), so that an early 400 reaches us instead of a broken pipe.
_ASK_FIRST = 64 * 1024

# A POST goes out on a connection whose last answer is no older than this, else on a fresh one: a connection that the
# server is just closing would put it in doubt. It is half of the shortest idle time-out of common servers (gunicorn
# closes after 2 s, puma after 20 s, nginx after 75 s).
_REUSE_WITHIN = 1.0


@frozen(kw_only=True)
class Timeouts:
    """How long to wait, in seconds; each is over 0 and an hour at most.

    A POST without an answer keeps its token of the limit for as long.

    Attributes:
        connect: for the connection: the wait for a place in the connector's pool, DNS, a proxy, TCP and TLS together.
        answer: for the beginning of an answer, whatever interim ones (1xx) come before it, and for each stretch of
            silence in it. It begins when the certificate has arrived: Linux tells what the other end has acknowledged;
            on other systems it begins when the system has taken the last of it.
        stall: for a certificate on its way of which nothing moves any more. One that moves may take as long as its
            size does at 1 KiB a second, and five times `stall` more. (Over TLS, on other systems than Linux, a
            megabyte must move within `stall`.)
    """

    connect: float = field(default=30.0, validator=_AN_HOUR_AT_MOST)
    answer: float = field(default=120.0, validator=_AN_HOUR_AT_MOST)
    stall: float = field(default=60.0, validator=_AN_HOUR_AT_MOST)


class _QuietConnector(aiohttp.TCPConnector):
    """A connector that reuses a connection only if nothing arrived on it meanwhile, and nothing is left to send on it.

    aiohttp would take what arrived (such as a 408 before the server hangs up) for the answer to the next request.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used = WeakSet[object]()  # protocols of connections

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        """Return a connection of the pool, or a new one."""
        while True:
            connection = await super().connect(req, *args, **options)
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None:
                return connection
            if not (protocol.should_close or has_unsent(transport)):
                break
            connection.close()
        if isinstance(req, QuietRequest):
            req.reused = protocol in self._used
        self._used.add(protocol)
        return connection


class Transport:
    """HTTP sessions to one origin, opened and closed by ``async with``.

    Args:
        origin: scheme, host and port.
        timeouts: how long to wait for what.
        user_agent: the name of this client; aiohttp's is added.
        connector: the caller's own, for lists and POSTs; it is not closed.
        ca_file: certificates of CAs (PEM) that are trusted beside those of the system; not for a connector of the
            caller's.
        proxy: what to connect through, to an origin that is ``https``. To any other, a proxy would be shown the key.

    Without `connector` there are two: lists reuse connections as usual, a POST only one whose last answer is no older
    than a second.
    """

    def __init__(
        self,
        origin: str,
        *,
        timeouts: Timeouts,
        user_agent: str,
        connector: Connector | None = None,
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self.origin = origin
        self._timeouts = timeouts
        self._user_agent = user_agent
        self._connector = connector
        self._ca_file = ca_file
        self._proxy = proxy if origin.startswith("https:") else None
        self._tls: ssl.SSLContext | bool = True
        self._sessions: dict[str, aiohttp.ClientSession] = {}  # by method
        self._old_posts: aiohttp.ClientSession | None = None  # that still reused connections
        self._ask_first = True

    def __repr__(self) -> str:
        return f"<Transport {self.origin}, {'open' if self._sessions else 'closed'}>"

    async def __aenter__(self) -> Self:
        self._refuse_closed()
        if self._connector is not None:
            self._sessions = {"GET": self._session(self._connector), "POST": self._session(self._connector)}
            return self
        # True stands for the system's CAs, or those that SSL_CERT_FILE and SSL_CERT_DIR named when aiohttp was loaded.
        self._tls = await asyncio.to_thread(_trusting, self._ca_file) if self._ca_file else True
        self._sessions = {
            "GET": self._session(_QuietConnector(ssl=self._tls)),
            "POST": self._session(self._for_posts(keepalive_timeout=_REUSE_WITHIN)),
        }
        return self

    def _for_posts(self, **reuse: Any) -> Connector:
        """Return a connector for POSTs, which are as many at once as the limiter lets through."""
        return _QuietConnector(ssl=self._tls, socket_factory=reading_socket, limit=0, **reuse)

    def _stop_reusing(self) -> None:
        """Send POSTs on fresh connections from now on: this server closes the others without a word."""
        if self._connector is None and self._old_posts is None:
            self._old_posts = self._sessions["POST"]  # other uploads may be using it
            self._sessions["POST"] = self._session(self._for_posts(force_close=True))

    def _session(self, connector: Connector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=connector is not self._connector,
            request_class=QuietRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"{self._user_agent} aiohttp/{aiohttp.__version__}"},
            # The environment's proxy would be shown the key of an origin that is http, and ~/.netrc is for others.
            trust_env=False,
            # The default total, 300 s, cuts long uploads. The time for an answer is the watchdog's.
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
        )

    def _refuse_closed(self) -> None:
        if self._connector is not None and self._connector.closed:
            raise ConfigurationError("the connector in the settings is closed: give the client one that is open")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sessions = [*self._sessions.values(), *([self._old_posts] if self._old_posts else [])]
        self._sessions, self._old_posts = {}, None
        for session in sessions:
            await session.close()

    async def get(
        self,
        path: str,
        query: Mapping[str, str],
        key: ApiKey,
        *,
        before_resending: Callable[[], Awaitable[None]] = at_once,
    ) -> Answer:
        """Ask for a list.

        aiohttp asks for a list a second time at once when the server closed the connection, because it may have been a
        connection of the pool that was closed already. `before_resending` is awaited before: it is one more request.

        Raises:
            NotSent: there was no connection.
            NoAnswer: the connection broke before the answer had come whole.
            ConfigurationError: the connector of the settings was closed.
        """
        where = self.where("GET", path)
        exchange = Exchange("GET", path, key, query, before_resending=before_resending)
        answer = await self._exchange(exchange, _MAX_LIST_ANSWER_BYTES)
        if isinstance(answer, Failure):
            if answer.connected:
                raise NoAnswer(where, answer.reason)
            raise NotSent(where, answer.reason, connected=False, trusted=answer.trusted)
        if not answer.complete and not answer.too_long:
            raise NoAnswer(where, "the connection broke in the middle of the answer")
        return answer

    async def post(self, exchange: Exchange) -> Answer:
        """Post the body of an exchange, once. Whatever ends it, `exchange` tells how far it got.

        Raises:
            NotSent: the server cannot have the whole body.
            NoAnswer: it may have, and no answer came.
            ConfigurationError: the connector of the settings was closed.
        """
        body = exchange.body
        assert body is not None
        where = self.where("POST", exchange.path)
        asks = self._ask_first and (body.size or 0) > _ASK_FIRST
        answer = await self._exchange(
            exchange,
            MAX_POST_ANSWER_BYTES,
            data=body,
            headers={"Accept-Encoding": "identity", REQUEST_ID: exchange.request_id},
            # aiohttp would not even tell the status of an answer that it cannot decompress.
            auto_decompress=False,
            expect100=asks,
        )
        if isinstance(answer, Failure):
            if body.forbidden is not None:
                raise NotSent(where, body.forbidden)
            if exchange.reused:
                self._stop_reusing()
            if exchange.fully_written:
                raise NoAnswer(where, answer.reason)
            raise NotSent(where, answer.reason, connected=answer.connected, trusted=answer.trusted)
        if asks and answer.status == 417:
            self._ask_first = False
            raise NotSent(where, "the server does not know “Expect: 100-continue” (417)")
        if exchange.fully_written or (answer.status < 300 and not exchange.headers_sent):
            return answer  # mocks of aiohttp answer what never left
        if answer.status == 201:
            raise NoAnswer(where, "the server answered 201 before it had the whole certificate")
        if answer.status < 300 or answer.status == 408 or answer.status >= 500:
            raise NotSent(where, f"the server answered {answer.status} before it had the whole certificate")
        return answer

    def where(self, method: str, path: str) -> str:
        """Return a request's method and address, without the query, for people."""
        return f"{method} {self.origin}{path}"

    async def _exchange(self, exchange: Exchange, max_bytes: int, **options: Any) -> Answer | Failure:
        """Send one request and read its answer. A failure is returned, so that it is raised outside of ``except``."""
        if not self._sessions:
            raise RuntimeError("the session is closed: use it inside `async with`")
        self._refuse_closed()
        if self._proxy is not None:
            options |= {"proxy": self._proxy.url, "proxy_headers": self._proxy.headers}
        try:
            failure = await self._request(exchange, options)
            return failure or await exchange.read(max_bytes, self._timeouts.answer)
        finally:
            await exchange.close()

    async def _request(self, exchange: Exchange, options: dict[str, Any]) -> Failure | None:
        """Send one request, and wait until the head of its answer has come."""
        limit = asyncio.timeout(None)
        watchdog = exchange.watchdog = Watchdog(
            limit,
            stall_timeout=self._timeouts.stall,
            answer_timeout=self._timeouts.answer,
            progress=exchange.body.progress if exchange.body else None,
        )
        try:
            async with limit:
                with watchdog:
                    exchange.on_response(
                        await self._sessions[exchange.method].request(
                            exchange.method,
                            URL(self.origin + exchange.path, encoded=True),
                            params=exchange.query,
                            allow_redirects=False,
                            middlewares=(exchange.send_with_key,),
                            **options,
                        )
                    )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if watchdog.verdict:
                return Failure(watchdog.verdict)
            at_proxy = self._proxy is not None and not exchange.headers_sent
            return Failure.at_proxy(error) if at_proxy else Failure.of(error)
        return None


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
