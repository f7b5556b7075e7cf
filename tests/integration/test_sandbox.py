"""The sandbox over real sockets, spoken to by plain aiohttp and by hand: every status, both formats, the limit."""

import ast
import asyncio
import base64
import gc
import hashlib
import io
import json
import logging
import os
import random
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web, web_protocol
from defusedxml import ElementTree

import springest_async.sandbox
from springest_async.sandbox import Mishap, Post, Sandbox, Summary
from tests.waiting import A_WHILE, heard, leaping_clock, until

PDF = b"%PDF-1.7\r\n" + bytes(range(256)) * 40 + b"\r\n--not-a-boundary\r\n%%EOF\r\n"
FIELDS = {"certification_id": "1", "email": "jan@example.com", "valid_from": "2024-05-01"}
EXTENSIONS = ["", ".json", ".xml"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def form(content: bytes = PDF, filename: str = "diploma.pdf", **changes: str) -> aiohttp.FormData:
    data = aiohttp.FormData(quote_fields=False)
    for name, value in {**FIELDS, **changes}.items():
        data.add_field(name, value)
    data.add_field("file", io.BytesIO(content), filename=filename, content_type="application/pdf")
    return data


def address(sandbox: Sandbox, path: str, key: str | None = None) -> str:
    key = sandbox.api_key if key is None else key
    return f"{sandbox.origin}{path}?api_key={key}"


async def post(
    session: aiohttp.ClientSession, sandbox: Sandbox, data: Any = None, *, extension: str = "", **options: Any
) -> tuple[int, str]:
    """POST a certificate, and return the answer's status and text."""
    key = options.pop("key", None)
    url = address(sandbox, f"/users/certificates{extension}", key)
    async with session.post(url, data=form() if data is None else data, **options) as answer:
        return answer.status, await answer.text()


async def get(
    session: aiohttp.ClientSession, sandbox: Sandbox, path: str, key: str | None = None, **query: str
) -> tuple[int, str]:
    """GET a list, and return the answer's status and text."""
    async with session.get(address(sandbox, path, key), params=query) as answer:
        return answer.status, await answer.text()


@asynccontextmanager
async def raw_connection(sandbox: Sandbox) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection, for what a well-behaved client cannot do."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.origin.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def head(sandbox: Sandbox, length: int, *extra: str, key: str | None = None) -> bytes:
    key = sandbox.api_key if key is None else key
    lines = [
        f"POST /users/certificates.json?api_key={key} HTTP/1.1",
        "Host: sandbox",
        f"Content-Length: {length}",
        "Content-Type: multipart/form-data; boundary=frontier",
        *extra,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def body() -> bytes:
    parts = [
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in FIELDS.items()
    ]
    file = (
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="diploma.pdf"\r\n'
        b"Content-Type: application/pdf\r\n\r\n" + PDF + b"\r\n"
    )
    return b"".join(parts) + file + b"--frontier--\r\n"


async def until_audited(sandbox: Sandbox, posts: int) -> None:
    await until(lambda: len(sandbox.audit) >= posts)
    assert len(sandbox.audit) == posts


# Storing


@pytest.mark.parametrize("extension", ["", ".json"])
async def test_a_certificate_is_stored(sandbox: Sandbox, session: aiohttp.ClientSession, extension: str) -> None:
    before = datetime.now(UTC)

    status, text = await post(session, sandbox, form(valid_until="2026-05-01"), extension=extension)

    assert status == 201
    answer = json.loads(text)
    created_at = datetime.fromisoformat(answer.pop("created_at"))
    assert before - timedelta(milliseconds=1) <= created_at <= datetime.now(UTC)
    expected = {
        "id": 1,
        "name": "First aid",
        "description": "Basic first aid at work",
        "certification_id": 1,
        "valid_from": "2024-05-01",
        "valid_until": "2026-05-01",
        "status": "verified",
        "user": {"email": "jan@example.com", "external_id": None},
    }
    assert expected == answer


async def test_a_certificate_is_stored_in_xml(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    status, text = await post(session, sandbox, extension=".xml")

    assert status == 201
    element = ElementTree.fromstring(text)
    assert element.tag == "certificate"
    number = element.find("id")
    assert number is not None
    assert (number.text, number.attrib) == ("1", {"type": "integer"})
    until = element.find("valid-until")
    assert until is not None
    assert until.attrib == {"nil": "true"}


async def test_the_audit_knows_every_byte_of_the_file(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    content = PDF * 500

    await post(session, sandbox, form(content, filename="diploma van Jan é.pdf"))

    (record,) = sandbox.audit
    assert hashlib.sha256(content).hexdigest() == record.sha256
    assert len(content) == record.size
    assert record.filename == "diploma van Jan é.pdf"
    assert record.content_type == "application/pdf"
    assert record.fields == FIELDS
    assert (record.verdict, record.status, record.certificate_id, record.words) == ("stored", 201, 1, "")


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("18c-A_b@c", "18c-A_b@c"),
        ("a b/c;é€", "abc"),
        ("x" * 300, "x" * 255),
    ],
)
async def test_a_request_id_is_taken_as_rails_takes_it(
    sandbox: Sandbox, session: aiohttp.ClientSession, sent: str, taken: str
) -> None:
    url = address(sandbox, "/users/certificates")
    async with session.post(url, data=form(), headers={"X-Request-Id": sent}) as answer:
        assert (answer.status, answer.headers["X-Request-Id"]) == (201, taken)

    assert [record.request_id for record in sandbox.audit] == [taken]


@pytest.mark.parametrize("path", ["/users/certificates", "/certifications", "/nowhere"])
async def test_an_answer_has_a_new_id_where_none_was_sent(
    sandbox: Sandbox, session: aiohttp.ClientSession, path: str
) -> None:
    ids = []
    for _ in range(2):
        async with session.get(address(sandbox, path)) as answer:
            ids.append(answer.headers["X-Request-Id"])

    assert len({UUID(each) for each in ids}) == 2


async def test_a_post_of_raw_bytes_is_understood(sandbox: Sandbox) -> None:
    async with raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(body())) + body())
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"

    assert hashlib.sha256(PDF).hexdigest() == sandbox.audit[0].sha256


