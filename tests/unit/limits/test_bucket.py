"""The bucket as plain state: who may leave when, what the dead leave behind, and what is no bucket."""

import json
from collections import Counter
from typing import Any

import pytest

from springest_async.limits.bucket import Bucket, RateLimit, Ticket

THIRTY = RateLimit(30, 60.0)
SILENCE = 60.1
BEAT = 6.0
LEASE = 120.0 + 2 * BEAT  # seconds for which the server may count a POST whose holder does not say that it lives


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-6)


def ask(
    bucket: Bucket,
    now: float,
    who: str,
    *,
    bulk: bool = False,
    wanted: int = 1,
    figures: RateLimit = THIRTY,
) -> float:
    return bucket.ask(figures, now, holder=who, bulk=bulk, wanted=wanted)


def take(bucket: Bucket, now: float, who: str, *, name: str | None = None, figures: RateLimit = THIRTY) -> int:
    return bucket.take(figures, now, name=name or who, holder=who, count_window=120.0)


def post(bucket: Bucket, now: float, who: str, posts: int = 1) -> None:
    """Make so many POSTs, which are answered at once."""
    for number in range(posts):
        name = f"{who} {now} {number}"
        take(bucket, now, who, name=name)
        end(bucket, now, who, name=name, until=now)


def end(bucket: Bucket, now: float, who: str, *, name: str | None = None, until: float | None) -> None:
    bucket.end(THIRTY, now, name=name or who, holder=who, counted_until=until)


def crowd(bucket: Bucket, now: float, holders: list[str], *, wanted: int, bulk: str = "") -> Counter[str]:
    """Let holders that want so many each leave as often as they may, each as fast as it can when it is its turn."""
    left: Counter[str] = Counter()
    for who in holders:
        while left[who] < wanted and not ask(bucket, now, who, wanted=wanted - left[who], bulk=who in bulk):
            take(bucket, now, who, name=f"{who} {now} {left[who]}")
            left[who] += 1
            bucket.move_on(THIRTY, now, holder=who, bulk=who in bulk, wanted=wanted - left[who])
    return left


# --- tokens ---


def test_thirty_may_leave_and_the_next_when_a_token_can_be_back() -> None:
    bucket = Bucket()
    for number in range(30):
        assert ask(bucket, 0.0, "a") == 0.0
        assert take(bucket, 0.0, "a", name=str(number)) == 0
    assert bucket.line == []

    assert ask(bucket, 5.0, "a") == about(SILENCE)  # no sooner, since none of them has been answered
    end(bucket, 7.0, "a", name="3", until=7.0)
    assert ask(bucket, 8.0, "a") == about(SILENCE - 1.0)
    assert ask(bucket, 7.0 + SILENCE, "a") == 0.0


def test_an_unsent_post_gives_its_token_back_at_once() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a")
    end(bucket, 1.0, "a", until=None)

    assert bucket.is_idle(1.0)
    assert bucket.last_answer is None


def test_the_token_of_a_killed_process_comes_back_after_its_timeout_and_a_minute() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "killed")
    bucket.settle(LEASE)
    assert bucket.under_way == 1
    bucket.settle(LEASE + 1.0)
    assert (bucket.under_way, len(bucket.tokens), bucket.last_answer) == (0, 1, LEASE)
    bucket.settle(LEASE + SILENCE)
    assert bucket.tokens == {}


def test_a_process_that_lives_keeps_its_token_for_as_long_as_it_takes() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a")
    for beats in range(1, 1000):
        bucket.renew(THIRTY, beats * BEAT, holder="a", under_way={"a": 120.0})
        bucket.settle(beats * BEAT + 3.0)
        assert bucket.under_way == 1


def test_one_that_was_believed_dead_and_lives_has_its_token_again() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "stopped")
    bucket.settle(10_000.0)
    assert bucket.tokens == {}

    end(bucket, 10_000.0, "stopped", until=10_000.0)
    assert len(bucket.tokens) == 1


def test_each_keeps_the_limit_by_its_own_figures() -> None:
    bucket, careful = Bucket(), RateLimit(15, 60.0)
    post(bucket, 0.0, "a", 20)

    assert ask(bucket, 1.0, "careful", figures=careful) == about(SILENCE - 1.0)
    assert ask(bucket, 1.0, "a") == 0.0


# --- the line ---


