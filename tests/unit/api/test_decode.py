"""Bytes become records or one `DecodeError`: strict about types, tolerant of shapes, safe with hostile input."""

import json
import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from attrs import asdict
from hypothesis import example, given
from hypothesis import strategies as st

from springest_async.api.decode import DecodeError, Page, WireFormat, page, parse, receipt_id
from springest_async.records import Certificate, Certification, User
from tests.spoilt import spoilt

MINIMAL = {"id": 1, "certification_id": 7, "valid_from": "2026-01-31"}
JAN = Certificate(id=1, certification_id=7, valid_from=date(2026, 1, 31))

FULL = {
    "id": 5001,
    "name": "VCA",
    "description": "Safety",
    "certification_id": 101,
    "valid_from": "2026-01-02",
    "valid_until": "2027-01-01",
    "status": "approved",
    "created_at": "2026-01-05T09:30:00.000Z",
    "user": {"email": "zoë@example.com", "external_id": "E-7"},
}
ZOE = Certificate(
    id=5001,
    name="VCA",
    description="Safety",
    certification_id=101,
    valid_from=date(2026, 1, 2),
    valid_until=date(2027, 1, 1),
    status="approved",
    created_at=datetime(2026, 1, 5, 9, 30, tzinfo=UTC),
    user=User(email="zoë@example.com", external_id="E-7"),
)

FULL_XML = """
  <certificate>
    <id type="integer">5001</id>
    <name>VCA</name>
    <description>Safety</description>
    <certification-id type="integer">101</certification-id>
    <valid-from type="date">2026-01-02</valid-from>
    <valid-until type="date">2027-01-01</valid-until>
    <status>approved</status>
    <created-at type="dateTime">2026-01-05T09:30:00Z</created-at>
    <user><email>zoë@example.com</email><external-id>E-7</external-id></user>
  </certificate>"""


