"""Write ``tests/samples``: answers of real servers, one folder a case, for tests that need no server.

Run it from the root of the checkout, on a machine with Rails, Puma and nginx (:data:`~.REQUIREMENTS`)::

    python -m tests.integration.servers.capture_samples

A folder has three files: ``status``, a number; ``headers``, lines of ``Name: value``; and the body, byte
for byte, in ``body.json``, ``body.xml`` or ``body.html``. The same versions of the servers give the same
bytes again: the clock of the application stands still, the request's id is given, and a header that only
tells how long an answer took gets a fixed value. What frames an answer on its connection
(``Transfer-Encoding``, ``Content-Length``) is left out. No key is in them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import aiohttp
import attrs

from .nginx import nginx_in_front_of
from .rails import RailsServer, rails_server

SAMPLES = Path(__file__).parents[2] / "samples"

NOW = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
REQUEST_ID = "6f1f5f0e-0000-4000-8000-000000000000"

CERTIFICATES = "/users/certificates"
CERTIFICATIONS = "/certifications"
EXTENSIONS = {"application/json": "json", "application/xml": "xml", "text/html": "html"}

_FIXED = {"x-runtime": "0.004200", "date": "Mon, 05 Jan 2026 09:30:00 GMT"}
_FRAMING = {"connection", "content-length", "transfer-encoding"}

_PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n%%EOF\n"

Fields = Mapping[str, str | bytes]

# What the server holds when a case is asked for: what the fields of three POSTs made of it.
ARCHIVE: tuple[Fields, ...] = (
    {"certification_id": "101", "email": "anna@example.com", "valid_from": "2025-09-01", "file": _PDF},
    {
        "certification_id": "102",
        "email": "zoë@example.com",
        "valid_from": "2026-01-02",
        "valid_until": "2027-01-01",
        "file": _PDF,
    },
    {
        "certification_id": "103",
        "email": "pat.o'brien+vca@example.com",
        "valid_from": "2025-12-24",
        "file": _PDF,
    },
)
INVALID: Fields = {
    "certification_id": "102",
    "email": "anna at example.com",
    "valid_from": "24-12-2025",
    "file": _PDF,
}
BASE64: Fields = {**ARCHIVE[0], "file": b"JVBERi0xLjcKJeLjz9MKJSVFT0YK"}


@attrs.frozen(kw_only=True)
class Case:
    """One question, put to a server in ``shape`` that has ``ARCHIVE``; with ``fields`` it is a POST.

    ``key`` names the attribute of the server that has the key to send; None sends none.
    """

    name: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict)
    fields: Fields | None = None
    key: str | None = "key"
    shape: tuple[str, ...] = ()
    limit: int = 30

    def server(self) -> tuple[tuple[str, ...], int]:
        """Return what cases must have in common to share a server."""
        return self.shape, self.limit


def cases() -> Iterator[Case]:
    """Yield every case that Rails answers."""
    for extension in ("json", "xml"):
        yield from _lists(extension)
        yield from _posts(extension)
        yield from _refusals(extension)
    yield Case(name="not_found_html", path="/certificates")
    yield Case(name="server_error_html", path="/__error")


def _lists(extension: str) -> Iterator[Case]:
    path = f"{CERTIFICATES}.{extension}"
    nobody = {"email": "nobody@example.com"}
    yield Case(name=f"certificates_page_{extension}", path=path, query={"size": "2"})
    yield Case(name=f"certificates_last_page_{extension}", path=path, query={"size": "2", "offset": "2"})
    yield Case(name=f"certificates_empty_{extension}", path=path, query=nobody)
    yield Case(name=f"certificates_without_meta_{extension}", path=path, shape=("without_meta",))
    yield Case(name=f"certificates_bare_{extension}", path=path, shape=("bare",))
    yield Case(name=f"certificates_bare_empty_{extension}", path=path, query=nobody, shape=("bare",))
    yield Case(name=f"certificates_nested_{extension}", path=path, shape=("nested",))
    yield Case(name=f"certificates_string_ids_{extension}", path=path, shape=("string_ids",))
    path = f"{CERTIFICATIONS}.{extension}"
    yield Case(name=f"certifications_page_{extension}", path=path, key="certifications_key")
    yield Case(name=f"certifications_bare_{extension}", path=path, key="certifications_key", shape=("bare",))


def _posts(extension: str) -> Iterator[Case]:
    path = f"{CERTIFICATES}.{extension}"
    yield Case(name=f"created_{extension}", path=path, fields=ARCHIVE[1])
    yield Case(name=f"created_string_id_{extension}", path=path, fields=ARCHIVE[1], shape=("string_ids",))
    yield Case(name=f"created_without_id_{extension}", path=path, fields=ARCHIVE[1], shape=("without_id",))


def _refusals(extension: str) -> Iterator[Case]:
    path = f"{CERTIFICATES}.{extension}"
    yield Case(name=f"rejected_fields_{extension}", path=path, fields=INVALID)
    yield Case(name=f"rejected_file_{extension}", path=path, fields=BASE64)
    yield Case(name=f"rejected_full_messages_{extension}", path=path, fields=INVALID, shape=("full_messages",))
    yield Case(name=f"too_fast_{extension}", path=path, fields=ARCHIVE[0], limit=len(ARCHIVE))
    yield Case(name=f"not_authorized_{extension}", path=path, key=None)
    yield Case(name=f"forbidden_{extension}", path=path, key="certifications_key")


def form(fields: Fields) -> aiohttp.FormData:
    """Return ``fields`` as a multipart form; ``file`` in it becomes an uploaded PDF."""
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        if isinstance(value, bytes):
            data.add_field(name, value, filename="certificate.pdf", content_type="application/pdf")
        else:
            data.add_field(name, value)
    return data


async def ask(session: aiohttp.ClientSession, server: RailsServer, case: Case) -> None:
    """Put one question and write the answer down."""
    query = dict(case.query)
    if case.key is not None:
        query["api_key"] = getattr(server, case.key)
    await _sample(session, case.name, server.origin + case.path, query, case.fields)


async def main() -> None:
    """Start a server for each shape and write all samples."""
    async with aiohttp.ClientSession(headers={"X-Request-Id": REQUEST_ID}) as session:
        for (shape, limit), group in groupby(sorted(cases(), key=Case.server), key=Case.server):
            questions = sorted(group, key=lambda case: case.fields is not None)  # the lists before the POSTs
            async with rails_server(shape=shape, limit=limit, now=NOW) as server:
                await _fill(session, server)
                for case in questions:
                    await ask(session, server, case)
        await _sample_nginx(session)


async def _fill(session: aiohttp.ClientSession, server: RailsServer) -> None:
    for fields in ARCHIVE:
        url = server.origin + CERTIFICATES
        async with session.post(url, params={"api_key": server.key}, data=form(fields)) as response:
            response.raise_for_status()


async def _sample_nginx(session: aiohttp.ClientSession) -> None:
    async with rails_server(now=NOW) as server, nginx_in_front_of(server.origin, rate="1r/m") as origin:
        for _ in range(2):
            await _sample(session, "too_fast_nginx_html", origin + CERTIFICATES, {"api_key": server.key}, ARCHIVE[0])


async def _sample(
    session: aiohttp.ClientSession, name: str, url: str, query: Mapping[str, str], fields: Fields | None
) -> None:
    request = session.get(url, params=query) if fields is None else session.post(url, params=query, data=form(fields))
    async with request as response:
        headers = [(key.decode("ascii"), value.decode("ascii")) for key, value in response.raw_headers]
        _write(name, response.status, headers, await response.read(), EXTENSIONS[response.content_type])


def _write(name: str, status: int, headers: list[tuple[str, str]], body: bytes, extension: str) -> None:
    folder = SAMPLES / name
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("body.*"):
        stale.unlink()
    lines = [f"{key}: {_FIXED.get(key.lower(), value)}\n" for key, value in headers if key.lower() not in _FRAMING]
    (folder / "status").write_text(f"{status}\n", encoding="ascii")
    (folder / "headers").write_text("".join(lines), encoding="ascii")
    (folder / f"body.{extension}").write_bytes(body)


if __name__ == "__main__":
    asyncio.run(main())
