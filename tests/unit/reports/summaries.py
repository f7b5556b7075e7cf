"""What a report tells of a migration that never was."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

from springest_async.journal.history import AllPosts, AnswerTime, RowHistory, Stretch
from springest_async.journal.records import Reason, State
from springest_async.journal.status import MigrationStatus
from springest_async.reports.audit import Audit, Peak
from springest_async.reports.summary import Summary

BEGAN = datetime(2026, 11, 5, 8, 30, tzinfo=UTC)


def status_of(**rows: int) -> MigrationStatus:
    """Return where a migration stands with so many rows in each state, such as ``in_doubt=3``."""
    return MigrationStatus(
        id=1,
        name="certificates.csv",
        path="/home/ole/certificates.csv",
        origin="https://api.springest.nl",
        at=BEGAN + timedelta(days=1),
        moved_at=BEGAN,
        paused_at=None,
        counts=Counter({State[state.upper()]: count for state, count in rows.items()}),
    )


def stretch(number: int = 0, **changes: Any) -> Stretch:
    """Return the POSTs of five minutes, by their number."""
    values: dict[str, Any] = {"minutes": 5, "posts": 148, "busiest": 30, "stored": 148}
    return Stretch(at=BEGAN + timedelta(minutes=5 * number), **values | changes)


def summary_of(status: MigrationStatus | None = None, **changes: Any) -> Summary:
    values: dict[str, Any] = {
        "status": status or status_of(stored=3),
        "posts": AllPosts(posts=3, stored=3, begun_at=BEGAN, first_at=BEGAN, last_at=BEGAN + timedelta(minutes=4)),
        "stretches": (stretch(posts=3, stored=3, busiest=2),),
        "answer_times": (AnswerTime(0.2, 0.21, 2), AnswerTime(1.0, 1.1, 1)),
        "reasons": (),
        "more_reasons": 0,
        "audit": audit_of(),
    }
    return Summary(**values | changes)


def audit_of(**changes: Any) -> Audit:
    values: dict[str, Any] = {
        "first_at": BEGAN,
        "last_at": BEGAN + timedelta(minutes=4),
        "limit": 30,
        "limits": (30,),
        "period": 60.0,
        "keys": 1,
        "posts": 5,
        "own_posts": 3,
        "by_our_clock": Peak(posts=3, at=BEGAN, seconds=12.0),
        "by_server_clock": Peak(posts=2, at=BEGAN, seconds=11.0),
        "undated": 0,
        "refused": 0,
        "too_fast": 0,
        "in_doubt": 0,
        "doubles": 0,
        "first_doubles": (),
        "sent_again": 0,
        "first_sent_again": (),
        "put_back": 0,
        "set_back": 0.0,
        "disputed": False,
    }
    return Audit(**values | changes)


def never_sent(status: MigrationStatus) -> Summary:
    return summary_of(
        status,
        audit=audit_of(posts=0, own_posts=0, first_at=None, last_at=None, by_our_clock=Peak(), by_server_clock=None),
        posts=AllPosts(begun_at=BEGAN, first_at=None, last_at=None),
        stretches=(),
        answer_times=(),
    )


def full_summary(status: MigrationStatus) -> Summary:
    """Return one with as many stretches as there are, and something of everything in each."""
    return summary_of(
        status,
        stretches=tuple(
            stretch(number, posts=90 + number, refused=number % 4, rejected=number % 3, unanswered=2)
            for number in range(60)
        ),
        answer_times=tuple(
            AnswerTime(least, least + 0.1, 1000) for least in (0.05, 0.1, 0.3, 0.9, 1, 4, 9, 20, 45, 99)
        ),
        reasons=(Reason(State.REJECTED, "… is not a user", 12), Reason(State.FAILED, "…: no such file", 3)),
        more_reasons=1,
    )


def row(number: int = 2, **changes: Any) -> RowHistory:
    values: dict[str, Any] = {
        "number": number,
        "file": f"{number - 1}.pdf",
        "certification_id": 7,
        "email": f"employee{number - 1}@example.org",
        "valid_from": date(2026, 1, 31),
        "valid_until": None,
        "conversion_id": None,
        "state": State.IN_DOUBT,
        "reason": "no answer",
        "first_sent_at": BEGAN,
        "last_sent_at": BEGAN,
        "tries": 1,
        "request_id": f"{number:032x}",
    }
    return RowHistory(**values | changes)
