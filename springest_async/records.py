"""The records: what is uploaded, what is listed, and the receipt of an upload.

All are frozen attrs classes. A record cannot be invalid: `CertificateUpload` refuses values that Springest cannot
accept, and lists every fault at once. This module opens no file and sends nothing.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime
from os import PathLike
from pathlib import Path

from attrs import field, frozen

from springest_async.errors import Fault, InvalidUpload

# Most addresses are of this form, and valid. `email_validator` checks all others; it takes 0.07 ms for each, and longer
# to import than all else here. (Names of hosts with "--" may be encoded Unicode.)
_PLAIN_ADDRESS = re.compile(
    r"(?=[^@]{1,64}@)[\w+-]+(?:\.[\w+-]+)*@(?:(?!.*--)[a-z\d](?:[a-z\d-]{0,61}[a-z\d])?\.)+[a-z]{2,63}",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_ADDRESS = 254
_RESERVED = (
    ".arpa",
    ".invalid",
    ".local",
    ".localhost",
    ".onion",
    ".test",
)  # of `email_validator.SPECIAL_USE_DOMAIN_NAMES`

_LONGEST_SHOWN = 200  # characters of a value, or of what is wrong with it


def _path(value: str | PathLike[str]) -> Path:
    try:
        return Path(value)
    except TypeError:
        return value  # type: ignore[return-value] # `_faults` lists it together with all other faults


@frozen(kw_only=True)
class CertificateUpload:
    """A certificate to post: a PDF on disk and the fields that go with it.

    The fields are those of ``POST /users/certificates`` on Springest's help page "User certificates -
    certifications". `valid_until` is required by certifications whose `requires_valid_until` is true; only Springest
    knows which these are, so it is not checked here.

    Args:
        file: the path of the PDF.
        certification_id: Springest's id of the certification.
        email: the e-mail address of the employee.
        valid_from: the first day on which the certificate is valid.
        valid_until: the last day, or None.
        conversion_id: Springest's id of the conversion, or None.

    Raises:
        InvalidUpload: a field has the wrong type or an impossible value; the error lists every fault.
    """

    file: Path = field(converter=_path)
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None = None
    conversion_id: int | None = None

    def __attrs_post_init__(self) -> None:
        if faults := tuple(self._faults()):
            raise InvalidUpload(faults)

    def _faults(self) -> Iterator[Fault]:
        if not isinstance(self.file, Path):
            yield Fault("file", f"must be a path, not {shown(self.file)}")
        if not _is_id(self.certification_id):
            yield Fault("certification_id", f"must be a positive integer, not {shown(self.certification_id)}")
        if (reason := email_fault(self.email)) is not None:
            yield Fault("email", reason)
        if not _is_date(self.valid_from):
            yield Fault("valid_from", f"must be a date as in 2026-12-31, not {shown(self.valid_from)}")
        if self.valid_until is not None and not _is_date(self.valid_until):
            yield Fault("valid_until", f"must be a date as in 2026-12-31, or None, not {shown(self.valid_until)}")
        if self.conversion_id is not None and not _is_id(self.conversion_id):
            yield Fault("conversion_id", f"must be a positive integer or None, not {shown(self.conversion_id)}")


def shown(value: object) -> str:
    """Return the value's ``repr``, shortened so that it fits into a message; a backslash is one, as in the cell."""
    try:
        return _shortened(repr(value).replace("\\\\", "\\"))
    except ValueError:  # Python refuses to write a number with more than 4300 digits
        return "a number of thousands of digits"


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_SHOWN:
        return text
    return f"{text[: _LONGEST_SHOWN // 2]}…{text[-_LONGEST_SHOWN // 2 :]}"


def _is_id(value: object) -> bool:
    # bool is an int to Python, and True as an id is always a mistake.
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _is_date(value: object) -> bool:
    # datetime is a date to Python, and would be sent with a time, which the API does not accept.
    return isinstance(value, date) and not isinstance(value, datetime)


def email_fault(value: object) -> str | None:
    """Return what is wrong with the address of an employee, or None."""
    if not isinstance(value, str):
        return f"must be a string, not {shown(value)}"
    if len(value) <= _LONGEST_ADDRESS and _PLAIN_ADDRESS.fullmatch(value) and not value.lower().endswith(_RESERVED):
        return None
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 # its tables take longer than all else here

    try:
        validate_email(value, check_deliverability=False)
    except EmailNotValidError as error:
        return f"{shown(value)} is not an e-mail address: {_shortened(str(error))}"
    return None


@frozen(kw_only=True)
class Receipt:
    """The result of an upload: the certificate is stored.

    Attributes:
        id: Springest's id of the certificate, or None when the answer (201) contained none.
        upload: what was uploaded.
        attempts: how many POSTs were sent, including those that were refused.
        sent_at: when the last POST was sent (UTC).
        answered_at: when its answer was received (UTC).
        stored_before: whether the journal knew that it is stored, so that nothing was sent now.
        request_id: the ``X-Request-Id`` of the last POST, by which Springest's staff can find it in their logs.
    """

    id: int | None
    upload: CertificateUpload
    attempts: int
    sent_at: datetime
    answered_at: datetime
    stored_before: bool = False
    request_id: str = ""


@frozen(kw_only=True, weakref_slot=False)  # see `api/structure.py:_unfrozen`
class User:
    """The employee who owns a certificate."""

    email: str
    external_id: str | None = None


@frozen(kw_only=True, weakref_slot=False)  # see `api/structure.py:_unfrozen`
class Certificate:
    """A verified certificate, as ``GET /users/certificates`` lists it.

    `status` is a string whose values Springest does not document. A field that the answer leaves out is None.
    """

    id: int
    certification_id: int
    valid_from: date
    name: str | None = None
    description: str | None = None
    valid_until: date | None = None
    status: str | None = None
    created_at: datetime | None = None
    user: User | None = None


@frozen(kw_only=True)
class Certification:
    """A verified certification, as ``GET /certifications`` lists it."""

    id: int
    name: str
    description: str | None = None
    requires_valid_until: bool = False
