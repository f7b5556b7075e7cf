"""The command ``springest`` for tests: run in this process or in one of its own, and what it said and left behind.

`springest` and `in_a_terminal` run it in this process, because to start Python costs half a second. What a test says
about signals, pipes, kills or the process itself needs `start`.
"""

import asyncio
import csv
import hashlib
import io
import os
import pty
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

import attrs
from aiohttp import web

from springest_async.cli import run
from springest_async.journal import manifest_rows, migrations
from springest_async.journal.sqlite import SQLiteConnection, SQLiteEngine
from springest_async.sandbox import Post, Sandbox
from springest_async.sandbox.certificates import Form
from tests.privileges import WITHOUT_PRIVILEGES
from tests.waiting import A_WHILE

from . import canary

# Keys that look otherwise in an address than in the environment.
KEY = canary.KEY
CERTIFICATIONS_KEY = canary.CERTIFICATIONS_KEY


@attrs.frozen
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str


def springest_sandbox(**options: Any) -> Sandbox:
    return Sandbox(api_key=KEY, certifications_api_key=CERTIFICATIONS_KEY, **options)


@attrs.define(kw_only=True, eq=False)
class HeldSandbox(Sandbox):
    """A sandbox that stores what it is sent, and answers only after `go_on`; `held` is how many it has stored so.

    The first certificate of a run goes alone, so it answers as many at once as `answers` says.
    """

    api_key: str = attrs.field(default=KEY, repr=False)
    certifications_api_key: str = attrs.field(default=CERTIFICATIONS_KEY, repr=False)
    go_on: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    held: int = attrs.field(init=False, default=0)
    answers: int = 1

    async def _take(self, request: web.Request, form: Form) -> Any:
        outcome = await super()._take(request, form)
        if self.answers:
            self.answers -= 1
            return outcome
        self.held += 1
        await self.go_on.wait()
        return outcome

    def release(self) -> None:
        """Answer what is held, and go on to hold what follows."""
        held, self.go_on = self.go_on, asyncio.Event()
        held.set()


def environment(origin: str | None, **changes: str | None) -> dict[str, str]:
    """Make an environment that has nothing of the one in which the tests run; None takes a variable away.

    Its state folder is that of the test, which has to set one.
    """
    values = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"],
        "SPRINGEST_HOST": origin,
        "SPRINGEST_API_KEY": KEY,
        "SPRINGEST_CERTIFICATIONS_API_KEY": CERTIFICATIONS_KEY,
    }
    return {name: value for name, value in (values | changes).items() if value is not None}


_STREAMS = {
    "stdin": asyncio.subprocess.DEVNULL,
    "stdout": asyncio.subprocess.PIPE,
    "stderr": asyncio.subprocess.PIPE,
}

_started: list[asyncio.subprocess.Process] = []


async def start(*arguments: str | Path, env: dict[str, str], **options: Any) -> asyncio.subprocess.Process:
    return await _start("springest_async.cli", *arguments, env=env, **options)


async def start_attentive(*arguments: str | Path, env: dict[str, str], **options: Any) -> asyncio.subprocess.Process:
    """Start a command that need not be waited for when others do something; see the module `attentive`."""
    return await _start("tests.integration.attentive", *arguments, env=env, **options)


async def _start(module: str, *arguments: str | Path, **options: Any) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, **(_STREAMS | options))
    kill_at_end(process)
    return process


def kill_at_end(process: asyncio.subprocess.Process) -> None:
    """Kill a process at the end of the test, if it runs then."""
    _started.append(process)


