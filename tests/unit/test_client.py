"""`Springest` with scripted answers and virtual time: its lists, its settings, and how it opens and closes."""

import asyncio
import errno
import re
from datetime import date
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
    Forbidden,
    Limiter,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Redirected,
    ServerError,
    Settings,
    Springest,
    SpringestError,
    UnexpectedStatus,
    UnreadableAnswer,
)
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


@pytest.mark.parametrize("key", ["s3cr3t\udce9", "s3cr3t\n", "s3cr3t\x00x", "\udcff" * 8])
@pytest.mark.parametrize("name", ["api_key", "certifications_api_key"])
def test_a_key_that_is_no_text_is_refused_and_not_shown(name: str, key: str) -> None:
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


def test_one_host_has_one_bucket_however_it_is_written() -> None:
    hosts = ("nl", "https://api.springest.nl:443", "https://API.springest.nl.", "https://api.springest.nl/")
    clients = [Springest(api_key="a key of this test", host=host) for host in hosts]

    assert {client.origin for client in clients} == {"https://api.springest.nl"}
    assert len({id(client.limiter) for client in clients}) == 1


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
