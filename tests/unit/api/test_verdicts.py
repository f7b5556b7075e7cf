"""What a failure means and how long to wait: no clock, no network, only decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.api.protocol import Refusal
from springest_async.api.verdicts import Action, RefusalCause, RefusalHistory, Verdicts, ask_again, backoff
from springest_async.errors import (
    Forbidden,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Rejected,
    ServerError,
    UnexpectedStatus,
    UnreadableAnswer,
)
from tests.doubts import doubt

WHERE = "GET https://api.springest.nl/certifications.json"


def refusal(signature: str = "400 bad request", *, names_limit: bool = False) -> Refusal:
    return Refusal(signature, names_limit, None, Rejected(WHERE, 400, "Bad Request"))


@given(st.integers(1, 10_000))
def test_backoff_doubles_and_adds_up_to_half(failures: int) -> None:
    pause = min(60.0, 2.0 ** min(failures, 10))

    assert pause <= backoff(failures) <= min(60.0, pause * 1.5)


@given(st.integers(0, 10_000), st.floats(0.001, 1e6))
def test_backoff_never_takes_longer_than_allowed(failures: int, longest: float) -> None:
    assert 0 < backoff(failures, longest=longest) <= longest


def test_backoff_is_not_the_same_for_everyone() -> None:
    assert len({backoff(3) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    "error",
    [
        NotSent(WHERE, "no connection", connected=False),
        NoAnswer(WHERE, "the connection broke"),
        ServerError(WHERE, 500, ""),
        ServerError(WHERE, 503, ""),
        UnexpectedStatus(WHERE, 429, ""),
        UnexpectedStatus(WHERE, 408, ""),
    ],
)
def test_a_list_is_asked_for_again_when_that_can_help(error: Exception) -> None:
    assert ask_again(error, None) is True


@pytest.mark.parametrize(
    "error",
    [
        NotAuthorized(WHERE, 401, ""),
        Forbidden(WHERE, 403, ""),
        NotFound(WHERE, 404, ""),
        UnexpectedStatus(WHERE, 418, ""),
        UnexpectedStatus(WHERE, 400, ""),
        UnreadableAnswer(WHERE, 200, "", "JSON"),
        NotSent(WHERE, "the server's TLS certificate is not trusted", connected=False, trusted=False),
        RuntimeError("a mistake of ours"),
    ],
)
def test_a_list_is_not_asked_for_again_when_that_cannot_help(error: Exception) -> None:
    assert ask_again(error, 1.0) is False


def test_a_doubtful_post_is_never_a_reason_to_ask_again() -> None:
    assert ask_again(doubt(), 1.0) is False


@pytest.mark.parametrize(("asked", "expected"), [(0.0, 0.0), (7.0, 7.0), (300.0, 300.0), (86_400.0, 300.0)])
def test_the_wait_of_the_server_is_kept_up_to_five_minutes(asked: float, expected: float) -> None:
    again = ask_again(ServerError(WHERE, 503, ""), asked)

    assert expected == again
    assert again is not False


# --- verdicts ---


def test_an_unknown_body_is_unknown() -> None:
    assert Verdicts().meaning(refusal()) is RefusalCause.UNKNOWN


@pytest.mark.parametrize("meaning", [RefusalCause.INVALID, RefusalCause.TOO_FAST])
def test_a_verdict_is_remembered_for_its_body_only(meaning: RefusalCause) -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal("400 a"), meaning)

    assert verdicts.meaning(refusal("400 a")) is meaning
    assert verdicts.meaning(refusal("400 b")) is RefusalCause.UNKNOWN


def test_a_body_that_once_meant_too_fast_never_means_invalid() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), RefusalCause.TOO_FAST)
    verdicts.settle(refusal(), RefusalCause.INVALID)

    assert verdicts.meaning(refusal()) is RefusalCause.TOO_FAST


def test_a_body_that_meant_invalid_can_turn_out_to_mean_too_fast() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), RefusalCause.INVALID)
    verdicts.settle(refusal(), RefusalCause.TOO_FAST)

    assert verdicts.meaning(refusal()) is RefusalCause.TOO_FAST


@pytest.mark.parametrize(
    ("meaning", "slow"),
    [(RefusalCause.UNKNOWN, False), (RefusalCause.TOO_FAST, False), (RefusalCause.INVALID, True)],
)
def test_a_body_that_names_the_limit_needs_no_test(meaning: RefusalCause, slow: bool) -> None:
    verdicts, case = Verdicts(), RefusalHistory()
    if meaning is not RefusalCause.UNKNOWN:
        verdicts.settle(refusal(names_limit=True), meaning)

    assert [verdicts.judge(refusal(names_limit=True), case, slow=slow) for _ in range(20)] == [Action.SLOW_DOWN] * 20
    assert case == RefusalHistory()  # it never counts against the certificate


# The events of the table below. Each "refused" is about the same certificate until "another" comes.
REFUSED, ACCEPTED, OVERTAKEN, ANOTHER = "refused", "accepted", "accepted, but it left first", "another"
INVALID, TOO_FAST = RefusalCause.INVALID, RefusalCause.TOO_FAST


@pytest.mark.parametrize(
    ("events", "at_the_fast_pace", "at_the_slow_pace"),
    [
        pytest.param([REFUSED], [Action.PROBE], None, id="unknown"),
        pytest.param([ACCEPTED, REFUSED, ACCEPTED, REFUSED], [Action.PROBE] * 2, None, id="unknown, others accepted"),
        pytest.param(
            [INVALID, *[ANOTHER, REFUSED] * 40], [Action.PROBE] * 40, [Action.REJECT] * 40, id="a block of invalid ones"
        ),
        pytest.param(
            [TOO_FAST, INVALID, *[ANOTHER, REFUSED] * 40],
            [Action.PROBE] * 40,
            [Action.REJECT] * 40,
            id="a block, of both",
        ),
        pytest.param(
            [INVALID, ACCEPTED, REFUSED, ACCEPTED, REFUSED], [Action.AGAIN, Action.REJECT], None, id="only ever invalid"
        ),
        pytest.param(
            [INVALID, ACCEPTED, REFUSED, REFUSED],
            [Action.AGAIN, Action.PROBE],
            None,
            id="only ever invalid, none accepted",
        ),
        pytest.param(
            [INVALID, ACCEPTED, REFUSED, OVERTAKEN, REFUSED],
            [Action.AGAIN, Action.PROBE],
            None,
            id="only ever invalid, accepted too early",
        ),
        pytest.param(
            [INVALID, ACCEPTED, REFUSED, INVALID, REFUSED, ANOTHER, REFUSED],
            [Action.AGAIN, Action.PROBE, Action.PROBE],
            [Action.AGAIN, Action.REJECT, Action.REJECT],
            id="proved again meanwhile",
        ),
        pytest.param(
            [INVALID, ACCEPTED, REFUSED, ACCEPTED, ANOTHER, REFUSED], [Action.AGAIN] * 2, None, id="each on its own"
        ),
        pytest.param(
            [TOO_FAST, *[ACCEPTED, REFUSED] * 6],
            [Action.SLOW_DOWN] * 6,
            [*[Action.AGAIN] * 5, Action.REJECT],
            id="has meant too fast",
        ),
        pytest.param(
            [TOO_FAST, REFUSED, REFUSED],
            [Action.SLOW_DOWN] * 2,
            [Action.AGAIN, Action.PROBE],
            id="has meant too fast, none accepted",
        ),
        pytest.param(
            [TOO_FAST, *[ACCEPTED, REFUSED] * 4, REFUSED],
            [Action.SLOW_DOWN] * 5,
            [*[Action.AGAIN] * 4, Action.PROBE],
            id="has meant too fast, none accepted any more",
        ),
        pytest.param(
            [INVALID, ACCEPTED, REFUSED, TOO_FAST, *[ACCEPTED, REFUSED] * 5],
            [Action.AGAIN, *[Action.SLOW_DOWN] * 5],
            [*[Action.AGAIN] * 5, Action.REJECT],
            id="turns out to mean both",
        ),
    ],
)
def test_what_is_done_after_a_refusal(
    events: list[str | RefusalCause], at_the_fast_pace: list[Action], at_the_slow_pace: list[Action] | None
) -> None:
    assert at_the_fast_pace == actions(events, slow=False)
    assert (at_the_slow_pace or at_the_fast_pace) == actions(events, slow=True)


def actions(events: list[str | RefusalCause], *, slow: bool) -> list[Action]:
    """Return what is done after each refusal of a row of events."""
    verdicts, history, found = Verdicts(), RefusalHistory(), []
    early = verdicts.sending()
    for event in events:
        match event:
            case RefusalCause():
                verdicts.settle(refusal(), event)
            case "refused":
                verdicts.sending()
                found.append(verdicts.judge(refusal(), history, slow=slow))
            case "accepted":
                verdicts.was_accepted(verdicts.sending())
            case "another":
                history = RefusalHistory()
            case _:
                verdicts.was_accepted(early)
    return found


@pytest.mark.parametrize(("slow", "also"), [(False, None), (True, None), (True, TOO_FAST)])
def test_a_proof_holds_for_as_many_posts_as_the_limit(slow: bool, also: RefusalCause | None) -> None:
    verdicts = Verdicts()
    if also is not None:
        verdicts.settle(refusal(), also)
    verdicts.settle(refusal(), INVALID)

    assert verdicts.judge(refusal(), RefusalHistory(), slow=slow, over_limit=True) is Action.PROBE
    assert verdicts.judge(refusal(), RefusalHistory(), slow=slow, over_limit=False) is (
        Action.REJECT if slow else Action.PROBE
    )


def test_six_refusals_take_more_than_a_minute() -> None:
    assert sum(backoff(refusals) for refusals in range(1, 6)) > 60.0


def test_only_testable_refusals_count_against_a_certificate() -> None:
    verdicts, case = Verdicts(), RefusalHistory()
    verdicts.judge(refusal("400 a"), case, slow=True)
    verdicts.settle(refusal("400 a"), RefusalCause.INVALID)
    verdicts.judge(refusal("400 a"), case, slow=True)
    verdicts.settle(refusal("400 b"), RefusalCause.TOO_FAST)
    verdicts.judge(refusal("400 b"), case, slow=False)

    assert case == RefusalHistory()


def test_posts_are_numbered_and_tests_are_counted() -> None:
    verdicts = Verdicts()
    assert repr(verdicts) == "<Verdicts 0 known, 0 sent, 0 tests>"

    assert [verdicts.sending() for _ in range(3)] == [1, 2, 3]
    verdicts.settle(refusal(), RefusalCause.INVALID)
    verdicts.settle(refusal(), RefusalCause.TOO_FAST)

    assert verdicts.tests == 2
    assert repr(verdicts) == "<Verdicts 1 known, 3 sent, 2 tests>"
