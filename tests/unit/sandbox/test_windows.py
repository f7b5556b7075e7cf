"""Each way of counting: its rule, and what holds for all arrivals."""

import math
from itertools import accumulate, pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.sandbox.audit import most_in_any
from springest_async.sandbox.windows import (
    Counting,
    ElasticWindow,
    FirstHitWindow,
    FixedWindow,
    Paced,
    SlidingWindow,
    TokenBucket,
    Window,
    make_window,
)

# Quarters of a second add up without rounding, so a rule can be tested to the exact moment.
gaps = st.lists(st.integers(0, 40).map(lambda quarters: quarters / 4), max_size=80)
arrivals = gaps.map(lambda seconds: list(accumulate(seconds)))
limits = st.integers(1, 8)
periods = st.sampled_from([1.0, 4.0, 10.0])


def admitted(window: Window, times: list[float]) -> list[float]:
    return [time for time in times if window.admit(time)]


@given(arrivals, limits, periods)
def test_fixed_window_admits_the_first_ones_of_every_period(times: list[float], limit: int, period: float) -> None:
    passed = admitted(FixedWindow(limit, period), times)

    for number in {math.floor(time / period) for time in times}:
        within = [time for time in times if math.floor(time / period) == number]
        assert within[:limit] == [time for time in passed if math.floor(time / period) == number]


def test_fixed_window_passes_twice_the_limit_at_a_boundary() -> None:
    window = FixedWindow(30, 60)

    passed = admitted(window, [59.0] * 40 + [60.0] * 40)

    assert most_in_any(passed, 60) == 60


@given(arrivals, limits, periods)
def test_first_hit_window_admits_the_first_of_each_period(times: list[float], limit: int, period: float) -> None:
    passed = admitted(FirstHitWindow(limit, period), times)

    left = times
    while left:
        within = [time for time in left if time - left[0] < period]
        assert within[:limit] == [time for time in passed if 0 <= time - left[0] < period]
        left = left[len(within) :]


def test_first_hit_window_passes_twice_the_limit_at_its_end() -> None:
    window = FirstHitWindow(30, 60)

    passed = admitted(window, [7.0] + [66.0] * 40 + [67.0] * 40)

    assert most_in_any(passed, 60) == 59


def test_a_refusal_does_not_extend_a_first_hit_window() -> None:
    knocks = [float(second) for second in range(300)]

    assert admitted(FirstHitWindow(1, 60), knocks) == [0.0, 60.0, 120.0, 180.0, 240.0]


@given(arrivals, limits, periods)
def test_elastic_window_admits_the_first_ones_after_each_silence(times: list[float], limit: int, period: float) -> None:
    passed = admitted(ElasticWindow(limit, period), times)

    crowds: list[list[float]] = []
    for earlier, time in pairwise([-math.inf, *times]):
        if time - earlier >= period:
            crowds.append([])
        crowds[-1].append(time)
    assert [time for crowd in crowds for time in crowd[:limit]] == passed


def test_only_a_whole_silent_period_resets_an_elastic_window() -> None:
    window = ElasticWindow(2, 60)

    verdicts = [window.admit(time) for time in (0.0, 50.0, 100.0, 159.999, 219.999, 220.0, 280.0)]

    # The refusals at 100 and 159.999 extend the period too.
    assert verdicts == [True, True, False, False, True, True, True]


def test_a_steady_stream_gets_the_limit_of_elastic_once() -> None:
    assert admitted(ElasticWindow(30, 60), [float(second) for second in range(0, 6000, 59)]) == [
        float(second) for second in range(0, 30 * 59, 59)
    ]


@given(arrivals, limits, periods, st.booleans())
def test_sliding_window_never_exceeds_the_limit(
    times: list[float], limit: int, period: float, count_refusals: bool
) -> None:
    passed = admitted(SlidingWindow(limit, period, count_refusals=count_refusals), times)

    assert most_in_any(passed, period) <= limit


