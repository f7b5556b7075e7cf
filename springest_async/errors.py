"""The one tree of errors: every error says what happened, where, and what to do about it.

`SpringestError` is the root, so ``except SpringestError`` catches all that this library raises on purpose. The
branches answer the question that matters after a POST: is the certificate at Springest or not?

* it is not, and a person must act: `ConfigurationError`, `InvalidUpload`, `ManifestError`, `JournalError`,
  `UnusableFile`, and the answers `NotAuthorized`, `Forbidden`, `NotFound`, `Rejected`, `Redirected`,
  `UnexpectedStatus`;
* it is not, and the same POST may be sent again: `NotSent`;
* nobody can tell: `InDoubt`. Never send such a POST again before you have looked (`Springest.settle`).

An upload that is cancelled says which of these it was in the ``__cause__`` of its `asyncio.CancelledError`: `NotSent`,
`InDoubt`, or `CancelledTooLate` when the certificate is stored.

`ServerError`, `NoAnswer` and `UnreadableAnswer` come from lists, which are safe to ask for again.

No error carries the API key: not in its text, its ``repr``, its attributes, its cause or its context.
"""

from datetime import date, datetime
from pathlib import Path
from typing import ClassVar

from attrs import define, frozen

__all__ = [
    "AnswerError",
    "CancelledTooLate",
    "ConfigurationError",
    "Fault",
    "Forbidden",
    "InDoubt",
    "InvalidUpload",
    "JournalError",
    "JournalInUse",
    "ManifestError",
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

    `status` is the HTTP status of the server's answer, or None when there was none; `words` is what the server said,
    as plain text, shortened, and empty when it said nothing.
    """

    status: int | None = None
    words: str = ""


@define(eq=False)
class ConfigurationError(SpringestError):
    """A setting is missing or cannot be right. Nothing was sent."""

    message: str

    def __str__(self) -> str:
        return self.message


@define(eq=False)
class InvalidUpload(SpringestError, ValueError):
    """A `CertificateUpload` cannot be made of these values; `faults` names them all. Nothing was sent."""

    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "this is no valid certificate upload: " + "; ".join(map(str, self.faults))


@define(eq=False)
class ManifestError(SpringestError):
    """The manifest as a whole cannot be read. Nothing was sent."""

    manifest: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.manifest}: {self.reason}"


@define(eq=False)
class JournalError(SpringestError):
    """The journal cannot be read or written. What it did not note is not sent."""

    journal: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.journal}: {self.reason}"


@define(eq=False)
class JournalInUse(JournalError):
    """Another process, `pid`, writes this journal (None when it cannot be told which)."""

    pid: int | None = None

    def __str__(self) -> str:
        who = "another process" if self.pid is None else f"process {self.pid}"
        return f"{self.journal}: {who} is uploading with this journal: wait for it, or stop it"


@define(eq=False)
class UnusableFile(SpringestError):
    """The file cannot be read, or changed while it was being sent. The server cannot have it whole."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@define(eq=False)
class AnswerError(SpringestError):
    """The server answered, and the answer is not what was asked for.

    `where` is the method and the address without its query, as in
    ``POST https://api.springest.nl/users/certificates.json``; `advice` what the reader can do about it.
    """

    where: str
    status: int
    words: str

    def __str__(self) -> str:
        said = f": {self.words}" if self.words else ""
        return f"{self.where} answered {self.status}{said}. {self.advice}"

    advice: ClassVar[str] = "Nothing was stored."


class NotAuthorized(AnswerError):
    """401: the key is not valid on this host (each host needs a key of its own)."""

    advice = "Check that the API key is the one for this host: each host has its own."


class Forbidden(AnswerError):
    """403: the key is valid and may not do this (certificates and certifications need different keys)."""

    advice = "The key may not do this: certificates and certifications need different keys."


class NotFound(AnswerError):
    """404: there is no such resource on this host."""

    advice = "Check the host: this address does not exist there."


@define(eq=False)
class Rejected(AnswerError):
    """400 (or 413, 415, 422): the server does not want this certificate, and sending it again will not help.

    `faults` are the faults per field that the server named; empty when it named none and the verdict was reached by
    sending the certificate once more, alone, after a silent minute.
    """

    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        said = "; ".join(map(str, self.faults)) or self.words or "the server gave no reason"
        return f"{self.where} rejected the certificate ({self.status}): {said}"


@define(eq=False)
class Redirected(AnswerError):
    """3xx: never followed, because that would lose the POST or send the PDF and the key elsewhere.

    `target` is the origin that the server pointed to, without path and query.
    """

    target: str

    def __str__(self) -> str:
        if self.target and f" {self.target}/" in self.where:
            return (
                f"{self.where} answered {self.status} and points to another address on the same host. Redirects are"
                " never followed: ask Springest what has moved."
            )
        return (
            f"{self.where} answered {self.status} and points to {self.target or 'nowhere'}. Redirects are never"
            " followed: if that is the right host, name it in the settings."
        )


class UnexpectedStatus(AnswerError):
    """A status that the API's pages do not know, and that means that nothing was stored."""


class ServerError(AnswerError):
    """5xx, to a list, and still after the retries; 5xx to a POST is `InDoubt`."""

    advice = "Something went wrong on Springest's side: try again later."


@define(eq=False)
class UnreadableAnswer(AnswerError):
    """The answer cannot be read; `expected` says what was expected where, as in ``integer @ certificates[3].id``."""

    expected: str

    def __str__(self) -> str:
        said = f" The answer began: {self.words}" if self.words else ""
        return f"{self.where} answered {self.status}, which cannot be read: expected {self.expected}.{said}"


@define(eq=False)
class TransportError(SpringestError):
    """There was no answer; `reason` says why in words."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@define(eq=False)
class NotSent(TransportError):
    """The server cannot have the request: no connection, or the body was not written whole. Safe to send again.

    `connected` tells the two apart: False when not even a connection was made. `trusted` is False when that was
    because of the server's TLS certificate: then sending it again at once will not help.
    """

    connected: bool = True
    trusted: bool = True


class NoAnswer(TransportError):
    """A list was asked for and the connection broke before the answer had come whole, also after the retries."""


@define(eq=False)
class InDoubt(SpringestError):
    """The whole certificate was sent, and no answer tells whether it is stored. Never sent again by itself.

    There is no idempotency key, so sending again may store it twice. `Springest.settle` asks Springest whether it is
    stored, for which this holds all that is needed: what was sent, `sent_at`, and `given_up_at` (both UTC), after
    which the server may still have worked on it for a while.
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

    def __str__(self) -> str:
        said = f" ({self.words})" if self.words else ""
        return (
            f"{self.where}: {self.reason}{said}. The certificate of {self.email} for certification"
            f" {self.certification_id}, sent at {self.sent_at:%Y-%m-%d %H:%M:%S} UTC, may or may not be stored:"
            " look before you send it again."
        )


@define(eq=False)
class CancelledTooLate(SpringestError):
    """An upload was cancelled when Springest had stored the certificate; only the cause of a cancellation.

    The answer's status said so (201); its id was not read any more.
    """

    where: str

    def __str__(self) -> str:
        return f"{self.where}: cancelled too late: the certificate is stored."
