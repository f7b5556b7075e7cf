"""The session layer, with scripted answers: every failure says whether the server can have the request.

Nothing is written here: a test says whether the body was fully written. Real bodies on real sockets are in
``tests/integration/test_wire.py``.
"""

import asyncio
import copy
import errno
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import CallbackResult
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from springest_async.api.protocol import Answer
from springest_async.errors import NoAnswer, NotSent
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.exchange import Exchange, KeyedUrl, _go_ahead_of
from springest_async.http.transport import Timeouts, Transport
from springest_async.source_file import SourceFile
from tests.conftest import ScriptedAnswers

ORIGIN = "https://api.springest.nl"
PATH = "/users/certificates.json"
KEY = ApiKey("s3cr3t")
DESTINATION = ConnectionKey("api.springest.nl", 443, True, True, None, None, None)


@pytest.fixture
async def transport(scripted: ScriptedAnswers) -> AsyncIterator[Transport]:
    async with Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests") as transport:
        yield transport


@pytest.fixture
def make_exchange() -> Iterator[Callable[..., Exchange]]:
    """Return a maker of POSTs; nothing reads their files."""
    with ThreadPoolExecutor(1) as executor:

        def make(*, size: int = 1000, fully_written: bool = False) -> Exchange:
            source = SourceFile(Path("/archive/x.pdf"), size, modified_ns=0, inode=0, device=0)
            body = CertificateBody(source, (), executor=executor)
            body.progress.fully_written = fully_written
            return Exchange("POST", PATH, KEY, body=body)

        yield make


MakeExchange = Callable[..., Exchange]


async def test_a_list_comes_back_as_it_came(transport: Transport, scripted: ScriptedAnswers) -> None:
    scripted.get(f"{ORIGIN}{PATH}?size=1", status=418, body=b"\xff[]", headers={"Retry-After": "7"})

    answer = await transport.get(PATH, {"size": "1"}, KEY)

    assert (answer.status, answer.body, answer.complete, answer.retry_after) == (418, b"\xff[]", True, 7.0)


DEFINITE = [*((status, True) for status in (200, 201, 302, 400, 408, 429, 503)), (302, False), (400, False)]


@pytest.mark.parametrize(("status", "fully_written"), DEFINITE)
async def test_a_posts_answer_comes_back_as_it_came(
    status: int, fully_written: bool, transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, status=status, body=b"said", headers={"Location": "https://other.example/"})
    exchange = make_exchange(fully_written=fully_written)

    answer = await transport.post(exchange)

    assert (answer.status, answer.body, exchange.status) == (status, b"said", status)


@pytest.mark.parametrize("status", [408, 500, 599])
async def test_a_vague_answer_to_half_a_body_means_not_sent(
    status: int, transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, status=status)
    exchange = make_exchange()

    with pytest.raises(NotSent) as caught:
        await transport.post(exchange)

    assert caught.value.reason == f"the server answered {status} before it had the whole certificate"
    assert caught.value.connected
    assert exchange.status == status


async def test_a_mock_of_aiohttp_can_store_what_never_left(
    transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, status=201, body=b'{"id": 1}')

    assert (await transport.post(make_exchange())).status == 201


