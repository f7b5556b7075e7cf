"""A POST that may no longer be sent: the server never gets it whole, and it is called unsent. On real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from attrs import define, field

from springest_async import NoAnswer, NotSent
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.exchange import Exchange
from springest_async.http.transport import Transport
from springest_async.source_file import SourceFile
from tests.descriptors import open_files_in
from tests.waiting import A_WHILE, heard

from .raw_server import Exchange as Arrived
from .raw_server import RawServer, created, raw_server
from .tls import Authority
from .wire import KEY, PATH, PATIENT, file_of

REASON = "this computer was asleep or stopped for too long"
SMALL, LARGE = 1000, 24 * 1024 * 1024  # the latter is more than all buffers between two processes can hold
FIELDS = (("certification_id", "7"), ("email", "zoë@example.org"))


@define
class Lease:
    """What a body asks: whether it may be sent. It ends when a test says so, or at the n-th question."""

    until_question: int | None = None
    ended: bool = False
    questions: int = field(default=0, init=False)

    def __call__(self) -> str | None:
        self.questions += 1
        return REASON if self.ended or self.questions == self.until_question else None


@pytest.fixture
def make_post(tmp_path: Path) -> Iterator[Callable[..., Exchange]]:
    """Return a maker of POSTs of a new file of some size, under a lease."""
    with ThreadPoolExecutor(1) as executor:

        def make(lease: Lease, size: int = SMALL) -> Exchange:
            path = file_of(size, tmp_path / "x.pdf")
            source = SourceFile.at(path, path.stat())
            body = CertificateBody(source, FIELDS, executor=executor, may_send=lease)
            return Exchange("POST", PATH, ApiKey(KEY), body=body)

        yield make


MakePost = Callable[..., Exchange]


@asynccontextmanager
async def transport_to(server: RawServer, ca_file: Path | None = None) -> AsyncIterator[Transport]:
    async with (
        asyncio.timeout(A_WHILE),
        Transport(server.origin, timeouts=PATIENT, user_agent="tests", ca_file=ca_file) as transport,
    ):
        yield transport


async def not_sent(transport: Transport, post: Exchange) -> None:
    """Send a POST that is forbidden on its way."""
    with pytest.raises(NotSent) as caught:
        await transport.post(post)

    assert (caught.value.where, caught.value.reason) == (f"POST {transport.origin}{PATH}", REASON)
    assert caught.value.connected
    assert caught.value.__context__ is None
    assert not post.fully_written
    assert post.body is not None
    assert post.body.size is not None


class Sink:
    """A server that takes what comes, and notes how the connection ended."""

    def __init__(self, *, at: int = 0, then: Callable[[], None] = lambda: None) -> None:
        """Call `then` when so many bytes of the body have come."""
        self.at, self.then = at, then
        self.end: str = ""
        self.has_ended = asyncio.Event()

    async def __call__(self, arrived: Arrived) -> None:
        try:
            await arrived.go_on()
            await arrived.read(self.at)
            self.then()
            await arrived.read()
            self.end = "whole" if len(arrived.body) == arrived.length else "closed"
        except ConnectionResetError:
            self.end = "reset"
        finally:
            self.has_ended.set()


async def test_a_lease_that_is_over_lets_not_even_the_head_leave(make_post: MakePost) -> None:
    async with raw_server(created) as server, transport_to(server) as transport:
        for size in (SMALL, LARGE):
            post = make_post(Lease(ended=True), size)
            await not_sent(transport, post)
            assert not post.headers_sent
        await heard()

    assert server.exchanges == []


async def test_a_lease_that_ends_before_the_first_piece_stops_it(make_post: MakePost) -> None:
    async with raw_server(created) as server, transport_to(server) as transport:
        lease = Lease(until_question=2)
        post = make_post(lease)
        await not_sent(transport, post)
        await heard()

    assert post.headers_sent
    assert lease.questions == 2
    assert server.exchanges == []  # a small body's head leaves with its first piece


@pytest.mark.parametrize("answers", [True, False])
async def test_a_lease_that_ends_while_the_server_is_asked_stops_it(
    answers: bool, make_post: MakePost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.http.exchange._ASK_WAIT", A_WHILE if answers else 0.05)
    lease, sink = Lease(), Sink()

    async def ends_it(arrived: Arrived) -> None:
        lease.ended = True
        if not answers:
            arrived.headers = [pair for pair in arrived.headers if pair[0] != "Expect"]
        await sink(arrived)

    async with raw_server(ends_it) as server, transport_to(server) as transport:
        await not_sent(transport, make_post(lease, LARGE))
        await sink.has_ended.wait()

    (arrived,) = server.exchanges
    assert sink.end == "reset"
    assert (len(arrived.body), arrived.length > LARGE) == (0, True)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_lease_that_ends_in_the_middle_resets_the_connection(
    tls: bool, make_post: MakePost, tmp_path: Path
) -> None:
    def end() -> None:
        lease.ended = True

    lease, sink, ours = Lease(), Sink(at=1_000_000, then=end), Authority(tmp_path / "ca")
    async with (
        raw_server(sink, tls=ours.right() if tls else None) as server,
        transport_to(server, ours.file if tls else None) as transport,
    ):
        await not_sent(transport, make_post(lease, LARGE))
        await sink.has_ended.wait()
        assert open_files_in(tmp_path) == []

    (arrived,) = server.exchanges
    assert sink.end == "reset"
    assert 1_000_000 <= len(arrived.body) < arrived.length


@pytest.mark.parametrize("size", [SMALL, 60_000, 200_000, 2_300_000])
async def test_at_whichever_question_a_lease_ends_nothing_comes_whole(size: int, make_post: MakePost) -> None:
    """The last of them is asked right before the end of the body."""
    async with raw_server(created) as server, transport_to(server) as transport:
        asked = Lease()
        assert (await transport.post(make_post(asked, size))).status == 201
        for question in range(1, asked.questions + 1):
            await not_sent(transport, make_post(Lease(until_question=question), size))
        await heard()

    pieces = -(-size // (1024 * 1024))
    assert asked.questions == 1 + pieces + 1
    assert [len(arrived.body) == arrived.length for arrived in server.exchanges].count(True) == 1


@pytest.mark.parametrize("size", [SMALL, 1_200_000])
async def test_a_lease_that_ends_after_the_last_byte_changes_nothing(size: int, make_post: MakePost) -> None:
    lease = Lease()

    async def stores_late(arrived: Arrived) -> None:
        await arrived.go_on()
        await arrived.read()
        lease.ended = True
        await heard()
        await arrived.answer(201, b'{"id": 5001}')

    async def hangs_up_late(arrived: Arrived) -> None:
        await arrived.go_on()
        await arrived.read()
        lease.ended = True
        arrived.hang_up()

    async with raw_server(stores_late, hangs_up_late) as server, transport_to(server) as transport:
        answer = await transport.post(make_post(lease, size))
        lease.ended = False
        with pytest.raises(NoAnswer):
            await transport.post(make_post(lease, size))

    assert (answer.status, answer.body) == (201, b'{"id": 5001}')


async def test_a_refusal_on_the_way_stands_although_the_lease_ended(make_post: MakePost) -> None:
    async def refuses(arrived: Arrived) -> None:
        await arrived.answer(400, b"No")
        lease.ended = True
        await arrived.read()

    lease = Lease()
    async with raw_server(refuses) as server, transport_to(server) as transport:
        answer = await transport.post(make_post(lease, LARGE))

    assert (answer.status, answer.body) == (400, b"No")


async def test_a_lease_that_ends_is_not_blamed_on_a_reused_connection(make_post: MakePost) -> None:
    async with raw_server(created) as server, transport_to(server) as transport:
        await transport.post(make_post(Lease()))
        reusing = make_post(Lease(until_question=2))
        await not_sent(transport, reusing)
        for _ in range(2):
            await transport.post(make_post(Lease()))

    assert reusing.reused
    assert [arrived.connection for arrived in server.exchanges] == [1, 2, 2]
