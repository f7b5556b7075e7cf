"""Requests made of calls, and meanings read from answers, among them samples of a Rails application."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from springest_async.api import protocol
from springest_async.api.decode import Page, WireFormat
from springest_async.api.protocol import (
    Answer,
    Inconclusive,
    Refusal,
    Stored,
    list_error,
    post_meaning,
    read_page,
    words,
)
from springest_async.errors import (
    AnswerError,
    ConfigurationError,
    Fault,
    Forbidden,
    NotAuthorized,
    NotFound,
    Redirected,
    Rejected,
    ServerError,
    UnexpectedStatus,
    UnreadableAnswer,
)
from springest_async.records import Certificate, CertificateUpload, Certification, User
from tests.spoilt import spoilt

POST = "POST https://api.springest.nl/users/certificates.json"
GET = "GET https://api.springest.nl/users/certificates.json"


def meaning(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, fmt: WireFormat = "json") -> Any:
    return post_meaning(Answer(status, headers or {}, body), POST, fmt)


# --- requests ---


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("nl", "https://api.springest.nl"),
        ("uk", "https://api.springest.co.uk"),
        ("be", "https://api.nl.springest.be"),
        ("de", "https://api.springest.de"),
        ("com", "https://api.springest.com"),
        ("https://site.api.go.springest.nl", "https://site.api.go.springest.nl"),
        ("https://site.api.go.springest.nl/", "https://site.api.go.springest.nl"),
        ("HTTPS://Site.API.go.springest.nl:8443", "https://site.api.go.springest.nl:8443"),
        ("https://api.springest.nl:443", "https://api.springest.nl"),
        ("https://API.springest.nl.", "https://api.springest.nl"),
        ("https://API.springest.nl.:443/", "https://api.springest.nl"),
        ("https://api.springest.nl:80", "https://api.springest.nl:80"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://127.0.0.1:443", "http://127.0.0.1:443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.1.2.3:8080", "http://127.1.2.3:8080"),
        ("http://localhost", "http://localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_a_host_is_a_country_or_an_origin(host: str, origin: str) -> None:
    assert origin == protocol.origin_of(host)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", "host must be one of nl, uk, be, de, com or an origin such as"),
        ("fr", "host must be one of"),
        ("NL", "host must be one of"),
        ("api.springest.nl", "host must be one of"),
        ("ftp://api.springest.nl", "host must be one of"),
        ("https://", "host must be one of"),
        ("https://.", "host must be one of"),
        ("https://..", "host must be one of"),
        ("https://jan:secret@api.springest.nl", "host must be one of"),
        ("https://@api.springest.nl", "host must be one of"),
        ("https://api.springest.nl:99999", "host must be one of"),
        ("https://api.springest.nl:x", "host must be one of"),
        ("https://[::1", "host must be one of"),
        ("https://api springest.nl", "host must be one of"),
        ("https://api.springest.nl\\@other.example", "host must be one of"),
        ("https://api.spring\x1best.nl", "host must be one of"),
        ("https://api.springest.nl/users", "host must be an origin only"),
        ("https://api.springest.nl?api_key=x", "host must be an origin only"),
        ("https://api.springest.nl#x", "host must be an origin only"),
        ("http://api.springest.nl", "http sends the key in the clear: use https://api.springest.nl"),
        ("http://localhost.example.org", "http sends the key in the clear"),
        ("http://10.0.0.1", "http sends the key in the clear"),
        ("http://0.0.0.0", "http sends the key in the clear"),
    ],
)
def test_anything_but_a_host_is_refused_with_the_reason(host: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        protocol.origin_of(host)

    assert str(caught.value).startswith(message)


def test_a_password_in_a_host_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        protocol.origin_of("https://jan:secret@api.springest.nl")

    assert "secret" not in str(caught.value)


@given(st.text() | st.text().map("https://{}".format) | st.text().map("http://{}".format))
def test_any_text_is_an_origin_or_a_configuration_error(host: str) -> None:
    try:
        origin = protocol.origin_of(host)
    except ConfigurationError:
        return
    assert origin == protocol.origin_of(origin)


def test_the_extension_picks_the_format() -> None:
    assert protocol.path(protocol.CERTIFICATES, "json") == "/users/certificates.json"
    assert protocol.path(protocol.CERTIFICATIONS, "xml") == "/certifications.xml"


def test_the_fields_are_those_of_the_help_page_in_its_order(upload: CertificateUpload) -> None:
    assert protocol.certificate_fields(upload) == (
        ("certification_id", "7"),
        ("email", "jan@example.org"),
        ("valid_from", "2026-01-31"),
    )


def test_optional_fields_are_sent_when_they_are_given(make_upload: Any) -> None:
    upload = make_upload(valid_until=date(2027, 1, 31), conversion_id=12)

    assert protocol.certificate_fields(upload)[3:] == (("valid_until", "2027-01-31"), ("conversion_id", "12"))


def test_a_query_has_only_what_was_asked_for() -> None:
    assert protocol.certificates_query(None, None, None) == {}
    assert protocol.certificates_query("jan@example.org", 7, date(2026, 1, 5)) == {
        "email": "jan@example.org",
        "certification_id": "7",
        "created_from": "2026-01-05",
    }


# --- the meaning of a status ---

SIGN_IN = "a web page answered ({}), not Springest: perhaps this network wants you to sign in first"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (201, b'{"id": 5004}', Stored(5004)),
        (201, b"", Stored(None)),
        (201, b"<html>", Stored(None)),
        (200, b'{"id": 5004}', Stored(5004)),
        (200, b"OK", Inconclusive("the server answered 200, not 201", 200, "OK")),
        (200, b"\n<!DOCTYPE html><h1>Wi-Fi</h1>", Inconclusive(SIGN_IN.format(200), 200, "Wi-Fi")),
        (202, b"<HTML lang=nl>Wi-Fi</HTML>", Inconclusive(SIGN_IN.format(202), 202, "Wi-Fi")),
        (200, b"<htmlx>Wi-Fi</htmlx>", Inconclusive("the server answered 200, not 201", 200, "Wi-Fi")),
        (502, b"<html>Wi-Fi</html>", Inconclusive("the server answered 502, not 201", 502, "Wi-Fi")),
        (202, b'{"id": 5004}', Inconclusive("the server answered 202, not 201", 202, '{"id": 5004}')),
        (204, b"", Inconclusive("the server answered 204, not 201", 204, "")),
        (408, b"Slow", Inconclusive("the server answered 408, not 201", 408, "Slow")),
        (500, b"Oops", Inconclusive("the server answered 500, not 201", 500, "Oops")),
        (502, b"", Inconclusive("the server answered 502, not 201", 502, "")),
        (503, b"", Inconclusive("the server answered 503, not 201", 503, "")),
        (504, b"", Inconclusive("the server answered 504, not 201", 504, "")),
        (599, b"", Inconclusive("the server answered 599, not 201", 599, "")),
    ],
)
def test_only_what_says_stored_means_stored_to_a_post(status: int, body: bytes, expected: object) -> None:
    assert expected == meaning(status, body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, Redirected),
        (301, Redirected),
        (302, Redirected),
        (303, Redirected),
        (307, Redirected),
        (308, Redirected),
        (401, NotAuthorized),
        (402, UnexpectedStatus),
        (403, Forbidden),
        (404, NotFound),
        (405, UnexpectedStatus),
        (409, UnexpectedStatus),
        (413, Rejected),
        (415, Rejected),
        (417, UnexpectedStatus),
        (418, UnexpectedStatus),
        (422, Rejected),
        (499, UnexpectedStatus),
    ],
)
def test_other_statuses_mean_not_stored_to_a_post(status: int, kind: type[AnswerError]) -> None:
    found = meaning(status, b"said")

    assert type(found) is kind
    assert (found.where, found.status, found.words) == (POST, status, "said")


@pytest.mark.parametrize("status", [400, 429])
def test_a_400_without_a_reason_may_mean_either(status: int) -> None:
    found = meaning(status, b"Bad Request")

    assert isinstance(found, Refusal)
    assert str(found.error) == f"{POST} rejected the certificate ({status}): Bad Request"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (201, UnexpectedStatus),
        (204, UnexpectedStatus),
        (302, Redirected),
        (400, UnexpectedStatus),
        (401, NotAuthorized),
        (403, Forbidden),
        (404, NotFound),
        (429, UnexpectedStatus),
        (500, ServerError),
        (503, ServerError),
    ],
)
def test_what_is_not_200_is_an_error_to_a_list(status: int, kind: type[AnswerError]) -> None:
    found = list_error(Answer(status, {}, b"said"), GET)

    assert type(found) is kind
    assert (found.where, found.status, found.words) == (GET, status, "said")


def test_200_is_no_error_to_a_list() -> None:
    assert list_error(Answer(200), GET) is None


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other.example/login?api_key=secret#x", "https://other.example"),
        ("https://jan:secret@other.example/", "https://other.example"),
        ("http://127.0.0.1/x", "http://127.0.0.1"),
        ("https://other.example:8443/x", "https://other.example:8443"),
        ("https://[::1]:8443/x", "https://[::1]:8443"),
        ("/login?api_key=secret", "https://api.springest.nl"),
        ("login", "https://api.springest.nl"),
        ("?api_key=secret", "https://api.springest.nl"),
        ("", ""),
        ("javascript:alert(1)", ""),
        ("https://[::1", ""),
        ("//other.example/login", "https://other.example"),
        ("https://bücher.example/", "https://bücher.example"),
        ("https://\udcff.example/", ""),
        ("https://a\u202eb.example/", ""),
        ("https://[::1%25\x1b[31m]/", ""),
        ("https://a b/", ""),
        ("https://" + "a" * 254, ""),
        ("a" * 8000 + "://other.example", ""),
        ("javascript://other.example", ""),
        ("https://other.example:" + "9" * 5000, ""),
    ],
)
def test_a_redirect_shows_only_the_origin_of_its_target(location: str, target: str) -> None:
    found = meaning(302, headers={"Location": location})

    assert isinstance(found, Redirected)
    assert target == found.target


# --- faults per field ---

INVALID = (Fault("email", "is invalid"),)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"errors": {"email": ["is invalid"]}}', INVALID, id="Rails' hash of arrays"),
        pytest.param(b'{"errors": {"email": "is invalid"}}', INVALID, id="hash of texts"),
        pytest.param(b'{"error": {"email": "is invalid"}}', INVALID, id="singular"),
        pytest.param(b'{"email": ["is invalid"]}', INVALID, id="without an envelope"),
        pytest.param(b'{"certificate": {"errors": {"email": ["is invalid"]}}}', INVALID, id="nested"),
        pytest.param(b'{"errors": ["Email is invalid"]}', INVALID, id="full messages"),
        pytest.param(b'{"errors": "Email is invalid"}', INVALID, id="one full message"),
        pytest.param(b'{"error": "email is invalid"}', INVALID, id="lower case"),
        pytest.param(b'{"message": "Email is invalid"}', INVALID, id="under another key"),
        pytest.param(b'["Email is invalid"]', INVALID, id="bare array"),
        pytest.param(b'"Email is invalid"', INVALID, id="bare string"),
        pytest.param(b"Email is invalid", INVALID, id="plain text"),
        pytest.param(b"email: is invalid\n", INVALID, id="plain text with a colon"),
        pytest.param(b"'email' is invalid", INVALID, id="quoted"),
        pytest.param(b'{"errors": {"user.email": ["is invalid"]}}', INVALID, id="dotted"),
        pytest.param(b'{"errors": {"user_email": ["is invalid"]}}', INVALID, id="by its association"),
        pytest.param(b'{"errors": {"email": ["is invalid", "is invalid"]}}', INVALID, id="twice"),
        pytest.param(b"<errors><error>Email is invalid</error></errors>", INVALID, id="XML full message"),
        pytest.param(
            b'<errors><email type="array"><email>is invalid</email></email></errors>', INVALID, id="XML, by field"
        ),
        pytest.param(b"<hash><errors><email>is invalid</email></errors></hash>", INVALID, id="XML, enveloped"),
        pytest.param(
            b'{"errors": {"certification": ["must exist"], "valid_until": ["can\'t be blank"], "base": ["no"]}}',
            (Fault("certification_id", "must exist"), Fault("valid_until", "can't be blank")),
            id="several",
        ),
        pytest.param(
            b'{"errors": ["Valid until can\'t be blank", "Certification must exist", "File cannot be decoded"]}',
            (
                Fault("valid_until", "can't be blank"),
                Fault("certification_id", "must exist"),
                Fault("file", "cannot be decoded"),
            ),
            id="several full messages",
        ),
        pytest.param(
            b'{"errors": {"email": ["is invalid", "is too long"]}}',
            (Fault("email", "is invalid"), Fault("email", "is too long")),
            id="two of one field",
        ),
        pytest.param(
            b'{"errors": {"file": [{"error": "blank"}]}}', (Fault("file", "blank"),), id="Rails' error details"
        ),
    ],
)
def test_a_body_that_names_our_fields_is_a_rejection(body: bytes, expected: tuple[Fault, ...]) -> None:
    found = meaning(400, body)

    assert isinstance(found, Rejected)
    assert expected == found.faults


@pytest.mark.parametrize("body", [rb'{"errors": {"email": ["is\n%b!"]}}', rb'{"errors": ["Email is\n%b!"]}'])
def test_a_fault_is_one_line_of_plain_text(body: bytes) -> None:
    found = meaning(400, body % rb"\ud800\u001b\u202e\u0000")

    assert found.faults == (Fault("email", "is !"),)


def test_faults_are_short_and_few() -> None:
    found = meaning(400, json.dumps({"errors": {"email": [f"{n}" + "x" * 1000 for n in range(1000)]}}).encode())

    assert len(found.faults) == 20
    assert {len(fault.reason) for fault in found.faults} == {400}


ECHO = {"email": "jan@example.org", "certification_id": "7", "valid_from": "2026-01-31"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Bad Request", id="reason phrase"),
        pytest.param(b'{"status": 400, "error": "Bad Request"}', id="Rails"),
        pytest.param(b"<html><h1>400 Bad Request</h1><hr/><p>nginx</p></html>", id="a page of a proxy"),
        pytest.param(b'{"error": "Too many requests"}', id="too many"),
        pytest.param(b"Email support@springest.com to raise your limit", id="an invitation to write"),
        pytest.param(b'{"error": "Email support@springest.com to raise your limit"}', id="an invitation in JSON"),
        pytest.param(b"File a request with support for a higher limit", id="a verb that is a field"),
        pytest.param(b"Emails are sent too fast", id="a longer word"),
        pytest.param(json.dumps(ECHO).encode(), id="echo"),
        pytest.param(json.dumps({"error": "Bad Request", "parameters": ECHO}).encode(), id="echo under a key"),
        pytest.param(json.dumps({"error": "Bad Request", "params": [ECHO]}).encode(), id="echo in an array"),
        pytest.param(
            json.dumps(
                {"error": "Bad Request", "parameters": ECHO | {"file": {"filename": "jan.pdf", "type": "x/y"}}}
            ).encode(),
            id="echo of the file's part",
        ),
        pytest.param(
            json.dumps({"error": "Bad Request", "certificate": {"certification": {"id": 7, "name": "VCA"}}}).encode(),
            id="echo of the certification",
        ),
        pytest.param(
            b"<hash><error>Bad Request</error><parameters><email>jan@example.org</email></parameters></hash>",
            id="echo in XML",
        ),
        pytest.param(b'{"errors": {"base": ["Bad Request"]}}', id="no field of ours"),
        pytest.param(b'{"errors": {"email": []}}', id="a field without a fault"),
        pytest.param(b'{"errors": {"email": [""]}}', id="a blank fault"),
        pytest.param(b'{"errors": {"email": null}}', id="a null fault"),
        pytest.param(b"\xff\xfe\x00\x01", id="bytes"),
        pytest.param(b"[" * 50_000, id="hostile"),
    ],
)
def test_a_body_that_names_no_field_at_fault_stays_a_refusal(body: bytes) -> None:
    assert isinstance(meaning(400, body), Refusal)


@pytest.mark.parametrize("status", [413, 415, 422])
def test_other_rejections_have_their_faults_too(status: int) -> None:
    assert meaning(status, b'{"errors": {"file": ["is too big"]}}').faults == (Fault("file", "is too big"),)


def test_a_429_is_never_a_verdict_on_the_certificate() -> None:
    found = meaning(429, b'{"errors": {"email": ["is invalid"]}}')

    assert isinstance(found, Refusal)
    assert found.names_limit


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"Too Many Requests", {}, True),
        (b'{"error": "Rate limit exceeded"}', {}, True),
        (b"rate-limited", {}, True),
        (b"Request was throttled.", {}, True),
        (b"Retry later\n", {}, True),
        (b"Please slow down", {}, True),
        (b"At most 30 requests per minute", {}, True),
        (b"Bad Request", {"Retry-After": "30"}, True),
        (b"Bad Request", {"Retry-After": "soon"}, False),
        (b"Bad Request", {}, False),
        (b"", {}, False),
    ],
)
def test_a_refusal_names_the_limit_by_words_or_header(body: bytes, headers: dict[str, str], expected: bool) -> None:
    assert meaning(400, body, headers).names_limit is expected


def test_a_signature_does_not_depend_on_numbers() -> None:
    one, other = (
        meaning(400, f"Bad Request (id {request}, {seconds} s)".encode()).signature
        for request, seconds in (("6f1f5f0e-0000-4000-8000-000000000000", 12), ("0a1b2c3d-1111-4999-8aaa-1234567", 7))
    )

    assert one == other


def test_a_signature_does_not_depend_on_what_we_sent() -> None:
    signatures = set()
    for email, name in (("jan@example.org", "Jan de Vries.pdf"), ("zoe.de-wit@example.org", "zoe.pdf")):
        body = f"Cannot take {name} of {email.upper()} for 7 now".encode()
        found = post_meaning(Answer(400, {}, body), POST, "json", ("7", email, name))
        assert isinstance(found, Refusal)
        signatures.add(found.signature)

    assert len(signatures) == 1


def test_a_very_short_text_does_not_change_a_signature() -> None:
    plain = post_meaning(Answer(400, {}, b"Bad Request"), POST, "json")
    told = post_meaning(Answer(400, {}, b"Bad Request"), POST, "json", ("a", "e", "re", ""))

    assert isinstance(plain, Refusal)
    assert isinstance(told, Refusal)
    assert plain.signature == told.signature


def test_a_signature_depends_on_words_and_status() -> None:
    assert len({meaning(status, body).signature for status in (400, 429) for body in (b"one", b"two", b"")}) == 6


# --- words ---


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ""),
        (b"Bad\r\n\tRequest\x00\x1b[31m", "Bad Request [31m"),
        (b"<html><head><title>x</title></head><body><h1>Bad&nbsp;Request</h1></body>", "Bad Request"),
        (b"<script>alert('x')</script><p>Too <b>fast</b></p><style>p { color: red }</style>", "Too fast"),
        (b"\n <p>a &lt; b &amp; c</p>", "a < b & c"),
        (b'{"error": "a < b"}', '{"error": "a < b"}'),
        ("één\u202eôé\u200b".encode(), "één ôé"),
        (b"caf\xe9", "caf\ufffd"),
        (b"<p>&#233;&#xe9;&#xd800;&#1114112;", "éé\ufffd\ufffd"),
        (b"<p>a&#" + b"9" * 5000 + b";b&#x" + b"f" * 5000 + b";c", "a\ufffdb\ufffdc"),
        (b"x" * 401, "x" * 399 + "…"),
        (b"x" * 400, "x" * 400),
    ],
)
def test_words_are_one_line_of_plain_text(body: bytes, expected: str) -> None:
    assert expected == words(Answer(400, {}, body))


@given(st.binary(max_size=2000) | st.text(max_size=2000).map(str.encode))
@example(b"<" * 2000)
@example("\ufeff<p>x".encode())
def test_words_are_always_short_and_printable(body: bytes) -> None:
    found = words(Answer(400, {}, body))

    assert len(found) <= 400
    assert found.isprintable()
    assert found == found.strip()


LONGEST = 256 * 1024


def deep_faults(size: int) -> bytes:
    depth = size // 300
    reasons = b",".join(b'"%x"' % number for number in range(size // 8))
    return b'{"errors": {"email": ' + b"[" * depth + reasons + b"]" * depth + b"}}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda size: b"<" * size, id="brackets"),
        pytest.param(lambda size: b"<script>" * (size // 8), id="scripts"),
        pytest.param(lambda size: b"<a " * (size // 3), id="open tags"),
        pytest.param(lambda size: b"<p>" + b"&" * size, id="ampersands"),
        pytest.param(lambda size: b"-" * size, id="dashes"),
        pytest.param(lambda size: b"email " * (size // 6), id="fields"),
        pytest.param(lambda size: b"email" + b" " * size + b"x", id="spaces"),
        pytest.param(lambda size: b"1" * size, id="digits"),
        pytest.param(deep_faults, id="deep faults"),
    ],
)
def test_no_body_keeps_the_event_loop_busy(body: Callable[[int], bytes]) -> None:
    bodies = [body(LONGEST // 16), body(LONGEST // 4), body(LONGEST)]  # of the last, only a quarter makes the words
    spent: list[list[float]] = [[] for _ in bodies]
    for _ in range(3):
        for one, times in zip(bodies, spent, strict=True):
            before = time.thread_time()
            meaning(400, one)
            times.append(time.thread_time() - before)

    for shorter, longer in pairwise(map(min, spent)):
        assert longer < 8 * shorter  # four times where the time grows with the bytes, sixteen where with their square


# --- Retry-After ---

DATE = "Mon, 05 Jan 2026 09:30:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "3600"}, 3600.0),
        ({"Retry-After": "3601"}, 3600.0),
        ({"Retry-After": "999999"}, 3600.0),
        ({"Retry-After": "Tue, 06 Jan 2026 09:30:00 GMT", "Date": DATE}, 3600.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Mon, 05 Jan 2026 09:31:30 GMT", "Date": DATE}, 90.0),
        ({"Retry-After": "Mon, 05 Jan 2026 09:00:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Mon, 05 Jan 2026 09:31:30 GMT"}, None),
        ({"Retry-After": "Mon, 05 Jan 2026 09:31:30 GMT", "Date": "today"}, None),
        ({"Retry-After": "Mon, 05 Jan 2026 09:31:30 -0000", "Date": DATE}, None),
        ({"Retry-After": "Mon, 35 Jan 2026 09:31:30 GMT", "Date": DATE}, None),
        ({"Retry-After": "Mon, 05 Jan 99999999999999 09:30:00 GMT", "Date": DATE}, None),
        ({"Retry-After": "Mon, 05 Jan 2026 09:30:00 +99999999999999999", "Date": DATE}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_the_server(headers: dict[str, str], expected: float | None) -> None:
    assert Answer(503, headers).retry_after == expected


@given(st.text(), st.text())
def test_retry_after_is_at_most_an_hour_and_never_raises(value: str, now: str) -> None:
    wait = Answer(503, {"Retry-After": value, "Date": now}).retry_after

    assert wait is None or 0 <= wait <= 3600


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Mon, 05 Jan 2026 09:30:00 GMT", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("Mon, 05 Jan 2026 09:30:00 -0000", datetime(2026, 1, 5, 9, 30, tzinfo=UTC)),
        ("Mon, 05 Jan 2026 09:30:00 +0100", datetime(2026, 1, 5, 8, 30, tzinfo=UTC)),
        (
            "Fri, 31 Dec 9999 23:59:59 -2359",
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=23, minutes=59))),
        ),
        ("Mon, 35 Jan 2026 09:31:30 GMT", None),
        ("Mon, 05 Jan 99999999999999 09:30:00 GMT", None),
        ("Mon, 05 Jan 2026 09:30:00 +99999999999999999", None),
        ("today", None),
        ("", None),
    ],
)
def test_the_servers_clock_is_read_from_its_date(said: str, expected: datetime | None) -> None:
    assert Answer(200, {"Date": said}).server_time == expected


def test_a_server_without_a_date_has_no_clock() -> None:
    assert Answer(200).server_time is None


# --- whatever comes ---

JSON_BODIES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "email is \ud800"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["errors", "email", "file"]), inner),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode())
FRAGMENTS = st.lists(
    st.sampled_from(
        rb"""<p>|<script|</script|>|<|</|&#1|99999999|;|&amp;|<!DOCTYPE a>|<?x ?>|<!--|<errors>|</errors>|email is|: |{
