"""A record cannot be invalid: whatever is given, there is a valid record or an error that names every fault."""

import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import attrs
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from springest_async.errors import Fault, InvalidUpload
from springest_async.records import Certificate, CertificateUpload, Certification, Receipt, User

VALID: dict[str, Any] = {
    "file": Path("jan.pdf"),
    "certification_id": 7,
    "email": "jan@example.org",
    "valid_from": date(2026, 1, 31),
}
A_TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)


def faults_of(**changes: Any) -> tuple[Fault, ...]:
    with pytest.raises(InvalidUpload) as caught:
        CertificateUpload(**(VALID | changes))
    return caught.value.faults


def test_the_required_fields_are_enough() -> None:
    upload = CertificateUpload(**VALID)

    assert (upload.valid_until, upload.conversion_id) == (None, None)


class Located:
    """A path of another library, which says where it is."""

    def __init__(self, where: str | bytes) -> None:
        self.where = where

    def __fspath__(self) -> str | bytes:
        return self.where


def test_a_file_may_be_text_or_any_path_of_text() -> None:
    for file in ("archive/jan.pdf", Path("archive/jan.pdf"), Located("archive/jan.pdf")):
        assert CertificateUpload(**(VALID | {"file": file})).file == Path("archive/jan.pdf")


def test_the_type_of_a_file_is_text_or_a_path_of_text() -> None:
    """Checked by mypy, which reports an ignore that ignores nothing."""
    path: PathLike[str] = Path("archive/jan.pdf")
    for made in (
        CertificateUpload(file="jan.pdf", certification_id=7, email="jan@example.org", valid_from=A_TIME.date()),
        CertificateUpload(file=path, certification_id=7, email="jan@example.org", valid_from=A_TIME.date()),
    ):
        assert isinstance(made.file, Path)
    with pytest.raises(InvalidUpload):
        CertificateUpload(file=7, certification_id=7, email="jan@example.org", valid_from=A_TIME.date())  # type: ignore[arg-type] # that is the test


@pytest.mark.parametrize("number", [10**5000, -(10**5000)], ids=["above", "below"])
def test_a_number_too_long_for_python_to_write_is_a_fault(number: int) -> None:
    said = "a number of thousands of digits"

    assert faults_of(certification_id=number, email=number, conversion_id=number) == (
        Fault("certification_id", f"must be a positive integer, not {said}"),
        Fault("email", f"must be a string, not {said}"),
        Fault("conversion_id", f"must be a positive integer or None, not {said}"),
    )


def test_one_error_lists_all_faults() -> None:
    faults = faults_of(certification_id=0, email="jan", valid_from="2026-01-31", valid_until=1, conversion_id="x")

    assert faults == (
        Fault("certification_id", "must be a positive integer, not 0"),
        Fault("email", "'jan' is not an e-mail address: An email address must have an @-sign."),
        Fault("valid_from", "must be a date as in 2026-12-31, not '2026-01-31'"),
        Fault("valid_until", "must be a date as in 2026-12-31, or None, not 1"),
        Fault("conversion_id", "must be a positive integer or None, not 'x'"),
    )


@pytest.mark.parametrize("value", [True, False, 0, -1, 7.0, "7", None, [7]])
def test_an_id_is_a_positive_integer(value: object) -> None:
    assert faults_of(certification_id=value) == (
        Fault("certification_id", f"must be a positive integer, not {value!r}"),
    )


@pytest.mark.parametrize("value", [True, 0, -1, 7.0, "7"])
def test_a_conversion_is_a_positive_integer_or_none(value: object) -> None:
    assert faults_of(conversion_id=value) == (
        Fault("conversion_id", f"must be a positive integer or None, not {value!r}"),
    )


@pytest.mark.parametrize("value", [A_TIME, "2026-01-31", 20260131, None])
def test_a_day_is_a_date_without_a_time(value: object) -> None:
    assert faults_of(valid_from=value) == (Fault("valid_from", f"must be a date as in 2026-12-31, not {value!r}"),)


def test_an_end_with_a_time_is_refused() -> None:
    assert faults_of(valid_until=A_TIME) == (
        Fault("valid_until", f"must be a date as in 2026-12-31, or None, not {A_TIME!r}"),
    )


@pytest.mark.parametrize(
    "value",
    ["", "jan", "@example.org", "jan@", "jan @example.org", "jan@example.org\r\nBcc: x@example.org", "a@b@c.org"],
)
def test_an_invalid_email_address_is_refused(value: str) -> None:
    (fault,) = faults_of(email=value)

    assert fault.field == "email"
    assert fault.reason.startswith(f"{value!r} is not an e-mail address: ")


