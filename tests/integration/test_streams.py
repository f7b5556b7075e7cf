"""The command whose output goes nowhere: a full disk, a closed stream, a reader or a terminal that went away."""

import asyncio
import os
import pty
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from springest_async.sandbox import Mishap
from tests.pdfs import archive
from tests.waiting import until

from .command import (
    HeldSandbox,
    Ran,
    end,
    environment,
    journal_path,
    let_leases_end,
    noted,
    outcomes,
    springest,
    springest_sandbox,
    start,
    table_of,
)

FULL = "springest: the output cannot be written: No space left on device\n"


async def redirected(where: str, *arguments: str | Path, origin: str | None = None) -> Ran:
    """Run the command as a shell does that sends its output somewhere else, and see that it warns of nothing."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'"$@" {where}', "sh", sys.executable, "-m", "springest_async.cli"),
        *arguments,
        env=environment(origin, PYTHONWARNINGS="always"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ran = await end(process, within=40)
    assert "Warning" not in ran.err
    return ran


async def unread(*arguments: str | Path, origin: str | None = None) -> Ran:
    """Run the command with a pipe for its stdout that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    process = await start(*arguments, env=environment(origin), stdout=writing)
    os.close(writing)
    return await end(process)


@pytest.mark.parametrize("where", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
async def test_an_upload_whose_words_go_nowhere_is_an_upload(tmp_path: Path, where: str) -> None:
    manifest = archive(tmp_path, 2, changes={2: {"certification_id": "1"}})
    async with springest_sandbox() as sandbox:
        ran = await redirected(where, "upload", manifest, origin=sandbox.origin)

    assert (ran.code, sandbox.summary().stored) == (0, 2)
    assert noted(manifest) == outcomes(stored=2)
    assert ("The totals cannot be written: No space left on device" in ran.err) == (where == ">/dev/full")
    assert table_of(ran.out) == (outcomes(stored=2) if where.startswith("2>") else {})


async def test_a_full_disk_is_reported_and_a_closed_stdout_is_not(tmp_path: Path) -> None:
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", archive(tmp_path, 1), origin=sandbox.origin)).code == 0
        commands: list[list[str]] = [
            ["--help"],
            ["status", str(tmp_path / "certificates.csv")],
            ["certificates", "--format", "csv"],
        ]
        full = [redirected(">/dev/full", *command, origin=sandbox.origin) for command in [*commands, ["sandbox"]]]
        closed = [redirected(">&-", *command, origin=sandbox.origin) for command in commands]
        assert await asyncio.gather(*full, *closed) == [Ran(1, "", FULL)] * 4 + [Ran(0, "", "")] * 3


async def test_a_reader_who_went_away_changes_no_exit_code(tmp_path: Path) -> None:
    async with HeldSandbox(answers=0) as sandbox:
        process = await start("upload", archive(tmp_path, 1), env=environment(sandbox.origin))
        await until(lambda: sandbox.held == 1)
        process.kill()
        await process.communicate()

    let_leases_end()
    assert await unread("status", tmp_path / "certificates.csv") == Ran(3, "", "")
    for command in (["--help"], ["sandbox"]):
        assert await unread(*command) == Ran(0, "", "")


async def test_a_terminal_that_is_closed_ends_an_upload_in_good_order(tmp_path: Path) -> None:
    """As an SSH session does that breaks off: each write to it fails from then on, and SIGHUP comes more than once."""
    manifest = archive(tmp_path, 12)
    terminal, inside = pty.openpty()
    async with HeldSandbox() as sandbox:
        env = environment(sandbox.origin, TERM="xterm-256color")
        process = await start("upload", manifest, env=env, stdout=inside, stderr=inside)
        os.close(inside)
        await until(lambda: sandbox.held == 8)
        os.close(terminal)
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.2)
        sandbox.go_on.set()
        ran = await end(process)

    assert ran.code == 130
    assert noted(manifest) == outcomes(stored=9, waiting=3)


async def test_with_nohup_an_upload_outlives_its_terminal(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 12)
    async with HeldSandbox() as sandbox:
        process = await asyncio.create_subprocess_exec(
            *("nohup", sys.executable, "-m", "springest_async.cli", "upload", manifest),
            env=environment(sandbox.origin),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await until(lambda: sandbox.held == 8)
        process.send_signal(signal.SIGHUP)
        sandbox.go_on.set()
        ran = await end(process)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=12))


async def test_without_certifications_nothing_is_sent(tmp_path: Path) -> None:
    async with TestServer(web.Application()) as server:
        ran = await springest("upload", archive(tmp_path, 1), origin=str(server.make_url("/")))

    assert (ran.code, ran.out) == (2, "")
    assert re.match(r"springest: GET http://[0-9.:]+/certifications\.json answered 404", ran.err)


async def test_commands_to_type_are_quoted_for_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "it's here; touch $(echo owned)"
    folder.mkdir()
    manifest = archive(folder, 1, changes={1: {"certification_id": "3"}})  # of which the sandbox lists nothing
    async with springest_sandbox(mishap=lambda: Mishap.DROP_AFTER_STORING) as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)

    (told,) = re.findall("springest status (.*) lists them", ran.err)
    assert shlex.split(told) == [str(manifest)]
    asked = await springest("status", manifest, "--journal", journal_path())
    (told,) = re.findall("springest resolve (.*) --row N", asked.out)
    assert shlex.split(told) == [str(manifest), "--journal", str(journal_path())]
