"""Who may try at the same time: the first certificate alone, and one after another in an outage."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from springest_async import Forbidden, InDoubt, NotAuthorized, NotSent
from springest_async.api.verdicts import TRIES
from springest_async.bulk import Outage, OutageOver, RunRecorder, State, UploadQueue
from springest_async.bulk.gate import Gate
from tests.bulk_runs import Events, loaded, queue_of, rows_of, run, settle, states
from tests.unit.bulk.model import ENDS, PLAIN, WHERE, ModelClient, Script

pytestmark = [pytest.mark.looptime(start=0, noop_cycles=0), pytest.mark.usefixtures("clock")]

STORED, FAILED, IN_DOUBT, WAITING = State.STORED, State.FAILED, State.IN_DOUBT, State.WAITING
LOST, NO_NETWORK, KEY_REFUSED = ENDS["in doubt and not stored"], ENDS["no network"], ENDS["key refused"]


@pytest.fixture
def events() -> Events:
    return Events()


def client(*scripts: Script, concurrency: int = 8, **options: Any) -> Any:
    return ModelClient(scripts, concurrency, **options)


def now() -> float:
    return asyncio.get_running_loop().time()


class Flight:
    """Counts how many uploads are under way at the same time, each of which takes a second."""

    def __init__(self) -> None:
        self.most: list[int] = []  # at the begin of each
        self._now = 0

    async def __call__(self) -> None:
        self._now += 1
        self.most.append(self._now)
        await asyncio.sleep(1)
        self._now -= 1

    def of(self, script: Script) -> Script:
        return attrs.evolve(script, at={"sending": self})


# --- the first certificate of a run ---


async def test_the_first_certificate_goes_alone(tmp_path: Path, events: Events) -> None:
    flight = Flight()

    assert await run(client(*[flight.of(PLAIN)] * 9, concurrency=4), rows_of(tmp_path, 9), events) is None

    assert flight.most == [1, *[1, 2, 3, 4] * 2]
    assert now() == 3


async def test_a_wrong_key_costs_one_post(tmp_path: Path, events: Events) -> None:
    model = client(*[attrs.evolve(KEY_REFUSED, turns=5)] * 20)
    manifest = rows_of(tmp_path, 20)

    assert isinstance(await run(model, manifest, events), NotAuthorized)

    assert model.posts == 1
    assert await states(manifest) == dict.fromkeys(range(2, 22), WAITING)


@pytest.mark.parametrize("first", ["cut off", "unknown status", "in doubt and not stored", "no network"])
async def test_an_unclear_first_answer_proves_no_key(tmp_path: Path, events: Events, first: str) -> None:
    model = client(ENDS[first], *[attrs.evolve(KEY_REFUSED, turns=5)] * 20, looks=["cannot tell"])

    assert isinstance(await run(model, rows_of(tmp_path, 20), events), NotAuthorized)

    assert model.posts == 2


async def test_a_forbidden_answer_after_a_doubt_ends_the_run(tmp_path: Path, events: Events) -> None:
    """A gateway may leave a certificate in doubt: that does not show that the key is right."""
    model = client(LOST, *[ENDS["forbidden"]] * 20, looks=["cannot tell"])

    assert isinstance(await run(model, rows_of(tmp_path, 20), events), Forbidden)
    assert model.posts == 2


async def test_rows_that_send_nothing_prove_no_key(tmp_path: Path, events: Events) -> None:
    """The first is in doubt, the second unreadable, the third was stored with another manifest."""
    async with loaded(rows_of(tmp_path, 3), ModelClient.origin) as migration:
        await settle(migration, IN_DOUBT, WAITING, STORED)
    manifest = rows_of(tmp_path, 14, {2: {"file": "none.pdf"}})
    model = client(*[attrs.evolve(KEY_REFUSED, turns=3)] * 20, looks=["cannot tell"])

    assert isinstance(await run(model, manifest, events), NotAuthorized)

    assert model.posts == 1
    assert {2: IN_DOUBT, 3: FAILED}.items() <= events.states.items()
    assert (await states(manifest))[4] is STORED


async def test_a_refusal_for_speed_lets_the_others_go(tmp_path: Path, events: Events) -> None:
    """It shows that the key is right; what the limit is, the limiter knows."""
    go_on = asyncio.Event()
    first = Script(steps=("waiting", "sending", "refused", "waiting", "sending"), at={"refused": go_on.wait})
    model = client(first, concurrency=3)
    events.when(lambda: sum(event.state is STORED for event in events.done) == 4, go_on.set)

    assert await run(model, rows_of(tmp_path, 5), events) is None

    assert events.states == dict.fromkeys(range(2, 7), STORED)
    assert events.done[-1].row.number == 2


async def test_stop_does_not_wait_for_those_behind_the_first(tmp_path: Path, events: Events) -> None:
    model = client(Script(at={"sending": partial(asyncio.sleep, 5)}))
    async with queue_of(model, rows_of(tmp_path, 9), events) as queue:
        asyncio.get_running_loop().call_later(1, queue.stop)
        assert await queue.run() is None

    assert now() == 5
    assert {row for row, state in events.states.items() if state is STORED} == {2}


# --- no connection ---


async def test_an_outage_is_told_at_each_try(tmp_path: Path, events: Events) -> None:
    model = client(PLAIN, *[NO_NETWORK] * 5, concurrency=1)

    assert await run(model, rows_of(tmp_path, 3), events) is None

    *tries, over = events.outages
    assert isinstance(over, OutageOver)
    outages = [event for event in tries if isinstance(event, Outage)]
    assert len(outages) == len(tries) == 10  # before each try and during it
    assert {(event.since, event.what, event.reason) for event in outages} == {(0, "no connection", "no connection")}
    times = [event.again_at for event in outages[::2]]
    assert times == sorted(times, key=lambda time: time or 0)
    assert {event.again_at for event in outages[1::2]} == {None}
    assert (over.what, over.reason) == ("no connection", "no connection")
    assert over.seconds == pytest.approx(times[-1], abs=0.001)


async def test_without_a_network_one_row_tries_for_all(tmp_path: Path, events: Events) -> None:
    """All that were in flight fail; then one after another tries, and when one is through, all go on at once."""
    flight = Flight()
    model = client(PLAIN, *[flight.of(NO_NETWORK)] * 7, *[flight.of(PLAIN)] * 12, concurrency=4)

    assert await run(model, rows_of(tmp_path, 13), events) is None

    assert events.states == dict.fromkeys(range(2, 15), STORED)
    assert flight.most[:8] == [1, 2, 3, 4, *[1] * 4]
    assert max(flight.most[8:]) == 4
    assert sum(events.count(row, "unsent") for row in range(2, 15)) == 7


async def test_connections_that_failed_are_no_posts(tmp_path: Path) -> None:
    manifest = rows_of(tmp_path, 3)
    recorder = RunRecorder()
    async with loaded(manifest, ModelClient.origin) as migration:
        await UploadQueue(client(PLAIN, *[NO_NETWORK] * 5, concurrency=1), migration, recorder).run()
        report = await recorder.report(migration)

    assert (report.posts, report.stored, report.outages) == (3, 3, 1)
    assert report.last_outage == OutageOver("no connection", "no connection", report.outage_seconds)
    assert report.outage_seconds == pytest.approx(now(), abs=0.001)


async def test_the_end_of_a_run_ends_its_outage(tmp_path: Path, events: Events) -> None:
    async with queue_of(client(PLAIN, *[NO_NETWORK] * 50), rows_of(tmp_path, 12), events) as queue:
        asyncio.get_running_loop().call_later(100, queue.stop)
        assert await queue.run() is None

    assert now() == 100
    assert events.outages[-1] == OutageOver("no connection", "no connection", 100)


async def test_no_connection_at_the_start_is_told_and_ends(tmp_path: Path, events: Events) -> None:
    model = client(*[NO_NETWORK] * 20)

    error = await run(model, rows_of(tmp_path, 12), events)

    assert isinstance(error, NotSent)
    assert model.posts == TRIES
    assert isinstance(events.outages[0], Outage)
    assert isinstance(events.outages[-1], OutageOver)


async def test_a_key_that_was_right_before_waits_for_a_network(tmp_path: Path, events: Events) -> None:
    manifest = rows_of(tmp_path, 3)
    async with loaded(manifest, ModelClient.origin) as migration:
        await settle(migration, STORED)
        await migration.journal.run(lambda connection: connection.execute("UPDATE attempts SET status = 201"))

    assert await run(client(*[NO_NETWORK] * 20), manifest, events) is None

    assert set((await states(manifest)).values()) == {STORED}
    assert isinstance(events.outages[-1], OutageOver)


async def test_an_untrusted_server_at_the_start_ends_the_run(tmp_path: Path, events: Events) -> None:
    untrusted = NotSent(WHERE, "the server's TLS certificate is not trusted", connected=False, trusted=False)
    model = client(attrs.evolve(NO_NETWORK, error=lambda _: untrusted))

    assert await run(model, rows_of(tmp_path, 3), events) is untrusted
    assert (model.posts, now()) == (1, 0)


# --- no clear answer ---


async def test_a_gateway_without_its_server_is_an_outage(tmp_path: Path, events: Events) -> None:
    model = client(PLAIN, *[LOST] * 5, concurrency=1, looks=["cannot tell"] * 5)

    assert await run(model, rows_of(tmp_path, 8), events) is None

    assert list(events.states.values()).count(IN_DOUBT) == 5
    first, *_, over = events.outages
    assert isinstance(first, Outage)
    assert isinstance(over, OutageOver)
    assert (first.what, first.reason) == (over.what, over.reason) == ("no clear answer", "no answer")
    assert isinstance(events.error(4), InDoubt)


async def test_the_state_of_a_gate_is_in_its_repr() -> None:
    gate = Gate(lambda _: None)
    assert repr(gate) == "<Gate one at a time, the first>"
    gate.answered()
    assert repr(gate) == "<Gate open>"
    gate.lost(NotSent(WHERE, "no connection: Connection refused", connected=False))
    assert repr(gate) == "<Gate one at a time, Connection refused>"
