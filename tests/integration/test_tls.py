"""TLS, with real certificates on real sockets: whom the client trusts, and what it says of whom it does not."""

import asyncio
import logging
import os
import ssl
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp
import attrs
import pytest
import stamina

from springest_async import (
    CertificateUpload,
    ConfigurationError,
    InDoubt,
    Journal,
    NotSent,
    Settings,
    Springest,
    UploadStep,
)
from springest_async.bulk import Manifest, RowDone, State, UploadQueue, load_manifest

from .command import KEY, assert_no_key_in, end, environment, springest, start
from .raw_server import Exchange, either, raw_server
from .tls import WRONG, Authority
from .wire import client_of as plain_client_of
from .wire import ids

client_of = partial(plain_client_of, api_key=KEY, certifications_api_key=KEY)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("tls") / "others")


# --- certificates that are not right ---


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize(("certificate", "words"), [wrong[1:] for wrong in WRONG], ids=[name for name, *_ in WRONG])
async def test_a_wrong_certificate_is_reported_at_once(
    certificate: Callable[[Authority, Authority], ssl.SSLContext],
    words: str,
    name: str,
    upload: CertificateUpload,
    authority: Authority,
    stranger: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    steps: list[UploadStep] = []
    tls = certificate(authority, stranger)
    async with (
        raw_server(either, tls=tls, name=name) as server,
        client_of(server, ca_file=authority.file) as client,
    ):
        with pytest.raises(NotSent) as posted:
            await client.upload(upload, listener=steps.append)
        # Without stamina's waits: were it asked for again, that would be seen.
        with stamina.set_testing(True, attempts=3), pytest.raises(NotSent) as asked:
            await ids(client)

    for caught in (posted, asked):
        assert caught.value.reason == f"the server's TLS certificate is not trusted: {words}"
        assert (caught.value.connected, caught.value.trusted) == (False, False)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert_no_key_in(f"{caught.value} {caught.value!r}")
    assert [step.kind for step in steps] == ["waiting", "sending", "unsent", "not stored"]
    assert not [record for record in caplog.records if record.name.startswith("stamina")]
    assert server.exchanges == []
    assert repr(client.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"
    assert_no_key_in(caplog.text)


async def test_bytes_that_are_not_tls_are_reported_as_such(upload: CertificateUpload, authority: Authority) -> None:
    async def garbles(exchange: Exchange) -> None:
        await exchange.read()
        os.write(exchange.writer.get_extra_info("socket").fileno(), b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        assert await exchange.reader.read() == b""

    async with (
        raw_server(garbles, tls=authority.right(), name="localhost") as server,
        client_of(server, ca_file=authority.file) as client,
    ):
        with pytest.raises(InDoubt) as caught:
            await client.upload(upload)

    assert caught.value.reason == "the connection broke: what came is no TLS, or was damaged on the way"
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_a_certificate_of_a_ca_that_is_trusted_is_right(
    name: str, upload: CertificateUpload, authority: Authority
) -> None:
    async with (
        raw_server(either, tls=authority.right(), name=name) as server,
        client_of(server, ca_file=str(authority.file)) as client,
    ):
        assert (await client.upload(upload)).id == 5001
        assert await ids(client) == [7]


async def test_a_run_waits_for_a_certificate_that_was_right_before(
    tmp_path: Path, make_upload: Callable[..., CertificateUpload], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.bulk.gate.backoff", lambda *_, **__: 0.02)
    file = make_upload().file
    manifest = tmp_path / "certificates.csv"
    lines = [f"{file},{number},jan@example.org,2026-01-31" for number in range(1, 7)]
    manifest.write_text("\n".join(["file,certification_id,email,valid_from", *lines]), encoding="utf-8")
    right, wrong = authority.right(), authority.expired()
    shown: list[str] = []

    # As a hotel's network does that wants somebody to log in first.
    def show(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        shown.append("wrong" if 2 <= len(shown) < 7 else "right")
        connection.context = wrong if shown[-1] == "wrong" else right

    front = authority.right()
    front.sni_callback = show
    done: list[State] = []

    async def stores(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.answer(201, b'{"id": 5001}', Connection="close")

    async with (
        raw_server(stores, tls=front, name="localhost") as server,
        Journal(tmp_path / "journal.sqlite3") as journal,
        client_of(server, ca_file=authority.file, concurrency=1, journal=journal) as client,
    ):
        migration, _ = await load_manifest(journal, Manifest.open(manifest), client.origin)
        error = await UploadQueue(
            client, migration, lambda event: done.append(event.state) if isinstance(event, RowDone) else None
        ).run()

    assert error is None
    assert done == [State.STORED] * 6
    assert shown == ["right"] * 2 + ["wrong"] * 5 + ["right"] * 4
    assert len(server.exchanges) == 6


# --- whom to trust ---


async def test_without_the_setting_a_company_s_own_ca_is_not_trusted(authority: Authority) -> None:
    async with raw_server(either, tls=authority.right()) as server, client_of(server) as client:
        with pytest.raises(NotSent, match="it was issued by a CA that is not known here"):
            await ids(client)


LISTS = """
import asyncio, sys
from springest_async import Settings, Springest

async def lists(host, ca_file):
    settings = Settings(ca_file=ca_file or None)
    async with Springest(api_key="-", certifications_api_key="-", host=host, settings=settings) as springest:
        print([certification.id async for certification in springest.certifications()])

for host in sys.argv[2:]:
    asyncio.run(lists(host, sys.argv[1]))
"""


async def test_the_ca_setting_adds_to_those_of_the_system(authority: Authority, stranger: Authority) -> None:
    async with raw_server(either, tls=authority.right()) as ours, raw_server(either, tls=stranger.right()) as others:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LISTS, str(stranger.file), ours.origin, others.origin),
            env=environment(None, SSL_CERT_FILE=str(authority.file)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()

    assert out.decode().splitlines() == ["[7]", "[7]"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "there are no certificates in it (PEM)"),
        (b"\x00\xff garbage", "there are no certificates in it (PEM)"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "there are no certificates in it (PEM)"),
    ],
)
async def test_a_ca_file_that_cannot_be_used_is_a_settings_error(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    client = Springest(api_key=KEY, settings=Settings(ca_file=path))

    with pytest.raises(ConfigurationError) as caught:
        await client.__aenter__()

    assert str(caught.value) == f"the file of CAs {path}: {words}"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "closed" in repr(client)


@pytest.mark.parametrize("name", ["ca\0.pem", "ca\ud800.pem"])
async def test_a_name_that_no_file_can_have_is_no_ca_file(name: str) -> None:
    client = Springest(api_key=KEY, settings=Settings(ca_file=name))

    with pytest.raises(ConfigurationError) as caught:
        await client.__aenter__()

    assert str(caught.value) == f"the file of CAs {name}: it is no name that a file can have"


async def test_a_folder_is_no_ca_file(tmp_path: Path) -> None:
    client = Springest(api_key=KEY, settings=Settings(ca_file=tmp_path))

    with pytest.raises(ConfigurationError, match=f"^the file of CAs {tmp_path}: "):
        await client.__aenter__()


async def test_a_connector_of_ones_own_trusts_what_it_wants(upload: CertificateUpload, stranger: Authority) -> None:
    async with (
        raw_server(either, tls=stranger.right()) as server,
        aiohttp.TCPConnector(ssl=False) as connector,
        client_of(server, connector=connector) as client,
    ):
        assert (await client.upload(upload)).id == 5001


# --- the command ---


async def test_the_command_trusts_the_file_of_the_environment(authority: Authority) -> None:
    async with raw_server(either, tls=authority.right()) as server:
        ran = await springest(
            "certifications", "--format", "csv", origin=server.origin, SSL_CERT_FILE=str(authority.file)
        )

    assert (ran.code, ran.err) == (0, "")
    assert "VCA Basis" in ran.out


@pytest.mark.openssl
async def test_the_command_trusts_the_folder_of_the_environment(authority: Authority) -> None:
    folder = authority.hashed_folder()
    async with raw_server(either, tls=authority.right()) as server:
        env = environment(server.origin, SSL_CERT_DIR=str(folder))  # aiohttp reads it when it is imported
        ran = await end(await start("certifications", "--format", "csv", env=env))

    assert (ran.code, ran.err) == (0, "")
    assert "VCA Basis" in ran.out


async def test_the_command_says_at_once_why_it_does_not_trust(authority: Authority) -> None:
    async with raw_server(either, tls=authority.right()) as server:
        ran = await springest("certifications", origin=server.origin)

    assert (ran.code, ran.out) == (1, "")
    assert (
        ran.err.split()
        == (
            f"springest: GET {server.origin}/certifications.json: the server's TLS certificate is not trusted:"
            " it was issued by a CA that is not known here"
        ).split()
    )
    assert server.exchanges == []


async def test_the_command_reports_a_missing_ca_file(tmp_path: Path) -> None:
    missing = tmp_path / "gone.pem"
    ran = await springest("certifications", origin="https://springest.test", SSL_CERT_FILE=str(missing))

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.split() == f"springest: the file of CAs {missing}: No such file or directory".split()


def test_no_setting_makes_it_trust_just_anybody() -> None:
    settings = {field.name for field in attrs.fields(Settings)}

    assert settings == {
        "wire_format",
        "timeouts",
        "concurrency",
        "posts_per_minute",
        "burst",
        "requests_per_hour",
        "connector",
        "ca_file",
        "proxy",
        "limiter",
    }