def certificates(data: object, wire_format: WireFormat = "json") -> Page[Certificate]:
    """Read a page of certificates from bytes, or from a value that is first written as JSON."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return page(raw, wire_format, Certificate, "certificates")


def complaint(data: object, wire_format: WireFormat = "json") -> str:
    with pytest.raises(DecodeError) as caught:
        certificates(data, wire_format)
    return str(caught.value)


# --- the shapes that Springest leaves open ---


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([], Page(()), id="bare and empty"),
        pytest.param([FULL], Page((ZOE,)), id="bare"),
        pytest.param({"certificates": [FULL]}, Page((ZOE,)), id="envelope without meta"),
        pytest.param(
            {"meta": {"results": 41, "offset": 40}, "certificates": [FULL]}, Page((ZOE,), 41), id="envelope with meta"
        ),
        pytest.param({"meta": {"results": "41"}, "certificates": []}, Page((), 41), id="total as a string"),
        pytest.param({"meta": {"results": None}, "certificates": []}, Page(()), id="total is null"),
        pytest.param({"meta": {"results": [1]}, "certificates": []}, Page(()), id="total is no number"),
        pytest.param({"meta": [], "certificates": []}, Page(()), id="meta is no object"),
        pytest.param({"more": {"x": 1}, "certificates": [MINIMAL]}, Page((JAN,)), id="unknown keys around"),
        pytest.param([MINIMAL | {"color": "red", "tags": [1]}], Page((JAN,)), id="unknown keys within"),
        pytest.param([MINIMAL | {"id": "1", "certification_id": "7"}], Page((JAN,)), id="ids as strings"),
        pytest.param([MINIMAL | {"valid_until": None, "user": None, "name": None}], Page((JAN,)), id="nulls"),
        pytest.param([MINIMAL, MINIMAL], Page((JAN, JAN)), id="two"),
        pytest.param({"meta": {"results": -1}, "certificates": []}, Page(()), id="total is negative"),
        pytest.param("[]".encode("utf-8-sig"), Page(()), id="byte order mark"),
        pytest.param("[]".encode("utf-16"), Page(()), id="UTF-16"),
    ],
)
def test_each_shape_of_json_gives_the_same_records(data: object, expected: Page[Certificate]) -> None:
    assert expected == certificates(data)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        pytest.param('<certificates type="array"/>', Page(()), id="bare and empty"),
        pytest.param(f'<certificates type="array">{FULL_XML}</certificates>', Page((ZOE,)), id="bare"),
        pytest.param(
            '<response><meta><results type="integer"> 41 </results></meta>'
            f'<certificates type="array">{FULL_XML}</certificates></response>',
            Page((ZOE,), 41),
            id="envelope with meta",
        ),
        pytest.param(
            f'<response><certificates type="array">{FULL_XML}</certificates></response>', Page((ZOE,)), id="no meta"
        ),
        pytest.param(
            f'<certificates type="array">{FULL_XML.replace(" type=", " kind=")}</certificates>',
            Page((ZOE,)),
            id="ids without a type",
        ),
        pytest.param(
            '<certificates type="array"><certificate><id type="integer">1</id><certification-id>7</certification-id>'
            '<valid-from>2026-01-31</valid-from><valid-until nil="true"/><user nil="true"></user></certificate>'
            "</certificates>",
            Page((JAN,)),
            id="nil",
        ),
        pytest.param(
            f'<?xml version="1.0" encoding="UTF-8"?><!-- hello --><certificates type="array">{FULL_XML}</certificates>',
            Page((ZOE,)),
            id="declaration and comment",
        ),
        pytest.param('\ufeff<?evil x?><certificates type="array"/><?evil x?>', Page(()), id="mark and instructions"),
    ],
)
def test_each_shape_of_xml_gives_the_same_records(xml: str, expected: Page[Certificate]) -> None:
    assert expected == certificates(xml.encode(), "xml")


@pytest.mark.parametrize(
    "changes",
    [
        {"certification_id": 101, "certification": {"id": 101, "name": "VCA", "description": "Safety"}},
        {"certification": {"id": "101", "name": "VCA", "description": "Safety"}},
        {"certification_id": None, "certification": {"id": 101, "name": "VCA", "description": "Safety"}},
        {"name": "VCA", "certification": {"id": 101, "name": "other", "description": "Safety"}},
    ],
)
def test_the_certification_may_be_nested(changes: dict[str, Any]) -> None:
    bare = {name: value for name, value in FULL.items() if name not in ("name", "description", "certification_id")}

    assert certificates([bare | changes]).records == (ZOE,)


def test_a_certification_that_is_a_name_only_is_an_unknown_key() -> None:
    assert certificates([MINIMAL | {"certification": "VCA"}]).records == (JAN,)


@pytest.mark.parametrize(("told", "expected"), [({}, False), ({"requires_valid_until": True}, True)])
def test_certifications_need_no_end_by_default(told: dict[str, bool], expected: bool) -> None:
    data = json.dumps([{"id": 7, "name": "VCA"} | told]).encode()

    assert page(data, "json", Certification, "certifications").records == (
        Certification(id=7, name="VCA", requires_valid_until=expected),
    )


def test_booleans_of_xml_are_booleans() -> None:
    data = (
        b'<certifications type="array"><certification><id>7</id><name>VCA</name>'
        b'<requires-valid-until type="boolean">true</requires-valid-until></certification></certifications>'
    )

    assert page(data, "xml", Certification, "certifications").records[0].requires_valid_until


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-05T09:30:00Z", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("2026-01-05T09:30:00.250Z", datetime(2026, 1, 5, 9, 30, 0, 250_000, tzinfo=UTC)),
        ("2026-01-05T10:30:00+01:00", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("2026-01-05 09:30:00 UTC", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("2026-01-05 10:30:00 +0100", datetime(2026, 1, 5, 10, 30, tzinfo=timezone(timedelta(hours=1)))),
        ("2026-01-05 05:30:00 -0400", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("2026-01-05T09:30:00", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("2026-01-05 09:30:00", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
    ],
)
def test_the_times_of_rails_are_read_with_their_zone(written: str, expected: datetime) -> None:
    (certificate,) = certificates([MINIMAL | {"created_at": written}]).records

    assert certificate.created_at == expected
    assert certificate.created_at.tzinfo is not None


# --- strictness ---


def test_half_a_character_becomes_a_replacement_character() -> None:
    """JSON can contain half of a surrogate pair, which cannot be printed or stored."""
    body = b'[{"id": 1, "certification_id": 7, "valid_from": "2026-01-31", "name": "Ren\\ud800"}]'

    (certificate,) = page(body, "json", Certificate, "certificates").records

    assert certificate.name == "Ren\ufffd"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": 1.9}, "integer, not 1.9 @ certificates[0].id"),
        ({"id": True}, "integer, not True @ certificates[0].id"),
        ({"id": None}, "integer, not None @ certificates[0].id"),
        ({"id": "1.9"}, "integer, not '1.9' @ certificates[0].id"),
        ({"id": " 1"}, "integer, not ' 1' @ certificates[0].id"),
        ({"id": "1_000"}, "integer, not '1_000' @ certificates[0].id"),
        ({"id": "٣"}, "integer, not '٣' @ certificates[0].id"),
        ({"id": "1\n"}, "integer, not '1\\n' @ certificates[0].id"),
        ({"id": 0}, "id, not 0 @ certificates[0].id"),
        ({"id": "-1"}, "id, not '-1' @ certificates[0].id"),
        ({"id": 2**63}, "id, not 9223372036854775808 @ certificates[0].id"),
        ({"id": str(2**63)}, "id, not '9223372036854775808' @ certificates[0].id"),
        ({"id": 10**99}, "id, not 1" + "0" * 76 + "... @ certificates[0].id"),
        ({"certification_id": -7}, "id, not -7 @ certificates[0].certification_id"),
        ({"certification_id": []}, "integer, not [] @ certificates[0].certification_id"),
        ({"name": 5}, "string, not 5 @ certificates[0].name"),
        ({"status": True}, "string, not True @ certificates[0].status"),
        ({"valid_from": None}, "date as in 2026-12-31, not None @ certificates[0].valid_from"),
        ({"valid_from": "2026-02-30"}, "date as in 2026-12-31, not '2026-02-30' @ certificates[0].valid_from"),
        ({"valid_from": "20260131"}, "date as in 2026-12-31, not '20260131' @ certificates[0].valid_from"),
        ({"valid_from": "2026-W05-6"}, "date as in 2026-12-31, not '2026-W05-6' @ certificates[0].valid_from"),
        ({"valid_from": 20260131}, "date as in 2026-12-31, not 20260131 @ certificates[0].valid_from"),
        ({"valid_until": ""}, "date as in 2026-12-31, not '' @ certificates[0].valid_until"),
        ({"created_at": "soon"}, "time as in 2026-12-31T12:00:00Z, not 'soon' @ certificates[0].created_at"),
        (
            {"created_at": "2026-01-05T25:00:00Z"},
            "time as in 2026-12-31T12:00:00Z, not '2026-01-05T25:00:00Z' @ certificates[0].created_at",
        ),
        (
            {"created_at": "2026-01-05"},
            "time as in 2026-12-31T12:00:00Z, not '2026-01-05' @ certificates[0].created_at",
        ),
        ({"created_at": 1767605400}, "time as in 2026-12-31T12:00:00Z, not 1767605400 @ certificates[0].created_at"),
        ({"user": {"email": 5}}, "string, not 5 @ certificates[0].user.email"),
        ({"user": {}}, "field 'email', which is missing @ certificates[0].user.email"),
        ({"user": {"email": "a@b.c", "external_id": 7}}, "string, not 7 @ certificates[0].user.external_id"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(changes: dict[str, Any], expected: str) -> None:
    assert expected == complaint([MINIMAL | changes])


@pytest.mark.parametrize("value", ["false", "true", 0, 1, None])
def test_a_boolean_is_a_boolean(value: object) -> None:
    data = json.dumps([{"id": 7, "name": "VCA", "requires_valid_until": value}]).encode()

    with pytest.raises(DecodeError) as caught:
        page(data, "json", Certification, "certifications")

    assert str(caught.value) == f"boolean, not {value!r} @ certifications[0].requires_valid_until"


def test_a_message_has_the_position_in_the_list() -> None:
    assert complaint([MINIMAL, MINIMAL, MINIMAL, MINIMAL | {"id": 1.9}]) == "integer, not 1.9 @ certificates[3].id"


def test_three_wrong_values_of_the_first_such_record_are_named() -> None:
    wrong = {"id": 0.5, "name": 5, "status": True, "valid_from": None}

    assert complaint([MINIMAL, MINIMAL | wrong, MINIMAL | wrong]) == (
        "integer, not 0.5 @ certificates[1].id; date as in 2026-12-31, not None @ certificates[1].valid_from; "
        "string, not 5 @ certificates[1].name"
    )


def test_a_missing_field_is_named() -> None:
    assert complaint([{"id": 1, "valid_from": "2026-01-31"}]) == (
        "field 'certification_id', which is missing @ certificates[0].certification_id"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"errors": []}, "an array 'certificates' in the envelope, which has ['errors']"),
        ({}, "an array 'certificates' in the envelope, which has []"),
        ({"certificates": {"id": 1}}, "an array of certificates, not {'id': 1}"),
        ({"certificates": None}, "an array of certificates, not None"),
        ("certificates", "an array of certificates, not 'certificates'"),
        (None, "an array of certificates, not None"),
        (5, "an array of certificates, not 5"),
    ],
)
def test_anything_but_a_list_is_named(data: object, expected: str) -> None:
    assert expected == complaint(data)


@pytest.mark.parametrize("item", [None, 5, "x", [], [["id", 1]], True])
def test_anything_but_an_object_in_the_list_is_named(item: object) -> None:
    assert "certificates[1]" in complaint([MINIMAL, item])


def test_long_values_are_shortened_in_the_message() -> None:
    text = complaint([MINIMAL | {"id": "x" * 10_000}])

    assert text.startswith("integer, not 'xxx")
    assert len(text) < 130


# --- ids of a 201 ---


@pytest.mark.parametrize(
    ("data", "wire_format", "expected"),
    [
        (b'{"id": 5004, "name": "VCA"}', "json", 5004),
        (b'{"id": "5004"}', "json", 5004),
        (b'{"certificate": {"id": 5004}}', "json", 5004),
        (b'{"response": {"certificate": {"id": 5004}}}', "json", 5004),
        (b"<certificate><id type='integer'>5004</id></certificate>", "xml", 5004),
        (b"<hash><certificate><id>5004</id></certificate></hash>", "xml", 5004),
        (b"", "json", None),
        (b"", "xml", None),
        (b"created", "json", None),
        (b"5004", "json", None),
        (b"[5004]", "json", None),
        (b"{}", "json", None),
        (b'{"id": null}', "json", None),
        (b'{"id": 1.5}', "json", None),
        (b'{"id": [[[]]]}', "json", None),
        (b'{"id": 50', "json", None),
        (b'{"id": 9223372036854775807}', "json", 2**63 - 1),
        (b'{"id": "9223372036854775807"}', "json", 2**63 - 1),
        (b'{"id": 9223372036854775808}', "json", None),
        (b'{"id": "9999999999999999999"}', "json", None),
        (b'{"id": 0}', "json", None),
        (b'{"id": -1}', "json", None),
        (b'{"id": 1e3}', "json", None),
        (b'{"id": 1e999}', "json", None),
        (b"<a><id>1</id><id>2</id></a>", "xml", None),
        (b"<a><id type='integer'>-1</id></a>", "xml", None),
        (b"<a><id>\xd9\xa3</id></a>", "xml", None),
        (b'{"id":' + b"[" * 300 + b"]" * 300 + b"}", "json", None),
        (b'{"a": {"id": 1}, "b": {"id": 2}}', "json", None),
        (b"<html><body>Created</body></html>", "xml", None),
        (b"\xff\xfe\x00", "json", None),
    ],
)
def test_an_id_is_read_where_there_is_one_and_nothing_raised(
    data: bytes, wire_format: WireFormat, expected: int | None
) -> None:
    assert expected == receipt_id(data, wire_format)


# --- hostile input ---

BILLION_LAUGHS = (
    b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><l>&b;</l>"""
)
EXTERNAL_ENTITY = b"""<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]><x>&secret;</x>"""


