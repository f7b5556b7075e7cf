"""How often an early refusal is heard, by event loop and connector.

``python -m tests.integration.loops`` measures the table in docs/faults.md.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import aiohttp
import uvloop
from attrs import define, field

from springest_async import CertificateUpload, InDoubt, Limiter, NotSent, Receipt, Rejected, UploadStep

from .wire import client_of, file_of

__all__ = ["ASYNCIO", "EARLY", "UVLOOP", "EarlyServer", "Loop", "early_server", "on_uvloop", "upload_again_and_again"]

Loop = Callable[[], asyncio.AbstractEventLoop]
ASYNCIO: Loop = asyncio.new_event_loop
UVLOOP: Loop = uvloop.new_event_loop

_UPLOADS = 1_000
EARLY = 100_000
"""Bytes of a body that the server of the table reads."""
_SIZES = {"200 KB": 200_000, "2 MB": 2_000_000}
_WAYS: dict[str, tuple[Loop, bool]] = {
    "asyncio": (ASYNCIO, False),
    "asyncio, a connector of your own": (ASYNCIO, True),
    "uvloop": (UVLOOP, False),
}


def on_uvloop() -> bool:
    """Return whether the running event loop is uvloop's, which writes to sockets without asking the client's own."""
    return isinstance(asyncio.get_running_loop(), uvloop.Loop)


@define(eq=False)
class EarlyServer:
    """A running `early_server`: `arrived_whole` says of each POST whether all of it arrived, after the block."""

    origin: str
    arrived_whole: list[bool] = field(factory=list)


@asynccontextmanager
async def early_server(most: int, status: int, end: Literal["close", "reset"]) -> AsyncIterator[EarlyServer]:
    """Run a server that reads `most` bytes of a body (-1: all), answers and hangs up (see `early_server`)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.early_server", str(most), str(status), end),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        server = EarlyServer(f"http://127.0.0.1:{int(await process.stdout.readline())}")
        yield server
    finally:
        process.kill()
        said = await process.stdout.read()
        await process.wait()
    server.arrived_whole = [line == b"whole" for line in said.splitlines()]


async def upload_again_and_again(
    origin: str, file: Path, times: int, *, own_connector: bool
) -> list[tuple[Receipt | Exception, list[UploadStep]]]:
    """Upload so many times; return the receipts or errors, and the steps that led to each.

    `own_connector` says whether through a connector of the caller's, with the settings that docs/faults.md advises.
    """
    upload = CertificateUpload(file=file, certification_id=1, email="jan@example.org", valid_from=date(2026, 1, 31))
    limiter, found = Limiter(posts=100_000, requests_per_hour=1_000_000), list[tuple[Any, list[UploadStep]]]()
    async with AsyncExitStack() as stack:
        connector = None
        if own_connector:
            connector = await stack.enter_async_context(aiohttp.TCPConnector(keepalive_timeout=1))
        client = await stack.enter_async_context(client_of(origin, connector=connector, limiter=limiter))
        for _ in range(times):
            steps = list[UploadStep]()
            try:
                found.append((await client.upload(upload, listener=steps.append), steps))
            except (InDoubt, NotSent, Rejected) as error:
                found.append((error, steps))
    return found


async def _measure(file: Path, end: Literal["close", "reset"], *, own_connector: bool) -> dict[str, str]:
    """Return the shares of uploads that ended in each way."""
    async with early_server(EARLY, 400, end) as server:
        found = await upload_again_and_again(server.origin, file, _UPLOADS, own_connector=own_connector)
    ends = Counter(
        type(outcome).__name__ + ", sent again" * any(step.kind == "unsent" for step in steps)
        for outcome, steps in found
    )
    return {kind: f"{100 * ends[kind] / _UPLOADS:.1f} %" for kind in sorted(ends)}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, patch("springest_async.upload.backoff", lambda _: 0.01):
        for size, length in _SIZES.items():
            file = file_of(length, Path(folder) / "x.pdf")
            for end in ("close", "reset"):
                for name, (loop, own_connector) in _WAYS.items():
                    with asyncio.Runner(loop_factory=loop) as runner:
                        shares = runner.run(_measure(file, end, own_connector=own_connector))
                    print(size, end, name, shares)  # noqa: T201 (what this program is for)


if __name__ == "__main__":
    main()
