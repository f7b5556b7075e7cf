"""The bucket as plain state: when a POST may leave, what killed processes leave behind, and which data is refused."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.limits.bucket import Bucket, HourlyBudget, Lease, RateLimit, Ticket
from springest_async.sandbox.audit import most_in_any

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
    rate: RateLimit = THIRTY,
) -> float:
    return bucket.ask(rate, now, holder=who, bulk=bulk, wanted=wanted)


def take(bucket: Bucket, now: float, who: str, *, name: str | None = None, rate: RateLimit = THIRTY) -> int:
    bucket.take(rate, now, name=name or who, holder=who, count_window=120.0)
    return bucket.since_silence


def post(bucket: Bucket, now: float, who: str, posts: int = 1) -> None:
    """Make so many POSTs, which are answered at once."""
    for number in range(posts):
        name = f"{who} {now} {number}"
        take(bucket, now, who, name=name)
        end(bucket, now, name, until=now)


def end(bucket: Bucket, now: float, name: str, *, until: float | None) -> None:
    bucket.end(THIRTY, now, name=name, counted_until=until)


def leave_as_often_as_possible(bucket: Bucket, now: float, who: str, *, bulk: bool = False) -> int:
    """Send POSTs of one holder until it has to wait, and return how many left."""
    left = 0
    while not ask(bucket, now, who, bulk=bulk):
        take(bucket, now, who, name=f"{who} {now} {left}")
        left += 1
        bucket.leave_queue(who)
        bucket.join_queue(THIRTY, now, holder=who, bulk=bulk)
    return left


# --- tokens ---


def test_thirty_may_leave_and_the_next_when_a_token_can_be_back() -> None:
    bucket = Bucket()
    for number in range(30):
        assert ask(bucket, 0.0, "a") == 0.0
        assert take(bucket, 0.0, "a", name=str(number)) == number + 1
    assert bucket.queue == []

    assert ask(bucket, 5.0, "a") == about(SILENCE)  # no sooner, because no POST has been answered
    end(bucket, 7.0, "3", until=7.0)
    assert ask(bucket, 8.0, "a") == about(SILENCE - 1.0)
    assert ask(bucket, 7.0 + SILENCE, "a") == 0.0


def test_an_unsent_post_gives_its_token_back_at_once() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a")
    end(bucket, 1.0, "a", until=None)

    assert bucket.tokens_out == 0
    assert bucket.last_answer is None


def test_a_killed_process_gives_its_token_back_in_the_end() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "killed")
    bucket.settle(LEASE)
    assert (len(bucket.under_way), bucket.tokens_out) == (1, 1)
    bucket.settle(LEASE + 1.0)
    assert (len(bucket.under_way), bucket.tokens_out, bucket.last_answer) == (0, 1, LEASE)
    bucket.settle(LEASE + SILENCE)
    assert bucket.tokens_out == 0


def test_a_running_process_keeps_its_token_as_long_as_it_takes() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a")
    for beats in range(1, 1000):
        bucket.renew(THIRTY, beats * BEAT, holder="a", under_way={"a": 120.0})
        bucket.settle(beats * BEAT + 3.0)
        assert len(bucket.under_way) == 1


def test_a_process_that_only_seemed_dead_has_its_token_again() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "stopped")
    bucket.settle(10_000.0)
    assert bucket.tokens_out == 0

    end(bucket, 10_000.0, "stopped", until=10_000.0)
    assert bucket.tokens_out == 1


@pytest.mark.parametrize("until", [None, LEASE + 50.0])
def test_a_token_that_rests_since_its_lease_expired_is_one(until: float | None) -> None:
    bucket = Bucket()
    take(bucket, 0.0, "stopped")
    bucket.settle(LEASE + 1.0)
    bucket.renew(THIRTY, LEASE + 1.0, holder="stopped", under_way={"stopped": 120.0})
    assert (len(bucket.under_way), bucket.tokens_out) == (1, 1)
    bucket.settle(LEASE + 1.0 + LEASE + 1.0)
    end(bucket, LEASE + 50.0, "stopped", until=until)

    assert list(bucket.resting) == ([] if until is None else [(until + SILENCE, "stopped")])


# --- users with different limits ---

CAREFUL = RateLimit(15, 60.0)


def test_the_smallest_limit_holds_for_all() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "a", 20)

    assert ask(bucket, 1.0, "careful", rate=CAREFUL) == about(SILENCE - 1.0)
    assert ask(bucket, 1.0, "a") == about(SILENCE - 1.0)
    assert bucket.seconds_until(THIRTY, 1.0, posts=1, burst=30) == about(SILENCE - 1.0)
    assert bucket.seconds_until(THIRTY, 70.0, posts=31, burst=30) == about(2 * SILENCE)
    assert bucket.agreed(THIRTY) == bucket.agreed(CAREFUL) == CAREFUL


def test_a_user_that_is_not_heard_of_holds_nobody_back() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "careful", rate=CAREFUL)
    end(bucket, 0.0, "careful", until=0.0)

    assert leave_as_often_as_possible(bucket, 179.0, "a") == 15
    assert leave_as_often_as_possible(bucket, 180.0, "a") == 15
    assert bucket.agreed(CAREFUL) == CAREFUL


def test_a_user_that_waits_or_sends_keeps_its_limit() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a")
    wait = ask(bucket, 0.0, "careful", rate=RateLimit(1, 60.0))
    bucket.settle(wait + 179.0)
    assert bucket.agreed(THIRTY).posts == 1

    bucket.settle(wait + 180.0)
    assert bucket.agreed(THIRTY).posts == 30
    for beats in range(1, 100):
        bucket.renew(CAREFUL, 1000.0 + beats * BEAT, holder="careful", under_way={})
        bucket.settle(1000.0 + beats * BEAT + 119.0)
        assert bucket.agreed(THIRTY) == CAREFUL


def test_a_limit_is_noted_at_most_once_a_period() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "a", name="1")
    noted = {**bucket.limits}
    for number in range(2, 30):
        assert ask(bucket, 2.0 * number, "a") == 0.0
        take(bucket, 2.0 * number, "a", name=str(number))
    assert bucket.limits == noted

    bucket.renew(THIRTY, 61.0, holder="a", under_way={})
    assert bucket.limits == {30: 241.0}


def test_a_probe_keeps_to_the_smallest_limit_too() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "careful", 16)
    bucket.renew(CAREFUL, 0.0, holder="careful", under_way={})

    assert bucket.ask_alone(THIRTY, 10.0, holder="a", quiet=2.0) == about(SILENCE - 10.0)


def test_the_slow_pace_is_that_of_the_smallest_limit() -> None:
    bucket = Bucket()
    bucket.renew(CAREFUL, 0.0, holder="careful", under_way={})
    bucket.slow_down(THIRTY, 1, 0.0)
    assert bucket.quiet == CAREFUL.spacing

    take(bucket, 10.0, "a")
    assert bucket.quiet == CAREFUL.spacing


# --- how long to wait ---


@given(st.lists(st.sampled_from(["under way", "rests", "rests long", "rested"]), min_size=30, max_size=40))
def test_the_nth_wait_is_the_nth_smallest_of_all_tokens(tokens: list[str]) -> None:
    """As counted one by one: a token under way is back a silence from now at the earliest."""
    bucket, now, back = Bucket(), 1000.0, []
    for number, kind in enumerate(tokens):
        take(bucket, now - 50.0, "a", name=str(number))
        back.append(now + SILENCE)
        if kind != "under way":
            until = now + {"rests": -number, "rests long": number + 1, "rested": -SILENCE}[kind]
            end(bucket, now - 50.0, str(number), until=until)
            back[-1] = until + SILENCE
    out = sorted(time for time in back if time > now)

    assert bucket.seconds_until(THIRTY, now, posts=30, burst=30) == about(max(0.0, out[-1] - now if out else 0.0))
    for nth in range(1, len(out) + 1):
        assert bucket._back_at(THIRTY, now, nth) == about(out[nth - 1])


def test_a_post_costs_the_same_with_ten_times_the_tokens_out() -> None:
    """Counted in the calls that a profiler sees, which no busy machine changes."""
    calls = []
    for tokens in (300, 3000):
        for under_way in (0, tokens):
            bucket, rate = Bucket(), RateLimit(10_000, 60.0)
            for number in range(tokens):
                take(bucket, 0.0, "a", name=str(number), rate=rate)
            for number in range(tokens - under_way):
                end(bucket, 0.0, str(number), until=0.0)
            ask(bucket, 1.0, "a", rate=rate)  # the first look at a bucket reads all leases once
            calls.append(calls_of(bucket, rate))

    assert calls[:2] == calls[2:]


def calls_of(bucket: Bucket, rate: RateLimit) -> int:
    """Return how many functions one POST calls."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        ask(bucket, 2.0, "b", rate=rate)
        take(bucket, 2.0, "b", rate=rate)
        end(bucket, 3.0, "b", until=3.0)
        bucket.seconds_until(rate, 3.0, posts=1, burst=30)
    finally:
        sys.setprofile(None)
    return calls


