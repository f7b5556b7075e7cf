"""The command with its journal in PostgreSQL, which two machines share."""

import asyncio
import json
import re
import signal
from asyncio.subprocess import Process
from contextlib import closing, suppress
from pathlib import Path

import pytest

from springest_async.journal.postgres import PostgresEngine
from tests.pdfs import archive, hashes
from tests.waiting import A_WHILE, until

from .command import (
    HeldSandbox,
    Ran,
    answer_and_interrupt_twice,
    end,
    environment,
    names,
    outcomes,
    springest,
    springest_sandbox,
    start,
    stored,
    table_of,
    until_said,
)
from .servers.postgresql import Cluster, Database

pytestmark = pytest.mark.postgresql


async def test_two_machines_share_one_journal(tmp_path: Path, state: Path, database: Database) -> None:
    folders = [tmp_path / "anna", tmp_path / "bert"]
    for folder in folders:
        folder.mkdir()
    manifests = [archive(folder, 4) for folder in folders]
    async with springest_sandbox() as sandbox:
        ran = [
            await springest(
                *("upload", manifest),
                origin=sandbox.origin,
                SPRINGEST_JOURNAL=database.url,
                XDG_STATE_HOME=str(folder / "state"),  # another machine
            )
            for folder, manifest in zip(folders, manifests, strict=True)
        ]
        told = await springest("status", SPRINGEST_JOURNAL=database.url)

    assert [(each.code, table_of(each.out)) for each in ran] == [(0, outcomes(stored=4))] * 2
    assert "4 certificates stored in " in ran[0].out
    assert "4 stored before, nothing to send to http://" in ran[1].err
    assert stored(sandbox) == hashes(folders[0])
    assert told.out.count("4 of 4") == 1  # it is the same manifest
    assert names(state, "*") == []


async def interrupt_twice(process: Process) -> Ran:
    process.send_signal(signal.SIGINT)
    await until_said(process, "Stopping: finishing the uploads in progress.")
    process.send_signal(signal.SIGINT)
    return await end(process)


@pytest.mark.parametrize("log", [(), ("--log-format", "json")], ids=["words", "JSON"])
async def test_a_second_ctrl_c_needs_no_answer_of_the_journal(
    tmp_path: Path, postgresql: Cluster, database: Database, log: tuple[str, ...]
) -> None:
    """PostgreSQL is frozen, so that connections to it stay and nothing answers."""
    manifest = archive(tmp_path, 4)
    metrics, hook = tmp_path / "x.prom", tmp_path / "hook"
    async with HeldSandbox() as sandbox:
        env = environment(sandbox.origin, SPRINGEST_JOURNAL=database.url)
        told = ("--metrics", metrics, "--on-finish", f"cat > {hook}")
        process = await start("upload", manifest, *log, *told, env=env)
        await until(lambda: sandbox.held == 3)
        with postgresql.frozen():
            ran = await interrupt_twice(process)
        database.execute("UPDATE workers SET lease_until = 0")
        sandbox.go_on.set()
        second = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_JOURNAL=database.url)

    words = "so what was being sent is in doubt. Run the same command again to continue."
    assert (ran.code, ran.out) == (130, "")
    if log:
        *_, last = map(json.loads, ran.err.splitlines())
        assert (last["event"], last["exit_code"], last["error"].endswith(words)) == ("end", 130, True)
        assert (last["manifest"], last["status"]["rows"], last["run"]["posts"]) == (manifest.name, 4, 4)
    else:
        assert ran.err.endswith(f"{words}\n")
    assert re.search(r"^springest_run_exit_code\{.*\} 130\.0$", metrics.read_text(), re.MULTILINE)
    assert not hook.exists()
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=4))
    assert stored(sandbox) == hashes(tmp_path)


async def test_nothing_is_in_doubt_when_nothing_was_being_sent(
    tmp_path: Path, postgresql: Cluster, database: Database
) -> None:
    manifest = archive(tmp_path, 4)
    async with springest_sandbox() as sandbox:
        env = environment(sandbox.origin, SPRINGEST_JOURNAL=database.url, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        refused = await end(await start("upload", manifest, env=env | {"SPRINGEST_API_KEY": "another-key"}))
        paused = await springest("pause", manifest, SPRINGEST_JOURNAL=database.url)
        process = await start("upload", manifest, env=env)
        await until_said(process, "Paused since")
        with postgresql.frozen():
            ran = await interrupt_twice(process)

    assert (refused.code, paused.code) == (4, 0)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.endswith("so the results cannot be read. Run the same command again to continue.\n")


async def test_a_server_that_answers_gets_the_answers_after_ctrl_c(tmp_path: Path, database: Database) -> None:
    """Another program has the journal's lock, so the server answers and nothing can be written."""
    manifest = archive(tmp_path, 4)
    async with HeldSandbox() as sandbox:
        env = environment(sandbox.origin, SPRINGEST_JOURNAL=database.url)
        process = await start("upload", manifest, "--log-format", "json", env=env)
        await until(lambda: sandbox.held == 3)
        with (
            closing(PostgresEngine(database.url).connect(create=False)) as connection,
            connection.transaction(),
        ):
            await answer_and_interrupt_twice(sandbox, process, known=4)
        ran = await end(process)
        told = await springest("status", manifest, SPRINGEST_JOURNAL=database.url)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=4))
    assert (told.code, table_of(told.out)) == (0, outcomes(stored=4))


