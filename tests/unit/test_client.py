"""`Springest` with scripted answers in virtual time: lists, settling, settings, opening, closing, and a slow stop."""

import asyncio
import errno
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import CallbackResult
from attrs import define, field
from yarl import URL

from springest_async import (
    Certificate,
    CertificateUpload,
    Certification,
    ConfigurationError,
    Forbidden,
    InDoubt,
    Limiter,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Redirected,
    Rejected,
    ServerError,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    UnexpectedStatus,
    UnreadableAnswer,
    User,
)
from springest_async.client import _Opened
from tests.conftest import ScriptedAnswers

CERTIFICATES = "https://api.springest.nl/users/certificates.json"
CERTIFICATIONS = re.compile(r"https://api\.springest\.nl/certifications\.json\?.*")
LIST = re.compile(r"https://api\.springest\.nl/users/certificates\.json\?.*")
KEY = "key-for-certificates"
POST = f"POST {CERTIFICATES}"
GET = f"GET {CERTIFICATES}"
REFUSED = aiohttp.ClientConnectorError(
    ConnectionKey("api.springest.nl", 443, True, True, None, None, None), OSError(errno.ECONNREFUSED, "Refused")
)


def now() -> float:
    return asyncio.get_running_loop().time()


def posts(scripted: ScriptedAnswers) -> int:
    return len(scripted.sent("POST"))


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
        rows = [row(n) for n in range(1, self.total + 1)][start : start + min(self.cap, int(url.query["size"]))]
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

    assert [record(n) for n in range(1, lister.total + 1)] == await all_of(springest)
    assert requests == len(lister.asked)


@pytest.mark.parametrize(("meta", "count"), [(True, 250), (False, None)])
async def test_a_list_is_counted_in_one_request(
    meta: bool, count: int | None, springest: Springest, scripted: ScriptedAnswers
) -> None:
    lister = Lister(250, meta=meta)
    scripted.get(LIST, callback=lister, repeat=True)

    assert await springest.count_certificates(certification_id=7) == count
    assert [{name: lister.asked[0][name] for name in ("certification_id", "size")}] == [
        {"certification_id": "7", "size": "1"}
    ]


@pytest.mark.parametrize("shape", [{}, {"meta": False}, {"envelope": False}], ids=["meta", "no meta", "bare"])
async def test_a_list_ends_on_a_server_that_ignores_offset(
    shape: dict[str, bool], springest: Springest, scripted: ScriptedAnswers
) -> None:
    lister = Lister(5, cap=2, ignores=True, **shape)
    scripted.get(LIST, callback=lister, repeat=True)

    assert [record(1), record(2)] == await all_of(springest)
    assert len(lister.asked) == 2


async def test_a_record_that_moves_to_the_next_page_is_yielded_once(
    springest: Springest, scripted: ScriptedAnswers
) -> None:
    pages = iter([[1, 2], [2, 3], []])
    scripted.get(LIST, callback=lambda _, **__: CallbackResult(payload=[row(n) for n in next(pages)]), repeat=True)  # type: ignore[arg-type] # a list is JSON too

    assert [record(n) for n in (1, 2, 3)] == await all_of(springest)


async def test_a_page_has_the_length_of_the_whole_list(springest: Springest, scripted: ScriptedAnswers) -> None:
    scripted.get(LIST, callback=Lister(101), repeat=True)

    pages = [page async for page in springest.certificate_pages(certification_id=7)]
    assert [(len(page.records), page.total) for page in pages] == [(100, 101), (1, 101)]
    assert [one for page in pages for one in page.records] == [record(n) for n in range(1, 102)]


async def test_a_page_is_fetched_only_when_it_is_wanted(springest: Springest, scripted: ScriptedAnswers) -> None:
    lister = Lister(250)
    scripted.get(LIST, callback=lister, repeat=True)

    async for certificate in springest.certificates():
        assert certificate == record(1)
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
async def test_a_retry_after_counts_for_one_try_only(springest: Springest, scripted: ScriptedAnswers) -> None:
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


# --- a certificate in doubt ---

NOT_LISTED = "Springest does not list it, and does not show its certification yet"
ANSWER = 90.0


