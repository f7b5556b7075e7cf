"""``springest bench`` against sandboxes: what it measures, what it refuses, and each thing that can bound a run."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web

from springest_async.journal.sqlite import SQLiteConnection
from springest_async.sandbox import Sandbox
from springest_async.sandbox.certificates import Form
from tests.waiting import until

from .command import CERTIFICATIONS_KEY, KEY, Ran, end, environment, posts, springest, springest_sandbox, start
from .faults.proxy import Direction, Line, fault_proxy


@attrs.define(kw_only=True, eq=False)
class SlowSandbox(Sandbox):
    """A sandbox that thinks for a while about each certificate."""

    api_key: str = attrs.field(default=KEY, repr=False)
    certifications_api_key: str = attrs.field(default=CERTIFICATIONS_KEY, repr=False)

    async def _take(self, request: web.Request, form: Form) -> Any:
        outcome = await super()._take(request, form)
        await asyncio.sleep(0.2)
        return outcome


def bound_of(ran: Ran) -> str:
    found = re.search(r"^What bounds it: (the \w+)", ran.out, re.MULTILINE)
    assert found is not None
    return found[1]


async def test_a_sandbox_of_its_own_is_measured(state: Path) -> None:
    ran = await springest("bench", "--limit", "off", "--count", "40", "--size", "2KB", SPRINGEST_API_KEY=None)

    assert ran.code == 0
    assert ran.err == "40 uploads of 2 kB to a sandbox, as fast as possible.\n"
    assert re.search(r"\nuploads stored +40 of 40, in ", ran.out)
    assert re.search(r"p50 / p95 / p99 +\d+\.\d / \d+\.\d / \d+\.\d\n", ran.out)
    assert re.search(r"\nPOSTs refused without a reason +0 of 40\n", ran.out)
    assert re.search(r"\nmost POSTs in any 60 s +40, as the server counted\n", ran.out)
    assert re.search(r"each upload, server +\d+\.\d\d\n", ran.out)
    assert bound_of(ran)
    assert list((state / "springest").iterdir()) == []


@pytest.mark.parametrize("host", ["nl", "https://api.springest.nl", "http://192.0.2.1"])
async def test_another_machine_is_refused_in_words(host: str, state: Path) -> None:
    ran = await end(await start("bench", env=environment(host)))

    assert (ran.code, ran.out) == (2, "")
    assert re.match("springest: (springest bench sends invented certificates|http sends the key in the clear)", ran.err)
    assert not (state / "springest").exists()


async def test_a_server_of_ones_own_is_measured() -> None:
    async with springest_sandbox(limit=10) as sandbox:
        ran = await springest("bench", "--count", "10", "--concurrency", "3", origin=sandbox.origin)

    assert ran.code == 0
    assert re.match(r"10 uploads of 50 kB to http://127\.0\.0\.1:\d+, at 30 a minute: about 0 s\.\n", ran.err)
    assert re.search(r"\nmost POSTs in any 60 s +10, as they left\n", ran.out)
    assert [post.size for post in posts(sandbox, "stored")] == [50_000] * 10


async def test_a_server_of_ones_own_needs_a_key(state: Path) -> None:
    async with springest_sandbox() as sandbox:
        ran = await springest("bench", origin=sandbox.origin, SPRINGEST_API_KEY=None)

    assert (ran.code, ran.out) == (2, "")
    assert "set SPRINGEST_API_KEY" in ran.err
    assert list((state / "springest").iterdir()) == []


async def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = await springest("bench", SPRINGEST_JOURNAL=str(tmp_path / "file" / "journal.sqlite3"))

    assert ran == Ran(2, "", f"springest: the invented certificates cannot be in {tmp_path / 'file'}: File exists\n")


async def test_a_reader_who_went_away_is_no_error(state: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = await start("bench", "--count", "1", env=environment(None), stdout=writing)
    finally:
        os.close(writing)
    ran = await end(process)

    assert (ran.code, ran.err.count("\n")) == (0, 1)
    assert list((state / "springest").iterdir()) == []


async def test_a_refused_key_is_told() -> None:
    async with Sandbox(api_key="another") as sandbox:
        ran = await springest("bench", "--count", "5", "--concurrency", "1", origin=sandbox.origin)

    assert ran.code == 4
    assert "  0 of 5, in " in ran.out
    assert "Stopped early: " in ran.err


async def test_a_server_that_thinks_bounds_the_run() -> None:
    async with SlowSandbox() as sandbox:
        ran = await end(await start("bench", "--count", "10", "--concurrency", "2", env=environment(sandbox.origin)))

    assert ran.code == 0
    assert bound_of(ran) == "the server"


async def test_a_thin_line_bounds_the_run() -> None:
    line = Line(up=Direction(bandwidth=4e7), buffer=64 * 1024)
    async with springest_sandbox() as sandbox, fault_proxy(sandbox.origin, line) as proxy:
        arguments = ("bench", "--count", "2", "--size", "30MB")
        ran = await end(await start(*arguments, env=environment(proxy.origin)))

    assert ran.code == 0
    assert bound_of(ran) == "the network"


async def test_a_slow_disk_bounds_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = SQLiteConnection.transaction

    @contextmanager
    def slow(connection: SQLiteConnection) -> Iterator[None]:
        with transaction(connection):
            yield
            time.sleep(0.03)

    monkeypatch.setattr(SQLiteConnection, "transaction", slow)
    ran = await springest("bench", "--limit", "off", "--count", "5", "--concurrency", "1")

    assert ran.code == 0
    assert bound_of(ran) == "the disk"


async def test_at_ctrl_c_the_figures_so_far_are_printed(state: Path) -> None:
    async with springest_sandbox() as sandbox:
        process = await start("bench", "--count", "45", env=environment(sandbox.origin))
        await until(lambda: len(sandbox.audit) == 30)
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert ran.code == 130
    assert "Stopping: finishing the uploads in progress." in ran.err
    assert "  30 of 45, in " in ran.out
    assert bound_of(ran)
    assert list((state / "springest").iterdir()) == []


async def test_the_sandbox_ends_with_the_bench_that_is_killed() -> None:
    process = await start("bench", "--count", "45", env=environment(None))

    def sandboxes() -> list[str]:
        return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

    await until(lambda: bool(sandboxes()))
    (sandbox,) = sandboxes()
    process.kill()
    await process.communicate()

    await until(lambda: not is_running(sandbox))


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # a process that has ended has none
    except FileNotFoundError:
        return False


@pytest.mark.soak  # a real minute
async def test_the_limit_bounds_the_run() -> None:
    ran = await end(await start("bench", "--count", "40", env=environment(None)), within=180.0)

    assert ran.code == 0
    assert re.search(r"\nmost POSTs in any 60 s +30, as the server counted\n", ran.out)
    assert re.search(r"\nPOSTs refused without a reason +0 of 40\n", ran.out)
    assert bound_of(ran) == "the limit"
