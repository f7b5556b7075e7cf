"""A server as a child process: it is started, waited for and ended here, and leaves nothing behind.

What the server says goes to one log file; who waits for it in vain gets that log in the error. Nothing here
knows what kind of server it is.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import attrs

from tests.waiting import A_WHILE

_SECONDS_TO_START = A_WHILE
_SECONDS_TO_END = 5.0
_SECONDS_BETWEEN_LOOKS = 0.02


class ServerStartError(RuntimeError):
    """A server ended before it answered, or did not answer in time. The message ends with its log."""


@attrs.frozen
class Server:
    """A process that runs, and the file to which it writes all that it says."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def said(self) -> str:
        """Return what the server has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    async def saying(self, prefix: str) -> str:
        """Wait until the log has a whole line with ``prefix``; return the word behind it."""
        async with asyncio.timeout(_SECONDS_TO_START):
            while True:
                for line in self.said().splitlines(keepends=True):
                    _, found, rest = line.partition(prefix)
                    if found and rest.endswith("\n"):
                        return rest.split()[0]
                await self._look_again()

    async def answering(self, url: str) -> None:
        """Wait until a GET of ``url`` is answered with success."""
        async with (
            asyncio.timeout(_SECONDS_TO_START),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
        ):
            while True:
                with suppress(aiohttp.ClientConnectionError, TimeoutError):
                    async with session.get(url) as response:
                        if response.ok:
                            return
                await self._look_again()

    async def _look_again(self) -> None:
        if self.process.returncode is not None:
            raise ServerStartError(f"{self.name} ended with status {self.process.returncode}")
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


@asynccontextmanager
async def starting(server: Server) -> AsyncIterator[None]:
    """Permit what goes wrong while ``server`` starts into a :class:`ServerStartError` that shows its log."""
    try:
        yield
    except TimeoutError as error:
        raise ServerStartError(
            f"{server.name} did not answer within {_SECONDS_TO_START:.0f} s; its log:\n{server.said()}"
        ) from error
    except ServerStartError as error:
        raise ServerStartError(f"{error}; its log:\n{server.said()}") from error


@asynccontextmanager
async def running(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> AsyncIterator[Server]:
    """Run ``command`` in ``folder``, where its log is kept too; on leaving, end it and all its children.

    ``environment`` is added to this process's own. A server that has not ended some seconds after SIGTERM
    is killed.
    """
    log = folder / "server.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,  # a group of its own, so that its workers can be ended with it
        )
    try:
        yield Server(command[0], process, log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_END):
                await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
