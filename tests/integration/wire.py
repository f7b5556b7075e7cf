"""What the tests of the wire share: an impatient client, files to send, small sockets, and a look at what is open."""

import atexit
import functools
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from springest_async import Journal, Limiter, Settings, Springest, Timeouts

from .raw_server import Exchange, RawServer

__all__ = ["KEY", "PATH", "PATIENT", "client_of", "closed_port", "file_of", "ids", "small_socket", "taken"]

KEY = "key-of-the-tests"
PATIENT = Timeouts(connect=30.0, answer=30.0, stall=30.0)
PATH = "/users/certificates.json"


@asynccontextmanager
async def client_of(
    server: RawServer | str,
    *,
    api_key: str = KEY,
    certifications_api_key: str | None = None,
    journal: Journal | None = None,
    **settings: Any,
) -> AsyncIterator[Springest]:
    """Return a client of a server, or of an origin, that no busy machine makes lose its patience.

    Who tests that gives it less.
    """
    limiter: dict[str, Any] = {} if journal else {"limiter": Limiter()}
    options: dict[str, Any] = limiter | {"timeouts": PATIENT} | settings
    async with Springest(
        api_key=api_key,
        certifications_api_key=certifications_api_key,
        host=server if isinstance(server, str) else server.origin,
        settings=Settings(**options),
        journal=journal,
    ) as springest:
        yield springest


async def ids(client: Springest) -> list[int]:
    """List the certifications."""
    return [certification.id async for certification in client.certifications()]


def file_of(size: int, path: Path) -> Path:
    path.write_bytes(random.Random(size).randbytes(size))  # any bytes will do
    return path


@functools.cache
def _bound() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    atexit.register(made.close)
    return made


def closed_port() -> int:
    """Return a port of 127.0.0.1 that refuses connections: it is bound, so that no other test gets it."""
    return int(_bound().getsockname()[1])


def small_socket(send_buffer: int | None, address: Any) -> socket.socket:
    made = socket.socket(*address[:3])
    if send_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return made


async def taken(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read()
