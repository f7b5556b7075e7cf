"""The servers themselves are right: asked by aiohttp alone, so that no fault of the client can hide one of theirs."""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import attrs
import psycopg
import pytest

from . import servers
from .servers import Requirement, process, require
from .servers.capture_samples import Fields, form
from .servers.haproxy import haproxy_in_front_of
from .servers.nginx import nginx_in_front_of
from .servers.postgresql import Database, postgresql_cluster
from .servers.rails import RailsServer, rails_server

PDF = b"%PDF-1.7\r\n\x00\xff--boundary\r\n\r\n" + bytes(range(256)) * 1000 + b"\n%%EOF"
VALID: Fields = {"certification_id": "103", "email": "zoë@example.com", "valid_from": "2026-01-02", "file": PDF}


@attrs.frozen
class Answer:
    status: int
    content_type: str
    text: str


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def get(session: aiohttp.ClientSession, url: str, *, key: str, **query: str) -> Answer:
    async with session.get(url, params={**query, "api_key": key}) as response:
        return Answer(response.status, response.content_type, await response.text())


async def post(
    session: aiohttp.ClientSession,
    origin: str,
    *,
    key: str,
    extension: str = "",
    fields: Fields = VALID,
) -> Answer:
    url = f"{origin}/users/certificates{extension}"
    async with session.post(url, params={"api_key": key}, data=form(fields)) as response:
        return Answer(response.status, response.content_type, await response.text())


@pytest.mark.rails
async def test_a_file_is_stored_byte_for_byte(session: aiohttp.ClientSession, rails: RailsServer) -> None:
    answer = await post(session, rails.origin, key=rails.key)

    audit = await rails.audit()

    assert (
        answer.status,
        answer.content_type,
        json.loads(answer.text)["id"],
    ) == (201, "application/json", 5001)
    (stored,) = audit.posts
    assert (hashlib.sha256(PDF).hexdigest(), len(PDF)) == (stored.sha256, stored.size)
    assert (stored.filename, stored.file_type) == ("certificate.pdf", "application/pdf")
    assert (stored.verdict, stored.status, stored.id) == ("stored", 201, 5001)
    assert {name: VALID[name] for name in VALID if name != "file"} == stored.fields
    assert (audit.limit, audit.period, audit.most_in_any_period) == (30, 60.0, 1)


@pytest.mark.rails
async def test_posts_at_once_are_all_counted_and_all_kept(session: aiohttp.ClientSession) -> None:
    async with rails_server(limit=20) as rails:
        answers = await asyncio.gather(
            *(
                post(session, rails.origin, key=rails.key, fields={**VALID, "file": b"%%PDF %d" % number})
                for number in range(24)
            )
        )
        audit = await rails.audit()

    assert sorted(answer.status for answer in answers) == [201] * 20 + [400] * 4
    assert audit.most_in_any_period == 24
    assert len({post.sha256 for post in audit.posts}) == 24
    assert [post.arrived for post in audit.posts] == sorted(post.arrived for post in audit.posts)


@pytest.mark.rails
async def test_a_post_over_the_limit_is_refused_and_later_accepted(
    session: aiohttp.ClientSession,
) -> None:
    async with rails_server(limit=3, period=4.0, count_refusals=False) as rails:
        answers = [await post(session, rails.origin, key=rails.key) for _ in range(4)]
        answers.append(await post(session, rails.origin, key=rails.key, extension=".xml"))
        await asyncio.sleep(4.05)
        answers.append(await post(session, rails.origin, key=rails.key))
        audit = await rails.audit()

    assert [answer.status for answer in answers] == [201, 201, 201, 400, 400, 201]
    assert json.loads(answers[3].text) == {"status": 400, "error": "Bad Request"}
    assert "<error>Bad Request</error>" in answers[4].text
    assert audit.verdicts() == ["stored"] * 3 + ["too fast"] * 2 + ["stored"]
    assert audit.most_in_any_period == 5


@pytest.mark.rails
@pytest.mark.parametrize(("count_refusals", "last_status"), [(True, 400), (False, 201)])
async def test_a_refused_post_counts_where_refusals_count(
    session: aiohttp.ClientSession, count_refusals: bool, last_status: int
) -> None:
    async with rails_server(limit=1, period=4.0, count_refusals=count_refusals) as rails:
        await post(session, rails.origin, key=rails.key)
        await asyncio.sleep(2.1)
        refused = await post(session, rails.origin, key=rails.key)
        await asyncio.sleep(2.1)
        last = await post(session, rails.origin, key=rails.key)

    assert (400, last_status) == (refused.status, last.status)