@pytest.mark.parametrize("log", [(), ("--log-format", "json")], ids=["words", "JSON"])
async def test_ctrl_c_ends_a_wait_for_the_first_connection(tmp_path: Path, log: tuple[str, ...]) -> None:
    """As of a PostgreSQL that is frozen: what is connected to says nothing."""
    connected = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        with closing(writer):
            await reader.read()

    async with await asyncio.start_server(keep_silent, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        env = environment("nl", SPRINGEST_JOURNAL=f"postgresql://springest@127.0.0.1:{port}/springest?sslmode=require")
        process = await start("upload", archive(tmp_path, 1), *log, env=env)
        async with asyncio.timeout(A_WHILE):
            await connected.wait()
        while process.returncode is None:
            process.send_signal(signal.SIGINT)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await process.wait()
        ran = await end(process)

    assert (ran.code, ran.out) == (130, "")
    if log:
        (last,) = map(json.loads, ran.err.splitlines())
        assert (last["event"], last["exit_code"], last["manifest"]) == ("end", 130, "certificates.csv")
    else:
        assert ran.err == ""


async def test_the_journal_is_shown_and_erased_without_password(tmp_path: Path, database: Database) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        ran = [
            await springest(*command, origin=sandbox.origin, SPRINGEST_JOURNAL=database.url)
            for command in (
                ["upload", manifest],
                ["journal", "info"],
                ["journal", "forget", "--older-than", "1y"],
                ["journal", "forget", "--email", "employee1@example.org"],
                ["journal", "forget", manifest],
                ["status"],
                ["upload", manifest],
            )
        ]

    assert [each.code for each in ran] == [0] * 7
    assert re.search(r"engine +PostgreSQL", ran[1].out)
    assert re.search(r"certificates +3\n", ran[1].out)
    assert [each.out.split(" what")[0] for each in ran[2:5]] == [
        "Erased from 0 certificates and 0 migrations",
        "Erased from 1 certificate and 0 migrations",
        "Erased from 2 certificates and 1 migration",
    ]
    assert len(sandbox.audit) == 3
    assert database.cluster.password not in "".join(each.out + each.err for each in ran)


async def test_another_server_sends_nothing_until_it_is_trusted(tmp_path: Path, database: Database) -> None:
    manifest = archive(tmp_path, 1)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_JOURNAL=database.url)).code == 0
        database.execute("UPDATE meta SET value = '7' WHERE key = 'timeline'")  # as after a promotion
        other = archive(tmp_path, 2)
        refused = await springest("upload", other, origin=sandbox.origin, SPRINGEST_JOURNAL=database.url)
        trusted = await springest("journal", "trust", SPRINGEST_JOURNAL=database.url)
        told = await springest("status", SPRINGEST_JOURNAL=database.url)

    assert (refused.code, refused.out, len(sandbox.audit)) == (2, "", 1)
    assert "springest journal trust" in refused.err
    assert trusted == Ran(0, trusted.out, "")
    assert "is trusted. Uploads go on in 180 s." in trusted.out
    assert told.code == 0
    ((state, now),) = database.execute("SELECT state, extract(epoch FROM clock_timestamp())::float8 FROM budgets")
    assert 150 < json.loads(state)["probe"]["expires"] - now <= 180


async def test_without_a_journal_there_is_nothing_to_trust(database: Database) -> None:
    ran = await springest("journal", "trust", SPRINGEST_JOURNAL=database.url)

    assert (ran.code, ran.out) == (2, "")
    assert "there is no journal yet" in ran.err


async def test_a_wrong_key_costs_one_post_on_postgresql(tmp_path: Path, database: Database) -> None:
    manifest = archive(tmp_path, 20)
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", manifest),
            origin=sandbox.origin,
            SPRINGEST_JOURNAL=database.url,
            SPRINGEST_API_KEY="another-key",
            SPRINGEST_CERTIFICATIONS_API_KEY=None,
        )

    assert (ran.code, table_of(ran.out)) == (4, outcomes(waiting=20))
    assert len(sandbox.audit) == 1
