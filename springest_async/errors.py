"""The one tree of errors: every error says what happened, where, and what to do about it.

`SpringestError` is the root, so ``except SpringestError`` catches everything that this library raises on purpose. The
branches answer the question that matters after a POST: is the certificate stored at Springest or not?

* It is not, and a person must act: `ConfigurationError`, `InvalidUpload`, `ManifestError`, `JournalError`,
  `UnusableFile`, and the answers `NotAuthorized`, `Forbidden`, `NotFound`, `Rejected`, `Redirected`,
  `UnexpectedStatus`.
* It is not, and the same POST may be sent again: `NotSent`.
* It is unknown: `InDoubt`. Never send such a POST again before you have checked (`Springest.settle`).

A cancelled upload raises `asyncio.CancelledError`, and its ``__cause__`` is one of these: `NotSent`, `InDoubt`, or
`CancelledTooLate` when the certificate is stored.

`ServerError`, `NoAnswer` and `UnreadableAnswer` come from lists, which are safe to request again.

No error contains the API key: not in its text, its ``repr``, its attributes, its cause or its context.

The errors have no slots: `copy` and `pickle` then keep notes, and attributes that a program adds or changes.
"""

from datetime import date, datetime
from pathlib import Path
from typing import ClassVar

from attrs import define, frozen

__all__ = [
    "AnotherServer",
    "AnswerError",
    "CancelledTooLate",
    "ConfigurationError",
    "Fault",
    "Forbidden",
    "InDoubt",
    "InvalidUpload",
    "JournalError",
    "JournalMissing",
    "JournalUnavailable",
    "ManifestError",
    "MigrationMissing",
    "NoAnswer",
    "NotAuthorized",
    "NotFound",
    "NotSent",
    "Redirected",
    "Rejected",
    "ServerError",
    "SpringestError",
    "TransportError",
    "UnexpectedStatus",
    "UnreadableAnswer",
    "UnusableFile",
]


@frozen
class Fault:
    """One thing that is wrong with one field."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class SpringestError(Exception):
    """The root of all errors of this library.

    Attributes:
        status: the HTTP status of the server's answer; None without an answer.
        words: the text of the server's answer, shortened; empty when it has none.
        request_id: the ``X-Request-Id`` of the last POST of an upload, by which Springest's staff can find it; empty
            before anything has left, and for all else than uploads.
    """

    status: int | None = None
    words: str = ""
    request_id: str = ""

    def __str__(self) -> str:
        return ": ".join(map(str, self.args[:2]))  # attrs makes them of the fields


@define(eq=False, slots=False)
class ConfigurationError(SpringestError):
    """A setting is missing or cannot be right. Nothing was sent."""

    message: str


@define(eq=False, slots=False)
class InvalidUpload(SpringestError, ValueError):
    """A `CertificateUpload` cannot have these values; `faults` lists everything that is wrong. Nothing was sent."""

    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "this is not a valid certificate upload: " + "; ".join(map(str, self.faults))


@define(eq=False, slots=False)
class ManifestError(SpringestError):
    """The manifest as a whole cannot be read. Nothing was sent."""

    manifest: Path
    reason: str


@define(eq=False, slots=False)
class JournalError(SpringestError):
    """The journal cannot be read or written. A POST that it has not recorded is not sent."""

    journal: Path | str
    reason: str


class AnotherServer(JournalError):
    """The journal's address leads to another server than before, which may lack what was sent last: nothing is sent."""


class JournalMissing(JournalError):
    """There is no journal in this place yet."""


class MigrationMissing(JournalError):
    """The journal does not have this migration, or does not have it any more: it was erased."""


class JournalUnavailable(JournalError):
    """The journal cannot be reached now, and may be later: its server restarts, the network is gone, it is locked."""


@define(eq=False, slots=False)
class UnusableFile(SpringestError):
    """The file cannot be read, or it changed while it was being sent. The server does not have all of it."""

    file: Path
    reason: str


@define(eq=False, slots=False)
class AnswerError(SpringestError):
    """The server answered, but not with what was requested.

    Attributes:
        where: the method and the URL without its query, as in
            ``POST https://api.springest.nl/users/certificates.json``.
        advice: what the reader can do about it.
    """

    where: str
    status: int
    words: str

    def __str__(self) -> str:
        said = f": {self.words}" if self.words else ""
        return f"{self.where} answered {self.status}{said}. {self.advice}"

    advice: ClassVar[str] = "Nothing was stored."


