"""A connection that comes as a server ends is closed with it, whatever asyncio had done about it by then."""

import asyncio
import gc
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.waiting import A_WHILE

from .command import springest_sandbox
from .faults.proxy import Line, fault_proxy
from .raw_server import created, raw_server
from .wire import closed_port


def proxy() -> AbstractAsyncContextManager[Any]:
    return fault_proxy(f"http://127.0.0.1:{closed_port()}", Line())


def scripted() -> AbstractAsyncContextManager[Any]:
    return raw_server(created)


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("serve", [scripted, proxy, springest_sandbox])
async def test_the_last_connection_is_closed(serve: Callable[[], AbstractAsyncContextManager[Any]], turns: int) -> None:
    """It was opened so many turns of the event loop before the end."""
    gc.disable()  # which would close it for us
    try:
        async with serve() as server:
            caller = socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2])), timeout=A_WHILE)
            for _ in range(turns):
                await asyncio.sleep(0)
        with caller:
            assert await asyncio.to_thread(_received, caller) == b""
    finally:
        gc.enable()


def _received(caller: socket.socket) -> bytes:
    try:
        return caller.recv(1)
    except ConnectionResetError:
        return b""