async def test_a_body_that_is_written_meanwhile_is_in_doubt(
    transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    exchange = make_exchange()

    def breaks(*_: object, **__: object) -> CallbackResult:
        assert exchange.body is not None
        exchange.body.progress.fully_written = True
        raise aiohttp.ServerDisconnectedError

    scripted.post(ORIGIN + PATH, callback=breaks)

    with pytest.raises(NoAnswer):
        await transport.post(exchange)

    assert exchange.status is None


async def test_the_status_is_known_before_the_rest_is_read(
    transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.post(ORIGIN + PATH, status=201)
    known: list[int | None] = []

    async def read(exchange: Exchange, *_: object) -> Answer:
        known.append(exchange.status)
        return Answer(201)

    monkeypatch.setattr(Exchange, "read", read)
    await transport.post(make_exchange(fully_written=True))

    assert known == [201]


async def test_no_redirect_is_followed_and_no_address_has_the_key(
    transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.get(ORIGIN + PATH, status=302, headers={"Location": "https://other.example/"})
    scripted.post(ORIGIN + PATH, status=307, headers={"Location": "https://other.example/"})

    await transport.get(PATH, {}, KEY)
    await transport.post(make_exchange())

    options = [*scripted.sent("GET"), *scripted.sent("POST")]
    assert [each["allow_redirects"] for each in options] == [False, False]
    assert {str(url) for _, url in scripted.requests} == {ORIGIN + PATH}


async def test_a_post_asks_for_a_plain_answer(
    transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, status=201)

    await transport.post(make_exchange(fully_written=True))

    (options,) = scripted.sent("POST")
    assert options["headers"]["Accept-Encoding"] == "identity"
    assert options["headers"]["User-Agent"] == f"tests aiohttp/{aiohttp.__version__}"
    assert not options["auto_decompress"]


@pytest.mark.parametrize(("size", "asks"), [(1000, False), (60_000, False), (70_000, True), (5_000_000, True)])
async def test_only_a_big_body_asks_first(
    size: int, asks: bool, transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, status=201)

    await transport.post(make_exchange(size=size, fully_written=True))

    assert scripted.sent("POST")[0]["expect100"] is asks


async def test_a_server_that_cannot_be_asked_is_not_asked_again(
    transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, status=417)
    scripted.post(ORIGIN + PATH, status=201, repeat=True)

    with pytest.raises(NotSent, match=r"Expect: 100-continue.*417") as caught:
        await transport.post(make_exchange(size=70_000))
    for _ in range(2):
        await transport.post(make_exchange(size=70_000, fully_written=True))

    assert caught.value.connected
    assert [options["expect100"] for options in scripted.sent("POST")] == [True, False, False]


async def test_aiohttp_still_waits_for_100_on_the_future_we_know() -> None:
    """The one private name of aiohttp's that the product uses: this fails when it goes."""
    loop = asyncio.get_running_loop()
    request = aiohttp.ClientRequest("POST", URL(ORIGIN), expect100=True, loop=loop)
    go_ahead = _go_ahead_of(request)

    assert go_ahead is not None
    go_ahead()
    go_ahead()
    assert request._continue is not None
    assert request._continue.result() is True
    assert _go_ahead_of(aiohttp.ClientRequest("POST", URL(ORIGIN), loop=loop)) is None


def test_an_address_has_the_key_once_and_shows_it_nowhere() -> None:
    url = KeyedUrl(URL(ORIGIN + PATH), KEY)

    assert (str(url), repr(url), url.host) == (ORIGIN + PATH, f"URL('{ORIGIN}{PATH}')", "api.springest.nl")
    copied: object = copy.copy(url)
    assert type(copied) is URL
    assert url.raw_path_qs == f"{PATH}?api_key=s3cr3t"
    assert url.raw_path_qs == PATH


def certificate_error() -> aiohttp.ClientConnectorCertificateError:
    told = ssl.SSLCertVerificationError("x")
    told.verify_message = "certificate has expired"
    return aiohttp.ClientConnectorCertificateError(DESTINATION, told)


def bad_http() -> aiohttp.ClientResponseError:
    url = URL(f"{ORIGIN}{PATH}?api_key=s3cr3t")
    info = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict[str]()), url)
    return aiohttp.ClientResponseError(info, (), status=400, message="Got more than 8190 bytes")


def refused_by_openssl(code: int, words: str) -> aiohttp.ClientConnectorCertificateError:
    error = certificate_error()
    told = error.certificate_error
    assert isinstance(told, ssl.SSLCertVerificationError)
    told.verify_code, told.verify_message = code, words
    return error


REFUSED = OSError(errno.ECONNREFUSED, "Connection refused")

UNCONNECTED = [
    (aiohttp.ClientConnectorDNSError(DESTINATION, OSError(-2, "x")), "the host's name cannot be resolved"),
    (certificate_error(), "the server's TLS certificate is not trusted: certificate has expired"),
    (aiohttp.ClientConnectorCertificateError(DESTINATION, ssl.CertificateError("x")), "the server's TLS certificate"),
    (
        refused_by_openssl(64, "IP address mismatch"),
        "the server's TLS certificate is not trusted: it is for another host",
    ),
    (refused_by_openssl(23, "certificate revoked"), "the server's TLS certificate is not trusted: certificate revoked"),
    (aiohttp.InvalidUrlClientError("https://127.1/?s3cr3t"), "the host's name cannot be resolved"),
    (aiohttp.ClientConnectorSSLError(DESTINATION, OSError(1, "x")), "no TLS connection could be made"),
    (aiohttp.ConnectionTimeoutError("s3cr3t"), "no connection within the time allowed"),
    (aiohttp.ClientConnectorError(DESTINATION, REFUSED), "no connection: Connection refused"),
    (aiohttp.ClientConnectorError(DESTINATION, OSError()), "no connection: lost"),
]
CONNECTED = [
    (aiohttp.SocketTimeoutError("s3cr3t"), "the connection broke: lost"),
    (aiohttp.ServerDisconnectedError("s3cr3t"), "the server closed the connection without an answer"),
    (bad_http(), "the answer is not HTTP, or too long in its headers"),
    (
        aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"),
        "the connection broke: Connection reset by p",
    ),
    (aiohttp.ClientOSError("s3cr3t"), "the connection broke: lost"),
    (ConnectionResetError("s3cr3t"), "the connection broke: lost"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), "the connection broke: Broken pipe"),
    (TimeoutError(errno.ETIMEDOUT, "s3cr3t"), f"the connection broke: {os.strerror(errno.ETIMEDOUT)}"),
    (aiohttp.ClientPayloadError("s3cr3t"), "the connection broke"),
    (aiohttp.ClientError("s3cr3t"), "the connection broke"),
    (ValueError("s3cr3t"), "the connection broke"),
]


