"""The key is in the request line and nowhere else: in no error, no cause of one, no log and no repr."""

import asyncio
import html
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import attrs
import pytest
import stamina
from aiohttp.abc import AbstractResolver, ResolveResult

from springest_async import (
    CancelledTooLate,
    CertificateUpload,
    ConfigurationError,
    InDoubt,
    Limiter,
    NotSent,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    UnreadableAnswer,
)
from springest_async.protocol import Answer, words
from springest_async.retry import Step
from springest_async.transport import ApiKey, Transport

from .raw_server import Behaviour, Exchange, RawServer, created, raw_server

KEY = "s3cr3t+/=&%é"
# Its beginning is in each form, and in nothing else; the forms say how much of the key a leak would have shown.
FORMS = {KEY, quote(KEY), quote(KEY, safe=""), quote_plus(KEY), KEY.encode().decode("latin-1"), "s3cr3t"}


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.delivery.backoff", lambda _: 0.01)


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "aiohttp", "stamina", "springest_async"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@asynccontextmanager
async def client_of(server: RawServer, **settings: Any) -> AsyncIterator[Springest]:
    asyncio.get_running_loop().set_debug(True)  # asyncio then logs what it does, with the objects it does it to
    options: dict[str, Any] = {
        "limiter": Limiter(),
        "timeouts": Timeouts(connect=0.2, answer=0.3, stall=0.3),
    } | settings
    async with Springest(
        api_key=KEY, certifications_api_key=KEY, host=server.origin, settings=Settings(**options)
    ) as springest:
        yield springest


def leaks(text: str) -> list[str]:
    return sorted(form for form in FORMS if form in text)


