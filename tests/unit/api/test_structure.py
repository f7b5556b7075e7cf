"""Plain values become records in two ways, which must agree: a short one, and a strict one that words what is wrong."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.api import decode
from springest_async.api.decode import DecodeError, page
from springest_async.api.structure import quick_structure, structure_strictly
from springest_async.records import Certificate, Certification, User

SAMPLES = Path(__file__).parents[2] / "samples"
CERTIFICATE = {
    "id": 5001,
    "name": "VCA",
    "description": "één jaar geldig ⛑️",
    "certification_id": 101,
    "valid_from": "2026-01-02",
    "valid_until": "2027-01-01",
    "status": "approved",
    "created_at": "2026-01-05T09:30:00.000Z",
    "user": {"email": "zoë@example.com", "external_id": "E-7"},
}
CERTIFICATION = {"id": 7, "name": "VCA", "description": None, "requires_valid_until": True}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": "5001", "certification_id": "101"},
        {"name": None, "description": None, "valid_until": None, "status": None, "created_at": None, "user": None},
        {"user": {"email": "jan@example.org"}},
        {"created_at": "2026-01-05 10:30:00 +0100"},
        {"name": "Ren\ud800"},
        {"certification_id": None, "name": None, "certification": {"id": 101, "name": "VCA"}},
        {"certification": "VCA", "color": ["red"]},
    ],
)
def test_all_shapes_that_are_open_take_the_short_way(changes: dict[str, Any]) -> None:
    item = CERTIFICATE | changes

    assert quick_structure(Certificate)(item) == structure_strictly(item, Certificate, "certificates[0]")


def test_a_record_of_the_short_way_is_a_whole_one() -> None:
    """It is made without its constructor."""
    made = quick_structure(Certificate)({"id": 1, "certification_id": 7, "valid_from": "2026-01-31"})

    assert made == Certificate(id=1, certification_id=7, valid_from=date(2026, 1, 31))
    assert hash(made) == hash(Certificate(id=1, certification_id=7, valid_from=date(2026, 1, 31)))
    assert attrs.asdict(quick_structure(Certificate)(CERTIFICATE)) == CERTIFICATE | {
        "valid_from": date(2026, 1, 2),
        "valid_until": date(2027, 1, 1),
        "created_at": datetime(2026, 1, 5, 9, 30, tzinfo=UTC),
    }
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.id = 2  # type: ignore[misc]


def test_user_and_certificate_have_no_constructor_to_skip() -> None:
    """A validator, a converter or a hook would be passed over by the short way."""
    for record in (Certificate, User):
        assert not hasattr(record, "__attrs_post_init__")
        assert not any(attribute.validator or attribute.converter for attribute in attrs.fields(record))


@pytest.mark.parametrize("wire_format", ["json", "xml"])
def test_samples_never_take_the_strict_way(wire_format: decode.WireFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "structure_strictly", pytest.fail)

    found: list[object] = []
    for body in sorted(SAMPLES.glob(f"certificates_*_{wire_format}/body.{wire_format}")):
        found += page(body.read_bytes(), wire_format, Certificate, "certificates").records
    for body in sorted(SAMPLES.glob(f"certifications_*_{wire_format}/body.{wire_format}")):
        found += page(body.read_bytes(), wire_format, Certification, "certifications").records

    assert len(found) > 5


DIGITS = st.text("0123456789-:.+TZW ", max_size=30)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.text()
    | DIGITS
    | st.dates().map(str)
    | st.datetimes().map(str)
    | st.datetimes(timezones=st.just(UTC)).map(lambda time: time.isoformat().replace("+00:00", "Z"))
    | st.sampled_from(["\ud800", "2026-W05-6", "2026-01-31", "12026-1-31", "2026-01-05T24:00:00Z", "1", "\u0663"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "email", "name"]), inner),
    max_leaves=5,
)


@st.composite
def items(draw: st.DrawFn, right: dict[str, Any]) -> Any:
    """Take what is right, replace some values, and leave some out."""
    names = st.sampled_from([*right, "certification"])
    changed = right | draw(st.dictionaries(names, VALUES, max_size=3))
    left_out = draw(st.sets(names, max_size=2))
    return draw(VALUES) if draw(st.integers(0, 20)) == 0 else {k: v for k, v in changed.items() if k not in left_out}


def outcomes(item: Any, record: type[Any]) -> tuple[Any, Any]:
    """Return what both ways make of an item: None, when they make no record of it."""
    try:
        quick = quick_structure(record)(item)
    except Exception:  # noqa: BLE001 # any of them means that the strict way decides
        quick = None
    try:
        strict = structure_strictly(item, record, "certificates[0]")
    except DecodeError:
        strict = None
    return quick, strict


@given(items(CERTIFICATE) | VALUES.map(lambda value: CERTIFICATE | {"user": value}))
def test_both_ways_make_the_same_certificate(item: Any) -> None:
    quick, strict = outcomes(item, Certificate)

    assert quick == strict


@given(items(CERTIFICATION))
def test_both_ways_make_the_same_certification(item: Any) -> None:
    quick, strict = outcomes(item, Certification)

    assert quick == strict
