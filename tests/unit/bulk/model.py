"""A client and a server in memory, for tests of the queue: it follows a script, and knows what it has stored."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, cast

import attrs

from springest_async import (
    CancelledTooLate,
    Certificate,
    CertificateUpload,
    Forbidden,
    InDoubt,
    Limiter,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    ServerError,
    Settings,
    SpringestError,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.bulk import State
from springest_async.journal import certificates
from springest_async.journal.journal import Claim
from springest_async.journal.records import Intent, Outcome
from springest_async.source_file import FileReader, SourceFile
from springest_async.upload import UploadListener, UploadStep, report_outcome
from tests.bulk_runs import NOW, Kind, sha256_of

__all__ = ["ENDS", "PLAIN", "WHERE", "Look", "ModelClient", "Script", "doubt_of"]

WHERE = "POST https://springest.example/users/certificates.json"

Look = Literal["tells", "cannot tell", "is down", "may not be asked"]


def doubt_of(upload: CertificateUpload) -> InDoubt:
    now = datetime.now(UTC)
    return InDoubt(
        WHERE, "no answer", upload.email, upload.certification_id, upload.valid_from, upload.valid_until, now, now
    )


@attrs.frozen
class Script:
    """The course of an upload.

    Attributes:
        steps: its steps.
        turns: turns of the event loop after each step.
        at: what it waits for after a step of a kind.
        stores: whether the server stores the certificate.
        error: how it ends, unless with a receipt.
    """

    steps: tuple[Kind, ...] = ("waiting", "sending")
    turns: int = 0
    at: Mapping[Kind, Callable[[], Awaitable[object]]] = attrs.field(factory=dict)
    stores: bool = True
    error: Callable[[CertificateUpload], Exception] | None = None


def _refused(error: Exception, *steps: Kind) -> Script:
    return Script(steps=("waiting", "sending", *steps), stores=False, error=lambda _: error)


PLAIN = Script()
ENDS: dict[str, Script] = {
    "stored": PLAIN,
    "stored at last": Script(
        steps=("waiting", "sending", "refused", "waiting", "sending", "unsent", "waiting", "sending")
    ),
    "in doubt and stored": Script(error=doubt_of),
    "in doubt and not stored": Script(stores=False, error=doubt_of),
    "rejected": _refused(Rejected(WHERE, 400, "no")),
    "rejected at last": _refused(Rejected(WHERE, 400, "no"), "refused"),
    "file gone": Script(stores=False, error=lambda upload: UnusableFile(upload.file, "gone")),
    "cut off": _refused(NotSent(WHERE, "the connection broke"), "unsent"),
    "no network": _refused(NotSent(WHERE, "no connection", connected=False), "unsent"),
    "key refused": _refused(NotAuthorized(WHERE, 401, "no")),
    "forbidden": _refused(Forbidden(WHERE, 403, "no")),
    "not found": _refused(NotFound(WHERE, 404, "no")),
    "redirected": _refused(Redirected(WHERE, 302, "", "https://elsewhere.example")),
    "unknown status": _refused(UnexpectedStatus(WHERE, 410, "gone")),
    "a bug": Script(error=lambda _: RuntimeError("nobody thought of this")),
    "a bug before": Script(steps=("waiting",), stores=False, error=lambda _: RuntimeError("nor of this")),
}


class _Post:
    """The POST of a claimed certificate that is under way, as the journal records it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._intent: Intent | None = None

    async def begin(self) -> None:
        intent, worker = self._claim.intent(), self._claim.journal.worker
        job = partial(certificates.begin, intent=intent, worker=worker, budget="", counted_until=0.0, back_at=0.0)
        try:
            await self._claim.journal.run(job)
        except asyncio.CancelledError:
            self._note(intent.unsent)
            raise
        self._intent = intent

    @property
    def is_under_way(self) -> bool:
        return self._intent is not None

    def ended(self, outcome: Receipt | SpringestError) -> None:
        """Record how the upload ended, if a POST was under way then."""
        words, status = getattr(outcome, "words", ""), getattr(outcome, "status", None)
        match outcome:
            case Receipt():
                self.end(State.STORED, status=201, springest_id=outcome.id)
            case CancelledTooLate():
                self.end(State.STORED)
            case InDoubt(reason=reason):
                self.end(State.IN_DOUBT, status=status, words=words, reason=reason)
            case Rejected():
                self.end(State.REJECTED, status=status, words=words, reason=str(outcome))
            case _:
                self.end(State.WAITING, status=status, words=words)

    def end(self, state: State, **outcome: Any) -> None:
        if self._intent is not None:
            intent, self._intent = self._intent, None
            self._note(Outcome(attempt=intent.id, state=state, answered_at=datetime.now(UTC), **outcome))

    def _note(self, outcome: Outcome) -> None:
        self._claim.journal.note(partial(certificates.end, outcome=outcome))


