"""Settling a doubt: whether a certificate that got no answer is among those that Springest lists. Decisions only.

There is no idempotency key and no id to ask for, so a certificate is recognised by what was sent and when. Both
mistakes are bad: taking another certificate for ours loses ours, and overlooking ours sends it twice. So whatever is
neither clearly ours nor clearly another is left to a person.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta

from attrs import frozen

from springest_async.errors import InDoubt
from springest_async.records import Certificate

__all__ = ["Unclear", "clock_was_ahead", "find", "listed_from"]

# The server's clock and ours may differ by this much without anybody noticing.
_SKEW = timedelta(minutes=2)
# A like certificate that was created this long before is another one. In between it may be ours after all, if a clock
# was wrong by hours.
_CERTAINLY_EARLIER = timedelta(days=1)


@frozen
class Unclear:
    """What is listed may or may not be the certificate in doubt; `reason` says why."""

    reason: str


def listed_from(doubt: InDoubt) -> date:
    """Give the day from which certificates must be listed to settle a doubt, whatever the server's time zone."""
    return (doubt.sent_at - _CERTAINLY_EARLIER).date() - timedelta(days=1)


def clock_was_ahead(doubt: InDoubt, here: datetime, there: datetime | None) -> bool:
    """Say whether our clock is, or was at the send, so far ahead that ours would be taken for an earlier one.

    Args:
        doubt: what was sent and when.
        here: the time now by our clock, which may have been set since.
        there: the time now by the server's, if it tells it.
    """
    return max(here, doubt.sent_at) - (there or here) > _CERTAINLY_EARLIER


def find(doubt: InDoubt, listed: Iterable[Certificate], known: Collection[int] = ()) -> Certificate | Unclear | None:
    """Find the certificate in doubt among those that are listed.

    Args:
        doubt: what was sent and when.
        listed: certificates of that employee and certification, as Springest lists them.
        known: ids that are known to be other certificates.

    Returns:
        The certificate; None when nothing that is listed can be it; or `Unclear`.
    """
    unclear: Unclear | None = None
    found: list[Certificate] = []
    for certificate in listed:
        if certificate.id in known or _is_another(doubt, certificate):
            continue
        if (reason := _why_unclear(doubt, certificate)) is not None:
            unclear = Unclear(f"Springest lists certificate {certificate.id}, {reason}")
        else:
            found.append(certificate)
    if len(found) > 1:
        # Another program, or another journal, may have sent the like, and which one is ours cannot be told.
        ids = ", ".join(str(certificate.id) for certificate in sorted(found, key=lambda one: one.id))
        return Unclear(f"Springest lists several such certificates ({ids})")
    return found[0] if found else unclear


def _is_another(doubt: InDoubt, certificate: Certificate) -> bool:
    """Whether a listed certificate certainly is not the one in doubt."""
    if certificate.certification_id != doubt.certification_id or certificate.valid_from != doubt.valid_from:
        return True
    if certificate.user is not None and certificate.user.email.casefold() != doubt.email.casefold():
        return True
    ends = (certificate.valid_until, doubt.valid_until)
    if None not in ends and certificate.valid_until != doubt.valid_until:
        return True
    return certificate.created_at is not None and certificate.created_at < doubt.sent_at - _CERTAINLY_EARLIER


def _why_unclear(doubt: InDoubt, certificate: Certificate) -> str | None:
    if certificate.user is None:
        return "which does not say whose it is"
    if certificate.valid_until != doubt.valid_until:
        sent = f"not {doubt.valid_until}" if doubt.valid_until else "and no end was sent"
        return f"which is valid until {certificate.valid_until or 'an unknown day'}, {sent}"
    if certificate.created_at is None:
        return "which does not say when it was created"
    if certificate.created_at < doubt.sent_at - _SKEW:
        return f"which was created at {certificate.created_at:%Y-%m-%d %H:%M:%S %Z}, before this one was sent"
    return None
