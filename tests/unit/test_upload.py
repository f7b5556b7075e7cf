"""`Springest.upload` with scripted answers and virtual time: what is sent again, when, and what it ends in.

Nothing is written here, so a POST that fails or gets a 5xx counts as not sent: what is in doubt is tested on real
sockets, in ``tests/integration/test_wire.py``.
"""

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Container, Iterator
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import CallbackResult
from attrs import define, field
from yarl import URL

from springest_async import (
    CertificateUpload,
    Fault,
    Forbidden,
    Limiter,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    Settings,
    Springest,
    SpringestError,
    UnexpectedStatus,
    UnusableFile,
    UploadListener,
    UploadStep,
)
from springest_async.api.verdicts import RefusalCause
from springest_async.http.body import CertificateBody
from springest_async.limits.bucket import Intent
from springest_async.limits.permit import Permit
from springest_async.sandbox.windows import ElasticWindow, FixedWindow, Paced, SlidingWindow, Window
from tests.conftest import ScriptedAnswers
from tests.uploads import upload_in_bulk

CERTIFICATES = "https://api.springest.nl/users/certificates.json"
POST = f"POST {CERTIFICATES}"
REFUSED = aiohttp.ClientConnectorError(
    ConnectionKey("api.springest.nl", 443, True, True, None, None, None), OSError(errno.ECONNREFUSED, "Refused")
)


def now() -> float:
    return asyncio.get_running_loop().time()


def posts(scripted: ScriptedAnswers) -> int:
    return len(scripted.sent("POST"))


def request_ids(scripted: ScriptedAnswers) -> list[str]:
    return [options["headers"]["X-Request-Id"] for options in scripted.sent("POST")]


# --- one POST ---


async def test_a_201_is_a_receipt(springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload) -> None:
    scripted.post(CERTIFICATES, status=201, payload={"id": 5004})
    before = datetime.now(UTC)

    receipt = await springest.upload(upload)

    assert receipt == Receipt(
        id=5004,
        upload=upload,
        attempts=1,
        sent_at=receipt.sent_at,
        answered_at=receipt.answered_at,
        request_id=request_ids(scripted)[0],
    )
    assert before <= receipt.sent_at <= receipt.answered_at <= datetime.now(UTC)
    assert posts(scripted) == 1


async def test_a_201_without_an_id_is_a_receipt_too(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, body="Created")

    assert (await springest.upload(upload)).id is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Redirected),
        (302, Redirected),
        (303, Redirected),
        (307, Redirected),
        (308, Redirected),
        (401, NotAuthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, UnexpectedStatus),
        (413, Rejected),
        (415, Rejected),
        (418, UnexpectedStatus),
        (422, Rejected),
    ],
)
async def test_a_definite_no_is_raised_at_once(
    status: int, kind: type[SpringestError], springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=status, body="said", headers={"Location": "https://x.example/?y"}, repeat=True)

    with pytest.raises(kind) as caught:
        await springest.upload(upload)

    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.words) == (status, "said")
    assert str(caught.value).startswith(POST)
    assert posts(scripted) == 1


async def test_a_400_that_names_a_field_is_a_rejection_at_once(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, payload={"errors": {"email": ["is unknown"]}}, repeat=True)

    with pytest.raises(Rejected) as caught:
        await springest.upload(upload)

    assert caught.value.faults == (Fault("email", "is unknown"),)
    assert posts(scripted) == 1