@pytest.mark.parametrize(
    ("data", "wire_format"),
    [
        pytest.param(b"", "json", id="nothing"),
        pytest.param(b"[" * 100_000, "json", id="deep arrays"),
        pytest.param(b'{"a":' * 100_000, "json", id="deep objects"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "json", id="deep and closed"),
        pytest.param(b"[NaN]", "json", id="NaN"),
        pytest.param(b"[-Infinity]", "json", id="Infinity"),
        pytest.param(b"9" * 5000, "json", id="a number of 5000 digits"),
        pytest.param(b'"\xff"', "json", id="no UTF-8"),
        pytest.param(b"\xff\xfe[\x00", "json", id="half UTF-16"),
        pytest.param(b"[] []", "json", id="two values"),
        pytest.param(b"<html></html>", "json", id="HTML for JSON"),
        pytest.param(b"", "xml", id="nothing, XML"),
        pytest.param(b"[]", "xml", id="JSON for XML"),
        pytest.param(BILLION_LAUGHS, "xml", id="billion laughs"),
        pytest.param(EXTERNAL_ENTITY, "xml", id="external entity"),
        pytest.param(b"<!DOCTYPE html><html></html>", "xml", id="doctype"),
        pytest.param(b"<a>" * 100_000 + b"</a>" * 100_000, "xml", id="deep elements"),
        pytest.param(b"<a>&nbsp;</a>", "xml", id="unknown entity"),
        pytest.param(b"<a><b></a>", "xml", id="not well-formed"),
        pytest.param(b'<?xml version="1.0" encoding="klingon"?><a/>', "xml", id="unknown encoding"),
        pytest.param(b'<?xml version="1.0" encoding="utf-7"?><a/>', "xml", id="multi-byte encoding"),
        pytest.param(b'<?xml version="1.0" encoding="hex"?><a/>', "xml", id="codec that is no text"),
        pytest.param('<?xml version="1.0" encoding="UTF-8"?><a>é</a>'.encode("latin-1"), "xml", id="wrong encoding"),
        pytest.param(b'<a type="integer">1.5</a>', "xml", id="integer that is none"),
        pytest.param(b'<certificates type="array"><a/></certificates>', "xml", id="array of texts"),
        pytest.param(json.dumps([FULL]).encode()[:-9], "json", id="truncated"),
        pytest.param(b'[{"id": "\\ud8', "json", id="truncated in an escape"),
        pytest.param(b"[\xef\xbb\xbf]", "json", id="byte order mark within"),
        pytest.param(f"<certificates>{FULL_XML}".encode(), "xml", id="truncated, XML"),
        pytest.param(b"<?xml version='1.0' encoding='UTF-16'?><a/>", "xml", id="UTF-16 that is UTF-8"),
        pytest.param(b"<?xml version='1.0' encoding='unicode_escape'?><a/>", "xml", id="codec that warns"),
        pytest.param(b"<?evil?>", "xml", id="instruction only"),
    ],
)
def test_hostile_input_is_a_decode_error(data: bytes, wire_format: WireFormat) -> None:
    assert complaint(data, wire_format)


