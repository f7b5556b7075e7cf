"""Where a migration stands, without a journal, for tests of what is shown of it."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from springest_async.bulk import State
from springest_async.journal.records import Worker
from springest_async.journal.status import MigrationStatus, Pace, RowInProgress, RowOutcome

__all__ = ["IDLE", "NOON", "READ_AT", "STATUS", "counted", "outcome", "status_of"]

READ_AT = datetime(2026, 11, 28, 14, 9, 29, 120_000, tzinfo=UTC)
NOON = datetime(2026, 12, 3, 12, 0).astimezone()

_REJECTED = "POST https://api.springest.nl/x.json rejected the certificate (400): email: is unknown"


def counted(**counts: int) -> Counter[State]:
    """Return rows by state, as in ``counted(stored=3)``."""
    return Counter({State[name.upper()]: rows for name, rows in counts.items()})


def status_of(changes: dict[str, Any] | None = None, /, **counts: int) -> MigrationStatus:
    """Return a status with so many rows by state (``stored=3``); `changes` are other fields."""
    values: dict[str, Any] = {
        "id": 7,
        "name": "certificates.csv",
        "path": "/home/ole/certificates.csv",
        "origin": "https://api.springest.nl",
        "at": READ_AT,
        "moved_at": READ_AT - timedelta(seconds=2),
        "paused_at": None,
        "counts": counted(**counts),
    }
    return MigrationStatus(**values | (changes or {}))


def outcome(number: int, state: State, status: int | None = None, words: str = "", reason: str = "") -> RowOutcome:
    """Return what came of a POST, so many seconds after noon as its row has a number."""
    return RowOutcome(
        number=number,
        file=f"noord\\zuid/{number}.pdf",
        state=state,
        at=NOON + timedelta(seconds=number),
        status=status,
        words=words,
        request_id="",
        reason=reason,
    )


STATUS = status_of(
    {
        "at": NOON.astimezone(UTC),
        "workers": (Worker("anna"),),
        "pace": Pace(free=2, next_in=14, last_minute=28),
        "seconds_left": 3600.0,
        "sending": tuple(RowInProgress(number=n, file=f"noord/{n}.pdf", seconds=2.0) for n in (7, 8, 9)),
        "last": (
            outcome(6, State.STORED, 201),
            outcome(5, State.REJECTED, 400, '{"errors":{"email":["is unknown"]}}', _REJECTED),
            outcome(4, State.WAITING, 400),
            outcome(3, State.STORED, 201),
        ),
    },
    stored=1190,
    rejected=12,
    failed=2,
    in_doubt=3,
    sending=3,
    waiting=1790,
)
"""A migration in full swing."""

IDLE = attrs.evolve(STATUS, workers=(), sending=(), last=(), pace=Pace())
"""The same while nobody works on it."""
