"""The state machine of a certificate: who may send it, what became of it, and who settles a doubt."""

from datetime import UTC, datetime

import pytest
from attrs import evolve

from springest_async.errors import ConfigurationError
from springest_async.journal import certificates
from springest_async.journal.certificates import SERVER_IDLE_SECONDS, ClaimLost
from springest_async.journal.records import Intent, Outcome, Siblings, State
from springest_async.journal.sqlite import SQLiteConnection

from .model import LEASE, SHA256, Clock, Fields, Worker

OTHER = bytes(32)
ENDS = [State.STORED, State.REJECTED, State.IN_DOUBT, State.WAITING]
LATE = [State.REJECTED, State.IN_DOUBT, State.WAITING]


# --- claiming ---


def test_a_new_certificate_is_claimed_by_the_first(a: Worker, b: Worker) -> None:
    first = a.claim()
    second = b.claim()

    assert (first.state, first.claim) == (State.WAITING, "a")
    assert second == first


def test_a_claim_again_is_the_same_claim(a: Worker) -> None:
    assert a.claim() == a.claim()


def test_case_and_another_row_name_the_same_certificate(a: Worker) -> None:
    assert a.claim(Fields(email="JO@example.org")).id == a.claim(Fields(email="jo@EXAMPLE.org")).id


def test_another_file_is_another_certificate(a: Worker) -> None:
    assert a.claim().id != a.claim(sha256=OTHER).id


def test_a_released_claim_is_free(a: Worker, b: Worker) -> None:
    a.release(a.claim().id)

    assert b.claim().claim == "b"


@pytest.mark.parametrize("state", [State.FAILED, State.REJECTED])
def test_a_release_can_say_that_it_is_not_stored(state: State, a: Worker) -> None:
    key = a.claim().id

    a.release(key, state, "no such file")

    assert (a.read(key).state, a.read(key).reason, a.read(key).claim) == (state, "no such file", None)


def test_a_release_of_another_claim_changes_nothing(a: Worker, b: Worker) -> None:
    known = a.claim()

    b.release(known.id, State.FAILED)

    assert a.read(known.id) == known


def test_a_failed_certificate_waits_again(a: Worker, b: Worker) -> None:
    a.release(a.claim().id, State.FAILED, "no such file")

    again = b.claim()

    assert (again.state, again.claim, again.reason) == (State.WAITING, "b", "")


def test_a_rejected_one_is_claimed_only_by_a_persons_word(a: Worker, b: Worker) -> None:
    key, attempt = a.send()
    a.end(attempt, State.REJECTED, reason="no such certification")

    assert (b.claim().state, b.claim().claim, b.claim().reason) == (State.REJECTED, None, "no such certification")
    assert (b.claim(send_again=True).state, b.read(key).claim) == (State.WAITING, "b")


@pytest.mark.parametrize("state", [State.STORED, State.IN_DOUBT])
@pytest.mark.parametrize("send_again", [False, True])
def test_what_may_be_stored_is_never_claimed(state: State, send_again: bool, a: Worker, b: Worker) -> None:
    _, attempt = a.send()
    a.end(attempt, state)

    known = b.claim(send_again=send_again)

    assert (known.state, known.claim) == (state, None)


def test_a_certificate_being_sent_is_not_claimed(a: Worker, b: Worker) -> None:
    a.send()

    assert (b.claim().state, b.claim().claim) == (State.SENDING, "a")


# --- a POST ---


def test_a_post_is_recorded_before_it_leaves(a: Worker) -> None:
    key, attempt = a.send()

    known = a.read(key)

    assert (known.state, known.claim, known.attempts) == (State.SENDING, "a", 1)
    assert known.sent_at is not None
    assert a.connection.execute("SELECT id, certificate, worker, outcome FROM attempts") == [(attempt, key, "a", None)]


def test_the_same_intent_again_is_one_post(a: Worker) -> None:
    key, attempt = a.send()

    a.begin(key, attempt=attempt)

    assert a.read(key).attempts == 1


def test_nobody_begins_without_the_claim(a: Worker, b: Worker) -> None:
    known = a.claim()

    with pytest.raises(ClaimLost):
        b.begin(known.id)

    assert a.read(known.id) == known


@pytest.mark.parametrize("state", ENDS)
def test_an_outcome_is_that_of_the_certificate(state: State, a: Worker, clock: Clock) -> None:
    key, attempt = a.send()
    at = datetime(2026, 5, 4, 3, 2, 1, 654321, UTC)
    clock.now += 5

    with a.connection.transaction():
        outcome = Outcome(
            attempt=attempt,
            state=state,
            written_at=at,
            answered_at=at,
            status=418,
            server_date="Mon",
            words="\0\ud800",
            server_request_id="\0x",
        )
        certificates.end(a.connection, evolve(outcome, reason="so", springest_id=5))

    known = a.read(key)
    assert (known.state, known.springest_id, known.answered_at) == (state, 5, at)
    assert known.claim == ("a" if state is State.WAITING else None)
    assert known.given_up == (clock.now if state is State.IN_DOUBT else None)
    assert a.connection.execute("SELECT outcome, status, server_date, words, server_request_id FROM attempts") == [
        (state.value, 418, "Mon", "\\0\\ud800", "\\0x")
    ]
    assert known.request_id == attempt