def doubt(*, age: float = 0.0, **changes: Any) -> InDoubt:
    """Make the doubt about a certificate that was given up so many seconds ago."""
    given_up_at = datetime.now(UTC) - timedelta(seconds=age)
    values: dict[str, Any] = {
        "where": POST,
        "reason": "no answer within the time allowed",
        "email": "jan@example.org",
        "certification_id": 7,
        "valid_from": date(2026, 1, 31),
        "valid_until": None,
        "sent_at": given_up_at - timedelta(minutes=2),
        "given_up_at": given_up_at,
        "status": 504,
        "words": "Gateway Timeout",
    }
    return InDoubt(**(values | changes))


@define(eq=False)
class Springests:
    """What Springest lists: certificates, each from a moment of the loop's time on, and certifications."""

    scripted: ScriptedAnswers
    certificates: dict[float, Certificate] = field(factory=dict)
    certifications: list[int] = field(factory=lambda: [7])
    clock: datetime | None = None
    asked: list[tuple[float, str, dict[str, str]]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.scripted.get(LIST, callback=self._certificates, repeat=True)
        self.scripted.get(CERTIFICATIONS, callback=self._certifications, repeat=True)

    @property
    def paths(self) -> list[str]:
        """What was asked for, in this order."""
        return [path.removeprefix("/").removesuffix(".json") for _, path, _ in self.asked]

    def _certificates(self, url: URL, **_: Any) -> CallbackResult:
        self.asked.append((now(), url.path, dict(url.query)))
        shown = [certificate for since, certificate in self.certificates.items() if since <= now()]
        email = url.query.get("email")
        rows = [as_json(item) for item in shown if email is None or (item.user and item.user.email == email)]
        headers = {"Date": format_datetime(self.clock, usegmt=True)} if self.clock else {}
        return CallbackResult(payload={"certificates": rows, "meta": {"results": len(rows)}}, headers=headers)

    def _certifications(self, url: URL, **_: Any) -> CallbackResult:
        self.asked.append((now(), url.path, dict(url.query)))
        rows = [{"id": number, "name": "VCA"} for number in self.certifications]
        return CallbackResult(payload={"certifications": rows, "meta": {"results": len(rows)}})


def as_json(certificate: Certificate) -> dict[str, Any]:
    return {
        "id": certificate.id,
        "certification_id": certificate.certification_id,
        "valid_from": str(certificate.valid_from),
        "valid_until": certificate.valid_until and str(certificate.valid_until),
        "created_at": certificate.created_at and certificate.created_at.isoformat(),
        "user": certificate.user and {"email": certificate.user.email},
    }


def stored(**changes: Any) -> Certificate:
    """Make the certificate that `doubt` is about, as it is listed."""
    values: dict[str, Any] = {
        "id": 5001,
        "certification_id": 7,
        "valid_from": date(2026, 1, 31),
        "created_at": datetime.now(UTC),
        "user": User(email="jan@example.org"),
    }
    return Certificate(**(values | changes))


@pytest.fixture
async def settling(limiter: Limiter, scripted: ScriptedAnswers) -> AsyncIterator[Springest]:
    """Return a client with both keys that waits 90 s for an answer."""
    settings = Settings(limiter=limiter, timeouts=Timeouts(answer=ANSWER))
    async with Springest(api_key=KEY, certifications_api_key="other", settings=settings) as springest:
        yield springest


@pytest.fixture
async def settling_with_one_key(limiter: Limiter, scripted: ScriptedAnswers) -> AsyncIterator[Springest]:
    """Return a client without a key for certifications that waits 90 s for an answer."""
    settings = Settings(limiter=limiter, timeouts=Timeouts(answer=ANSWER))
    async with Springest(api_key=KEY, settings=settings) as springest:
        yield springest


@pytest.mark.looptime
async def test_a_certificate_in_doubt_that_is_listed_is_found_at_once(
    settling: Springest, scripted: ScriptedAnswers
) -> None:
    certificate = stored()
    server = Springests(scripted, {0.0: certificate})

    assert await settling.settle(doubt()) == certificate

    assert now() < 1
    assert server.paths == ["users/certificates"]


async def test_settle_asks_by_employee_certification_and_day(settling: Springest, scripted: ScriptedAnswers) -> None:
    server = Springests(scripted, {0.0: stored()})
    missing = doubt(sent_at=datetime(2026, 1, 31, 12, tzinfo=UTC))

    await settling.settle(missing)

    ((_, _, query),) = server.asked
    assert query == {
        "email": "jan@example.org",
        "certification_id": "7",
        "created_from": "2026-01-29",
        "size": "100",
        "offset": "0",
    }


@pytest.mark.looptime
@pytest.mark.parametrize("age", [0.0, 10.0, 89.0])
async def test_a_certificate_not_listed_though_shown_is_not_stored(
    age: float, settling: Springest, scripted: ScriptedAnswers
) -> None:
    server = Springests(scripted)

    assert await settling.settle(doubt(age=age)) is None

    assert now() == pytest.approx(ANSWER - age, abs=1)
    assert server.paths == ["users/certificates", "certifications", "users/certificates"]
    assert server.asked[-1][2] == server.asked[0][2]


@pytest.mark.looptime
@pytest.mark.parametrize("age", [ANSWER, 2 * ANSWER, 40 * 86_400.0])
async def test_an_old_doubt_is_settled_at_once_by_two_requests(
    age: float, settling: Springest, scripted: ScriptedAnswers
) -> None:
    server = Springests(scripted)

    assert await settling.settle(doubt(age=age)) is None

    assert now() < 1
    assert server.paths.count("users/certificates") == 2


@pytest.mark.looptime
@pytest.mark.parametrize("ahead", [1.0, 3600.0, 80_000.0])
async def test_a_clock_set_back_makes_settle_wait_no_longer(
    ahead: float, settling: Springest, scripted: ScriptedAnswers
) -> None:
    Springests(scripted)

    assert await settling.settle(doubt(age=-ahead)) is None

    assert now() == pytest.approx(ANSWER, abs=1)


@pytest.mark.looptime
async def test_a_clock_set_forward_makes_settle_wait_no_less(
    settling: Springest, scripted: ScriptedAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what the server is still at work on would be called not stored, and be sent twice."""
    server = Springests(scripted)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            real = datetime.now(tz) + timedelta(hours=1 if server.paths else 0)
            return cls.fromisoformat(real.isoformat())

    monkeypatch.setattr("springest_async.client.datetime", Clock)

    assert await settling.settle(doubt()) is None

    assert now() == pytest.approx(ANSWER, abs=1)


@pytest.mark.looptime
async def test_a_certificate_stored_late_is_found_the_second_time(
    settling: Springest, scripted: ScriptedAnswers
) -> None:
    certificate = stored()
    Springests(scripted, {60.0: certificate})

    assert await settling.settle(doubt()) == certificate

    assert now() == pytest.approx(ANSWER, abs=1)


@pytest.mark.looptime
async def test_what_is_unclear_at_the_second_request_stays_in_doubt(
    settling: Springest, scripted: ScriptedAnswers
) -> None:
    Springests(scripted, {60.0: stored(created_at=None)})

    with pytest.raises(InDoubt, match="certificate 5001, which does not say when it was created"):
        await settling.settle(doubt())


@pytest.mark.looptime
async def test_what_is_not_listed_and_not_shown_stays_in_doubt(settling: Springest, scripted: ScriptedAnswers) -> None:
    server = Springests(scripted, certifications=[6, 8])
    missing = doubt()

    with pytest.raises(InDoubt) as caught:
        await settling.settle(missing)

    assert caught.value.reason == f"no answer within the time allowed; {NOT_LISTED}"
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert missing.reason == "no answer within the time allowed"
    kept = ("where", "email", "certification_id", "valid_from", "valid_until", "sent_at", "given_up_at")
    for name in (*kept, "status", "words"):
        assert getattr(missing, name) == getattr(caught.value, name), name
    assert now() < 1, "a wait that can change nothing"
    assert server.paths == ["users/certificates", "certifications"]


@pytest.mark.looptime
async def test_settling_again_does_not_pile_up_the_reason(settling: Springest, scripted: ScriptedAnswers) -> None:
    server = Springests(scripted, certifications=[])
    left = doubt()
    reasons = []
    for _ in range(3):
        with pytest.raises(InDoubt) as caught:
            await settling.settle(left)
        left = caught.value
        reasons.append(left.reason)
    server.certificates[0.0] = stored(created_at=None)
    for _ in range(3):
        with pytest.raises(InDoubt) as caught:
            await settling.settle(left)
        left = caught.value
        reasons.append(left.reason)

    unclear = "Springest lists certificate 5001, which does not say when it was created"
    first = f"no answer within the time allowed; {NOT_LISTED}"
    assert reasons == [first] * 3 + [f"{first}; {unclear}"] * 3


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("ours", "sent_at"),
    [(0, 3), (0, 400), (3, -1)],
    ids=["set right since", "set right since, a year", "still wrong"],
)
async def test_sent_with_a_clock_days_ahead_it_stays_in_doubt(
    ours: int, sent_at: int, settling: Springest, scripted: ScriptedAnswers
) -> None:
    """By its time it is older than what was sent; sent again, it would be stored twice. In days, of the server's."""
    here = datetime.now(UTC)
    there = here - timedelta(days=ours)
    sent = there + timedelta(days=sent_at)
    server = Springests(scripted, {0.0: stored(created_at=there - timedelta(days=4))}, clock=there)

    with pytest.raises(InDoubt) as caught:
        await settling.settle(doubt(sent_at=sent, given_up_at=sent))

    assert caught.value.reason.endswith("; the clock of this machine is, or was, days ahead of the server's")
    assert server.asked


@pytest.mark.looptime
async def test_a_doubt_is_settled_once_its_certification_is_verified(
    settling: Springest, scripted: ScriptedAnswers
) -> None:
    server = Springests(scripted, certifications=[])
    with pytest.raises(InDoubt) as caught:
        await settling.settle(doubt())

    server.certifications.append(7)
    assert await settling.settle(caught.value) is None

    server.certificates[0.0] = certificate = stored()
    assert await settling.settle(caught.value) == certificate


@pytest.mark.looptime
@pytest.mark.parametrize(
    "changes",
    [{"user": None}, {"created_at": None}, {"valid_until": date(2027, 1, 31)}],
    ids=["no user", "no time", "another end"],
)
async def test_what_is_listed_unclearly_stays_in_doubt_at_once(
    changes: dict[str, Any], settling: Springest, scripted: ScriptedAnswers
) -> None:
    page = {"certificates": [as_json(stored(**changes))], "meta": {"results": 1}}
    scripted.get(LIST, payload=page, repeat=True)

    with pytest.raises(InDoubt) as caught:
        await settling.settle(doubt())

    assert caught.value.reason.startswith("no answer within the time allowed; Springest lists certificate 5001, which ")
    assert now() < 1


@pytest.mark.looptime
async def test_what_is_known_to_be_another_is_not_taken_for_it(settling: Springest, scripted: ScriptedAnswers) -> None:
    second = stored(id=5002)
    server = Springests(scripted, {0.0: stored(), 0.5: second})
    await asyncio.sleep(1)

    assert await settling.settle(doubt(), known={5001}) == second
    assert await settling.settle(doubt(age=ANSWER), known={5001, 5002}) is None
    assert server.paths.count("users/certificates") == 3


@pytest.mark.looptime
async def test_that_a_certification_is_shown_is_not_asked_for_again(
    settling: Springest, scripted: ScriptedAnswers
) -> None:
    server = Springests(scripted, certifications=[7, 8])

    for certification_id in (7, 8, 7):
        assert await settling.settle(doubt(age=ANSWER, certification_id=certification_id)) is None

    assert server.paths.count("certifications") == 1


@pytest.mark.looptime
async def test_without_the_second_key_another_certificate_shows_it(
    settling_with_one_key: Springest, scripted: ScriptedAnswers
) -> None:
    server = Springests(scripted, {0.0: stored(id=1, user=User(email="piet@example.org"))})

    assert await settling_with_one_key.settle(doubt()) is None

    assert now() == pytest.approx(ANSWER, abs=1)
    assert server.paths == ["users/certificates"] * 3
    assert server.asked[1][2] == {"certification_id": "7", "size": "1"}


@pytest.mark.looptime
@pytest.mark.parametrize(
    "others",
    [{}, {0.0: Certificate(id=1, certification_id=8, valid_from=date(2026, 1, 31))}],
    ids=["nothing listed", "a server that ignores what it was asked for"],
)
async def test_without_key_and_other_certificate_it_stays_in_doubt(
    others: dict[float, Certificate], settling_with_one_key: Springest, scripted: ScriptedAnswers
) -> None:
    Springests(scripted, others)

    with pytest.raises(InDoubt, match=NOT_LISTED):
        await settling_with_one_key.settle(doubt())


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("pattern", "failure", "kind"),
    [
        (LIST, {"status": 401}, NotAuthorized),
        (LIST, {"status": 403}, Forbidden),
        (LIST, {"status": 503}, ServerError),
        (LIST, {"body": "no list"}, UnreadableAnswer),
        (LIST, {"exception": REFUSED}, NotSent),
        (LIST, {"exception": aiohttp.ServerDisconnectedError()}, NoAnswer),
        (CERTIFICATIONS, {"status": 403}, Forbidden),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_a_list_that_fails_settles_nothing(
    pattern: re.Pattern[str],
    failure: dict[str, Any],
    kind: type[SpringestError],
    settling: Springest,
    scripted: ScriptedAnswers,
) -> None:
    scripted.get(pattern, repeat=True, **failure)
    Springests(scripted)

    with pytest.raises(kind) as caught:
        await settling.settle(doubt())

    assert type(caught.value) is kind


@pytest.mark.looptime
async def test_a_list_that_fails_at_the_second_request_settles_nothing(
    settling: Springest, scripted: ScriptedAnswers
) -> None:
    empty = {"certificates": [], "meta": {"results": 0}}
    scripted.get(LIST, payload=empty)
    scripted.get(LIST, status=401, repeat=True)
    Springests(scripted)

    with pytest.raises(NotAuthorized):
        await settling.settle(doubt())


async def test_a_client_that_is_closed_cannot_settle(limiter: Limiter) -> None:
    with pytest.raises(RuntimeError, match="use it inside"):
        await Springest(api_key=KEY, settings=Settings(limiter=limiter)).settle(doubt())


# --- opening, closing, configuring ---


@pytest.mark.parametrize("key", ["", None])
def test_a_key_must_be_given(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="api_key is empty"):
        Springest(api_key=key)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("api_key", "s3cr3t\udce9"),
        ("api_key", "s3cr3t\n"),
        ("api_key", "s3cr3t\x00x"),
        ("certifications_api_key", "\udcff" * 8),
        ("certifications_api_key", "s3cr3t\n"),
    ],
)
def test_a_key_that_is_not_text_is_refused_and_not_shown(name: str, key: str) -> None:
    keys: dict[str, Any] = {"api_key": KEY} | {name: key}
    with pytest.raises(ConfigurationError, match="letters that cannot be printed") as caught:
        Springest(**keys)

    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    shown = "".join([str(error), repr(error), repr(error.args), repr(vars(error))])
    assert "s3cr3t" not in shown
    assert "udc" not in shown


def test_the_host_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match="http sends the key in the clear"):
        Springest(api_key=KEY, host="http://api.springest.nl")


