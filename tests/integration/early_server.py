"""A server that answers POSTs early and hangs up, in a process of its own.

``python -m tests.integration.early_server BYTES STATUS close|reset`` reads so many bytes of each body (-1: all of it),
answers with the status (0: with nothing), and closes or resets the connection. On stdout it prints its port, and then
for each POST whether the body arrived ``whole`` or in ``part``. In the process of a client, the two would take turns,
and the client would read an answer sooner or later than it does in the field.
"""

import contextlib
import socket
import struct
import sys

_BODIES = {201: b'{"id": 5001}', 400: b'{"errors": {"email": ["is invalid"]}}'}


def _serve(connection: socket.socket, most: int, status: int, *, reset: bool) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    head, _, body = head.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"expect" in headers:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length, got = int(headers[b"content-length"]), len(body)
    while got < (length if most < 0 else min(most, length)) and (piece := connection.recv(65536)):
        got += len(piece)
    # Before the answer, so that it is there when the client has that.
    print("whole" if got >= length else "part", flush=True)  # noqa: T201 (its output is the result)
    if status:
        said = _BODIES[status]
        connection.sendall(
            b"HTTP/1.1 %d Whatever\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(said), said)
        )
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _main(most: int, status: int, end: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201
        while True:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(ConnectionError):
                _serve(connection, most, status, reset=end == "reset")


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
