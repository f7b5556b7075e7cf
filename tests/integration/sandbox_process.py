"""A sandbox as a process of its own (``python -m`` this module), for tests whose clients are processes too.

So neither its clock nor its answers wait for a busy test, and what a test counts in its process is the client's alone.
The process ends when the one that started it does.
"""

import asyncio
import json
import pickle
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

from attrs import define

from springest_async.sandbox import Mishap, Post, Summary
from springest_async.sandbox.audit import as_json, summarize

from .faults.proxy import Line, fault_proxy
from .picky_sandbox import PickySandbox

__all__ = ["SandboxProcess", "sandbox_process"]


@define
class SandboxProcess:
    """A sandbox that runs elsewhere.

    Attributes:
        origin: its address, or that of the proxy in front of it.
        period: seconds, of its limit.
        audit: all POSTs in order of arrival; empty until the process has ended.
    """

    origin: str
    period: float
    _process: asyncio.subprocess.Process
    audit: tuple[Post, ...] = ()

    async def go_away(self) -> None:
        """Refuse all connections, until `come_back`; what was stored is kept."""
        await self._order("away")

    async def come_back(self) -> None:
        """Listen again, at the same address."""
        await self._order("back")

    async def _order(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        assert await self._process.stdout.readline() == f"{what}\n".encode()

    def summary(self) -> Summary:
        """Return the summary of the audit."""
        return summarize(self.audit, self.period)


@asynccontextmanager
async def sandbox_process(
    *, period: float = 60.0, mishaps: Sequence[Mishap | None] = (), lines: Sequence[Line] = (), **options: Any
) -> AsyncIterator[SandboxProcess]:
    """Run a sandbox in another process as long as the block lasts; its audit is known when the block has ended.

    Args:
        period: seconds, of the limit.
        mishaps: what goes wrong with each POST that would be stored, in turn; after the last of them, nothing does.
        lines: what happens on each connection, in turn; all that follow are good. Without any there is no proxy.
        options: of `PickySandbox`, such as `window`, `limit` and `silent`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    order = pickle.dumps((options | {"period": period}, list(mishaps), list(lines)))
    process.stdin.write(b"%d\n" % len(order) + order)
    sandbox = SandboxProcess((await process.stdout.readline()).decode().strip(), period, process)
    try:
        assert sandbox.origin, "it has not started; what it says is above"
        yield sandbox
    finally:
        out, _ = await process.communicate(b"")  # which closes its stdin
    sandbox.audit = tuple(map(_post_of, json.loads(out)))


def _post_of(row: dict[str, Any]) -> Post:
    return Post(**row | {"arrived_at": datetime.fromisoformat(row["arrived_at"])})


async def _serve() -> None:
    """Read what to do from stdin and print the origin, do as told until stdin ends, and print the audit."""
    length = int(sys.stdin.buffer.readline())  # `pickle.load` would wait for more
    options, mishaps, lines = pickle.loads(sys.stdin.buffer.read(length))  # noqa: S301 # from who started this one
    async with AsyncExitStack() as stack:
        # A socket that is bound and does not listen keeps the port for it, also while it is away.
        place = stack.enter_context(socket.socket())
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        sandbox = PickySandbox(**options, port=place.getsockname()[1], mishap=iter(mishaps).__next__)
        await sandbox.__aenter__()
        stack.push_async_exit(sandbox)
        origin = sandbox.origin
        if lines:
            origin = (await stack.enter_async_context(fault_proxy(origin, *lines, Line()))).origin
        print(origin, flush=True)  # noqa: T201 # to the process that started this one
        while order := (await asyncio.to_thread(sys.stdin.buffer.readline)).decode().strip():
            await (sandbox.__aexit__(None, None, None) if order == "away" else sandbox.__aenter__())
            print(order, flush=True)  # noqa: T201
    print(json.dumps([as_json(post) for post in sandbox.audit]), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_serve())
