"""What the tests of the wire share: an impatient client, files to send, small sockets, and a look at what is open."""

import contextlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from springest_async import Limiter, Settings, Springest, Timeouts

from .raw_server import Exchange, RawServer

__all__ = [
    "KEY",
    "PATH",
    "PATIENT",
    "client_of",
    "file_of",
    "open_descriptors",
    "open_files_in",
    "small_socket",
    "taken",
]

KEY = "key-of-the-tests"
PATIENT = Timeouts(connect=30.0, answer=30.0, stall=30.0)
PATH = "/users/certificates.json"


@asynccontextmanager
async def client_of(
    server: RawServer, *, api_key: str = KEY, certifications_api_key: str | None = None, **settings: Any
) -> AsyncIterator[Springest]:
    """Give a client that no busy machine makes lose its patience: who tests that gives it less."""
    options: dict[str, Any] = {"limiter": Limiter(), "timeouts": PATIENT} | settings
    async with Springest(
        api_key=api_key,
        certifications_api_key=certifications_api_key,
        host=server.origin,
        settings=Settings(**options),
    ) as springest:
        yield springest


def file_of(size: int, path: Path) -> Path:
    path.write_bytes(random.Random(size).randbytes(size))  # any bytes will do
    return path


def open_files_in(folder: Path) -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by now
            found.append(descriptor.readlink())
    return [str(path) for path in found if path.is_relative_to(folder)]


def open_descriptors() -> int:
    """Count the files and sockets that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def small_socket(send_buffer: int | None, address: Any) -> socket.socket:
    made = socket.socket(*address[:3])
    if send_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return made


async def taken(exchange: Exchange) -> None:
    await exchange.go_on()
    await exchange.read()