# --- the queue ---


def test_the_second_in_the_queue_waits_for_the_second_token() -> None:
    bucket = Bucket()
    post(bucket, 1.0, "a")
    post(bucket, 2.0, "b")
    for number in range(28):
        take(bucket, 2.0, "c", name=str(number))
        end(bucket, 2.0, str(number), until=100.0 - SILENCE + number)

    assert ask(bucket, 10.0, "a") == about(SILENCE - 9.0)
    assert ask(bucket, 10.0, "b") == about(SILENCE - 8.0)
    assert ask(bucket, 10.0, "c") == about(90.0)


def test_processes_that_wait_take_turns() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "before", 30)
    for who in "abc":
        ask(bucket, 1.0, who)

    order: list[str] = []
    for _ in range(4):
        for who in "abc":
            assert ask(bucket, SILENCE + 1.0, who) == 0.0
            take(bucket, SILENCE + 1.0, who, name=f"{who} {len(order)}")
            order.append(bucket.queue[0].holder)
            bucket.leave_queue(who)
            bucket.join_queue(THIRTY, SILENCE + 1.0, holder=who, bulk=False)

    assert "".join(order) == "abc" * 4


def test_one_that_takes_all_leaves_a_token_to_each_that_is_awake() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "before", 30)
    for who in ("greedy", "b", "c"):
        ask(bucket, 1.0, who)

    assert leave_as_often_as_possible(bucket, SILENCE + 1.0, "greedy") == 28
    for who in "bc":
        assert ask(bucket, SILENCE + 1.0, who) == 0.0
        take(bucket, SILENCE + 1.0, who)
        bucket.leave_queue(who)