@pytest.mark.parametrize(("before", "after"), [(b"[", b"]"), (b'{"id":', b"}"), (b'{"certificates":[', b"]}")])
def test_any_depth_is_a_decode_error(before: bytes, after: bytes) -> None:
    # Near the interpreter's recursion limit, the parser may succeed and the code after it may not.
    for depth in (10, 100, *range(400, 1100, 25)):
        data = before * depth + b"1" + after * depth

        assert complaint(data)
        assert receipt_id(data, "json") is None


@pytest.mark.parametrize(
    ("data", "wire_format", "expected"),
    [
        (b"[" * 33 + b"]" * 33, "json", "JSON (nested more than 32 deep)"),
        (b'{"a":' * 32 + b"{}" + b"}" * 32, "json", "JSON (nested more than 32 deep)"),
        (b"<a>" * 34 + b"</a>" * 34, "xml", "XML (nested more than 32 deep)"),
        (b'<a xmlns:b="http://springest.nl/x"/>', "xml", "XML (a namespace)"),
        (BILLION_LAUGHS, "xml", "XML (DTDForbidden(name='l', system_id=None, public_id=None))"),
        (EXTERNAL_ENTITY, "xml", "XML (DTDForbidden(name='x', system_id=None, public_id=None))"),
    ],
)
def test_what_no_springest_sends_is_refused(data: bytes, wire_format: WireFormat, expected: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse(data, wire_format)

    assert expected == str(caught.value)


def test_the_deepest_allowed_nesting_is_read() -> None:
    assert parse(b"[" * 32 + b"]" * 32, "json")
    assert parse(b"<a>" * 32 + b"</a>" * 32, "xml")


@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE a SYSTEM '" + b"x" * 10_000 + b"'><a/>", b"<a>&" + b"x" * 10_000 + b";</a>"],
    ids=["doctype", "entity"],
)
def test_a_hostile_text_is_shortened_in_the_message(data: bytes) -> None:
    assert len(complaint(data, "xml")) < 100


