"""A client and a server in memory, for tests of the queue: it follows a script, and knows what it has stored."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import attrs

from springest_async import (
    CancelledTooLate,
    Certificate,
    CertificateUpload,
    Forbidden,
    InDoubt,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    ServerError,
    Settings,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.source_file import SourceFile
from springest_async.upload import UploadListener, UploadStep
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


class ModelClient:
    """A client and its server.

    Attributes:
        stored: the ids of what the server has stored, by email address.
        hashes: the SHA-256 of each, by id.
        posts: how many POSTs were sent.
        asked: how often it was asked about a doubt.
    """

    origin = "https://springest.example"

    def __init__(self, scripts: Iterable[Script] = (), concurrency: int = 1, looks: Iterable[Look] = ()) -> None:
        self.settings = Settings(concurrency=concurrency)
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

    async def upload(
        self, upload: CertificateUpload, *, listener: UploadListener, bulk: bool, source: SourceFile
    ) -> Receipt:
        assert bulk
        assert source.path == upload.file
        script = next(self._scripts, PLAIN)
        sending = False
        try:
            for number, kind in enumerate(script.steps):
                status, words = (400, "Bad Request") if kind == "refused" else (None, "")
                listener(UploadStep(kind, number, datetime.now(UTC), status, words))
                sending = kind == "sending"
                self.posts += sending
                if kind in script.at:
                    await script.at[kind]()
                for _ in range(script.turns):
                    await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            cancelled.__cause__ = NotSent(WHERE, "cancelled")
            if sending:
                cancelled.__cause__ = doubt_of(upload)
                if script.stores:
                    self._store(upload)
                    if script.turns > 1:  # the status had arrived
                        cancelled.__cause__ = CancelledTooLate(WHERE)
            raise
        known = self._store(upload) if script.stores else 0
        if script.error is not None:
            raise script.error(upload)
        return Receipt(id=known, upload=upload, attempts=1, sent_at=NOW, answered_at=datetime.now(UTC))

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