async def test_ids_count_what_is_stored(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    for certification_id in ("1", "99", "3"):
        await post(session, sandbox, form(certification_id=certification_id))

    assert [record.certificate_id for record in sandbox.audit] == [1, None, 2]


# Refusing


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize(("key", "expected"), [("wrong", 401), ("", 401), ("sandbox-certifications-key", 403)])
async def test_a_post_with_another_key_is_refused(
    sandbox: Sandbox, session: aiohttp.ClientSession, extension: str, key: str, expected: int
) -> None:
    status, text = await post(session, sandbox, extension=extension, key=key)

    reason = {401: "Unauthorized", 403: "Forbidden"}[expected]
    assert expected == status
    assert f"<error>{reason}</error>" in text or f'"error":"{reason}"' in text
    assert Summary(
        posts=1,
        stored=0,
        refused_for_speed=0,
        invalid=0,
        refused_for_key=1,
        broken_off=0,
        failed=0,
        most_in_any_period=0,
        period=60.0,
    ) == (sandbox.summary())


async def test_faults_are_told_by_field(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    data = form(b"", certification_id="2", email="jan")

    status, text = await post(session, sandbox, data, extension=".json")

    assert status == 400
    expected = {"email": ["is invalid"], "valid_until": ["can't be blank"], "file": ["is empty"]}
    assert {"errors": expected} == json.loads(text)
    assert sandbox.audit[0].verdict == "invalid"
    assert sandbox.audit[0].words == "email is invalid; valid_until can't be blank; file is empty"


async def test_faults_are_told_by_field_in_xml(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    status, text = await post(session, sandbox, form(valid_from="soon"), extension=".xml")

    assert status == 400
    expected = """\
<?xml version="1.0" encoding="UTF-8"?>
<hash>
  <errors>
    <valid-from type="array">
      <valid-from>is not a valid date</valid-from>
    </valid-from>
  </errors>
</hash>
"""
    assert expected == text


async def test_base64_text_is_refused(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    status, text = await post(session, sandbox, form(base64.encodebytes(PDF)))

    assert (status, json.loads(text)) == (400, {"errors": {"file": ["cannot be decoded"]}})


async def test_a_transfer_encoding_of_base64_is_refused(sandbox: Sandbox) -> None:
    marked = body().replace(
        b"Content-Type: application/pdf", b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64"
    )

    async with raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(marked), "Connection: close") + marked)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'{"errors":{"file":["cannot be decoded"]}}')


async def test_a_file_that_is_sent_as_a_field_is_refused(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    data = aiohttp.FormData(FIELDS, default_to_multipart=True)
    data.add_field("file", "%PDF-1.7 and more")

    _, text = await post(session, sandbox, data)

    assert json.loads(text) == {"errors": {"file": ["is not a file"]}}


@pytest.mark.parametrize(
    ("data", "content_type", "words"),
    [
        (b"{}", "application/json", "the body is not multipart/form-data but application/json"),
        (b"what?", "multipart/form-data; boundary=frontier", "the multipart is broken"),
        (b"what?", "multipart/form-data", "the multipart is broken"),
        (body()[:-20], "multipart/form-data; boundary=frontier", "the multipart is broken"),
        (
            body().replace(b"jan@", b"j" * 70_000 + b"@"),
            "multipart/form-data; boundary=frontier",
            "the multipart is broken: the field email is longer than 65536 bytes",
        ),
        (
            body().replace(b"jan@", b"j" * 700_000 + b"@"),
            "multipart/form-data; boundary=frontier",
            "the multipart is broken",
        ),
        (
            body().replace(b"Content-Type: application/pdf", b"no header"),
            "multipart/form-data; boundary=frontier",
            "the multipart is broken",
        ),
    ],
)
async def test_a_broken_body_is_invalid(
    sandbox: Sandbox, session: aiohttp.ClientSession, data: bytes, content_type: str, words: str
) -> None:
    status, text = await post(session, sandbox, data, headers={"Content-Type": content_type})

    assert (status, json.loads(text)) == (400, {"status": 400, "error": "Bad Request"})
    assert sandbox.audit[0].verdict == "invalid"
    assert sandbox.audit[0].words.startswith(words)


async def test_a_client_that_goes_away_leaves_a_trace(sandbox: Sandbox) -> None:
    async with raw_connection(sandbox) as (_, writer):
        writer.write(head(sandbox, len(body())) + body()[:-40])
        await writer.drain()
        await heard()  # the fields have to be there before the connection goes
    await until_audited(sandbox, 1)

    (record,) = sandbox.audit
    assert (record.verdict, record.status, record.certificate_id) == ("broken off", None, None)
    assert record.fields == FIELDS
    assert sandbox.summary().most_in_any_period == 1


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", "text/html"),
        ("GET", "/users", "text/html"),
        ("POST", "/certificates", "text/html"),
        ("POST", "/certificates.json", "application/json"),
        ("GET", "/users/certificates.csv", "text/html"),
        ("DELETE", "/users/certificates.xml", "application/xml"),
        ("POST", "/certifications.json", "application/json"),
        ("POST", "/__audit", "text/html"),
    ],
)
async def test_anything_else_is_not_found(
    sandbox: Sandbox, session: aiohttp.ClientSession, method: str, path: str, expected: str
) -> None:
    async with session.request(method, address(sandbox, path)) as answer:
        assert (404, expected) == (answer.status, answer.content_type)
        assert "Not Found" in await answer.text()


