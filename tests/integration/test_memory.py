"""Memory stays flat at any file size: 2 GB go up from a process of their own that is watched."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

UPLOADER = """
import asyncio, re, sys
from datetime import date
from pathlib import Path
from springest_async import CertificateUpload, Springest

def peak_kib():
    # Not getrusage: its figure begins with that of the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

async def main(origin, *files):
    async with Springest(api_key="key-of-the-tests", host=origin) as springest:
        for file in files:
            upload = CertificateUpload(
                file=file, certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31)
            )
            print((await springest.upload(upload)).attempts, peak_kib())

asyncio.run(main(*sys.argv[1:]))
"""


class Sink:
    """A server that reads bodies as fast as it can and stores each."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Sink":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        buffer = memoryview(bytearray(1 << 20))
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._take(connection, buffer)

    def _take(self, connection: socket.socket, buffer: memoryview) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(65536)):
                return
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: ([0-9]+)", head)
        assert found is not None
        if b"100-continue" in head:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        received = len(body)
        while received < int(found[1]) and (count := connection.recv_into(buffer)):
            received += count
        self.received.append(received)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.mark.soak  # ten seconds, most of them the system's for moving 2 GB through loopback
def test_two_gigabytes_take_no_more_memory_than_two_megabytes(sink: Sink, tmp_path: Path) -> None:
    sizes = {"small.pdf": 2 * 1024**2, "huge.pdf": 2 * 1024**3}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)

    done = subprocess.run(
        [sys.executable, "-c", UPLOADER, sink.origin, *(str(tmp_path / name) for name in sizes)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )

    (small_tries, small_kib), (huge_tries, huge_kib) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (small_tries, huge_tries) == (1, 1)
    assert [count > size for count, size in zip(sink.received, sizes.values(), strict=True)] == [True, True]
    assert huge_kib - small_kib < 32 * 1024
