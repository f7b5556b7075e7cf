"""The session layer, with scripted answers: every failure says whether the server can have the request.

Nothing is written here: whether a body was handed over to the connection is what a test says. Real bodies on real
sockets are in ``tests/integration/test_wire.py``.
"""

import asyncio
import contextlib
import errno
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from springest_async.api.protocol import Answer
from springest_async.errors import NoAnswer, NotSent
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.transport import Timeouts, Transport
from springest_async.source_file import inspect_file
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
async def body(pdf: Path) -> AsyncIterator[CertificateBody]:
    with ThreadPoolExecutor(1) as executor:
        yield CertificateBody(await inspect_file(pdf, executor), (), executor=executor, stall_timeout=1.0)


def not_yet() -> bool:
    return False


def already() -> bool:
    return True


async def post(transport: Transport, body: CertificateBody, *, fully_written: Callable[[], bool] = not_yet) -> Answer:
    return await transport.post(PATH, body, KEY, fully_written=fully_written)


async def test_a_list_comes_back_as_it_came(transport: Transport, scripted: ScriptedAnswers) -> None:
    scripted.get(f"{ORIGIN}{PATH}?size=1", status=418, body=b"\xff[]", headers={"Retry-After": "7"})

    answer = await transport.get(PATH, {"size": "1"}, KEY)

    assert (answer.status, answer.body, answer.complete, answer.retry_after) == (418, b"\xff[]", True, 7.0)


@pytest.mark.parametrize(
    ("status", "fully_written"),
    [(200, already), (201, already), *product((302, 400, 401, 404, 417, 429), (not_yet, already))],
)
async def test_a_posts_answer_comes_back_as_it_came(
    status: int,
    fully_written: Callable[[], bool],
    transport: Transport,
    scripted: ScriptedAnswers,
    body: CertificateBody,
) -> None:
    scripted.post(ORIGIN + PATH, status=status, body=b"said", headers={"Location": "https://other.example/"})

    answer = await post(transport, body, fully_written=fully_written)

    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (status, b"said")


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
async def test_an_answer_that_tells_nothing_means_not_sent_before_the_body_was_handed_over(
    status: int, transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, status=status)

    with pytest.raises(NotSent) as caught:
        await post(transport, body)

    assert caught.value.reason == f"the server answered {status} before it had the whole certificate"
    assert caught.value.connected


async def test_a_mock_of_sessions_need_not_write_the_body_to_store_it(
    transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, status=201, body=b'{"id": 1}')

    assert (await post(transport, body)).status == 201


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
async def test_an_answer_that_tells_nothing_comes_back_after_the_body_was_handed_over(
    status: int, transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, status=status, body=b"said")

    answer = await post(transport, body, fully_written=already)

    assert (answer.status, answer.body) == (status, b"said")


async def test_whether_a_body_was_handed_over_is_asked_after_the_request(
    transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, exception=aiohttp.ServerDisconnectedError())

    def asked_at_the_end() -> bool:
        return bool(scripted.sent("POST"))

    with pytest.raises(NoAnswer):
        await post(transport, body, fully_written=asked_at_the_end)


@pytest.mark.parametrize("fully_written", [not_yet, already])
@pytest.mark.parametrize("status", [200, 201, 400, 401, 408, 503])
async def test_the_status_of_a_posts_answer_is_told_once_whatever_becomes_of_it(
    status: int,
    fully_written: Callable[[], bool],
    transport: Transport,
    scripted: ScriptedAnswers,
    body: CertificateBody,
) -> None:
    scripted.post(ORIGIN + PATH, status=status)
    told: list[int] = []

    with contextlib.suppress(NotSent, NoAnswer):
        await transport.post(PATH, body, KEY, fully_written=fully_written, answered=told.append)

    assert told == [status]


async def test_no_status_is_told_when_there_is_no_answer(
    transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, exception=aiohttp.ServerDisconnectedError())
    told: list[int] = []

    with pytest.raises(NoAnswer):
        await transport.post(PATH, body, KEY, fully_written=already, answered=told.append)

    assert told == []


