"""An upload that is watched from elsewhere, in a terminal and through a pipe, by who knows only the journal."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.pdfs import archive
from tests.screens import Screen
from tests.waiting import A_WHILE, until

from .command import HeldSandbox, end, environment, springest, springest_sandbox, start_attentive
from .terminals import opened_terminal

WIDTH = 70


@asynccontextmanager
async def watched_in_a_terminal(
    manifest: Path, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    """Watch a manifest in a process with a terminal, and give what stands on it."""
    async with opened_terminal(WIDTH) as terminal:
        env = environment(None, **terminal.variables | variables)
        process = await start_attentive("status", manifest, "--watch", env=env, **terminal.streams)
        os.close(terminal.inside)
        yield process, terminal.screen
        await terminal.end(process)


@asynccontextmanager
async def held(folder: Path) -> AsyncIterator[tuple[Path, HeldSandbox, asyncio.subprocess.Process]]:
    """Upload twelve certificates, of which one is stored and eight are being sent until the sandbox answers."""
    manifest = archive(folder, 12)
    async with HeldSandbox() as sandbox:
        process = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.held == 8)
        yield manifest, sandbox, process
        sandbox.go_on.set()
        assert (await end(process)).code == 0


async def test_a_terminal_shows_an_upload_until_it_is_done(tmp_path: Path) -> None:
    async with held(tmp_path) as (manifest, sandbox, _), watched_in_a_terminal(manifest) as (process, screen):
        await until(lambda: screen.shown[-1].endswith(" stored (1.pdf)"))
        shown = screen.shown
        sandbox.go_on.set()

    assert process.returncode == 0
    assert re.fullmatch(r"certificates\.csv(?: to http://127\.0\.0\.1:\d+)?: running on \S+", shown[0])
    assert re.fullmatch(r"━+ +1 of 12, 8 %", re.sub("[╺╸]━*", "", shown[1]))
    assert shown[2] == "1 stored, 8 being sent, 3 waiting"
    assert shown[3] == "Done in a moment"
    assert shown[4] == "9 sent in the last minute (at most 30), 21 may leave now"
    assert re.fullmatch(r"Sending: row 3 \(\d+ s, 2\.pdf\), .* and \d more", shown[5])
    assert re.fullmatch(r"Last:    \d\d:\d\d:\d\d row 2 stored \(1\.pdf\)", shown[6])
    assert len(shown) == 7
    assert [screen.shown[0].rpartition(": ")[2], *screen.shown[1:]] == [
        "done",
        f"{'━' * 40} 12 of 12, 100 %",
        "12 stored",
    ]


async def test_a_pipe_gets_lines_until_it_is_done(tmp_path: Path) -> None:
    async with held(tmp_path) as (manifest, sandbox, _):
        process = await start_attentive("status", manifest, "--watch", env=environment(None))
        assert process.stdout is not None
        async with asyncio.timeout(A_WHILE):
            first = (await process.stdout.readline()).decode()
        sandbox.go_on.set()
        ran = await end(process)

    assert first == (
        "1 of 12 done: 1 stored, 8 being sent, 3 waiting. Done in a moment. 9 sent in the last minute (at most 30), 21"
        " may leave now.\n"
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "12 of 12 done: 12 stored.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_who_has_seen_enough_harms_nothing(tmp_path: Path, number: signal.Signals) -> None:
    async with held(tmp_path) as (manifest, sandbox, upload), watched_in_a_terminal(manifest) as (process, screen):
        await until(lambda: screen.shown[-1].endswith(" stored (1.pdf)"))
        process.send_signal(number)
        await process.wait()
        sandbox.go_on.set()
        await upload.wait()

    assert process.returncode == 130
    assert (len(screen.shown), screen.shown[2]) == (3, "1 stored, 8 being sent, 3 waiting")
    assert screen.is_cursor_shown


@pytest.mark.parametrize("variables", [{"ACCESSIBLE": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_who_asks_for_lines_gets_them(tmp_path: Path, variables: dict[str, str]) -> None:
    manifest = archive(tmp_path, 1)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
    async with watched_in_a_terminal(manifest, **variables) as (process, screen):
        pass

    assert (process.returncode, screen.shown) == (0, ["1 of 1 done: 1 stored."])


async def test_a_reader_that_has_seen_enough_ends_it(tmp_path: Path) -> None:
    async with held(tmp_path) as (manifest, sandbox, _):
        reading, writing = os.pipe()
        process = await start_attentive("status", manifest, "--watch", env=environment(None), stdout=writing)
        os.close(writing)
        os.close(reading)
        ran = await end(process)
        sandbox.go_on.set()

    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("arguments", [["--watch"], ["certificates.csv", "--watch", "--format", "json"]])
async def test_it_watches_one_manifest_for_a_person(arguments: list[str]) -> None:
    ran = await springest("status", *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert "--watch shows one manifest to a person: springest status MANIFEST --watch" in ran.err
