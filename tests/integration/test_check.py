"""``springest check`` as a user has it: against a sandbox, with and without a journal, and interrupted."""

import asyncio
import json
import signal
from pathlib import Path

import stamina
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.pdfs import archive

from .command import (
    assert_no_key_in,
    end,
    environment,
    in_a_terminal,
    journal_path,
    names,
    outcomes,
    row_of,
    springest,
    springest_sandbox,
    start,
    table_of,
)

LISTED = "--skip-listed"


async def test_a_check_asks_the_certifications_and_sends_nothing(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3, changes={2: {"certification_id": "9"}, 3: {"certification_id": "2"}})
    async with springest_sandbox() as sandbox:
        ran = await springest("check", manifest, origin=sandbox.origin)
        plan = f"Plan for {sandbox.origin}:\n"

    assert ran.code == 2
    assert f"{manifest}: 2 faults in 2 rows.\n" in ran.out
    assert "row 3, certification_id: 9 does not exist" in ran.out
    assert "row 4, valid_until: is missing" in ran.out
    assert plan in ran.out
    assert sandbox.certifications[0].name in ran.out
    assert "Not checked" not in ran.out
    assert sandbox.audit == ()
    assert not journal_path().exists()


async def test_a_check_knows_what_was_stored_before(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        with manifest.open("a") as stream:
            stream.write("1.pdf,1,another@example.org,2026-01-31,,\n")
        ran = await springest("check", manifest, origin=sandbox.origin)

    assert ran.code == 0
    assert "          3  stored before, so not sent again\n          1  to send" in ran.out


async def test_a_check_finds_what_springest_lists(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", archive(first, 3), origin=sandbox.origin)).code == 0
        other = tmp_path / "other.sqlite3"  # a journal that knows nothing of it, as that of a colleague
        manifest = archive(second, 5)
        ran = await springest("check", manifest, LISTED, "--journal", other, "--format", "json", origin=sandbox.origin)
        here = await springest("check", manifest, LISTED, "--format", "json", origin=sandbox.origin)

    assert ran.code == 0
    words = "To find the rows that Springest lists already, it is asked for its lists: 1 request (of 4 000 an hour).\n"
    assert words in ran.err
    plan = json.loads(ran.out)["plan"]
    assert {name: plan[name] for name in ("rows", "listed", "to_send", "stored_before")} == {
        "rows": 5,
        "listed": 3,
        "to_send": 2,
        "stored_before": 0,
    }
    assert not other.exists()
    assert len(sandbox.audit) == 3
    # In the journal, what is listed are other PDFs of the same people: these rows may be meant too.
    assert json.loads(here.out)["plan"]["listed"] == 0


async def test_a_check_without_a_network_says_what_it_lacks(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        origin = sandbox.origin
    with stamina.set_testing(True, attempts=2):  # without its waits
        ran = await springest("check", manifest, origin=origin, SPRINGEST_CERTIFICATIONS_API_KEY="wrong")

    assert ran.code == 0
    assert "Not checked: whether the certifications exist, and which of them require valid_until (" in ran.out
    assert "Springest cannot be reached" in ran.out


async def test_lists_that_cannot_be_asked_for_hide_no_findings(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2, changes={1: {"email": "jan"}})
    findings = tmp_path / "findings.csv"
    async with springest_sandbox() as sandbox:
        origin = sandbox.origin
    with stamina.set_testing(True, attempts=2):  # without its waits
        ran = await springest("check", manifest, LISTED, "--findings", findings, origin=origin)

    assert ran.code == 2
    assert "Springest cannot be reached" in ran.err
    assert "2,email,fault,email," in findings.read_text("utf-8-sig")


async def test_a_wrong_key_is_told_and_lists_need_a_right_one(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        wrong = {"SPRINGEST_API_KEY": "wrong", "SPRINGEST_CERTIFICATIONS_API_KEY": "wrong"}
        without = await springest("check", manifest, origin=sandbox.origin, **wrong)
        listed = await springest("check", manifest, LISTED, origin=sandbox.origin, **wrong)

    assert (without.code, listed.code) == (0, 4)
    assert "401" in without.out
    assert f"{manifest}: nothing to correct.\n" in listed.out  # what was found before is shown all the same
    assert "401" in listed.err


async def test_a_check_in_a_terminal_shows_no_control_characters(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2, changes={1: {"file": "\x1b[2Jgone.pdf"}})
    async with springest_sandbox() as sandbox:
        code, shown = await in_a_terminal("check", manifest, env=environment(sandbox.origin))
    assert code == 2
    assert "\x1b[2Jgone" not in shown
    assert_no_key_in(shown)


async def test_ctrl_c_ends_a_check_at_once(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    with manifest.open("a") as stream:
        stream.writelines(f"1.pdf,1,employee{number}@example.org,2026-01-31,,\n" for number in range(400_000))
    asked = asyncio.Event()

    async def certifications(_: web.Request) -> web.Response:
        asked.set()
        return web.json_response([{"id": 1, "name": "VCA"}])

    app = web.Application()
    app.router.add_get("/certifications.json", certifications)
    async with TestServer(app) as server:
        process = await start("check", manifest, env=environment(str(server.make_url("/")).rstrip("/")))
        await asked.wait()
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert ran.code == 130
    assert "Plan for" not in ran.out
    assert names(tmp_path) == ["certificates.csv"]


async def test_ctrl_c_ends_the_asking_for_lists_at_once(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    asked = asyncio.Event()

    async def certifications(_: web.Request) -> web.Response:
        return web.json_response([{"id": 1, "name": "VCA"}])

    async def certificates(request: web.Request) -> web.Response:
        if request.query["size"] != "1":
            asked.set()
            await asyncio.Event().wait()
        return web.json_response({"certificates": [], "meta": {"results": 120}})

    app = web.Application()
    app.router.add_get("/certifications.json", certifications)
    app.router.add_get("/users/certificates.json", certificates)
    async with TestServer(app, handler_cancellation=True) as server:
        process = await start("check", manifest, LISTED, env=environment(str(server.make_url("/")).rstrip("/")))
        await asked.wait()
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert ran.code == 130
    assert "Plan for" not in ran.out
    assert "it is asked for its lists: 2 requests (of 4 000 an hour).\n" in ran.err


async def test_an_upload_leaves_out_what_springest_lists(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", archive(first, 3), origin=sandbox.origin)).code == 0
        other = tmp_path / "other.sqlite3"  # as that of a colleague
        command = ("upload", archive(second, 5), LISTED, "--journal", other)
        ran = await springest(*command, origin=sandbox.origin)
        again = await springest(*command, origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=2))
    assert [row_of(post) for post in sandbox.audit] == [2, 3, 4, 5, 6]
    assert "          3  listed by Springest already, so not sent\n          2  to send" in ran.err
    assert "Left out: 3 rows that Springest lists already\n" in ran.out
    assert (again.code, table_of(again.out)) == (0, outcomes(stored=2))
    assert "          2  stored before, so not sent again\n          3  listed by Springest already" in again.err


async def test_a_listed_certificate_of_nobody_is_told(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)

    async def certificates(_: web.Request) -> web.Response:
        return web.json_response([{"id": 5, "certification_id": 1, "valid_from": "2026-01-31"}])

    app = web.Application()
    app.router.add_get("/users/certificates.json", certificates)
    async with TestServer(app) as server:
        origin = str(server.make_url("/")).rstrip("/")
        ran = await springest("check", manifest, LISTED, origin=origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)

    assert ran.code == 0
    assert "          1  to send" in ran.out
    assert "Not checked: 1 listed certificate without a person, which may be of any row.\n" in ran.out