@pytest.mark.parametrize("state", ENDS)
def test_an_outcome_recorded_again_changes_nothing(state: State, a: Worker, clock: Clock) -> None:
    key, attempt = a.send()
    a.end(attempt, state, 5, "so")
    known = a.read(key)
    clock.now += 7

    a.end(attempt, state, 5, "so")

    assert evolve(a.read(key), reason=known.reason) == known


def test_what_was_refused_is_sent_again_with_the_same_claim(a: Worker) -> None:
    key, attempt = a.send()
    a.end(attempt, State.WAITING)

    a.end(a.begin(key), State.STORED, 5)

    assert (a.read(key).state, a.read(key).attempts, a.read(key).springest_id) == (State.STORED, 2, 5)


def test_an_outcome_of_an_undone_intent_is_ignored(a: Worker) -> None:
    known = a.claim()

    a.end("0" * 32, State.STORED)

    assert a.read(known.id) == known


def test_an_id_too_long_for_a_database_is_not_stored(a: Worker) -> None:
    key, attempt = a.send()

    a.end(attempt, State.STORED, 2**63)

    assert (a.read(key).state, a.read(key).springest_id) == (State.STORED, None)


# --- dead workers ---


def test_a_dead_workers_claim_is_free(a: Worker, b: Worker, clock: Clock) -> None:
    key = a.claim().id
    clock.now += LEASE + 1
    b.renew()

    assert (b.claim().id, b.claim().claim) == (key, "b")
    with pytest.raises(ClaimLost):
        a.begin(key)


def test_what_a_dead_worker_was_sending_is_in_doubt(a: Worker, b: Worker, clock: Clock) -> None:
    key, _ = a.send()
    lease_until = clock.now + LEASE
    clock.now += 500

    b.take_over()

    known = b.read(key)
    assert (known.state, known.claim, known.given_up) == (State.IN_DOUBT, None, lease_until + SERVER_IDLE_SECONDS)


def test_a_worker_that_lives_keeps_what_it_has(a: Worker, b: Worker, clock: Clock) -> None:
    key, _ = a.send()
    other = a.claim(sha256=OTHER, claim="other").id
    clock.now += LEASE - 1

    b.take_over()

    assert a.read(key).state is State.SENDING
    assert a.read(other).claim == "other"


def test_a_worker_that_leaves_frees_its_claims(a: Worker, b: Worker) -> None:
    key = a.claim().id

    a.leave()

    assert b.claim().id == key
    assert b.claim().claim == "b"
    assert a.connection.execute("SELECT id FROM workers") == [("b",)]


def test_what_a_worker_was_sending_when_it_left_is_in_doubt(a: Worker, clock: Clock) -> None:
    """Its outcome could not be written: nobody would look at it any more."""
    key, _ = a.send()

    a.leave()

    assert (a.read(key).state, a.read(key).given_up) == (State.IN_DOUBT, clock.now + SERVER_IDLE_SECONDS)


def taken_over(a: Worker, b: Worker, clock: Clock) -> tuple[int, str]:
    """Let one worker send, and another take over."""
    key, attempt = a.send()
    clock.now += LEASE + 1
    b.renew()
    return key, attempt