async def test_a_failure_of_the_sandbox_shows_no_trace_to_the_client(
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("springest_async.sandbox.server.list_certificates", fail)
    asyncio.get_running_loop().set_debug(True)

    async with session.get(address(sandbox, "/users/certificates")) as answer:
        text = await answer.text()

    assert (answer.status, answer.content_type) == (500, "text/html")
    assert "deep inside" not in text
    assert "deep inside" in caplog.text
    assert sandbox.api_key not in caplog.text


# The limit


@pytest.mark.parametrize("extension", EXTENSIONS)
async def test_too_fast_is_a_400_that_names_no_field(session: aiohttp.ClientSession, extension: str) -> None:
    async with Sandbox(limit=2) as sandbox:
        answers = [await post(session, sandbox, extension=extension) for _ in range(3)]

    assert [status for status, _ in answers] == [201, 201, 400]
    text = answers[2][1]
    if extension == ".xml":
        assert [element.tag for element in ElementTree.fromstring(text)] == ["status", "error"]
    else:
        assert json.loads(text) == {"status": 400, "error": "Bad Request"}
    assert sandbox.audit[2].verdict == "too fast"
    assert sandbox.audit[2].words == "more than 2 in 60 seconds"
    assert sandbox.audit[2].fields == {}


async def test_invalid_posts_count_and_refused_keys_do_not(session: aiohttp.ClientSession) -> None:
    async with Sandbox(limit=2) as sandbox:
        await post(session, sandbox, key="wrong")
        await post(session, sandbox, form(email="jan"))
        await post(session, sandbox)
        await post(session, sandbox)

    assert [record.verdict for record in sandbox.audit] == ["unauthorized", "invalid", "stored", "too fast"]
    expected = Summary(
        posts=4,
        stored=1,
        refused_for_speed=1,
        invalid=1,
        refused_for_key=1,
        broken_off=0,
        failed=0,
        most_in_any_period=3,
        period=60.0,
    )
    assert expected == sandbox.summary()


async def test_the_limit_is_over_after_a_period(session: aiohttp.ClientSession) -> None:
    async with Sandbox(limit=2, period=1.5) as sandbox:
        before = [(await post(session, sandbox))[0] for _ in range(3)]
        await asyncio.sleep(1.55)
        after = [(await post(session, sandbox))[0] for _ in range(2)]

    assert (before, after) == ([201, 201, 400], [201, 201])


async def test_a_fixed_sandbox_counts_the_minutes_of_the_wall_clock(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_058.0)  # two seconds before a minute is over
    async with Sandbox(window="fixed", limit=1) as sandbox:
        before = [(await post(session, sandbox))[0] for _ in range(2)]
        await asyncio.sleep(2.05)
        after = [(await post(session, sandbox))[0] for _ in range(2)]

    assert (before, after) == ([201, 400], [201, 400])


async def test_a_wall_clock_that_is_set_anew_begins_no_minute(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_010.0)
    async with Sandbox(window="fixed", limit=1) as sandbox:
        statuses = [(await post(session, sandbox))[0]]
        for wall_clock in (1_800_000_090.0, 1_799_999_990.0):
            monkeypatch.setattr(time, "time", lambda wall_clock=wall_clock: wall_clock)
            statuses.append((await post(session, sandbox))[0])

    assert statuses == [201, 400, 400]
    assert [record.seconds for record in sandbox.audit] == sorted(record.seconds for record in sandbox.audit)
    assert sandbox.audit[-1].seconds < 30


async def test_a_sandbox_whose_expiry_is_pushed_back_wants_silence(session: aiohttp.ClientSession) -> None:
    async with Sandbox(window="elastic", limit=2, period=2.0) as sandbox:
        statuses = []
        for pause in (0.0, 0.0, 1.1, 1.1, 2.05):  # the last but one comes more than a period after the first two
            await asyncio.sleep(pause)
            statuses.append((await post(session, sandbox))[0])

    assert statuses == [201, 201, 400, 400, 201]


async def test_a_paced_sandbox_wants_its_distance(session: aiohttp.ClientSession) -> None:
    async with Sandbox(window="paced", limit=2, period=3) as sandbox:
        statuses = [(await post(session, sandbox))[0] for _ in range(2)]
        await asyncio.sleep(1.55)
        statuses.append((await post(session, sandbox))[0])

    assert statuses == [201, 400, 201]


async def test_the_limit_counts_arrivals_and_not_ends_of_bodies(session: aiohttp.ClientSession) -> None:
    async with Sandbox(limit=1) as sandbox, raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(body())))
        await writer.drain()
        await heard()

        status, _ = await post(session, sandbox)
        writer.write(body())
        line = await reader.readline()

    assert (status, line) == (400, b"HTTP/1.1 201 Created\r\n")
    assert [record.verdict for record in sandbox.audit] == ["stored", "too fast"]
    assert all(earlier.seconds <= later.seconds for earlier, later in pairwise(sandbox.audit))