def test_a_dead_holder_in_the_queue_costs_a_beat() -> None:
    bucket, one = Bucket(), RateLimit(1, 60.0)
    take(bucket, 0.0, "c", rate=one)
    end(bucket, 0.0, "c", until=0.0)
    assert ask(bucket, 1.0, "dead", rate=one) == about(SILENCE - 1.0)
    assert ask(bucket, 2.0, "a", rate=one) == about(SILENCE - 2.0)

    assert ask(bucket, SILENCE, "a", rate=one) == about(BEAT)
    assert ask(bucket, SILENCE + BEAT, "a", rate=one) == 0.0


def test_a_holder_that_sleeps_keeps_no_token_from_another() -> None:
    bucket = Bucket()
    take(bucket, 0.0, "b")
    post(bucket, 0.0, "b", 29)
    ask(bucket, 1.0, "a")
    end(bucket, 2.0, "b", until=None)  # which the sleeper cannot know

    assert ask(bucket, 2.0, "b") == 0.0


def test_no_holder_waits_for_one_that_left_the_queue() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "b", 30)
    for who in "ac":
        ask(bucket, 1.0, who)
    for who in ("a", "another", "c"):
        bucket.leave_queue(who)

    assert bucket.queue == []


def test_no_process_slips_in_between_two_posts_of_another() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "a", 30)
    ask(bucket, 1.0, "a")
    assert ask(bucket, SILENCE, "a") == 0.0
    take(bucket, SILENCE, "a")
    bucket.leave_queue("a")
    bucket.join_queue(THIRTY, SILENCE, holder="a", bulk=False)

    assert leave_as_often_as_possible(bucket, SILENCE, "b") == 28
    assert ask(bucket, SILENCE, "a") == 0.0