async def test_a_file_that_is_missing_costs_no_post(
    springest: Springest, scripted: ScriptedAnswers, make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    with pytest.raises(UnusableFile):
        await springest.upload(make_upload(file=tmp_path / "missing.pdf"))

    assert posts(scripted) == 0
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


# --- what was not sent is sent again ---


@pytest.mark.looptime
async def test_a_connection_that_fails_once_is_made_again(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    receipt = await springest.upload(upload)

    assert (receipt.id, receipt.attempts) == (1, 2)
    assert 2 <= now() <= 3.1


@pytest.mark.looptime
async def test_after_four_failures_in_a_row_it_is_raised(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED, repeat=True)

    with pytest.raises(NotSent) as caught:
        await springest.upload(upload)

    assert not caught.value.connected
    assert posts(scripted) == 4
    assert 2 + 4 + 8 <= now() <= (2 + 4 + 8) * 1.5 + 0.1


@pytest.mark.looptime
async def test_what_never_reached_the_server_takes_no_token(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED, repeat=True)

    with pytest.raises(NotSent):
        await springest.upload(upload)

    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


@pytest.mark.looptime
async def test_a_5xx_before_the_body_was_written_is_sent_again(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=503)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    assert (await springest.upload(upload)).attempts == 2


@pytest.mark.parametrize(("status", "rests"), [(400, 60), (404, 60), (408, 180), (502, 180), (504, 180)])
async def test_a_gateways_answer_keeps_the_token_for_longer(
    status: int, rests: int, springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    """The server behind a gateway that gave up may count the POST later."""

    def answer(_: URL, *, data: CertificateBody, **__: Any) -> CallbackResult:
        data.progress.fully_written = True
        return CallbackResult(status=status, payload={"errors": {"email": ["is unknown"]}})

    scripted.post(CERTIFICATES, callback=answer)

    with pytest.raises(SpringestError):
        await springest.upload(upload)

    assert springest.limiter.seconds_until(30) == pytest.approx(rests, abs=1)


@pytest.mark.looptime
async def test_a_408_is_sent_again(springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload) -> None:
    scripted.post(CERTIFICATES, status=408)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    assert (await springest.upload(upload)).attempts == 2


@pytest.mark.looptime
async def test_a_refusal_in_between_starts_the_count_of_failures_again(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    for _ in range(3):
        scripted.post(CERTIFICATES, exception=REFUSED)
    scripted.post(CERTIFICATES, status=400, body="Too many requests")
    for _ in range(3):
        scripted.post(CERTIFICATES, exception=REFUSED)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    assert (await springest.upload(upload)).attempts == 8


# --- a 400 of which nobody knows what it means ---


@pytest.mark.looptime
async def test_an_unknown_400_that_a_silence_does_not_cure_is_rejected(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=True)

    with pytest.raises(Rejected) as caught:
        await springest.upload(upload)

    assert (caught.value.status, caught.value.words, caught.value.faults) == (400, "Bad Request", ())
    assert posts(scripted) == 5
    assert 2 + 4 + 8 + 60 <= now() <= (2 + 4 + 8) * 1.5 + 60 + 1
    assert not springest.limiter.slow


@pytest.mark.looptime
async def test_a_verdict_holds_for_the_next_one_with_the_same_words(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request (id 1234)", repeat=5)
    scripted.post(CERTIFICATES, status=400, body="Bad Request (id 5678)", repeat=True)
    with pytest.raises(Rejected):
        await springest.upload(upload)
    assert posts(scripted) == 5
    settled = now()

    with pytest.raises(Rejected):
        await springest.upload(upload)

    assert posts(scripted) == 7  # once as it comes, and once alone
    assert 2 <= now() - settled < 4


@pytest.mark.looptime
async def test_certificates_at_once_share_one_verdict(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=True)

    outcomes = await asyncio.gather(*(springest.upload(upload) for _ in range(6)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Rejected] * 6
    assert posts(scripted) <= 6 + 4 + 5
    assert now() < 130


@pytest.mark.looptime
@pytest.mark.parametrize("refusals", [1, 2, 3, 4])
async def test_an_unknown_400_that_is_accepted_later_was_the_limit(
    refusals: int, springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=refusals)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    receipt = await springest.upload(upload)

    assert (receipt.id, receipt.attempts) == (1, refusals + 1)
    assert springest.limiter.slow


@pytest.mark.looptime
async def test_once_it_was_the_limit_the_same_body_is_waited_out(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request")
    scripted.post(CERTIFICATES, status=201)
    scripted.post(CERTIFICATES, status=400, body="Bad Request")
    scripted.post(CERTIFICATES, status=201)
    await springest.upload(upload)

    receipt = await springest.upload(upload)

    assert receipt.attempts == 2


@pytest.mark.looptime
async def test_one_body_for_both_meanings_still_ends_in_a_rejection(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request")
    scripted.post(CERTIFICATES, status=201)
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=True)
    await springest.upload(upload)

    with pytest.raises(Rejected):
        await springest.upload(upload)

    assert posts(scripted) <= 2 + 5


@pytest.mark.looptime
async def test_refused_while_others_are_accepted_it_is_invalid(
    springest: Springest,
    scripted: ScriptedAnswers,
    upload: CertificateUpload,
    make_upload: Callable[..., CertificateUpload],
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7 and something that the server does not like")
    bad = make_upload(file=tmp_path / "bad.pdf")
    sent: list[str] = []
    times: list[float] = []

    def answer(_: URL, *, data: CertificateBody, **__: Any) -> CallbackResult:
        sent.append(data._source.path.name)
        times.append(now())
        refused = sent[-1] == "bad.pdf" or len(sent) == 1
        return CallbackResult(status=400, body="Bad Request") if refused else CallbackResult(status=201)

    async def others() -> None:
        while True:
            await springest.upload(upload)

    scripted.post(CERTIFICATES, callback=answer, repeat=True)
    await springest.upload(upload)  # refused once and then accepted: the same body may mean the limit from now on
    async with asyncio.TaskGroup() as group:
        going_on = [group.create_task(others()) for _ in range(3)]
        with pytest.raises(Rejected):
            await springest.upload(bad)
        for task in going_on:
            task.cancel()

    # Five pauses of 2, 4 … 32 s and more; what it meant before says that a crowd may be refused twice and be valid.
    assert sent.count("bad.pdf") == 6
    assert springest.limiter.slow
    # The only silence is that of the slow pace, after the first certificate.
    assert [after - before >= 60 for before, after in itertools.pairwise(times)].count(True) == 1


@define
class Migration:
    """Certificates of many rows, some of them invalid, for a server that says the same of all that it refuses.

    Each row's person is row0@example.org and so on, and each answer takes 0.1 to 0.4 s. It begins to work at once.
    """

    scripted: ScriptedAnswers
    make_upload: Callable[..., CertificateUpload]
    burst: int
    invalid: Container[int] = ()
    window: Window | None = None
    words: str = "Bad Request"
    limiter: Limiter = field(init=False)
    sent: list[tuple[float, int]] = field(init=False, factory=list)
    outcomes: dict[int, str] = field(init=False, factory=dict)

    async def run(self, rows: int, *, at_once: int = 4) -> None:
        self.limiter = Limiter(burst=self.burst)
        self.scripted.post(CERTIFICATES, callback=self._answer, repeat=True)
        waiting = iter(range(rows))
        settings = Settings(limiter=self.limiter)
        async with Springest(api_key="key", settings=settings) as springest, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(self._work(springest, waiting))

    async def _work(self, springest: Springest, waiting: Iterator[int]) -> None:
        for row in waiting:
            try:
                await springest.upload(self.make_upload(email=f"row{row}@example.org"))
            except Rejected:
                self.outcomes[row] = "rejected"
            else:
                self.outcomes[row] = "stored"

    async def _answer(self, _: URL, *, data: CertificateBody, **__: Any) -> CallbackResult:
        email = next(text for text in data.sent_texts if "@" in text)
        row = int(email.removeprefix("row").removesuffix("@example.org"))
        self.sent.append((now(), row))
        number = len(self.sent)
        await asyncio.sleep(0.05 + number * 7 % 13 * 0.0125)
        too_fast = self.window is not None and not self.window.admit(now())
        await asyncio.sleep(0.05 + number * 5 % 11 * 0.0125)
        if too_fast or row in self.invalid:
            return CallbackResult(status=400, body=self.words.format(email=email))
        return CallbackResult(status=201)

    @property
    def rejected(self) -> set[int]:
        """The rows that were rejected."""
        return {row for row, outcome in self.outcomes.items() if outcome == "rejected"}

    @property
    def silences(self) -> int:
        """How often nothing was sent for a minute; of use with a burst of 1, as others pause between the bursts."""
        return sum(after - before >= 60 for (before, _), (after, _) in itertools.pairwise(self.sent))

    def posts_of(self, row: int) -> int:
        """How often a row was sent."""
        return sum(other == row for _, other in self.sent)


Migrate = Callable[..., Migration]


@pytest.fixture
def migration(scripted: ScriptedAnswers, make_upload: Callable[..., CertificateUpload]) -> Migrate:
    """Give a maker of migrations."""
    return partial(Migration, scripted, make_upload)


virtual = pytest.mark.looptime(start=0, resolution=2**-20, noop_cycles=0)  # in which sums of times are exact


@virtual
@pytest.mark.parametrize("words", ["Bad Request", "{email} is not known here"], ids=["generic", "repeats the e-mail"])
async def test_a_few_invalid_rows_cost_one_silent_minute(words: str, migration: Migrate) -> None:
    invalid = {20, 40, 60}
    run = migration(burst=1, invalid=invalid, words=words)

    await run.run(80)

    assert run.rejected == invalid
    assert [run.posts_of(row) for row in sorted(invalid)] == [5, 2, 2]
    assert len(run.sent) == 77 + 5 + 2 + 2
    assert run.silences == 1
    assert not run.limiter.slow


@virtual
@pytest.mark.parametrize("burst", [1, 30])
async def test_a_block_of_invalid_rows_costs_one_silent_minute(burst: int, migration: Migrate) -> None:
    invalid = range(10, 25)
    run = migration(burst=burst, invalid=invalid)

    await run.run(40)

    assert run.rejected == set(invalid)
    assert [run.posts_of(row) >= 5 for row in invalid].count(True) == 1  # that one was put to the test
    assert len(run.sent) <= 25 + 15 * 2 + 4
    assert now() < 40 * 2 + 60 + 1.5 * (2 + 4 + 8) + 40  # a second silence would take longer
    assert burst > 1 or run.silences == 1
    assert not run.limiter.slow


@virtual
async def test_invalid_rows_at_the_end_cost_one_more_silent_minute(migration: Migrate) -> None:
    invalid = {5, *range(30, 40)}
    run = migration(burst=1, invalid=invalid)

    await run.run(40)

    assert run.rejected == invalid
    assert run.silences == 2


@virtual
async def test_one_body_for_both_meanings_is_learnt_from_a_stored_row(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=5)
    scripted.post(CERTIFICATES, status=201)
    scripted.post(CERTIFICATES, status=400, body="Bad Request")
    scripted.post(CERTIFICATES, status=201)
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=True)
    with pytest.raises(Rejected):
        await springest.upload(upload)
    await springest.upload(upload)
    assert not springest.limiter.slow
    began = now()

    assert (await springest.upload(upload)).attempts == 2
    assert now() - began < 5
    assert springest.limiter.slow
    assert springest._verdicts._known == {"400 bad request": RefusalCause.TOO_FAST}

    # From now on it takes more than one refusal: none other is accepted, so this one is sent again after a silence.
    with pytest.raises(Rejected):
        await springest.upload(upload)
    assert posts(scripted) == 5 + 1 + 2 + 3


@virtual
@pytest.mark.parametrize("at_once", [1, 8, 30])
@pytest.mark.parametrize("burst", [1, 30])
@pytest.mark.parametrize("first", [0, 3, 40])
async def test_no_valid_row_is_rejected_where_one_body_means_both(
    first: int, burst: int, at_once: int, migration: Migrate
) -> None:
    invalid = {first, first + 9, first + 20}
    run = migration(burst=burst, invalid=invalid, window=Paced(30, 60.0))

    await run.run(80, at_once=at_once)

    assert run.rejected == invalid
    assert run.limiter.slow


@virtual
@pytest.mark.parametrize("at_once", [1, 8, 30])
@pytest.mark.parametrize("burst", [1, 30])
@pytest.mark.parametrize("invalid", [range(40), range(20, 70), range(31, 80)], ids=str)
async def test_no_valid_row_is_rejected_behind_many_invalid_ones(
    invalid: range, burst: int, at_once: int, migration: Migrate
) -> None:
    run = migration(burst=burst, invalid=invalid, window=ElasticWindow(30, 60.0))

    await run.run(120, at_once=at_once)

    assert run.rejected == set(invalid)


@virtual
# Not (1, 30): there a valid row can be rejected, as docs/limiter.md says.
@pytest.mark.parametrize(("burst", "at_once"), [(1, 4), (1, 8), (30, 4), (30, 8), (30, 30)])
@pytest.mark.parametrize("window", [FixedWindow, SlidingWindow])
async def test_no_valid_row_is_rejected_where_fewer_than_30_are_taken(
    window: Callable[[int, float], Window], burst: int, at_once: int, migration: Migrate
) -> None:
    invalid = {3, 12, 23}
    run = migration(burst=burst, invalid=invalid, window=window(25, 60.0))

    await run.run(80, at_once=at_once)

    assert run.rejected == invalid
    assert run.limiter.slow


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("answer", "silence"),
    [
        ({"status": 400, "body": "Too many requests"}, 60.0),
        ({"status": 429}, 60.0),
        ({"status": 400, "body": "Bad Request", "headers": {"Retry-After": "5"}}, 60.0),
        ({"status": 429, "headers": {"Retry-After": "200"}}, 200.0),
    ],
    ids=["words", "429", "Retry-After", "a long Retry-After"],
)
async def test_a_refusal_that_names_the_limit_is_waited_out(
    answer: dict[str, Any], silence: float, springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, **answer)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    receipt = await springest.upload(upload)

    assert (receipt.id, receipt.attempts) == (1, 2)
    assert silence <= now() <= silence + 1
    assert springest.limiter.slow


@pytest.mark.looptime
async def test_refusals_that_name_the_limit_never_fail_a_certificate(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Too many requests", repeat=20)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    assert (await springest.upload(upload)).attempts == 21


@pytest.mark.looptime
async def test_naming_the_limit_is_no_verdict_after_a_silence_either(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=400, body="Bad Request", repeat=4)
    scripted.post(CERTIFICATES, status=429)  # to the one that was sent alone
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    receipt = await springest.upload(upload)

    assert (receipt.id, receipt.attempts) == (1, 6)
    assert now() > 60


# --- the limit ---


@pytest.mark.looptime
async def test_the_thirty_first_certificate_waits_for_a_minute(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    times: list[float] = []

    def created(_: URL, **__: Any) -> CallbackResult:
        times.append(now())
        return CallbackResult(status=201)

    scripted.post(CERTIFICATES, callback=created, repeat=True)

    await asyncio.gather(*(springest.upload(upload) for _ in range(31)))

    assert times[29] < 1
    assert 60 <= times[30] < 62


class Recording(Limiter):
    """A limiter that keeps whether each POST was asked for as one of many."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bool] = []

    @asynccontextmanager
    async def post(
        self, *, count_window: float, bulk: bool = False, intent: Intent | None = None
    ) -> AsyncIterator[Permit]:
        self.asked.append(bulk)
        async with super().post(count_window=count_window, bulk=bulk, intent=intent) as turn:
            yield turn


@pytest.mark.looptime
@pytest.mark.parametrize("bulk", [False, True])
async def test_the_limiter_knows_at_each_try_whether_it_is_bulk(
    bulk: bool, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=aiohttp.ServerDisconnectedError())
    scripted.post(CERTIFICATES, status=400, body="Too many requests")
    scripted.post(CERTIFICATES, status=201)
    limiter = Recording()

    async with Springest(api_key="key", settings=Settings(limiter=limiter)) as springest:
        await (upload_in_bulk(springest, upload) if bulk else springest.upload(upload))

    assert limiter.asked == [bulk] * 3


@pytest.mark.looptime
async def test_an_upload_goes_before_those_of_a_bulk_run(
    springest: Springest, scripted: ScriptedAnswers, make_upload: Callable[..., CertificateUpload]
) -> None:
    order: list[str] = []

    def created(_: URL, *, data: CertificateBody, **__: Any) -> CallbackResult:
        order.append(next(text for text in data.sent_texts if "@" in text).partition("@")[0])
        return CallbackResult(status=201)

    scripted.post(CERTIFICATES, callback=created, repeat=True)
    async with asyncio.TaskGroup() as group:
        for number in range(34):
            group.create_task(upload_in_bulk(springest, make_upload(email=f"bulk{number}@example.org")))
        await asyncio.sleep(5)
        group.create_task(springest.upload(make_upload(email="jan@example.org")))

    assert order.index("jan") == 31  # behind the one of the bulk run that stood at the door already
    assert len(order) == 35


# --- a listener ---


@pytest.mark.looptime
async def test_a_listener_hears_each_step(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED)
    scripted.post(CERTIFICATES, status=503, body="no")
    scripted.post(CERTIFICATES, status=400, body="Bad Request")
    scripted.post(CERTIFICATES, status=429, body="Slow down")
    scripted.post(CERTIFICATES, status=201)
    steps: list[UploadStep] = []
    before = datetime.now(UTC)

    receipt = await springest.upload(upload, listener=steps.append)

    assert [(step.kind, step.attempts, step.status, step.words) for step in steps] == [
        ("waiting", 0, None, ""),
        ("sending", 1, None, ""),
        ("unsent", 1, None, f"no connection: {os.strerror(errno.ECONNREFUSED)}"),
        ("waiting", 1, None, ""),
        ("sending", 2, None, ""),
        ("unsent", 2, 503, "the server answered 503 before it had the whole certificate"),
        ("waiting", 2, None, ""),
        ("sending", 3, None, ""),
        ("refused", 3, 400, "Bad Request"),
        ("waiting", 3, None, ""),
        ("sending", 4, None, ""),
        ("refused", 4, 429, "Slow down"),
        ("waiting", 4, None, ""),
        ("sending", 5, None, ""),
        ("stored", 5, 201, ""),
    ]
    times = [before, *(step.at for step in steps[:-1]), receipt.answered_at, steps[-1].at]
    assert times == sorted(times)
    assert {step.at.tzinfo for step in steps} == {UTC}
    assert receipt.sent_at == steps[-2].at
    unconnected, second, third, fourth, fifth = request_ids(scripted)
    assert len({unconnected, second, third, fourth, fifth}) == 5
    assert [step.request_id for step in steps] == [
        *("", unconnected, ""),
        *("", second, second),
        *(second, third, third),
        *(third, fourth, fourth),
        *(fourth, fifth, fifth),
    ]
    assert receipt.request_id == fifth


@pytest.mark.looptime
async def test_in_bulk_no_connection_ends_it_at_once(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    """The run waits for a connection, and lets one certificate try for all."""
    scripted.post(CERTIFICATES, exception=REFUSED, repeat=True)

    with pytest.raises(NotSent) as raised:
        await upload_in_bulk(springest, upload)

    assert not raised.value.connected
    assert (posts(scripted), now()) == (1, 0)
    assert springest.limiter.seconds_until(30) == 0  # no token is lost


@pytest.mark.looptime
async def test_a_listener_hears_that_it_was_not_stored(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED, repeat=True)
    steps: list[UploadStep] = []

    with pytest.raises(NotSent) as raised:
        await springest.upload(upload, listener=steps.append)

    assert [step.kind for step in steps] == [*["waiting", "sending", "unsent"] * 4, "not stored"]
    assert steps[-1].words == steps[-2].words
    assert raised.value.request_id == steps[-1].request_id == ""  # nothing has left


@pytest.mark.looptime
async def test_a_listener_that_fails_at_the_last_step_changes_nothing(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    assert (await springest.upload(upload, listener=objecting("stored"))).id == 1
    assert "the listener of an upload failed at its last step" in caplog.text


class Objection(Exception):
    """What a listener raises, such as a journal that cannot write to its disk."""


def objecting(kind: str) -> UploadListener:
    """Give a listener that raises at a step of this kind."""

    def listener(step: UploadStep) -> None:
        if step.kind == kind:
            raise Objection

    return listener


@pytest.mark.looptime
@pytest.mark.parametrize(("kind", "posted"), [("waiting", 0), ("sending", 0), ("unsent", 1), ("refused", 2)])
async def test_a_listener_that_raises_ends_the_upload_with_that_error(
    kind: str, posted: int, springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED)
    scripted.post(CERTIFICATES, status=400, body="Too many requests")
    scripted.post(CERTIFICATES, status=201, repeat=True)

    with pytest.raises(Objection):
        await springest.upload(upload, listener=objecting(kind))

    resting = 1 if kind == "refused" else 0
    assert posts(scripted) == posted
    assert repr(springest.limiter) == f"<Limiter 30 in 60 s, 0 under way, {resting} resting, fast>"
    assert springest.limiter.seconds_until(30) <= 60.1 * resting + 1e-6  # floats


@pytest.mark.looptime
async def test_the_token_of_a_post_that_a_listener_stopped_is_back(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, repeat=True)
    await asyncio.gather(*(springest.upload(upload) for _ in range(29)))

    with pytest.raises(Objection):
        await springest.upload(upload, listener=objecting("sending"))
    await springest.upload(upload)

    assert posts(scripted) == 30
    assert now() < 3
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 30 resting, fast>"


async def test_the_token_of_a_post_that_did_not_begin_is_back(springest: Springest, upload: CertificateUpload) -> None:
    await springest._transport.__aexit__(None, None, None)

    with pytest.raises(RuntimeError, match="the session is closed"):
        await springest.upload(upload)

    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


# --- cancelling ---


def told_by(error: BaseException) -> SpringestError:
    """Give what a cancellation says of its certificate."""
    assert isinstance(error.__cause__, SpringestError)
    return error.__cause__


async def cancelled(task: "asyncio.Task[Receipt]") -> asyncio.CancelledError:
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert not [other for other in asyncio.all_tasks() if other is not asyncio.current_task()]
    return caught.value


@pytest.mark.looptime
async def test_cancelled_while_it_waits_for_the_limit_it_was_not_sent(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, repeat=True)
    await asyncio.gather(*(springest.upload(upload) for _ in range(30)))
    task = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(10)

    told = told_by(await cancelled(task))

    assert isinstance(told, NotSent)
    assert str(told) == f"{POST}: cancelled before it was sent"
    assert not told.connected
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 30 resting, fast>"
    assert 49 < springest.limiter.seconds_until(1) < 51


@pytest.mark.parametrize("bulk", [True, False])
@pytest.mark.looptime
async def test_cancelled_in_the_queue_it_holds_up_nothing_behind_it(
    bulk: bool, springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, repeat=True)
    await asyncio.gather(*(springest.upload(upload) for _ in range(30)))
    first, second = (asyncio.create_task(upload_in_bulk(springest, upload, bulk=bulk)) for _ in range(2))
    await asyncio.sleep(10)

    first.cancel()
    await second

    assert 60 <= now() < 61
    assert first.cancelled()


class HeldBack(Executor):
    """An executor whose results are held back until `go` is set, as those of a slow disk are."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.done, self.go = threading.Event(), threading.Event()

    def submit(self, function: Any, /, *args: Any, **options: Any) -> Future[Any]:
        def held() -> Any:
            result = function(*args, **options)
            self.done.set()
            self.go.wait(5)
            return result

        return self.inner.submit(held)


async def test_cancelled_while_its_file_is_inspected_it_was_not_sent(
    springest: Springest,
    scripted: ScriptedAnswers,
    upload: CertificateUpload,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert springest._opened is not None
    slow = HeldBack(springest._opened.executor)
    monkeypatch.setattr(springest._opened, "executor", slow)
    task = asyncio.create_task(springest.upload(upload))
    await asyncio.to_thread(slow.done.wait, 5)

    told = told_by(await cancelled(task))
    slow.go.set()

    assert isinstance(told, NotSent)
    assert posts(scripted) == 0
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


@pytest.mark.looptime
async def test_cancelled_before_it_is_sent_again_it_was_not_sent(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED)
    task = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(1)

    told = told_by(await cancelled(task))

    assert isinstance(told, NotSent)
    assert posts(scripted) == 1
    assert repr(springest.limiter) == "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        pytest.param({"status": 400, "body": "Bad Request"}, 1, id="between tries"),
        pytest.param({"status": 400, "body": "Bad Request"}, 40, id="in the silent minute"),
        pytest.param({"status": 429}, 30, id="before the slow pace"),
    ],
)
async def test_cancelled_after_a_refusal_it_was_not_stored(
    answer: dict[str, Any],
    seconds: float,
    springest: Springest,
    scripted: ScriptedAnswers,
    upload: CertificateUpload,
) -> None:
    def answers(_: URL, **__: Any) -> CallbackResult:
        return CallbackResult(status=201) if task.done() else CallbackResult(**answer)

    scripted.post(CERTIFICATES, callback=answers, repeat=True)
    task = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(seconds)

    told = told_by(await cancelled(task))

    assert isinstance(told, NotSent)
    assert str(told) == f"{POST}: cancelled after the server had refused it ({answer['status']})"
    # Nobody is kept from sending by the one that is gone: neither alone, nor in its place in the line.
    began = now()
    await asyncio.gather(*(springest.upload(upload) for _ in range(3)))
    assert now() - began < 60.2 + 4 + 1


@pytest.mark.looptime
async def test_a_cancelled_second_try_is_not_taken_for_the_first(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    async def hangs(_: URL, **__: Any) -> CallbackResult:
        await asyncio.sleep(1000)
        return CallbackResult(status=201)

    scripted.post(CERTIFICATES, status=400, body="Too many requests")
    scripted.post(CERTIFICATES, callback=hangs)
    task = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(100)

    assert str(told_by(await cancelled(task))).startswith(f"{POST}: cancelled before it was sent")


@pytest.mark.looptime
async def test_cancelled_before_it_has_begun_it_says_nothing(springest: Springest, upload: CertificateUpload) -> None:
    """No line of ours has run then, so that there is nobody to say it; nothing was sent, as with any task."""
    assert (await cancelled(asyncio.create_task(springest.upload(upload)))).__cause__ is None
