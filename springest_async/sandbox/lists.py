"""Filter the two lists, and cut one page out of them.

It is pure: records and a query go in, the tree of an answer comes out. Only verified certifications and their
certificates are shown, as on Springest. `server` checks the key and writes the answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import TypeVar

from springest_async.sandbox.certificates import (
    SandboxCertificate,
    SandboxCertification,
    ValidationError,
    parse_date,
    parse_integer,
)
from springest_async.sandbox.render import Tree

DEFAULT_PAGE_SIZE = 25
MAX_PAGE_SIZE = 100

_Value = TypeVar("_Value")


def list_certificates(
    certificates: Iterable[SandboxCertificate],
    certifications: Mapping[int, SandboxCertification],
    query: Mapping[str, str],
) -> Tree:
    """Return the page of certificates that `query` asks for, in order of their ids.

    Filters: `email` (any case), `certification_id`, and `created_from` (a date in UTC: created on or after it).
    Page: `size` (25 by default; 100 at most) and `offset`. An empty value means no value.

    Raises:
        ValidationError: when a filter, the size or the offset is invalid.
    """
    email = query.get("email", "").strip().casefold()
    certification_id = _asked(query, "certification_id", parse_integer)
    created_from = _asked(query, "created_from", parse_date)
    found = [
        certificate
        for certificate in certificates
        if certifications[certificate.certification_id].verified
        and (not email or certificate.email.casefold() == email)
        and (certification_id is None or certificate.certification_id == certification_id)
        and (created_from is None or certificate.created_at.astimezone(UTC).date() >= created_from)
    ]
    return _page("certificates", found, query, lambda one: certificate_tree(one, certifications[one.certification_id]))


def list_certifications(certifications: Iterable[SandboxCertification], query: Mapping[str, str]) -> Tree:
    """Return the page of certifications that `query` asks for, in the order given.

    Filter: `name` (a part of the name, any case). Page: as for certificates.

    Raises:
        ValidationError: when the size or the offset is invalid.
    """
    name = query.get("name", "").strip().casefold()
    found = [one for one in certifications if one.verified and name in one.name.casefold()]
    return _page("certifications", found, query, _certification_tree)


def certificate_tree(certificate: SandboxCertificate, certification: SandboxCertification) -> Tree:
    """Return a certificate with the fields that ``GET /users/certificates`` documents.

    Springest does not document the values of `status`; the sandbox uses ``verified`` and ``pending``.
    """
    return {
        "id": certificate.id,
        "name": certification.name,
        "description": certification.description,
        "certification_id": certification.id,
        "valid_from": certificate.valid_from,
        "valid_until": certificate.valid_until,
        "status": "verified" if certification.verified else "pending",
        "created_at": certificate.created_at,
        "user": {"email": certificate.email, "external_id": None},
    }


def _certification_tree(certification: SandboxCertification) -> Tree:
    return {
        "id": certification.id,
        "name": certification.name,
        "description": certification.description,
        "requires_valid_until": certification.requires_valid_until,
    }


def _page(name: str, found: Sequence[_Value], query: Mapping[str, str], show: Callable[[_Value], Tree]) -> Tree:
    size = _asked(query, "size", parse_integer)
    if size == 0:
        raise ValidationError({"size": ["must be greater than 0"]})
    size = min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    offset = _asked(query, "offset", parse_integer) or 0
    return {
        "meta": {"results": len(found), "offset": offset},
        name: [show(one) for one in found[offset : offset + size]],
    }


def _asked(query: Mapping[str, str], name: str, parse: Callable[[str], _Value]) -> _Value | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise ValidationError({name: ["is invalid"]}) from error
