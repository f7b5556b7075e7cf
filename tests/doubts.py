"""The maker of doubts: certificates that were sent and got no answer."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from springest_async import InDoubt

__all__ = ["SENT_AT", "doubt"]

SENT_AT = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


def doubt(**changes: Any) -> InDoubt:
    """Return the doubt about a certificate of jan@example.org, given up two minutes after it was sent."""
    values: dict[str, Any] = {
        "where": "POST https://api.springest.nl/users/certificates.json",
        "reason": "no answer within the time allowed",
        "email": "jan@example.org",
        "certification_id": 7,
        "valid_from": date(2026, 1, 30),
        "valid_until": date(2027, 1, 30),
        "sent_at": SENT_AT,
        "given_up_at": SENT_AT + timedelta(minutes=2),
    }
    return InDoubt(**(values | changes))