def test_interactive_goes_before_bulk_that_came_first() -> None:
    bucket, one = Bucket(), RateLimit(1, 60.0)
    take(bucket, 0.0, "before", rate=one)
    end(bucket, 0.0, "before", until=0.0)
    for who, bulk in (("bulk", True), ("service", False), ("more bulk", True)):
        ask(bucket, 1.0, who, bulk=bulk, rate=one)

    assert ask(bucket, SILENCE, "more bulk", bulk=True, rate=one) > 0.0
    assert ask(bucket, SILENCE, "bulk", bulk=True, rate=one) > 0.0
    assert ask(bucket, SILENCE, "service", rate=one) == 0.0
    bucket.leave_queue("service")
    assert ask(bucket, SILENCE, "bulk", bulk=True, rate=one) == 0.0


def test_bulk_leaves_all_that_interactive_posts_want() -> None:
    bucket = Bucket()
    post(bucket, 0.0, "before", 30)
    ask(bucket, 1.0, "bulk", bulk=True, wanted=50)
    ask(bucket, 1.0, "service", wanted=12)

    assert leave_as_often_as_possible(bucket, SILENCE, "bulk", bulk=True) == 18


# --- the slow pace ---


def slow(bucket: Bucket, now: float = 0.0) -> Bucket:
    post(bucket, now, "refused")
    bucket.slow_down(THIRTY, 1, None)
    return bucket


def test_at_the_slow_pace_one_of_all_processes_leaves_at_a_time() -> None:
    bucket = slow(Bucket())
    assert ask(bucket, 0.0, "a") == about(SILENCE)
    assert ask(bucket, 0.0, "b") == about(SILENCE + 2.0)

    assert ask(bucket, SILENCE, "a") == 0.0
    assert take(bucket, SILENCE, "a") == 1
    bucket.leave_queue("a")
    assert ask(bucket, SILENCE + 2.0, "b") == 2.0  # nothing can leave sooner
    end(bucket, SILENCE + 3.0, "a", until=SILENCE + 3.0)
    assert ask(bucket, SILENCE + 4.0, "b") == about(1.0)
    assert ask(bucket, SILENCE + 5.0, "b") == 0.0
    assert take(bucket, SILENCE + 5.0, "b") == 2


def test_at_the_slow_pace_a_dead_one_in_the_queue_costs_a_beat() -> None:
    bucket = slow(Bucket())
    ask(bucket, 0.0, "dead")
    ask(bucket, 0.0, "a")

    waits, now = 0, SILENCE
    while (wait := ask(bucket, now, "a")) > 0:
        waits, now = waits + 1, now + wait
    assert (waits, now) == (3, about(SILENCE + BEAT))


def test_at_the_slow_pace_others_wait_for_a_killed_process() -> None:
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


def test_a_probe_that_seemed_dead_waits_for_the_next_one() -> None:
    bucket = Bucket()
    bucket.hold(THIRTY, 0.0, holder="stopped")
    bucket.hold(THIRTY, 100.0, holder="b")

    assert bucket.ask_alone(THIRTY, 101.0, holder="stopped", quiet=2.0) == 2.0


def test_a_probe_waits_for_all_processes_and_for_its_pause() -> None:
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


Row = tuple[str, float | None, float]


def rows_of(bucket: Bucket, names: set[str]) -> list[Row]:
    """Return a row for each of these tokens that is out."""
    rows: list[Row] = []
    for name in names:
        match bucket.token(name):
            case Lease(counted_until, back_at):
                rows.append((name, counted_until, back_at))
            case float(back_at):
                rows.append((name, None, back_at))
    return rows


def saved(bucket: Bucket) -> Bucket:
    """Return the bucket as it comes back from JSON and its rows."""
    return Bucket.load(json.loads(json.dumps(bucket.dump(), allow_nan=False)), rows_of(bucket, bucket.touched))


@pytest.mark.parametrize("bucket", [Bucket(), full()], ids=["new", "full"])
def test_a_bucket_comes_back_from_json_as_it_was(bucket: Bucket) -> None:
    assert saved(bucket) == bucket
    assert saved(bucket).touched == set()
    assert bucket.settled(1.0) == bucket


@pytest.mark.parametrize("bucket", [Bucket(), full()], ids=["new", "full"])
def test_a_shifted_bucket_answers_the_same(bucket: Bucket) -> None:
    moved = saved(bucket)
    moved.shift(-1000.0)

    for now in (1.0, 20.0, 62.0, 100.0, 300.0, 999.0):
        assert ask(saved(moved), now - 1000.0, "d") == about(ask(saved(bucket), now, "d"))


