"""How many POSTs the sandbox refuses, in real time and over sockets, for each way of keeping the limit.

A minute of it takes 3 s. Each client meets all ways of counting at once, because it waits most of the time. Ours is the
whole `Springest`; of the others, a refused POST is sent again as soon as their limiter lets it. Two ways want more than
a limit, so that only a client that slows down ever finishes there.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from typing import Any, get_args

import aiohttp

from benchmarks.limit_clients import CLIENTS, POSTS, Pacer
from benchmarks.report import Table
from springest_async import CertificateUpload, Limiter, Settings, Springest
from springest_async.sandbox import Sandbox
from springest_async.sandbox.windows import Counting

__all__ = ["measure_sandbox"]

_PERIOD = 3.0
_WORKERS = 8
_OURS = "**`Springest.upload()`**"
_PDF = b"%PDF-1.7\n" + b"\n" * 1000 + b"%%EOF\n"
_MOST = "most in any period"

_WAYS: dict[str, dict[str, Any]] = {
    **{counting: {"window": counting} for counting in get_args(Counting)},
    "sliding, refusals count": {"window": "sliding", "count_refusals": True},
}
_STRICT = ("elastic", "paced")


async def measure_sandbox(*, quick: bool) -> Table:
    """Upload to sandboxes that count in each way; quick: only with ours, and only where no POST is ever refused."""
    uploads = 2 * POSTS + 5 if quick else 3 * POSTS + 5
    kept = [name for name in _WAYS if name not in _STRICT]
    clients = [_OURS] if quick else [*list(CLIENTS)[:-1], _OURS]
    rows: dict[str, list[float | None]] = {}
    with tempfile.TemporaryDirectory(prefix="springest-benchmark-") as folder:
        file = Path(folder) / "certificate.pdf"
        file.write_bytes(_PDF)
        for client in clients:
            names = list(_WAYS) if client == _OURS and not quick else kept
            runs = await asyncio.gather(*(_run(client, file, uploads, _WAYS[name]) for name in names))
            found = dict(zip(names, runs, strict=True))
            refused = [found[name][0] if name in found else None for name in _WAYS]
            rows[client] = [*refused, max(most for _, most in runs)]
    return Table(
        key="sandbox",
        title=f"POSTs that the sandbox refuses of {uploads} uploads, in real time",
        unit=f"POSTs, in periods of {_PERIOD:g} s",
        columns=[*_WAYS, _MOST],
        rows=rows,
        picture=None,
        ceilings={(_OURS, name): 0 for name in kept} | {(_OURS, _MOST): POSTS},
        notes=["A strict way is left out where a client that does not slow down would never finish."],
    )


async def _run(client: str, file: Path, uploads: int, counting: Mapping[str, Any]) -> tuple[int, int]:
    """Upload as one client, and return how many POSTs were refused, and the most of any period."""
    waiting = iter(range(uploads))
    async with Sandbox(limit=POSTS, period=_PERIOD, **counting) as sandbox, AsyncExitStack() as stack:
        if client == _OURS:
            upload = await _ours(stack, sandbox, file)
        else:
            upload = await _theirs(stack, sandbox, CLIENTS[client](_PERIOD))
        await asyncio.gather(*(_work(upload, waiting) for _ in range(_WORKERS)))
        summary = sandbox.summary()
    return summary.refused_for_speed, summary.most_in_any_period


async def _work(upload: Callable[[], Awaitable[object]], waiting: Iterator[int]) -> None:
    for _ in waiting:
        await upload()


async def _ours(stack: AsyncExitStack, sandbox: Sandbox, file: Path) -> Callable[[], Awaitable[object]]:
    settings = Settings(limiter=Limiter(posts=POSTS, period=_PERIOD))
    springest = await stack.enter_async_context(
        Springest(api_key=sandbox.api_key, host=sandbox.origin, settings=settings)
    )
    certificate = CertificateUpload(
        file=file, certification_id=1, email="jan@example.org", valid_from=date(2026, 1, 31)
    )
    return lambda: springest.upload(certificate)


async def _theirs(stack: AsyncExitStack, sandbox: Sandbox, pacer: Pacer) -> Callable[[], Awaitable[object]]:
    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def post() -> bool:
        async with pacer():
            form = aiohttp.FormData({"email": "jan@example.org", "certification_id": "1", "valid_from": "2026-01-31"})
            form.add_field("file", _PDF, filename="certificate.pdf", content_type="application/pdf")
            address = f"{sandbox.origin}/users/certificates.json"
            async with session.post(address, params={"api_key": sandbox.api_key}, data=form) as answer:
                await answer.read()
                return answer.status == 201

    async def upload() -> None:
        while not await post():
            pass

    return upload
