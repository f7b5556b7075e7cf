"""Decide whether a certificate in doubt is among those that Springest lists. It sends nothing and reads no clock.

The API has no idempotency key and no id to ask for, so a certificate is recognised by what was sent and when. Both
mistakes are bad: if we mistake another certificate for ours, ours is lost; if we overlook ours, it is sent twice. When
a certificate is neither clearly ours nor clearly another, a person decides.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta

from attrs import frozen

from springest_async.errors import InDoubt
from springest_async.records import Certificate

# The server's clock and ours may differ by this much.
_SKEW = timedelta(minutes=2)
CERTAINLY_EARLIER = timedelta(days=1)
"""An equal certificate that was created this long before ours was sent is another one.

Between the two bounds it may be ours, if a clock was wrong by hours."""

_ASKED = "; "  # between why a certificate is in doubt and why it still is


@frozen
class Unclear:
    """The listed certificates do not decide it; `reason` says why."""

    reason: str


def listed_from(doubt: InDoubt) -> date:
    """Return the first day of creation to list, early enough for any time zone of the server."""
    return (doubt.sent_at - CERTAINLY_EARLIER).date() - timedelta(days=1)


def clock_was_ahead(doubt: InDoubt, here: datetime, there: datetime | None) -> bool:
    """Return whether our clock is, or was at the send, so far ahead that our certificate would seem an earlier one.

    Args:
        doubt: what was sent, and when.
        here: the time now by our clock, which may have been corrected since the send.
        there: the time now by the server's clock, if known.
    """
    return max(here, doubt.sent_at) - (there or here) > CERTAINLY_EARLIER


def find(doubt: InDoubt, listed: Iterable[Certificate], known: Collection[int] = ()) -> Certificate | Unclear | None:
    """Find the certificate in doubt in a list.

    Args:
        doubt: what was sent, and when.
        listed: the certificates of that employee and certification, as Springest lists them.
        known: the ids of other certificates that we know.

    Returns:
        The certificate; None when it is certainly not in the list; or `Unclear`.
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
        # Another program, or another journal, may have sent equal certificates.
        ids = ", ".join(str(certificate.id) for certificate in sorted(found, key=lambda one: one.id))
        return Unclear(f"Springest lists several such certificates ({ids})")
    return found[0] if found else unclear


def _is_another(doubt: InDoubt, certificate: Certificate) -> bool:
    """Return whether a listed certificate is certainly not the one in doubt."""
    if certificate.certification_id != doubt.certification_id or certificate.valid_from != doubt.valid_from:
        return True
    if certificate.user is not None and certificate.user.email.casefold() != doubt.email.casefold():
        return True
    if certificate.valid_until and doubt.valid_until and certificate.valid_until != doubt.valid_until:
        return True
    return certificate.created_at is not None and certificate.created_at < doubt.sent_at - CERTAINLY_EARLIER


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


def still_in_doubt(reason: str, why: str) -> str:
    """Return why a certificate is still in doubt after Springest was asked.

    Args:
        reason: why it was in doubt before.
        why: what asking has shown, or why it was not possible; empty if Springest was not asked.
    """
    return reason if why in reason else f"{reason}{_ASKED}{why}"


def was_asked(reason: str) -> bool:
    """Return whether Springest was asked about a certificate that is in doubt for this reason, as far as is known."""
    return _ASKED in reason
