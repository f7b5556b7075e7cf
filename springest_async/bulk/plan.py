"""The plan of an upload: what would be sent, what would not and why, and how long it would take."""

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

from attrs import frozen

from springest_async.bulk.listed import ListedCertificates
from springest_async.bulk.rows import RowSet
from springest_async.bulk.totals import Totals
from springest_async.journal.known_files import KnownFiles
from springest_async.limits.limiter import Limiter
from springest_async.manifest.certifications import Certifications
from springest_async.source_file import SourceFile


@frozen(kw_only=True)
class Plan:
    """What an upload of a manifest would do.

    Attributes:
        totals: what the check has counted. Its rows to send are those of the plan.
        listed: the rows that are not sent because Springest lists them already; None if it was not asked.
        seconds: how long the limit makes it take, at least.
        posts_per_minute: the limit.
        certifications: what is known of the certifications, if anything is.
    """

    totals: Totals
    listed: RowSet | None
    seconds: float
    posts_per_minute: int
    certifications: Certifications | None = None

    @classmethod
    def of(
        cls,
        totals: Totals,
        limiter: Limiter,
        *,
        listed: RowSet | None = None,
        certifications: Certifications | None = None,
    ) -> "Plan":
        """Return the plan for what a check has counted, if it began now."""
        return cls(
            totals=totals,
            listed=listed,
            seconds=limiter.seconds_until(len(totals.to_send)),
            posts_per_minute=limiter.posts_now,
            certifications=certifications,
        )

    @property
    def faulty(self) -> int:
        """How many rows cannot be sent."""
        return self.totals.rows - len(self.totals.to_send) - self.totals.known.total() - len(self.listed or ())

    def done_at(self, now: datetime | None = None) -> datetime:
        """Return when it would be done, in this machine's time zone.

        Args:
            now: when it begins, if not now.
        """
        return ((now or datetime.now(UTC)) + timedelta(seconds=self.seconds)).astimezone()


def leave_out_listed(
    listed: ListedCertificates, totals: Totals, known: KnownFiles | None, rows: RowSet
) -> Iterator[None]:
    """Leave the rows out of `totals` that Springest lists already, and add them to `rows`; this blocks.

    It yields after each row. Errors are those of `ListedCertificates.rows`.
    """
    with closing(listed.rows(known)) as found:
        for row in found:
            if row is not None:
                size = 0
                with suppress(OSError, ValueError):  # it was there a moment ago
                    size = SourceFile.look(row.path).size
                totals.leave_out(row.number, row.certification_id, size)
                rows.add(row.number)
            yield
