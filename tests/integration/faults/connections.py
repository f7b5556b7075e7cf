"""Connections that do not come about: names, addresses, TLS and proxies. Nothing has left when one fails."""

import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.connect_proxy import FAULTY, ConnectProxy, trickles
from tests.integration.raw_server import Behaviour, created, raw_server
from tests.integration.tls import WRONG, Authority
from tests.integration.wire import PATIENT, closed_port

from .catalogue import IMPATIENT, Fault, Happening, Outcome, World

__all__ = ["FAULTS"]

# A line that fails is tried four times.
_TRIES = 4


def _not_sent(reason: str, tries: int = _TRIES) -> Outcome:
    return Outcome("not stored", tries, "NotSent", f"POST …: {reason}")


def _at(origin: str) -> Happening:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        yield World(origin, lambda: 0)

    return happens


@asynccontextmanager
async def _where_nobody_listens() -> AsyncIterator[World]:
    yield World(f"http://127.0.0.1:{closed_port()}", lambda: 0)


def _with(certificate: Callable[[Authority, Authority], ssl.SSLContext], *, trusted: bool = True) -> Happening:
    """Return a server with this certificate, of a CA that is trusted or of a stranger's."""

    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        with tempfile.TemporaryDirectory() as folder:
            ours, others = Authority(Path(folder) / "ours"), Authority(Path(folder) / "others")
            async with raw_server(created, tls=certificate(ours, others)) as server:
                settings = {"ca_file": ours.file} if trusted else {}
                yield World(server.origin, lambda: len(server.exchanges), settings)

    return happens


@asynccontextmanager
async def _through_a_proxy() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        ours = Authority(Path(folder) / "ours")
        async with raw_server(created, tls=ours.right()) as server, raw_server(ConnectProxy()) as proxy:
            settings = {"ca_file": ours.file, "proxy": proxy.origin}
            yield World(server.origin, lambda: len(server.exchanges), settings)


def _behind(behaviour: Behaviour) -> Happening:
    """Return a host behind a proxy that does this instead of connecting."""

    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with raw_server(behaviour) as proxy:
            yield World("https://springest.test", lambda: 0, {"proxy": proxy.origin}, posts=lambda: proxy.connections)

    return happens


@asynccontextmanager
async def _behind_nobody() -> AsyncIterator[World]:
    yield World("https://springest.test", lambda: 0, {"proxy": f"http://127.0.0.1:{closed_port()}"})


FAULTS = (
    Fault(
        name="the host has a name that nobody knows",
        happens=_at("https://nothing.invalid"),
        expected=_not_sent("the host's name cannot be resolved"),
    ),
    Fault(
        name="nobody listens",
        happens=_where_nobody_listens,
        expected=_not_sent("no connection: Connection refused"),
    ),
    *(
        Fault(
            name=f"TLS: the server's certificate {name}",
            happens=_with(certificate),
            expected=_not_sent(f"the server's TLS certificate is not trusted: {words}", tries=1),
        )
        for name, certificate, words in WRONG
    ),
    Fault(
        name="TLS: a company's own CA, without the setting `ca_file`",
        happens=_with(lambda ours, _: ours.right(), trusted=False),
        expected=_not_sent(
            "the server's TLS certificate is not trusted: it was issued by a CA that is not known here", tries=1
        ),
    ),
    Fault(
        name="TLS: a company's own CA, with it",
        happens=_with(lambda ours, _: ours.right()),
        expected=Outcome("stored"),
    ),
    Fault(name="a proxy on purpose", happens=_through_a_proxy, expected=Outcome("stored")),
    *(
        Fault(
            name=name,
            happens=_behind(behaviour),
            expected=_not_sent(reason),
            timeouts=IMPATIENT if behaviour is trickles else PATIENT,
        )
        for name, behaviour, reason in FAULTY
    ),
    Fault(
        name="a proxy's port at which nobody listens",
        happens=_behind_nobody,
        expected=_not_sent("no connection to the proxy: Connection refused"),
    ),
)