@pytest.mark.parametrize(
    "changes",
    [{"wire_format": "csv"}, {"concurrency": 0}, {"posts_per_minute": 0}, {"requests_per_hour": 0}],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Settings(**changes)


async def test_a_ca_file_is_not_for_a_connector_of_ones_own(tmp_path: Path) -> None:
    async with aiohttp.TCPConnector() as connector:
        with pytest.raises(ConfigurationError, match="ca_file is not for a connector of your own"):
            Settings(connector=connector, ca_file=tmp_path / "ca.pem")


def test_changed_settings_keep_the_password_of_the_proxy() -> None:
    settings = Settings(proxy="http://jan:secret@proxy.example:3128", ca_file="ca.pem")

    changed = attrs.evolve(settings, concurrency=4)

    assert (changed.proxy, changed.ca_file) == (settings.proxy, Path("ca.pem"))
    assert changed.proxy is not None
    assert changed.proxy.headers == {"Proxy-Authorization": "Basic amFuOnNlY3JldA=="}


def test_a_burst_above_the_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="burst"):
        Springest(api_key="a key of this test", settings=Settings(burst=31))


def test_clients_of_one_host_and_key_share_a_bucket() -> None:
    one, same, other = (Springest(api_key=key, host="com") for key in ("one", "one", "other"))

    assert one.limiter is same.limiter
    assert one.limiter is not other.limiter
    assert one.limiter is not Springest(api_key="one", host="de").limiter


