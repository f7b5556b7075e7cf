"""Bulk runs of the real client against the sandbox: what the queue's tests in memory cannot show."""

import asyncio
import csv
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import stamina

from springest_async import InDoubt, Journal, Limiter, Settings, Springest, Timeouts
from springest_async.bulk import (
    COLUMNS,
    Manifest,
    Report,
    RunRecorder,
    State,
    UploadQueue,
    load_manifest,
    write_failed,
)
from springest_async.sandbox import Mishap, Sandbox
from tests.bulk_runs import Events, attempts, employees, entries, journal_of, queue_of, rewrite, rows_of, run, states
from tests.integration.raw_server import Exchange, raw_server
from tests.pdfs import archive
from tests.waiting import A_WHILE

STORED, IN_DOUBT, WAITING = State.STORED, State.IN_DOUBT, State.WAITING
ERROR_PAGE = '{"status":500,"error":"Internal Server Error"}'  # the sandbox's


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(autouse=True)
def _in_real_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail soon when a run does not end, ask for lists again at once, and pause shortly after many doubts."""
    monkeypatch.setattr("tests.bulk_runs._LONG", A_WHILE)
    for module in ("gate", "settling"):
        monkeypatch.setattr(f"springest_async.bulk.{module}.backoff", lambda failures, longest=0.1: 0.1)
    with stamina.set_testing(True, attempts=2):
        yield


@asynccontextmanager
async def client_of(
    sandbox: Sandbox, manifest: Manifest, *, both_keys: bool = True, concurrency: int = 8, **limit: float
) -> AsyncIterator[Springest]:
    """Open a client with the manifest's journal, that need not wait long before it takes a certificate for not stored.

    Its limit is no limit, unless `limit` says so.
    """
    async with Journal(journal_of(manifest)) as journal:
        numbers: dict[str, Any] = {"posts": 500, "period": 1.0} | limit
        limiter = Limiter(**numbers, ledger=journal.ledger("a budget"))
        settings = Settings(limiter=limiter, concurrency=concurrency, timeouts=Timeouts(answer=0.3))
        async with Springest(
            api_key=sandbox.api_key,
            certifications_api_key=sandbox.certifications_api_key if both_keys else None,
            host=sandbox.origin,
            settings=settings,
            journal=journal,
        ) as springest:
            yield springest


def stored_once(sandbox: Sandbox) -> list[str]:
    """Return the email addresses of what is stored, sorted; fails when one is stored twice."""
    stored = [(post.fields["email"], post.sha256) for post in sandbox.audit if post.verdict == "stored"]
    assert len(set(stored)) == len(stored)
    return sorted(email for email, _ in stored)


async def test_after_any_mishap_a_certificate_is_stored_once(tmp_path: Path, events: Events) -> None:
    mishaps = list(Mishap)
    manifest = rows_of(tmp_path, len(mishaps) + 1)
    script = iter([*mishaps, None])
    async with Sandbox(mishap=script.__next__) as sandbox, client_of(sandbox, manifest, concurrency=1) as springest:
        assert await run(springest, manifest, events) is None

        assert stored_once(sandbox) == employees(*range(1, len(mishaps) + 2))
    assert events.states == dict.fromkeys(range(2, len(mishaps) + 3), STORED)
    assert {event.error for event in events.done} == {None}
    assert sandbox.summary().posts == len(mishaps) + 1 + sum(not mishap.stores for mishap in mishaps)
    ids = {post.fields["email"]: post.certificate_id for post in sandbox.audit if post.verdict == "stored"}
    assert {entry.email: entry.springest_id for entry in (await entries(manifest)).values()} == ids
    for row, mishap in enumerate(mishaps, start=2):
        in_doubt = (IN_DOUBT, mishap.status, ERROR_PAGE if mishap.status else "")
        assert await attempts(manifest, row) == [in_doubt] + ([] if mishap.stores else [(STORED, 201, "")])


@pytest.mark.parametrize("both_keys", [True, False])
async def test_a_doubt_stays_while_springest_does_not_show_it(tmp_path: Path, both_keys: bool) -> None:
    """Its certification is not verified yet."""
    manifest = rows_of(tmp_path, 1, {1: {"certification_id": "3"}})
    script = iter([Mishap.DROP_AFTER_STORING])
    async with Sandbox(mishap=script.__next__) as sandbox:
        for verified in (False, False, True):
            if verified:
                sandbox.verify(3)
            events = Events()
            async with client_of(sandbox, manifest, both_keys=both_keys) as springest:
                assert await run(springest, manifest, events) is None

            assert events.states == {2: STORED if verified else IN_DOUBT}
            if not verified:
                assert isinstance(doubt := events.error(2), InDoubt)
                # However often it was asked, it is said once.
                assert doubt.reason.count("Springest does not list it") == 1
                assert (await entries(manifest))[2].reason == doubt.reason
    assert sandbox.summary().posts == 1
    assert (await entries(manifest))[2].springest_id == 1


async def test_each_step_is_on_disk_before_the_next_byte(tmp_path: Path, events: Events) -> None:
    """Sending when the first byte arrives, and the outcome before the next row."""
    manifest = rows_of(tmp_path, 3)
    seen: list[dict[int, State]] = []

    async def look_into_the_journal(exchange: Exchange) -> None:
        seen.append(await states(manifest))
        await exchange.read()
        await exchange.answer(201, b'{"id": %d}' % len(seen))

    one_by_one, journal = Settings(concurrency=1), journal_of(manifest)
    async with (
        raw_server(look_into_the_journal) as raw,
        Springest(api_key="key", host=raw.origin, settings=one_by_one, journal=journal) as springest,
    ):
        assert await run(springest, manifest, events) is None

    sending = State.SENDING
    assert seen == [
        {2: sending, 3: WAITING, 4: WAITING},
        {2: STORED, 3: sending, 4: WAITING},
        {2: STORED, 3: STORED, 4: sending},
    ]
    assert [await attempts(manifest, row) for row in (2, 3, 4)] == [[(STORED, 201, "")]] * 3


async def test_a_single_upload_goes_before_a_hundred_rows(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 1)
    line = manifest.path.read_text().splitlines()[1]
    manifest = rewrite(manifest, lambda _: [line.replace("employee1", f"e{number}") for number in range(100)])
    async with (
        Sandbox(limit=500) as sandbox,
        client_of(sandbox, manifest, posts=1, period=0.1) as springest,
        queue_of(springest, manifest, events) as queue,
    ):
        running = asyncio.create_task(queue.run())
        await events.until(lambda: len(events.done) == 2)
        upload = attrs.evolve((await entries(manifest))[2].upload(), email="somebody@example.org")
        before = len(events.steps)
        await springest.upload(upload)
        queue.stop()
        assert await running is None

    posted = [post.fields["email"] for post in sandbox.audit]
    sent_before = sum(step.step.kind == "sending" for step in events.steps[:before])
    assert posted.index("somebody@example.org") <= sent_before + 1
    assert Counter((await states(manifest)).values())[WAITING] > 90


async def upload(sandbox: Sandbox, path: Path) -> tuple[Report, Path | None]:
    """Upload and write the failed rows, as the command does."""
    manifest = Manifest.open(path)
    async with client_of(sandbox, manifest) as springest:
        assert springest.journal is not None
        migration, loaded = await load_manifest(springest.journal, manifest, sandbox.origin)
        recorder = RunRecorder(loaded)
        assert await UploadQueue(springest, migration, recorder).run() is None
        return await recorder.report(migration), await write_failed(migration, manifest)


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter=";"))


async def test_uploading_the_failed_rows_doubles_nothing(tmp_path: Path) -> None:
    path = archive(
        tmp_path,
        6,
        columns=(*COLUMNS, "naam"),
        delimiter=";",
        changes={
            2: {"certification_id": "99", "naam": "Zoë"},
            3: {"file": "late.pdf", "naam": "Piet"},
            4: {"certification_id": "3"},  # not verified, so that a doubt about it stays
        },
    )
    script = iter([None, Mishap.DROP_AFTER_STORING])  # of any row: what is shown is found again
    async with Sandbox(mishap=script.__next__) as sandbox:
        report, failed = await upload(sandbox, path)

        assert failed == tmp_path / "certificates.failed.csv"
        assert report.rows == 6
        assert report.count(State.REJECTED, State.FAILED) == 2
        assert report.count(STORED) + report.count(IN_DOUBT) == 4
        assert [row[:3] for row in table(failed)[1:]] == [
            ["2.pdf", "99", "employee2@example.org"],
            ["late.pdf", "1", "employee3@example.org"],
        ]
        assert [row[-2] for row in table(failed)] == ["naam", "Zoë", "Piet"]

        # One of them is corrected there, and the other one's file comes in.
        failed.write_text(failed.read_text(encoding="utf-8").replace(";99;", ";1;"), encoding="utf-8")
        (tmp_path / "late.pdf").write_bytes((tmp_path / "3.pdf").read_bytes())
        assert await upload(sandbox, failed) == (Report(counts=Counter({STORED: 2}), posts=2, stored=2), None)
        assert await upload(sandbox, failed) == (Report(counts=Counter({STORED: 2})), None)

        # The first manifest still has the row as it was refused; nothing else of it is sent.
        report, again = await upload(sandbox, path)
    assert (report.posts, report.rows) == (0, 6)
    assert (report.count(State.REJECTED, State.FAILED), report.count(WAITING)) == (1, 0)
    assert again == tmp_path / "certificates.failed-2.csv"
    stored = [post.sha256 for post in sandbox.audit if post.verdict == "stored"]
    assert len(stored) == len(set(stored)) == 6
