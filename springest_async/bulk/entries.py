"""What a journal's lines say: the states of a certificate, an entry, an attempt, and its siblings.

Records only, frozen: how they are kept is `journal`'s business.
"""

import enum
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

from attrs import field, frozen

from springest_async.records import CertificateUpload

__all__ = ["Attempt", "Entry", "Siblings", "State"]


class State(enum.Enum):
    """Where a certificate stands.

    At all times: rows = stored + rejected + failed + in doubt + waiting, and those that a living writer is sending at
    this moment. What is found "sending" when nobody writes is in doubt.
    """

    STORED = "stored"
    REJECTED = "rejected"  # Springest does not want it
    FAILED = "failed"  # it could not be sent
    IN_DOUBT = "in doubt"  # it was sent, and nobody knows whether it was stored
    WAITING = "waiting"  # it was not sent, or refused, and nothing is wrong with it
    SENDING = "sending"  # a POST of it is under way


@frozen(kw_only=True)
class Entry:
    """A certificate in the journal, as it was when it was read.

    `id` names it in the journal. `number` is its row in the manifest that was loaded last, or None when that names it
    no more; `file` the cell as written there, `path` where that is; `extra` are the cells of the columns that mean
    nothing, by column. `sha256` is the hash of the whole file, None until its first turn. `sent_at` is when its last
    POST left and `given_up_at` when the last one that it is in doubt for was given up (both UTC). `changed` is told by
    `Journal.identify` only: the same row was settled before with another content of the file.
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
        """Make the certificate to send.

        Raises:
            InvalidUpload: when the e-mail address cannot be right, which the preflight tells before.
        """
        return CertificateUpload(
            file=self.path,
            certification_id=self.certification_id,
            email=self.email,
            valid_from=self.valid_from,
            valid_until=self.valid_until,
            conversion_id=self.conversion_id,
        )


@frozen(kw_only=True)
class Attempt:
    """One POST of an entry: `number` counts from 1; times are UTC.

    `outcome` is the state that the entry came to, or None while the POST is under way; `status` and `words` are the
    server's answer, None and empty when there was none.
    """

    number: int
    sent_at: datetime
    ended_at: datetime | None = None
    outcome: State | None = None
    status: int | None = None
    words: str = ""


@frozen
class Siblings:
    """The other certificates of the same person, certification and dates at the same host.

    What Springest lists cannot tell them apart, so `known_ids` are not this entry's, and when one of them is
    `uncertain` (it may be stored under an id that nobody knows) a certificate that is listed may be that one.
    """

    known_ids: frozenset[int] = frozenset()
    uncertain: bool = False