def named(cases: list[tuple[Any, str]]) -> list[Any]:
    return [pytest.param(*case, id=f"{type(case[0]).__name__}: {case[1]}") for case in cases]


@pytest.mark.parametrize(("failure", "reason"), named(UNCONNECTED))
async def test_without_a_connection_nothing_was_sent(
    failure: Exception, reason: str, transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.get(ORIGIN + PATH, exception=failure)
    scripted.post(ORIGIN + PATH, exception=failure)

    with pytest.raises(NotSent) as asked:
        await transport.get(PATH, {}, KEY)
    with pytest.raises(NotSent) as posted:
        await transport.post(make_exchange())

    for method, error in (("GET", asked.value), ("POST", posted.value)):
        assert error.reason.startswith(reason)
        assert (error.connected, error.where) == (False, f"{method} {ORIGIN}{PATH}")
        assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(("failure", "reason"), named(CONNECTED))
async def test_a_list_without_an_answer_and_a_post_that_never_left(
    failure: Exception, reason: str, transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.get(ORIGIN + PATH, exception=failure)
    scripted.post(ORIGIN + PATH, exception=failure)

    with pytest.raises(NoAnswer) as asked:
        await transport.get(PATH, {}, KEY)
    with pytest.raises(NotSent) as posted:
        await transport.post(make_exchange())

    for error in (asked.value, posted.value):
        assert error.reason.startswith(reason)
        assert "s3cr3t" not in str(error)
        assert (error.__cause__, error.__context__) == (None, None)
    assert posted.value.connected


@pytest.mark.parametrize(("failure", "reason"), named(CONNECTED))
async def test_a_whole_post_that_broke_off_has_no_answer(
    failure: Exception, reason: str, transport: Transport, scripted: ScriptedAnswers, make_exchange: MakeExchange
) -> None:
    scripted.post(ORIGIN + PATH, exception=failure)

    with pytest.raises(NoAnswer) as caught:
        await transport.post(make_exchange(fully_written=True))

    assert caught.value.reason.startswith(reason)
    assert caught.value.where == f"POST {ORIGIN}{PATH}"
    assert "s3cr3t" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("failure", [RuntimeError("a mistake of ours"), asyncio.CancelledError()])
async def test_what_is_no_failure_of_the_network_is_not_taken_for_one(
    failure: BaseException, transport: Transport, scripted: ScriptedAnswers
) -> None:
    scripted.get(ORIGIN + PATH, exception=failure)

    with pytest.raises(type(failure)):
        await transport.get(PATH, {}, KEY)


async def test_the_key_that_a_server_sends_back_is_taken_out(transport: Transport, scripted: ScriptedAnswers) -> None:
    scripted.get(ORIGIN + PATH, status=404, body=f"No route matches {PATH}?api_key=s3cr3t")

    assert (await transport.get(PATH, {}, KEY)).body == f"No route matches {PATH}?api_key=***".encode()


async def test_a_session_that_is_not_open_says_so(make_exchange: MakeExchange) -> None:
    transport = Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests")
    with pytest.raises(RuntimeError, match="use it inside `async with`"):
        await transport.get(PATH, {}, KEY)

    async with transport:
        pass
    with pytest.raises(RuntimeError, match="use it inside `async with`"):
        await transport.post(make_exchange())


async def test_the_repr_says_whether_it_is_open() -> None:
    transport = Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests")
    assert repr(transport) == f"<Transport {ORIGIN}, closed>"

    async with transport:
        assert repr(transport) == f"<Transport {ORIGIN}, open>"

    assert repr(transport) == f"<Transport {ORIGIN}, closed>"


async def test_only_the_connection_has_a_timeout_of_aiohttps() -> None:
    async with Transport(ORIGIN, timeouts=Timeouts(connect=1.5), user_agent="tests") as transport:
        timeouts = [session.timeout for session in transport._sessions.values()]

    assert timeouts == [aiohttp.ClientTimeout(total=None, connect=1.5)] * 2


@pytest.mark.parametrize("name", ["connect", "answer", "stall"])
@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("nan"), 3601, float("inf")])
def test_a_time_that_nothing_can_take_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        Timeouts(**{name: seconds})


async def test_a_connector_of_ones_own_is_used_and_stays_open() -> None:
    async with aiohttp.TCPConnector() as own:
        async with Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests", connector=own) as transport:
            assert {session.connector for session in transport._sessions.values()} == {own}

        assert not own.closed


async def test_its_own_sessions_are_closed_and_keep_no_cookies() -> None:
    async with Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests") as transport:
        sessions = list(transport._sessions.values())
        for session in sessions:
            session.cookie_jar.update_cookies({"session": "1"}, URL(ORIGIN))
        assert [(session.closed, len(session.cookie_jar)) for session in sessions] == [(False, 0)] * 2

    assert [session.closed for session in sessions] == [True, True]
