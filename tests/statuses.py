"""The maker of statuses: where a migration stands, without a journal."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from springest_async.bulk import State
from springest_async.journal.status import MigrationStatus

__all__ = ["READ_AT", "status_of"]

READ_AT = datetime(2026, 11, 28, 14, 9, 29, 120_000, tzinfo=UTC)


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
        "counts": Counter({State[name.upper()]: rows for name, rows in counts.items()}),
    }
    return MigrationStatus(**values | (changes or {}))