@pytest.mark.parametrize(
    ("data", "wire_format"),
    [
        pytest.param(b"[" + b"0," * 10_000 + b"0]", "json", id="wrong records"),
        pytest.param(
            b'<a xmlns="' + b"u" * 50_000 + b'">' + b"".join(b"<a%d/>" % number for number in range(1000)) + b"</a>",
            "xml",
            id="a namespace in many names",
        ),
    ],
)
def test_a_small_page_takes_little_memory(data: bytes, wire_format: WireFormat) -> None:
    tracemalloc.start()
    try:
        complaint(data, wire_format)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 5_000_000


def check(data: bytes, wire_format: WireFormat) -> None:
    """Read the bytes in both ways: the result is one that can be printed and stored, or the documented error."""
    number = receipt_id(data, wire_format)
    assert number is None or (type(number) is int and 0 < number < 2**63)
    complaint, found = "", Page[Certificate](())
    try:
        found = certificates(data, wire_format)
    except DecodeError as error:
        complaint = str(error)
    assert len(complaint.encode()) < 1000
    assert json.dumps([asdict(item) for item in found.records], ensure_ascii=False, default=str).encode()
    assert all(0 < item.id < 2**63 and type(item.id) is int and type(item.valid_from) is date for item in found.records)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.sampled_from(["meta", "certificates", "user", "certification", *FULL]), inner)
    ),
    max_leaves=15,
)


