"""Durations and times of the day, as a person says them."""

from datetime import datetime, timedelta

import pytest

from springest_async.cli.times import clock_time, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.4, "0 s"),
        (42.6, "43 s"),
        (99.4, "99 s"),
        (99.5, "2 min"),
        (720.0, "12 min"),
        (3569.9, "59 min"),
        (3570.0, "1 h 00 min"),
        (3600.0, "1 h 00 min"),
        (11_100.0, "3 h 05 min"),
        (48 * 3600.0 - 60, "47 h 59 min"),
        (48 * 3600.0, "2 d 0 h"),
        (1_000_000 * 2.0, "23 d 3 h"),
    ],
)
def test_a_duration_reads_as_a_person_says_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (timedelta(hours=3), "15:30"),
        (timedelta(hours=12), "Friday 00:30"),
        (timedelta(days=5, hours=23), "Wednesday 11:30"),
        (timedelta(days=6), "Wednesday 9 December 2026 12:30"),
        (timedelta(hours=-13), "Wednesday 23:30"),
        (timedelta(days=-7), "Thursday 26 November 2026 12:30"),
    ],
)
def test_a_time_has_as_much_of_its_day_as_is_needed(after: timedelta, words: str) -> None:
    now = datetime(2026, 12, 3, 12, 30).astimezone()

    assert clock_time(now + after, now) == words
