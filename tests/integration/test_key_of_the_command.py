"""The command shows the key nowhere: it logs all that it can, fails in each way, dies of its bugs and is interrupted.

Looked at are stdout and stderr, with all logs at DEBUG and tracebacks with variables in them, the list of processes,
and every file that is left behind: the journal with its log, and the rows that failed.
"""

import asyncio
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import stamina

from springest_async.sandbox import Sandbox
from tests.pdfs import archive
from tests.waiting import A_WHILE, until

from .canary import leaks, watching
from .command import HeldSandbox, environment, names, noted, outcomes, springest, springest_sandbox, start
from .faults.echoes import echoing
from .raw_server import Exchange, raw_server

LOUD = {"PYTHONASYNCIODEBUG": "1"}

# Logs everything to stderr, and prints the variables of a traceback.
SITE = """
import logging, sys, traceback

def tell(*error):
    for line in traceback.TracebackException(*error, capture_locals=True).format():
        sys.stderr.write(line)

logging.basicConfig(level=logging.DEBUG)
sys.excepthook = tell
"""


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables that make a command tell all that it can."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": str(site), "PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"}


async def begin(*arguments: str | Path, env: dict[str, str]) -> asyncio.subprocess.Process:
    """Start a command, and see that the list of processes shows no key."""
    process = await start(*arguments, env=env)
    try:
        await until(lambda: b"springest_async.cli" in _command_line(process.pid))  # empty until the kernel is done
        assert leaks(_command_line(process.pid)) == []
    except BaseException:
        process.kill()
        await process.communicate()
        raise
    return process


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def shown(process: asyncio.subprocess.Process, read: bytes = b"") -> str:
    """Wait for the end of a process, see that it shows no key, and give what else than `read` it said on stderr."""
    async with asyncio.timeout(A_WHILE):
        out, err = await process.communicate()
    assert leaks(out) == []
    assert leaks(read + err) == []
    return err.decode()


def left(*folders: Path) -> set[str]:
    """See that no file shows a key, and give the names."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert leaks(path.name) == []
        assert leaks(path.read_bytes()) == [], path
    return {path.name for path in files}


async def lists_and_echoes(exchange: Exchange) -> None:
    """Answer a list with one certification, and a certificate with faults that show the key."""
    said = b'{"errors": {"email": ["is invalid in {line}", "{both}"]}}'
    if exchange.line.startswith("GET"):
        await exchange.answer(200, b'[{"id": 1, "name": "First aid", "requires_valid_until": false}]')
    else:
        await echoing(b"HTTP/1.1 400 {line}\r\nContent-Length: {length}\r\nX-Echo: {both}\r\n\r\n" + said)(exchange)


async def test_rows_that_a_hostile_server_rejects_leave_no_key_behind(
    tmp_path: Path, state: Path, loud: dict[str, str]
) -> None:
    async with raw_server(lists_and_echoes) as server:
        for _ in range(2):
            err = await shown(await begin("upload", archive(tmp_path, 3), env=environment(server.origin) | loud))
        said = await shown(await begin("status", tmp_path / "certificates.csv", env=environment(None) | loud))

    assert "Not stored: 3 rows" in err
    assert "DEBUG:asyncio" in err + said
    assert left(tmp_path, state) >= {"journal.sqlite3", "certificates.failed.csv"}
    assert "api_key=***" in (tmp_path / "certificates.failed.csv").read_text()


async def test_a_command_that_fails_shows_no_key(tmp_path: Path, state: Path) -> None:
    manifest = archive(tmp_path, 2)
    head = b"HTTP/1.1 404 {line}\r\nContent-Length: {length}\r\nX-Echo: {both}\r\n\r\n"
    with watching() as witness, stamina.set_testing(True, attempts=2):  # without its waits
        async with (
            raw_server(echoing(head + b"{both}")) as says_it,
            raw_server(echoing(b"{both}\r\n\r\n")) as speaks_no_http,
            raw_server(echoing(b"")) as hangs_up,
            Sandbox() as refuses,  # it has other keys
        ):
            ran = [
                await springest("upload", manifest, origin=says_it.origin, **LOUD),
                await springest("certifications", origin=says_it.origin, **LOUD),
            ]
            origins = [server.origin for server in (says_it, speaks_no_http, hangs_up, refuses)]
            ran += [
                await springest("certificates", origin=origin, **LOUD) for origin in (*origins, "http://127.0.0.1:1")
            ]

    assert [leaks(each.out + each.err) for each in ran] == [[]] * 7
    assert ["api_key=***" in each.err for each in ran] == [True] * 3 + [False] * 4
    assert all(each.err.startswith("springest: ") and "GET http://127.0.0.1" in each.err for each in ran)
    assert witness.leaks == []
    assert witness.places["log of asyncio"] > 0
    left(tmp_path, state)


@pytest.mark.parametrize(
    ("bug", "command"),
    [
        ("cli.environment._proxy_to", "certifications"),
        ("client.shared_limiter", "certifications"),
        ("http.transport.Transport._exchange", "certificates"),
        ("http.exchange.Exchange.read", "certificates"),
        ("http.api_key.ApiKey.added_to", "certificates"),
        ("http.api_key.ApiKey.hide_in", "upload"),
        ("api.protocol.post_meaning", "upload"),
        ("journal.loading.load", "upload"),
        ("journal.certificates.begin", "upload"),
    ],
)
async def test_a_bug_shown_with_all_variables_shows_no_key(bug: str, command: str, tmp_path: Path, state: Path) -> None:
    arguments: list[str | Path] = [command, *([archive(tmp_path, 2)] if command == "upload" else [])]
    with watching() as witness:
        async with springest_sandbox() as sandbox:
            broken = patch(f"springest_async.{bug}", side_effect=LookupError("a bug"))
            with broken, pytest.raises((LookupError, ExceptionGroup)) as caught:
                await springest(*arguments, origin=sandbox.origin, **LOUD)
        witness.look_at_error("bug", caught.value)

    assert "a bug" in "".join(traceback.format_exception(caught.value))
    assert witness.leaks == []
    left(tmp_path, state)


async def hangs(exchange: Exchange) -> None:
    await echoing(b"HTTP/1.1 200 {line}\r\nContent-Length: 999\r\nX-Echo: {both}\r\n\r\n{both}", silent=True)(exchange)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_an_interruption_leaves_no_key_behind(
    number: signal.Signals, tmp_path: Path, state: Path, loud: dict[str, str]
) -> None:
    async def interrupted(folder: Path, origin: str, reached: Callable[[], bool]) -> None:
        env = environment(origin, XDG_STATE_HOME=str(folder)) | loud
        process = await begin("upload", archive(folder, 12), env=env)
        assert process.stderr is not None
        await until(reached)
        process.send_signal(number)
        said = b""
        async with asyncio.timeout(A_WHILE):
            while b"Stopping" not in said and (piece := await process.stderr.read(1 << 16)):
                said += piece
        if b"Stopping" in said:  # it would end in good order; asked once more, it gives up
            process.send_signal(number)
        await shown(process, said)

    lists, certificates = tmp_path / "lists", tmp_path / "certificates"
    lists.mkdir()
    certificates.mkdir()
    async with raw_server(hangs) as silent, HeldSandbox() as holding:
        await asyncio.gather(
            interrupted(lists, silent.origin, lambda: bool(silent.exchanges)),
            interrupted(certificates, holding.origin, lambda: holding.held == 8),
        )
        assert noted(certificates / "certificates.csv", certificates) == outcomes(stored=1, in_doubt=8, waiting=3)
        assert names(certificates / "springest", "journal.sqlite3*")
        left(tmp_path, state)
