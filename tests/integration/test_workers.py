"""Several processes on one journal: who shares a manifest, who is stopped or cut off, and who is interrupted.

Each certificate is stored once, by the sandbox's audit, and no period sees more than 30 POSTs.
"""

import asyncio
import contextlib
import shutil
import signal
import sqlite3
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from aiohttp import web

from springest_async import Journal, Limiter, Settings, Springest, Timeouts
from springest_async.bulk import Manifest
from springest_async.journal.journal import engine_of
from springest_async.sandbox import Sandbox
from springest_async.sandbox.certificates import Form
from springest_async.sandbox.forms import read_form
from tests.pdfs import archive, certificate, hashes
from tests.waiting import until

from .command import HeldSandbox, environment, outcomes, start_attentive, stored, table_of, until_said
from .command import end as end_of_command
from .migration import IDLE, LEASE, MOMENTS, PERIOD, begin, end, uploads_of
from .servers.postgresql import Cluster, Database

LARGE = 60_000_000  # bytes; more than all buffers between two processes hold


def workers(where: Path | str) -> Counter[str]:
    """Return how many POSTs each worker has made, in the half of them in the middle."""
    with contextlib.closing(engine_of(where).connect(create=False)) as connection, connection.snapshot():
        lines = connection.execute("SELECT worker FROM attempts ORDER BY back_at")
    return Counter(worker for (worker,) in lines[len(lines) // 4 : -len(lines) // 4])


def most(sandbox: Sandbox) -> int:
    return sandbox.summary().most_in_any_period


# --- sharing ---


async def share(sandbox: HeldSandbox, *processes: Process) -> None:
    """Let two migrations end, and answer only when one sends as much as it does at once, and the other its first."""
    await until(lambda: sandbox.held == 9)
    sandbox.go_on.set()
    assert [await end(process) for process in processes] == [0, 0]


def held_sandbox() -> HeldSandbox:
    return HeldSandbox(api_key="sandbox-key", certifications_api_key="sandbox-certifications-key")


PATIENTLY = ("--answer", "60", "--lease", "60")


async def test_two_processes_share_a_manifest(tmp_path: Path) -> None:
    manifest, journal = archive(tmp_path, 24), tmp_path / "journal.sqlite3"
    async with held_sandbox() as sandbox:
        both = await asyncio.gather(*(begin(manifest, sandbox.origin, journal, *PATIENTLY) for _ in range(2)))
        await share(sandbox, *both)

    assert stored(sandbox) == hashes(tmp_path)
    assert len(sandbox.audit) == 24


LONG_PERIOD = 12.0  # seconds; beside it, what a busy machine needs to wake a process is little
PERIODS = 10


async def at_full_rate(
    folder: Path, journal: Path | str, befores: Sequence[tuple[str, ...]], *, concurrency: int
) -> None:
    """Check that workers that share a manifest send every row once, at the whole rate, and that each has its share."""
    manifest = archive(folder, 30 * PERIODS + 15)
    options = ("--period", str(LONG_PERIOD), "--concurrency", str(concurrency))
    async with Sandbox(period=LONG_PERIOD) as sandbox:
        processes = await asyncio.gather(
            *(begin(manifest, sandbox.origin, journal, *options, before=before) for before in befores)
        )
        assert [await end(process) for process in processes] == [0] * len(befores)

    assert stored(sandbox) == hashes(folder)
    summary = sandbox.summary()
    assert (summary.most_in_any_period, summary.refused_for_speed) == (30, 0)
    first, *_ = (post.seconds for post in sandbox.audit)
    in_time = sum(post.seconds < first + PERIODS * LONG_PERIOD for post in sandbox.audit)
    assert in_time >= 0.95 * 30 * PERIODS
    shares = workers(journal)
    assert len(shares) == len(befores)
    assert min(shares.values()) >= shares.total() / len(befores) / 2, shares


@pytest.mark.soak
async def test_four_processes_share_a_manifest(tmp_path: Path) -> None:
    await at_full_rate(tmp_path, tmp_path / "journal.sqlite3", [()] * 4, concurrency=8)


@pytest.mark.soak
@pytest.mark.postgresql
@pytest.mark.faketime
async def test_sixteen_workers_with_wrong_clocks(tmp_path: Path, database: Database) -> None:
    """From 90 s behind to an hour ahead; it is the wall clock that is wrong, as no other is ever set."""
    skews = [-90 + round(number * (3600 + 90) / 15) for number in range(16)]
    befores = [("faketime", "--exclude-monotonic", "-f", f"{skew:+d}s") for skew in skews]
    await at_full_rate(tmp_path, database.url, befores, concurrency=2)


@pytest.mark.postgresql
async def test_two_machines_share_an_archive(tmp_path: Path, database: Database) -> None:
    """Two homes, the same archive in each, and one PostgreSQL."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    manifest = archive(here, 24)
    shutil.copytree(here, there)
    async with held_sandbox() as sandbox:
        one = begin(here / manifest.name, sandbox.origin, database.url, *PATIENTLY, home=tmp_path / "one")
        other = begin(there / manifest.name, sandbox.origin, database.url, *PATIENTLY, home=tmp_path / "other")
        await share(sandbox, *await asyncio.gather(one, other))

    assert stored(sandbox) == hashes(here)
    assert len(sandbox.audit) == 24
    assert database.execute("SELECT count(*) FROM migrations") == [(1,)]


# --- services ---


def service(origin: str, journal: Path) -> tuple[Journal, Springest]:
    """Return a journal and a client of it, which share the budget of a migration."""
    opened = Journal(journal, lease=LEASE)
    settings = Settings(
        limiter=Limiter(period=PERIOD, requests_per_hour=1_000_000, ledger=opened.ledger("a budget")),
        timeouts=Timeouts(answer=3.0),
    )
    return opened, Springest(api_key="sandbox-key", host=origin, settings=settings, journal=opened)


async def test_a_service_beside_a_bulk_run_sends_nothing_twice(tmp_path: Path) -> None:
    manifest, path = archive(tmp_path, 45), tmp_path / "journal.sqlite3"
    async with Sandbox(period=PERIOD) as sandbox:
        process = await begin(manifest, sandbox.origin, path)
        journal, springest = service(sandbox.origin, path)
        async with journal, springest:
            receipts = await asyncio.gather(
                *(springest.upload(upload) for upload in reversed(uploads_of(Manifest.open(manifest))))
            )
        assert await end(process) == 0

    assert stored(sandbox) == hashes(tmp_path)
    assert len(sandbox.audit) == 45
    assert most(sandbox) <= 30
    ids = {post.fields["email"]: post.certificate_id for post in sandbox.audit}
    assert {receipt.upload.email: receipt.id for receipt in receipts} == ids
    assert {receipt.stored_before for receipt in receipts} == {True, False}


@pytest.mark.soak
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_service_that_was_killed_sends_nothing_twice(tmp_path: Path, moment: str) -> None:
    manifest, journal = archive(tmp_path, 12), tmp_path / "journal.sqlite3"
    async with Sandbox(period=PERIOD, body_timeout=IDLE) as sandbox:
        killed = await begin(manifest, sandbox.origin, journal, "--service", "--moment", moment, "--after", "4")
        assert await end(killed) == -signal.SIGKILL
        assert await end(await begin(manifest, sandbox.origin, journal, "--service")) == 0

    assert stored(sandbox) == hashes(tmp_path)
    assert most(sandbox) <= 30


# --- stopped, and cut off ---


@attrs.define(kw_only=True, eq=False)
class SlowSandbox(Sandbox):
    """A sandbox that reads the first body only after `go_on`, and not to its end before that.

    Attributes:
        reads: how many bodies it has begun to read, or would have.
    """

    go_on: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    reads: int = attrs.field(init=False, default=0)

    @contextlib.contextmanager
    def reading(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        async def read_later(request: web.Request, form: Form, body_timeout: float) -> None:
            self.reads += 1
            if self.reads == 1:
                await self.go_on.wait()
            await read_form(request, form, body_timeout)

        with monkeypatch.context() as patched:
            patched.setattr("springest_async.sandbox.server.read_form", read_later)
            yield


def large_archive(folder: Path) -> Path:
    manifest = archive(folder, 1)
    (folder / "1.pdf").write_bytes(certificate("No. 1").replace(b"%%EOF", b"%" * LARGE + b"\n%%EOF"))
    return manifest


def verdicts(sandbox: Sandbox) -> Counter[str]:
    return Counter(post.verdict for post in sandbox.audit)


@contextlib.contextmanager
def sqlite_locked(path: Path) -> Iterator[None]:
    """Let no other process write the journal, as a program does that hangs in the middle of a transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def is_stopped(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    journal: Path | str,
    unlocked: contextlib.AbstractContextManager[None],
) -> None:
    """Check that a worker that stood still past its lease cuts its body, as another one has sent its certificate."""
    manifest = large_archive(folder)
    async with SlowSandbox(period=PERIOD) as sandbox:
        with sandbox.reading(monkeypatch):
            stopped = await begin(manifest, sandbox.origin, journal)
            await until(lambda: sandbox.reads == 1)
            with unlocked:
                stopped.send_signal(signal.SIGSTOP)
                await until(lambda: " T " in Path(f"/proc/{stopped.pid}/stat").read_text())
            assert await end(await begin(manifest, sandbox.origin, journal)) == 0
            assert verdicts(sandbox) == {"stored": 1}
            sandbox.go_on.set()
            stopped.send_signal(signal.SIGCONT)
            # On PostgreSQL it may have been stopped within a transaction, which the server has ended.
            assert await end(stopped, warnings=True) == 0
            await until(lambda: len(sandbox.audit) == 2)

    assert verdicts(sandbox) == {"stored": 1, "broken off": 1}
    assert most(sandbox) <= 30


@pytest.mark.soak
async def test_a_worker_stopped_past_its_lease_cuts_its_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "journal.sqlite3"
    # One that is stopped in the middle of a commit keeps the others from theirs.
    await is_stopped(tmp_path, monkeypatch, journal, sqlite_locked(journal))


@pytest.mark.soak
@pytest.mark.postgresql
async def test_a_worker_stopped_on_postgresql_cuts_its_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    await is_stopped(tmp_path, monkeypatch, database.url, contextlib.nullcontext())


async def is_cut_off(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    journal: Path | str,
    away: contextlib.AbstractContextManager[None],
) -> None:
    """Check that a worker whose journal goes away stops sending, and goes on when it is back."""
    manifest = large_archive(folder)
    async with SlowSandbox(period=PERIOD) as sandbox:
        with sandbox.reading(monkeypatch):
            process = await begin(manifest, sandbox.origin, journal)
            await until(lambda: sandbox.reads == 1)
            with away:
                await asyncio.sleep(LEASE)  # after which others may take over
                sandbox.go_on.set()
                await until(lambda: verdicts(sandbox) == {"broken off": 1})
            assert await end(process, warnings=True) == 0

    assert verdicts(sandbox) == {"broken off": 1, "stored": 1}
    assert most(sandbox) <= 30


@pytest.mark.soak
async def test_a_worker_without_its_sqlite_journal_stops_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.sqlite3"
    await is_cut_off(tmp_path, monkeypatch, journal, sqlite_locked(journal))


@pytest.mark.soak
@pytest.mark.postgresql
async def test_a_worker_without_its_postgresql_stops_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql: Cluster, database: Database
) -> None:
    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        postgresql.stop("immediate")
        try:
            yield
        finally:
            postgresql.start()

    await is_cut_off(tmp_path, monkeypatch, database.url, stopped())


# --- interrupted ---


def claims(path: Path) -> set[str]:
    """Return the workers that have claimed anything in a journal."""
    with contextlib.closing(engine_of(path).connect(create=False)) as connection, connection.snapshot():
        lines = connection.execute(
            "SELECT worker FROM manifest_rows WHERE worker IS NOT NULL"
            " UNION SELECT worker FROM certificates WHERE worker IS NOT NULL UNION SELECT id FROM workers"
        )
    return {worker for (worker,) in lines}


async def test_ctrl_c_stops_only_one_of_two_runs(tmp_path: Path, state: Path) -> None:
    """What it has claimed is free at once, and the other run goes on with it."""
    manifest, journal = archive(tmp_path, 24), state / "springest" / "journal.sqlite3"
    async with HeldSandbox() as sandbox:
        one = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.held == 8)
        (interrupted,) = claims(journal)
        sandbox.answers = 1
        other = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until_said(other, "working on this manifest too")
        await until(lambda: sandbox.held == 16)
        assert len(claims(journal)) == 2
        one.send_signal(signal.SIGINT)
        await until_said(one, "Stopping")
        sandbox.release()  # and hold what follows, or the other run may be done before this one
        first = await end_of_command(one)
        assert interrupted not in claims(journal)
        sandbox.go_on.set()
        second = await end_of_command(other)

    assert first.code == 130
    assert "still working on this manifest" in first.err
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=24))
    assert stored(sandbox) == hashes(tmp_path)
    assert len(sandbox.audit) == 24
