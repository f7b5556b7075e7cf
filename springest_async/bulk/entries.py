"""The records of a journal: the states of a certificate, an entry, and an entry's siblings.

All are frozen. How they are stored is in `journal`.
"""

import enum
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

from attrs import field, frozen

from springest_async.records import CertificateUpload


class State(enum.Enum):
    """The state of a certificate.

    At all times: rows = stored + rejected + failed + in doubt + waiting, plus those that a running process is sending.
    An entry that is found "sending" while no process writes the journal is in doubt.
    """

    STORED = "stored"
    REJECTED = "rejected"  # Springest refused it, and would refuse it again
    FAILED = "failed"  # it could not be sent
    IN_DOUBT = "in doubt"  # it was sent, and no answer says whether it was stored
    WAITING = "waiting"  # it was not sent, or was refused because of the limit
    SENDING = "sending"  # a POST of it is in progress


@frozen(kw_only=True)
class Entry:
    """A certificate in the journal, as it was when it was read.

    Attributes:
        id: its key in the journal.
        number: its row in the manifest that was loaded last; None when that manifest does not contain it.
        file: the cell of the manifest, as written.
        path: where that file is.
        origin: the host that it is for, as in ``https://api.springest.nl``.
        sha256: the hash of the whole file; None until the file has been read.
        reason: why it is in this state, for a person to read.
        sent_at: when its last POST was sent (UTC).
        given_up_at: when we stopped waiting for the answer, if it is in doubt (UTC).
        extra: the cells of unknown columns, by column.
        changed: set by `Journal.identify` only: the same row was settled earlier, with another content of the file.
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
    sha256: bytes | None = None
    springest_id: int | None = None
    reason: str = ""
    sent_at: datetime | None = None
    given_up_at: datetime | None = None
    extra: Mapping[str, str] = field(factory=dict)
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
        known_ids: Springest's ids of the siblings, so none of them is this entry's.
        uncertain: whether a sibling may be stored under an unknown id, so that a listed certificate may be that one.
    """

    known_ids: frozenset[int] = frozenset()
    uncertain: bool = False
