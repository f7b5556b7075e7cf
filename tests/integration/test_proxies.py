"""Through an HTTP proxy, on real sockets: it connects us, and learns the host and nothing else."""

import asyncio
import base64
import logging
from functools import partial
from pathlib import Path

import pytest
import stamina
from attrs import evolve

from springest_async import (
    CertificateUpload,
    ConfigurationError,
    NotSent,
    Settings,
)
from tests.waiting import until

from .command import KEY, assert_no_key_in, springest
from .connect_proxy import FAULTY, TOO_LATE, ConnectProxy
from .raw_server import Behaviour, Exchange, RawServer, either, form_of, raw_server
from .tls import Authority
from .wire import PATIENT, closed_port, ids
from .wire import client_of as plain_client_of

NAME, PASSWORD = "jan", "p4ss w/rd:é"
IN_ADDRESS = "jan:p4ss%20w%2Frd%3A%C3%A9"
AUTHORIZATION = f"Basic {base64.b64encode(f'{NAME}:{PASSWORD}'.encode()).decode()}"

client_of = partial(plain_client_of, api_key=KEY, certifications_api_key=KEY)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(autouse=True)
def _nothing_of_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)
    for variable in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def with_password(proxy: RawServer) -> str:
    return proxy.origin.replace("//", f"//{IN_ADDRESS}@")


def port_of(server: RawServer) -> str:
    return server.origin.rpartition(":")[2]


