"""The pictures of a report: what they count, how many marks they have, and what they never contain."""

import itertools
import re
import sys
from datetime import timedelta
from unittest.mock import patch

import pytest
from attrs import evolve

from springest_async import ConfigurationError
from springest_async.journal.history import AnswerTime
from springest_async.reports import charts

from .summaries import BEGAN, full_summary, status_of, stretch

STATUS = status_of(stored=1234, rejected=1, failed=0, in_doubt=3, waiting=7000)


def _pictures() -> list[charts.Picture]:
    summary = full_summary(STATUS)
    return [
        charts.outcomes(summary.status),
        charts.throughput(summary.stretches, 30),
        charts.answer_times(summary.answer_times),
        charts.refusals(summary.stretches),
    ]


def test_outcomes_are_counted_and_shared() -> None:
    picture = charts.outcomes(STATUS)

    assert picture.rows == (
        ("stored", "1\N{NO-BREAK SPACE}234", "15 %"),
        ("rejected", "1", "under 0.1 %"),
        ("failed", "0", "0 %"),
        ("in doubt", "3", "under 0.1 %"),
        ("waiting", "7\N{NO-BREAK SPACE}000", "85 %"),
    )
    assert "--stored" in picture.svg


def test_a_share_is_whole_only_if_it_is_exact() -> None:
    shares = [share for _, _, share in charts.outcomes(status_of(stored=99_999, rejected=1)).rows]

    assert shares == ["99.9 %", "under 0.1 %", "0 %", "0 %", "0 %"]


def test_rows_that_are_being_sent_are_shown_if_there_are_any() -> None:
    assert [state for state, _, _ in charts.outcomes(status_of(sending=2)).rows][-1] == "sending"


def test_throughput_is_shown_against_the_limit() -> None:
    picture = charts.throughput([stretch(0), stretch(1, posts=0, busiest=0)], 30)

    assert picture.rows == (("2026-11-05 08:30", "148", "29.6", "30"), ("2026-11-05 08:35", "0", "0.0", "0"))
    assert "The limit is 30 in any minute" in picture.words
    assert re.findall(r">([a-z ]+)</text>", picture.svg)[-3:] == ["busiest minute", "average", "limit"]


def test_single_minutes_have_one_line() -> None:
    picture = charts.throughput([stretch(0, minutes=1, posts=12, busiest=12)], 30)

    assert picture.words == "How many left in each minute. The limit is 30 in any minute."
    assert re.findall(r">([a-z ]+)</text>", picture.svg)[-2:] == ["sent", "limit"]


@pytest.mark.parametrize(
    ("minutes", "words"), [(30, "30 minutes"), (60, "1 hour"), (720, "12 hours"), (2880, "2 days")]
)
def test_the_length_of_a_stretch_is_told(minutes: int, words: str) -> None:
    assert f"In stretches of {words}:" in charts.throughput([stretch(minutes=minutes)], 30).words


@pytest.mark.parametrize(
    ("minutes", "count", "labels"),
    [
        (5, 6, ["08:30", "08:40", "08:50"]),
        (60, 40, ["5 Nov 08:30", "5 Nov 18:30", "6 Nov 04:30", "6 Nov 14:30"]),
        (360, 33, ["5 Nov", "7 Nov", "9 Nov", "12 Nov"]),
        (43200, 60, ["5 Nov 2026", "29 Jan 2028", "23 Apr 2029", "17 Jul 2030"]),
    ],
)
def test_a_few_stretches_are_labelled(minutes: int, count: int, labels: list[str]) -> None:
    """Several stretches of one day would all have its label."""
    stretches = [evolve(stretch(), at=BEGAN + timedelta(minutes=number * minutes)) for number in range(count)]
    for picture in (charts.throughput(stretches, 30), charts.refusals(stretches)):
        assert re.findall(r">([0-9]+[: ][^<]+)</text>", picture.svg) == labels


def test_one_point_is_seen() -> None:
    assert charts.throughput([stretch()], 30).svg.count("<circle") == 2


def test_times_have_the_quantiles_that_people_ask_for() -> None:
    times = [AnswerTime(0.1, 0.11, 90), AnswerTime(2.0, 2.1, 9), AnswerTime(70.0, 71.0, 1)]

    assert [charts.quantile(times, share) for share in (0.5, 0.9, 0.95, 0.99, 1.0)] == [0.11, 0.11, 2.1, 2.1, 71.0]
    picture = charts.answer_times(times)
    assert "Half of them took at most 0.11 s, 95 % at most 2.1 s, and the slowest 71.0 s." in picture.words
    assert picture.rows == (("up to 0.2 s", "90", "90 %"), ("up to 5 s", "9", "9 %"), ("over 60 s", "1", "1 %"))


def test_only_stretches_with_refusals_are_in_their_table() -> None:
    picture = charts.refusals([stretch(0), stretch(1, refused=2, unanswered=1)])

    assert picture.rows == (("2026-11-05 08:35", "2", "0", "1"),)


def test_a_picture_has_at_most_200_marks() -> None:
    for picture in _pictures():
        series = picture.svg[picture.svg.index('class="series') :]
        assert 1 <= len(re.findall(r"<(?:circle|rect|path)\b", series)) <= 200


def test_a_picture_has_no_script_and_loads_nothing() -> None:
    for picture in _pictures():
        svg = picture.svg.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"<script|<!--|https?:|//|url\(|@import|href|<\?|on[a-z]+=", svg)


def test_the_same_numbers_are_the_same_picture() -> None:
    assert [picture.svg for picture in _pictures()] == [picture.svg for picture in _pictures()]


@pytest.mark.parametrize("most", [0, 1, 4, 5, 7, 29, 30, 31, 999, 1000, 1001, 1_000_000])
@pytest.mark.parametrize("steps", [2, 5])
def test_the_axis_has_few_whole_numbers(most: int, steps: int) -> None:
    ticks = charts._ticks(most, steps)

    assert ticks[0] == 0
    assert ticks[-1] >= max(1, most)
    assert 2 <= len(ticks) <= steps + 1
    assert len({after - before for before, after in itertools.pairwise(ticks)}) == 1


def test_without_pygal_it_is_said_what_to_install() -> None:
    with (
        patch.dict(sys.modules, {"pygal": None, "pygal.style": None}),
        pytest.raises(ConfigurationError, match=r"pip install 'springest-async\[report\]'"),
    ):
        charts.import_pygal()
