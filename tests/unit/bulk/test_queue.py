"""The queue on real journals, with a client and a server in memory, in virtual time; see `tests.virtual`."""

import asyncio
import gc
import os
import tracemalloc
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import attrs
import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from springest_async import (
    Certificate,
    CertificateUpload,
    Forbidden,
    InDoubt,
    InvalidUpload,
    Journal,
    JournalError,
    Limiter,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    Springest,
    SpringestError,
    UnexpectedStatus,
    UnusableFile,
)
from springest_async.api.verdicts import TRIES
from springest_async.bulk import (
    COLUMNS,
    Entry,
    Manifest,
    OpenMigration,
    RowDone,
    RowStep,
    State,
    UploadQueue,
    load_manifest,
)
from springest_async.journal import certificates, file_hashes, manifest_rows, migrations
from springest_async.source_file import FileReader
from tests.bulk_runs import (
    Event,
    Events,
    attempts,
    employees,
    entries,
    loaded,
    queue_of,
    rewrite,
    rows_of,
    run,
    sha256_of,
    states,
    was_killed,
)
from tests.pdfs import archive, certificate
from tests.unit.bulk.model import ENDS, PLAIN, Look, ModelClient, Script, doubt_of
from tests.virtual import InlineCommit

pytestmark = [pytest.mark.looptime(start=0, noop_cycles=0), pytest.mark.usefixtures("clock")]

STORED, REJECTED, FAILED, IN_DOUBT, WAITING = (
    State.STORED,
    State.REJECTED,
    State.FAILED,
    State.IN_DOUBT,
    State.WAITING,
)
LOST, FOUND = ENDS["in doubt and not stored"], ENDS["in doubt and stored"]
REFUSED = Script(steps=("waiting", "sending", "refused", "waiting", "sending"))


@pytest.fixture
def events() -> Events:
    return Events()


def client(*ends: str | Script, concurrency: int = 1, looks: Iterable[Look] = ()) -> Any:
    """Return a client whose uploads end like this, in their order; the others are stored."""
    return ModelClient([ENDS[end] if isinstance(end, str) else end for end in ends], concurrency, looks)


def now() -> float:
    return asyncio.get_running_loop().time()


# --- the rows that come to their end ---


async def test_every_row_is_stored_and_reported_once(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 12), client(concurrency=8)

    assert await run(model, manifest, events) is None

    assert events.states == dict.fromkeys(range(2, 14), STORED)
    assert {event.error for event in events.done} == {None}
    receipts = {event.row.number: event.receipt.id for event in events.done if event.receipt}
    assert sorted(receipts.values(), key=str) == sorted(range(1, 13), key=str)
    assert {number: entry.springest_id for number, entry in (await entries(manifest)).items()} == receipts


async def test_rows_that_fail_keep_no_others_back(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 6, {1: {"email": "no address"}, 2: {"file": "none.pdf"}})
    model = client("rejected", "stored", "rejected at last", "stored")

    assert await run(model, manifest, events) is None

    assert events.states == {2: FAILED, 3: FAILED, 4: REJECTED, 5: STORED, 6: REJECTED, 7: STORED}
    kinds = [type(events.error(row)) for row in (2, 3, 4, 6)]
    assert kinds == [InvalidUpload, UnusableFile, Rejected, Rejected]
    assert model.posts == 4
    told = {row: entry.reason for row, entry in (await entries(manifest)).items()}
    assert [told[row] for row in (2, 4, 6)] == [str(events.error(row)) for row in (2, 4, 6)]
    assert told[3] == "there is no such file"


async def test_a_manifest_without_rows_is_done_at_once(tmp_path: Path, events: Events) -> None:
    assert await run(client(), rows_of(tmp_path, 0), events) is None

    assert (events.states, events.steps) == ({}, [])


async def test_a_manifest_that_is_finished_is_done_at_once(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 3), client("stored", "stored", "rejected")
    assert await run(model, manifest, Events()) is None

    assert await run(model, manifest, events) is None

    assert await states(manifest) == {2: STORED, 3: STORED, 4: REJECTED}
    assert (events.done, events.steps, events.settling) == ([], [], [])
    assert (model.posts, model.asked) == (3, 0)


async def test_a_row_in_doubt_keeps_no_others_back(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 4), client("stored", LOST, looks=["may not be asked"])

    assert await run(model, manifest, events) is None

    assert events.states == {2: STORED, 3: IN_DOUBT, 4: STORED, 5: STORED}
    doubt = events.error(3)
    assert isinstance(doubt, InDoubt)
    assert (doubt.email, doubt.certification_id) == ("employee2@example.org", 1)
    assert doubt.reason.startswith("no answer; Springest could not be asked (GET")
    assert (await entries(manifest))[3].reason == doubt.reason
    assert events.count(3, "sending") == 1
    assert [event.row.number for event in events.settling] == [3]


async def test_an_unknown_status_fails_its_row_only(tmp_path: Path, events: Events) -> None:
    assert await run(client("unknown status"), rows_of(tmp_path, 2), events) is None

    assert events.states == {2: FAILED, 3: STORED}
    assert isinstance(events.error(2), UnexpectedStatus)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_the_same_certificate_in_two_rows_is_posted_once(
    tmp_path: Path, events: Events, concurrency: int
) -> None:
    """Under two names, which the preflight reports only when it has hashed both. Both rows get the outcome."""
    manifest = rows_of(tmp_path, 2, {2: {"email": "employee1@example.org"}})
    model = client(Script(turns=5), concurrency=concurrency)
    (tmp_path / "2.pdf").write_bytes((tmp_path / "1.pdf").read_bytes())

    assert await run(model, manifest, events) is None

    assert await states(manifest) == {2: STORED, 3: STORED}
    assert [(event.row.number, event.stored_before) for event in events.done] == (
        [(2, False), (3, True)] if concurrency == 1 else [(2, False)]
    )
    assert model.posts == 1


