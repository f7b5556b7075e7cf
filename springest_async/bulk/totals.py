"""What a check of a manifest counts, for the plan of its upload."""

from collections import Counter

from attrs import define, field

from springest_async.bulk.rows import RowSet
from springest_async.journal.records import State


@define(kw_only=True)
class Totals:
    """What a check has counted; it is complete when the check has ended.

    Attributes:
        rows: of the manifest.
        known: how many of them will not be sent again, by state: stored, rejected or in doubt.
        to_send: the other rows without faults.
        size: of the files of the rows to send, in bytes; a file that several rows name counts for each of them.
        certifications: how many rows there are to send, by the id of the certification.
    """

    rows: int = 0
    known: Counter[State] = field(factory=Counter)
    to_send: RowSet = field(factory=RowSet)
    size: int = 0
    certifications: Counter[int] = field(factory=Counter)

    def add(self, row: int, certification_id: int, size: int) -> None:
        """Count a row to send, whose file has `size` bytes."""
        self.to_send.add(row)
        self.size += size
        self.certifications[certification_id] += 1

    def leave_out(self, row: int, certification_id: int, size: int) -> None:
        """Do not send this row after all; a row that is not to be sent stays as it is."""
        if row in self.to_send:
            self.to_send.discard(row)
            self.size -= size
            self.certifications[certification_id] -= 1
