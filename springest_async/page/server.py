"""`StatusPage`: the page's routes, its events, its buttons, and the socket that it listens on.

A request passes `access` first. The page is read-only but for three things that a person may press: pause, resume, and
the answers to rows in doubt; they do what ``springest pause``, ``resume`` and ``resolve`` do.
"""

import asyncio
import json
import logging
import platform
from collections.abc import Callable, Coroutine, Mapping
from importlib import resources
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from springest_async.errors import ConfigurationError, JournalError, MigrationMissing
from springest_async.journal import doubts, manifest_rows, migrations
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, State
from springest_async.page.access import HEADERS, TOKEN_HEADER, Access
from springest_async.page.watch import JournalWatch
from springest_async.reports.status_json import time_as_json

DOUBTS_PER_PAGE = 50

_LOOPBACK = "127.0.0.1"  # not "localhost", which may have two addresses
_BEAT = 15.0  # seconds without an event after which a viewer is told that the page is there
_PATIENCE = 10.0  # seconds that a person waits for the journal
_LARGEST_BODY = 16_384
_MISSING = "The journal has no such upload: it never had, or “springest journal forget” has erased it."
_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

logger = logging.getLogger(__name__)
_UNHEARD = logging.getLogger(f"{__name__}.unheard")
_UNHEARD.addFilter(lambda _: False)

_ANSWERS: dict[str, Literal[State.STORED, State.WAITING]] = {"stored": State.STORED, "send again": State.WAITING}