class NotAuthorized(AnswerError):
    """401: the key is not valid on this host (each host needs its own key)."""

    advice = "Check that the API key is the one for this host: each host has its own."


class Forbidden(AnswerError):
    """403: the key is valid but may not do this (certificates and certifications need different keys)."""

    advice = "The key may not do this: certificates and certifications need different keys."


class NotFound(AnswerError):
    """404: there is no such resource on this host."""

    advice = "Check the host: this address does not exist there."


@define(eq=False, slots=False)
class Rejected(AnswerError):
    """400 (or 413, 415, 422): the server does not want this certificate, and sending it again will not help.

    Attributes:
        faults: what is wrong, by field. Empty when the server named no field; then the certificate was sent again
            alone after a silent minute, and refused again.
    """

    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        said = "; ".join(map(str, self.faults)) or self.words or "the server gave no reason"
        return f"{self.where} rejected the certificate ({self.status}): {said}"


@define(eq=False, slots=False)
class Redirected(AnswerError):
    """3xx: never followed, because that would lose the POST or send the PDF and the key to another place.

    Attributes:
        target: the origin of the redirect, without path and query.
    """

    target: str

    def __str__(self) -> str:
        place, advice = self.target or "nowhere", "if that is the right host, name it in the settings"
        if self.target and f" {self.target}/" in self.where:
            place, advice = "another address on the same host", "ask Springest what has moved"
        return f"{self.where} answered {self.status} and points to {place}. Redirects are never followed: {advice}."


class UnexpectedStatus(AnswerError):
    """A status that the API's pages do not mention, and that means that nothing was stored."""


class ServerError(AnswerError):
    """5xx to a list, also after the retries; 5xx to a POST is `InDoubt`."""

    advice = "Something went wrong on Springest's side: try again later."


@define(eq=False, slots=False)
class UnreadableAnswer(AnswerError):
    """The answer cannot be read; `expected` says what should be where, as in ``integer @ certificates[3].id``."""

    expected: str

    def __str__(self) -> str:
        said = f" The answer began: {self.words}" if self.words else ""
        return f"{self.where} answered {self.status}, which cannot be read: expected {self.expected}.{said}"


@define(eq=False, slots=False)
class TransportError(SpringestError):
    """There was no answer; `reason` says why."""

    where: str
    reason: str


@define(eq=False, slots=False)
class NotSent(TransportError):
    """The server cannot have the whole request: no connection, or part of the body was not sent. Safe to send again.

    Attributes:
        connected: False when there was no connection.
        trusted: False when the server's TLS certificate is not trusted; sending again at once will not help.
    """

    connected: bool = True
    trusted: bool = True


class NoAnswer(TransportError):
    """The connection broke before the whole answer to a list was received, also after the retries."""


@define(eq=False, slots=False)
class InDoubt(SpringestError):
    """The whole certificate was sent, and no answer says whether it is stored. Never sent again automatically.

    The API has no idempotency key, so sending again may store it twice. `Springest.settle` asks Springest whether it
    is stored; the fields below are all that it needs.

    Attributes:
        where: the method and the URL without its query.
        reason: why there is no answer that counts.
        email, certification_id, valid_from, valid_until: what was sent.
        sent_at: when it was sent (UTC).
        given_up_at: when the client stopped waiting (UTC); the server may have worked on it for longer.
    """

    where: str
    reason: str
    email: str
    certification_id: int
    valid_from: date
    valid_until: date | None
    sent_at: datetime
    given_up_at: datetime
    status: int | None = None
    words: str = ""
    request_id: str = ""

    def __str__(self) -> str:
        said = f" ({self.words})" if self.words else ""
        sent_as = f" (Springest's staff can find it by its X-Request-Id: {self.request_id})" if self.request_id else ""
        return (
            f"{self.where}: {self.reason}{said}. The certificate of {self.email} for certification"
            f" {self.certification_id}, sent at {self.sent_at:%Y-%m-%d %H:%M:%S} UTC, may or may not be stored:"
            f" check before you send it again{sent_as}."
        )


@define(eq=False, slots=False)
class CancelledTooLate(SpringestError):
    """An upload was cancelled after Springest had stored the certificate; only raised as the cause of a cancellation.

    The answer's status said so (201); its body, with the certificate's id, was not read.
    """

    where: str

    def __str__(self) -> str:
        return f"{self.where}: cancelled too late: the certificate is stored."
