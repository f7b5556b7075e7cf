"""``springest audit`` after real uploads: its verdict, its numbers beside the server's own, and its exit codes."""

import asyncio
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from springest_async.sandbox import Mishap
from tests.pdfs import archive

from .command import Ran, connected, end, environment, kill_at_end, posts, springest, springest_sandbox
from .servers.postgresql import Database

PERIOD = 2.0


async def audited(manifest: Path, **changes: str | None) -> tuple[int, dict[str, Any]]:
    ran = await springest("audit", manifest, "--format", "json", **changes)
    assert ran.err == ""
    return ran.code, json.loads(ran.out)


async def test_an_upload_is_audited(tmp_path: Path) -> None:
    """One is in doubt, and cannot be looked up: its certification is not shown."""
    manifest = archive(tmp_path, 5, changes={number: {"certification_id": "3"} for number in range(1, 6)})
    async with springest_sandbox(mishap=iter([None, Mishap.DROP_AFTER_STORING]).__next__) as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        assert ran.code == 3
    ran = await springest("audit", manifest)
    code, found = await audited(manifest)

    assert (ran.code, code, found["verdict"]) == (0, 0, "kept")
    assert ran.out.splitlines()[0] == found["sentence"]
    assert found["by_our_clock"]["posts"] == sandbox.summary().most_in_any_period == 5
    assert found["by_server_clock"]["posts"] == 4  # one had no answer
    assert (found["posts"], found["own_posts"], found["undated"], found["in_doubt"]) == (5, 5, 1, 1)
    assert "1 row is in doubt: Springest may have stored it or not. springest status shows it." in ran.out
    assert "example.org" not in ran.out + json.dumps(found)


async def test_what_was_sent_too_fast_is_told(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 4)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
    with connected() as connection, connection.transaction():
        for number in range(40):
            connection.execute(
                "INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, outcome, status)"
                " SELECT ?, 0, budget, 'other', 1, sent_at + ?, 'stored', 201 FROM attempts ORDER BY id LIMIT 1",
                (f"f{number}", number * 1000),
            )
    ran = await springest("audit", manifest)

    assert ran.code == 6
    assert ran.out.startswith("The limit was NOT kept: 44 POSTs within ")
    assert re.search("… and all others with the same key +40\n", ran.out)


async def test_what_was_stored_twice_is_told(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
    ids = [post.request_id for post in posts(sandbox, "stored")]
    with connected() as connection, connection.transaction():
        connection.execute("UPDATE attempts SET certificate = (SELECT max(certificate) FROM attempts)")
    ran = await springest("audit", manifest)

    assert ran.code == 6
    assert "But 1 certificate may be stored twice: look it up at Springest." in ran.out
    assert all(each in ran.out for each in ids)


async def test_an_unknown_manifest_is_a_fault_of_usage(tmp_path: Path) -> None:
    ran = await springest("audit", archive(tmp_path, 1))

    assert (ran.code, ran.out) == (2, "")


@pytest.mark.postgresql
async def test_a_journal_in_postgresql_is_audited(tmp_path: Path, database: Database) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_JOURNAL=database.url)
        assert ran.code == 0
    code, found = await audited(manifest, SPRINGEST_JOURNAL=database.url)

    assert (code, found["verdict"], found["posts"]) == (0, "kept", 3)
    assert found["by_our_clock"]["posts"] == found["by_server_clock"]["posts"] == 3


async def scaled(*arguments: str | Path, origin: str, journal: str, clock: int = 0) -> Ran:
    """Run the command with a minute of two seconds, and a time of day that is ahead by so many seconds."""
    command = (sys.executable, "-m", "tests.integration.scaled", str(PERIOD), *arguments)
    wrong = ("faketime", "--exclude-monotonic", "-f", f"{clock:+d}s") if clock else ()
    process = await asyncio.create_subprocess_exec(
        *wrong,
        *command,
        env=environment(origin, SPRINGEST_CERTIFICATIONS_API_KEY=None, SPRINGEST_JOURNAL=journal, NO_FAKE_STAT="1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    kill_at_end(process)
    return await end(process)


@pytest.mark.soak
@pytest.mark.postgresql
@pytest.mark.faketime
async def test_two_clocks_that_differ_are_no_breach(tmp_path: Path, database: Database) -> None:
    """Two runs share the limit, and one of them has the wrong time: by the time of day, some minutes have too many."""
    manifest = archive(tmp_path, 200)
    async with springest_sandbox(period=PERIOD) as sandbox:
        run = partial(scaled, origin=sandbox.origin, journal=database.url)
        ended = await asyncio.gather(*(run("upload", manifest, clock=clock) for clock in (0, -7)))
        assert [ran.code for ran in ended] == [0, 0], ended[1].err[-1500:] + ended[1].out[-800:]
        ran = await run("audit", manifest, "--format", "json")
    found = json.loads(ran.out)

    assert sandbox.summary().most_in_any_period <= 30
    assert (ran.code, found["verdict"], found["posts"]) == (0, "kept", 200)
    assert found["by_our_clock"]["posts"] <= 30
