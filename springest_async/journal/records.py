"""The records of a journal: the states of a certificate, an entry, and an entry's siblings. All are frozen."""

import enum
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TypeAlias

from attrs import field, frozen

from springest_async.records import CertificateUpload


class State(enum.Enum):
    """The state of a certificate, and of each row of a manifest that names it.

    At all times: rows = stored + rejected + failed + in doubt + waiting, plus those that a worker is sending.
    """

    STORED = "stored"
    REJECTED = "rejected"  # Springest refused it, and would refuse it again
    FAILED = "failed"  # it could not be sent
    IN_DOUBT = "in doubt"  # it was sent, and no answer says whether it was stored
    WAITING = "waiting"  # it was not sent, or was refused because of the limit
    SENDING = "sending"  # a POST of it is in progress


@frozen(kw_only=True)
class KnownCertificate:
    """A certificate in the journal, as it was when it was read.

    Attributes:
        id: its key in the journal.
        claim: who may send it, or settle it if it is in doubt; None for nobody.
        attempts: how many POSTs of it have left or were about to.
        reason: why it is in this state, for a person to read.
        sent_at: when its last POST was sent (UTC).
        answered_at: when the answer to that came (UTC).
        given_up_at: when a worker stopped waiting for the answer, if it is in doubt (UTC).
        given_up: the same on the journal's clock, in seconds.
        request_id: the ``X-Request-Id`` of its last POST; empty before the first.
    """

    id: int
    origin: str
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None
    state: State
    reason: str = ""
    springest_id: int | None = None
    claim: str | None = None
    attempts: int = 0
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    given_up_at: datetime | None = None
    given_up: float | None = None
    request_id: str = ""


ColumnTitles: TypeAlias = Sequence[tuple[str, str]]
"""The columns of a manifest, in its order: the name of each, by which a row has its cell, and its title."""


@frozen
class FileHash:
    """The SHA-256 of a whole file, when it had this size (bytes) and time (ns, of `file_hashes.storable_time`)."""

    size: int
    modified_ns: int
    sha256: bytes


@frozen(kw_only=True)
class Entry:
    """A row of a manifest in the journal, as it was when it was read.

    Attributes:
        id: its key in the journal.
        number: its row in the manifest; None for a certificate in doubt that is no longer in a manifest.
        file: the cell of the manifest, as written.
        path: where that file is on this machine.
        origin: the host that it is for, as in ``https://api.springest.nl``.
        certificate: the key of its certificate; None until its file has been read.
        reason: why it is in this state, for a person to read.
        sent_at: when its last POST was sent (UTC).
        given_up_at: when a worker stopped waiting for the answer, if it is in doubt (UTC).
        request_id: the ``X-Request-Id`` of its last POST; empty before the first.
        extra: the cells of unknown columns, by column.
        claim: what shows that this worker has taken it, if it has.
        hashed: what this machine knows of its file; only of a row that was claimed just now.
        changed: whether its file has changed since it was sent as another certificate.
    """

    id: int
    number: int | None
    file: str
    path: Path
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None
    origin: str
    state: State
    certificate: int | None = None
    springest_id: int | None = None
    reason: str = ""
    sent_at: datetime | None = None
    given_up_at: datetime | None = None
    request_id: str = ""
    extra: Mapping[str, str] = field(factory=dict)
    claim: str | None = None
    hashed: FileHash | None = None
    changed: bool = False

    def upload(self) -> CertificateUpload:
        """Return the certificate to send.

        Raises:
            InvalidUpload: when the email address is invalid; the preflight reports that earlier.
        """
        return CertificateUpload(
            file=self.path,
            certification_id=self.certification_id,
            email=self.email,
            valid_from=self.valid_from,
            valid_until=self.valid_until,
            conversion_id=self.conversion_id,
        )


@frozen
class Siblings:
    """The other certificates of the same person, certification and dates at the same host.

    Springest's list does not show which is which.

    Attributes:
        known_ids: Springest's ids of the siblings, so none of them is this certificate's.
        uncertain: whether a sibling may be stored under an unknown id, so that a listed certificate may be that one.
    """

    known_ids: frozenset[int] = frozenset()
    uncertain: bool = False


@frozen(kw_only=True)
class Intent:
    """A POST that is about to leave, made before its commit.

    Attributes:
        id: the name of the attempt, unique: 32 hex digits. It is sent as ``X-Request-Id``.
        certificate: the key of the certificate.
        claim: what shows that the sender may send it.
    """

    id: str
    certificate: int
    claim: str

    @property
    def unsent(self) -> "Outcome":
        """The outcome of a POST that never began."""
        return Outcome(attempt=self.id, state=State.WAITING, unsent=True)


@frozen(kw_only=True)
class Outcome:
    """What became of a POST.

    Attributes:
        attempt: the name of the attempt.
        state: STORED, REJECTED, IN_DOUBT, or WAITING when it is certainly not stored.
        unsent: whether no byte of it has left.
        written_at: when the body was written whole, if it was (UTC).
        answered_at: when the answer came, if one did (UTC).
        status: the HTTP status of the answer, if there was one.
        server_date: the answer's ``Date``.
        words: what the server said.
        reason: why it is in this state, for a person to read.
        springest_id: Springest's id of the certificate, if it is known.
        server_request_id: the answer's ``X-Request-Id``.
    """

    attempt: str
    state: State
    unsent: bool = False
    written_at: datetime | None = None
    answered_at: datetime | None = None
    status: int | None = None
    server_date: str = ""
    words: str = ""
    reason: str = ""
    springest_id: int | None = None
    server_request_id: str = ""


@frozen(kw_only=True)
class Loaded:
    """The result of loading a manifest.

    Attributes:
        migration: the key of the migration.
        rows: how many rows the manifest has.
        new: how many of them this migration did not know.
        known: how many of its rows were found to name a certificate that is stored, such as that of another manifest.
        changed: how many waiting rows name a file that was uploaded before with other fields, such as another email.
        changed_rows: the numbers of the first twenty of these.
    """

    migration: int
    rows: int
    new: int
    known: int
    changed: int
    changed_rows: tuple[int, ...]


@frozen
class Reason:
    """Why some rows of a manifest are not stored.

    Attributes:
        state: REJECTED or FAILED.
        words: for a person to read; … stands for the email address or the file of a row.
        rows: how many rows have it.
    """

    state: State
    words: str
    rows: int


@frozen
class Worker:
    """A worker that works on a migration now, as it was when it was read.

    Attributes:
        host: the name of its machine.
        trouble: what keeps it from sending, such as ``no connection``; empty while nothing does.
        reason: why, for a person to read.
        seconds: how long it has lasted.
        again_in: seconds until it tries again; None while it does.
    """

    host: str
    trouble: str = ""
    reason: str = ""
    seconds: float = 0.0
    again_in: float | None = None