def test_the_second_in_the_line_waits_for_the_second_token() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "c", 28)
    post(bucket, 1.0, "a")
    post(bucket, 2.0, "b")
    posts_of_c = [name for name in bucket.tokens if name.startswith("c")]
    for seconds, name in enumerate(posts_of_c):
        bucket.tokens[name].back_at = 100.0 + seconds

    assert ask(bucket, 10.0, "a") == about(SILENCE - 9.0)
    assert ask(bucket, 10.0, "b") == about(SILENCE - 8.0)
    assert ask(bucket, 10.0, "c") == about(90.0)


def test_who_holds_fewer_tokens_goes_first_and_then_who_came_first() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "many", 29)
    post(bucket, 1.0, "one")
    waits = {who: ask(bucket, 2.0, who) for who in ("many", "none", "one", "none either")}

    assert [ticket.holder for ticket in bucket._ahead(bucket.line[0])] == ["none", "none either", "one"]
    assert waits["none"] == about(SILENCE - 2.0)


def test_a_crowd_of_tokens_is_shared_among_those_who_want_them() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "a", 30)
    for who in "abcd":
        assert ask(bucket, 1.0, who, wanted=30) == about(SILENCE - 1.0)

    # The first that wakes takes its share, and what is left over; the others find theirs.
    assert crowd(bucket, SILENCE, ["a", "b", "c", "d"], wanted=30) == {"a": 9, "b": 7, "c": 7, "d": 7}


def test_nobody_is_kept_more_than_it_wants() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "c", 30)
    ask(bucket, 1.0, "a", wanted=30)
    ask(bucket, 1.0, "b", wanted=2)

    assert crowd(bucket, SILENCE, ["a"], wanted=30)["a"] == 28
    assert crowd(bucket, SILENCE, ["b"], wanted=2)["b"] == 2


def test_more_holders_than_tokens_get_one_each_in_their_order() -> None:
    bucket, holders = Bucket(), [f"holder {number:02}" for number in range(40)]
    post(bucket, 0.0, "before", 30)
    for who in holders:
        ask(bucket, 1.0, who, wanted=5)

    assert crowd(bucket, SILENCE, holders, wanted=5) == dict.fromkeys(holders[:30], 1)


def test_a_dead_one_in_the_line_costs_a_beat() -> None:
    bucket, one = Bucket(), RateLimit(1, 60.0)
    take(bucket, 0.0, "c", figures=one)
    bucket.end(one, 0.0, name="c", holder="c", counted_until=0.0)
    assert ask(bucket, 1.0, "dead", figures=one) == about(SILENCE - 1.0)
    assert ask(bucket, 2.0, "a", figures=one) == about(SILENCE - 2.0)

    assert ask(bucket, SILENCE, "a", figures=one) == about(BEAT)
    assert ask(bucket, SILENCE + BEAT, "a", figures=one) == 0.0


def test_one_that_sleeps_keeps_no_token_from_another() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "b")
    post(bucket, 0.0, "b", 29)
    ask(bucket, 1.0, "a")
    end(bucket, 2.0, "b", until=None)  # which the sleeper cannot know

    assert ask(bucket, 2.0, "b") == 0.0


def test_one_that_leaves_the_line_is_waited_for_no_more() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "b", 30)
    for who in "ac":
        ask(bucket, 1.0, who)
    bucket.leave_line("a")
    bucket.leave_line("another")
    bucket.move_on(THIRTY, 2.0, holder="c", bulk=False, wanted=0)

    assert bucket.line == []


def test_nobody_slips_in_between_two_of_one_process() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "a", 15)
    post(bucket, 0.0, "b", 15)
    ask(bucket, 1.0, "a", wanted=3)
    assert ask(bucket, SILENCE, "a", wanted=3) == 0.0
    take(bucket, SILENCE, "a")
    bucket.move_on(THIRTY, SILENCE, holder="a", bulk=False, wanted=2)

    assert crowd(bucket, SILENCE, ["b"], wanted=30, bulk="b")["b"] == 27
    assert crowd(bucket, SILENCE, ["a"], wanted=2)["a"] == 2