class ModelClient:
    """A client and its server.

    Attributes:
        journal: None, so each run opens the journal anew, as another process does.
        stored: the ids of what the server has stored, by email address.
        hashes: the SHA-256 of each, by id.
        posts: how many POSTs were sent.
        asked: how often it was asked about a doubt.
    """

    origin = "https://springest.example"
    journal = None

    def __init__(self, scripts: Iterable[Script] = (), concurrency: int = 1, looks: Iterable[Look] = ()) -> None:
        self.settings = Settings(concurrency=concurrency)
        self.limiter = Limiter()
        self.stored: dict[str, list[int]] = {}
        self.hashes: dict[int | None, str] = {}
        self.posts = self.asked = 0
        self._scripts = iter(scripts)
        self._looks = iter(looks)

    def _store(self, upload: CertificateUpload) -> int:
        key = len(self.hashes) + 1
        self.hashes[key] = sha256_of(upload.file)
        self.stored.setdefault(upload.email, []).append(key)
        return key

    async def upload_claimed(
        self,
        upload: CertificateUpload,
        claim: Claim,
        source: SourceFile,
        *,
        listener: UploadListener,
        reader: FileReader | None = None,
    ) -> Receipt:
        assert source.path == upload.file
        post = _Post(claim)
        outcome: Receipt | SpringestError = NotSent(WHERE, "a bug")
        try:
            receipt = outcome = await self._follow(next(self._scripts, PLAIN), upload, post, listener)
        except asyncio.CancelledError as cancelled:
            outcome = cast(SpringestError, cancelled.__cause__)
            raise
        except SpringestError as error:
            outcome = error
            raise
        except RuntimeError:
            if post.is_under_way:  # nothing says how far it went
                outcome = doubt_of(upload)
            raise
        finally:
            post.ended(outcome)
            report_outcome(listener, outcome, attempts=1, status=None)
        return receipt

    async def _follow(
        self, script: Script, upload: CertificateUpload, post: "_Post", listener: UploadListener
    ) -> Receipt:
        connected = script.error is None or getattr(script.error(upload), "connected", True)
        try:
            for number, kind in enumerate(script.steps):
                status, words = (400, "Bad Request") if kind == "refused" else (None, "")
                if kind == "sending":
                    await post.begin()
                elif post.is_under_way:
                    post.end(State.WAITING, status=status, words=words)
                try:
                    listener(UploadStep(kind, number, datetime.now(UTC), status, words, kind != "unsent" or connected))
                except RuntimeError:  # it is not sent then
                    post.end(State.WAITING)
                    raise
                self.posts += post.is_under_way
                if kind in script.at:
                    await script.at[kind]()
                for _ in range(script.turns):
                    await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            cancelled.__cause__ = NotSent(WHERE, "cancelled")
            if post.is_under_way:
                cancelled.__cause__ = doubt_of(upload)
                if script.stores:
                    self._store(upload)
                    if script.turns > 1:  # the status had arrived
                        cancelled.__cause__ = CancelledTooLate(WHERE)
            raise
        key = self._store(upload) if script.stores else 0
        if script.error is not None:
            raise script.error(upload)
        return Receipt(id=key, upload=upload, attempts=1, sent_at=NOW, answered_at=datetime.now(UTC))

    async def settle(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
        self.asked += 1
        await asyncio.sleep(0)
        match next(self._looks, "tells"):
            case "cannot tell":
                raise attrs.evolve(doubt, reason="nobody can tell")
            case "is down":
                raise ServerError("GET", 503, "")
            case "may not be asked":
                raise NotAuthorized("GET", 401, "")
        for email, keys in self.stored.items():
            for key in keys:
                if email.casefold() == doubt.email.casefold() and key not in known:
                    return Certificate(id=key, certification_id=doubt.certification_id, valid_from=doubt.valid_from)
        return None