async def start_without_privileges(*arguments: str | Path, origin: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *WITHOUT_PRIVILEGES,
        sys.executable,
        "-m",
        "springest_async.cli",
        *arguments,
        env=environment(origin),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def kill_what_is_left() -> None:
    """Kill what a test that failed has left running, and close its pipes.

    Python would find them some time later, and they would fail the test that runs then.
    """
    while _started:
        process = _started.pop()
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def end(process: asyncio.subprocess.Process, *, within: float = A_WHILE) -> Ran:
    """Wait for the end (seconds), and see that no key was shown and that no error was left to Python to tell."""
    async with asyncio.timeout(within):
        out, err = await process.communicate()
    assert process.returncode is not None
    ran = Ran(process.returncode, (out or b"").decode(), (err or b"").decode())
    assert_no_key_in(ran.out + ran.err)
    assert "Traceback" not in ran.err
    return ran


async def springest(*arguments: str | Path, origin: str | None = None, **changes: str | None) -> Ran:
    """Run the command to its end, in this process. `changes` are variables of its environment."""
    out, err = io.BytesIO(), io.BytesIO()
    code = await _run(arguments, lambda: environment(origin, **changes), out, err)
    ran = Ran(code, out.getvalue().decode(), err.getvalue().decode())
    assert_no_key_in(ran.out + ran.err)
    return ran


async def printed(*arguments: str | Path, origin: str | None = None, **changes: str | None) -> tuple[int, str]:
    """Run the command to its end, in this process; return its exit code, and all that it printed, as it came."""
    both = io.BytesIO()
    code = await _run(arguments, lambda: environment(origin, **changes), both, both)
    text = both.getvalue().decode()
    assert_no_key_in(text)
    return code, text


async def in_a_terminal(*arguments: str | Path, env: dict[str, str], shown: bytearray | None = None) -> tuple[int, str]:
    """Run the command in this process and a pseudo-terminal of 100 columns; return its exit code and what it showed.

    `shown` grows while the command writes.
    """
    shown = bytearray() if shown is None else shown
    terminal, inside = pty.openpty()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        with suppress(OSError):  # how Linux reports the end
            if piece := os.read(terminal, 65536):
                shown.extend(piece)
                return
        loop.remove_reader(terminal)
        ended.set()

    loop.add_reader(terminal, read)
    try:
        with open(inside, "wb", buffering=0) as stream:  # noqa: ASYNC230, PTH123 # a descriptor
            size = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
            code = await _run(arguments, lambda: env | size, stream, stream)
        async with asyncio.timeout(A_WHILE):
            await ended.wait()
    finally:
        loop.remove_reader(terminal)
        os.close(terminal)
    text = shown.decode()
    assert_no_key_in(text)
    return code, text


_one_at_a_time = threading.Lock()


async def _run(
    arguments: Iterable[str | Path], make_env: Callable[[], dict[str, str]], out: BinaryIO, err: BinaryIO
) -> int:
    """Run the command as a process of its own would: with this environment, and without a limiter in memory."""

    def run_it(env: dict[str, str]) -> int:
        encoding = env.get("PYTHONIOENCODING", "utf-8")
        with (
            patch.dict(os.environ, env, clear=True),
            patch.dict("springest_async.limits.budgets._shared", clear=True),
            patch.dict("springest_async.limits.budgets._places", clear=True),
            patch("signal.signal"),  # only a main thread may
            redirect_stdout(io.TextIOWrapper(out, encoding, write_through=True)) as our_out,
            redirect_stderr(io.TextIOWrapper(err, encoding, write_through=True)) as our_err,
        ):
            code = run([str(argument) for argument in arguments])
        for stream in (our_out, our_err):
            stream.detach()  # the test's own to close
        return code

    def run_alone() -> int:
        with _one_at_a_time:  # the environment is the process's, and another command may have it now
            return run_it(make_env())

    return await asyncio.to_thread(run_alone)


async def until_said(process: asyncio.subprocess.Process, words: str) -> str:
    """Read what a process says on stderr up to the line that has these words; give that line."""
    assert process.stderr is not None
    async with asyncio.timeout(A_WHILE):
        while True:
            line = (await process.stderr.readline()).decode()
            assert line, f"it ended before it said {words!r}"
            if words in line:
                return line


async def answer_and_interrupt_twice(sandbox: HeldSandbox, process: asyncio.subprocess.Process, *, known: int) -> None:
    """Answer what is held, and press Ctrl-C twice when so many outcomes are known; return when the journal holds it up.

    The process logs JSON.
    """
    sandbox.go_on.set()
    for _ in range(known):
        await until_said(process, '"row_done"')
    process.send_signal(signal.SIGINT)
    await until_said(process, "Stopping: finishing the uploads in progress.")
    process.send_signal(signal.SIGINT)
    await until_said(process, "Waiting until the journal can be written")


def assert_no_key_in(text: str | bytes) -> None:
    assert canary.leaks(text) == []


def table_of(out: str) -> dict[str, int]:
    """Read the table of outcomes, in its box or without."""
    found = re.findall(r"^(?:│ )?([a-z ]+?) +(?:│ +)?(\d+)(?: │)?\r?$", out, re.MULTILINE)
    return {state: int(rows) for state, rows in found}


def outcomes(**changes: int) -> dict[str, int]:
    states = dict.fromkeys(("stored", "rejected", "failed", "in doubt", "waiting"), 0)
    return states | {name.replace("_", " "): count for name, count in changes.items()}


def journal_path(state: Path | None = None) -> Path:
    """Return where the command keeps its journal, by default in the state folder of the test."""
    return (state or Path(os.environ["XDG_STATE_HOME"])) / "springest" / "journal.sqlite3"


def noted(manifest: Path, state: Path | None = None) -> dict[str, int]:
    """Read what the journal says of a manifest, as `outcomes`; much quicker than ``springest status``.

    What a killed process was sending counts as in doubt.
    """
    sha256 = hashlib.sha256(manifest.read_bytes()).digest()
    with connected(state) as connection, connection.snapshot():
        ((migration, _),) = migrations.look_up(connection, sha256, "", manifest)
        counts = {found.value: rows for found, rows in manifest_rows.counts(connection, migration).items()}
    doubts = counts.pop("in doubt", 0) + counts.pop("sending", 0)
    return outcomes(in_doubt=doubts) | counts


def let_leases_end(state: Path | None = None) -> None:
    """Let the processes that were killed count as dead, as they do a minute later."""
    with connected(state) as connection, connection.transaction():
        connection.execute("UPDATE workers SET lease_until = ?", (0.0,))


@contextmanager
def connected(state: Path | None = None) -> Iterator[SQLiteConnection]:
    """Connect to the journal of the command."""
    with closing(SQLiteEngine(journal_path(state)).connect(create=False)) as connection:
        yield connection


def let_minutes_pass() -> None:
    """Let what the journal of the command has settled be some minutes older."""
    with connected() as connection, connection.transaction():
        connection.execute("UPDATE certificates SET answered_at = answered_at - 200000000")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> Path:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def names(folder: Path, pattern: str = "[!0-9]*") -> list[str]:
    """Return the names of the files that are no certificates of an `archive`."""
    return sorted(path.name for path in folder.glob(pattern))


def csvs(folder: Path) -> list[str]:
    return names(folder, "*.csv")


def stored(sandbox: Sandbox) -> list[str]:
    """Return the SHA-256 of each certificate that the sandbox stored, as often as it did, sorted."""
    return sorted(post.sha256 for post in posts(sandbox, "stored") if post.sha256)


def posts(sandbox: Sandbox, verdict: str) -> list[Post]:
    return [post for post in sandbox.audit if post.verdict == verdict]


def verdicts(sandbox: Sandbox) -> Counter[str]:
    return Counter(post.verdict for post in sandbox.audit)


def row_of(post: Post) -> int:
    """Return the row of an `archive`'s manifest that a POST was made of."""
    found = re.match(r"employee(\d+)@", post.fields["email"])
    assert found is not None
    return int(found[1]) + 1


def certificate_of(post: Post) -> str:
    """Return the file of an `archive` that a POST was made of."""
    return f"{row_of(post) - 1}.pdf"