async def test_the_status_is_told_before_the_rest_of_the_answer_is_read(
    transport: Transport, scripted: ScriptedAnswers, body: CertificateBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.post(ORIGIN + PATH, status=201)
    told: list[int] = []
    known_when_read: list[list[int]] = []

    async def read(*_: Any) -> tuple[bytes, bool, bool]:
        known_when_read.append(list(told))
        return b"", True, False

    monkeypatch.setattr("springest_async.http.transport._read", read)
    await transport.post(PATH, body, KEY, fully_written=already, answered=told.append)

    assert known_when_read == [[201]]


async def test_requests_never_follow_redirects_and_have_no_key_in_their_address(
    transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.get(ORIGIN + PATH, status=302, headers={"Location": "https://other.example/"})
    scripted.post(ORIGIN + PATH, status=307, headers={"Location": "https://other.example/"})

    await transport.get(PATH, {}, KEY)
    await post(transport, body)

    assert [options["allow_redirects"] for method in ("GET", "POST") for options in scripted.sent(method)] == [
        False
    ] * 2
    assert {str(url) for _, url in scripted.requests} == {ORIGIN + PATH}


async def test_a_post_asks_for_a_connection_of_its_own(
    transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, status=201)

    await post(transport, body, fully_written=already)

    (options,) = scripted.sent("POST")
    assert options["headers"]["Connection"] == "close"
    assert options["headers"]["Content-Type"] == body.content_type
    assert options["headers"]["Accept-Encoding"] == "identity"
    assert options["headers"]["User-Agent"] == "tests"


@pytest.mark.parametrize(("size", "asks"), [(1000, False), (60_000, False), (70_000, True), (5_000_000, True)])
async def test_only_a_big_body_asks_first(
    size: int, asks: bool, transport: Transport, scripted: ScriptedAnswers, tmp_path: Path
) -> None:
    (tmp_path / "x.pdf").write_bytes(bytes(size))
    scripted.post(ORIGIN + PATH, status=201)
    with ThreadPoolExecutor(1) as executor:
        source = await inspect_file(tmp_path / "x.pdf", executor)
        body = CertificateBody(source, (), executor=executor, stall_timeout=1.0)
        await post(transport, body, fully_written=already)

    assert scripted.sent("POST")[0]["expect100"] is asks


async def test_a_server_that_cannot_be_asked_is_not_asked_again(
    transport: Transport, scripted: ScriptedAnswers, tmp_path: Path
) -> None:
    (tmp_path / "x.pdf").write_bytes(bytes(70_000))
    scripted.post(ORIGIN + PATH, status=417)
    scripted.post(ORIGIN + PATH, status=201, repeat=True)
    with ThreadPoolExecutor(1) as executor:
        source = await inspect_file(tmp_path / "x.pdf", executor)
        bodies = [CertificateBody(source, (), executor=executor, stall_timeout=1.0) for _ in range(3)]
        with pytest.raises(NotSent, match=r"Expect: 100-continue.*417") as caught:
            await post(transport, bodies[0])
        answers = [await post(transport, body, fully_written=already) for body in bodies[1:]]
        assert [answer.status for answer in answers] == [201, 201]

    assert caught.value.connected
    assert [options["expect100"] for options in scripted.sent("POST")] == [True, False, False]


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
    (aiohttp.SocketTimeoutError("s3cr3t"), "no answer within the time allowed"),
    (aiohttp.ServerDisconnectedError("s3cr3t"), "the server closed the connection without an answer"),
    (bad_http(), "the answer is not HTTP, or too long in its headers"),
    (
        aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"),
        "the connection broke: Connection reset by p",
    ),
    (aiohttp.ClientOSError("s3cr3t"), "the connection broke: lost"),
    (ConnectionResetError("s3cr3t"), "the connection broke: lost"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), "the connection broke: Broken pipe"),
    (TimeoutError("s3cr3t"), "the upload stopped moving"),
    (aiohttp.ClientPayloadError("s3cr3t"), "the connection broke"),
    (aiohttp.ClientError("s3cr3t"), "the connection broke"),
    (ValueError("s3cr3t"), "the connection broke"),
]


def named(cases: list[tuple[Any, str]]) -> list[Any]:
    return [pytest.param(*case, id=f"{type(case[0]).__name__}: {case[1]}") for case in cases]