async def test_a_refusal_without_expect_comes_after_the_body(session: aiohttp.ClientSession) -> None:
    sent = 0

    async def big() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 65_536
            yield bytes(65_536)

    async with Sandbox() as sandbox:
        status, _ = await post(session, sandbox, big(), key="wrong")

    assert (status, sent) == (401, 64 * 65_536)


@pytest.mark.parametrize(
    ("limit", "key", "expected"),
    [(1, None, 400), (2, "wrong", 401), (2, "sandbox-certifications-key", 403)],
)
async def test_a_client_that_asks_first_is_refused_without_its_body(
    session: aiohttp.ClientSession, limit: int, key: str | None, expected: int
) -> None:
    reads: list[bytes] = []

    async def watched() -> AsyncIterator[bytes]:
        for chunk in (body()[:100], body()[100:]):
            reads.append(chunk)
            yield chunk

    async with Sandbox(limit=limit) as sandbox:
        await post(session, sandbox)
        status, _ = await post(session, sandbox, watched(), key=key, expect100=True)

    assert (expected, []) == (status, reads)
    assert sandbox.audit[1].size is None


async def test_an_early_refusal_does_not_ask_for_the_body(sandbox: Sandbox) -> None:
    async with raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, 10_000_000, "Expect: 100-continue", key="wrong"))
        answer = await reader.readuntil(b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nConnection: close\r\n" in answer


async def test_a_client_that_asks_first_is_asked_for_its_body(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    async with raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(body()), "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body())
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"

    assert (await post(session, sandbox, expect100=True))[0] == 201


async def test_what_else_a_client_may_expect_is_not_met(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    status, _ = await post(session, sandbox, headers={"Expect": "a miracle"})

    assert status == 417


# Mishaps


async def answers_by_hand(sandbox: Sandbox, *extra: str, content: bytes = b"") -> bytes:
    """POST over a bare connection that is kept alive; return what comes until the server closes it."""
    content = content or body()
    async with raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(content), *extra))
        if extra:
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(content)
        async with asyncio.timeout(A_WHILE):
            return await reader.read()


@pytest.mark.parametrize("extra", [(), ("Expect: 100-continue",)])
@pytest.mark.parametrize(
    ("mishap", "verdict", "certificate_id"),
    [(Mishap.DROP_BEFORE_STORING, "failed", None), (Mishap.DROP_AFTER_STORING, "stored", 1)],
)
async def test_an_answer_may_be_dropped(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    mishap: Mishap,
    verdict: str,
    certificate_id: int | None,
    extra: tuple[str, ...],
) -> None:
    caplog.set_level(logging.INFO)
    sandbox.mishap = iter([mishap]).__next__

    assert await answers_by_hand(sandbox, *extra) == b""

    (record,) = sandbox.audit
    assert (record.verdict, record.status, record.certificate_id) == (verdict, None, certificate_id)
    assert record.words == mishap.value
    assert hashlib.sha256(PDF).hexdigest() == record.sha256
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("extension", "content_type"), [("", "text/html"), (".json", "application/json"), (".xml", "application/xml")]
)
@pytest.mark.parametrize(
    ("mishap", "verdict", "certificate_id"),
    [(Mishap.ERROR_BEFORE_STORING, "failed", None), (Mishap.ERROR_AFTER_STORING, "stored", 1)],
)
async def test_an_answer_may_be_a_500(
    sandbox: Sandbox,
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    mishap: Mishap,
    verdict: str,
    certificate_id: int | None,
    extension: str,
    content_type: str,
) -> None:
    caplog.set_level(logging.INFO)
    sandbox.mishap = iter([mishap]).__next__

    async with session.post(address(sandbox, f"/users/certificates{extension}"), data=form()) as answer:
        assert (answer.status, answer.content_type) == (500, content_type)
        assert "Internal Server Error" in await answer.text()

    (record,) = sandbox.audit
    assert (record.verdict, record.status, record.certificate_id) == (verdict, 500, certificate_id)
    assert caplog.text == ""


