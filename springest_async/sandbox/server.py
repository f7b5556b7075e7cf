"""The sandbox itself: its routes, its keys, its limit, and the socket that it listens on.

A POST passes these steps, in this order: key, limit, body, validation, mishap, storing, audit, answer. `windows` counts
for the limit, `forms` reads bodies, `certificates` validates, and `render` writes answers. The sandbox is for one
developer's machine: it speaks plain HTTP, keeps everything in memory and listens on loopback only.
"""

import asyncio
import logging
import re
import time
from bisect import insort
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self
from uuid import uuid4

import attrs
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from attrs import define, field, frozen
from attrs.setters import frozen as frozen_attribute
from attrs.validators import gt

from springest_async.sandbox.audit import Post, Summary, Verdict, as_json, summarize
from springest_async.sandbox.certificates import (
    Form,
    SandboxCertificate,
    SandboxCertification,
    ValidationError,
    certificate_from,
)
from springest_async.sandbox.forms import MalformedError, discard_body, read_form
from springest_async.sandbox.lists import certificate_tree, list_certificates, list_certifications
from springest_async.sandbox.render import Tree, render_error, render_json, render_xml
from springest_async.sandbox.windows import Counting, Window, make_window

DEFAULT_CERTIFICATIONS = (
    SandboxCertification(id=1, name="First aid", description="Basic first aid at work"),
    SandboxCertification(id=2, name="Forklift driver", requires_valid_until=True),
    SandboxCertification(id=3, name="Working at height", description="Not yet verified", verified=False),
)

_LOOPBACK = "127.0.0.1"  # not "localhost", which may have two addresses, on which the free port differs

logger = logging.getLogger(__name__)
_UNHEARD = logging.getLogger(f"{__name__}.unheard")
_UNHEARD.addFilter(lambda _: False)
_FORMAT = r"{format:(\.json|\.xml)?}"
_X_REQUEST_ID = "X-Request-Id"
_REQUEST_ID = web.RequestKey("request id", str)
_MAX_REQUEST_ID_CHARS = 255


class Mishap(Enum):
    """What goes wrong, on purpose, with a POST that is valid and has been read whole.

    There are four ways to leave a client in doubt: stored or not, and answered with a 500 or not at all.
    """

    DROP_BEFORE_STORING = "dropped before storing"
    DROP_AFTER_STORING = "dropped after storing"
    ERROR_BEFORE_STORING = "500 before storing"
    ERROR_AFTER_STORING = "500 after storing"

    @property
    def stores(self) -> bool:
        """Return whether the certificate is stored all the same."""
        return self in (Mishap.DROP_AFTER_STORING, Mishap.ERROR_AFTER_STORING)

    @property
    def status(self) -> int | None:
        """Return the status of the answer; None means that the connection is closed without an answer."""
        return 500 if self in (Mishap.ERROR_BEFORE_STORING, Mishap.ERROR_AFTER_STORING) else None


@frozen(kw_only=True)
class _Outcome:
    """What happens to a POST: a verdict and words for the audit, a status and a body for the client.

    Without a status, the connection is closed without an answer.
    """

    verdict: Verdict
    status: int | None
    words: str = ""
    body: Tree = None
    root: str = "hash"
    certificate_id: int | None = None


