"""What a report tells of a migration: where it stands, its POSTs, why rows are not stored, and whom they wait for."""

from collections.abc import Iterator
from itertools import islice

from attrs import evolve, frozen

from springest_async.journal import history, manifest_rows
from springest_async.journal.engine import Connection
from springest_async.journal.history import AllPosts, AnswerTime, RowHistory, Stretch
from springest_async.journal.reasons import plain_reason
from springest_async.journal.records import Reason, State
from springest_async.journal.status import MigrationStatus, read_status
from springest_async.reports import charts
from springest_async.reports.audit import Audit, read_audit

REASONS = 20
"""How many reasons a report has at most, the most frequent ones."""


@frozen(kw_only=True)
class Summary:
    """What is told of a migration; all numbers are of one moment.

    Attributes:
        status: where it stands.
        posts: its POSTs.
        stretches: the same over time; empty if nothing was sent.
        answer_times: how long the answers took; empty if there were none.
        reasons: why rows were rejected or have failed, the most frequent reasons first; at most `REASONS`.
        more_reasons: how many other reasons there are.
        audit: whether the limit was kept and nothing was stored twice.
    """

    status: MigrationStatus
    posts: AllPosts
    stretches: tuple[Stretch, ...]
    answer_times: tuple[AnswerTime, ...]
    reasons: tuple[Reason, ...]
    more_reasons: int
    audit: Audit


def read_summary(connection: Connection, migration: int) -> Summary:
    """Read what is told of a migration.

    Args:
        connection: in a snapshot.
        migration: its key.

    Raises:
        JournalError: the journal cannot be read, or the migration was erased from it.
        ConfigurationError: the folder for temporary files has no space left.
    """
    posts = history.read_posts(connection, migration)
    reasons, kinds = manifest_rows.reasons(connection, migration, REASONS)
    return Summary(
        status=read_status(connection, migration),
        posts=posts,
        stretches=tuple(history.read_stretches(connection, migration, posts, charts.STRETCHES)),
        answer_times=tuple(history.read_answer_times(connection, migration)),
        reasons=tuple(evolve(reason, words=plain_reason(reason.words)) for reason in reasons),
        more_reasons=kinds - len(reasons),
        audit=read_audit(connection, migration),
    )


def rows_for_person(connection: Connection, migration: int, most: int) -> Iterator[RowHistory]:
    """Yield the first rows that a person must look at: those in doubt, then the rejected ones, then the failed ones.

    Rows in doubt that a run is asking Springest about now are not among them.
    """
    for state in (State.IN_DOUBT, State.REJECTED, State.FAILED):
        rows = (row for row in history.read_rows(connection, migration, state) if not row.asked)
        for row in islice(rows, most):
            yield row
            most -= 1


def outcomes_of(posts: AllPosts) -> str:
    """Return what the answers to POSTs were, in words: ``30 stored, 2 rejected``."""
    found = f" ({charts.number(posts.found)} of them found at Springest later)" if posts.found else ""
    kinds = [
        (posts.stored, "stored"),
        (posts.missing, "stored but missing at Springest later and sent again"),
        (posts.refused, "refused and sent again"),
        (posts.rejected, "rejected"),
        (posts.unanswered, "without a clear answer" + found),
        (posts.others, "with an error or under way"),
    ]
    return ", ".join(f"{charts.number(count)} {what}" for count, what in kinds if count)