@pytest.mark.rails
async def test_a_rejection_names_the_field(session: aiohttp.ClientSession, rails: RailsServer) -> None:
    expected: list[tuple[dict[str, str | bytes], dict[str, list[str]]]] = [
        ({"email": "anna at example.com"}, {"email": ["is invalid"]}),
        ({"certification_id": "999"}, {"certification_id": ["is invalid"]}),
        ({"valid_from": "02-01-2026"}, {"valid_from": ["is not a valid date"]}),
        ({"valid_until": "2025-12-31"}, {"valid_until": ["must be after valid from"]}),
        ({"certification_id": "102"}, {"valid_until": ["can't be blank"]}),
        ({"conversion_id": "A1"}, {"conversion_id": ["is not a number"]}),
        ({"file": b""}, {"file": ["can't be blank"]}),
        ({"file": b"JVBERi0xLjcKJeLjz9MKJSVFT0YK"}, {"file": ["cannot be decoded"]}),
    ]

    actual = []
    for wrong, _ in expected:
        answer = await post(session, rails.origin, key=rails.key, fields={**VALID, **wrong})
        assert answer.status == 400
        actual.append((wrong, json.loads(answer.text)["errors"]))

    assert expected == actual


@pytest.mark.rails
async def test_a_part_that_says_it_is_base64_is_rejected(session: aiohttp.ClientSession, rails: RailsServer) -> None:
    body = (
        b"--b\r\n"
        b'Content-Disposition: form-data; name="file"; filename="a.pdf"\r\n'
        b"Content-Transfer-Encoding: base64\r\n"
        b"\r\n"
        b"%PDF-1.7\r\n"
        b"--b--\r\n"
    )
    url, headers = f"{rails.origin}/users/certificates", {"Content-Type": "multipart/form-data; boundary=b"}
    async with session.post(url, params={"api_key": rails.key}, data=body, headers=headers) as response:
        answer = await response.json()

    assert answer["errors"]["file"] == ["cannot be decoded"]
    (rejected,) = (await rails.audit()).posts
    assert "Content-Transfer-Encoding: base64" in (rejected.part_headers or "")


@pytest.mark.rails
async def test_a_form_that_rails_cannot_read_is_in_the_audit(
    session: aiohttp.ClientSession, rails: RailsServer
) -> None:
    url, headers = f"{rails.origin}/users/certificates", {"Content-Type": "multipart/form-data; boundary=b"}
    async with session.post(url, params={"api_key": rails.key}, data=b"--b\r\n", headers=headers) as response:
        status = response.status

    audit = await rails.audit()

    # Rails 6.1 has no word for a form that breaks off (Rack's EOFError), so this is a 500 of a real server.
    assert (status, audit.verdicts(), audit.most_in_any_period) == (500, ["malformed"], 1)


@pytest.mark.rails
async def test_lists_in_both_formats(session: aiohttp.ClientSession, rails: RailsServer) -> None:
    certificates, certifications = f"{rails.origin}/users/certificates", f"{rails.origin}/certifications"
    hidden = {**VALID, "certification_id": "104"}
    for fields in (VALID, VALID, hidden, VALID):
        await post(session, rails.origin, key=rails.key, fields=fields)

    page = json.loads((await get(session, certificates, key=rails.key, size="2", offset="2")).text)
    xml = await get(session, f"{certificates}.xml", key=rails.key, size="1")
    nobody = json.loads((await get(session, certificates, key=rails.key, email="nobody@example.com")).text)
    named = json.loads((await get(session, certifications, key=rails.certifications_key, name="BHV")).text)

    assert page["meta"] == {"results": 3, "offset": 2}
    assert [certificate["id"] for certificate in page["certificates"]] == [5004]
    assert xml.content_type == "application/xml"
    assert '<certificates type="array">' in xml.text
    assert '<valid-from type="date">2026-01-02</valid-from>' in xml.text
    assert '<valid-until nil="true"/>' in xml.text
    assert nobody == {"meta": {"results": 0, "offset": 0}, "certificates": []}
    assert [(row["id"], row["requires_valid_until"]) for row in named["certifications"]] == [(102, True)]


@pytest.mark.rails
async def test_the_shapes_that_are_not_documented(session: aiohttp.ClientSession) -> None:
    async with rails_server(shape=("bare", "nested", "string_ids", "without_id")) as rails:
        created = await post(session, rails.origin, key=rails.key)
        listed = await get(session, f"{rails.origin}/users/certificates", key=rails.key)

    assert (created.status, created.text) == (201, "")
    (certificate,) = json.loads(listed.text)
    assert (certificate["id"], certificate["certification"]["id"]) == ("5001", "103")
    assert "name" not in certificate


@pytest.mark.rails
async def test_each_list_has_a_key_of_its_own(session: aiohttp.ClientSession, rails: RailsServer) -> None:
    questions = [
        ("/users/certificates", rails.key),
        ("/users/certificates", rails.certifications_key),
        ("/users/certificates", "no key at all"),
        ("/certifications", rails.certifications_key),
        ("/certifications", rails.key),
        ("/certificates", rails.key),
        ("/__error", rails.key),
    ]
    statuses = [(await get(session, rails.origin + path, key=key)).status for path, key in questions]
    statuses.append((await post(session, rails.origin, key="no key at all")).status)

    audit = await rails.audit()

    assert statuses == [200, 403, 401, 200, 403, 404, 500, 401]
    assert (audit.verdicts(), audit.most_in_any_period) == (["not authorized"], 0)


