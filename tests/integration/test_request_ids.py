"""The X-Request-Id of a POST: on the wire, in the receipt, in errors and steps, in the journal, and what comes back."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from springest_async import CertificateUpload, InDoubt, Journal, Limiter, Rejected, SpringestError, UploadStep
from springest_async.sandbox import Mishap, Sandbox

from .raw_server import Behaviour, Exchange, created, raw_server
from .wire import KEY, PATIENT, client_of

UNVERIFIED = 3  # of the sandbox's certifications


def answering(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    async def answer(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read()
        await exchange.answer(status, body, **headers)

    return answer


async def attempts_of(journal: Journal) -> list[tuple[Any, ...]]:
    """Return id, outcome and server's id of all attempts, in order."""
    return await journal.run(
        lambda connection: connection.execute("SELECT id, outcome, server_request_id FROM attempts ORDER BY id")
    )


async def test_without_a_journal_each_post_has_a_new_id(make_upload: Callable[..., CertificateUpload]) -> None:
    async with raw_server(created) as server, client_of(server) as springest:
        receipts = [await springest.upload(make_upload(email=f"{name}@example.org")) for name in "ab"]

    sent = [exchange.header("X-Request-Id") for exchange in server.exchanges]
    assert sent == [receipt.request_id for receipt in receipts]
    assert len({bytes.fromhex(each or "") for each in sent}) == 2


async def test_lists_have_no_id() -> None:
    async with raw_server(answering(200, b"[]")) as server, client_of(server) as springest:
        assert [each async for each in springest.certificates()] == []

    assert server.exchanges[0].header("X-Request-Id") is None


async def test_the_id_is_that_of_the_attempt_everywhere(upload: CertificateUpload, tmp_path: Path) -> None:
    """A refusal, then a receipt: two attempts, two ids; the receipt has that of the POST that was stored."""
    steps: list[UploadStep] = []
    async with (
        raw_server(answering(429, b"Slow down"), answering(201, b'{"id": 7}', X_Request_Id="theirs")) as server,
        Journal(tmp_path / "journal.sqlite3") as journal,
        client_of(server, journal=journal, limiter=Limiter(period=0.1, ledger=journal.ledger("any"))) as springest,
    ):
        receipt = await springest.upload(upload, listener=steps.append)
        again = await springest.upload(upload)
        attempts = await attempts_of(journal)

    refused, stored = [str(exchange.header("X-Request-Id")) for exchange in server.exchanges]
    assert attempts == [(refused, "waiting", ""), (stored, "stored", "theirs")]
    assert (receipt.request_id, again.request_id, again.stored_before) == (stored, stored, True)
    assert [(step.kind, step.request_id) for step in steps] == [
        ("waiting", ""),
        ("sending", refused),
        ("refused", refused),
        ("waiting", refused),
        ("sending", stored),
        ("stored", stored),
    ]


async def test_a_doubt_has_the_id_until_it_is_settled(
    make_upload: Callable[..., CertificateUpload], tmp_path: Path
) -> None:
    upload = make_upload(certification_id=UNVERIFIED)
    timeouts = evolve(PATIENT, answer=0.1)
    async with (
        Sandbox(mishap=lambda: Mishap.DROP_AFTER_STORING) as sandbox,
        Journal(tmp_path / "journal.sqlite3") as journal,
        client_of(sandbox.origin, api_key=sandbox.api_key, journal=journal, timeouts=timeouts) as springest,
    ):
        with pytest.raises(InDoubt) as first:
            await springest.upload(upload)
        with pytest.raises(InDoubt, match="does not show its certification yet") as asked:
            await springest.settle(first.value)
        with pytest.raises(InDoubt) as again:  # which asks, too, and sends nothing
            await springest.upload(upload)
        (known,) = await journal.orphans()

    (post,) = sandbox.audit
    doubts = [first.value, asked.value, again.value]
    assert [doubt.request_id for doubt in doubts] == [post.request_id] * 3
    assert all(f"X-Request-Id: {post.request_id}" in str(doubt) for doubt in doubts)
    assert known.request_id == post.request_id


@pytest.mark.parametrize("status", [401, 404, 418, 422])
async def test_a_definite_no_has_the_id(status: int, upload: CertificateUpload) -> None:
    async with raw_server(answering(status)) as server, client_of(server) as springest:
        with pytest.raises(SpringestError) as raised:
            await springest.upload(upload)

    assert raised.value.request_id == server.exchanges[0].header("X-Request-Id")


async def test_a_rejection_by_another_task_has_its_id(upload: CertificateUpload, tmp_path: Path) -> None:
    async with (
        raw_server(answering(422)) as server,
        Journal(tmp_path / "journal.sqlite3") as journal,
        client_of(server, journal=journal) as springest,
    ):
        first, second = await asyncio.gather(springest.upload(upload), springest.upload(upload), return_exceptions=True)

    assert isinstance(first, Rejected)
    assert isinstance(second, Rejected)
    assert [first.request_id, second.request_id] == [server.exchanges[0].header("X-Request-Id")] * 2


async def test_a_cancelled_upload_has_the_id_of_what_left(upload: CertificateUpload) -> None:
    arrived = asyncio.Event()

    async def falls_silent(exchange: Exchange) -> None:
        await exchange.read()
        arrived.set()
        await asyncio.get_running_loop().create_future()

    async with raw_server(falls_silent) as server, client_of(server) as springest:
        uploading = asyncio.create_task(springest.upload(upload))
        await arrived.wait()
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await uploading

    assert isinstance(raised.value.__cause__, InDoubt)
    assert raised.value.__cause__.request_id == server.exchanges[0].header("X-Request-Id")


async def test_the_servers_id_is_kept_short_and_without_the_key(upload: CertificateUpload, tmp_path: Path) -> None:
    """Nor do bytes that are not text keep an outcome out of the journal."""

    async def answer(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read()
        theirs = b"for %s \xff%s" % (KEY.encode(), b"x" * 400)
        await exchange.send(
            b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nDate: \xff\r\nX-Request-Id: %s\r\n\r\n" % theirs
        )

    async with (
        raw_server(answer) as server,
        Journal(tmp_path / "journal.sqlite3") as journal,
        client_of(server, journal=journal) as springest,
    ):
        await springest.upload(upload)
        ((_, outcome, theirs),) = await attempts_of(journal)

    assert outcome == "stored"
    assert theirs == "for *** ?".ljust(255, "x")