def test_one_host_has_one_bucket_however_it_is_written() -> None:
    hosts = ("nl", "https://api.springest.nl:443", "https://API.springest.nl.", "https://api.springest.nl/")
    clients = [Springest(api_key="a key of this test", host=host) for host in hosts]

    assert {client.origin for client in clients} == {"https://api.springest.nl"}
    assert len({id(client.limiter) for client in clients}) == 1


def test_a_limiter_of_ones_own_is_used_as_it_is(limiter: Limiter) -> None:
    assert Springest(api_key=KEY, settings=Settings(limiter=limiter)).limiter is limiter


@pytest.mark.parametrize(
    "ignored",
    [{"posts_per_minute": 30}, {"burst": 1}, {"requests_per_hour": 4000}],
    ids=lambda ignored: next(iter(ignored)),
)
def test_a_setting_that_a_limiter_would_replace_is_refused(ignored: dict[str, Any], limiter: Limiter) -> None:
    with pytest.raises(ConfigurationError, match=f"limiter replaces {next(iter(ignored))}: set the numbers"):
        Settings(limiter=limiter, **ignored)


def test_all_settings_that_a_limiter_would_replace_are_named(limiter: Limiter) -> None:
    with pytest.raises(ConfigurationError, match="limiter replaces posts_per_minute and burst: set"):
        Settings(limiter=limiter, posts_per_minute=60, burst=30)


