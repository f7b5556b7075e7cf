"""Validate a form, and make a certificate of it.

It is pure: a form and the known certifications go in, a certificate or all the faults come out. The fields and their
rules are those of Springest's help page "User certificates - certifications"; the texts of the faults are those of
Rails' validations. `forms` reads a form, and `lists` shows certificates.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from typing import TypeVar

from attrs import define, field, frozen

FORM_FIELDS = ("certification_id", "email", "valid_from", "valid_until", "conversion_id")

_Value = TypeVar("_Value")

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# No more digits than a database's integer has.
_INTEGER = re.compile(r"[0-9]{1,18}")


@frozen(kw_only=True)
class SandboxCertification:
    """A certification of the sandbox's site.

    `requires_valid_until` makes that field of a certificate required. While `verified` is False, neither the
    certification nor its certificates are listed, but certificates can be posted to it.
    """

    id: int
    name: str
    description: str | None = None
    requires_valid_until: bool = False
    verified: bool = True


@frozen(kw_only=True)
class SandboxCertificate:
    """A stored certificate. Its file is not stored; the audit has its size and hash."""

    id: int
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None
    created_at: datetime


@frozen(kw_only=True)
class ReceivedFile:
    """The file part of a form: its headers, its size in bytes, its SHA-256 in hex, and whether it is base64."""

    filename: str | None
    content_type: str | None
    transfer_encoding: str | None
    size: int
    sha256: str
    is_base64: bool


@define
class Form:
    """The fields and the file of a POST, as far as they have arrived."""

    fields: dict[str, str] = field(factory=dict)
    file: ReceivedFile | None = None


class ValidationError(ValueError):
    """A form that cannot be stored; `faults` has everything that is wrong, by field."""

    def __init__(self, faults: Mapping[str, Iterable[str]]) -> None:
        self.faults = {name: tuple(said) for name, said in faults.items()}
        super().__init__("; ".join(f"{name} {fault}" for name, said in self.faults.items() for fault in said))


def certificate_from(
    form: Form, certifications: Mapping[int, SandboxCertification], *, certificate_id: int, created_at: datetime
) -> SandboxCertificate:
    """Return the certificate that `form` asks for.

    `certifications` are those of the site, by id.

    Raises:
        ValidationError: with every fault, when the form cannot be stored.
    """
    faults: dict[str, list[str]] = defaultdict(list)

    certification_id = _read(form, "certification_id", parse_integer, faults, required=True)
    certification = certifications.get(certification_id) if certification_id is not None else None
    if certification_id is not None and certification is None:
        faults["certification_id"].append("does not exist")

    email = form.fields.get("email", "")
    if not email.strip():
        faults["email"].append("can't be blank")
    elif not _EMAIL.fullmatch(email):
        faults["email"].append("is invalid")

    needs_end = certification is not None and certification.requires_valid_until
    valid_from = _read(form, "valid_from", parse_date, faults, required=True)
    valid_until = _read(form, "valid_until", parse_date, faults, required=needs_end)
    conversion_id = _read(form, "conversion_id", parse_integer, faults, required=False)

    if (fault := _file_fault(form.file)) is not None:
        faults["file"].append(fault)

    # The type checker needs the None checks; `faults` covers them.
    if faults or certification_id is None or valid_from is None:
        raise ValidationError(faults)
    return SandboxCertificate(
        id=certificate_id,
        certification_id=certification_id,
        email=email,
        valid_from=valid_from,
        valid_until=valid_until,
        conversion_id=conversion_id,
        created_at=created_at,
    )


def parse_integer(text: str) -> int:
    """Return the integer in `text`, which must have digits only.

    Raises:
        ValueError: when it is not an integer; the text of the error is a fault in Rails' words.
    """
    if not _INTEGER.fullmatch(text):
        raise ValueError("is not a number")
    return int(text)


def parse_date(text: str) -> date:
    """Return the date in `text`, which must be written YYYY-MM-DD.

    Raises:
        ValueError: when it is not a date; the text of the error is a fault in Rails' words.
    """
    if _DATE.fullmatch(text):  # `fromisoformat` alone would also accept 20240501 and 2024-W18-3
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise ValueError("is not a valid date")


def _read(
    form: Form, name: str, parse: Callable[[str], _Value], faults: dict[str, list[str]], *, required: bool
) -> _Value | None:
    # An HTML form sends an optional field that was left empty as an empty text.
    text = form.fields.get(name, "").strip()
    if not text:
        if required:
            faults[name].append("can't be blank")
        return None
    try:
        return parse(text)
    except ValueError as error:
        faults[name].append(str(error))
        return None


def _file_fault(file: ReceivedFile | None) -> str | None:
    if file is None:
        return "can't be blank"
    if file.size == 0:
        return "is empty"
    if file.is_base64 or (file.transfer_encoding or "").lower() == "base64":
        return "cannot be decoded"
    if file.filename is None:
        return "is not a file"
    return None
