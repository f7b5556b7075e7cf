"""A server that takes certificates and keeps none, so fast that it never bounds what is measured.

It is a process of its own, on a core of its own where the system can give it one, and tells how much of that core it
used. It answers as Springest does: 201 with an id that counts up, on a connection that stays open, and 100 Continue at
once when that is asked for. It looks at the length of a body only; on Linux the kernel throws bodies away unread.
"""

import contextlib
import json
import mmap
import os
import re
import selectors
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from attrs import define, frozen

__all__ = ["Sink", "Work", "keep_to_a_core", "leaving_a_core_to_the_sink"]

_HEAD_BYTES = 16 * 1024  # more than any client's head
_PIECE = 4 * 1024 * 1024  # of a body, at a time
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ASKS = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)
_DISCARD = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD = (
    b"HTTP/1.1 201 Created\r\n"
    b"X-Frame-Options: SAMEORIGIN\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Referrer-Policy: strict-origin-when-cross-origin\r\n"
    b"Content-Type: application/json; charset=utf-8\r\n"
    b"Cache-Control: max-age=0, private, must-revalidate\r\n"
    b"X-Request-Id: 6f1f5f0e-0000-4000-8000-000000000000\r\n"
    b"X-Runtime: 0.004200\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_BODY = (
    b'{"id":%d,"name":"Forklift truck","description":"One year","certification_id":1,"valid_from":"2026-01-31",'
    b'"valid_until":null,"status":"approved","created_at":"2026-01-31T09:30:00.000Z","user":'
    b'{"email":"employee@example.org","external_id":null}}'
)


@frozen
class Work:
    """What a sink has done since it began.

    Attributes:
        posts: how many it has answered.
        cpu: seconds of the processor.
    """

    posts: int
    cpu: float

    def __sub__(self, earlier: Self) -> "Work":
        return Work(self.posts - earlier.posts, self.cpu - earlier.cpu)


class Sink:
    """A running sink, as a context manager.

    Args:
        certificate: the file (PEM) with its certificate and key, to speak TLS; None: HTTP.

    Attributes:
        origin: its address, such as ``http://127.0.0.1:49152``.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self._certificate = certificate
        self.origin = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.sink", *([str(self._certificate)] if self._certificate else [])]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        self.origin = f"{'https' if self._certificate else 'http'}://127.0.0.1:{self._line()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its stdin is its end

    def work(self) -> Work:
        """Ask it what it has done."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Work(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the sink has ended")
        return line.strip()


def keep_to_a_core(number: int) -> None:
    """Keep this process to one core, its first (0) or its last (-1), where the system can do that and there are two."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[number]})


@contextlib.contextmanager
def leaving_a_core_to_the_sink() -> Iterator[None]:
    """Keep this process to all cores but the sink's, within the block; a sink must be started before it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(cores)[:-1]) or cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# --- the process ---


@define
class _Connection:
    """A client's connection: the bytes of a head that is not whole, and how much of a body is still to come."""

    socket: socket.socket
    head: bytes = b""
    left: int = 0


class _Server:
    def __init__(self, certificate: str | None) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._tls is not None:
            self._tls.load_cert_chain(str(certificate))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        # Where the kernel throws bodies away, no byte of it is ever touched.
        self._nowhere = memoryview(mmap.mmap(-1, _PIECE))
        self._posts = 0

    def run(self) -> None:
        """Serve until stdin ends; answer each line of it with the work done."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        _say(str(self._listener.getsockname()[1]))
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.data, _Connection):
                    try:
                        self._read(key.data)
                    except OSError:
                        self._close(key.data)
                elif key.fileobj is self._listener:
                    self._accept()
                elif not os.read(sys.stdin.fileno(), 1):
                    return
                else:
                    _say(json.dumps({"posts": self._posts, "cpu": time.process_time()}))

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setblocking(False)
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
                self._selector.register(client, selectors.EVENT_READ, _Connection(client))

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _read(self, connection: _Connection) -> None:
        """Read what is there, and answer when a body has come.

        Raises:
            OSError: when the connection has ended, or is to be closed.
        """
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            while self._read_body(connection) if connection.left else self._read_head(connection):
                pass

    def _read_body(self, connection: _Connection) -> bool:
        """Read once, and return whether there may be more."""
        wanted = min(connection.left, _PIECE)
        got = self._discard(connection.socket, wanted)
        if not got:
            raise ConnectionResetError
        connection.left -= got
        if not connection.left:
            connection.socket.sendall(self._answer())
        return self._tls is not None or (got == wanted and connection.left > 0)

    def _read_head(self, connection: _Connection) -> bool:
        got = connection.socket.recv(_HEAD_BYTES)
        connection.head += got
        head, end, rest = connection.head.partition(b"\r\n\r\n")
        if not end:
            if not got or len(connection.head) >= _HEAD_BYTES:
                raise ConnectionResetError
            return True
        length = _LENGTH.search(head)
        if not head.startswith(b"POST ") or length is None:
            raise ConnectionResetError  # no upload of a certificate
        connection.head = b""
        connection.left = int(length[1]) - len(rest)
        if not connection.left:
            connection.socket.sendall(self._answer())
        elif not rest and _ASKS.search(head):
            connection.socket.sendall(_CONTINUE)
        return True

    def _discard(self, client: socket.socket, count: int) -> int:
        if self._tls is None:
            return client.recv_into(self._nowhere, count, _DISCARD)
        return client.recv_into(self._nowhere, count)

    def _answer(self) -> bytes:
        self._posts += 1
        body = _BODY % self._posts
        return _HEAD % len(body) + body


def _say(line: str) -> None:
    print(line, flush=True)


def _serve(arguments: Sequence[str]) -> None:
    keep_to_a_core(-1)
    _Server(arguments[0] if arguments else None).run()


if __name__ == "__main__":
    _serve(sys.argv[1:])