@pytest.mark.parametrize(("failure", "reason"), named(UNCONNECTED))
async def test_without_a_connection_nothing_was_sent(
    failure: Exception, reason: str, transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.get(ORIGIN + PATH, exception=failure)
    scripted.post(ORIGIN + PATH, exception=failure)

    with pytest.raises(NotSent) as asked:
        await transport.get(PATH, {}, KEY)
    with pytest.raises(NotSent) as posted:
        await post(transport, body)

    for method, error in (("GET", asked.value), ("POST", posted.value)):
        assert error.reason.startswith(reason)
        assert (error.connected, error.where) == (False, f"{method} {ORIGIN}{PATH}")
        assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(("failure", "reason"), named(CONNECTED))
async def test_a_list_that_broke_off_has_no_answer_and_a_post_of_which_nothing_left_is_not_sent(
    failure: Exception, reason: str, transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.get(ORIGIN + PATH, exception=failure)
    scripted.post(ORIGIN + PATH, exception=failure)

    with pytest.raises(NoAnswer) as asked:
        await transport.get(PATH, {}, KEY)
    with pytest.raises(NotSent) as posted:
        await post(transport, body)

    for error in (asked.value, posted.value):
        assert error.reason.startswith(reason)
        assert "s3cr3t" not in str(error)
        assert (error.__cause__, error.__context__) == (None, None)
    assert posted.value.connected


@pytest.mark.parametrize(("failure", "reason"), named(CONNECTED))
async def test_a_post_that_broke_off_after_its_last_byte_was_handed_over_has_no_answer(
    failure: Exception, reason: str, transport: Transport, scripted: ScriptedAnswers, body: CertificateBody
) -> None:
    scripted.post(ORIGIN + PATH, exception=failure)

    with pytest.raises(NoAnswer) as caught:
        await post(transport, body, fully_written=already)

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


async def test_a_session_that_is_not_open_says_so(body: CertificateBody) -> None:
    transport = Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests")
    with pytest.raises(RuntimeError, match="use it inside `async with`"):
        await transport.get(PATH, {}, KEY)

    async with transport:
        pass
    with pytest.raises(RuntimeError, match="use it inside `async with`"):
        await post(transport, body)


async def test_the_repr_says_whether_it_is_open() -> None:
    transport = Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests")
    assert repr(transport) == f"<Transport {ORIGIN}, closed>"

    async with transport:
        assert repr(transport) == f"<Transport {ORIGIN}, open>"

    assert repr(transport) == f"<Transport {ORIGIN}, closed>"


async def test_the_timeouts_are_handed_to_the_session_and_none_is_for_a_whole_upload() -> None:
    timeouts = Timeouts(connect=1.5, answer=2.5, stall=3.5)
    async with Transport(ORIGIN, timeouts=timeouts, user_agent="tests") as transport:
        assert transport._session is not None
        found = transport._session.timeout

    assert (found.total, found.connect, found.sock_connect, found.sock_read) == (None, None, 1.5, 2.5)


@pytest.mark.parametrize("name", ["connect", "answer", "stall"])
@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("nan"), 3601, float("inf")])
def test_a_time_that_nothing_can_take_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        Timeouts(**{name: seconds})


async def test_a_session_of_ones_own_lends_its_connector_headers_and_cookies_and_stays_open() -> None:
    async with aiohttp.ClientSession(headers={"X-Team": "HR", "User-Agent": "theirs"}) as own:
        async with Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests", session=own) as transport:
            assert transport._session is not None
            assert transport._session is not own
            assert transport._session.connector is own.connector
            assert transport._session.cookie_jar is own.cookie_jar
            assert dict(transport._session.headers) == {"X-Team": "HR", "User-Agent": "tests"}

        assert not own.closed
        assert own.connector is not None
        assert not own.connector.closed


async def test_a_session_of_its_own_is_closed() -> None:
    async with Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests") as transport:
        session = transport._session
        assert session is not None
        assert not session.closed

    assert session.closed


async def test_cookies_of_the_server_are_not_kept() -> None:
    async with Transport(ORIGIN, timeouts=Timeouts(), user_agent="tests") as transport:
        assert transport._session is not None
        transport._session.cookie_jar.update_cookies({"session": "1"}, URL(ORIGIN))

        assert len(transport._session.cookie_jar) == 0