def test_the_numbers_of_an_agreement_reach_the_limiter() -> None:
    settings = Settings(posts_per_minute=60, burst=2, requests_per_hour=8000)
    limiter = Springest(api_key="with an agreement", settings=settings).limiter

    assert (limiter.posts, limiter.burst, limiter.requests_per_hour) == (60, 2, 8000)
    with pytest.raises(ConfigurationError, match="8000 requests an hour"):
        Springest(api_key="with an agreement", settings=attrs.evolve(settings, requests_per_hour=None))


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


async def test_a_client_that_is_open_cannot_be_opened_again(springest: Springest, limiter: Limiter) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the client is open already: share the open client among tasks"):
            await springest.__aenter__()
        with pytest.raises(RuntimeError, match="the client is open already"):
            await asyncio.to_thread(asyncio.run, springest.__aenter__())

    assert repr(springest).startswith("<Springest https://api.springest.nl, open")


async def test_a_second_opening_leaves_the_first_alone(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, payload={"id": 1}, repeat=True)

    async def handle() -> int | None:
        async with springest:
            return (await springest.upload(upload)).id

    assert [type(end) for end in await asyncio.gather(handle(), handle(), return_exceptions=True)] == [RuntimeError] * 2
    assert (await springest.upload(upload)).id == 1


