"""Workers that claim, send, die, wake up late and settle in any order: never stored twice, and none is lost."""

import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from springest_async.journal import certificates, loading, manifest_rows
from springest_async.journal.certificates import SERVER_IDLE_SECONDS, ClaimLost
from springest_async.journal.records import KnownCertificate, Siblings, State

from .model import LEASE, Clock, Fields, Worker, opened, row, set_clock, source

# The first two look the same in Springest's list.
CERTIFICATES = [(2, b"a" * 32), (2, b"b" * 32), (3, b"c" * 32)]
NUMBERS = st.integers(0, len(CERTIFICATES) - 1)
WORKERS = st.sampled_from("abc")
RESERVE = 5.0


@define
class Post:
    """A POST that a worker has begun, and what the server has of it.

    Attributes:
        until: the last time at which the server may store it; None while its worker lives.
        springest_id: the id under which it is stored.
        is_refused: whether the server will never store it.
    """

    worker: str
    life: int
    certificate: int
    attempt: str
    until: float | None = None
    springest_id: int | None = None
    is_refused: bool = False


@define
class Settling:
    """What a settler has heard of a certificate in doubt."""

    doubt: KnownCertificate
    siblings: Siblings
    found: int | None


@define
class Desk:
    """One worker: its lease by its own clock, its claims and what it is settling."""

    worker: Worker
    lease_ends: float = 0.0
    life: int = 0
    claims: dict[int, int] = field(factory=dict)  # certificate → the life in which it was claimed
    settling: Settling | None = None


