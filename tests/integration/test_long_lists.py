"""Lists that are longer than any of Springest's, from a server on loopback: told plainly, and asked for once."""

import pytest

from springest_async import UnreadableAnswer

from .raw_server import Exchange, raw_server
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


async def test_a_page_of_a_hundred_records_with_the_longest_texts_is_read() -> None:
    record = b'{"id": 1, "name": "VCA", "certification_id": 7, "valid_from": "2026-01-31", "description": "%s"}'
    records = b",".join([record % (b"x" * 65_535)] * 100)

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b'{"meta": {"results": 100}, "certificates": [' + records + b"]}")

    async with raw_server(answer) as server, client_of(server) as springest:
        assert len([found async for found in springest.certificates()]) == 100