async def test_a_connection_may_be_dropped_when_it_has_served_before(sandbox: Sandbox) -> None:
    sandbox.mishap = iter([None, Mishap.DROP_AFTER_STORING]).__next__

    async with raw_connection(sandbox) as (reader, writer):
        for _ in range(3):  # the third is never heard: it was sent on a connection that is closed
            writer.write(head(sandbox, len(body())) + body())
        async with asyncio.timeout(A_WHILE):
            try:
                answers = await reader.read()
            except ConnectionResetError:
                answers = b""

    assert answers.count(b"HTTP/1.1") <= 1
    assert [record.status for record in sandbox.audit] == [201, None]


async def test_an_aiohttp_client_sees_the_drop_at_once(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    sandbox.mishap = iter([None, Mishap.DROP_AFTER_STORING, Mishap.DROP_BEFORE_STORING]).__next__

    assert (await post(session, sandbox))[0] == 201
    for expect100 in (True, False):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await asyncio.wait_for(post(session, sandbox, expect100=expect100), A_WHILE)
    assert (await post(session, sandbox))[0] == 201

    assert [record.status for record in sandbox.audit] == [201, None, None, 201]
    assert [record.certificate_id for record in sandbox.audit] == [1, 2, None, 3]


async def test_only_what_would_be_stored_meets_a_mishap(session: aiohttp.ClientSession) -> None:
    asked = 0

    def drop() -> Mishap:
        nonlocal asked
        asked += 1
        return Mishap.ERROR_AFTER_STORING

    async with Sandbox(limit=2, mishap=drop) as sandbox:
        refused = [
            (await post(session, sandbox, key="wrong"))[0],
            (await post(session, sandbox, form(email="jan")))[0],
        ]
        failed = (await post(session, sandbox))[0]
        refused.append((await post(session, sandbox))[0])

    assert (refused, failed, asked) == ([401, 400, 400], 500, 1)


async def test_a_certificate_with_a_dropped_answer_is_listed(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    sandbox.mishap = iter([Mishap.DROP_AFTER_STORING, Mishap.DROP_BEFORE_STORING]).__next__
    before_and_after = []
    for _ in range(2):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(session, sandbox, form(certification_id="3"))

    for _ in range(2):
        _, text = await get(session, sandbox, "/users/certificates")
        before_and_after.append([shown["id"] for shown in json.loads(text)["certificates"]])
        sandbox.verify(3)

    assert before_and_after == [[], [1]]


async def test_the_sum_stays_true_whatever_happens(session: aiohttp.ClientSession) -> None:
    chance = random.Random(7)
    async with Sandbox(limit=1000) as sandbox:
        sandbox.mishap = lambda: chance.choice([None, *Mishap])
        answers = await asyncio.gather(*(post(session, sandbox) for _ in range(100)), return_exceptions=True)
        _, text = await get(session, sandbox, "/users/certificates")

    summary = sandbox.summary()
    assert summary.posts == 100 == summary.stored + summary.failed
    assert json.loads(text)["meta"]["results"] == summary.stored
    statuses = [record.status for record in sandbox.audit]
    assert sum(isinstance(answer, Exception) for answer in answers) == statuses.count(None)
    assert {record.words for record in sandbox.audit} == {"", *(mishap.value for mishap in Mishap)}


async def test_a_mishap_that_is_none_is_a_failure_in_the_audit(
    sandbox: Sandbox, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.mishap = lambda: "earthquake"  # type: ignore[assignment]  # a test's slip

    status, _ = await post(session, sandbox)

    (record,) = sandbox.audit
    assert (status, record.verdict, record.status) == (500, "failed", 500)
    assert record.words == "the sandbox failed: ValueError"
    assert "earthquake" in caplog.text


# Clients that are killed


def stub(sandbox: Sandbox, data: bytes) -> socket.socket:
    """Send `data` from a bare socket, which the kernel takes whole."""
    opened = socket.create_connection(("127.0.0.1", int(sandbox.origin.rpartition(":")[2])))
    opened.sendall(data)
    return opened


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def held() -> tuple[int, int, int]:
    """Count the file descriptors, the tasks, and what aiohttp keeps of connections."""
    gc.collect()
    kept = sum(isinstance(one, web_protocol.RequestHandler | web.BaseRequest) for one in gc.get_objects())
    return len(os.listdir("/dev/fd")), len(asyncio.all_tasks()), kept  # noqa: PTH208 - no paths, only how many


@pytest.mark.parametrize("noticed", [True, False])
async def test_hundreds_of_killed_clients_leave_one_record_each(
    caplog: pytest.LogCaptureFixture, noticed: bool
) -> None:
    caplog.set_level(logging.INFO)
    content = body()
    offsets = [0, 1, 60, len(content) // 2, len(content) - 2, len(content) - 1]
    async with Sandbox(limit=1_000_000) as sandbox:
        start = head(sandbox, len(content))
        await heard()
        before = held()
        for _ in range(60):
            connections = [stub(sandbox, start + content[:offset]) for offset in offsets]
            connections.append(stub(sandbox, start[:-1]))  # not even a POST
            if noticed:
                await heard(within=0.005)
            for connection in connections:
                reset(connection)
            await heard(within=0.0)
        if noticed:
            await until_audited(sandbox, 60 * len(offsets))
        await until(lambda: held() == before)

    assert len(sandbox.audit) <= 60 * len(offsets)
    assert {(record.verdict, record.status, record.certificate_id) for record in sandbox.audit} <= {
        ("broken off", None, None)
    }
    assert caplog.text == ""


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_client_that_is_killed_when_all_is_sent_has_one_record(sandbox: Sandbox, key: str | None) -> None:
    connection = stub(sandbox, head(sandbox, len(body()), key=key) + body())
    reset(connection)
    await until_audited(sandbox, 1)
    await heard()

    (record,) = sandbox.audit
    assert (record.certificate_id is not None) == (record.verdict == "stored")
    assert sandbox.summary().stored + sandbox.summary().refused_for_key + sandbox.summary().broken_off == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
async def test_a_process_that_is_killed_breaks_off_all_its_posts(sandbox: Sandbox) -> None:
    script = (
        "import socket, sys, time\n"
        "data = sys.stdin.buffer.read()\n"
        "opened = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(20)]\n"
        "for one in opened: one.sendall(data)\n"
        "print('sent', flush=True)\n"
        "time.sleep(60)\n"
    )
    port = sandbox.origin.rpartition(":")[2]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, port, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(head(sandbox, len(body())) + body()[:5000])
    process.stdin.close()
    assert await process.stdout.readline() == b"sent\n"
    await heard()
    process.kill()
    await process.wait()
    await until_audited(sandbox, 20)

    assert {record.verdict for record in sandbox.audit} == {"broken off"}


async def test_a_body_that_cannot_be_inflated_is_invalid(sandbox: Sandbox) -> None:
    async with raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(body()), "Content-Encoding: deflate") + body())
        async with asyncio.timeout(A_WHILE):
            assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"

    assert sandbox.audit[0].verdict == "invalid"


async def test_a_body_is_whole_only_at_its_very_end(sandbox: Sandbox) -> None:
    async with raw_connection(sandbox) as (_, writer):
        epilogue = b"\r\nwhat a form may have behind it\r\n" * 9
        fields, mark, file = body().partition(b'--frontier\r\nContent-Disposition: form-data; name="file"')
        # With the file first: what is read last are fields, which are read by lines.
        content = mark + file.removesuffix(b"--frontier--\r\n") + fields + b"--frontier--\r\n" + epilogue
        writer.write(head(sandbox, len(content)) + content[:-1])
        await writer.drain()
        await heard()
    await until_audited(sandbox, 1)

    assert sandbox.audit[0].verdict == "broken off"


@pytest.mark.parametrize("sent", [0, 1, 200, 5000, -1])
@pytest.mark.parametrize("extra", [(), ("Expect: 100-continue",)])
async def test_a_body_that_stands_still_is_broken_off(
    caplog: pytest.LogCaptureFixture, extra: tuple[str, ...], sent: int
) -> None:
    caplog.set_level(logging.INFO)
    async with Sandbox(body_timeout=0.3) as sandbox, raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, len(body()), *extra) + body()[:sent])
        async with asyncio.timeout(A_WHILE):
            answer = await reader.read()

    assert answer == (b"HTTP/1.1 100 Continue\r\n\r\n" if extra else b"")
    (record,) = sandbox.audit
    assert (record.verdict, record.status, record.certificate_id) == ("broken off", None, None)
    assert record.words == "no byte of the body arrived for 0.3 seconds"
    assert (sandbox.summary().broken_off, caplog.text) == (1, "")


