"""The validation of a form: every fault with its field, and all faults at once."""

from datetime import UTC, date, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.sandbox.certificates import (
    FORM_FIELDS,
    Form,
    ReceivedFile,
    SandboxCertificate,
    SandboxCertification,
    ValidationError,
    certificate_from,
    parse_date,
    parse_integer,
)

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
CERTIFICATIONS = {
    1: SandboxCertification(id=1, name="First aid"),
    2: SandboxCertification(id=2, name="Forklift driver", requires_valid_until=True),
    3: SandboxCertification(id=3, name="Working at height", verified=False),
}
FILE = ReceivedFile(
    filename="diploma.pdf",
    content_type="application/pdf",
    transfer_encoding=None,
    size=1000,
    sha256="0" * 64,
    is_base64=False,
)
FIELDS = {"certification_id": "1", "email": "jan@example.com", "valid_from": "2024-05-01"}


def store(form: Form) -> SandboxCertificate:
    return certificate_from(form, CERTIFICATIONS, certificate_id=7, created_at=NOW)


def faults_of(form: Form) -> dict[str, tuple[str, ...]]:
    with pytest.raises(ValidationError) as caught:
        store(form)
    return dict(caught.value.faults)


def test_a_good_form_makes_a_certificate() -> None:
    form = Form({**FIELDS, "valid_until": "2026-05-01", "conversion_id": "9"}, FILE)

    expected = SandboxCertificate(
        id=7,
        certification_id=1,
        email="jan@example.com",
        valid_from=date(2024, 5, 1),
        valid_until=date(2026, 5, 1),
        conversion_id=9,
        created_at=NOW,
    )
    assert expected == store(form)


def test_optional_fields_may_be_missing_or_blank() -> None:
    assert store(Form(FIELDS, FILE)) == store(Form({**FIELDS, "valid_until": "", "conversion_id": " "}, FILE))


def test_a_certification_that_is_not_verified_takes_certificates() -> None:
    assert store(Form({**FIELDS, "certification_id": "3"}, FILE)).certification_id == 3


def test_an_empty_form_has_every_required_field_at_fault() -> None:
    blank = ("can't be blank",)

    expected = {"certification_id": blank, "email": blank, "valid_from": blank, "file": blank}
    assert expected == faults_of(Form())


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("certification_id", "first aid", "is not a number"),
        ("certification_id", "1.5", "is not a number"),
        ("certification_id", "-1", "is not a number"),
        ("certification_id", "99", "does not exist"),
        ("certification_id", "0" * 5000, "is not a number"),
        ("email", "  ", "can't be blank"),
        ("email", "jan", "is invalid"),
        ("email", "jan@", "is invalid"),
        ("email", "jan @example.com", "is invalid"),
        ("email", "jan@example.com\n", "is invalid"),
        ("valid_from", "01-05-2024", "is not a valid date"),
        ("valid_from", "20240501", "is not a valid date"),
        ("valid_from", "2024-02-30", "is not a valid date"),
        ("valid_from", "2024-05-01T00:00", "is not a valid date"),
        ("valid_until", "never", "is not a valid date"),
        ("conversion_id", "nine", "is not a number"),
    ],
)
def test_a_fault_is_named_with_its_field(field: str, value: str, fault: str) -> None:
    assert {field: (fault,)} == faults_of(Form({**FIELDS, field: value}, FILE))


def test_some_certifications_require_an_end() -> None:
    assert faults_of(Form({**FIELDS, "certification_id": "2"}, FILE)) == {"valid_until": ("can't be blank",)}


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (attrs.evolve(FILE, size=0), "is empty"),
        (attrs.evolve(FILE, is_base64=True), "cannot be decoded"),
        (attrs.evolve(FILE, transfer_encoding="Base64"), "cannot be decoded"),
        (attrs.evolve(FILE, filename=None), "is not a file"),
    ],
)
def test_what_is_wrong_with_a_file(file: ReceivedFile, fault: str) -> None:
    assert {"file": (fault,)} == faults_of(Form(FIELDS, file))


def test_faults_can_be_read_in_one_line() -> None:
    with pytest.raises(ValidationError, match=r"^email is invalid; file can't be blank$"):
        store(Form({**FIELDS, "email": "jan"}))


@given(st.dictionaries(st.sampled_from(FORM_FIELDS), st.text()))
def test_only_the_fields_that_were_sent_or_required_are_at_fault(fields: dict[str, str]) -> None:
    faults = faults_of(Form(fields))

    assert faults.keys() <= {*fields, "certification_id", "email", "valid_from", "valid_until", "file"}
    assert faults["file"] == ("can't be blank",)


@given(st.dates())
def test_every_date_can_be_read(day: date) -> None:
    assert day == parse_date(day.isoformat())


@given(st.integers(0, 10**18 - 1))
def test_every_id_can_be_read(number: int) -> None:
    assert number == parse_integer(str(number))