class StatusPage:
    """The status page of a journal, on a socket of its own.

    Usage::

        async with StatusPage(journal) as page:
            print(page.url)

    Args:
        journal: the journal, which must be open.
        port: 0 for any free one.
        host: the address to listen on.
        password: what browsers ask for. With one, the address has no token; other machines need one.

    Raises:
        OSError: from ``async with``: the socket cannot be opened.
    """

    def __init__(self, journal: Journal, *, port: int = 0, host: str = _LOOPBACK, password: str | None = None) -> None:
        self._journal = journal
        self._port = port
        self._access = Access(host=host, password=password)
        self._watch = JournalWatch(journal)
        self._runner: web.AppRunner | None = None
        self._bound_port = 0

    def __repr__(self) -> str:
        return f"<StatusPage of {self._journal.where} on {self._access.host}:{self._bound_port}>"

    async def __aenter__(self) -> Self:
        # No log of requests: each would have the token in it. An open page never ends by itself, so nobody waits long.
        runner = web.AppRunner(self._application(), access_log=None, logger=_UNHEARD, shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._access.host, self._port)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self._bound_port = runner, site.port
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        await self._watch.__aexit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """The address of the page; without a password it has the token, so show it to the owner only."""
        host = platform.node() if self._access.host in ("0.0.0.0", "::") else self._access.host  # noqa: S104 # compared
        origin = f"http://[{host}]:{self._bound_port}/" if ":" in host else f"http://{host}:{self._bound_port}/"
        return origin if self._access.password is not None else f"{origin}{self._access.address_token}/"

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=_LARGEST_BODY)
        app.on_response_prepare.append(_add_headers)
        base = "" if self._access.password is not None else "/{token}"
        add = app.router
        add.add_get(f"{base}/", self._index)
        if base:
            add.add_get(base, self._with_slash)
        for name in _FILES:
            add.add_get(f"{base}/{name}", self._file)
        add.add_get(f"{base}/events", self._events, allow_head=False)
        migration = base + r"/migrations/{migration:\d{1,18}}"
        add.add_get(f"{migration}/doubts", self._doubts)
        add.add_post(f"{migration}/pause", self._pause)
        add.add_post(f"{migration}/resume", self._resume)
        add.add_post(f"{migration}/answers", self._answer)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        headers, access = request.headers, self._access
        host = headers.get(hdrs.HOST, "")
        if not access.knows_host(host):
            return _refusal(403, "This page is not served under that name. Use the address that springest printed.")
        if not access.knows_password(headers.get(hdrs.AUTHORIZATION, "")):
            refusal = _refusal(401, "The password of the page is in the file that --password-file names.")
            refusal.headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="Springest uploads", charset="UTF-8"'
            return refusal
        if not access.knows_address(request.match_info.get("token", "")):
            return _refusal(404, "There is no page here. Use the whole address that springest status --serve printed.")
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD) and not access.is_own(
            host, headers.get(hdrs.ORIGIN, ""), headers.get(TOKEN_HEADER, "")
        ):
            return _refusal(403, "This did not come from the page that is open here. Reload it, and try again.")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _refusal(error.status, error.text or error.reason)
        except Exception:  # without the address, which has the token
            logger.exception("the status page could not answer a request")
            return _refusal(500, "The status page has failed. springest status shows the same.")

    async def _index(self, _: web.Request) -> web.Response:
        text = _static("index.html").replace("{token}", self._access.page_token)
        return web.Response(text=text, content_type="text/html")

    async def _with_slash(self, request: web.Request) -> web.Response:
        return web.Response(status=308, headers={hdrs.LOCATION: f"{request.rel_url.raw_path}/"})

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        return web.Response(text=_static(name), content_type=_FILES[name], charset="utf-8")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send each picture of the journal as an event, of which a viewer gets what has changed."""
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        shown, known = None, dict[int, str]()
        try:
            await response.write(b"retry: 2000\n\n")
            with self._watch.viewer():
                while True:
                    try:
                        async with asyncio.timeout(_BEAT):
                            shown = await self._watch.newer(shown)
                    except TimeoutError:
                        await response.write(b": nothing new\n\n")
                    else:
                        await response.write(f"data: {shown.since(known)}\n\n".encode())
        except ConnectionError:  # the viewer has gone
            return response

    async def _doubts(self, request: web.Request) -> web.Response:
        """Answer with the next rows in doubt after a row number, and whether there are more."""
        after = request.query.get("after", "0")
        if not _is_row(after):
            raise web.HTTPBadRequest(text="after: expected the number of a row")

        def read(connection: Connection) -> tuple[list[Entry], dict[int, str]]:
            migration = int(request.match_info["migration"])
            source = migrations.source_of(connection, migration, self._journal.machine)
            found = manifest_rows.entries(
                connection, migration, source, (State.IN_DOUBT,), after=int(after), limit=DOUBTS_PER_PAGE + 1
            )
            return found, doubts.asked_about(connection)

        try:
            async with asyncio.timeout(_PATIENCE):
                found, asked = await self._watch.read(read)
        except MigrationMissing:
            return _refusal(404, _MISSING)
        except JournalError as error:
            return _refusal(503, str(error))
        except TimeoutError:
            return _refusal(503, "The journal does not answer.")
        rows = [_doubt(entry, asked) for entry in found[:DOUBTS_PER_PAGE]]
        return web.json_response({"rows": rows, "more": len(found) > DOUBTS_PER_PAGE})

    async def _pause(self, request: web.Request) -> web.Response:
        async def pause() -> dict[str, Any]:
            return {"changed": await (await self._migration(request)).pause()}

        return await self._told(pause)

    async def _resume(self, request: web.Request) -> web.Response:
        async def resume() -> dict[str, Any]:
            return {"changed": await (await self._migration(request)).resume()}

        return await self._told(resume)

    async def _answer(self, request: web.Request) -> web.Response:
        """Record a person's word on rows in doubt.

        ``{"rows": {"17": request id}, "answer": "stored"}``, or "send again". The request id is that of the POST which
        the person has looked up: a row may have been sent again since.
        """
        requests, answer = _answer_in(await request.read())

        async def resolve() -> dict[str, Any]:
            migration = await self._migration(request)
            return {"changed": await migration.resolve(requests.keys(), answer, requests=requests)}

        return await self._told(resolve)

    async def _migration(self, request: web.Request) -> OpenMigration:
        return await OpenMigration.of(self._journal, int(request.match_info["migration"]))

    async def _told(self, work: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> web.Response:
        """Answer with the result of some work on the journal, or say why there is none."""
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await work()
        except ConfigurationError as error:
            return _refusal(409, str(error))
        except MigrationMissing:
            return _refusal(404, _MISSING)
        except JournalError as error:
            return _refusal(503, str(error))
        except TimeoutError:
            words = self._journal.trouble or "it is busy"
            return _refusal(503, f"The journal does not answer ({words}). See what is shown here when it is back.")
        finally:
            self._watch.look()
        return web.json_response(found)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _refusal(status: int, words: str) -> web.Response:
    return web.Response(status=status, text=words)


def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def _answer_in(body: bytes) -> tuple[Mapping[int, str], Literal[State.STORED, State.WAITING]]:
    """Return the request ids by row, and the answer, in the body of a POST.

    Raises:
        web.HTTPBadRequest: it is none of the page.
    """
    try:
        match json.loads(body):
            case {"rows": dict(rows), "answer": str(answer)} if (
                answer in _ANSWERS
                and 0 < len(rows) <= DOUBTS_PER_PAGE
                and all(_is_row(row) and isinstance(request_id, str) for row, request_id in rows.items())
            ):
                return {int(row): request_id for row, request_id in rows.items()}, _ANSWERS[answer]
    except (ValueError, RecursionError):
        pass
    raise web.HTTPBadRequest(text=f"expected the request ids of 1 to {DOUBTS_PER_PAGE} rows, and an answer")


def _is_row(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _doubt(entry: Entry, asked: Mapping[int, str]) -> dict[str, Any]:
    return {
        "row": entry.number,
        "file": entry.file,
        "email": entry.email,
        "certification": entry.certification_id,
        "valid_from": entry.valid_from.isoformat(),
        "valid_until": entry.valid_until and entry.valid_until.isoformat(),
        "sent_at": time_as_json(entry.sent_at),
        "reason": entry.reason,
        "request_id": entry.request_id,
        "asked_by": None if entry.certificate is None else asked.get(entry.certificate),
    }