@given(arrivals, limits, periods)
def test_sliding_window_refuses_only_when_the_limit_is_reached(times: list[float], limit: int, period: float) -> None:
    window = SlidingWindow(limit, period)
    hits: list[float] = []

    for time in times:
        recent = [hit for hit in hits if time - hit < period]
        assert (len(recent) < limit) == window.admit(time)
        if len(recent) < limit:
            hits.append(time)


def test_a_hit_counts_for_a_period_and_not_a_moment_longer() -> None:
    window = SlidingWindow(1, 60)

    assert [window.admit(time) for time in (0.0, 59.999, 60.0)] == [True, False, True]


def test_a_persistent_client_stays_out_if_refusals_count() -> None:
    knocks = [float(second) for second in range(300)]

    assert admitted(SlidingWindow(1, 60, count_refusals=True), knocks) == [0.0]
    assert admitted(SlidingWindow(1, 60), knocks) == [0.0, 60.0, 120.0, 180.0, 240.0]


@given(arrivals, limits, periods)
def test_token_bucket_admits_at_most_bucket_and_refill(times: list[float], limit: int, period: float) -> None:
    passed = admitted(TokenBucket(limit, period), times)

    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            refill = (passed[last] - start) * limit / period
            assert last - first + 1 <= limit + refill + 1e-6


def test_token_bucket_lets_59_of_30_pass_in_a_minute() -> None:
    seconds = [float(second) for second in range(120)]

    passed = admitted(TokenBucket(30, 60), [0.0] * 30 + seconds)

    assert most_in_any(passed, 60) == 59


@given(arrivals, limits, periods)
def test_paced_keeps_its_distance(times: list[float], limit: int, period: float) -> None:
    passed = admitted(Paced(limit, period), times)

    assert all(later - earlier >= period / limit for earlier, later in pairwise(passed))


def test_a_refusal_does_not_extend_the_distance_of_paced() -> None:
    assert admitted(Paced(30, 60), [0.0, 1.9, 2.0, 2.1, 3.9, 4.0]) == [0.0, 2.0, 4.0]


@given(st.sampled_from(get_args(Counting)), arrivals, limits, periods)
def test_every_way_admits_the_first_and_one_after_a_silence(
    counting: Counting, times: list[float], limit: int, period: float
) -> None:
    window = make_window(counting, limit, period)

    verdicts = [window.admit(time) for time in times]

    assert all(verdicts[:1])
    assert window.admit(sum(times) + 2 * period)


def test_windows_are_made_by_name() -> None:
    kinds: dict[Counting, type[Window]] = {
        "fixed": FixedWindow,
        "first-hit": FirstHitWindow,
        "elastic": ElasticWindow,
        "sliding": SlidingWindow,
        "bucket": TokenBucket,
        "paced": Paced,
    }

    assert kinds == {name: type(make_window(name, 30, 60.0)) for name in get_args(Counting)}


def test_only_a_sliding_window_can_count_refusals() -> None:
    window = make_window("sliding", 30, 60.0, count_refusals=True)

    assert isinstance(window, SlidingWindow)
    assert window.count_refusals
    with pytest.raises(ValueError, match="only a sliding window"):
        make_window("fixed", 30, 60.0, count_refusals=True)


def test_an_unknown_way_of_counting_is_refused() -> None:
    with pytest.raises(ValueError, match="'leaky': fixed, first-hit, elastic, sliding, bucket, paced"):
        make_window("leaky", 30, 60.0)  # type: ignore[arg-type]  # what a caller without a type checker may do


@pytest.mark.parametrize(
    ("counting", "limit", "period"),
    [*((name, 0, 60.0) for name in get_args(Counting)), ("fixed", -1, 60.0), ("fixed", 30, 0.0), ("fixed", 30, -1.0)],
)
def test_impossible_limits_are_refused(counting: Counting, limit: int, period: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        make_window(counting, limit, period)