|}|[|]|"|,|"errors":|{"email":|["\ud800|\u001b|9223372036854775808|1e400|-""".split(b"|")
    ),
    max_size=30,
).map(b"".join)
# A byte that is no UTF-8 comes out of a header as half of a surrogate pair.
HEADERS = st.text() | st.text("\udcff\x1b:/@[]%, 9GMT+-")


@given(
    st.integers(100, 999),
    st.binary() | st.text().map(str.encode) | JSON_BODIES | FRAGMENTS,
    st.dictionaries(st.sampled_from(["Location", "Retry-After", "Date"]), HEADERS | HEADERS.map("http://{}".format)),
    st.sampled_from(["json", "xml"]),
    st.booleans(),
)
@example(302, b"", {"Location": "http://[x"}, "json", True)
@example(302, b"", {"Location": "http://\udcff"}, "json", True)
@example(400, b"<p>&#" + b"9" * 5000, {}, "json", True)
@example(400, b'{"errors": {"email": ["\\ud800"]}}', {}, "json", True)
@example(302, b"", {"Location": "http://other.example:port/"}, "json", True)
def test_no_answer_makes_the_protocol_raise(
    status: int, body: bytes, headers: dict[str, str], fmt: WireFormat, complete: bool
) -> None:
    answer = Answer(status, headers, body, complete)

    found = post_meaning(answer, POST, fmt)

    assert isinstance(found, Stored | Refusal | Inconclusive | AnswerError)
    assert not isinstance(found, Stored) or status in (200, 201)
    assert (list_error(answer, GET) is None) is (status == 200)
    error = found.error if isinstance(found, Refusal) else found
    assert all(len(str(one).encode()) < 20_000 for one in (error, list_error(answer, GET)))


@given(st.binary() | JSON_BODIES | FRAGMENTS, st.sampled_from(["json", "xml"]), st.booleans())
def test_a_list_raises_only_that_it_is_unreadable(body: bytes, fmt: WireFormat, complete: bool) -> None:
    try:
        found = read_page(Answer(200, {}, body, complete), GET, fmt, Certification, "certifications")
    except UnreadableAnswer:
        return
    assert complete
    assert isinstance(found, Page)


def test_an_unreadable_list_says_what_was_expected_where() -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        read_page(Answer(200, {}, b'[{"id": 1.9, "name": "VCA"}]'), GET, "json", Certification, "certifications")

    assert caught.value.expected == "integer, not 1.9 @ certifications[0].id"
    assert caught.value.words == '[{"id": 1.9, "name": "VCA"}]'


def test_a_list_that_is_too_long_is_not_read_in_part() -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        read_page(Answer(200, {}, b"[]", complete=False), GET, "json", Certification, "certifications")

    assert caught.value.expected == "the whole answer, which is too long"


# --- samples: answers captured from a Rails application ---

SAMPLES = Path(__file__).parents[2] / "samples"
CREATED = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
VCA = Certification(id=101, name="VCA Basis", description="Veiligheid, gezondheid & milieu")
BHV = Certification(
    id=102,
    name="BHV & EHBO",
    description="Bedrijfshulpverlening, één jaar geldig ⛑️",
    requires_valid_until=True,
)
HYGIENE = Certification(id=103, name="Hygiëne in de café-keuken 🎓")


def listed(number: int, of: Certification, start: date, end: date | None, user: User) -> Certificate:
    return Certificate(
        id=number,
        name=of.name,
        description=of.description,
        certification_id=of.id,
        valid_from=start,
        valid_until=end,
        status="approved",
        created_at=CREATED,
        user=user,
    )


ANNA = listed(5001, VCA, date(2025, 9, 1), None, User(email="anna@example.com", external_id="1008"))
ZOE = listed(5002, BHV, date(2026, 1, 2), date(2027, 1, 1), User(email="zoë@example.com", external_id="E-1007"))
PAT = listed(5003, HYGIENE, date(2025, 12, 24), None, User(email="pat.o'brien+vca@example.com"))
FAULTS = (
    Fault("email", "is invalid"),
    Fault("valid_from", "is not a valid date"),
    Fault("valid_until", "can't be blank"),
)

LISTS: dict[str, Page[Any]] = {
    "certificates_bare": Page((ANNA, ZOE, PAT)),
    "certificates_bare_empty": Page(()),
    "certificates_empty": Page((), 0),
    "certificates_last_page": Page((PAT,), 3),
    "certificates_nested": Page((ANNA, ZOE, PAT), 3),
    "certificates_page": Page((ANNA, ZOE), 3),
    "certificates_string_ids": Page((ANNA, ZOE, PAT), 3),
    "certificates_without_meta": Page((ANNA, ZOE, PAT)),
    "certifications_bare": Page((VCA, BHV, HYGIENE)),
    "certifications_page": Page((VCA, BHV, HYGIENE), 3),
}
POSTS: dict[str, object] = {
    "created_json": Stored(5004),
    "created_xml": Stored(5005),
    "created_string_id_json": Stored(5004),
    "created_string_id_xml": Stored(5005),
    "created_without_id_json": Stored(None),
    "created_without_id_xml": Stored(None),
    "rejected_fields_json": FAULTS,
    "rejected_fields_xml": FAULTS,
    "rejected_file_json": (Fault("file", "cannot be decoded"),),
    "rejected_file_xml": (Fault("file", "cannot be decoded"),),
    "rejected_full_messages_json": FAULTS,
    "rejected_full_messages_xml": FAULTS,
    "too_fast_json": Refusal,
    "too_fast_xml": Refusal,
    "too_fast_nginx_html": Refusal,
    "forbidden_json": Forbidden,
    "forbidden_xml": Forbidden,
    "not_authorized_json": NotAuthorized,
    "not_authorized_xml": NotAuthorized,
    "not_found_html": NotFound,
    "server_error_html": Inconclusive,
}
NAMES = sorted(folder.name for folder in SAMPLES.iterdir() if folder.is_dir())


def sample(name: str) -> tuple[Answer, WireFormat]:
    folder = SAMPLES / name
    headers = dict(line.split(": ", 1) for line in (folder / "headers").read_text().splitlines())
    (body,) = folder.glob("body.*")
    status = int((folder / "status").read_text())
    return Answer(status, headers, body.read_bytes()), "xml" if body.suffix == ".xml" else "json"


@given(data=st.data(), status=st.sampled_from([200, 201, 204, 302, 400, 401, 413, 422, 429, 500]))
def test_a_spoilt_sample_never_raises_anything_else(data: st.DataObject, status: int) -> None:
    bodies = {name: sample(name) for name in NAMES}
    answer, wire_format = bodies[data.draw(st.sampled_from(NAMES))]
    alike = [other.body for other, other_format in bodies.values() if other_format == wire_format]
    body = data.draw(spoilt(alike, [b"<", b">", b"&", b'"', b"{", b"[", b"null", b'"errors":', b"email is invalid"]))
    answer = Answer(status, answer.headers, body)

    found = post_meaning(answer, POST, wire_format, ["anna@example.com", "101"])

    assert isinstance(found, Stored | Refusal | Inconclusive | AnswerError)
    assert not isinstance(found, Stored) or status in (200, 201)
    assert words(answer).isprintable()
    assert len(words(answer)) <= 400
    with suppress(UnreadableAnswer):
        read_page(answer, GET, wire_format, Certificate, "certificates")


def test_every_sample_has_an_expectation() -> None:
    assert set(NAMES) == set(POSTS) | {f"{name}_{fmt}" for name in LISTS for fmt in ("json", "xml")}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("certifi")])
def test_a_sampled_list_is_read(name: str) -> None:
    answer, fmt = sample(name)
    record: type[Any] = Certificate if name.startswith("certificates") else Certification
    envelope = name.split("_", 1)[0]

    assert list_error(answer, GET) is None
    assert LISTS[name.removesuffix(f"_{fmt}")] == read_page(answer, GET, fmt, record, envelope)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("certifi")])
def test_a_sampled_answer_to_a_post_is_understood(name: str) -> None:
    answer, fmt = sample(name)
    expected = POSTS[name]

    found = post_meaning(answer, POST, fmt)

    if isinstance(expected, type):
        assert isinstance(found, expected)
    elif isinstance(expected, tuple):
        assert isinstance(found, Rejected)
        assert expected == found.faults
    else:
        assert expected == found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("not_found_html", "The page you were looking for doesn't exist."),
        ("server_error_html", "We're sorry, but something went wrong."),
        ("too_fast_nginx_html", "400 Bad Request nginx/1.22.1"),
    ],
)
def test_a_sampled_page_says_its_words(name: str, expected: str) -> None:
    found = words(sample(name)[0])

    assert found.startswith(expected)
    assert "<" not in found
