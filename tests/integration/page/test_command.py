"""``springest status --serve``: the address that it prints, how it ends, and what it refuses."""

import asyncio
import re
import signal
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, expect
from yarl import URL

from springest_async.bulk import State
from springest_async.page import StatusPage
from tests.integration.command import Ran, end, environment, journal_path, springest, start
from tests.waiting import A_WHILE

from .rows import loaded
from .viewer import viewer

PASSWORD = "a password that is long"
ALL_UPLOADS = "--serve shows all uploads on a page: leave out the manifest, --format and --watch"


async def _address(process: asyncio.subprocess.Process) -> str:
    """Return the address that the command prints first."""
    assert process.stdout is not None
    async with asyncio.timeout(A_WHILE):
        line = (await process.stdout.readline()).decode()
    found = re.search(r"http://\S+", line)
    assert found, line
    return found[0]


@pytest.mark.chromium
async def test_the_printed_address_leads_to_the_page(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 3, [State.STORED, State.IN_DOUBT]) as migration:
        process = await start("status", "--serve", "--journal", tmp_path / "journal.sqlite3", env=environment(None))
        url = await _address(process)
        async with viewer(browser, url) as seen:
            await expect(seen.card()).to_contain_text("1 of 3 rows done")
            await seen.answer("Springest has it: row 3 of certificates.csv", "Yes, Springest has it")
            await expect(seen.card()).to_contain_text("2 of 3 rows done")
        assert (await migration.counts())[State.STORED] == 2
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert (ran.code, ran.err) == (0, "")
    assert (
        ran.out == "It is for this machine alone, and everyone who has the address may use it. Stop it with Ctrl-C.\n"
    )
    assert URL(url).host == "127.0.0.1"


async def test_an_open_page_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    async with loaded(tmp_path, 1):
        process = await start("status", "--serve", "--journal", tmp_path / "journal.sqlite3", env=environment(None))
        url = await _address(process)
        async with aiohttp.ClientSession() as session, session.get(f"{url}events") as events:
            assert b"retry" in await events.content.readline()
            process.send_signal(signal.SIGTERM)
            ran = await end(process)

    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("mode", [0o600, 0o644], ids=oct)
async def test_with_bind_it_needs_the_password_and_warns(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(mode)
    async with loaded(tmp_path, 1):
        options = ("--bind", "127.0.0.1", "--password-file", secret, "--journal", tmp_path / "journal.sqlite3")
        process = await start("status", "--serve", *options, env=environment(None))
        url = await _address(process)
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as answer:
                assert answer.status == 401
            async with session.get(
                url, headers={"Authorization": aiohttp.encode_basic_auth("els", PASSWORD)}
            ) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert URL(url).path == "/"
    assert "Warning: this is plain HTTP" in ran.out
    assert "ssh -L" in ran.out
    assert ("others on this machine can read the password" in ran.out) is (mode == 0o644)
    assert PASSWORD not in ran.out + ran.err


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async with loaded(tmp_path, 1) as migration, StatusPage(migration.journal) as page:
        port = str(URL(page.url).port)
        ran = await springest("status", "--serve", "--port", port, "--journal", tmp_path / "journal.sqlite3")

    assert ran.code == 2
    assert ran.err.startswith(f"springest: the status page cannot be served at 127.0.0.1, port {port}: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "8080"], "--port, --bind and --password-file go with --serve"),
        (["--bind", "192.0.2.7"], "--port, --bind and --password-file go with --serve"),
        (["--serve", "certificates.csv"], ALL_UPLOADS),
        (["--serve", "--format", "json"], ALL_UPLOADS),
        (["--serve", "--watch"], ALL_UPLOADS),
        (["--serve", "--bind", "192.0.2.7"], "--bind shows the page to other machines, so it needs a password"),
        (["--serve", "--password-file", "x"], "--password-file goes with --bind ADDRESS"),
        (["--serve", "--bind", "::1", "--password-file", "/nowhere"], "/nowhere: the password cannot be read: "),
        (["--serve"], "there is no journal yet: springest upload makes it"),
    ],
    ids=str,
)
async def test_options_that_do_not_fit_are_told(options: list[str], words: str) -> None:
    ran = await springest("status", *options)

    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not journal_path().exists()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short\n", b"a first line\nand a second one", b"\xff" * 20, b"x" * 20_000], ids=len
)
async def test_a_file_without_a_good_password_is_refused(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "password"
    secret.write_bytes(content)
    ran = await springest("status", "--serve", "--bind", "127.0.0.1", "--password-file", secret)

    assert ran == Ran(
        2,
        "",
        f"springest: {secret}: expected one line with a password of at least 12 characters, because nothing keeps"
        " programs from trying short ones\n",
    )
