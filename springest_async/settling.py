"""Settle certificates in doubt: ask Springest about one, and record what it says in the journal.

How Springest is asked is the client's; what its list means is in `springest_async.api.settlement`.
"""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs

from springest_async.api.settlement import still_in_doubt
from springest_async.errors import InDoubt
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.journal import Journal
from springest_async.journal.records import KnownCertificate, State
from springest_async.records import Certificate


class Ask(Protocol):
    """`Springest.settle`."""

    async def __call__(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
        """Return the listed certificate if it is stored, None if it certainly is not."""


def doubt_of(certificate: KnownCertificate, why: str = "") -> InDoubt:
    """Return the error that says that a certificate in the journal is in doubt, and why."""
    return InDoubt(
        f"POST {certificate.origin}",
        still_in_doubt(certificate.reason, why),
        email=certificate.email,
        certification_id=certificate.certification_id,
        valid_from=certificate.valid_from,
        valid_until=certificate.valid_until,
        sent_at=certificate.sent_at or datetime.now(UTC),
        given_up_at=certificate.given_up_at or datetime.now(UTC),
        request_id=certificate.request_id,
    )


async def settle_claimed(
    journal: Journal, certificate: KnownCertificate, ask: Ask, *, fails: str = ""
) -> KnownCertificate:
    """Settle a certificate in doubt that `claim_doubt` returned, and return it as it is then.

    Its state is STORED, WAITING when it certainly is not stored, or still IN_DOUBT, with the reason. `fails` is why a
    certificate that is not stored is not to be sent again: then it is FAILED.

    Raises:
        SpringestError: Springest cannot be asked. The certificate is still in doubt, and the caller's to settle: see
            `Journal.stop_settling`.
        JournalError: the journal cannot be written.
        ClaimLost: another worker may settle it now. Nothing was changed.
    """
    try:
        return await _settle(journal, certificate, ask, fails)
    except InDoubt as still:
        return await journal.settled(certificate, State.IN_DOUBT, reason=still.reason)


async def _settle(journal: Journal, certificate: KnownCertificate, ask: Ask, fails: str) -> KnownCertificate:
    while True:
        siblings = await journal.siblings(certificate)
        # A vanished worker counts as having given up some time from now, because the server may still have its POST.
        ahead = 0.0 if certificate.given_up is None else certificate.given_up - journal.clock()
        known = set(siblings.known_ids)
        doubt = _with_age(journal, certificate)
        while (found := await ask(doubt, known=known)) is not None and await journal.has_id(certificate, found.id):
            known.add(found.id)  # of a certificate that the journal no longer knows to look the same: it was erased
        if found is None and ahead > 0:
            await asyncio.sleep(ahead)
            continue
        if found is None:
            # No listed certificate can be this one.
            return await _record(journal, certificate, State.FAILED if fails else State.WAITING, reason=fails)
        if siblings.uncertain:
            raise doubt_of(certificate, "another certificate with the same fields may be what Springest lists")
        # If a sibling was stored meanwhile, what was found may be that one: ask again.
        if await journal.siblings(certificate) == siblings:
            return await _record(journal, certificate, State.STORED, springest_id=found.id)


async def _record(
    journal: Journal,
    certificate: KnownCertificate,
    state: State,
    *,
    reason: str = "",
    springest_id: int | None = None,
) -> KnownCertificate:
    settled = await journal.settled(certificate, state, reason=reason, springest_id=springest_id)
    if settled.state is State.IN_DOUBT:
        raise ClaimLost
    return settled


def _with_age(journal: Journal, certificate: KnownCertificate) -> InDoubt:
    """Return the doubt with the time that the server has had, by the journal's clock: wall clocks are changed."""
    doubt = doubt_of(certificate)
    if certificate.given_up is None:
        return doubt
    return attrs.evolve(
        doubt, given_up_at=datetime.now(UTC) - timedelta(seconds=journal.clock() - certificate.given_up)
    )
