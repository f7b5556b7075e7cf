"""What a failure means and how long to wait: no clock, no network, only decisions."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.errors import (
    Forbidden,
    InDoubt,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Rejected,
    ServerError,
    UnexpectedStatus,
    UnreadableAnswer,
)
from springest_async.protocol import Refusal
from springest_async.retry import Meaning, Verdicts, ask_again, backoff

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
        RuntimeError("a mistake of ours"),
    ],
)
def test_a_list_is_not_asked_for_again_when_that_cannot_help(error: Exception) -> None:
    assert ask_again(error, 1.0) is False


def test_a_doubtful_post_is_never_a_reason_to_ask_again() -> None:
    doubt = InDoubt(WHERE, "no answer", "jan@example.org", 7, datetime.now(UTC))

    assert ask_again(doubt, 1.0) is False


@pytest.mark.parametrize(("asked", "expected"), [(0.0, 0.0), (7.0, 7.0), (300.0, 300.0), (86_400.0, 300.0)])
def test_the_wait_that_the_server_asks_for_is_kept_up_to_five_minutes(asked: float, expected: float) -> None:
    again = ask_again(ServerError(WHERE, 503, ""), asked)

    assert expected == again
    assert again is not False


# --- verdicts ---


def test_an_unknown_body_is_unknown() -> None:
    assert Verdicts().meaning(refusal()) is Meaning.UNKNOWN


def test_a_body_that_names_the_limit_needs_no_experiment() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(names_limit=True), Meaning.INVALID)

    assert verdicts.meaning(refusal(names_limit=True)) is Meaning.TOO_FAST


@pytest.mark.parametrize("meaning", [Meaning.INVALID, Meaning.TOO_FAST])
def test_a_verdict_is_remembered_for_its_body_only(meaning: Meaning) -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal("400 a"), meaning)

    assert verdicts.meaning(refusal("400 a")) is meaning
    assert verdicts.meaning(refusal("400 b")) is Meaning.UNKNOWN


def test_a_body_that_once_meant_too_fast_is_never_believed_to_mean_invalid() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), Meaning.TOO_FAST)
    verdicts.settle(refusal(), Meaning.INVALID)

    assert verdicts.meaning(refusal()) is Meaning.TOO_FAST


def test_a_body_that_meant_invalid_can_turn_out_to_mean_too_fast() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), Meaning.INVALID)
    verdicts.settle(refusal(), Meaning.TOO_FAST)

    assert verdicts.meaning(refusal()) is Meaning.TOO_FAST


def reject(verdicts: Verdicts, rows: int) -> None:
    for _ in range(rows):
        assert verdicts.meaning(refusal()) is Meaning.INVALID
        verdicts.was_rejected()


def test_eight_rejections_in_a_row_are_put_to_the_test_again() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), Meaning.INVALID)

    reject(verdicts, 8)

    assert verdicts.meaning(refusal()) is Meaning.UNKNOWN


def test_each_test_that_confirms_it_makes_the_next_one_twice_as_rare() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), Meaning.INVALID)

    for rows in (8, 16, 32):
        reject(verdicts, rows)
        assert verdicts.meaning(refusal()) is Meaning.UNKNOWN
        verdicts.settle(refusal(), Meaning.INVALID)

    assert verdicts.meaning(refusal()) is Meaning.INVALID


def test_an_accepted_post_in_between_ends_the_suspicion() -> None:
    verdicts = Verdicts()
    verdicts.settle(refusal(), Meaning.INVALID)

    for _ in range(10):
        reject(verdicts, 7)
        verdicts.was_accepted()

    assert verdicts.accepted == 10
    assert verdicts.meaning(refusal()) is Meaning.INVALID


def test_the_state_shows_in_the_repr() -> None:
    verdicts = Verdicts()
    assert repr(verdicts) == "<Verdicts 0 known, 0 accepted, 0 refusals in a row>"

    verdicts.was_accepted()
    verdicts.settle(refusal(), Meaning.INVALID)
    verdicts.was_rejected()

    assert repr(verdicts) == "<Verdicts 1 known, 1 accepted, 1 refusals in a row>"
