"""`Ping`: post JSON to the address of a monitoring service, which has a token in it that is never shown.

A ping says that a run is alive. It has nothing to do with Springest: no key goes with it, and no budget counts it.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
from yarl import URL

from springest_async.api.protocol import is_loopback
from springest_async.errors import ConfigurationError
from springest_async.http.exchange import KeyedUrl, strip
from springest_async.http.failures import Failure
from springest_async.http.proxy import proxy_at

PING_SECONDS = 10.0
"""How long a ping may take."""


class Ping:
    """Posts JSON to one address.

    Usage::

        async with Ping("https://hc-ping.example/8d4c…", user_agent="…") as ping:
            failure = await ping.post({"event": "begin"})

    Attributes:
        origin: the address without its token, for people.

    Args:
        address: where to post: ``https``, or ``http`` to this machine.
        user_agent: the name of this client; aiohttp's is added.
        proxy_to: returns the address of the proxy to an origin, if there is one.
        seconds: how long a ping may take.

    Raises:
        ConfigurationError: it is no such address. The error does not show it.
    """

    def __init__(
        self,
        address: str,
        *,
        user_agent: str,
        proxy_to: Callable[[str], str | None] = lambda _: None,
        seconds: float = PING_SECONDS,
    ) -> None:
        parts = _parts_of(address)
        del address  # which a traceback might show
        if parts is None:
            raise ConfigurationError(
                "the address to ping (--ping or SPRINGEST_PING) must be one such as https://hc-ping.example/8d4c…, with"
                " https (http is for this machine only) and without a name and a password"
            )
        self.origin, self._target = parts
        self._proxy = proxy_at(proxy_to(self.origin))
        self._user_agent = user_agent
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<Ping {self.origin}>"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"{self._user_agent} aiohttp/{aiohttp.__version__}"},
            trust_env=False,  # ~/.netrc is for others
            timeout=aiohttp.ClientTimeout(total=self._seconds),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, document: Mapping[str, Any]) -> str:
        """Post a document, and return why that failed, or an empty text. A redirect is not followed."""
        assert self._session is not None
        proxy = {} if self._proxy is None else {"proxy": self._proxy.url, "proxy_headers": self._proxy.headers}
        try:
            response = await self._session.post(
                self.origin,
                json=document,
                allow_redirects=False,
                middlewares=(self._send_with_token,),
                **cast(dict[str, Any], proxy),
            )
        except TimeoutError:
            return f"no answer within {self._seconds:.0f} seconds"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return (Failure.of(error) if self._proxy is None else Failure.at_proxy(error)).reason
        response.close()  # whatever it says more
        return "" if response.status < 300 else f"it answered {response.status}"

    async def _send_with_token(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request with the token in its request line only, so that no trace or log shows it."""
        keyed = KeyedUrl(request.url, self._target)
        request.url = cast(URL, keyed)
        try:
            return await handler(request)
        except BaseException as error:
            strip(error)
            raise
        finally:
            keyed.drop_key()


class _Target:
    """The path and query of an address, which has the token; never shown."""

    __slots__ = ("added_to",)

    def __init__(self, raw_path_qs: str) -> None:
        self.added_to = lambda _: raw_path_qs

    def __repr__(self) -> str:
        return "<target>"


def _parts_of(address: str) -> tuple[str, _Target] | None:
    """Return the origin of an address and the rest of it; None if it is no address that may be pinged."""
    try:
        # An address that is whole already stays as it is: to yarl, %27 and ' would be the same.
        url = URL(address, encoded=address.isascii() and address.isprintable() and " " not in address)
        if not url.host or url.explicit_port == 0 or url.user is not None or url.password is not None:
            return None
        if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host)):
            return str(url.origin()), _Target(url.raw_path_qs)
    except ValueError:
        pass
    return None