steps = st.tuples(st.sampled_from(["take", "renew", "answered", "unsent", "settle", "save"]), st.integers(0, 4))


@given(st.lists(st.tuples(steps, st.sampled_from([0.0, 5.0, 40.0, 150.0])), max_size=40))
def test_the_rows_of_what_was_touched_are_the_bucket(story: list[tuple[tuple[str, int], float]]) -> None:
    bucket, now = Bucket(), 0.0
    rows: dict[str, Row] = {}

    def save() -> None:
        for name in bucket.touched:
            rows.pop(name, None)
        rows.update((row[0], row) for row in rows_of(bucket, bucket.touched))
        bucket.touched.clear()

    for (step, number), pause in story:
        now += pause
        name = str(number)
        match step:
            case "take":
                take(bucket, now, "a", name=name)
            case "renew":
                bucket.renew(THIRTY, now, holder="a", under_way={name: 120.0})
            case "answered":
                end(bucket, now, name, until=now)
            case "unsent":
                end(bucket, now, name, until=None)
            case "settle":
                bucket.settle(now)
            case "save":
                save()
    save()

    loaded = Bucket.load(bucket.dump(), rows.values())
    loaded.settle(now)
    bucket.settle(now)
    assert loaded == bucket


def test_a_look_at_a_later_time_changes_nothing() -> None:
    bucket = full()
    before = saved(bucket)
    seen = bucket.settled(10_000.0)

    assert bucket == before
    bucket.settle(10_000.0)
    assert seen == bucket


def test_dead_holders_hold_no_post_back() -> None:
    waited_for, probed = Bucket(), Bucket()
    waited_for.queue.append(Ticket("a", bulk=False, wanted=1, wakes_at=1.0, expires=7.0))
    probed.hold(THIRTY, 0.0, holder="a")

    for bucket, until in ((waited_for, 7.0), (probed, 2 * BEAT)):
        assert not bucket.is_open(THIRTY, until - 0.1)
        assert bucket.is_open(THIRTY, until)


# --- the hourly budget ---


@pytest.mark.parametrize("requests", [1, 2, 10, 100, 1000, 4000, 8000])
def test_no_hour_has_more_requests_than_its_budget(requests: int) -> None:
    budget, now, times = HourlyBudget(), 0.0, []
    for _ in range(2 * requests + 2):
        now += budget.take(requests, now)
        times.append(now)

    assert times.count(0.0) == max(1, requests // 10)
    most = most_in_any(times, 3600.0 - 1e-3)
    assert requests - 1 <= most <= requests


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 5.0, 300.0, 3000.0])), max_size=300))
def test_no_hour_has_more_when_some_were_taken_ahead(story: list[tuple[bool, float]]) -> None:
    """Each that was taken ahead leaves as late as it may."""
    budget, now, times = HourlyBudget(), 0.0, []
    for ahead, pause in story:
        now += pause
        if ahead and budget.take_ahead(1000, now, requests=10, within=1.0):
            times += [now + 1.0] * 10
        else:
            times.append(now + budget.take(1000, now))

    assert most_in_any(sorted(times), 3600.0 - 1e-3) <= 1000


def test_none_is_taken_ahead_when_the_hour_is_tight() -> None:
    budget = HourlyBudget()

    assert not budget.take_ahead(100, 0.0, requests=10, within=1.0)
    assert budget.take_ahead(1000, 0.0, requests=10, within=1.0)
    assert budget.seconds_until(1000, 0.0, requests=89) == 0.0
    assert budget.seconds_until(1000, 0.0, requests=90) > 0.0


def test_a_request_that_is_given_back_leaves_room_for_another() -> None:
    budget = HourlyBudget()
    waits = [budget.take(100, 0.0) for _ in range(11)]
    budget.give_back(100, 30.0, free_at=40.0)

    assert waits == [0.0] * 10 + [40.0]
    assert budget.take(100, 30.0) == 10.0
    assert budget.seconds_until(100, 60.0, requests=3) == pytest.approx(2 * 40.0 + 80.0 - 60.0)


def test_a_request_given_back_too_late_leaves_no_room() -> None:
    budget = HourlyBudget()
    budget.take(1, 0.0)
    budget.take(1, 3600.0)
    budget.give_back(1, 3600.0, free_at=0.0)

    assert budget.seconds_until(1, 3600.0, requests=1) == 3600.0