@pytest.mark.parametrize("value", ["pat.o'brien+vca@example.com", "zoë@example.com", "jan@bücher.example.org"])
def test_unusual_email_addresses_are_kept_as_they_are(value: str) -> None:
    assert value == CertificateUpload(**(VALID | {"email": value})).email


# Labels of 63 and 64 letters, and what nearly is one.
LABELS = st.sampled_from(
    ["a", "a-b", "a--b", "-a", "a-", "xn--bcher-kva", "a" * 63, "a" * 64, "1", "", "_a", "Local", "onion"]
)
PLAIN = st.builds(
    "{}@{}.{}".format,
    st.text("aB1._+-'é", max_size=5) | st.sampled_from(["a" * 64, "a" * 65, "a..b", ".a", "a."]),
    st.lists(LABELS, min_size=1, max_size=5).map(".".join),
    st.sampled_from(["nl", "org", "x", "test", "localhost", "ONION", "n1", "1", "nl.", "nl\n", "a" * 63]),
)


@given(PLAIN)
def test_what_is_taken_is_an_address_to_the_library_too(email: str) -> None:
    try:
        CertificateUpload(**(VALID | {"email": email}))
    except InvalidUpload:
        with pytest.raises(EmailNotValidError):
            validate_email(email, check_deliverability=False)
    else:
        validate_email(email, check_deliverability=False)


@pytest.mark.parametrize("value", [None, 7, b"jan@example.org"])
def test_an_email_is_a_string(value: object) -> None:
    assert faults_of(email=value) == (Fault("email", f"must be a string, not {value!r}"),)


@pytest.mark.parametrize("value", [None, 7, object, b"jan.pdf", Located(b"jan.pdf")])
def test_a_file_that_is_not_a_path_is_a_fault(value: object) -> None:
    faults = faults_of(file=value, certification_id=0)

    assert [fault.field for fault in faults] == ["file", "certification_id"]


def made_of(**values: Any) -> CertificateUpload | tuple[Fault, ...]:
    try:
        return CertificateUpload(file=Path("x.pdf"), **values)
    except InvalidUpload as error:
        return error.faults


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(st.characters(exclude_categories=())),  # lone surrogates too
    st.emails(),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.lists(st.integers()),
)


@given(st.fixed_dictionaries(dict.fromkeys(("certification_id", "email", "valid_from", "valid_until"), ANYTHING)))
@example({"certification_id": 1, "email": "\ud800@example.org", "valid_from": date.min, "valid_until": None})
@example({"certification_id": 1, "email": "jan@\udcff.org", "valid_from": date.min, "valid_until": None})
def test_any_values_give_a_valid_record_or_invalid_upload(values: dict[str, Any]) -> None:
    made = made_of(**values)

    if isinstance(made, CertificateUpload):
        assert type(made.certification_id) is int
        assert type(made.valid_from) is date
        assert "@" in made.email
        assert made.email.encode()
        assert made.email.isprintable()
    else:
        assert made
        assert {fault.field for fault in made} <= set(values)


@given(
    st.emails(domains=st.just("example.org")),
    st.dates(),
    st.none() | st.dates(),
    st.integers(min_value=1, max_value=2**63 - 1),
)
def test_valid_values_are_kept(email: str, start: date, end: date | None, number: int) -> None:
    given_values = {"certification_id": number, "email": email, "valid_from": start, "valid_until": end}

    made = made_of(**given_values)

    if isinstance(made, CertificateUpload):
        assert given_values == {name: getattr(made, name) for name in given_values}
    else:  # hypothesis knows stranger addresses than the validator lets through
        assert [fault.field for fault in made] == ["email"]


def test_records_compare_by_value_and_are_frozen(upload: CertificateUpload) -> None:
    assert upload == attrs.evolve(upload)
    assert len({upload, attrs.evolve(upload)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        upload.email = "piet@example.org"  # type: ignore[misc] # that is the test


def test_a_changed_copy_is_checked_too(upload: CertificateUpload) -> None:
    with pytest.raises(InvalidUpload, match="certification_id"):
        attrs.evolve(upload, certification_id=-1)


@pytest.mark.parametrize(
    "make",
    [
        lambda upload: upload,
        lambda upload: Receipt(id=None, upload=upload, attempts=1, sent_at=A_TIME, answered_at=A_TIME),
        lambda _: Certificate(id=1, certification_id=7, valid_from=date(2026, 1, 31), user=User(email="a@example.org")),
        lambda _: Certification(id=7, name="VCA"),
    ],
    ids=["upload", "receipt", "certificate", "certification"],
)
def test_records_go_through_pickle(make: Callable[[CertificateUpload], object], upload: CertificateUpload) -> None:
    record = make(upload)

    assert record == pickle.loads(pickle.dumps(record))  # noqa: S301 # our own bytes
