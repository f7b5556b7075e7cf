"""A real haproxy in front of another server, which answers for that server when a test's rules tell it to."""

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from . import find, process

# It logs nothing, because the address in its lines would hold the key.
_CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout queue 200ms

frontend springest
    bind fd@{descriptor}
    http-request return status 204 if {{ path /__haproxy }}
{rules}
    default_backend upstream

backend upstream
    server upstream {upstream} {options}
"""


@asynccontextmanager
async def haproxy_in_front_of(upstream_origin: str, *, rules: str = "", options: str = "") -> AsyncIterator[str]:
    """Start haproxy in front of ``upstream_origin`` (``http://127.0.0.1:PORT``); yield its own origin.

    ``rules`` are lines of its frontend, such as ``http-request deny deny_status 413``, and ``options`` those of its
    server, such as ``maxconn 1``. Raises :class:`~.process.ServerStartError`, with its log, when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="springest-haproxy-") as name, socket.socket() as listener:
        # It is handed a socket that listens already, so that no other process can take the port in between.
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        port = listener.getsockname()[1]
        folder = Path(name)
        configuration = _CONFIGURATION.format(
            descriptor=listener.fileno(),
            rules="\n".join(f"    {line.strip()}" for line in rules.splitlines()),
            upstream=urlsplit(upstream_origin).netloc,
            options=options,
        )
        (folder / "haproxy.cfg").write_text(configuration, encoding="utf-8")
        command = (find("haproxy") or "haproxy", "-db", "-f", "haproxy.cfg")
        async with process.running(command, folder=folder, environment={}, pass_fds=(listener.fileno(),)) as server:
            listener.close()  # were it left open, one could connect to a haproxy that is dead
            origin = f"http://127.0.0.1:{port}"
            async with process.starting(server):
                await server.answering(f"{origin}/__haproxy")
            yield origin
