"""Lists that are longer than any of Springest's, from a server on loopback: told plainly, and asked for once."""

import asyncio
import gc
import json
from datetime import UTC, date, datetime
from itertools import count

import pytest

from springest_async import Certificate, InDoubt, Springest, UnreadableAnswer
from springest_async.client import _MOST_LISTED
from tests.waiting import A_WHILE

from .raw_server import Exchange, RawServer, raw_server
from .wire import KEY, client_of

MIB = 1024 * 1024


@pytest.mark.parametrize("item", [b"{},", b'"' + KEY.encode() + b'",'], ids=["tiny values", "the key, again and again"])
async def test_a_list_that_is_too_long_is_told_and_not_asked_for_again(item: bytes) -> None:
    """What hides the key is shorter, and a list that got shorter is no broken connection."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"[" + item * (9 * MIB // len(item)) + b"{}]")

    async with raw_server(answer) as server, client_of(server) as springest:
        with pytest.raises(UnreadableAnswer, match="the whole answer, which is too long") as caught:
            _ = [found async for found in springest.certificates()]

    assert len(server.lines) == 1
    assert len(str(caught.value)) < 1000
    assert KEY not in str(caught.value)


async def test_a_page_of_a_hundred_longest_records_is_read() -> None:
    record = b'{"id": 1, "name": "VCA", "certification_id": 7, "valid_from": "2026-01-31", "description": "%s"}'
    records = b",".join([record % (b"x" * 65_535)] * 100)

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b'{"meta": {"results": 100}, "certificates": [' + records + b"]}")

    async with raw_server(answer) as server, client_of(server) as springest:
        assert len([found async for found in springest.certificates()]) == 100


async def test_a_long_list_arrives_page_by_page() -> None:
    """The first record is there before the second page is asked for, and no more than two pages are in memory."""
    numbers = count(1)

    async def lists(exchange: Exchange) -> None:
        fields = {"certification_id": 7, "valid_from": "2026-01-30"}
        found = [{"id": next(numbers)} | fields for _ in range(100)]
        await exchange.answer(200, json.dumps({"meta": {"results": 2000}, "certificates": found}).encode())

    def in_memory() -> int:
        gc.collect()
        return sum(type(one) is Certificate for one in gc.get_objects())

    before, asked, kept = in_memory(), [], []
    async with raw_server(lists) as server, client_of(server) as springest:
        async for certificate in springest.certificates():
            asked.append(len(server.lines))
            if certificate.id % 100 == 50:
                kept.append(in_memory() - before)

    assert asked == [page for page in range(1, 21) for _ in range(100)]
    assert 100 <= max(kept) <= 200


DOUBT = InDoubt(
    "POST somewhere",
    "no answer",
    email="jan@example.org",
    certification_id=7,
    valid_from=date(2026, 1, 31),
    valid_until=None,
    sent_at=datetime(2026, 1, 31, tzinfo=UTC),
    given_up_at=datetime(2026, 1, 31, tzinfo=UTC),
)


async def settle(springest: Springest, server: RawServer) -> tuple[str, int, int]:
    """Return the reason of a doubt that stays one, and how many pages of each kind it took."""
    async with asyncio.timeout(A_WHILE):
        with pytest.raises(InDoubt) as caught:
            await springest.settle(DOUBT)
    pages = ["/users/" in line for line in server.lines]
    return caught.value.reason, sum(pages), len(pages) - sum(pages)


@pytest.mark.parametrize("asked_for", [True, False])
async def test_an_endless_list_of_certificates_settles_nothing(asked_for: bool) -> None:
    numbers = count(1)

    async def lists(exchange: Exchange) -> None:
        fields = {"certification_id": 7 if asked_for else 8, "valid_from": "2026-01-30"}
        await exchange.answer(200, json.dumps([{"id": next(numbers)} | fields for _ in range(100)]).encode())

    async with raw_server(lists) as server, client_of(server) as springest:
        reason, pages, _ = await settle(springest, server)

    assert reason == "no answer; Springest lists more than 10000 certificates for it"
    assert pages == _MOST_LISTED // 100 + 1


async def test_an_endless_list_of_certifications_shows_its_beginning() -> None:
    numbers = count(8)

    async def lists(exchange: Exchange) -> None:
        found = [{"id": next(numbers), "name": "VCA"} for _ in range(0 if "/users/" in exchange.line else 100)]
        await exchange.answer(200, json.dumps(found).encode())

    async with raw_server(lists) as server, client_of(server, certifications_api_key=KEY) as springest:
        reason, pages, of_certifications = await settle(springest, server)

    assert reason == "no answer; Springest does not list it, and does not show its certification yet"
    assert (pages, of_certifications) == (1, _MOST_LISTED // 100 + 1)
