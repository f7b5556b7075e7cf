"""Uploads that are started before the network is there, by cron for instance, with the key for certifications."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import stamina

from tests.pdfs import archive
from tests.waiting import until

from .command import (
    end,
    environment,
    in_a_terminal,
    journal_path,
    outcomes,
    springest,
    start_attentive,
    table_of,
    until_said,
)
from .sandbox_process import SandboxProcess, sandbox_process
from .views import status_until

NAMES = {1: {"certification_id": "First aid"}, 2: {"certification_id": "First aid"}}


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """Let the commands in this process ask without pauses, and try again soon."""
    with (
        stamina.set_testing(True, attempts=1),
        patch("springest_async.cli.certification_list.backoff", lambda failures: 0.1),
        patch("springest_async.bulk.gate.backoff", lambda failures, **_: 0.1),
    ):
        yield


@asynccontextmanager
async def away(folder: Path) -> AsyncIterator[SandboxProcess]:
    """Yield a sandbox that has stored a certificate of another manifest, and is away."""
    (earlier := folder / "earlier").mkdir()
    async with sandbox_process() as sandbox:
        ran = await springest("upload", archive(earlier, 1), origin=sandbox.origin)
        assert ran.code == 0
        await sandbox.go_away()
        yield sandbox


def manifest_with_names(folder: Path, *, as_ids: bool = False) -> Path:
    manifest = archive(folder, 2, changes=NAMES)
    if not as_ids:
        manifest.write_text(manifest.read_text().replace("certification_id", "certification"))
    return manifest


@pytest.mark.parametrize("as_ids", [False, True], ids=["certification", "certification_id"])
async def test_names_wait_for_the_network(tmp_path: Path, as_ids: bool) -> None:
    """Also where the names stand in the column of the ids."""
    manifest, shown = manifest_with_names(tmp_path, as_ids=as_ids), bytearray()
    async with away(tmp_path) as sandbox:
        env = environment(sandbox.origin)
        running = asyncio.create_task(in_a_terminal("upload", manifest, env=env, shown=shown))
        await until(lambda: b"(Connection refused), trying again" in shown or running.done())
        await sandbox.come_back()
        code, said = await running

    assert (code, table_of(said)) == (0, outcomes(stored=2))
    assert "The list of certifications is needed first, so the upload waits until Springest can be reached." in said
    assert "Springest is reached again after " in said


async def test_ids_wait_in_the_queue_without_a_list(tmp_path: Path) -> None:
    manifest, shown = archive(tmp_path, 2), bytearray()
    async with away(tmp_path) as sandbox:
        env = environment(sandbox.origin)
        running = asyncio.create_task(in_a_terminal("upload", manifest, env=env, shown=shown))
        await until(lambda: b"No connection for" in shown or running.done())
        await sandbox.come_back()
        code, said = await running

    assert (code, table_of(said)) == (0, outcomes(stored=2))
    reason = "and which of them require valid_until (no connection: Connection refused)."
    assert f"Not checked: whether the certifications exist, {reason}" in " ".join(said.split())


async def test_a_run_that_needs_lists_waits_with_ids_too(tmp_path: Path) -> None:
    async with away(tmp_path) as sandbox:
        arguments = ("upload", archive(tmp_path, 2), "--skip-listed", "--max-duration", "1s")
        ran = await springest(*arguments, origin=sandbox.origin)

    assert ran.code == 5
    assert "The list of certifications is needed first" in ran.err


@pytest.mark.parametrize("names", [True, False])
async def test_a_host_that_was_never_reached_ends_the_run(tmp_path: Path, names: bool) -> None:
    manifest = manifest_with_names(tmp_path) if names else archive(tmp_path, 2)
    async with sandbox_process() as sandbox:
        await sandbox.go_away()
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert ran.code == 2
    assert "Springest cannot be reached. Check the internet connection" in ran.err
    assert (f"{manifest} has names of certifications, so nothing can be sent without a list." in ran.err) == names


async def test_the_wait_stops_as_asked(tmp_path: Path) -> None:
    async with away(tmp_path) as sandbox:
        ran = await springest(
            *("upload", manifest_with_names(tmp_path), "--max-duration", "1s", "--log-format", "json"),
            origin=sandbox.origin,
        )

    lines = [json.loads(line) for line in ran.err.splitlines()]
    names = [line["event"] for line in lines]
    first = lines[names.index("outage")]
    assert (ran.code, ran.out) == (5, "")
    assert lines[-2]["words"] == (
        "Stopped after 1 s (--max-duration). Nothing was sent. Run the same command again to continue."
    )
    assert (first["what"], first["reason"]) == ("no connection", "Connection refused")
    assert names.count("outage_over") == 1
    assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("end", 5)


def _shows_outage(status: dict[str, Any]) -> bool:
    workers = [(worker["trouble"], worker["reason"]) for worker in status["workers"]]
    return workers == [("no connection", "Connection refused")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_ends_the_wait(tmp_path: Path, number: signal.Signals) -> None:
    """Meanwhile the status shows why nothing moves, if the manifest is known."""
    manifest = manifest_with_names(tmp_path)
    async with sandbox_process() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        await sandbox.go_away()
        process = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        line = await until_said(process, "trying again in")
        await status_until(_shows_outage, manifest, str(journal_path()))
        process.send_signal(number)
        ran = await end(process)

    assert line.startswith("No connection for ")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.endswith("Stopped. Nothing was sent. Run the same command again to continue.\n")


async def test_a_refused_key_ends_the_wait(tmp_path: Path) -> None:
    shown = bytearray()
    async with away(tmp_path) as sandbox:
        env = environment(sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY="wrong")
        running = asyncio.create_task(in_a_terminal("upload", manifest_with_names(tmp_path), env=env, shown=shown))
        await until(lambda: b"No connection for" in shown or running.done())
        await sandbox.come_back()
        code, said = await running

    assert code == 4
    assert "Springest refused the API key" in said