@define(kw_only=True, eq=False)
class Sandbox:
    """A local Springest: the certificates API on loopback, to develop and test against.

    ::

        async with Sandbox() as sandbox:
            ...  # send requests to sandbox.origin, with sandbox.api_key
            assert sandbox.summary().most_in_any_period <= 30

    Leaving the block closes the socket; the audit stays readable. The same sandbox can be entered again, with all that
    it has stored, like a server after an outage (set a `port` if it must be the same one).

    Args:
        port: on 127.0.0.1; 0 for any free one.
        limit: certificate POSTs in a period. Every POST with a valid key counts, an invalid one too.
        period: seconds. Springest's is 60; tests may use a shorter one.
        window: how the server counts: ``fixed`` (by the minutes of the wall clock, read when the sandbox is made),
            ``first-hit``, ``elastic``, ``sliding``, ``bucket`` or ``paced`` (see `windows`).
        count_refusals: for a sliding window only: whether a POST that is refused for speed counts too.
        body_timeout: seconds without a byte of a body after which its connection is closed without an answer, and
            nothing is stored; nginx does the same (``client_body_timeout``, 60 by default).
        api_key: the key of ``/users/certificates``. It can be changed while the sandbox runs.
        certifications_api_key: the key of ``/certifications``, which must be a different one. It can be changed too.
        certifications: the certifications of the site. Of the default ones, one requires `valid_until` and one is not
            verified.
        mishap: called once for each POST that would be stored, in the order in which their bodies end; it returns what
            goes wrong on purpose, or None. After `StopIteration`, nothing goes wrong. It can be changed too.
            ``iter([Mishap.DROP_AFTER_STORING, None]).__next__`` is a script.

    Raises:
        ValueError: when a key is empty, both keys are equal, or the limit, the period, the window or the
            body timeout is invalid.
    """

    port: int = field(default=0, on_setattr=frozen_attribute)
    limit: int = field(default=30, on_setattr=frozen_attribute)
    window: Counting = field(default="sliding", on_setattr=frozen_attribute)
    period: float = field(default=60.0, on_setattr=frozen_attribute)
    count_refusals: bool = field(default=False, on_setattr=frozen_attribute)
    body_timeout: float = field(default=60.0, validator=gt(0), on_setattr=frozen_attribute)
    api_key: str = field(default="sandbox-key", repr=False)
    certifications_api_key: str = field(default="sandbox-certifications-key", repr=False)
    certifications: tuple[SandboxCertification, ...] = field(
        default=DEFAULT_CERTIFICATIONS, converter=tuple, on_setattr=frozen_attribute, repr=False
    )
    mishap: Callable[[], Mishap | None] | None = field(default=None, repr=False)

    _window: Window = field(init=False, repr=False)
    _certifications: dict[int, SandboxCertification] = field(init=False, repr=False)
    _certificates: list[SandboxCertificate] = field(init=False, factory=list, repr=False)
    _posts: list[Post] = field(init=False, factory=list, repr=False)
    # Not the event loop's clock, which a test may replace.
    _started: float = field(init=False, factory=time.monotonic, repr=False)
    # How far the wall clock was into a period then, because fixed windows are its minutes. Read once: if the clock
    # is corrected later, the windows must neither go back nor differ from the audit.
    _phase: float = field(init=False, repr=False)
    _runner: web.AppRunner | None = field(init=False, default=None, repr=False)
    _bound_port: int = field(init=False, default=0, repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.api_key or not self.certifications_api_key or self.api_key == self.certifications_api_key:
            raise ValueError("the sandbox needs two keys that differ, as Springest does")
        self._window = make_window(self.window, self.limit, self.period, count_refusals=self.count_refusals)
        self._phase = time.time() % self.period
        self._certifications = {certification.id: certification for certification in self.certifications}

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("the sandbox is running already")
        # No access log, and no log of aiohttp about invalid requests: both would contain the address, and the key with
        # it. The lingering (seconds) is for clients that send their body although an early refusal has been sent: if
        # the socket were closed at once, they could lose the answer.
        runner = web.AppRunner(
            self._application(), access_log=None, logger=_UNHEARD, shutdown_timeout=0.2, lingering_time=2.0
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, _LOOPBACK, self.port)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self._bound_port = runner, site.port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            # asyncio loses a connection whose listener is closed between the turn of the loop that accepts it and the
            # one that makes its transport; a caller who was cancelled while it connected leaves just at that time.
            for _ in range(5):
                await asyncio.sleep(0)
            await runner.cleanup()

    @property
    def origin(self) -> str:
        """Return the address that the sandbox listens on, such as ``http://127.0.0.1:49152``.

        Raises:
            RuntimeError: when it is not running.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox is not running: enter it with `async with`")
        return f"http://{_LOOPBACK}:{self._bound_port}"

    @property
    def audit(self) -> tuple[Post, ...]:
        """Return every certificate POST that was answered or that its client broke off, in order of arrival."""
        return tuple(self._posts)

    def summary(self) -> Summary:
        """Return how many POSTs arrived, what happened to them, and how many arrived within any period."""
        return summarize(self._posts, self.period)

    def verify(self, certification_id: int) -> None:
        """Verify a certification, as a Springest employee does: from now on, it and its certificates are listed.

        Raises:
            KeyError: when there is no such certification.
        """
        certification = self._certifications[certification_id]
        self._certifications[certification_id] = attrs.evolve(certification, verified=True)

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[_request_ids, _rails_error_pages])
        path = "/users/certificates" + _FORMAT
        app.router.add_get(path, self._get_certificates)
        app.router.add_post(path, self._post_certificate, expect_handler=_leave_expect_to_handler)
        app.router.add_get("/certifications" + _FORMAT, self._get_certifications)
        app.router.add_get("/__audit", self._get_audit)
        return app

    async def _get_certificates(self, request: web.Request) -> web.Response:
        page = partial(list_certificates, self._certificates, self._certifications, request.query)
        return self._answer_list(request, self.api_key, page)

    async def _get_certifications(self, request: web.Request) -> web.Response:
        page = partial(list_certifications, self._certifications.values(), request.query)
        return self._answer_list(request, self.certifications_api_key, page)

    def _answer_list(self, request: web.Request, key: str, page: Callable[[], Tree]) -> web.Response:
        if (refusal := self._refuse_key(request, key)) is not None:
            return _answer_to(refusal, request)
        try:
            return _answer(request, 200, page(), root="response")
        except ValidationError as invalid:
            return _answer(request, 400, _errors(invalid))

    async def _get_audit(self, _request: web.Request) -> web.Response:
        return web.json_response({"summary": as_json(self.summary()), "posts": [as_json(post) for post in self._posts]})

    async def _post_certificate(self, request: web.Request) -> web.Response:
        arrived_at, seconds = datetime.now(UTC), time.monotonic() - self._started
        form = Form()
        refusal = self._refuse_key(request, self.api_key) or self._refuse_speed(seconds)
        try:
            outcome = refusal or await self._take(request, form)
        except Exception as error:
            # The middleware answers it. It belongs in the audit: it arrived, and was not stored.
            words = f"the sandbox failed: {type(error).__name__}"
            self._remember(request, _Outcome(verdict="failed", status=500, words=words), form, arrived_at, seconds)
            raise
        if refusal is not None and not _asks_first(request):
            with suppress(ConnectionError, TimeoutError):
                await discard_body(request, self.body_timeout)
        if request.transport is None or request.transport.is_closing():  # the client has gone
            outcome = attrs.evolve(outcome, status=None)
        # Nothing is awaited between storing and this line, so everything stored is in the audit.
        self._remember(request, outcome, form, arrived_at, seconds)
        answer = _answer_to(outcome, request)
        if refusal is not None and _asks_first(request):
            # The client does not send a body that was not asked for; another request cannot follow on this connection.
            answer.force_close()
        return answer

    def _refuse_key(self, request: web.Request, right_key: str) -> _Outcome | None:
        key = request.query.get("api_key")
        if key == right_key:
            return None
        if key in (self.api_key, self.certifications_api_key):
            words = "this key is for another part of the API"
            return _Outcome(verdict="forbidden", status=403, words=words, body=_generic(403))
        return _Outcome(verdict="unauthorized", status=401, words="no valid key", body=_generic(401))

    def _refuse_speed(self, seconds: float) -> _Outcome | None:
        if self._window.admit(self._phase + seconds):
            return None
        # The real server answers 400 too. Its body is not documented; this one says as little as possible.
        words = f"more than {self.limit} in {self.period:g} seconds"
        return _Outcome(verdict="too fast", status=400, words=words, body=_generic(400))

    async def _take(self, request: web.Request, form: Form) -> _Outcome:
        try:
            if _asks_first(request):
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await read_form(request, form, self.body_timeout)
        except ConnectionError:
            return _Outcome(verdict="broken off", status=None, words="the client closed the connection within the body")
        except TimeoutError:
            # nginx logs a 408 then, and closes the connection without sending it.
            words = f"no byte of the body arrived for {self.body_timeout:g} seconds"
            return _Outcome(verdict="broken off", status=None, words=words)
        except MalformedError as error:
            with suppress(ConnectionError, TimeoutError):
                await discard_body(request, self.body_timeout)
            return _Outcome(verdict="invalid", status=400, words=str(error), body=_generic(400))
        return self._store(form)

    def _store(self, form: Form) -> _Outcome:
        try:
            certificate = certificate_from(
                form,
                self._certifications,
                certificate_id=len(self._certificates) + 1,
                created_at=datetime.now(UTC),
            )
        except ValidationError as invalid:
            return _Outcome(verdict="invalid", status=400, words=str(invalid), body=_errors(invalid))
        mishap = self._next_mishap()
        if mishap is not None and not mishap.stores:
            return _Outcome(verdict="failed", status=mishap.status, words=mishap.value)
        self._certificates.append(certificate)
        return _Outcome(
            verdict="stored",
            status=mishap.status if mishap else 201,
            words=mishap.value if mishap else "",
            body=certificate_tree(certificate, self._certifications[certificate.certification_id]),
            root="certificate",
            certificate_id=certificate.id,
        )

    def _next_mishap(self) -> Mishap | None:
        try:
            mishap = self.mishap() if self.mishap is not None else None
        except StopIteration:
            return None
        # A value that is not a mishap raises here, so that a mistake of a test does not go unnoticed.
        return None if mishap is None else Mishap(mishap)

    def _remember(
        self, request: web.Request, outcome: _Outcome, form: Form, arrived_at: datetime, seconds: float
    ) -> None:
        file = form.file
        post = Post(
            arrived_at=arrived_at,
            seconds=seconds,
            verdict=outcome.verdict,
            status=outcome.status,
            words=outcome.words,
            certificate_id=outcome.certificate_id,
            fields=form.fields,
            filename=file.filename if file else None,
            content_type=file.content_type if file else None,
            size=file.size if file else None,
            sha256=file.sha256 if file else None,
            request_id=request[_REQUEST_ID],
        )
        # A small file that arrived later can be finished before a big one.
        insort(self._posts, post, key=lambda earlier: earlier.seconds)


def _asks_first(request: web.Request) -> bool:
    return request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"


async def _leave_expect_to_handler(request: web.Request) -> None:
    # aiohttp's own handler would ask for the body here, before the key and the limit are checked.
    if hdrs.EXPECT in request.headers and not _asks_first(request):
        raise web.HTTPExpectationFailed


def _answer_to(outcome: _Outcome, request: web.Request) -> web.Response:
    if outcome.status is None:
        if request.transport is not None:
            request.transport.abort()
        # aiohttp needs a response; it drops this one, because the connection is closed.
        return web.Response()
    if outcome.status == 500:
        return _error_page(request, 500)
    return _answer(request, outcome.status, outcome.body, root=outcome.root)


def _answer(request: web.Request, status: int, body: Tree, *, root: str = "hash") -> web.Response:
    is_xml = request.path.endswith(".xml")
    text = render_xml(body, root) if is_xml else render_json(body)
    kind = "application/xml" if is_xml else "application/json"
    return web.Response(status=status, text=text, content_type=kind, charset="utf-8")


def _errors(invalid: ValidationError) -> Tree:
    return {"errors": invalid.faults}


def _generic(status: int) -> Tree:
    # What Rails answers in JSON and XML when the application has no text for an error.
    return {"status": status, "error": HTTPStatus(status).phrase}


@web.middleware
async def _request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send the client's ``X-Request-Id`` back, or one of our own, as Rails' ActionDispatch::RequestId does."""
    sent = request.headers.get(_X_REQUEST_ID, "")
    own = re.sub(r"[^\w@-]", "", sent, flags=re.ASCII)[:_MAX_REQUEST_ID_CHARS] if sent.strip() else str(uuid4())
    request[_REQUEST_ID] = own
    response = await handler(request)
    response.headers[_X_REQUEST_ID] = own
    return response


@web.middleware
async def _rails_error_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as Rails does: in the format of the address, without details."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        # Rails' router has no "method not allowed": it answers 404.
        status = 404 if error.status == 405 else error.status
    except Exception:
        logger.exception("the sandbox could not answer %s %s", request.method, request.path)
        status = 500
    return _error_page(request, status)


def _error_page(request: web.Request, status: int) -> web.Response:
    if request.path.endswith((".json", ".xml")):
        return _answer(request, status, _generic(status))
    return web.Response(status=status, text=render_error(status), content_type="text/html", charset="utf-8")