def family(error: BaseException | None) -> list[BaseException]:
    """Give an error and all that hangs on it."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        member = waiting.pop()
        if member is not None and member not in found:
            found.append(member)
            waiting += [member.__cause__, member.__context__]
            waiting += getattr(member, "exceptions", ())
    return found


def all_texts(error: BaseException) -> list[str]:
    texts = ["".join(traceback.format_exception(error))]
    for member in family(error):
        texts += [str(member), repr(member), repr(member.args), repr(vars(member))]
        if attrs.has(type(member)):
            values = attrs.asdict(member, recurse=False)  # type: ignore[arg-type] # an attrs class, each of them
            texts += [repr(values), str(pickle.dumps(member)), str(getattr(member, "__notes__", ""))]
    return texts


def all_logs(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = []
    for record in caplog.records:
        texts += [record.getMessage(), repr(record.__dict__), repr(record.args)]
        if record.exc_info and record.exc_info[1] is not None:
            texts += all_texts(record.exc_info[1])
    return texts


async def taken(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read()


def answering(status: int, body: Callable[[str], bytes], **headers: str) -> Behaviour:
    """Answer with what `body` makes of the request line, and headers in which {line} and {target} stand for it."""

    async def behaviour(exchange: Exchange) -> None:
        await taken(exchange)
        target = exchange.line.split()[1]
        filled = {name: value.format(target=target, line=exchange.line) for name, value in headers.items()}
        await exchange.answer(status, body(exchange.line), **filled)

    return behaviour


async def hangs_up(exchange: Exchange) -> None:
    await taken(exchange)
    exchange.hang_up()


async def resets(exchange: Exchange) -> None:
    await taken(exchange)
    exchange.reset()


async def resets_at_once(exchange: Exchange) -> None:
    exchange.reset()


async def falls_silent(exchange: Exchange) -> None:
    await taken(exchange)
    await asyncio.sleep(5)


async def echoes_without_http(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.send(exchange.line.encode() + b"\r\n\r\n")
    exchange.hang_up()


async def echoes_in_a_huge_header(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.answer(400, b"", X_Echo=exchange.line * 500)


async def breaks_off_its_echo(exchange: Exchange) -> None:
    await taken(exchange)
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + exchange.line.encode())
    exchange.hang_up()


def raw(line: str) -> bytes:
    return f"No route matches {line} ({KEY})".encode()


def page(line: str) -> bytes:
    return f"<html><h1>{html.escape(line)}</h1><p>{html.escape(KEY)}</p></html>".encode()


def page_by_rack(line: str) -> bytes:
    return page(line).replace(b"/=", b"&#x2F;=")


def as_json(line: str) -> bytes:
    return json.dumps({"errors": [f"Email is invalid: {KEY}"], "line": line}).encode()


def as_json_by_rails(line: str) -> bytes:
    return json.dumps({"errors": {"email": [f"is invalid {KEY}"]}, "line": line}).replace("&", r"\u0026").encode()


def as_xml(line: str) -> bytes:
    errors = [f"Email is invalid {KEY}", line]
    return f"<errors>{''.join(f'<error>{html.escape(error)}</error>' for error in errors)}</errors>".encode()


def in_lower_case(line: str) -> bytes:
    for code in ("%2B", "%2F", "%3D", "%C3%A9"):
        line = line.replace(code, code.lower())
    return line.encode()


ECHOES = [raw, page, page_by_rack, as_json, as_json_by_rails, as_xml, in_lower_case]
BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.__name__: behaviour
    for behaviour in (
        hangs_up,
        resets,
        resets_at_once,
        falls_silent,
        echoes_without_http,
        echoes_in_a_huge_header,
        breaks_off_its_echo,
    )
}
BEHAVIOURS |= {f"{status} raw": answering(status, raw) for status in (200, 202, 400, 401, 404, 408, 417, 422, 500, 503)}
BEHAVIOURS |= {f"400 {echo.__name__}": answering(400, echo) for echo in ECHOES}
BEHAVIOURS["302"] = answering(302, raw, Location="https://other.example{target}")
BEHAVIOURS["302, relative"] = answering(302, raw, Location="{target}")
BEHAVIOURS["403, Retry-After"] = answering(403, raw, Retry_After="{target}")


async def error_of(springest: Springest, upload: CertificateUpload | None) -> SpringestError:
    """Give what an upload, or without one a list, fails with."""
    call = anext(springest.certifications()) if upload is None else springest.upload(upload)
    with pytest.raises(SpringestError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_no_error_of_an_upload_and_no_log_shows_the_key(
    name: str, upload: CertificateUpload, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An unknown 400 would cost a silent minute: here it is enough that its error is raised.
    monkeypatch.setattr("springest_async.retry.Verdicts.judge", lambda *_, **__: Step.REJECT)
    async with raw_server(BEHAVIOURS[name]) as server, client_of(server) as springest:
        error = await error_of(springest, upload)
        shown = [repr(springest), repr(springest.settings)]

    assert [found for text in all_texts(error) for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []
    assert [found for text in shown for found in leaks(text)] == []
    assert quote(KEY, safe="") in server.lines[0]


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_no_error_of_a_list_and_no_log_shows_the_key(name: str, logged: pytest.LogCaptureFixture) -> None:
    with stamina.set_testing(True, attempts=2):
        async with raw_server(BEHAVIOURS[name]) as server, client_of(server) as springest:
            error = await error_of(springest, None)

    assert [found for text in all_texts(error) for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []
    assert quote(KEY, safe="") in server.lines[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_failed_connection_does_not_show_the_key(
    scheme: str, upload: CertificateUpload, logged: pytest.LogCaptureFixture
) -> None:
    async with raw_server(created) as gone:
        pass
    gone.origin = gone.origin.replace("http", scheme)
    with stamina.set_testing(True, attempts=2):
        async with client_of(gone) as springest:
            errors = [await error_of(springest, upload), await error_of(springest, None)]

    assert [found for error in errors for text in all_texts(error) for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []


class NoSuchName(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        raise OSError(-2, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_a_name_that_cannot_be_resolved_does_not_show_the_key(
    upload: CertificateUpload, logged: pytest.LogCaptureFixture
) -> None:
    nowhere = RawServer([], origin="https://api.springest.example")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoSuchName())) as own:
        with stamina.set_testing(True, attempts=2):
            async with client_of(nowhere, session=own) as springest:
                errors = [await error_of(springest, upload), await error_of(springest, None)]

    assert [error.reason for error in errors if hasattr(error, "reason")] == ["the host's name cannot be resolved"] * 2
    assert [found for error in errors for text in all_texts(error) for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []


async def test_a_success_logs_no_key(upload: CertificateUpload, logged: pytest.LogCaptureFixture) -> None:
    async with raw_server(created) as server, client_of(server) as springest:
        receipt = await springest.upload(upload)

    assert leaks(repr(receipt)) == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []
    assert any(record.name == "asyncio" for record in logged.records), "nothing was logged, so nothing was tested"


def hanging_after(head: bytes) -> Behaviour:
    """Take all, say so much of an answer, and then nothing more."""

    async def behaviour(exchange: Exchange) -> None:
        await taken(exchange)
        await exchange.send(head.replace(b"{line}", exchange.line.encode()))
        await asyncio.sleep(5)

    return behaviour


async def hangs_at_once(_: Exchange) -> None:
    await asyncio.sleep(5)


# What the server has said when the upload is cancelled, and what the certificate is then.
CANCELLED: dict[str, tuple[Behaviour, type[SpringestError]]] = {
    "nothing": (hanging_after(b""), InDoubt),
    "half a head": (hanging_after(b"HTTP/1.1 201 Cre"), InDoubt),
    "half a head, X-Echo": (hanging_after(b"HTTP/1.1 201 Created\r\nX-Echo: {line}"), InDoubt),
    "500": (hanging_after(b"HTTP/1.1 500 Oops\r\nContent-Length: 9999\r\n\r\nOops"), InDoubt),
    "500, echo": (hanging_after(b"HTTP/1.1 500 {line}\r\nContent-Length: 9999\r\n\r\n{line}"), InDoubt),
    "201": (hanging_after(b"HTTP/1.1 201 Created\r\nContent-Length: 9999\r\n\r\n{"), CancelledTooLate),
    "201, echo": (hanging_after(b"HTTP/1.1 201 {line}\r\nContent-Length: 9999\r\n\r\n{line}"), CancelledTooLate),
    "400": (hanging_after(b"HTTP/1.1 400 Bad\r\nContent-Length: 9999\r\n\r\nBad"), NotSent),
    "400, echo": (hanging_after(b"HTTP/1.1 400 {line}\r\nContent-Length: 9999\r\n\r\n{line}"), NotSent),
    "302, echo": (
        hanging_after(b"HTTP/1.1 302 Found\r\nLocation: https://x.example/{line}\r\nContent-Length: 9\r\n\r\n"),
        NotSent,
    ),
    "not even to go on": (hangs_at_once, NotSent),
}


def locals_of(error: BaseException) -> list[str]:
    """Give all that a tracker of errors would find in the frames of an error, but for those of the tests."""
    return [
        f"{frame.f_code.co_qualname} {name} = {value!r}"
        for member in family(error)
        for frame, _ in traceback.walk_tb(member.__traceback__)
        if Path(__file__).parent.parent not in Path(frame.f_code.co_filename).parents
        for name, value in frame.f_locals.items()
    ]


@pytest.mark.parametrize("name", CANCELLED)
@pytest.mark.parametrize("by_timeout", [True, False])
async def test_cancelling_does_not_show_the_key(
    by_timeout: bool,
    name: str,
    make_upload: Callable[..., CertificateUpload],
    tmp_path: Path,
    logged: pytest.LogCaptureFixture,
) -> None:
    behaviour, kind = CANCELLED[name]
    (tmp_path / "x.pdf").write_bytes(bytes(100_000 if name == "not even to go on" else 1000))
    timeouts = Timeouts(connect=1.0, answer=5.0, stall=1.0)
    async with raw_server(behaviour) as server, client_of(server, timeouts=timeouts) as springest:
        task = asyncio.create_task(springest.upload(make_upload(file=tmp_path / "x.pdf")))
        await asyncio.wait([task], timeout=0.2)
        shown = [repr(task)]
        if not by_timeout:
            task.cancel()
        with pytest.raises((TimeoutError, asyncio.CancelledError)) as caught:
            await asyncio.wait_for(task, 0.01)
        error: BaseException = caught.value
        cancelled = error.__cause__ if by_timeout else error
        assert cancelled is not None
        shown += [repr(task), repr(springest)]

    assert type(cancelled.__cause__) is kind
    assert cancelled.__cause__ in family(error)
    assert [found for text in [*shown, *all_texts(error)] for found in leaks(text)] == []
    if "cho" not in name:  # what a server has just sent back is in the frames that were reading it, as it came
        assert any("Delivery" in text for text in locals_of(error)), "no frame was looked into: nothing was tested"
        assert [found for text in locals_of(error) for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []
    assert quote(KEY, safe="") in server.lines[0]


async def test_a_cancellation_that_waits_for_the_next_try_does_not_show_the_key(
    upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("springest_async.delivery.backoff", lambda _: 10.0)
    async with raw_server(created) as gone:
        pass
    async with client_of(gone) as springest:
        task = asyncio.create_task(springest.upload(upload))
        await asyncio.wait([task], timeout=0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task

    assert isinstance(caught.value.__cause__, NotSent)
    assert [found for text in [*locals_of(caught.value), *all_texts(caught.value)] for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []


async def test_settling_a_doubt_does_not_show_the_key(
    upload: CertificateUpload, logged: pytest.LogCaptureFixture
) -> None:
    def nothing_listed(line: str) -> bytes:
        return json.dumps({"certificates": [], "meta": {"results": 0}, "line": line}).encode()

    async with raw_server(hangs_up, answering(200, nothing_listed)) as server, client_of(server) as springest:
        doubt = await error_of(springest, upload)
        assert isinstance(doubt, InDoubt)
        with pytest.raises(UnreadableAnswer) as unreadable:  # for the certifications
            await springest.settle(doubt)
        springest._certifications_key = None
        with pytest.raises(InDoubt) as caught:
            await springest.settle(doubt)

    for error in (unreadable.value, caught.value):
        assert [found for text in [*locals_of(error), *all_texts(error)] for found in leaks(text)] == []
    assert [found for text in all_logs(logged) for found in leaks(text)] == []


async def test_a_mistake_in_a_listener_does_not_show_the_key(upload: CertificateUpload) -> None:
    def broken(step: object) -> None:
        raise LookupError(step)

    async with raw_server(created) as server, client_of(server) as springest:
        with pytest.raises(LookupError) as caught:
            await springest.upload(upload, listener=broken)

    assert [found for text in all_texts(caught.value) for found in leaks(text)] == []
    assert server.connections == 0


@pytest.mark.parametrize("name", ["api_key", "certifications_api_key"])
def test_a_key_that_is_no_text_is_not_shown_by_its_error(name: str) -> None:
    keys: dict[str, Any] = {"api_key": "other"} | {name: KEY + "\udce9"}
    with pytest.raises(ConfigurationError) as caught:
        Springest(**keys)

    assert family(caught.value) == [caught.value]
    assert [found for text in all_texts(caught.value) for found in leaks(text)] == []


def test_no_repr_shows_the_key() -> None:
    settings = Settings(limiter=Limiter())
    springest = Springest(api_key=KEY, certifications_api_key=KEY, settings=settings)
    transport = Transport("https://api.springest.nl", timeouts=Timeouts(), user_agent="x")

    for shown in (springest, settings, transport, ApiKey(KEY), springest.limiter, vars(springest), vars(transport)):
        assert leaks(repr(shown)) == []
        assert leaks(str(shown)) == []


def test_words_made_of_a_cleaned_body_hold_no_key() -> None:
    for echo in ECHOES:
        line = f"GET /x?api_key={quote(KEY, safe='')} HTTP/1.1"
        assert leaks(words(Answer(400, {}, ApiKey(KEY).hide_in(echo(line))))) == [], echo.__name__


def test_what_this_file_looks_for_is_found_when_it_is_there() -> None:
    cause, context = SpringestError(), LookupError("x")
    cause.__context__, context.__cause__ = context, ValueError(quote(KEY))

    error = ConfigurationError("x")
    error.__cause__ = cause

    assert quote(KEY) in [found for text in all_texts(error) for found in leaks(text)]