class Interleavings(RuleBasedStateMachine):
    """A journal, three workers and a server."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = self.stack.enter_context(set_clock(Clock()))
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.connection = opened(folder / "journal.sqlite3")
        self.stack.callback(self.connection.close)
        self.desks = {name: Desk(Worker(self.connection, name)) for name in "abc"}
        self.posts: list[Post] = []
        self.stored: Counter[int] = Counter()
        self.listed: dict[int, int] = {}  # Springest's id → certificate
        self.keys: dict[int, int] = {}  # the journal's key → certificate
        lines = [row(number + 2, email="x@example.org") for number in range(4)]
        loading.load(self.connection, source(folder), lines, "a", faulty=0, columns=())

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.stack.close()

    # --- workers ---

    @rule(name=WORKERS)
    def renew(self, name: str) -> None:
        """Let a worker go on, perhaps after it was stopped for long."""
        desk = self.desks[name]
        began = self.clock.now
        with self.connection.transaction():
            certificates.take_over(self.connection)
            if not certificates.is_alive(self.connection, name):
                desk.life += 1
        desk.worker.renew()
        desk.lease_ends = began + LEASE
        for post in self.posts:
            if post.worker == name and post.life != desk.life and post.until is None:
                post.until = 0.0  # its body goes on no more

    def may_send(self, desk: Desk, life: int) -> bool:
        return life == desk.life and desk.lease_ends - self.clock.now > RESERVE

    @rule(name=WORKERS, number=NUMBERS)
    def claim(self, name: str, number: int) -> None:
        desk = self.desks[name]
        if not self.may_send(desk, desk.life):
            self.renew(name)
        person, sha256 = CERTIFICATES[number]
        known = desk.worker.claim(Fields(email=f"person{person}@example.org"), sha256)
        self.keys[known.id] = number
        with self.connection.transaction():  # as a row does that is identified
            self.connection.execute(
                "UPDATE manifest_rows SET certificate = ?, state = ?, reason = ? WHERE number = ?",
                (known.id, known.state.value, known.reason, number + 2),
            )
            if number == 0:
                self.connection.execute(
                    "UPDATE manifest_rows SET certificate = ?, state = ?, reason = ? WHERE number = 5",
                    (known.id, known.state.value, known.reason),
                )
        if known.state is State.WAITING and known.claim == name:
            desk.claims[known.id] = desk.life

    @rule(name=WORKERS)
    def begin(self, name: str) -> None:
        """Send what was claimed, also if that was long ago."""
        desk = self.desks[name]
        for key, life in [*desk.claims.items()]:
            try:
                attempt = desk.worker.begin(key)
            except ClaimLost:
                del desk.claims[key]
                continue
            post = Post(name, life, key, attempt)
            self.posts.append(post)
            if not self.may_send(desk, life):
                post.is_refused = True  # no byte leaves
                self.end(post, State.WAITING)
            return

    @rule(name=WORKERS, number=NUMBERS, is_stored=st.booleans())
    def send_in_vain(self, name: str, number: int, is_stored: bool) -> None:
        """Send a certificate, and let the connection break before the answer."""
        self.claim(name, number)
        self.begin(name)
        for post in [each for each in self.posts if each.worker == name][-1:]:
            self.break_off(post, is_stored)

    @rule(name=WORKERS, number=NUMBERS)
    def replace(self, name: str, number: int) -> None:
        """Let a worker settle and go on after all others have been dead for long."""
        self.clock.now += LEASE + SERVER_IDLE_SECONDS + 1
        self.renew(name)
        self.ask(name, number)
        self.settle(name)

    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        """Let the server store what has arrived, also when its worker is gone."""
        if post := self.some_post(data):
            self.arrive(post)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        if (post := self.some_post(data)) and post.springest_id is None:
            post.is_refused = True

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """Let a worker hear the answer, however late."""
        if not (post := self.some_post(data)):
            return
        if post.springest_id is not None:
            self.end(post, State.STORED, post.springest_id)
        elif post.is_refused:
            self.end(post, State.WAITING)

    @rule(data=st.data(), is_stored=st.booleans())
    def lose(self, data: st.DataObject, is_stored: bool) -> None:
        """Let the connection break before the answer."""
        if post := self.some_post(data):
            self.break_off(post, is_stored)

    def break_off(self, post: Post, is_stored: bool) -> None:
        if is_stored:
            self.arrive(post)
        else:
            post.is_refused = post.springest_id is None
        self.end(post, State.IN_DOUBT)

    def some_post(self, data: st.DataObject) -> Post | None:
        return data.draw(st.sampled_from(self.posts)) if self.posts else None

    def arrive(self, post: Post) -> None:
        desk = self.desks[post.worker]
        # What is sent by the end of the lease may stay with the server for as long as its connection does.
        lease_ends = desk.lease_ends if post.life == desk.life else 0.0
        until = max(lease_ends + SERVER_IDLE_SECONDS, 0.0) if post.until is None else post.until
        if post.springest_id is None and not post.is_refused and self.clock.now < until:
            post.springest_id = len(self.listed) + 100
            self.listed[post.springest_id] = self.keys[post.certificate]
            self.stored[self.keys[post.certificate]] += 1

    def end(self, post: Post, state: State, springest_id: int | None = None) -> None:
        self.posts.remove(post)
        self.desks[post.worker].worker.end(post.attempt, state, springest_id)
        if state is not State.WAITING:
            self.desks[post.worker].claims.pop(post.certificate, None)

    @rule(name=WORKERS)
    def leave(self, name: str) -> None:
        """Close a journal while nothing is sent."""
        desk = self.desks[name]
        if not any(post.worker == name for post in self.posts):
            desk.worker.leave()
            desk.claims.clear()
            desk.lease_ends = 0.0

    @rule(seconds=st.sampled_from([1.0, 30.0, LEASE + 1, 200.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    # --- settlers ---

    @rule(name=WORKERS, number=NUMBERS)
    def ask(self, name: str, number: int) -> None:
        """Ask Springest about a certificate in doubt, when the server cannot store it any more."""
        desk = self.desks[name]
        key = next((key for key, each in self.keys.items() if each == number), None)
        if key is None or desk.settling is not None:
            return
        if not self.may_send(desk, desk.life):
            self.renew(name)
        doubt = desk.worker.claim_doubt(key)
        if doubt is None:
            return
        assert doubt.given_up is not None
        siblings = self.siblings(key)
        if self.clock.now < doubt.given_up:
            desk.worker.settle(doubt, State.IN_DOUBT)
            return
        person = CERTIFICATES[number][0]
        found = [
            springest_id
            for springest_id, each in self.listed.items()
            if CERTIFICATES[each][0] == person and springest_id not in siblings.known_ids
        ]
        desk.settling = Settling(doubt, siblings, found[0] if found else None)

    @rule(name=WORKERS)
    def settle(self, name: str) -> None:
        """Record what Springest has said, perhaps long ago."""
        desk = self.desks[name]
        if (heard := desk.settling) is None:
            return
        desk.settling = None
        if heard.found is None:
            desk.worker.settle(heard.doubt, State.WAITING)
        elif heard.siblings.uncertain or self.siblings(heard.doubt.id) != heard.siblings:
            desk.worker.settle(heard.doubt, State.IN_DOUBT)
        else:
            desk.worker.settle(heard.doubt, State.STORED, heard.found)

    def siblings(self, key: int) -> Siblings:
        with self.connection.snapshot():
            return certificates.siblings(self.connection, key)

    # --- what holds at all times ---

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        assert not self.stored or max(self.stored.values()) == 1

    @invariant()
    def what_is_recorded_as_stored_is(self) -> None:
        for key, number in self.keys.items():
            known = self.desks["a"].worker.read(key)
            if known.state is State.STORED:
                assert self.stored[number] == 1
                assert known.springest_id is not None
                assert self.listed[known.springest_id] == number

    @invariant()
    def rows_are_as_their_certificates(self) -> None:
        lines = self.connection.execute(
            "SELECT r.state, k.state, r.reason, k.reason FROM manifest_rows AS r JOIN certificates AS k"
            " ON k.id = r.certificate"
        )
        assert all((row_state, row_reason) == (state, reason) for row_state, state, row_reason, reason in lines)
        with self.connection.snapshot():
            assert manifest_rows.counts(self.connection, 1).total() == 4

    @invariant()
    def nobody_has_what_has_ended(self) -> None:
        lines = self.connection.execute("SELECT state FROM certificates WHERE claim IS NOT NULL OR worker IS NOT NULL")
        assert {state for (state,) in lines} <= {"waiting", "sending"}

    # --- in the end ---

    def finish(self) -> None:
        """Let all workers die, and another one settle and send what is left."""
        self.clock.now += LEASE + SERVER_IDLE_SECONDS + 2
        for desk in self.desks.values():
            desk.settling = None
        for _ in range(3):
            for number in range(len(CERTIFICATES)):
                self.renew("a")
                self.ask("a", number)
                self.settle("a")
                self.claim("a", number)
                self.begin("a")
                for post in [*self.posts]:
                    if post.worker == "a" and post.until is None:
                        self.arrive(post)
                        if post.springest_id is not None:
                            self.end(post, State.STORED, post.springest_id)
        states = [self.desks["a"].worker.read(key).state for key in self.keys]
        assert set(states) <= {State.STORED, State.IN_DOUBT}
        doubts = [CERTIFICATES[number][0] for key, number in self.keys.items() if self.is_in_doubt(key)]
        assert len(doubts) in (0, 2), "only look-alikes that are both in doubt cannot be settled"
        for key, number in self.keys.items():
            assert self.is_in_doubt(key) or self.stored[number] == 1
        self.nothing_is_stored_twice()
        self.what_is_recorded_as_stored_is()

    def is_in_doubt(self, key: int) -> bool:
        return self.desks["a"].worker.read(key).state is State.IN_DOUBT


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(deadline=None, max_examples=30, stateful_step_count=40)