@given(st.binary(), st.sampled_from(["json", "xml"]))
@example(b"\x00", "json")
@example(b"\xef\xbb\xbf[]", "json")
def test_arbitrary_bytes_raise_nothing_else(data: bytes, wire_format: WireFormat) -> None:
    check(data, wire_format)


HOSTILE_VALUES = st.sampled_from([0, -1, 2**63, 10**200, 1e400, "\ud800", "\x00", "9" * 5000, [[]], {"": {}}, True])
ODD_VALUES = HOSTILE_VALUES | JSON_VALUES


@given(JSON_VALUES | st.lists(st.builds(lambda key, value: FULL | {key: value}, st.sampled_from([*FULL]), ODD_VALUES)))
def test_arbitrary_json_raises_nothing_else(value: object) -> None:
    check(json.dumps(value).encode(), "json")


FRAGMENTS = [
    *b"""<|>|</|/>|<a>|</a>|<id>|</id>|<a type="array">|<id type="integer">|<a nil="true">|<?xml version="1.0"?>|<?x ?>|
<!DOCTYPE a>|<![CDATA[|]]>|<!--|-->|&a;|&#0;|&#65;|&| xmlns="u"|1|-1|9223372036854775808""".split(b"|"),
    *rb"""{|}|[|]|,|:|"|{"id":|"id":|\ud800|"certificates":|1e400|NaN|null""".split(b"|"),
    *[b"\xef\xbb\xbf", b"\xff", b"\x00", b"\xed\xa0\x80"],
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=20).map(b"".join), st.sampled_from(["json", "xml"]))
def test_fragments_of_json_and_xml_raise_nothing_else(data: bytes, wire_format: WireFormat) -> None:
    check(data, wire_format)


SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.parametrize("wire_format", ["json", "xml"])
@given(data=st.data())
def test_a_spoilt_sample_raises_nothing_else(wire_format: WireFormat, data: st.DataObject) -> None:
    bodies = [path.read_bytes() for path in sorted(SAMPLES.glob(f"*/body.{wire_format}"))]

    check(data.draw(spoilt(bodies, FRAGMENTS)), wire_format)


def as_xml(name: str, value: object) -> str:
    if isinstance(value, dict):
        return f"<{name}>" + "".join(as_xml(child, inner) for child, inner in value.items()) + f"</{name}>"
    if isinstance(value, list):
        return f'<{name} type="array">' + "".join(as_xml("item", inner) for inner in value) + f"</{name}>"
    if value is None:
        return f'<{name} nil="true"/>'
    return f"<{name}>{escape(str(value))}</{name}>"


TEXTS = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cn", "Cc")), min_size=1)
PLAIN_VALUES = st.recursive(
    st.none() | TEXTS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["id", "name", "valid_from", "errors"]), inner, min_size=1)
    ),
    max_leaves=20,
)


@given(PLAIN_VALUES)
def test_xml_and_json_of_the_same_value_are_read_alike(value: object) -> None:
    xml = parse(as_xml("root", value).encode(), "xml")

    assert xml == parse(json.dumps(value).encode(), "json")


@given(st.integers(1, 2**63 - 1), st.booleans())
def test_every_id_comes_back_as_it_was(number: int, as_text: bool) -> None:
    written = str(number) if as_text else number

    assert certificates([MINIMAL | {"id": written}]).records[0].id == number


@given(st.dates(), st.datetimes(timezones=st.just(UTC)))
def test_every_date_and_time_comes_back_as_it_was(day: date, time: datetime) -> None:
    written = MINIMAL | {"valid_from": day.isoformat(), "created_at": time.isoformat()}

    (found,) = certificates([written]).records

    assert (found.valid_from, found.created_at) == (day, time)
