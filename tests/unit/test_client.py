"""`Springest` with scripted answers and virtual time: what is sent again, when, how often, and what it ends in.

Nothing is written here, so a POST that fails or gets a 5xx counts as not sent: what is in doubt is tested on real
sockets, in ``tests/integration/test_wire.py``.
"""

import asyncio
import errno
import itertools
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import CallbackResult
from yarl import URL

from springest_async import (
    Certificate,
    CertificateUpload,
    Certification,
    ConfigurationError,
    Fault,
    Forbidden,
    Limiter,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    ServerError,
    Settings,
    Springest,
    SpringestError,
    UnexpectedStatus,
    UnreadableAnswer,
    UnusableFile,
    UploadStep,
)
from springest_async.multipart import CertificateBody
from tests.conftest import ScriptedAnswers

CERTIFICATES = "https://api.springest.nl/users/certificates.json"
CERTIFICATIONS = re.compile(r"https://api\.springest\.nl/certifications\.json\?.*")
LIST = re.compile(r"https://api\.springest\.nl/users/certificates\.json\?.*")
KEY = "key-for-certificates"
OTHER_KEY = "key-for-certifications"
POST = f"POST {CERTIFICATES}"
GET = f"GET {CERTIFICATES}"
REFUSED = aiohttp.ClientConnectorError(
    ConnectionKey("api.springest.nl", 443, True, True, None, None, None), OSError(errno.ECONNREFUSED, "Refused")
)


@pytest.fixture
async def springest(limiter: Limiter, scripted: ScriptedAnswers) -> AsyncIterator[Springest]:
    settings = Settings(limiter=limiter)
    async with Springest(api_key=KEY, certifications_api_key=OTHER_KEY, settings=settings) as springest:
        yield springest


def now() -> float:
    return asyncio.get_running_loop().time()


def posts(scripted: ScriptedAnswers) -> int:
    return len(scripted.sent("POST"))


# --- one POST ---