def test_a_late_doubt_changes_nothing(a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    before = b.read(key)

    a.end(attempt, State.IN_DOUBT, reason="late")

    assert b.read(key) == before


@pytest.mark.parametrize("state", [State.STORED, State.REJECTED, State.WAITING])
def test_a_late_definite_answer_ends_the_doubt(state: State, a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)

    a.end(attempt, state, 5)

    assert (b.read(key).state, b.read(key).claim) == (state, None)


def not_stored(b: Worker, key: int) -> None:
    """Let a worker learn that a certificate in doubt is not stored."""
    doubt = b.claim_doubt(key)
    assert doubt is not None
    b.settle(doubt, State.WAITING)


@pytest.mark.parametrize("state", LATE)
def test_what_is_sent_again_heeds_no_late_end_but_stored(state: State, a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    not_stored(b, key)
    _, current = b.send()
    before = b.read(key)

    a.end(attempt, state)

    assert b.read(key) == before
    b.end(current, State.STORED, 5)
    assert b.read(key).state is State.STORED


@pytest.mark.parametrize("state", [State.WAITING, State.REJECTED, State.FAILED, State.IN_DOUBT, State.STORED])
def test_a_late_201_is_accepted_in_every_state(state: State, a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    not_stored(b, key)
    if state is State.FAILED:
        b.claim()
        b.release(key, State.FAILED)
    elif state is not State.WAITING:
        b.end(b.send()[1], state)

    a.end(attempt, State.STORED, 5)

    assert (b.read(key).state, b.read(key).springest_id, b.read(key).claim) == (State.STORED, 5, None)


def test_a_late_201_takes_away_a_claim(a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    not_stored(b, key)
    b.claim()

    a.end(attempt, State.STORED, 5)

    with pytest.raises(ClaimLost):
        b.begin(key)


@pytest.mark.parametrize("state", ENDS)
def test_after_a_late_201_every_end_is_stored(state: State, a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    not_stored(b, key)
    _, current = b.send()
    a.end(attempt, State.STORED, 5)
    assert b.read(key).state is State.SENDING

    b.end(current, state, reason="so")

    assert (b.read(key).state, b.read(key).springest_id, b.read(key).claim) == (State.STORED, 5, None)


def test_after_a_late_201_a_death_is_no_doubt(a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    not_stored(b, key)
    b.send()
    a.end(attempt, State.STORED, 5)
    clock.now += LEASE + 1

    a.take_over()

    assert (b.read(key).state, b.read(key).springest_id) == (State.STORED, 5)


def test_an_intent_taken_over_is_not_sent(a: Worker, b: Worker, clock: Clock) -> None:
    """Its commit was durable, but the worker was cut off before it heard of that."""
    key, attempt = taken_over(a, b, clock)

    with pytest.raises(ClaimLost):
        a.begin(key, attempt=attempt)

    with a.connection.transaction():
        certificates.end(a.connection, Intent(id=attempt, certificate=key, claim="a").unsent)
    assert a.read(key).state is State.WAITING


# --- doubts ---


def in_doubt(worker: Worker, sha256: bytes = SHA256) -> int:
    """Put a certificate in doubt."""
    key, attempt = worker.send(sha256=sha256)
    worker.end(attempt, State.IN_DOUBT, reason="no answer")
    return key


@pytest.mark.parametrize("state", [State.STORED, State.WAITING, State.FAILED, State.IN_DOUBT])
def test_a_settler_says_what_it_is(state: State, a: Worker) -> None:
    key = in_doubt(a)
    doubt = a.claim_doubt(key)
    assert doubt is not None

    settled = a.settle(doubt, state, 5, "so")

    assert settled == a.read(key)
    assert (settled.state, settled.reason, settled.claim) == (state, "so", None)
    assert settled.springest_id == (5 if state is State.STORED else None)
    assert a.connection.execute("SELECT * FROM settlers") == []


def test_a_certificate_has_one_settler(a: Worker, b: Worker) -> None:
    key = in_doubt(a)

    assert a.claim_doubt(key) is not None
    assert b.claim_doubt(key) is None
    assert a.claim_doubt(key) is None  # another task of the same worker


def test_the_same_claim_of_a_doubt_again_is_the_same(a: Worker) -> None:
    key = in_doubt(a)

    first = a.claim_doubt(key, "x")

    assert first is not None
    assert a.claim_doubt(key, "x") == first


def test_lookalikes_have_one_settler(a: Worker, b: Worker) -> None:
    first, second = in_doubt(a), in_doubt(a, OTHER)
    doubt = a.claim_doubt(first)
    assert doubt is not None
    assert b.claim_doubt(second) is None

    a.settle(doubt, State.STORED, 5)

    assert b.claim_doubt(second) is not None


@pytest.mark.parametrize("state", [State.STORED, State.REJECTED, State.WAITING])
def test_only_doubts_are_settled(state: State, a: Worker) -> None:
    key, attempt = a.send()
    assert a.claim_doubt(key) is None
    a.end(attempt, state)

    assert a.claim_doubt(key) is None
    assert a.connection.execute("SELECT * FROM settlers") == []


def test_a_late_answer_beats_a_settler(a: Worker, b: Worker, clock: Clock) -> None:
    key, attempt = taken_over(a, b, clock)
    doubt = b.claim_doubt(key)
    assert doubt is not None
    a.end(attempt, State.STORED, 5)

    settled = b.settle(doubt, State.WAITING)

    assert (settled.state, settled.springest_id) == (State.STORED, 5)
    assert a.connection.execute("SELECT * FROM settlers") == []


def test_a_dead_settler_is_replaced_and_says_nothing_more(a: Worker, b: Worker, clock: Clock) -> None:
    """It would say "not stored" of what was sent once more since it asked."""
    key = in_doubt(a)
    stale = a.claim_doubt(key)
    assert stale is not None
    clock.now += LEASE + 1
    b.renew()
    not_stored(b, key)
    b.end(b.send()[1], State.IN_DOUBT)

    for state in (State.WAITING, State.STORED):
        assert a.settle(stale, state, 5).state is State.IN_DOUBT


def test_a_stale_settler_leaves_the_next_one_alone(a: Worker, b: Worker, clock: Clock) -> None:
    key = in_doubt(a)
    stale = a.claim_doubt(key)
    assert stale is not None
    clock.now += LEASE + 1
    b.renew()
    a.renew()
    current = a.claim_doubt(key)
    assert current is not None

    a.settle(stale, State.IN_DOUBT)

    assert b.claim_doubt(key) is None
    assert a.settle(current, State.STORED, 5).state is State.STORED


def test_siblings_are_told_by_what_the_list_shows(a: Worker) -> None:
    key = in_doubt(a)
    a.end(a.send(sha256=b"1" * 32)[1], State.STORED, 11)
    a.end(a.send(Fields(conversion_id=4), b"2" * 32)[1], State.STORED, 12)
    a.end(a.send(Fields(email="other@example.org"), b"3" * 32)[1], State.STORED, 13)
    a.end(a.send(sha256=b"4" * 32)[1], State.REJECTED)

    with a.connection.snapshot():
        assert certificates.siblings(a.connection, key) == Siblings(frozenset({11, 12}))


@pytest.mark.parametrize("state", [State.IN_DOUBT, State.SENDING, State.STORED])
def test_a_sibling_without_an_id_makes_it_uncertain(state: State, a: Worker) -> None:
    key = in_doubt(a)
    _, attempt = a.send(sha256=OTHER)
    if state is not State.SENDING:
        a.end(attempt, state)

    with a.connection.snapshot():
        assert certificates.siblings(a.connection, key) == Siblings(uncertain=True)


def test_what_the_list_shows_in_one_way_is_known_by_id(a: Worker) -> None:
    key = in_doubt(a)
    a.end(a.send(sha256=b"1" * 32)[1], State.STORED, 11)
    a.end(a.send(Fields(email="other@example.org"), b"3" * 32)[1], State.STORED, 13)
    a.end(a.send(sha256=b"4" * 32)[1], State.REJECTED)

    with a.connection.snapshot():
        ((looks,),) = a.connection.execute("SELECT lookalike FROM certificates WHERE id = ?", (key,))
        assert sorted(certificates.listed_as(a.connection, looks), key=str) == [11, None]


# --- a person's word ---


def resolve(worker: Worker, key: int, state: State) -> None:
    with worker.connection.transaction():
        certificates.resolve(worker.connection, [key], state)


@pytest.mark.parametrize("state", [State.STORED, State.WAITING])
def test_a_person_resolves_a_doubt(state: State, a: Worker) -> None:
    key = in_doubt(a)

    resolve(a, key, state)

    assert a.read(key).state is state
    assert a.read(key).reason.startswith("a person found it")


def test_a_person_lets_a_rejected_one_be_sent_again(a: Worker) -> None:
    key, attempt = a.send()
    a.end(attempt, State.REJECTED)

    resolve(a, key, State.WAITING)

    assert a.read(key).state is State.WAITING


@pytest.mark.parametrize("state", [State.STORED, State.WAITING])
def test_a_person_has_no_word_on_what_is_being_sent(state: State, a: Worker) -> None:
    key, _ = a.send()

    with pytest.raises(ConfigurationError, match="not in doubt"):
        resolve(a, key, state)

    assert a.read(key).state is State.SENDING


def test_a_person_waits_for_a_settler(a: Worker) -> None:
    key = in_doubt(a)
    a.claim_doubt(key)

    with pytest.raises(ConfigurationError, match="asking Springest"):
        resolve(a, key, State.STORED)


def test_one_that_cannot_be_resolved_leaves_all_unchanged(a: Worker) -> None:
    key, other = in_doubt(a), a.send(sha256=OTHER)[0]

    with pytest.raises(ConfigurationError), a.connection.transaction():
        certificates.resolve(a.connection, [key, other], State.STORED)

    assert a.read(key).state is State.IN_DOUBT


# --- texts and times ---


def test_times_come_back_as_they_were() -> None:
    at = datetime(2026, 5, 4, 3, 2, 1, 654321, UTC)

    assert certificates.moment(certificates.microseconds(at)) == at
    assert certificates.microseconds(None) is None
    assert certificates.moment(None) is None


def test_words_that_a_database_cannot_store_are_escaped(connection: SQLiteConnection) -> None:
    text = certificates.storable("ø\0\udcff")

    assert text == "ø\\0\\udcff"
    assert connection.execute("SELECT ?", (text,)) == [(text,)]