async def test_a_body_may_take_long_while_it_moves() -> None:
    """Not the whole body has the time, but each silence in it."""
    sandbox = Sandbox(body_timeout=60.0)
    step = len(body()) // 8
    with leaping_clock(quiet=0.1) as leaps:
        if not leaps:
            pytest.skip("the clock of this event loop cannot leap")
        async with sandbox, raw_connection(sandbox) as (reader, writer):
            writer.write(head(sandbox, len(body())))
            for start in range(0, len(body()), step):
                await asyncio.sleep(50.0)
                writer.write(body()[start : start + step])
            assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"

    assert [record.verdict for record in sandbox.audit] == ["stored"]


@pytest.mark.parametrize(
    ("key", "content", "line", "verdict"),
    [
        ("wrong", b"", b"HTTP/1.1 401 Unauthorized\r\n", "unauthorized"),
        ("wrong", None, b"HTTP/1.1 401 Unauthorized\r\n", "unauthorized"),
        (None, None, b"HTTP/1.1 400 Bad Request\r\n", "invalid"),
        (None, b"--frontier\r\nno header\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", "invalid"),
    ],
)
async def test_a_refusal_does_not_wait_for_a_body_for_ever(
    key: str | None, content: bytes | None, line: bytes, verdict: str
) -> None:
    async with Sandbox(body_timeout=0.3) as sandbox, raw_connection(sandbox) as (reader, writer):
        writer.write(head(sandbox, 0 if content is None else 10_000, key=key) + (content or b""))
        async with asyncio.timeout(A_WHILE):
            assert await reader.readline() == line
            if content is not None:  # else the connection can be used again
                await reader.read()

    assert [record.verdict for record in sandbox.audit] == [verdict]


