"""The promises on uvloop, and on a connector of the caller's: both write to sockets without asking the client's own.

Only how often an early refusal is heard differs: `loops` measures that, and docs/faults.md says it. On real sockets.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp.http import StreamWriter

from springest_async import CertificateUpload, Fault, Rejected
from tests.waiting import A_WHILE

from .loops import ASYNCIO, EARLY, UVLOOP, Loop, early_server, upload_again_and_again
from .raw_server import either, form_of, raw_server
from .wire import client_of, file_of, ids

ALL = -1
REFUSAL = b'{"errors": {"email": ["is invalid"]}}'
REFUSED = {"Rejected", "InDoubt"}

# How much of a certificate the server reads, what it answers, and which outcomes are true then.
SERVERS: dict[str, tuple[int, int, set[str]]] = {
    "refuses it early": (EARLY, 400, REFUSED),
    "refuses it": (ALL, 400, REFUSED),
    "says nothing": (ALL, 0, {"InDoubt"}),
    "stores it": (ALL, 201, {"Receipt", "InDoubt"}),
}
TIMES = 20


@pytest.mark.parametrize(
    ("size", "end"), [(1_000, "close"), (200_000, "close"), (200_000, "reset"), (2_000_000, "reset")]
)
@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize(
    ("loop", "own_connector"), [(UVLOOP, False), (ASYNCIO, True)], ids=["uvloop", "a connector of the caller's"]
)
def test_a_hasty_server_leads_to_nothing_that_is_wrong(
    loop: Loop,
    own_connector: bool,
    name: str,
    end: Literal["close", "reset"],
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A certificate that arrived whole is never called unsent, and never sent again; a refusal is never a receipt."""
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.01)
    most, status, true_outcomes = SERVERS[name]
    file = file_of(size, tmp_path / "x.pdf")

    async def run() -> None:
        async with early_server(most, status, end) as server:
            found = await upload_again_and_again(server.origin, file, TIMES, own_connector=own_connector)
        arrived = iter(server.arrived_whole)
        for outcome, steps in found:
            tries = [step.kind for step in steps if step.kind in ("unsent", "stored", "rejected", "in doubt")]
            whole = [next(arrived) for _ in tries]
            assert type(outcome).__name__ in true_outcomes
            assert [kind == "unsent" for kind in tries] == [True] * (len(tries) - 1) + [False]
            assert not any(whole[:-1])
        assert list(arrived) == []

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_a_refusal_that_has_arrived_is_heard_on_any_socket(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal and the end of the connection arrive right before the last bytes are written."""
    hung_up, write = threading.Event(), StreamWriter.write

    def refuse(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            while b"Expect" not in connection.recv(65536):
                pass
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            got = 0
            while got < EARLY:
                got += len(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 37\r\n\r\n" + REFUSAL)
        hung_up.set()

    async def write_and_wait(writer: StreamWriter, chunk: bytes, *options: Any) -> None:
        await write(writer, chunk, *options)
        if len(chunk) > EARLY:
            assert hung_up.wait(A_WHILE)  # which holds up the event loop, too

    monkeypatch.setattr(StreamWriter, "write", write_and_wait)
    upload = make_upload(file=file_of(200_000, tmp_path / "x.pdf"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = asyncio.create_task(asyncio.to_thread(refuse, listening))
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with aiohttp.TCPConnector() as connector, client_of(origin, connector=connector) as client:
            with pytest.raises(Rejected) as caught:
                await client.upload(upload)
        await server

    assert caught.value.faults == (Fault("email", "is invalid"),)


def test_uploads_and_lists_work_on_uvloop(make_upload: Callable[..., CertificateUpload], tmp_path: Path) -> None:
    sizes = [1_000, 300_000, 3_000_000]
    files = [file_of(size, tmp_path / f"{size}.pdf") for size in sizes]

    async def run() -> None:
        async with raw_server(either) as server, client_of(server, certifications_api_key="another-key") as client:
            receipts = [await client.upload(make_upload(file=file)) for file in files]
            listed = await ids(client)
        assert [receipt.id for receipt in receipts] == [5001] * 3
        assert listed == [7]
        parts = [form_of(exchange)["file"].get_payload(decode=True) for exchange in server.exchanges[:-1]]
        assert parts == [file.read_bytes() for file in files]

    with asyncio.Runner(loop_factory=UVLOOP) as runner:
        runner.run(run())