async def test_a_201_is_a_receipt(springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload) -> None:
    scripted.post(CERTIFICATES, status=201, payload={"id": 5004})
    before = datetime.now(UTC)

    receipt = await springest.upload(upload)

    assert receipt == Receipt(
        id=5004, upload=upload, attempts=1, sent_at=receipt.sent_at, answered_at=receipt.answered_at
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
async def test_a_5xx_before_the_whole_certificate_was_written_is_sent_again(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=503)
    scripted.post(CERTIFICATES, status=201, payload={"id": 1})

    assert (await springest.upload(upload)).attempts == 2


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
async def test_an_unknown_400_is_a_rejection_when_it_is_refused_after_a_silent_minute_too(
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
async def test_the_verdict_holds_for_the_next_certificate_with_the_same_body(
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

    assert posts(scripted) == 6
    assert now() - settled < 1


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
async def test_what_is_refused_while_others_are_accepted_is_invalid_without_a_silent_minute(
    springest: Springest,
    scripted: ScriptedAnswers,
    upload: CertificateUpload,
    make_upload: Callable[..., CertificateUpload],
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7 and something that the server does not like")
    bad = make_upload(file=tmp_path / "bad.pdf")
    sent: list[str] = []

    def answer(_: URL, *, data: CertificateBody, **__: Any) -> CallbackResult:
        sent.append(str(data._source.path.name))
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

    assert sent.count("bad.pdf") == 4
    assert springest.limiter.slow


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
async def test_a_refusal_that_names_the_limit_is_waited_out_without_an_experiment(
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


# --- a listener ---


@pytest.mark.looptime
async def test_a_listener_hears_each_step(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, exception=REFUSED)
    scripted.post(CERTIFICATES, status=400, body="Bad Request")
    scripted.post(CERTIFICATES, status=201)
    steps: list[UploadStep] = []

    await springest.upload(upload, listener=steps.append)

    assert [step for step, _ in itertools.groupby(steps)] == [
        UploadStep("waiting", 0),
        UploadStep("sending", 1),
        UploadStep("waiting", 1),
        UploadStep("sending", 2),
        UploadStep("refused", 2, "Bad Request"),
        UploadStep("waiting", 2),
        UploadStep("sending", 3),
    ]


# --- lists ---


def row(number: int) -> dict[str, Any]:
    return {"id": number, "certification_id": 7, "valid_from": "2026-01-31"}


def record(number: int) -> Certificate:
    return Certificate(id=number, certification_id=7, valid_from=date(2026, 1, 31))


class Lister:
    """A server's list: it gives at most `cap` records a page, from `offset` unless it ignores that."""

    def __init__(self, total: int, *, cap: int = 100, envelope: bool = True, meta: bool = True, ignores: bool = False):
        self.total, self.cap, self.envelope, self.meta, self.ignores = total, cap, envelope, meta, ignores
        self.asked: list[dict[str, str]] = []

    def __call__(self, url: URL, **_: Any) -> CallbackResult:
        self.asked.append(dict(url.query))
        assert len(self.asked) < 50, "it asks for ever"
        start = 0 if self.ignores else int(url.query["offset"])
        rows = [row(n) for n in range(self.total)][start : start + min(self.cap, int(url.query["size"]))]
        body: Any = rows
        if self.envelope:
            body = {"certificates": rows} | ({"meta": {"results": self.total, "offset": start}} if self.meta else {})
        return CallbackResult(status=200, payload=body)


async def all_of(springest: Springest, **query: Any) -> list[Certificate]:
    return [certificate async for certificate in springest.certificates(**query)]


@pytest.mark.parametrize(
    ("lister", "requests"),
    [
        pytest.param(Lister(0), 1, id="none"),
        pytest.param(Lister(1), 1, id="one"),
        pytest.param(Lister(100), 1, id="one page"),
        pytest.param(Lister(101), 2, id="two pages"),
        pytest.param(Lister(250, cap=20), 13, id="a server with smaller pages"),
        pytest.param(Lister(0, envelope=False), 1, id="none, bare"),
        pytest.param(Lister(250, envelope=False), 4, id="bare arrays end with an empty page"),
        pytest.param(Lister(250, meta=False), 4, id="without a total too"),
    ],
)
async def test_all_pages_are_fetched(
    lister: Lister, requests: int, springest: Springest, scripted: ScriptedAnswers
) -> None:
    scripted.get(LIST, callback=lister, repeat=True)

    assert [record(n) for n in range(lister.total)] == await all_of(springest)
    assert requests == len(lister.asked)


@pytest.mark.parametrize("shape", [{}, {"meta": False}, {"envelope": False}], ids=["meta", "no meta", "bare"])
async def test_a_server_that_ignores_offset_does_not_keep_us_for_ever(
    shape: dict[str, bool], springest: Springest, scripted: ScriptedAnswers
) -> None:
    lister = Lister(5, cap=2, ignores=True, **shape)
    scripted.get(LIST, callback=lister, repeat=True)

    assert [record(0), record(1)] == await all_of(springest)
    assert len(lister.asked) == 2


async def test_records_that_move_to_the_next_page_are_told_once(
    springest: Springest, scripted: ScriptedAnswers
) -> None:
    pages = iter([[1, 2], [2, 3], []])
    scripted.get(LIST, callback=lambda _, **__: CallbackResult(payload=[row(n) for n in next(pages)]), repeat=True)  # type: ignore[arg-type] # a list is JSON too

    assert [record(n) for n in (1, 2, 3)] == await all_of(springest)


async def test_a_page_is_fetched_only_when_it_is_wanted(springest: Springest, scripted: ScriptedAnswers) -> None:
    lister = Lister(250)
    scripted.get(LIST, callback=lister, repeat=True)

    async for certificate in springest.certificates():
        assert certificate == record(0)
        break

    assert len(lister.asked) == 1


async def test_what_was_asked_for_is_in_the_query(springest: Springest, scripted: ScriptedAnswers) -> None:
    lister = Lister(150)
    scripted.get(LIST, callback=lister, repeat=True)

    await all_of(springest, email="jan+x@example.org", certification_id=7, created_from=date(2026, 1, 5))

    common = {"email": "jan+x@example.org", "certification_id": "7", "created_from": "2026-01-05", "size": "100"}
    assert lister.asked == [common | {"offset": "0"}, common | {"offset": "100"}]


async def test_certifications_are_listed_by_name(springest: Springest, scripted: ScriptedAnswers) -> None:
    queries: list[dict[str, str]] = []

    def answer(url: URL, **_: Any) -> CallbackResult:
        queries.append(dict(url.query))
        return CallbackResult(payload={"certifications": [{"id": 7, "name": "VCA"}], "meta": {"results": 1}})

    scripted.get(CERTIFICATIONS, callback=answer, repeat=True)

    found = [certification async for certification in springest.certifications(name="VCA")]

    assert found == [Certification(id=7, name="VCA")]
    assert queries == [{"name": "VCA", "size": "100", "offset": "0"}]


async def test_without_a_key_for_certifications_the_setting_is_named(
    limiter: Limiter, scripted: ScriptedAnswers
) -> None:
    async with Springest(api_key=KEY, settings=Settings(limiter=limiter)) as springest:
        with pytest.raises(ConfigurationError, match=r"certifications_api_key.*SPRINGEST_CERTIFICATIONS_API_KEY"):
            await anext(springest.certifications())

    assert scripted.requests == {}


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        ({"status": 500}, ServerError),
        ({"status": 503}, ServerError),
        ({"status": 429}, UnexpectedStatus),
        ({"exception": REFUSED}, NotSent),
        ({"exception": aiohttp.ServerDisconnectedError()}, NoAnswer),
    ],
    ids=["500", "503", "429", "refused", "disconnected"],
)
async def test_a_list_is_asked_for_five_times_when_that_can_help(
    failure: dict[str, Any], kind: type[SpringestError], springest: Springest, scripted: ScriptedAnswers
) -> None:
    scripted.get(LIST, repeat=True, **failure)

    with pytest.raises(kind):
        await all_of(springest)

    assert len(scripted.sent("GET")) == 5
    assert 1 <= now() <= 60


@pytest.mark.looptime
async def test_a_list_that_comes_at_the_fifth_time_is_a_list(springest: Springest, scripted: ScriptedAnswers) -> None:
    scripted.get(LIST, status=500)
    scripted.get(LIST, status=429)
    scripted.get(LIST, exception=REFUSED)
    scripted.get(LIST, exception=aiohttp.ServerDisconnectedError())
    scripted.get(LIST, payload={"certificates": [row(1)], "meta": {"results": 1}})

    assert [record(1)] == await all_of(springest)


@pytest.mark.looptime
@pytest.mark.parametrize("status", [429, 503])
async def test_a_list_is_asked_for_again_when_the_server_says(
    status: int, springest: Springest, scripted: ScriptedAnswers
) -> None:
    scripted.get(LIST, status=status, headers={"Retry-After": "77"})
    scripted.get(LIST, payload={"certificates": [row(1)], "meta": {"results": 1}})

    assert [record(1)] == await all_of(springest)
    assert 77 <= now() < 78


@pytest.mark.looptime
async def test_a_wait_that_the_server_asked_for_once_is_not_kept_for_later_failures(
    springest: Springest, scripted: ScriptedAnswers
) -> None:
    scripted.get(LIST, status=503, headers={"Retry-After": "77"})
    scripted.get(LIST, exception=REFUSED)
    scripted.get(LIST, payload={"certificates": [row(1)], "meta": {"results": 1}})

    assert [record(1)] == await all_of(springest)
    assert 77 <= now() < 77 + 31


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, Redirected), (400, UnexpectedStatus), (401, NotAuthorized), (403, Forbidden), (404, NotFound)],
)
async def test_a_list_is_asked_for_once_when_more_cannot_help(
    status: int, kind: type[SpringestError], springest: Springest, scripted: ScriptedAnswers
) -> None:
    scripted.get(LIST, status=status, repeat=True)

    with pytest.raises(kind) as caught:
        await all_of(springest)

    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{GET} answered {status}")
    assert len(scripted.sent("GET")) == 1