def test_threads_that_open_one_client_at_once_open_it_once(limiter: Limiter) -> None:
    springest = Springest(api_key=KEY, settings=Settings(limiter=limiter))
    together, opened, refused = threading.Barrier(8), list[None](), list[str]()

    async def handle() -> None:
        together.wait()
        try:
            async with springest:
                opened.append(None)
                await asyncio.to_thread(together.wait)
        except RuntimeError as error:
            refused.append(str(error))
            together.wait()

    threads = [threading.Thread(target=lambda: asyncio.run(handle())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(opened), len(refused)) == (1, 7)
    assert all(words.startswith("the client is open already") for words in refused)


async def uses(springest: Springest, upload: CertificateUpload) -> list[Any]:
    """Call each method once; return how they end."""
    calls = (springest.upload(upload), anext(springest.certificates()), anext(springest.certifications()))
    more = (springest.settle(doubt()), springest.aclose(timeout=0))
    return list(await asyncio.gather(*calls, *more, return_exceptions=True))


async def test_a_client_of_another_event_loop_is_refused(springest: Springest, upload: CertificateUpload) -> None:
    ends = await asyncio.to_thread(lambda: asyncio.run(uses(springest, upload)))

    words = "the client was opened on another event loop: make a client on each loop"
    assert [str(end) for end in ends] == [words] * 5
    assert {type(end) for end in ends} == {RuntimeError}


async def test_a_client_of_the_parent_process_is_refused(
    springest: Springest, upload: CertificateUpload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as forked:
        forked.setattr("springest_async.client.os.getpid", lambda: -1)
        ends = await uses(springest, upload)

    words = "the client was opened before this process was forked: make a client in each process"
    assert [str(end) for end in ends] == [words] * 5


def test_a_client_whose_event_loop_was_closed_can_be_opened(limiter: Limiter) -> None:
    springest = Springest(api_key=KEY, settings=Settings(limiter=limiter))
    loop = asyncio.new_event_loop()
    loop.close()
    springest._opened = _Opened(loop)

    async def use() -> str:
        async with springest:
            return repr(springest)

    assert ", open, " in asyncio.run(use())


# --- a slow stop ---


@pytest.fixture
async def one_at_a_time(scripted: ScriptedAnswers) -> AsyncIterator[Springest]:
    """Return an open client with both keys that may send one POST a minute."""
    settings = Settings(limiter=Limiter(posts=1), timeouts=Timeouts(answer=ANSWER))
    async with Springest(api_key=KEY, certifications_api_key="other", settings=settings) as springest:
        yield springest


def answer_after(seconds: float, *, status: int = 201, body: str = '{"id": 1}') -> Callable[..., Any]:
    """Make a server that takes so long for its answer."""

    async def answer(*_: Any, **__: Any) -> CallbackResult:
        await asyncio.sleep(seconds)
        return CallbackResult(status=status, body=body)

    return answer


async def ends_of(*tasks: asyncio.Task[Any]) -> list[str]:
    """Return how tasks ended: the class of the result or error, and of the cause of a cancellation."""
    await asyncio.wait(tasks)
    return [
        f"Cancelled<-{type(cancelled_by(task)).__name__}"
        if task.cancelled()
        else type(task.exception() or task.result()).__name__
        for task in tasks
    ]


def cancelled_by(task: asyncio.Task[Any]) -> BaseException | None:
    with pytest.raises(asyncio.CancelledError) as caught:
        task.result()
    return caught.value.__cause__


@pytest.mark.looptime
async def test_aclose_cancels_what_waits_and_lets_a_post_end(
    one_at_a_time: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, callback=answer_after(5), repeat=True)
    scripted.get(LIST, callback=answer_after(5), repeat=True)
    sending, waiting = (asyncio.create_task(one_at_a_time.upload(upload)) for _ in range(2))
    reading = [asyncio.create_task(call) for call in (all_of(one_at_a_time), one_at_a_time.settle(doubt()))]
    await asyncio.sleep(1)

    closing = asyncio.create_task(one_at_a_time.aclose(timeout=60))
    assert await ends_of(waiting, *reading) == ["Cancelled<-NotSent", "Cancelled<-NoneType", "Cancelled<-NoneType"]
    assert now() < 2
    with pytest.raises(RuntimeError, match="closed to new uploads"):
        await one_at_a_time.upload(upload)
    await closing

    assert await ends_of(sending) == ["Receipt"]
    assert now() == pytest.approx(5, abs=0.5)
    assert posts(scripted) == 1
    with pytest.raises(RuntimeError, match="the client is closed"):
        await one_at_a_time.upload(upload)


@pytest.mark.looptime
async def test_aclose_cancels_a_post_after_its_time(
    one_at_a_time: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, callback=answer_after(50), repeat=True)
    sending = asyncio.create_task(one_at_a_time.upload(upload))
    await asyncio.sleep(1)

    await one_at_a_time.aclose(timeout=10)

    assert now() == pytest.approx(11, abs=0.5)
    assert sending.cancelled()


@pytest.mark.looptime
async def test_nothing_new_is_begun_when_aclose_has_cancelled_all(
    one_at_a_time: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, callback=answer_after(50), repeat=True)

    async def settle_when_cancelled() -> None:
        with suppress(asyncio.CancelledError):
            await one_at_a_time.upload(upload)
        await one_at_a_time.settle(doubt())

    task = asyncio.create_task(settle_when_cancelled())
    await asyncio.sleep(1)

    await one_at_a_time.aclose(timeout=10)

    assert now() == pytest.approx(11, abs=0.5)
    with pytest.raises(RuntimeError, match="the client is closing"):
        await task


@pytest.mark.looptime
async def test_aclose_gives_up_a_post_that_is_refused_meanwhile(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, callback=answer_after(5, status=400, body="{}"), repeat=True)
    sending = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(1)

    await springest.aclose(timeout=600)

    assert await ends_of(sending) == ["Cancelled<-NotSent"]
    assert now() == pytest.approx(5, abs=0.5), "it waited for the next try"


@pytest.mark.looptime
async def test_an_upload_that_ends_as_aclose_waits_is_not_cancelled(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    """Its task goes on after it, and must not meet a cancellation there that was meant for the upload."""
    rejection = '{"errors": {"email": ["is invalid"]}}'
    scripted.post(CERTIFICATES, callback=answer_after(5, status=400, body=rejection), repeat=True)

    async def handle() -> str:
        with pytest.raises(Rejected):
            await springest.upload(upload)
        await asyncio.sleep(100)
        return "went on"

    handling = asyncio.create_task(handle())
    await asyncio.sleep(1)
    await springest.aclose(timeout=600)

    assert await handling == "went on"


async def test_aclose_inside_the_block_closes_once(limiter: Limiter, scripted: ScriptedAnswers) -> None:
    async with Springest(api_key=KEY, settings=Settings(limiter=limiter)) as springest:
        await asyncio.gather(*(springest.aclose(timeout=1) for _ in range(2)))
        assert repr(springest).startswith("<Springest https://api.springest.nl, closed")
    await springest.aclose(timeout=1)


@pytest.mark.looptime
async def test_a_cancelled_aclose_cancels_all_and_closes(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, callback=answer_after(50), repeat=True)
    sending = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(1)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await springest.aclose(timeout=600)

    assert sending.cancelled()
    assert repr(springest).startswith("<Springest https://api.springest.nl, closed")


async def test_the_repr_shows_the_host_whether_open_and_the_limit(limiter: Limiter) -> None:
    springest = Springest(api_key=KEY, settings=Settings(limiter=limiter))
    bucket = "<Limiter 30 in 60 s, 0 under way, 0 resting, fast>"
    assert repr(springest) == f"<Springest https://api.springest.nl, closed, {bucket}>"

    async with springest:
        assert repr(springest) == f"<Springest https://api.springest.nl, open, {bucket}>"


@pytest.mark.looptime
async def test_an_upload_cancelled_while_it_waits_sends_nothing(
    springest: Springest, scripted: ScriptedAnswers, upload: CertificateUpload
) -> None:
    scripted.post(CERTIFICATES, status=201, repeat=True)
    await asyncio.gather(*(springest.upload(upload) for _ in range(30)))
    waiting = asyncio.create_task(springest.upload(upload))
    await asyncio.sleep(10)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    await asyncio.sleep(120)

    assert isinstance(caught.value.__cause__, NotSent)

    assert posts(scripted) == 30
    assert isinstance(caught.value.__cause__, NotSent)

    assert posts(scripted) == 30


@pytest.mark.looptime
@pytest.mark.parametrize("total", [101, 100, None])
async def test_a_list_of_what_was_not_asked_for_never_says_not_stored(
    total: int | None, settling: Springest, scripted: ScriptedAnswers
) -> None:
    """Such a server may ignore the offset as well: then the first page is all that there is to see."""
    rows = [as_json(stored(id=number, user=User(email=f"row{number}@example.org"))) for number in range(1, 101)]
    scripted.get(LIST, payload={"certificates": rows, "meta": {"results": total} if total else {}}, repeat=True)
    Springests(scripted)

    with pytest.raises(InDoubt, match="that were not asked for"):
        await settling.settle(doubt())


# --- from the environment ---


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Set the variables of a client."""
    for name in ("SPRINGEST_CERTIFICATIONS_API_KEY", "SPRINGEST_HOST", "SPRINGEST_JOURNAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPRINGEST_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return monkeypatch


async def test_the_environment_says_all_that_a_client_needs(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = Springest.from_env()
    variables.setenv("SPRINGEST_HOST", "be")
    variables.setenv("SPRINGEST_JOURNAL", str(tmp_path / "ours.sqlite3"))
    named = Springest.from_env()
    own = Springest.from_env(journal=tmp_path / "own.sqlite3", settings=Settings(concurrency=2))

    where = [client.journal.where for client in (plain, named, own) if client.journal]
    assert [client.origin for client in (plain, named)] == ["https://api.springest.nl", "https://api.nl.springest.be"]
    assert where == [str(tmp_path / name) for name in ("springest/journal.sqlite3", "ours.sqlite3", "own.sqlite3")]
    assert own.settings.concurrency == 2
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


@pytest.mark.parametrize("value", [None, "", " \n"])
async def test_a_missing_key_is_named(variables: pytest.MonkeyPatch, value: str | None) -> None:
    variables.delenv("SPRINGEST_API_KEY") if value is None else variables.setenv("SPRINGEST_API_KEY", value)
    with pytest.raises(ConfigurationError, match=r"^set SPRINGEST_API_KEY to the API key for certificates"):
        Springest.from_env()
