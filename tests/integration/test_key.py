"""The key is in the request line and in nothing that is shown: no error, no log, no trace, no repr, no variable.

What is not here: uploads through all faults are looked at in the same way by the catalogue's `measure`, and the
command in ``test_key_of_the_command.py``.
"""

import asyncio
import base64
import contextlib
import gc
import html
import json
import logging
import os
import socket
import struct
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import attrs
import pytest
import stamina
from yarl import URL

from springest_async import (
    CancelledTooLate,
    CertificateUpload,
    ConfigurationError,
    InDoubt,
    Journal,
    Limiter,
    NotFound,
    NotSent,
    Settings,
    Springest,
    SpringestError,
    UnreadableAnswer,
    UnusableFile,
    UploadStep,
)
from springest_async.cli import environment
from springest_async.sandbox import Sandbox
from tests.waiting import A_WHILE, heard, until

from .canary import CERTIFICATIONS_KEY, KEY, Witness, leaks, watching
from .faults.echoes import ESCAPES, echoing
from .raw_server import Behaviour, Exchange, RawServer, created, raw_server
from .wire import PATIENT


@pytest.fixture(autouse=True)
def _hardly_any_backoff(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    """Return a witness of logs, stdout and stderr as long as the test runs; what it found is asserted here."""
    with watching() as witness:
        yield witness
    assert witness.leaks == []


@asynccontextmanager
async def client_of(server: RawServer, witness: Witness, **settings: Any) -> AsyncIterator[Springest]:
    options: dict[str, Any] = {"limiter": Limiter(), "timeouts": PATIENT} | settings
    async with Springest(
        api_key=KEY, certifications_api_key=CERTIFICATIONS_KEY, host=server.origin, settings=Settings(**options)
    ) as client:
        witness.trace(client)
        yield client
        witness.look_at("client", client)


async def list_all(client: Springest) -> None:
    async for _ in client.certificates():
        pass


# --- lists: servers that say the key, and lines that break ---


def page(status: str, body: bytes, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", "Content-Length: {length}", *headers, "", "")).encode() + body


async def hangs_up(exchange: Exchange) -> None:
    await exchange.read()
    exchange.hang_up()


async def resets(exchange: Exchange) -> None:
    exchange.reset()


BEHAVIOURS: dict[str, Behaviour] = {f"404 {name}": echoing(page("404 x", b"{both}"), ESCAPES[name]) for name in ESCAPES}
BEHAVIOURS |= {f"200 {name}": echoing(page("200 x", b"{both}"), ESCAPES[name]) for name in ESCAPES}
BEHAVIOURS |= {
    "reason": echoing(page("500 {both}", b"")),
    "header": echoing(page("403 x", b"", "X-Echo: {both}", "Set-Cookie: {both}=1")),
    "Location": echoing(page("302 x", b"", "Location: {target}")),
    "record": echoing(page("200 x", b'[{"id": 1, "certification_id": "{line}"}]')),
    "half an answer": echoing(b"HTTP/1.1 200 x\r\nContent-Length: 9999\r\n\r\n{both}"),
    "half a head": echoing(b"HTTP/1.1 200 x\r\nX-Echo: {both}\r\n"),
    "no HTTP": echoing(b"{both}\r\n\r\n"),
    "interim answer": echoing(b"HTTP/1.1 102 x\r\nX-Echo: {both}\r\n\r\n", silent=True),
    "silence": echoing(b"", silent=True),
    "hangs up": hangs_up,
    "resets": resets,
}


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_a_list_that_fails_does_not_show_the_key(name: str, witness: Witness) -> None:
    impatient = attrs.evolve(PATIENT, answer=0.3)
    async with raw_server(BEHAVIOURS[name]) as server, client_of(server, witness, timeouts=impatient) as client:
        with pytest.raises(SpringestError) as caught:
            await list_all(client)
        witness.look_at_error("error", caught.value)

    assert f"api_key={quote(KEY, safe='')}" in server.lines[0]


def resetting(listener: socket.socket) -> None:
    """Reset each connection as soon as it is there, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


async def test_a_connection_that_breaks_early_does_not_show_the_key(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    large = tmp_path / "large.pdf"
    large.write_bytes(b"%PDF-1.7".ljust(200_000))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer([], origin=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=resetting, args=(listener,))
        thread.start()
        try:
            async with client_of(server, witness, limiter=Limiter(posts=1000)) as client:
                for _ in range(20):  # four tries each, of which about half break just then
                    with pytest.raises(NotSent) as caught:
                        await client.upload(make_upload(file=large))
                    witness.look_at_error("error", caught.value)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    gc.collect()

    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_failed_connection_does_not_show_the_key(
    scheme: str, upload: CertificateUpload, witness: Witness
) -> None:
    async with raw_server(created) as gone:
        pass
    gone.origin = gone.origin.replace("http", scheme)
    async with client_of(gone, witness) as client:
        for call in (client.upload(upload), list_all(client)):
            with pytest.raises(NotSent) as caught:
                await call
            witness.look_at_error("error", caught.value)


async def test_settling_a_doubt_does_not_show_the_key(upload: CertificateUpload, witness: Witness) -> None:
    listed = echoing(page("200 x", b'{"certificates": [], "meta": {"results": 0}, "line": "{line}"}'))
    async with raw_server(hangs_up, listed) as server, client_of(server, witness) as client:
        with pytest.raises(InDoubt) as doubt:
            await client.upload(upload)
        with pytest.raises(UnreadableAnswer) as unreadable:  # for the certifications
            await client.settle(doubt.value)
        for error in (doubt.value, unreadable.value):
            witness.look_at_error("error", error)

    assert f"api_key={quote(CERTIFICATIONS_KEY, safe='')}" in server.lines[-1]


async def test_a_request_that_was_written_has_no_key_any_more(
    upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    targets = []
    send = aiohttp.ClientRequest.send

    async def written(request: aiohttp.ClientRequest, connection: Any) -> aiohttp.ClientResponse:
        try:
            return await send(request, connection)
        finally:
            targets.append(request.url.raw_path_qs)

    monkeypatch.setattr(aiohttp.ClientRequest, "send", written)
    async with raw_server(created) as server, client_of(server, witness) as client:
        await client.upload(upload)

    assert targets == ["/users/certificates.json"]


def becomes_shorter(file: Path) -> None:
    os.truncate(file, 1_000_000)


def becomes_longer(file: Path) -> None:
    os.truncate(file, 3_000_000)


@pytest.mark.parametrize("change", [becomes_shorter, becomes_longer])
async def test_a_file_that_was_changed_does_not_show_the_key(
    change: Callable[[Path], None], make_upload: Callable[..., CertificateUpload], tmp_path: Path, witness: Witness
) -> None:
    def listen(step: UploadStep) -> None:
        if step.kind == "sending":
            change(file)

    file = tmp_path / "x.pdf"
    file.write_bytes(b"%PDF-1.7".ljust(2_000_000))
    async with raw_server(created) as server, client_of(server, witness) as client:
        with pytest.raises(UnusableFile) as caught:
            await client.upload(make_upload(file=file), listener=listen)
        witness.look_at_error("error", caught.value)

    assert f"api_key={quote(KEY, safe='')}" in server.lines[0]


async def test_a_file_that_shrinks_on_the_way_does_not_show_the_key(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path, witness: Witness
) -> None:
    async def shortens_it(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read(1_000_000)
        becomes_shorter(file)
        await exchange.read()

    file = tmp_path / "x.pdf"
    file.touch()
    os.truncate(file, 32_000_000)  # more than any system takes ahead
    async with raw_server(shortens_it) as server, client_of(server, witness) as client:
        with pytest.raises(UnusableFile) as caught:
            await client.upload(make_upload(file=file))
        witness.look_at_error("error", caught.value)

    assert caught.value.reason == "became shorter while it was being read"


# --- cancellations: what was under way is in the variables of the frames ---


async def goes_silent(exchange: Exchange) -> None:
    await asyncio.get_running_loop().create_future()


# What the server has said when the request is cancelled, and what the certificate is then.
CANCELLED: dict[str, tuple[Behaviour, type[SpringestError]]] = {
    name: (echoing(said, silent=True), kind)
    for name, said, kind in (
        ("nothing", b"", InDoubt),
        ("half a head", b"HTTP/1.1 201 Created\r\nX-Echo: {both}", InDoubt),
        ("an interim answer", b"HTTP/1.1 102 {line}\r\nX-Echo: {both}\r\n\r\n", InDoubt),
        ("500", b"HTTP/1.1 500 {line}\r\nContent-Length: 9999\r\nX-Echo: {both}\r\n\r\n{both}", InDoubt),
        ("201", b"HTTP/1.1 201 {line}\r\nContent-Length: 9999\r\nX-Echo: {both}\r\n\r\n{both}", CancelledTooLate),
        ("400", b"HTTP/1.1 400 {line}\r\nContent-Length: 9999\r\nX-Echo: {both}\r\n\r\n{both}", NotSent),
        ("302", b"HTTP/1.1 302 {line}\r\nContent-Length: 9999\r\nLocation: {target}\r\n\r\n{both}", NotSent),
    )
}
CANCELLED["not even to go on"] = (goes_silent, NotSent)


async def said(name: str, server: RawServer, witness: Witness) -> None:
    """Wait until all was said and heard."""
    await until(lambda: len(server.exchanges) == 1)
    exchange = server.exchanges[0]
    await until(lambda: name == "not even to go on" or len(exchange.body) == exchange.length)
    await until(lambda: not name[0].isdigit() or witness.places["on_request_end"] > 0)
    await heard()
    if name != "an interim answer":  # aiohttp keeps that in a variable for as long as it waits for the real one
        witness.look_at_tasks("waiting")


async def cancelled(witness: Witness, task: "asyncio.Task[Any]", *, by_timeout: bool = False) -> BaseException:
    """Cancel a task, and look at it; give its CancelledError."""
    witness.read("task", repr(task))
    if not by_timeout:
        task.cancel()
    with pytest.raises(TimeoutError if by_timeout else asyncio.CancelledError) as caught:
        await (asyncio.wait_for(task, 0.01) if by_timeout else task)
    witness.look_at_error("error", caught.value)
    witness.read("task", repr(task))
    error = caught.value.__cause__ if by_timeout else caught.value
    assert isinstance(error, asyncio.CancelledError)
    return error


@pytest.mark.parametrize("name", CANCELLED)
@pytest.mark.parametrize("by_timeout", [True, False])
async def test_a_cancelled_upload_does_not_show_the_key(
    by_timeout: bool, name: str, make_upload: Callable[..., CertificateUpload], tmp_path: Path, witness: Witness
) -> None:
    behaviour, kind = CANCELLED[name]
    (tmp_path / "x.pdf").write_bytes(bytes(100_000 if name == "not even to go on" else 1000))
    async with raw_server(behaviour) as server, client_of(server, witness) as client:
        task = asyncio.create_task(client.upload(make_upload(file=tmp_path / "x.pdf")))
        await said(name, server, witness)
        error = await cancelled(witness, task, by_timeout=by_timeout)

    assert type(error.__cause__) is kind
    assert any("Transport._exchange" in place for place in witness.places), "no frame was looked into"
    assert f"api_key={quote(KEY, safe='')}" in server.lines[0]


@pytest.mark.parametrize("name", sorted(set(CANCELLED) - {"not even to go on"}))
async def test_a_cancelled_list_does_not_show_the_key(name: str, witness: Witness) -> None:
    async with raw_server(CANCELLED[name][0]) as server, client_of(server, witness) as client:
        task = asyncio.create_task(list_all(client))
        await said(name, server, witness)
        await cancelled(witness, task)


async def test_a_cancellation_between_two_tries_does_not_show_the_key(
    upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: A_WHILE)
    async with raw_server(created) as gone:
        pass
    async with client_of(gone, witness) as client:
        task = asyncio.create_task(client.upload(upload))
        await until(lambda: witness.places["on_request_exception.exception"] > 0)
        await heard()
        error = await cancelled(witness, task)

    assert isinstance(error.__cause__, NotSent)


# --- what a caller does ---


async def test_a_mistake_in_a_listener_does_not_show_the_key(upload: CertificateUpload, witness: Witness) -> None:
    def broken(step: object) -> None:
        raise LookupError(step)

    async with raw_server(created) as server, client_of(server, witness) as client:
        with pytest.raises(LookupError) as caught:
            await client.upload(upload, listener=broken)
        witness.look_at_error("error", caught.value)

    assert server.connections == 0


@pytest.mark.parametrize(
    "signal",
    ["on_request_start", "on_request_headers_sent", "on_request_chunk_sent", "on_request_end", "on_request_exception"],
)
async def test_a_mistake_in_a_trace_does_not_show_the_key(
    signal: str, upload: CertificateUpload, witness: Witness
) -> None:
    async def broken(*_: object) -> None:
        raise LookupError("a mistake")

    config = aiohttp.TraceConfig()
    getattr(config, signal).append(broken)
    async with (
        raw_server(echoing(b"{both}" if signal == "on_request_exception" else page("404 x", b"{both}"))) as server,
        client_of(server, witness) as client,
    ):
        # As instrumentation does that wraps aiohttp's sessions.
        config.freeze()
        for session in client._transport._sessions.values():
            session.trace_configs.append(config)
        with pytest.raises((LookupError, NotSent)) as caught:  # aiohttp makes a broken connection of some
            await client.upload(upload)
        witness.look_at_error("error", caught.value)


@pytest.mark.parametrize("name", ["api_key", "certifications_api_key"])
@pytest.mark.parametrize("wrong", [{}, {"host": "http://api.springest.nl"}], ids=["letters", "host"])
def test_a_client_that_cannot_be_made_does_not_show_the_key(wrong: dict[str, str], name: str) -> None:
    keys: dict[str, Any] = {"api_key": "other"} | {name: KEY + ("" if wrong else "\udce9")}
    with pytest.raises(ConfigurationError) as caught:
        Springest(**keys | wrong)
    keys.clear()

    witness = Witness()
    witness.look_at_error("error", caught.value)
    assert witness.leaks == []
    printed = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "self = <Springest, not made>" in printed


@pytest.mark.parametrize(
    "make",
    [
        lambda: environment.springest(Journal("journal.sqlite3")),
        environment.springest_for_certificates,
        environment.springest_for_certifications,
    ],
)
@pytest.mark.parametrize("wrong", [("SPRINGEST_HOST", "http://x.example"), ("HTTPS_PROXY", "ftp://x")])
def test_an_environment_that_is_wrong_does_not_show_the_key(
    wrong: tuple[str, str], make: Callable[[], Springest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRINGEST_API_KEY", KEY)
    monkeypatch.setenv("SPRINGEST_CERTIFICATIONS_API_KEY", CERTIFICATIONS_KEY)
    monkeypatch.setenv(*wrong)
    with pytest.raises(ConfigurationError) as caught:
        make()

    witness = Witness()
    witness.look_at_error("error", caught.value)
    assert witness.leaks == []


# --- the sandbox ---


async def test_a_sandbox_shows_a_key_in_no_audit_and_no_log(upload: CertificateUpload, witness: Witness) -> None:
    def fails() -> None:
        raise LookupError("a mistake in a test's script")

    async with Sandbox(api_key=KEY, certifications_api_key=CERTIFICATIONS_KEY) as sandbox:
        server = RawServer([], origin=sandbox.origin)
        async with client_of(server, witness) as client, aiohttp.ClientSession() as plain:
            upload = attrs.evolve(upload, certification_id=1)
            await client.upload(upload)
            sandbox.mishap = fails
            with pytest.raises(InDoubt):
                await client.upload(upload)
            sandbox.api_key = "another one"
            with pytest.raises(SpringestError):
                await client.upload(upload)
            with pytest.raises(SpringestError):
                await list_all(client)
            target = f"/users/certificates?api_key={quote(KEY, safe='')}"
            for line in (f"GET {target} HTTP/9.9", f"GET  {target}", f"BR\x00KEN {target} HTTP/1.1"):
                reader, writer = await asyncio.open_connection("127.0.0.1", URL(sandbox.origin).port)
                writer.write(f"{line}\r\nHost: x\r\nX-Key: {KEY}\r\n\r\n".encode())
                async with asyncio.timeout(A_WHILE):
                    assert b" 40" in await reader.readline()
                writer.close()
            async with plain.get(f"{sandbox.origin}/__audit") as answer:
                witness.read("/__audit", await answer.text())
        for post in sandbox.audit:
            witness.look_at("audit", post)
        witness.read("sandbox", repr(sandbox))

    assert {post.verdict for post in sandbox.audit} == {"stored", "failed", "unauthorized"}
    assert any(place.startswith("log of springest_async.sandbox") for place in witness.places)


# --- the canary sings ---


@pytest.mark.parametrize(
    "form",
    {
        "as it is": KEY,
        "the first half": KEY[:9],
        "the second half": KEY[-9:],
        "quote": quote(KEY),
        "quote, all": quote(KEY, safe=""),
        "quote_plus": quote_plus(CERTIFICATIONS_KEY),
        "small letters": quote(KEY).lower(),
        "twice": quote(quote(KEY)),
        "every letter": "".join(f"%{byte:02X}" for byte in KEY.encode()),
        "HTML": html.escape(KEY),
        "HTML, numbers": "".join(f"&#{ord(letter)};" for letter in KEY),
        "JSON": json.dumps(KEY),
        "JSON, numbers": "".join(f"\\u{ord(letter):04X}" for letter in KEY),
        "repr": repr(KEY),
        "ascii": ascii(KEY),
        "Latin-1": KEY.encode().decode("latin-1"),
        "UTF-16": KEY.encode("utf-16"),
        "hex": KEY.encode().hex(),
        **{f"base64, {before}": base64.b64encode(before.encode() + KEY.encode()) for before in ("", "u:", "user:")},
    }.items(),
    ids=lambda form: form[0],
)
def test_the_key_is_found_in_each_form(form: tuple[str, str | bytes]) -> None:
    shown = form[1]

    assert leaks(b"before " + (shown.encode() if isinstance(shown, str) else shown) + b" behind") != []


def test_nothing_is_found_where_nothing_is() -> None:
    assert leaks("canary yellow4 %63%61 Y2FuYX kestrel") == []


# A file of its own, because frames of the tests are not looked at.
_RAISE = compile("def give(error, cause, hidden): raise error from cause", "elsewhere.py", "exec")


def _raised(error: BaseException, cause: BaseException | None = None, *, hidden: object = None) -> BaseException:
    names: dict[str, Any] = {}
    exec(_RAISE, names)  # noqa: S102 # see above
    with pytest.raises(type(error)):
        names["give"](error, cause, hidden)
    return error


def _noted() -> BaseException:
    error = LookupError()
    error.add_note(KEY)
    return error


def _in_context() -> BaseException:
    error = LookupError()
    error.__context__ = ValueError(KEY)
    error.__suppress_context__ = True  # as `from None` does: it is there and not printed
    return error


class _ForPickle(LookupError):
    def __reduce__(self) -> tuple[type[LookupError], tuple[str]]:
        return LookupError, (KEY,)


class _ForRich:
    def __repr__(self) -> str:
        return "nothing"

    def __rich_repr__(self) -> Iterator[str]:
        yield KEY


@attrs.frozen
class Masked:
    value: str = attrs.field(repr=False)


@pytest.mark.parametrize(
    "error",
    {
        "message": LookupError(KEY),
        "argument": LookupError(1, b"x" + KEY.encode()),
        "attribute": NotFound("GET x", 404, quote(KEY)),
        "note": _noted(),
        "cause": _raised(LookupError(), ValueError(quote(KEY))),
        "context": _in_context(),
        "group": ExceptionGroup("x", [ValueError(), ExceptionGroup("y", [ValueError(KEY)])]),
        "variable": _raised(LookupError(), hidden=[{1: (KEY,)}]),
        "variable, by rich": _raised(LookupError(), hidden=_ForRich()),
        "pickle": _ForPickle(),
        "cause's variable": _raised(LookupError(), _raised(ValueError(), hidden=Path(quote(KEY)))),
        "URL": LookupError(URL(f"http://x/?api_key={quote(KEY, safe='')}", encoded=True)),
    }.items(),
    ids=lambda error: error[0],
)
def test_the_key_is_found_in_each_part_of_an_error(error: tuple[str, BaseException]) -> None:
    witness = Witness()
    witness.look_at_error("error", error[1])

    assert witness.leaks != []


async def test_the_key_is_found_in_logs_and_on_stdout_and_stderr() -> None:
    logger = logging.getLogger("aiohttp.client")
    shows: dict[str, Callable[[], object]] = {
        "log of aiohttp.client": lambda: logger.debug("asked for %s", URL(f"/?k={quote(KEY)}")),
        "log of aiohttp.client, args": lambda: logger.debug("asked for %.3s", KEY),
        "log of aiohttp.client, extra": lambda: logger.debug("asked", extra={"extra": KEY}),
        "log of aiohttp.client, give: hidden": lambda: logger.debug("x", exc_info=_raised(OSError(), hidden=KEY)),
        "stdout": lambda: sys.stdout.write(KEY),
        "stderr": lambda: sys.stderr.write(KEY),
    }
    for place, show in shows.items():
        with watching() as witness:
            show()
        assert place in {leak.partition(": b")[0] for leak in witness.leaks}, place


_WAIT = compile("async def wait(call, hidden): return await call", "elsewhere.py", "exec")


async def test_the_key_is_found_in_variables_of_frames_and_tasks(upload: CertificateUpload) -> None:
    names: dict[str, Any] = {}
    exec(_WAIT, names)  # noqa: S102 # see _RAISE
    with watching() as witness:
        async with (
            raw_server(created) as server,
            Springest(api_key="another-key", host=server.origin, settings=Settings(limiter=Limiter())) as client,
        ):
            witness.trace(client)
            await names["wait"](client.upload(upload), KEY)
            assert {leak.partition(": b")[0] for leak in witness.leaks} >= {"on_request_start, wait: hidden"}
            witness.leaks.clear()
            waits = asyncio.create_task(names["wait"](asyncio.sleep(60), KEY))
            await asyncio.sleep(0)
            witness.look_at_tasks("waiting")
            waits.cancel()

    assert {leak.partition(": b")[0] for leak in witness.leaks} == {"waiting, wait: hidden"}


class _Shown:
    def __repr__(self) -> str:
        return KEY


async def test_the_key_is_found_in_a_clients_parts_and_traces(upload: CertificateUpload) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.answer(404, b"")

    with watching() as witness:
        async with raw_server(refuses) as server:
            options = Settings(limiter=Limiter())
            async with Springest(api_key="another-key", host=server.origin, settings=options) as client:
                witness.trace(client)
                for session in client._transport._sessions.values():
                    session.headers["X-Other"] = CERTIFICATIONS_KEY
                with pytest.raises(NotFound):
                    await client.upload(upload)
                assert {leak.partition(".")[0] for leak in witness.leaks} >= {"on_request_start", "on_request_end"}
                witness.leaks.clear()
                for session in client._transport._sessions.values():
                    del session.headers["X-Other"]
                client._transport._user_agent = Masked(KEY)  # type: ignore[assignment] # anything that hides it badly
                witness.look_at("client", client)
                assert witness.leaks == []  # a class of the tests is not taken apart
                client._shown = {KEY}  # type: ignore[arg-type] # anywhere
                witness.look_at("client", client)
                assert witness.leaks != []
                witness.leaks.clear()
                client._shown = {_Shown()}  # type: ignore[arg-type] # where only its repr shows it
                witness.look_at("client", client)

    assert witness.leaks != []