def assert_no_password_in(text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    secrets = (PASSWORD, IN_ADDRESS, AUTHORIZATION.removeprefix("Basic "), "p4ss")
    assert [secret for secret in secrets if secret.encode() in data] == []


# --- through it ---


async def test_a_proxy_learns_the_host_and_neither_key_nor_certificate(
    upload: CertificateUpload, authority: Authority
) -> None:
    proxy = ConnectProxy(AUTHORIZATION)
    # A name that nobody can resolve here: that is the proxy's business.
    async with (
        raw_server(either, tls=authority.right(), name="springest.test") as server,
        raw_server(proxy) as front,
        client_of(server.origin, ca_file=authority.file, proxy=with_password(front)) as client,
    ):
        assert await ids(client) == [7]
        assert (await client.upload(upload)).id == 5001

    assert form_of(server.exchanges[1])["file"].get_payload(decode=True) == upload.file.read_bytes()
    target = f"springest.test:{port_of(server)}"
    assert [line for line, _ in proxy.heads] == [f"CONNECT {target} HTTP/1.1"] * 2
    for _, headers in proxy.heads:
        told = {name: value for name, value in headers.items() if name not in ("Accept", "Accept-Encoding")}
        assert told.pop("User-Agent").startswith("springest_async/")
        assert told == {"Host": target, "Proxy-Authorization": AUTHORIZATION}
    assert b"springest.test" in proxy.passed  # the name in TLS, in the clear
    assert_no_key_in(bytes(proxy.passed) + repr(proxy.heads).encode())
    assert upload.email.encode() not in proxy.passed
    assert upload.file.read_bytes()[:40] not in proxy.passed
    for exchange in server.exchanges:
        assert exchange.header("Proxy-Authorization") is None


async def test_through_a_proxy_posts_and_lists_share_no_connection(
    upload: CertificateUpload, authority: Authority
) -> None:
    proxy, all_five = ConnectProxy(), asyncio.Barrier(5)

    async def together(exchange: Exchange) -> None:
        if exchange.line.startswith("POST"):
            await all_five.wait()
        await either(exchange)

    behaviours = [either] * 5 + [together]
    async with raw_server(*behaviours, tls=authority.right()) as server, raw_server(proxy) as front:
        async with client_of(server.origin, ca_file=authority.file, proxy=front.origin) as client:
            for _ in range(2):
                assert await ids(client) == [7]
                await client.upload(upload)
            assert await ids(client) == [7]
            await asyncio.gather(*(client.upload(upload) for _ in range(5)))
            assert await ids(client) == [7]
        await until(lambda: not proxy.open)  # the connections end one by one

    gets = {exchange.connection for exchange in server.exchanges if exchange.line.startswith("GET")}
    posts = [exchange.connection for exchange in server.exchanges if exchange.line.startswith("POST")]
    assert len(set(posts[-5:])) == 5  # those that were sent at once
    assert gets.isdisjoint(posts)
    assert len(proxy.heads) == server.connections == len({*gets, *posts})


async def test_the_certificate_is_that_of_the_server_behind_the_proxy(authority: Authority) -> None:
    proxy = ConnectProxy()
    async with (
        raw_server(either, tls=authority.expired()) as server,
        raw_server(proxy) as front,
        client_of(server.origin, ca_file=authority.file, proxy=front.origin) as client,
    ):
        with pytest.raises(NotSent) as caught:
            await ids(client)

    assert caught.value.reason == (
        "the server's TLS certificate is not trusted: it has expired, or the clock of this machine is wrong"
    )
    assert (caught.value.connected, caught.value.trusted) == (False, False)
    assert len(proxy.heads) == 1


# --- a host that is http, which is this machine ---


async def test_a_host_in_the_clear_is_reached_without_the_proxy(upload: CertificateUpload) -> None:
    proxy = ConnectProxy()
    async with (
        raw_server(either) as server,
        raw_server(proxy) as front,
        client_of(server.origin, proxy=front.origin) as client,
    ):
        assert await ids(client) == [7]
        assert (await client.upload(upload)).id == 5001

    assert proxy.heads == []
    assert len(server.exchanges) == 2


async def test_the_environment_names_no_proxy_and_no_password(
    upload: CertificateUpload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login jan password p4ss\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    proxy = ConnectProxy()
    async with raw_server(either) as server, raw_server(proxy) as front:
        monkeypatch.setenv("http_proxy", front.origin)
        async with client_of(server.origin) as client:
            assert await ids(client) == [7]
            assert (await client.upload(upload)).id == 5001

    assert proxy.heads == []
    assert [exchange.header("Authorization") for exchange in server.exchanges] == [None, None]


# --- a proxy that does not do it ---


@pytest.mark.parametrize(
    ("behaviour", "reason"), [pytest.param(case, reason, id=name) for name, case, reason in FAULTY]
)
async def test_a_proxy_that_does_not_connect_is_reported_plainly(
    behaviour: Behaviour, reason: str, upload: CertificateUpload, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    async with raw_server(behaviour) as front:
        proxy = with_password(front)
        timeouts = evolve(PATIENT, connect=0.15) if reason == TOO_LATE else PATIENT
        async with client_of("https://springest.test", proxy=proxy, timeouts=timeouts) as client:
            with pytest.raises(NotSent) as posted:
                await client.upload(upload)
            with stamina.set_testing(True, attempts=2), pytest.raises(NotSent) as asked:
                await ids(client)

    for caught in (posted, asked):
        assert caught.value.reason == reason
        assert (caught.value.connected, caught.value.trusted) == (False, True)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        for text in (str(caught.value), repr(caught.value), repr(client), repr(client.settings), caplog.text):
            assert_no_key_in(text)
            assert_no_password_in(text)
    assert repr(client.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"
    assert front.lines[0] == "CONNECT springest.test:443 HTTP/1.1"
    assert_no_key_in(repr([(exchange.line, exchange.headers, exchange.body) for exchange in front.exchanges]))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (f"http://{IN_ADDRESS}@127.0.0.1:{closed_port()}", "no connection to the proxy: Connection refused"),
        (f"http://{IN_ADDRESS}@proxy.invalid:3128", "the proxy's name cannot be resolved"),
        (f"http://{IN_ADDRESS}@{'p' * 64}.invalid:3128", "the proxy's name cannot be resolved"),
        (f"http://{IN_ADDRESS}@proxy..invalid:3128", "the proxy's name cannot be resolved"),
    ],
    ids=["nobody listens", "no such name", "a long name", "no name"],
)
async def test_a_proxy_that_is_not_there(address: str, reason: str, upload: CertificateUpload) -> None:
    async with client_of("https://springest.test", proxy=address) as client:
        with pytest.raises(NotSent) as posted:
            await client.upload(upload)

    assert posted.value.reason == reason
    assert not posted.value.connected
    assert_no_password_in(f"{posted.value!r} {posted.value}")


# --- the setting ---


def test_the_password_is_not_shown() -> None:
    settings = Settings(proxy=f"http://{IN_ADDRESS}@proxy.example:3128")

    assert "proxy.example:3128" in repr(settings)
    assert_no_password_in(repr(settings))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "proxy.example:3128",
        "//proxy.example:3128",
        "https://proxy.example",
        "socks5://jan:p4ss@proxy.example:1080",
        "http://",
        "http://jan:p4ss@",
        "http://jan:p4ss@:3128",
        "http://jan:p4ss@proxy.example:x",
        "http://jan:p4ss@proxy.example:0",
        "http://jan:p4ss@proxy.example:99999",
        "http://jan:p4ss/word@proxy.example:3128",
        "http://jan:p4ss?word@proxy.example:3128",
        "http://jan:p4ss#word@proxy.example:3128",
        "http://jan:p4ss@proxy.example/path",
    ],
)
def test_what_is_no_address_of_a_proxy_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"http://proxy\.example:3128") as caught:
        Settings(proxy=address)

    assert_no_password_in(str(caught.value))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