# --- how many are in flight ---


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_few_rows_are_claimed_ahead_of_their_turn(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """A worker claims some rows at once, and the next ones when it has begun half of these."""
    claimed: list[int] = []
    begun: list[int] = []
    claim_rows = manifest_rows.claim_rows

    def claim(*arguments: Any, **options: Any) -> list[Entry]:
        rows = claim_rows(*arguments, **options)
        claimed.extend(row.id for row in rows)
        begun.append(len(claimed) - len({step.row.id for step in events.steps}))
        return rows

    monkeypatch.setattr(manifest_rows, "claim_rows", claim)
    model = client(*[Script(turns=2)] * 50, concurrency=concurrency)

    assert await run(model, rows_of(tmp_path, 50), events) is None

    assert events.states == dict.fromkeys(range(2, 52), STORED)
    assert len(claimed) == len(set(claimed)) == 50
    assert max(begun) <= 1.5 * max(8, concurrency)


async def test_rows_that_wait_for_the_limit_are_read_one_by_one(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files may change before they leave."""
    together: list[int] = []
    identify_all = OpenMigration.identify_all

    async def identify(migration: OpenMigration, rows: Any) -> Any:
        together.append(len(rows))
        return await identify_all(migration, rows)

    monkeypatch.setattr(OpenMigration, "identify_all", identify)
    model = client()
    model.limiter = Limiter(burst=1)

    assert await run(model, rows_of(tmp_path, 6), events) is None

    assert events.states == dict.fromkeys(range(2, 8), STORED)
    assert together == [1] * 6


async def test_a_file_that_changes_before_a_late_turn_is_sent_anew(tmp_path: Path, events: Events) -> None:
    """It was read with others, then a pause began, because the server seemed to be down."""
    manifest, model = rows_of(tmp_path, 6), client(*[LOST] * 4, looks=["cannot tell"] * 4)
    changed = tmp_path / "5.pdf"

    def change() -> None:
        if not events.outages:
            changed.write_bytes(certificate("mended"))

    events.when(lambda: events.count(5, "sending") == 1, change)

    assert await run(model, manifest, events) is None

    assert events.states == dict.fromkeys(range(2, 6), IN_DOUBT) | {6: STORED, 7: STORED}
    assert now() > 10
    assert sha256_of(changed) in model.hashes.values()
    assert (await entries(manifest))[6].springest_id in model.hashes


@pytest.mark.parametrize("most", [0, 4, 100])
async def test_few_bytes_of_files_are_kept_to_be_sent(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    kept = 0

    class Kept(ModelClient):
        async def upload_claimed(self, *arguments: Any, reader: FileReader | None = None, **options: Any) -> Receipt:
            nonlocal kept
            kept += reader is not None
            return await super().upload_claimed(*arguments, reader=reader, **options)

    manifest = rows_of(tmp_path, 8)
    monkeypatch.setattr("springest_async.bulk.queue._KEPT", most * (tmp_path / "1.pdf").stat().st_size)
    async with queue_of(cast(Springest, Kept()), manifest, events) as queue:
        assert await queue.run() is None
        assert queue._kept == 0

    assert events.states == dict.fromkeys(range(2, 10), STORED)
    assert kept == min(most, 8)


# --- stop and cancel ---


def one_sent_and_one_waiting(go_on: asyncio.Event) -> Any:
    """Return a client that has stored a row, answers the next when it may, and lets no third one leave."""
    held = asyncio.Event()  # never set
    return client(PLAIN, Script(at={"sending": go_on.wait}), Script(at={"waiting": held.wait}), concurrency=2)


async def both_under_way(events: Events) -> None:
    await events.until(lambda: events.count(4, "sending") == events.count(3, "waiting") == 1)


async def test_stop_finishes_a_post_and_puts_back_what_waits(tmp_path: Path, events: Events) -> None:
    go_on, manifest = asyncio.Event(), rows_of(tmp_path, 5)
    async with queue_of(one_sent_and_one_waiting(go_on), manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await both_under_way(events)
        assert repr(queue) == f"<UploadQueue {tmp_path / 'a journal.sqlite3'}, 2 in flight, running>"

        queue.stop()
        await events.until(lambda: len(events.done) == 2)
        assert events.states == {2: STORED, 3: WAITING}
        assert repr(queue) == f"<UploadQueue {tmp_path / 'a journal.sqlite3'}, 1 in flight, stopping>"
        go_on.set()
        assert await running is None

    assert events.states == {2: STORED, 3: WAITING, 4: STORED}
    assert events.error(3) is None
    assert await states(manifest) == {2: STORED, 3: WAITING, 4: STORED, 5: WAITING, 6: WAITING}


async def test_a_queue_stopped_before_it_runs_sends_nothing(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 3), client(concurrency=8)
    async with queue_of(model, manifest, events) as queue:
        queue.stop()
        queue.stop()

        assert await queue.run() is None

    assert events.states == {}
    assert await states(manifest) == dict.fromkeys((2, 3, 4), WAITING)
    assert model.posts == 0


async def test_a_row_refused_after_stop_is_not_sent_again(tmp_path: Path, events: Events) -> None:
    model = client(attrs.evolve(REFUSED, turns=1))
    async with queue_of(model, rows_of(tmp_path, 1), events) as queue:
        events.when(lambda: events.count(2, "sending") == 1, queue.stop)
        await queue.run()

    assert events.states == {2: WAITING}
    assert events.count(2, "sending") == model.posts == 1


async def test_cancel_leaves_in_doubt_what_is_being_sent(tmp_path: Path, events: Events) -> None:
    before, manifest = datetime.now(UTC), rows_of(tmp_path, 5)
    async with queue_of(one_sent_and_one_waiting(asyncio.Event()), manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await both_under_way(events)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert events.states == {2: STORED, 3: WAITING, 4: IN_DOUBT}
    doubt = events.error(4)
    assert isinstance(doubt, InDoubt)
    assert (doubt.email, doubt.certification_id) == ("employee3@example.org", 1)
    assert before <= doubt.sent_at <= doubt.given_up_at <= datetime.now(UTC)
    assert await states(manifest) == {2: STORED, 3: WAITING, 4: IN_DOUBT, 5: WAITING, 6: WAITING}


async def test_cancelled_while_a_file_is_recorded_as_missing(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is reported is what the journal has."""
    manifest = rows_of(tmp_path, 3, {1: {"file": "none.pdf"}})
    unreadable = manifest_rows.unreadable

    def cancel_first(*arguments: Any) -> State:
        running.cancel()
        return unreadable(*arguments)

    monkeypatch.setattr(manifest_rows, "unreadable", cancel_first)
    async with queue_of(client(), manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await asyncio.wait([running])

    assert running.cancelled()
    assert events.states[2] is FAILED


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("job", ["claim_rows", "identify"])
async def test_stopped_while_rows_are_made_ready_none_is_begun(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch, job: str, cancel: bool
) -> None:
    manifest, model = rows_of(tmp_path, 12), client(concurrency=2)
    done = getattr(manifest_rows, job)

    def stop_first(*arguments: Any, **options: Any) -> Any:
        if cancel:
            running.cancel()
        else:
            queue.stop()
        return done(*arguments, **options)

    monkeypatch.setattr(manifest_rows, job, stop_first)
    async with queue_of(model, manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await asyncio.wait([running])
        held = await queue._journal.run(
            methodcaller(
                "execute",
                "SELECT claim FROM manifest_rows WHERE claim IS NOT NULL"
                " UNION ALL SELECT claim FROM certificates WHERE claim IS NOT NULL",
            )
        )

    assert running.cancelled() == cancel
    assert (held, events.done, events.steps, model.posts) == ([], [], [], 0)


async def stand_still(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def test_cancel_ends_a_run_whose_journal_is_away(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 4)
    async with queue_of(one_sent_and_one_waiting(asyncio.Event()), manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await both_under_way(events)
        with patch.object(Journal, "run", stand_still):
            running.cancel()
            await asyncio.wait([running], timeout=1e6)

    assert running.cancelled()
    assert events.states == {2: STORED, 3: WAITING, 4: IN_DOUBT}


# --- what ends a run ---


async def test_a_refused_key_ends_the_run_with_all_rows_waiting(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 20), client(*["key refused"] * 20, concurrency=2)

    error = await run(model, manifest, events)

    assert isinstance(error, NotAuthorized)
    assert set(events.states.values()) == {WAITING}
    assert {type(event.error) for event in events.done} == {NotAuthorized}
    assert len(events.done) == 2
    assert model.posts == 1
    assert await states(manifest) == dict.fromkeys(range(2, 22), WAITING)


async def test_a_key_that_becomes_unknown_ends_the_run(tmp_path: Path, events: Events) -> None:
    error = await run(client("stored", "key refused"), rows_of(tmp_path, 4), events)

    assert isinstance(error, NotAuthorized)
    assert events.states == {2: STORED, 3: WAITING}
    assert events.error(3) is error


@pytest.mark.parametrize(
    ("end", "kind"), [("forbidden", Forbidden), ("not found", NotFound), ("redirected", Redirected)]
)
async def test_a_wrong_key_or_host_at_the_start_ends_the_run(
    tmp_path: Path, events: Events, end: str, kind: type[SpringestError]
) -> None:
    error = await run(client(end), rows_of(tmp_path, 2), events)

    assert isinstance(error, kind)
    assert events.states == {2: WAITING}


async def test_later_on_it_may_be_the_row_and_the_run_goes_on(tmp_path: Path, events: Events) -> None:
    model = client("stored", "forbidden", "stored", "not found", "stored", "redirected", "stored")

    assert await run(model, rows_of(tmp_path, 7), events) is None

    assert events.states == {2: STORED, 3: FAILED, 4: STORED, 5: FAILED, 6: STORED, 7: FAILED, 8: STORED}
    assert [type(events.error(row)) for row in (3, 5, 7)] == [Forbidden, NotFound, Redirected]


@pytest.mark.parametrize("second", ["forbidden", "not found", "redirected"])
async def test_a_second_such_answer_in_a_row_ends_the_run(tmp_path: Path, events: Events, second: str) -> None:
    error = await run(client("stored", "not found", second), rows_of(tmp_path, 4), events)

    assert isinstance(error, Forbidden | NotFound | Redirected)
    assert events.states == {2: STORED, 3: FAILED, 4: WAITING}
    assert events.error(4) is error


async def test_a_rejected_row_shows_that_key_and_host_are_right(tmp_path: Path, events: Events) -> None:
    model = client("stored", "forbidden", "rejected", "forbidden", "stored")

    assert await run(model, rows_of(tmp_path, 5), events) is None

    assert events.states == {2: STORED, 3: FAILED, 4: REJECTED, 5: FAILED, 6: STORED}


async def test_no_connection_at_the_start_ends_the_run(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 5)

    error = await run(client(*["no network"] * TRIES, concurrency=2), manifest, events)

    assert 2 + 4 + 8 <= now() <= 1.5 * 14
    assert isinstance(error, NotSent)
    assert not error.connected
    assert set(events.states.values()) == {WAITING}
    assert await states(manifest) == dict.fromkeys(range(2, 7), WAITING)


async def test_the_rows_of_another_host_are_left_alone(tmp_path: Path, events: Events) -> None:
    """The same manifest is loaded for both hosts in one journal."""
    manifest, model = rows_of(tmp_path, 3), client(concurrency=2)
    async with loaded(manifest, "https://elsewhere.example") as elsewhere:
        assert await run(model, manifest, events) is None
        assert await elsewhere.counts() == {WAITING: 3}

    assert events.states == dict.fromkeys((2, 3, 4), STORED)
    assert model.posts == 3


@pytest.mark.parametrize("removed", [False, True])
async def test_a_change_of_the_manifest_is_for_the_next_run(tmp_path: Path, events: Events, removed: bool) -> None:
    manifest, model = rows_of(tmp_path, 20), client(concurrency=4)
    header, rest = manifest.path.read_text().split("\n", 1)
    new = "".join(f"1.pdf,1,new{number}@example.org,2026-01-31,,\n" for number in range(7))

    def change() -> None:
        manifest.path.unlink(missing_ok=True)
        if not removed:
            manifest.path.write_text(f"{header}\n{new}{rest}")

    events.when(lambda: len(events.done) == 5, change)
    assert await run(model, manifest, events) is None

    assert sorted(model.stored) == employees(*range(1, 21))
    assert events.states == dict.fromkeys(range(2, 22), STORED)


# --- a server that answers nothing definite ---


async def test_in_an_outage_one_row_at_a_time_tries(tmp_path: Path, events: Events) -> None:
    """Each one after a longer pause; once the server is back, at full speed."""
    last_in_doubt, concurrency = 13, 4
    in_flight = 0
    most: list[int] = []  # how many were in flight when a row was sent
    sent_at: list[float] = []

    async def a_second() -> None:
        nonlocal in_flight
        in_flight += 1
        most.append(in_flight)
        sent_at.append(now())
        await asyncio.sleep(1)
        in_flight -= 1

    lost = [attrs.evolve(LOST, at={"sending": a_second})] * (last_in_doubt - 1)
    model = client(*lost, *[Script(at={"sending": a_second})] * 16, concurrency=concurrency, looks=["cannot tell"] * 12)

    assert await run(model, rows_of(tmp_path, 28), events) is None

    in_doubt = dict.fromkeys(range(2, last_in_doubt + 1), IN_DOUBT)
    assert events.states == in_doubt | dict.fromkeys(range(last_in_doubt + 1, 30), STORED)
    # The first four became in doubt together, and each later one has a pause that grows up to ten minutes.
    alone = range(4, last_in_doubt)
    assert [most[index] for index in alone] == [1] * len(alone)
    pauses = [sent_at[index] - sent_at[index - 1] - 1 for index in alone]
    for doubts, pause in enumerate(pauses, start=4):
        assert min(600, 2**doubts) <= round(pause, 3) <= min(600, 1.5 * 2**doubts)
    assert max(most[last_in_doubt:]) == concurrency
    assert sent_at[-1] - sent_at[last_in_doubt] < 10


@pytest.mark.parametrize("end", ["cut off", "unknown status"])
async def test_a_gateway_without_its_server_fails_few_rows(tmp_path: Path, events: Events, end: str) -> None:
    async with queue_of(client(*[end] * 40, concurrency=4), rows_of(tmp_path, 40), events) as queue:
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(15)
        queue.stop()
        await running

    failed = [row for row, state in events.states.items() if state is FAILED]
    assert 4 <= len(failed) <= 8  # those that were in flight when it was noticed


async def test_doubts_with_other_answers_between_are_no_outage(tmp_path: Path, events: Events) -> None:
    ends: list[str | Script] = [LOST, LOST, LOST, "stored", LOST, LOST, LOST, "rejected", LOST]
    assert await run(client(*ends, looks=["cannot tell"] * 7), rows_of(tmp_path, 9), events) is None

    assert list(events.states.values()).count(IN_DOUBT) == 7
    assert now() == 0


@pytest.mark.parametrize("cancel", [False, True])
async def test_stop_and_cancel_end_the_pause_of_an_outage(tmp_path: Path, events: Events, cancel: bool) -> None:
    manifest = rows_of(tmp_path, 12)
    model = client(*[LOST] * 20, concurrency=3, looks=["cannot tell"] * 20)
    async with queue_of(model, manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(10)
        assert len(events.done) >= 4
        if cancel:
            running.cancel()
        else:
            queue.stop()
        await asyncio.wait([running])
        assert now() == 10

    assert running.cancelled() == cancel
    assert set(events.states.values()) == {IN_DOUBT, WAITING}
    assert Counter((await states(manifest)).values())[WAITING] >= 6


async def test_an_outage_at_the_last_rows_delays_nothing(tmp_path: Path, events: Events) -> None:
    model = client("stored", *[FOUND] * 6, concurrency=6)

    assert await run(model, rows_of(tmp_path, 7), events) is None

    assert events.states == dict.fromkeys(range(2, 9), STORED)
    assert model.posts == 7
    assert now() == 0


async def test_after_an_outage_all_rows_are_stored(tmp_path: Path, events: Events) -> None:
    """The same run settles those in doubt and sends them again."""
    model = client(*[PLAIN] * 4, *[LOST] * 13, concurrency=4)

    assert await run(model, rows_of(tmp_path, 25), events) is None

    assert sorted(model.stored) == employees(*range(1, 26))
    assert {len(keys) for keys in model.stored.values()} == {1}
    assert events.states == dict.fromkeys(range(2, 27), STORED)
    assert len(events.settling) == 13


# --- a network that fails and comes back ---


async def test_a_network_that_was_lost_is_waited_for(tmp_path: Path, events: Events) -> None:
    model = client("stored", *["no network"] * 5)

    assert await run(model, rows_of(tmp_path, 3), events) is None

    assert events.states == dict.fromkeys((2, 3, 4), STORED)
    assert events.count(3, "unsent") == 5
    assert model.posts == 8
    assert 2 + 4 + 8 + 16 + 32 <= now() <= 1.5 * 62


@pytest.mark.parametrize("cancel", [False, True])
async def test_stop_and_cancel_do_not_wait_for_the_network(tmp_path: Path, events: Events, cancel: bool) -> None:
    manifest = rows_of(tmp_path, 3)
    async with queue_of(client("stored", *["no network"] * 9), manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(50)
        if cancel:
            running.cancel()
        else:
            queue.stop()
        await asyncio.wait([running])
        assert now() == 50

    assert events.states == {2: STORED, 3: WAITING}
    assert await states(manifest) == {2: STORED, 3: WAITING, 4: WAITING}


# --- on disk before the first byte, and right after the answer ---


async def test_each_step_is_on_disk_before_the_next(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 3)
    on_disk: list[list[State]] = []

    async def look_into_the_journal() -> None:
        on_disk.append([(await states(manifest))[row] for row in (2, 3, 4)])

    sent = Script(at={"sending": look_into_the_journal, "refused": look_into_the_journal})
    refused = attrs.evolve(sent, steps=REFUSED.steps)
    assert await run(client(sent, refused, sent), manifest, events) is None

    sending = State.SENDING
    assert on_disk == [
        [sending, WAITING, WAITING],
        [STORED, sending, WAITING],
        [STORED, WAITING, WAITING],  # refused
        [STORED, sending, WAITING],
        [STORED, STORED, sending],
    ]
    stored = (STORED, 201, "")
    refusal = (WAITING, 400, "Bad Request")
    assert [await attempts(manifest, row) for row in (2, 3, 4)] == [[stored], [refusal, stored], [stored]]


async def test_what_a_server_said_is_kept_with_the_post(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 2)

    def doubt(upload: CertificateUpload) -> Exception:
        return attrs.evolve(doubt_of(upload), status=500, words="oops")

    await run(client("rejected", Script(error=doubt), looks=["cannot tell"]), manifest, events)

    assert await attempts(manifest, 2) == [(REJECTED, 400, "no")]
    assert await attempts(manifest, 3) == [(IN_DOUBT, 500, "oops")]


# --- again, with the same manifest or another one ---


async def some_stored(model: Any, manifest: Manifest, count: int) -> None:
    """Upload the first rows, and stop."""
    events = Events()
    async with queue_of(model, manifest, events) as queue:
        events.when(lambda: len(events.done) == count, queue.stop)
        assert await queue.run() is None
    assert Counter((await states(manifest)).values())[STORED] == count


async def resume(model: Any, manifest: Manifest) -> Events:
    events = Events()
    assert await run(model, manifest, events) is None
    return events


async def test_a_sorted_and_extended_manifest_sends_what_is_new(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 6), client()
    await some_stored(model, manifest, 3)
    new = "1.pdf,1,employee7@example.org,2026-01-31,,"
    manifest = rewrite(manifest, lambda lines: [new, *reversed(lines)])

    events = await resume(model, manifest)

    assert events.states.keys() == {2, 3, 4, 5}  # the new one and those that were waiting
    assert model.posts == 7
    assert sorted(model.stored) == employees(*range(1, 8))
    assert (await resume(model, manifest)).done == []


async def test_a_renamed_touched_or_missing_file_is_not_sent(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 4), client()
    await some_stored(model, manifest, 4)
    (tmp_path / "1.pdf").rename(tmp_path / "jan.pdf")
    os.utime(tmp_path / "2.pdf", (1e9, 1e9))
    (tmp_path / "3.pdf").unlink()
    manifest = rewrite(manifest, lambda lines: [line.replace("1.pdf", "jan.pdf") for line in lines])

    events = await resume(model, manifest)

    assert events.states == {2: STORED, 3: STORED}  # by their hash; the others are not even looked at
    assert (events.steps, {event.receipt for event in events.done}) == ([], {None})
    assert not any(event.changed for event in events.done)
    found = {number: entry.springest_id for number, entry in (await entries(manifest)).items()}
    assert found == {2: 1, 3: 2, 4: 3, 5: 4}
    assert model.posts == 4


async def test_a_run_of_one_renamed_row_ends(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 1), client(concurrency=2)
    await some_stored(model, manifest, 1)
    (tmp_path / "1.pdf").rename(tmp_path / "jan.pdf")
    manifest = rewrite(manifest, lambda lines: [lines[0].replace("1.pdf", "jan.pdf")])

    assert (await resume(model, manifest)).states == {2: STORED}
    assert model.posts == 1


async def test_a_renamed_row_stays_rejected_with_its_reason(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 2), client("rejected")
    before = await resume(model, manifest)
    assert before.states == {2: REJECTED, 3: STORED}
    (tmp_path / "1.pdf").rename(tmp_path / "jan.pdf")
    manifest = rewrite(manifest, lambda lines: [lines[0].replace("1.pdf", "jan.pdf"), lines[1]])

    events = await resume(model, manifest)

    (event,) = events.done
    assert (event.row.number, event.row.file, event.state) == (2, "jan.pdf", REJECTED)
    assert (event.error, event.receipt) == (None, None)
    assert event.row.reason == str(before.error(2)) == (await entries(manifest))[2].reason
    assert "400" in event.row.reason
    assert (events.steps, model.posts) == ([], 2)


async def test_another_file_or_other_fields_are_sent(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 3), client()
    await some_stored(model, manifest, 3)
    (tmp_path / "1.pdf").write_bytes(certificate("mended"))
    manifest = rewrite(manifest, lambda lines: [lines[0], lines[1].replace("employee2", "petra"), lines[2]])

    events = await resume(model, manifest)

    assert events.states == {2: STORED, 3: STORED}
    assert {event.row.number: event.changed for event in events.done} == {2: True, 3: False}
    assert model.stored["employee1@example.org"] + model.stored["petra@example.org"] == [1, 4, 5]
    assert {number: entry.springest_id for number, entry in (await entries(manifest)).items()} == {2: 4, 3: 5, 4: 3}


async def test_failed_rows_are_tried_again_and_rejected_ones_not(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 2, {1: {"certification_id": "99"}, 2: {"file": "late.pdf"}}), client("rejected")
    assert (await resume(model, manifest)).states == {2: REJECTED, 3: FAILED}
    (tmp_path / "late.pdf").write_bytes(certificate("late"))

    assert (await resume(model, manifest)).states == {3: STORED}

    manifest = rewrite(manifest, lambda lines: [lines[0].replace(",99,", ",1,"), lines[1]])
    assert (await resume(model, manifest)).states == {2: STORED}
    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(1, 2), 1)


# --- in doubt ---


async def test_a_doubt_is_settled_and_stored_once(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 3), client(FOUND, LOST)

    assert await run(model, manifest, events) is None

    assert events.states == dict.fromkeys((2, 3, 4), STORED)
    assert {event.error for event in events.done} == {None}
    assert [event.row.number for event in events.settling] == [2, 3]
    assert model.posts == 4
    assert {entry.email: [entry.springest_id] for entry in (await entries(manifest)).values()} == model.stored
    in_doubt, stored = (IN_DOUBT, None, ""), (STORED, 201, "")
    assert [await attempts(manifest, row) for row in (2, 3, 4)] == [[in_doubt], [in_doubt, stored], [stored]]


async def test_a_doubt_stays_until_springest_shows_it(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 1), client(FOUND, looks=["cannot tell", "cannot tell"])
    for verified in (False, False, True):
        events = await resume(model, manifest)

        assert events.states == {2: STORED if verified else IN_DOUBT}
        if not verified:
            assert isinstance(doubt := events.error(2), InDoubt)
            assert (await entries(manifest))[2].reason == doubt.reason == "nobody can tell"
    assert model.posts == 1
    assert (await entries(manifest))[2].springest_id == 1


async def test_a_row_that_is_never_stored_fails_at_last(tmp_path: Path) -> None:
    """The next run tries it again."""
    manifest, model = rows_of(tmp_path, 1), client(*[LOST] * TRIES)

    events = await resume(model, manifest)

    assert events.states == {2: FAILED}
    assert isinstance(error := events.error(2), NotSent)
    assert error.reason == "4 times there was no answer and it was not stored: no answer"
    assert (await entries(manifest))[2].reason == error.reason
    assert await attempts(manifest, 2) == [(IN_DOUBT, None, "")] * TRIES
    assert (await resume(model, manifest)).states == {2: STORED}
    assert model.posts == TRIES + 1


SAME_FIELDS = {2: {"email": "Employee1@example.org"}}
MAY_BE_THE_OTHER = "another certificate with the same fields may be what Springest lists"


@pytest.mark.parametrize("end", [LOST, FOUND], ids=["lost", "found"])
async def test_a_stored_twin_is_not_taken_for_the_one_in_doubt(tmp_path: Path, end: Script) -> None:
    """Two certificates of one person with the same dates."""
    manifest, model = rows_of(tmp_path, 2, SAME_FIELDS), client("stored", end)

    await resume(model, manifest)

    assert await states(manifest) == {2: STORED, 3: STORED}
    found = {entry.springest_id: sha256_of(entry.path) for entry in (await entries(manifest)).values()}
    assert found == model.hashes
    assert model.posts == (2 if end.stores else 3)


async def test_two_twins_in_doubt_stay_in_doubt(tmp_path: Path) -> None:
    """One of them is stored, and nothing says which one."""
    manifest, model = rows_of(tmp_path, 2, SAME_FIELDS), client(LOST, FOUND, concurrency=2)
    for _ in range(2):
        events = await resume(model, manifest)

    assert await states(manifest) == {2: IN_DOUBT, 3: IN_DOUBT}
    assert isinstance(doubt := events.error(3), InDoubt)
    assert doubt.reason.endswith(MAY_BE_THE_OTHER)
    assert (len(model.hashes), model.posts) == (1, 2)


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "on its way"])
async def test_a_twin_sent_while_springest_is_asked_is_not_it(tmp_path: Path, events: Events, is_stored: bool) -> None:
    """The first is not stored, and the second, with equal fields, is stored before Springest's list is read."""
    asked, go_on = asyncio.Event(), asyncio.Event()
    manifest = rows_of(tmp_path, 2, SAME_FIELDS)

    class StoresEarly(ModelClient):
        async def settle(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
            asked.set()
            if not is_stored:  # but listed
                await events.until(lambda: events.count(3, "sending") == 1)
                return Certificate(id=1, certification_id=1, valid_from=doubt.valid_from)
            await events.until(lambda: STORED in events.states.values())
            return await super().settle(doubt, known=known)

    twin = Script(at={"waiting": asked.wait} if is_stored else {"waiting": asked.wait, "sending": go_on.wait})
    model: Any = StoresEarly([LOST, twin, PLAIN])
    events.when(lambda: any(event.row.number == 2 for event in events.done), go_on.set)
    assert await run(model, manifest, events) is None

    # Never lost, and never taken for the other: sent again, or in doubt while the twin was on its way.
    first = STORED if is_stored else IN_DOUBT
    assert [(event.row.number, event.state) for event in events.done] == sorted(
        [(2, first), (3, STORED)], reverse=is_stored
    )
    found = {entry.springest_id: sha256_of(entry.path) for entry in (await entries(manifest)).values()}
    assert found == model.hashes | ({} if is_stored else {None: sha256_of(tmp_path / "1.pdf")})
    assert model.posts == (3 if is_stored else 2)
    if not is_stored:
        assert (await entries(manifest))[2].reason.endswith(MAY_BE_THE_OTHER)


async def test_springest_is_asked_again_when_it_is_down(tmp_path: Path, events: Events) -> None:
    model = client(FOUND, looks=["is down"] * (TRIES - 1))

    assert await run(model, rows_of(tmp_path, 1), events) is None

    assert events.states == {2: STORED}
    assert (model.posts, model.asked) == (1, TRIES)
    assert 2 + 4 + 8 <= now() <= 1.5 * 14


async def test_a_doubt_stays_when_only_asking_is_left_to_do(tmp_path: Path, events: Events) -> None:
    """Springest does not answer."""
    manifest, model = rows_of(tmp_path, 2), client("stored", LOST, looks=["is down"] * TRIES)

    assert await run(model, manifest, events) is None

    assert events.states == {2: STORED, 3: IN_DOUBT}
    assert isinstance(doubt := events.error(3), InDoubt)
    assert "; Springest could not be asked (GET" in doubt.reason
    assert model.asked == TRIES
    assert (await resume(model, manifest)).states == {3: STORED}
    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(1, 2), 1)


async def test_a_key_that_may_not_list_leaves_the_doubt(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 1), client(FOUND, looks=["may not be asked"])

    assert await run(model, manifest, events) is None

    assert events.states == {2: IN_DOUBT}
    assert isinstance(doubt := events.error(2), InDoubt)
    assert "Springest could not be asked (GET" in doubt.reason
    assert (await resume(model, manifest)).states == {2: STORED}
    assert model.posts == 1


async def had_arrived(model: Any, manifest: Manifest, *rows: int) -> None:
    """Store what a killed run had sent."""
    for row in rows:
        model._store((await entries(manifest))[row].upload())


async def test_what_a_killed_run_was_sending_is_settled(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 3), client()
    await was_killed(manifest, model.origin, 2)
    await had_arrived(model, manifest, 2)
    assert await states(manifest) == {2: State.SENDING, 3: State.SENDING, 4: WAITING}

    assert await run(model, manifest, events) is None

    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(1, 2, 3), 1)
    assert events.states == dict.fromkeys((2, 3, 4), STORED)
    assert model.posts == 2
    assert await attempts(manifest, 3) == [(IN_DOUBT, None, ""), (STORED, 201, "")]


async def test_a_run_with_only_doubts_settles_them_and_ends(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 2), client(concurrency=8, looks=["tells", "cannot tell"])
    await was_killed(manifest, model.origin, 2)
    await had_arrived(model, manifest, 2, 3)

    assert await run(model, manifest, events) is None

    assert events.states == {2: STORED, 3: IN_DOUBT}
    assert [event.row.number for event in events.settling] == [2, 3]
    assert (events.steps, model.posts) == ([], 0)


async def test_a_doubt_no_longer_in_the_manifest_is_settled(tmp_path: Path, events: Events) -> None:
    """If it is found, it is stored; if not, it waits for a manifest that contains it."""
    manifest, model = rows_of(tmp_path, 3), client()
    await was_killed(manifest, model.origin, 2)
    await had_arrived(model, manifest, 2)
    whole = manifest.path.read_text()
    manifest = rewrite(manifest, lambda lines: lines[2:])
    async with loaded(manifest, model.origin) as migration:
        assert await UploadQueue(model, migration, events).run() is None
        assert await migration.orphans() == []

    told = {event.row.email: event.state for event in events.done}
    assert told == dict(zip(employees(1, 2, 3), (STORED, WAITING, STORED), strict=True))
    assert len(events.done) == 3
    manifest.path.write_text(whole)
    assert (await resume(model, Manifest.open(manifest.path))).states == {3: STORED}
    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(1, 2, 3), 1)
    assert model.posts == 2


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_row_costs_two_jobs_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """They are the intent and the outcome; eight rows are claimed together, and then identified together."""
    jobs = 0
    submit = InlineCommit.submit

    def counted(self: InlineCommit, job: Any, **options: Any) -> Any:
        nonlocal jobs
        jobs += 1
        return submit(self, job, **options)

    counts = []
    for rows in (8, 80):
        (tmp_path / str(rows)).mkdir()
        manifest, model = rows_of(tmp_path / str(rows), rows), client(concurrency=concurrency)
        with monkeypatch.context() as patch:
            jobs = 0
            patch.setattr(InlineCommit, "submit", counted)
            assert await run(model, manifest, Events()) is None
        counts.append(jobs)

    few, many = counts
    assert many - few <= 2.3 * 72


async def test_a_doubt_with_a_touched_file_is_settled(tmp_path: Path, events: Events) -> None:
    """At first the journal knows the certificate without a row, and the row without its certificate."""
    manifest, model = rows_of(tmp_path, 2), client()
    await was_killed(manifest, model.origin, 2)
    await had_arrived(model, manifest, 2)
    for number in (1, 2):
        os.utime(tmp_path / f"{number}.pdf", (1e9, 1e9))

    assert await run(model, manifest, events) is None

    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(1, 2), 1)
    assert await states(manifest) == {2: STORED, 3: STORED}
    assert model.posts == 1


@pytest.mark.parametrize("cancel", [False, True])
async def test_stop_and_cancel_do_not_wait_for_a_settlement(tmp_path: Path, events: Events, cancel: bool) -> None:
    manifest = rows_of(tmp_path, 2)

    class AsksForLong(ModelClient):
        async def settle(self, doubt: InDoubt, *, known: Collection[int]) -> Certificate | None:
            await asyncio.sleep(60)
            raise AssertionError

    model: Any = AsksForLong([PLAIN, LOST])
    async with queue_of(model, manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(10)
        if cancel:
            running.cancel()
        else:
            queue.stop()
        await asyncio.wait([running])
        assert now() == 10

    assert running.cancelled() == cancel
    assert events.states == {2: STORED, 3: IN_DOUBT}
    assert isinstance(events.error(3), InDoubt)
    assert model.posts == 2


async def test_stop_after_a_settlement_reports_the_row_as_waiting(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row that was taken is reported, also one that would have been sent again just now."""
    settled = certificates.settled

    def stop_then(*arguments: Any, **options: Any) -> Any:
        queue.stop()
        return settled(*arguments, **options)

    monkeypatch.setattr(certificates, "settled", stop_then)
    async with queue_of(client(LOST), rows_of(tmp_path, 1), events) as queue:
        assert await queue.run() is None

    assert events.states == {2: WAITING}


async def test_doubts_about_another_host_are_left_alone(tmp_path: Path, events: Events) -> None:
    manifest, model = rows_of(tmp_path, 1), client()
    await was_killed(manifest, "https://elsewhere.example", 1)

    assert await run(model, manifest, events) is None

    async with loaded(manifest, "https://elsewhere.example") as elsewhere:
        assert await elsewhere.counts() == {IN_DOUBT: 1}
    assert events.states == {2: STORED}
    assert events.settling == []
    assert (model.posts, model.asked) == (1, 0)


# --- a journal that cannot be written ---


class FullDisk:
    """Lets a step of the journal fail from its n-th time on, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.fails = True

    def at(self, module: Any, name: str, *, after: int = 0, state: State | None = None) -> None:
        step = getattr(module, name)
        left = iter(range(after))

        def fail_or_do(*arguments: Any, **options: Any) -> Any:
            outcome = options.get("outcome")
            concerned = state is None or (outcome is not None and outcome.state is state)
            if self.fails and concerned and next(left, None) is None:
                raise JournalError("the journal", "the disk is full")
            return step(*arguments, **options)

        self._monkeypatch.setattr(module, name, fail_or_do)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


async def test_what_cannot_be_noted_as_sending_is_not_sent(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, model = rows_of(tmp_path, 6), client(concurrency=2)
    free = iter([1 << 40] * 2)
    usage = "springest_async.journal.sqlite.shutil.disk_usage"
    with monkeypatch.context() as patch:
        patch.setattr(usage, lambda _: SimpleNamespace(free=next(free, 9_000_000)))
        error = await run(model, manifest, events)

    assert isinstance(error, JournalError)
    assert error.reason.startswith("the disk is nearly full: free some space, then run the same command again")
    assert model.posts == 2
    assert Counter((await states(manifest)).values()) == {STORED: 2, WAITING: 4}
    (event, *_) = (event for event in events.done if event.state is WAITING)
    assert event.error is error
    assert set((await resume(model, manifest)).states.values()) == {STORED}
    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(*range(1, 7)), 1)


async def test_on_a_full_disk_no_post_leaves_unnoted(tmp_path: Path) -> None:
    manifest, model = many(tmp_path, 150), client(concurrency=2)
    before = 0
    for spare in (2, 5):
        async with loaded(manifest, model.origin) as migration:
            journal = migration.journal
            ((pages,),) = await journal.run(methodcaller("execute", "PRAGMA page_count"))
            await journal.run(methodcaller("execute", f"PRAGMA max_page_count = {pages + spare}"))
            error = await UploadQueue(model, migration, Events()).run()
            assert isinstance(error, JournalError)
            assert error.reason.startswith("the disk is full: free some space, then run the same command again")
            attempts = await journal.run(lambda connection: connection.execute("SELECT count(*) FROM attempts"))
            assert attempts == [(model.posts,)]
            assert before < model.posts < 150
            before = model.posts
    await resume(model, manifest)

    assert {len(keys) for keys in model.stored.values()} == {1}
    assert len(model.stored) == model.posts == 150
    assert Counter((await states(manifest)).values()) == {STORED: 150}


@pytest.mark.parametrize("after", [0, 2])
async def test_an_outcome_not_noted_is_settled_by_the_next_run(
    tmp_path: Path, events: Events, full_disk: FullDisk, after: int
) -> None:
    manifest, model = rows_of(tmp_path, 5), client()
    full_disk.at(certificates, "end", after=after, state=STORED)
    async with loaded(manifest, model.origin) as migration:
        error = await UploadQueue(model, migration, events).run()
    full_disk.fails = False

    assert isinstance(error, JournalError)
    assert model.posts == after + 1
    stored = dict.fromkeys(range(2, after + 3), STORED)  # as the receipts show
    assert events.states == stored | {after + 3: WAITING}
    assert events.error(after + 3) is error
    assert (await states(manifest))[2 + after] is IN_DOUBT
    assert Counter((await states(manifest)).values())[WAITING] == 5 - after - 1

    again = await resume(model, manifest)
    assert again.states == dict.fromkeys(range(2 + after, 7), STORED)
    assert {email: len(keys) for email, keys in model.stored.items()} == dict.fromkeys(employees(*range(1, 6)), 1)
    assert model.posts == 5


async def test_an_outcome_is_noted_when_there_is_space_again(
    tmp_path: Path, events: Events, full_disk: FullDisk
) -> None:
    manifest, model = rows_of(tmp_path, 3), client()
    full_disk.at(certificates, "end")

    def free_space() -> None:
        full_disk.fails = False

    events.when(lambda: len(events.done) == 1, free_space)
    assert await run(model, manifest, events) is None

    assert await states(manifest) == dict.fromkeys((2, 3, 4), STORED)
    assert (model.posts, model.asked) == (3, 0)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (certificates, "renew"),
        (certificates, "take_over"),
        (manifest_rows, "claim_rows"),
        (file_hashes, "known_hashes"),
        (manifest_rows, "identify"),
        (manifest_rows, "unreadable"),
        (certificates, "begin"),
        (certificates, "end"),
        (certificates, "release"),
        (migrations, "has_other_workers"),
        (manifest_rows, "has_unfinished"),
        (manifest_rows, "fail_unreadable"),
        (manifest_rows, "claim_doubt"),
        (certificates, "siblings"),
        (certificates, "settled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("after", [0, 1])
async def test_a_journal_that_fails_ends_the_run_and_loses_nothing(
    tmp_path: Path, full_disk: FullDisk, module: Any, name: str, after: int
) -> None:
    """At any of its steps. Nothing is sent twice by the next run."""
    manifest = rows_of(tmp_path, 9, {2: {"file": "none.pdf"}, 6: {"file": "nor this.pdf"}})
    ends: list[str | Script] = ["stored", FOUND, "cut off", LOST, *[LOST] * TRIES, "rejected", FOUND, "cut off"]
    model = client(*ends, concurrency=2)
    migration_events = Events()
    async with loaded(manifest, model.origin) as migration:
        full_disk.at(module, name, after=after)
        async with asyncio.timeout(10_000):
            error = await UploadQueue(model, migration, migration_events).run()
        full_disk.fails = False
    if error is None:  # the step was not needed so often
        assert after
    else:
        assert isinstance(error, JournalError)
        assert error.reason == "the disk is full"
    assert migration_events.states.keys() <= set(range(2, 11))
    for number in (2, 6):
        (tmp_path / f"{number}.pdf").rename(tmp_path / {2: "none.pdf", 6: "nor this.pdf"}[number])
    for _ in range(3):
        await resume(model, manifest)

    counts = Counter((await states(manifest)).values())
    assert counts[STORED] + counts[REJECTED] == 9
    assert {len(keys) for keys in model.stored.values()} == {1}
    assert len(model.stored) == counts[STORED]


async def test_a_doubt_not_noted_is_settled_by_the_next_run(
    tmp_path: Path, events: Events, full_disk: FullDisk
) -> None:
    manifest, model = rows_of(tmp_path, 2), client(FOUND)
    full_disk.at(certificates, "end", state=IN_DOUBT)

    async with loaded(manifest, model.origin) as migration:
        assert isinstance(await UploadQueue(model, migration, events).run(), JournalError)
    full_disk.fails = False

    assert events.states == {2: IN_DOUBT, 3: WAITING}
    assert isinstance(events.error(2), InDoubt)
    assert (await resume(model, manifest)).states == {2: STORED, 3: STORED}
    assert model.posts == 2


async def test_a_settlement_not_noted_is_asked_for_again(tmp_path: Path, events: Events, full_disk: FullDisk) -> None:
    manifest, model = rows_of(tmp_path, 1), client(LOST)
    full_disk.at(certificates, "settled")

    async with loaded(manifest, model.origin) as migration:
        assert isinstance(await UploadQueue(model, migration, events).run(), JournalError)
    full_disk.fails = False

    assert events.states == {2: IN_DOUBT}
    assert (await resume(model, manifest)).states == {2: STORED}
    assert model.posts == 2


@pytest.mark.parametrize("looks", [0, 1], ids=["before Springest is asked", "afterwards"])
async def test_an_unreadable_journal_ends_a_settlement(
    tmp_path: Path, events: Events, full_disk: FullDisk, looks: int
) -> None:
    """The run ends with its error, and does not blame Springest."""
    manifest, model = rows_of(tmp_path, 1), client(FOUND)
    full_disk.at(certificates, "siblings", after=looks)

    assert isinstance(await run(model, manifest, events), JournalError)
    full_disk.fails = False

    assert model.asked == looks
    assert events.states == {2: IN_DOUBT}
    assert isinstance(doubt := events.error(2), InDoubt)
    assert doubt.reason == (await entries(manifest))[2].reason == "no answer"
    assert (await resume(model, manifest)).states == {2: STORED}
    assert model.posts == 1


# --- twenty thousand rows ---


def many(folder: Path, count: int) -> Manifest:
    (folder / "1.pdf").write_bytes(certificate("the same for all"))
    rows = "".join(f"1.pdf,1,e{number}@example.org,2026-01-31,,\n" for number in range(count))
    path = folder / f"{count}.csv"
    path.write_text(",".join(COLUMNS) + "\n" + rows)
    return Manifest.open(path)


class ForgetfulClient(ModelClient):
    """A server that keeps elsewhere what it stores."""

    def _store(self, _: CertificateUpload) -> int:
        return 1


async def cost_of_rows(folder: Path, count: int) -> tuple[int, int]:
    """Return the steps (tens of SQLite's instructions) and the bytes that 250 rows take among so many waiting ones."""
    manifest = many(folder, count)
    steps = measured = done = began = cost = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def listen(event: Event) -> None:
        nonlocal done, steps, measured, began, cost
        done += isinstance(event, RowDone)
        if done == 100 and not tracemalloc.is_tracing():
            gc.collect()
            tracemalloc.start()
            steps, began = 0, tracemalloc.get_traced_memory()[0]
        elif done == 350 and tracemalloc.is_tracing():
            gc.collect()
            measured = steps
            cost = tracemalloc.get_traced_memory()[0] - began
            tracemalloc.stop()
            queue.stop()

    async with Journal(folder / f"{count}.journal") as journal:
        migration, _ = await load_manifest(journal, manifest, ModelClient.origin)
        await journal.run(lambda connection: cast(Any, connection)._connection.set_progress_handler(step, 10))
        queue = UploadQueue(cast(Springest, ForgetfulClient(concurrency=8)), migration, listen)
        assert await queue.run() is None
        await journal.run(lambda connection: cast(Any, connection)._connection.set_progress_handler(None, 0))
        assert (await migration.counts())[WAITING] <= count - 350
    return measured, cost


async def test_a_row_costs_as_much_among_twenty_thousand(tmp_path: Path) -> None:
    few, many_rows = [await cost_of_rows(tmp_path, count) for count in (400, 20_000)]

    assert many_rows[0] < 1.1 * few[0]
    assert max(few[1], many_rows[1]) < 120_000  # what is in flight; 250 entries take more


# --- whatever happens: one end for every row, nothing lost and nothing twice ---


@pytest.fixture(scope="module")
def ten_rows(module_folder: Path) -> Manifest:
    return Manifest.open(archive(module_folder, 10, changes={4: {"email": "no address"}}))


@settings(max_examples=40)
@given(
    scripts=st.lists(
        st.builds(attrs.evolve, st.sampled_from(list(ENDS.values())), turns=st.integers(0, 3)),
        max_size=14,
    ),
    looks=st.lists(st.sampled_from(["tells", "cannot tell", "is down", "may not be asked"]), max_size=8),
    concurrency=st.integers(1, 4),
    stop_after=st.none() | st.integers(0, 40),
    cancel_after=st.sets(st.integers(1, 40), max_size=2),
)
def test_every_row_has_one_end_and_is_stored_once(
    ten_rows: Manifest,
    scripts: list[Script],
    looks: list[Look],
    concurrency: int,
    stop_after: int | None,
    cancel_after: set[int],
) -> None:
    """Whatever happens, and the next runs store what is left."""
    model = cast(Any, ModelClient(scripts, concurrency, looks))

    async def one_run(events: Events, stop_after: int | None, cancel_after: set[int]) -> None:
        heard = 0

        def listen(event: Event) -> None:
            nonlocal heard
            events(event)
            heard += 1
            if heard == stop_after:
                queue.stop()
            if heard in cancel_after:
                asyncio.get_running_loop().call_soon(running.cancel)

        async with queue_of(model, ten_rows, events) as queue:
            queue._listener = listen
            running = asyncio.create_task(queue.run())
            if stop_after == 0:
                queue.stop()
            await asyncio.wait([running], timeout=1e6)
            assert running.done()
            if not running.cancelled() and (error := running.exception()) is not None:
                assert isinstance(error, RuntimeError)
                assert "of this" in str(error)

    async def go() -> dict[str, Entry]:
        await one_run(Events(), stop_after, cancel_after)
        for _ in range(len(scripts) + len(looks) + 1):  # whatever is left of the script
            await one_run(Events(), None, set())
            ended = Counter((await states(ten_rows)).values())
            if (ended[FAILED], ended[STORED] + ended[REJECTED]) == (1, 9):
                break
        return {entry.email: entry for entry in (await entries(ten_rows)).values()}

    for journal in ten_rows.path.parent.glob("a journal*"):
        journal.unlink()
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0, noop_cycles=0)) as runner:
        found = runner.run(go())

    assert len(found) == 10
    assert found.pop("no address").state is FAILED
    stored = {email: entry.springest_id for email, entry in found.items() if entry.state is STORED}
    assert stored.keys() == model.stored.keys()
    for email, key in stored.items():
        (known,) = model.stored[email]
        assert key in (known, None)  # a cancellation that comes too late leaves no time to read the id
    assert {entry.state for entry in found.values()} <= {STORED, REJECTED}


class StubbornClient(ModelClient):
    """A client that takes its time to end when it is cancelled, after the first upload."""

    async def upload_claimed(self, *arguments: Any, **options: Any) -> Receipt:
        script = Script(at={"sending": self._stand} if self.stored else {})
        self._scripts = iter([script])
        return await super().upload_claimed(*arguments, **options)

    async def _stand(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for _ in range(8):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)
            raise


@pytest.mark.parametrize("all_tasks", [False, True], ids=["the run", "all tasks"])
async def test_cancelled_twice_every_row_has_one_end(tmp_path: Path, events: Events, all_tasks: bool) -> None:
    """The second time is a second Ctrl-C, or the loop that is closed."""
    manifest = rows_of(tmp_path, 11)
    async with queue_of(cast(Springest, StubbornClient(concurrency=3)), manifest, events) as queue:
        running = asyncio.create_task(queue.run())
        await events.until(lambda: sum(step.step.kind == "sending" for step in events.steps) == 4)
        running.cancel()
        await asyncio.sleep(2)
        assert not running.done()
        for task in asyncio.all_tasks() - {asyncio.current_task()} if all_tasks else {running}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert events.states == {2: STORED} | dict.fromkeys((3, 4, 5), IN_DOUBT)
    assert Counter((await states(manifest)).values()) == {STORED: 1, IN_DOUBT: 3, WAITING: 7}


@pytest.mark.parametrize(("bug", "end"), [("a bug", IN_DOUBT), ("a bug before", WAITING)])
async def test_a_bug_in_the_client_is_raised_and_loses_no_row(
    tmp_path: Path, events: Events, bug: str, end: State
) -> None:
    manifest = rows_of(tmp_path, 4)
    async with queue_of(client(bug), manifest, events) as queue:
        with pytest.raises(RuntimeError, match="of this"):
            await queue.run()

    # When it was being sent, nothing says how far that went.
    assert events.states == {2: end}
    assert await states(manifest) == {2: end} | dict.fromkeys((3, 4, 5), WAITING)


@pytest.mark.parametrize("whose", ["the client's", "the listener's"])
async def test_after_a_bug_no_worker_takes_the_row_again(tmp_path: Path, events: Events, whose: str) -> None:
    """The run is stopped before the bug is reported. The listener's bug is in the reporting as well."""
    manifest = rows_of(tmp_path, 1)
    seen: list[str] = []

    def listen(event: Event) -> None:
        events(event)
        seen.append(f"{type(event).__name__} {'stopping' if 'stopping' in repr(queue) else 'running'}")
        if whose == "the listener's":
            raise RuntimeError("nobody thought of this")

    model = client("a bug before" if whose == "the client's" else "stored", concurrency=2)
    async with loaded(manifest, model.origin) as migration:
        queue = UploadQueue(model, migration, listen)
        with pytest.raises(RuntimeError, match="of this"):
            await queue.run()

    assert seen == ["RowStep running", "RowDone stopping"]
    assert events.states == {2: WAITING}
    assert model.stored == {}
    assert await states(manifest) == {2: WAITING}


async def test_a_bug_in_the_listener_keeps_the_post_unsent(tmp_path: Path) -> None:
    manifest, model = rows_of(tmp_path, 2), client()

    def listen(event: Event) -> None:
        if isinstance(event, RowStep) and event.step.kind == "sending":
            raise RuntimeError("nobody thought of this")

    async with loaded(manifest, model.origin) as migration:
        with pytest.raises(RuntimeError, match="of this"):
            await UploadQueue(model, migration, listen).run()

    assert model.posts == 0
    assert (await resume(model, manifest)).states == {2: STORED, 3: STORED}
    assert model.posts == 2