@pytest.mark.rails
@pytest.mark.nginx
async def test_nginx_refuses_the_second_post_and_no_get(
    session: aiohttp.ClientSession, nginx_and_rails: tuple[str, RailsServer]
) -> None:
    origin, rails = nginx_and_rails

    # At once, because how long Rails takes for the first is no matter of nginx's.
    both = await asyncio.gather(*(post(session, origin, key=rails.key) for _ in range(2)))
    first, second = sorted(both, key=lambda answer: answer.status)
    lists = [await get(session, f"{origin}/users/certificates", key=rails.key) for _ in range(3)]
    await asyncio.sleep(2.05)
    third = await post(session, origin, key=rails.key)

    assert [first.status, second.status, third.status] == [201, 400, 201]
    assert "nginx" in second.text
    assert [answer.status for answer in lists] == [200, 200, 200]
    audit = await rails.audit()
    assert audit.verdicts() == ["stored", "stored"]
    assert {hashlib.sha256(PDF).hexdigest()} == {stored.sha256 for stored in audit.posts}


@pytest.mark.rails
@pytest.mark.nginx
async def test_servers_leave_nothing_behind(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with rails_server() as rails, nginx_in_front_of(rails.origin) as origin:
        await post(session, origin, key=rails.key)
        assert [name.split("-")[1] for name in names(tmp_path)] == ["nginx", "rails"]

    assert names(tmp_path) == []
    for gone in (origin, rails.origin):
        with pytest.raises(aiohttp.ClientConnectionError):
            await get(session, gone, key=rails.key)


@pytest.mark.rails
async def test_a_rails_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(process.ServerStartError, match=r"(?s)ended with status 1.*not \[\"round\"\]"):
        async with rails_server(shape=("round",)):
            pytest.fail("It started")


@pytest.mark.nginx
async def test_an_nginx_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(process.ServerStartError, match=r"(?s)ended with status 1.*invalid rate"):
        async with nginx_in_front_of("http://127.0.0.1:9", rate="often"):
            pytest.fail("It started")


@pytest.mark.haproxy
async def test_a_haproxy_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(process.ServerStartError, match=r"(?s)ended with status 1.*unknown keyword 'often'"):
        async with haproxy_in_front_of("http://127.0.0.1:9", rules="often"):
            pytest.fail("It started")


@pytest.mark.postgresql
def test_postgresql_keeps_what_was_committed_when_killed(database: Database) -> None:
    database.execute("CREATE TABLE kept (value integer)")
    database.execute("INSERT INTO kept VALUES (7)")

    database.cluster.kill()
    with pytest.raises(psycopg.OperationalError):
        database.execute("SELECT 1")
    database.cluster.start()

    assert database.execute("SELECT value FROM kept") == [(7,)]


@pytest.mark.postgresql
@pytest.mark.parametrize("synchronous", [False, True])
def test_a_postgresql_standby_takes_over(database: Database, synchronous: bool) -> None:
    primary = database.cluster
    with primary.standby(synchronous=synchronous) as standby:
        database.execute("CREATE TABLE followed AS SELECT 7 AS value")
        standby.promote()

        timeline = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
        assert (primary.execute(timeline), standby.execute(timeline)) == ([("00000001",)], [("00000002",)])
        if synchronous:
            assert standby.execute("SELECT value FROM followed", database=database.name) == [(7,)]


@pytest.mark.postgresql
def test_a_postgresql_that_does_not_start_shows_its_log() -> None:
    with (
        pytest.raises(process.ServerStartError, match='unrecognized configuration parameter "often"'),
        postgresql_cluster(often="yes"),
    ):
        pytest.fail("It started")


async def test_a_server_that_does_not_answer_in_time_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sh", "-c", "echo still thinking; sleep 30")
    async with process.running(command, folder=tmp_path, environment={}) as server:
        await server.saying("still ")
        monkeypatch.setattr(process, "_SECONDS_TO_START", 0.3)
        with pytest.raises(process.ServerStartError, match="still thinking"):
            async with process.starting(server):
                await server.saying("Listening on ")


async def test_a_server_that_does_not_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_SECONDS_TO_END", 0.2)
    command = ("sh", "-c", "trap '' TERM; echo ready now; sleep 30; sleep 30")
    async with process.running(command, folder=tmp_path, environment={}) as server:
        await server.saying("ready ")

    assert server.process.returncode == -9


@pytest.mark.parametrize(("environment", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_what_is_missing_skips_a_test_or_fails_it(
    monkeypatch: pytest.MonkeyPatch, environment: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setitem(servers.REQUIREMENTS, "absent", Requirement("a-package", ("no-such-program",)))
    monkeypatch.setenv(servers.SKIP_NOTHING, environment)

    with pytest.raises(outcome, match=r"no-such-program is not on the path .*apt-get install a-package"):
        require("absent")
