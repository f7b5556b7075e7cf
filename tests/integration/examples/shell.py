"""`Shell`: run the commands of an example, one after another, in its folder.

``springest`` runs in this process, and with ``&`` behind it in one of its own, until ``wait``. A sandbox that holds its
answers gives them when the next command has been run, or is ``wait``: so what a command shows of a run is no accident.
"""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from springest_async.sandbox import Sandbox
from tests.integration.command import HeldSandbox, environment, kill_at_end, printed
from tests.integration.scaled import MACHINE
from tests.integration.terminals import opened_terminal
from tests.waiting import A_WHILE, until

__all__ = ["Shell"]

# What differs from run to run, and what stands for it in the page, which says so.
_FOLDER = "/home/hr/diplomas"
_STATE = "/home/hr/.local/state"
_ORIGIN = "http://127.0.0.1:49152"  # as long as a free port makes it: it stands in tables
_MACHINE = "hr-laptop"
_OFFICE = "192.168.1.20"  # the address of that machine in the network of the office
_TIMES = (
    (re.compile(r"(?<=stored in )[0-9][0-9dhms .]*(?=:|\n|$)"), "… s"),
    (re.compile(r"(?<=Stops by itself at ).*(?= \(--until\))"), "07:00"),
    (re.compile(r"(?<=Resumed, after ).*(?=\.)"), "…"),
    (re.compile(r"http://127\.0\.0\.1:\d+/(?!users/)[\w-]+/"), "http://127.0.0.1:49153/…/"),
    (re.compile(r'(?<="since": ")20\d\d-\d\d-\d\d(?=")'), "2026-05-30"),
    (re.compile(r"(?<=: done ).*(?= if started now)"), "…"),
    (re.compile(r"20\d\d-\d\d-\d\d(?P<between>[ T])\d\d:\d\d:\d\d"), r"2026-06-01\g<between>09:00:00"),
    (re.compile(r"\d\d:\d\d:\d\d(?= row \d)"), "09:00:00"),
    (re.compile(r"(?<=Sending: row \d \()\d+ s(?=, )"), "1 s"),
    (
        re.compile(r"\d+ sent in the last minute \(at most 30\), .*"),
        "9 sent in the last minute (at most 30), 21 may leave now",
    ),
    (re.compile(r"(?<=09:00:00\.)\d{3}(?=\+00:00)"), "000"),
    (re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d(?= UTC| to )"), "2026-06-01 09:00"),
    (re.compile(r"(?<=09:00 UTC \()[^)]+(?=\))"), "…"),
    (re.compile(r"(?<= within )[0-9.]+(?= s\b)"), "…"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "18ec3b5fcecd80aa4a029e66603cdfda"),
)

_STREAMS = {
    "stdin": asyncio.subprocess.DEVNULL,
    "stdout": asyncio.subprocess.PIPE,
    "stderr": asyncio.subprocess.STDOUT,
}

_WATCHED_WIDTH = 60  # columns; so the host, and all but one of the rows that are being sent, are left out

_HELD = 8  # certificates are sent at the same time by default


class Shell:
    """Runs commands.

    Args:
        folder: where.
        sandbox: the Springest that they speak to.
        variables: changes of their environment.
    """

    def __init__(self, folder: Path, sandbox: Sandbox, variables: Mapping[str, str | None]) -> None:
        self._folder = folder
        self._sandbox = sandbox
        self._variables = variables
        self._code = 0
        self._running: asyncio.subprocess.Process | None = None

    async def block(self, lines: Sequence[str]) -> Sequence[str]:
        """Return a block of commands, each with what it prints."""
        made: list[str] = []
        for command in _commands(lines):
            if made and made[-1]:
                made.append("")
            made += command
            words = shlex.split(" ".join(line.removesuffix("\\") for line in command).removeprefix("$ "), comments=True)
            made += _lines(self._steady(await self._run(words)))
        return made

    async def _run(self, words: Sequence[str]) -> str:
        match words:
            case [*command, "|", "head", lines]:
                return "\n".join([*(await self._run(command)).splitlines()[: -int(lines)], "…"])
            case ["springest", *arguments, "&"] if "--serve" in arguments:
                return await self._serve(arguments)
            case ["springest", *arguments] if "--watch" in arguments:
                return await self._watch(arguments)
            case ["springest", *arguments, "&"]:
                await self._begin(arguments)
                return ""
            case ["wait"]:
                return await self._end()
            case ["springest", *arguments] if "--ping" in arguments:
                return await self._ping(arguments)
            case ["springest", *arguments]:
                return await self._print(arguments)
            case ["cat", name]:
                path = self._folder / name
                return (
                    path.read_text(encoding="utf-8-sig") if path.exists() else f"cat: {name}: No such file or directory"
                )
            case ["iconv", "-f", encoding, name]:
                return (self._folder / name).read_text(encoding=encoding)
            case ["unzip", "-Z1", name]:
                with zipfile.ZipFile(self._folder / name) as archive:
                    return "\n".join(archive.namelist())
            case ["echo", "$?"]:
                return str(self._code)
        raise ValueError(f"the page has a command that is not known: {shlex.join(words)}")

    async def _print(self, arguments: Sequence[str]) -> str:
        """Run a command in this process, and return what it prints.

        On a busy machine, a line would say after ten seconds how far it is.
        """
        with (
            contextlib.chdir(self._folder),
            patch("platform.node", lambda: _MACHINE),
            patch("springest_async.cli.watching._LINE_EVERY", 3600.0),
        ):
            self._code, text = await printed(*arguments, origin=self._sandbox.origin, **self._variables)
        return text

    async def _ping(self, arguments: Sequence[str]) -> str:
        """Run a command that pings a service of this machine, which keeps the event of each ping in pings.txt."""
        heard: list[str] = []

        async def keep(request: web.Request) -> web.Response:
            heard.append((await request.json())["event"])
            return web.Response()

        app = web.Application()
        app.router.add_post("/{token}", keep)
        address = URL(arguments[arguments.index("--ping") + 1])
        async with TestServer(app) as service:
            here = str(address.with_port(service.port))
            text = await self._print([here if word == str(address) else word for word in arguments])
        (self._folder / "pings.txt").write_text("\n".join(heard))
        return text

    async def _start(
        self, arguments: Sequence[str], variables: Mapping[str, str] | None = None, **streams: Any
    ) -> asyncio.subprocess.Process:
        own = {MACHINE: _MACHINE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.scaled", "60", *arguments),
            cwd=self._folder,
            env=environment(self._sandbox.origin, **self._variables, **own, **(variables or {})),
            **(_STREAMS | streams),
        )
        kill_at_end(process)
        return process

    async def _watch(self, arguments: Sequence[str]) -> str:
        """Watch in a terminal, and return what stands there before Ctrl-C."""
        async with opened_terminal(_WATCHED_WIDTH) as terminal:
            process = await self._start(arguments, terminal.variables, **terminal.streams)
            os.close(terminal.inside)
            await until(lambda: re.match(r"Last: .*\)$", terminal.screen.shown[-1]) is not None)
            shown = terminal.screen.shown
            process.send_signal(signal.SIGINT)
            self._code = await terminal.end(process)
        return "\n".join(shown)

    async def _begin(self, arguments: Sequence[str]) -> None:
        """Begin a command that goes on while others are run, and wait until the sandbox holds its answers."""
        assert isinstance(self._sandbox, HeldSandbox)
        sandbox = self._sandbox
        self._running = running = await self._start(arguments)
        await until(lambda: sandbox.held == _HELD or running.returncode is not None)

    async def _end(self) -> str:
        """Let the command that was begun last go on to its end, and return what it has printed."""
        assert isinstance(self._sandbox, HeldSandbox)
        assert self._running is not None
        self._sandbox.go_on.set()
        async with asyncio.timeout(A_WHILE):
            out, _ = await self._running.communicate()
        assert self._running.returncode is not None
        self._code = self._running.returncode
        return out.decode()

    async def _serve(self, arguments: Sequence[str]) -> str:
        """Begin a command that serves until the end of the test, and return what it says when it does."""
        process = await self._start(["127.0.0.1" if word == _OFFICE else word for word in arguments])
        assert process.stdout is not None
        async with asyncio.timeout(A_WHILE):
            if _OFFICE not in arguments:
                return (await process.stdout.readuntil(b"Ctrl-C.\n")).decode()
            text = (await process.stdout.readuntil(b"THIS-MACHINE\n")).decode()
        return re.sub(r"http://127\.0\.0\.1:\d+/", f"http://{_OFFICE}:49153/", text)

    def _steady(self, text: str) -> str:
        text = text.replace(self._sandbox.origin, _ORIGIN)
        text = text.replace(str(self._folder.resolve()), _FOLDER).replace(str(self._folder), _FOLDER)
        text = text.replace(os.environ["XDG_STATE_HOME"], _STATE)
        for pattern, replacement in _TIMES:
            text = pattern.sub(replacement, text)
        return text


def _commands(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield each command of a block, with the lines on which it goes on."""
    remaining = iter(lines)
    for line in remaining:
        if line.startswith("$ "):
            command = [line]
            while command[-1].endswith("\\"):
                command.append(next(remaining))
            yield command


def _lines(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