# --- the command ---


@pytest.mark.parametrize(
    ("variables", "proxied"),
    [
        ({"HTTPS_PROXY": "http://{}"}, True),
        ({"https_proxy": "{}", "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "other.example"}, True),
        ({"HTTPS_PROXY": "http://{}", "NO_PROXY": "other.example,localhost"}, False),
        ({"HTTP_PROXY": "http://{}"}, False),
    ],
    ids=["proxy", "in small letters", "not for this host", "for http only"],
)
async def test_the_command_goes_through_the_proxy_of_its_environment(
    variables: dict[str, str], proxied: bool, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login jan password p4ss\n", encoding="utf-8")
    proxy = ConnectProxy(AUTHORIZATION)
    async with raw_server(either, tls=authority.right(), name="localhost") as server, raw_server(proxy) as front:
        address = with_password(front).removeprefix("http://")
        changes = {name: value.format(address) for name, value in variables.items()}
        ran = await springest(
            *("certifications", "--format", "csv"),
            origin=server.origin,
            SSL_CERT_FILE=str(authority.file),
            HOME=str(tmp_path),
            **changes,
        )

    assert (ran.code, ran.err) == (0, "")
    assert "VCA Basis" in ran.out
    assert [line for line, _ in proxy.heads] == [f"CONNECT localhost:{port_of(server)} HTTP/1.1"] * proxied
    assert [exchange.header("Authorization") for exchange in server.exchanges] == [None]
    assert_no_key_in(bytes(proxy.passed))


async def test_the_command_reaches_loopback_without_a_proxy() -> None:
    proxy = ConnectProxy()
    async with raw_server(either) as server, raw_server(proxy) as front:
        ran = await springest("certifications", origin=server.origin, HTTPS_PROXY=front.origin, HTTP_PROXY=front.origin)

    assert (ran.code, ran.err) == (0, "")
    assert proxy.heads == []


@pytest.mark.parametrize("proxy", [f"https://{IN_ADDRESS}@proxy.example:3128", f"http://{IN_ADDRESS}@proxy.example/x"])
async def test_the_command_says_what_is_no_proxy(proxy: str) -> None:
    ran = await springest("certifications", origin="https://springest.test", HTTPS_PROXY=proxy)

    assert (ran.code, ran.out) == (2, "")
    assert "http://proxy.example:3128" in ran.err
    assert_no_password_in(ran.err)