def test_bulk_lets_others_go_first() -> None:
    bucket, one = Bucket(), RateLimit(1, 60.0)
    take(bucket, 0.0, "bulk", name="its first", figures=one)
    ask(bucket, 1.0, "bulk", bulk=True, figures=one)
    for name in "ab":
        take(bucket, 1.0, "service", name=name, figures=one)
    ask(bucket, 2.0, "service", figures=one)

    assert [ticket.holder for ticket in bucket._ahead(bucket.line[0])] == ["service"]
    assert bucket._ahead(bucket.line[1]) == []


def test_bulk_that_holds_nothing_gets_one_token_in_its_turn() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "c", 30)
    ask(bucket, 1.0, "bulk", bulk=True, wanted=8)
    ask(bucket, 1.0, "service", wanted=30)

    assert crowd(bucket, SILENCE, ["service"], wanted=30)["service"] == 29
    assert crowd(bucket, SILENCE, ["bulk"], wanted=8, bulk="bulk")["bulk"] == 1


# --- the slow pace ---


def slow(bucket: Bucket, now: float = 0.0) -> Bucket:
    post(bucket, now, "refused")
    bucket.slow_down(THIRTY, 1, None)
    return bucket


def test_at_the_slow_pace_one_leaves_at_a_time_whoever_it_is() -> None:
    bucket = slow(Bucket())
    assert ask(bucket, 0.0, "a") == about(SILENCE)
    assert ask(bucket, 0.0, "b") == about(SILENCE + 2.0)

    assert ask(bucket, SILENCE, "a") == 0.0
    assert take(bucket, SILENCE, "a") == 1
    assert ask(bucket, SILENCE + 2.0, "b") == 2.0  # nothing can leave sooner
    end(bucket, SILENCE + 3.0, "a", until=SILENCE + 3.0)
    assert ask(bucket, SILENCE + 4.0, "b") == about(1.0)
    assert ask(bucket, SILENCE + 5.0, "b") == 0.0
    assert take(bucket, SILENCE + 5.0, "b") == 2


def test_at_the_slow_pace_a_dead_one_in_the_line_costs_a_beat() -> None:
    bucket = slow(Bucket())
    ask(bucket, 0.0, "dead")
    ask(bucket, 0.0, "a")

    waits, now = 0, SILENCE
    while (wait := ask(bucket, now, "a")) > 0:
        waits, now = waits + 1, now + wait
    assert (waits, now) == (3, about(SILENCE + BEAT))


def test_at_the_slow_pace_a_killed_process_is_waited_for_as_long_as_its_post_may_count() -> None:
    bucket = slow(Bucket())
    take(bucket, SILENCE, "killed")

    now = SILENCE
    while (wait := ask(bucket, now, "a")) > 0:
        now += wait
    assert SILENCE + LEASE + 2.0 <= now <= SILENCE + LEASE + 4.1


@pytest.mark.parametrize("position", [0, 1])
def test_a_refusal_of_the_first_says_nothing_about_how_many_pass(position: int) -> None:
    bucket, one = slow(Bucket()), RateLimit(1, 60.0)
    bucket.slow_down(one, position, None)

    assert bucket.batch is None


# --- a probe ---


def test_a_probe_holds_all_others_back_in_all_processes() -> None:
    bucket = Bucket()
    assert bucket.hold(THIRTY, 0.0, holder="a") == 0.0
    assert bucket.hold(THIRTY, 1.0, holder="b") == 2.0
    assert ask(bucket, 1.0, "b") == 2.0
    assert ask(bucket, 1.0, "a") == about(2 * BEAT - 1.0)  # which is woken when its own probe ends
    bucket.release("b")
    assert ask(bucket, 2.0, "b") > 0.0

    bucket.release("a")
    assert ask(bucket, 2.0, "b") == 0.0
    assert bucket.hold(THIRTY, 2.0, holder="b") == 0.0


def test_the_probe_of_a_killed_process_ends_after_two_beats() -> None:
    bucket = Bucket()
    bucket.hold(THIRTY, 0.0, holder="killed")
    bucket.renew(THIRTY, BEAT, holder="killed", under_way={})

    assert ask(bucket, 3 * BEAT - 1.0, "a") == about(1.0)
    assert ask(bucket, 3 * BEAT, "a") == 0.0


def test_a_probe_that_was_believed_dead_waits_for_the_one_that_came_after() -> None:
    bucket = Bucket()
    bucket.hold(THIRTY, 0.0, holder="stopped")
    bucket.hold(THIRTY, 100.0, holder="b")

    assert bucket.ask_alone(THIRTY, 101.0, holder="stopped", quiet=2.0) == 2.0


