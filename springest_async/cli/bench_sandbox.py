"""The sandbox that ``springest bench`` starts as a process of its own, so that client and server share no processor.

The process (``python -m`` this module) prints its origin, then answers each line on stdin with the state of the server
as JSON, and ends when stdin does, hence also when the one that started it is killed.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, frozen

from springest_async.errors import ConfigurationError
from springest_async.sandbox import Sandbox

API_KEY = "key-of-a-sandbox"
"""The key of such a sandbox, which nobody else uses."""

_UNLIMITED = 10**9  # POSTs a minute


@frozen(kw_only=True)
class ServerState:
    """What a server has done so far.

    Attributes:
        cpu: seconds of the processor.
        most_in_any_minute: the most POSTs that any 60 s held.
    """

    cpu: float
    most_in_any_minute: int


@define(eq=False)
class SandboxProcess:
    """A sandbox in a process of its own."""

    origin: str
    _process: asyncio.subprocess.Process

    async def state(self) -> ServerState:
        """Return what it has done so far.

        Raises:
            ConfigurationError: the process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"\n")
            await self._process.stdin.drain()
            return ServerState(**json.loads(await self._process.stdout.readline()))
        except (ConnectionError, ValueError):
            raise ConfigurationError("the sandbox has ended before the measurement did") from None


@asynccontextmanager
async def sandbox_process(*, limited: bool) -> AsyncIterator[SandboxProcess]:
    """Run a sandbox as long as the block lasts.

    Args:
        limited: whether it refuses more than 30 POSTs in any 60 s.

    Raises:
        ConfigurationError: it does not start.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, "limited" if limited else "unlimited"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C and the end of the terminal are for the client, which finishes its uploads
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        origin = (await process.stdout.readline()).decode().strip()
        if not origin:
            raise ConfigurationError("the sandbox cannot start: the reason is above")
        yield SandboxProcess(origin, process)
    finally:
        process.stdin.close()
        await process.wait()


async def _serve(*, limited: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows has no sessions
    async with Sandbox(limit=30 if limited else _UNLIMITED, api_key=API_KEY) as sandbox:
        print(sandbox.origin, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            state: dict[str, Any] = {"cpu": time.process_time()}
            state["most_in_any_minute"] = sandbox.summary().most_in_any_period
            print(json.dumps(state), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(limited=sys.argv[1] == "limited"))