# The lists


@pytest.fixture
async def stored(sandbox: Sandbox, session: aiohttp.ClientSession) -> Sandbox:
    """Return a sandbox with four certificates, of which the third is of a certification not yet verified."""
    for certification_id, email in (("1", "jan"), ("1", "piet"), ("3", "jan"), ("2", "jan")):
        data = form(certification_id=certification_id, email=f"{email}@example.com", valid_until="2026-05-01")
        assert (await post(session, sandbox, data))[0] == 201
    return sandbox


@pytest.mark.parametrize(
    ("expected", "query"),
    [
        ([1, 2, 4], {}),
        ([1, 4], {"email": "jan@example.com"}),
        ([1], {"email": "jan@example.com", "certification_id": "1"}),
        ([], {"certification_id": "3"}),
        ([1, 2, 4], {"created_from": "2024-05-01"}),
        ([], {"created_from": "9999-12-31"}),
        ([2], {"size": "1", "offset": "1"}),
    ],
)
@pytest.mark.parametrize("extension", ["", ".json"])
async def test_certificates_are_listed(
    stored: Sandbox,
    session: aiohttp.ClientSession,
    extension: str,
    expected: list[int],
    query: dict[str, str],
) -> None:
    status, text = await get(session, stored, f"/users/certificates{extension}", **query)

    assert status == 200
    assert expected == [shown["id"] for shown in json.loads(text)["certificates"]]


async def test_certificates_are_listed_in_xml(stored: Sandbox, session: aiohttp.ClientSession) -> None:
    status, text = await get(session, stored, "/users/certificates.xml", size="2")

    assert status == 200
    response = ElementTree.fromstring(text)
    assert response.tag == "response"
    assert response.findtext("meta/results") == "3"
    shown = response.findall("certificates[@type='array']/certificate")
    assert [element.findtext("user/email") for element in shown] == ["jan@example.com", "piet@example.com"]


async def test_certificates_appear_once_the_certification_is_verified(
    stored: Sandbox, session: aiohttp.ClientSession
) -> None:
    stored.verify(3)

    _, text = await get(session, stored, "/users/certificates", certification_id="3")
    _, names = await get(session, stored, "/certifications", stored.certifications_api_key)

    assert [shown["id"] for shown in json.loads(text)["certificates"]] == [3]
    assert json.loads(names)["meta"]["results"] == 3


async def test_certifications_are_listed(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    status, text = await get(session, sandbox, "/certifications.json", sandbox.certifications_api_key)

    assert status == 200
    expected = {
        "meta": {"results": 2, "offset": 0},
        "certifications": [
            {
                "id": 1,
                "name": "First aid",
                "description": "Basic first aid at work",
                "requires_valid_until": False,
            },
            {"id": 2, "name": "Forklift driver", "description": None, "requires_valid_until": True},
        ],
    }
    assert expected == json.loads(text)


async def test_certifications_are_found_by_name_in_xml(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    key = sandbox.certifications_api_key

    status, text = await get(session, sandbox, "/certifications.xml", key, name="forklift")

    assert status == 200
    (shown,) = ElementTree.fromstring(text).findall("certifications/certification")
    assert (shown.findtext("name"), shown.findtext("requires-valid-until")) == ("Forklift driver", "true")


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("/users/certificates", "wrong", 401),
        ("/users/certificates", "sandbox-certifications-key", 403),
        ("/certifications", "wrong", 401),
        ("/certifications", "sandbox-key", 403),
    ],
)
async def test_each_list_has_a_key_of_its_own(
    sandbox: Sandbox, session: aiohttp.ClientSession, path: str, key: str, expected: int, extension: str
) -> None:
    status, _ = await get(session, sandbox, path + extension, key)

    assert expected == status