def test_a_probe_waits_for_those_under_way_in_all_processes_and_for_its_pause() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a")
    bucket.hold(THIRTY, 1.0, holder="b")
    assert bucket.ask_alone(THIRTY, 1.0, holder="b", quiet=SILENCE) == SILENCE
    end(bucket, 2.0, "a", until=2.0)
    assert bucket.ask_alone(THIRTY, 3.0, holder="b", quiet=SILENCE) == about(SILENCE - 1.0)
    assert bucket.ask_alone(THIRTY, 2.0 + SILENCE, holder="b", quiet=SILENCE) == 0.0


# --- as plain data ---


def full() -> Bucket:
    """Make a bucket that has something of everything."""
    bucket = slow(Bucket())
    bucket.batch = 30
    take(bucket, 1.0, "a")
    ask(bucket, 1.0, "b", bulk=True)
    bucket.hold(THIRTY, 1.0, holder="c")
    return bucket


@pytest.mark.parametrize("bucket", [Bucket(), full()], ids=["new", "full"])
def test_a_bucket_comes_back_from_json_as_it_was(bucket: Bucket) -> None:
    assert Bucket.load(json.loads(json.dumps(bucket.dump(), allow_nan=False))) == bucket


TOKEN = {"holder": "a", "under_way": True, "counted_until": 1.0, "back_at": 61.1}
TICKET = {"holder": "a", "bulk": False, "wanted": 1, "wakes_at": 1.0, "expires": 2.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": []},
        {"tokens": None},
        {"tokens": {"one": None}},
        {"tokens": {"one": TOKEN | {"more": 1}}},
        {"tokens": {"one": TOKEN | {"holder": 1}}},
        {"tokens": {"one": TOKEN | {"under_way": 1}}},
        {"tokens": {"one": TOKEN | {"back_at": "1"}}},
        {"tokens": {"one": TOKEN | {"back_at": True}}},
        {"tokens": {"one": TOKEN | {"back_at": float("inf")}}},
        {"tokens": {"one": {"holder": "a"}}},
        {"line": None},
        {"line": [None]},
        {"line": {"one": TICKET}},
        {"line": [TICKET | {"wanted": 0}]},
        {"line": [TICKET | {"wanted": 1.0}]},
        {"line": [TICKET | {"bulk": None}]},
        {"probe": []},
        {"probe": {"holder": "a"}},
        {"last_answer": float("nan")},
        {"last_answer": "1"},
        {"slow": 0},
        {"quiet": None},
        {"quiet": -1.0},
        {"batch": 0},
        {"batch": True},
        {"since_silence": -1},
        {"since_silence": 1.5},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_bucket_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no bucket's state"):
        Bucket.load(Bucket().dump() | changes)


@pytest.mark.parametrize("data", [None, [], "", 1, {}, {1: 2}, {"tokens": {}}], ids=str)
def test_what_is_no_record_at_all_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="no bucket's state"):
        Bucket.load(data)


@pytest.mark.parametrize("bucket", [Bucket(), full()], ids=["new", "full"])
def test_on_a_clock_that_counts_from_elsewhere_it_answers_the_same(bucket: Bucket) -> None:
    moved = Bucket.load(bucket.dump())
    moved.shift(-1000.0)

    for now in (1.0, 20.0, 62.0, 100.0, 300.0):
        assert ask(Bucket.load(moved.dump()), now - 1000.0, "d") == about(ask(Bucket.load(bucket.dump()), now, "d"))
    assert moved.is_idle(-1.0) == bucket.is_idle(999.0)


def test_it_is_idle_when_nothing_of_it_would_hold_a_post_back() -> None:
    assert Bucket().is_idle(0.0)

    for bucket, until in [
        (slow(Bucket()), SILENCE),
        (Bucket(line=[Ticket("a", bulk=False, wanted=1, wakes_at=1.0, expires=7.0)]), 7.0),
    ]:
        assert not bucket.is_idle(until - 0.1)
        assert bucket.is_idle(until)
    probing = Bucket()
    probing.hold(THIRTY, 0.0, holder="a")
    assert not probing.is_idle(2 * BEAT - 0.1)
    assert probing.is_idle(2 * BEAT)
