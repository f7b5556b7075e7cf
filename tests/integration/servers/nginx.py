"""A real nginx in front of another server, which refuses POSTs above a rate, or what a test says, before it sees them.

Its `limit_req <https://nginx.org/en/docs/http/ngx_http_limit_req_module.html>`_ is strict spacing, the
other way in which a site may count its minute: at 30 a minute, the second of two POSTs within two seconds
is refused.
"""

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from . import find, process

# The request's own Host and its query go upstream untouched. No access log: its lines would hold the keys.
_CONFIGURATION = """\
daemon off;
{user}
worker_processes 1;
pid nginx.pid;
error_log stderr warn;

events {{
    worker_connections 512;
}}

http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;

    # A request with an empty key is not limited.
    map $request_method $post {{
        default "";
        POST $server_name;
    }}
    limit_req_zone $post zone=posts:1m rate={rate};

    server {{
        listen 127.0.0.1:{port};
        server_name springest;

        location = /__nginx {{
            return 204;
        }}

        location / {{
            limit_req zone=posts;
            limit_req_status {status};
{rules}
            proxy_pass {upstream_origin};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


@asynccontextmanager
async def nginx_in_front_of(
    upstream_origin: str, *, rate: str = "30r/m", status: int = 400, rules: str = ""
) -> AsyncIterator[str]:
    """Start nginx in front of ``upstream_origin`` (``http://127.0.0.1:PORT``); yield its own origin.

    ``rate`` is nginx's own notation, ``30r/m`` or ``10r/s``, and holds for all POSTs together, without a
    burst; one above it is answered with ``status`` and nginx's HTML page. ``rules`` are more lines of its
    ``location``, such as ``client_max_body_size 100k;``. Raises
    :class:`~.process.ServerStartError`, with nginx's log, when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="springest-nginx-") as name, socket.socket() as listener:
        # nginx is handed a socket that listens already, as an older nginx would hand it on in an upgrade, so
        # that no other process can take the port in between.
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        port = listener.getsockname()[1]
        folder = Path(name)
        configuration = _CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            port=port,
            rate=rate,
            status=status,
            rules="\n".join(f"            {line.strip()}" for line in rules.splitlines()),
            upstream_origin=upstream_origin,
        )
        (folder / "nginx.conf").write_text(configuration, encoding="utf-8")
        command = (find("nginx") or "nginx", "-p", name, "-e", "stderr", "-c", "nginx.conf")
        environment = {"NGINX": f"{listener.fileno()};"}
        async with process.running(
            command, folder=folder, environment=environment, pass_fds=(listener.fileno(),)
        ) as server:
            # nginx has its own now; were this one left open, one could connect to an nginx that is dead.
            listener.close()
            origin = f"http://127.0.0.1:{port}"
            async with process.starting(server):
                await server.answering(f"{origin}/__nginx")
            yield origin