async def test_a_list_that_cannot_be_read_says_where(springest: Springest, scripted: ScriptedAnswers) -> None:
    scripted.get(LIST, payload={"certificates": [row(1), row(2) | {"id": 2.5}]}, repeat=True)

    with pytest.raises(UnreadableAnswer) as caught:
        await all_of(springest)

    assert caught.value.expected == "integer, not 2.5 @ certificates[1].id"
    assert len(scripted.sent("GET")) == 1


async def test_xml_is_asked_for_and_read_when_it_is_set(limiter: Limiter, scripted: ScriptedAnswers) -> None:
    scripted.get(
        re.compile(r"https://api\.springest\.nl/users/certificates\.xml\?.*"),
        body='<certificates type="array"/>',
        repeat=True,
    )
    async with Springest(api_key=KEY, settings=Settings(limiter=limiter, wire_format="xml")) as springest:
        assert await all_of(springest) == []

    assert len(scripted.sent("GET")) == 1


# --- opening, closing, configuring ---


@pytest.mark.parametrize("key", ["", None])
def test_a_key_must_be_given(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_key is empty"):
        Springest(api_key=key)


def test_the_host_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match="http sends the key in the clear"):
        Springest(api_key=KEY, host="http://api.springest.nl")


@pytest.mark.parametrize(
    "changes",
    [{"wire_format": "csv"}, {"concurrency": 0}, {"posts_per_minute": 0}],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Settings(**changes)


def test_a_burst_above_the_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="burst"):
        Springest(api_key="a key of this test", settings=Settings(burst=31))


