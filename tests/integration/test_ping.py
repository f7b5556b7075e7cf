"""The ping on real sockets: what a monitoring service gets, and who never sees the token in its address."""

import asyncio
import functools
import json
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from springest_async import ConfigurationError
from springest_async.http.ping import Ping
from tests.pdfs import archive

from .canary import KEY, leaks, watching
from .command import end, environment, springest_sandbox, start
from .connect_proxy import ConnectProxy
from .raw_server import Behaviour, Exchange, RawServer, raw_server
from .tls import Authority
from .wire import closed_port

TOKEN = quote(KEY, safe="")
TARGET = f"/ping/{TOKEN}?k={TOKEN}"


def ping_to(origin: str, *, seconds: float = 60.0) -> Ping:
    return Ping(f"{origin}{TARGET}", user_agent="springest_async/0", seconds=seconds)


async def takes(exchange: Exchange) -> None:
    await exchange.read()
    await exchange.answer(200, b"OK")


def answers(status: int, **headers: str) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.answer(status, f"what is {exchange.line}?".encode(), **headers)

    return behaviour


async def hangs_up(exchange: Exchange) -> None:
    await exchange.read()
    exchange.hang_up()


async def waits(exchange: Exchange) -> None:
    await exchange.read()
    await asyncio.Event().wait()


def documents(server: RawServer) -> list[object]:
    return [json.loads(bytes(exchange.body)) for exchange in server.exchanges]


async def test_the_document_is_posted_as_json_to_the_whole_address() -> None:
    async with raw_server(takes) as server, ping_to(server.origin) as ping:
        assert await ping.post({"event": "begin"}) == ""
        assert await ping.post({"event": "end"}) == ""

    assert server.lines == [f"POST {TARGET} HTTP/1.1"] * 2
    assert documents(server) == [{"event": "begin"}, {"event": "end"}]
    assert server.exchanges[0].header("Content-Type") == "application/json"
    assert ping.origin == server.origin


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (answers(404), "it answered 404"),
        (answers(500), "it answered 500"),
        (answers(302, Location="https://elsewhere.example/"), "it answered 302"),
        (hangs_up, "the server closed the connection without an answer"),
    ],
)
async def test_a_failure_says_why_and_shows_no_token(behaviour: Behaviour, words: str) -> None:
    async with raw_server(behaviour) as server:
        with watching() as witness:
            async with ping_to(server.origin) as ping:
                assert ping._session is not None
                config = aiohttp.TraceConfig()
                for name in [name for name in dir(config) if name.startswith("on_")]:
                    getattr(config, name).append(functools.partial(witness._told, name))
                config.freeze()
                ping._session.trace_configs.append(config)
                assert await ping.post({"event": "begin"}) == words
                witness.look_at("ping", ping)

    assert witness.places["on_request_start"] == 1
    assert witness.leaks == []


async def test_nobody_there_is_a_failure() -> None:
    async with ping_to(f"http://127.0.0.1:{closed_port()}") as ping:
        assert await ping.post({}) == "no connection: Connection refused"


async def test_a_service_without_an_answer_is_given_up() -> None:
    async with raw_server(waits) as server, ping_to(server.origin, seconds=0.2) as ping:
        assert await ping.post({}) == "no answer within 0 seconds"


async def test_a_wrong_address_is_in_no_variable_of_its_error() -> None:
    with watching() as witness:
        for origin in ("http://ping.example", "https://a:b@ping.example"):
            with pytest.raises(ConfigurationError) as caught:
                ping_to(origin)
            witness.look_at_error("address", caught.value)

    assert witness.leaks == []


async def test_the_command_pings_at_both_ends_through_a_proxy(tmp_path: Path) -> None:
    """Over TLS, with the CA and the proxy of the environment, and in no words of it the token."""
    authority = Authority(tmp_path / "tls")
    manifest = archive(tmp_path, 2)
    proxy = ConnectProxy()
    async with (
        springest_sandbox() as sandbox,
        raw_server(takes, tls=authority.right(), name="springest.test") as server,
        raw_server(proxy) as front,
    ):
        env = environment(
            sandbox.origin,
            SPRINGEST_PING=f"{server.origin}{TARGET}",
            SSL_CERT_FILE=str(authority.file),
            HTTPS_PROXY=front.origin,
        )
        ran = await end(await start("upload", manifest, env=env))

    assert ran.code == 0
    assert server.lines == [f"POST {TARGET} HTTP/1.1"] * 2
    assert [json.loads(bytes(exchange.body))["event"] for exchange in server.exchanges] == ["begin", "end"]
    assert proxy.heads[0][0].startswith("CONNECT springest.test:")
    assert leaks(bytes(proxy.passed)) == []


async def test_a_failing_ping_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    async with springest_sandbox() as sandbox, raw_server(answers(503)) as server:
        env = environment(sandbox.origin, SPRINGEST_PING=f"{server.origin}{TARGET}")
        ran = await end(await start("upload", archive(tmp_path, 2), env=env))

    assert ran.code == 0
    assert len(server.lines) == 2
    assert ran.err.count("cannot be pinged") == 1
    assert f"Warning: {server.origin} cannot be pinged (it answered 503). The upload goes on." in ran.err