async def test_a_bad_filter_is_a_400(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    bad = await get(session, sandbox, "/users/certificates", created_from="yesterday")
    key = sandbox.certifications_api_key
    status, _ = await get(session, sandbox, "/certifications", key, size="-1")

    assert bad == (400, '{"errors":{"created_from":["is invalid"]}}')
    assert status == 400


# The account of it


async def test_the_audit_can_be_asked_for(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    await post(session, sandbox)

    async with session.get(f"{sandbox.origin}/__audit") as answer:
        audit = await answer.json()

    assert audit["summary"]["stored"] == 1
    (record,) = audit["posts"]
    assert hashlib.sha256(PDF).hexdigest() == record["sha256"]
    assert datetime.fromisoformat(record["arrived_at"]).tzinfo is UTC
    assert {name: getattr(sandbox.audit[0], name) for name in ("seconds", "fields", "verdict")} == {
        name: record[name] for name in ("seconds", "fields", "verdict")
    }


async def test_the_key_is_in_no_account_of_anything(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async with Sandbox(api_key="very-secret-1", certifications_api_key="very-secret-2", limit=2, period=0.5) as sandbox:
        for key in ("very-secret-1", "very-secret-2", "very-secret-3"):
            await post(session, sandbox, form(api_key=key), key=key)
        await post(session, sandbox, form(email="jan"))
        await post(session, sandbox)
        async with session.get(f"{sandbox.origin}/__audit") as answer:
            over_http = await answer.text()
        everything = [over_http, repr(sandbox), repr(sandbox.audit), repr(sandbox.summary()), caplog.text]

    assert len(sandbox.audit) == 5
    assert not [text for text in everything if "very-secret" in text]


async def test_concurrent_posts_are_kept_in_order_of_arrival(session: aiohttp.ClientSession) -> None:
    async with Sandbox(limit=100) as sandbox:
        contents = [PDF * (1 + number % 5 * 20) for number in range(40)]
        await asyncio.gather(*(post(session, sandbox, form(content)) for content in contents))

    assert sorted(hashlib.sha256(content).hexdigest() for content in contents) == sorted(
        record.sha256 or "" for record in sandbox.audit
    )
    assert all(earlier.seconds <= later.seconds for earlier, later in pairwise(sandbox.audit))
    assert sorted(record.certificate_id or 0 for record in sandbox.audit) == list(range(1, 41))


# The sandbox as an object


async def test_keys_may_be_set_anew(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    sandbox.api_key = "another"

    assert [(await post(session, sandbox, key=key))[0] for key in ("sandbox-key", "another")] == [401, 201]


async def test_a_sandbox_comes_back_with_all_it_has_stored(session: aiohttp.ClientSession) -> None:
    sandbox = Sandbox()
    async with sandbox:
        await post(session, sandbox)
    async with sandbox:
        _, text = await get(session, sandbox, "/users/certificates")

    assert json.loads(text)["meta"]["results"] == 1
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.origin
    assert all(isinstance(record, Post) for record in sandbox.audit)


async def test_a_sandbox_runs_once_at_a_time(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        await sandbox.__aenter__()


async def test_a_port_that_is_taken_is_refused(sandbox: Sandbox) -> None:
    second = Sandbox(port=int(sandbox.origin.rpartition(":")[2]))

    with pytest.raises(OSError, match="address already in use"):
        await second.__aenter__()
    with pytest.raises(RuntimeError, match="not running"):
        _ = second.origin


async def test_a_sandbox_listens_on_loopback_only(sandbox: Sandbox) -> None:
    assert sandbox._runner is not None
    ((host, port),) = sandbox._runner.addresses

    assert (host, sandbox.origin) == ("127.0.0.1", f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"api_key": "one", "certifications_api_key": "one"}, "two keys"),
        ({"api_key": ""}, "two keys"),
        ({"limit": 0}, "must be"),
        ({"period": 0}, "must be"),
        ({"body_timeout": 0}, "must be"),
        ({"window": "leaky"}, "no way of counting"),
        ({"window": "fixed", "count_refusals": True}, "only a sliding window"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sandbox(**settings)


def imports(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import may lead anywhere"
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_sandbox_imports_nothing_of_the_client() -> None:
    package = Path(springest_async.sandbox.__file__).parent
    names = {name for module in package.glob("*.py") for name in imports(module)}

    ours = {name for name in names if name.startswith("springest_async")}
    assert all(name.startswith("springest_async.sandbox.") for name in ours)