def test_clients_of_one_host_and_key_share_a_bucket_and_others_do_not() -> None:
    one, same, other = (Springest(api_key=key, host="com") for key in ("one", "one", "other"))

    assert one.limiter is same.limiter
    assert one.limiter is not other.limiter
    assert one.limiter is not Springest(api_key="one", host="de").limiter


async def test_a_client_that_is_closed_says_so(upload: CertificateUpload, limiter: Limiter) -> None:
    springest = Springest(api_key=KEY, settings=Settings(limiter=limiter))
    with pytest.raises(RuntimeError, match="use it inside"):
        await springest.upload(upload)
    with pytest.raises(RuntimeError, match="use it inside"):
        await anext(springest.certificates())

    async with springest:
        pass
    with pytest.raises(RuntimeError, match="use it inside"):
        await springest.upload(upload)


async def test_a_client_can_be_opened_again(
    upload: CertificateUpload, limiter: Limiter, scripted: ScriptedAnswers
) -> None:
    scripted.post(CERTIFICATES, status=201, payload={"id": 1}, repeat=True)
    springest = Springest(api_key=KEY, settings=Settings(limiter=limiter))

    for _ in range(2):
        async with springest:
            assert (await springest.upload(upload)).id == 1


async def test_the_repr_says_where_whether_it_is_open_and_how_the_limit_stands(limiter: Limiter) -> None:
    springest = Springest(api_key=KEY, settings=Settings(limiter=limiter))
    bucket = "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"
    assert repr(springest) == f"<Springest https://api.springest.nl, closed, {bucket}>"

    async with springest:
        assert repr(springest) == f"<Springest https://api.springest.nl, open, {bucket}>"


@pytest.mark.looptime
async def test_cancelling_an_upload_that_waits_for_the_limit_sends_nothing(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, repeat=True)
    await asyncio.gather(*(springest.upload(upload) for _ in range(30)))
    waiting = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(10)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(120)

    assert posts(scripted) == 30
