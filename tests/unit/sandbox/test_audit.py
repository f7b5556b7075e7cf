"""The sandbox's audit: counting arrivals, summing them up, and writing them as JSON."""

import json
from datetime import UTC, datetime
from itertools import accumulate

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.sandbox.audit import Post, Summary, Verdict, as_json, most_in_any, summarize

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

arrivals = st.lists(st.floats(0, 10), max_size=60).map(lambda gaps: list(accumulate(gaps)))


def post(verdict: Verdict, seconds: float = 0.0) -> Post:
    return Post(arrived_at=NOON, seconds=seconds, verdict=verdict, status=400)


@given(arrivals, st.floats(0.1, 30))
def test_most_in_any_is_the_largest_count_from_any_arrival_on(times: list[float], period: float) -> None:
    counts = [sum(1 for time in times[first:] if time - start < period) for first, start in enumerate(times)]

    assert max(counts, default=0) == most_in_any(times, period)


@pytest.mark.parametrize(
    ("expected", "times"),
    [(0, []), (1, [5.0]), (3, [5.0, 5.0, 5.0]), (1, [0.0, 60.0, 120.0]), (2, [0.0, 59.9, 60.0, 119.9])],
)
def test_a_window_is_half_open(expected: int, times: list[float]) -> None:
    assert expected == most_in_any(times, 60.0)


def test_summary_counts_every_post_once() -> None:
    verdicts: tuple[Verdict, ...] = (
        "stored",
        "stored",
        "too fast",
        "invalid",
        "unauthorized",
        "forbidden",
        "broken off",
        "failed",
        "failed",
        "failed",
    )

    expected = Summary(
        posts=10,
        stored=2,
        refused_for_speed=1,
        invalid=1,
        refused_for_key=2,
        broken_off=1,
        failed=3,
        most_in_any_period=8,
        period=60.0,
    )
    assert expected == summarize([post(verdict) for verdict in verdicts], 60.0)


def test_posts_without_a_valid_key_do_not_count_for_the_limit() -> None:
    posts = [post("unauthorized", 0.0), post("forbidden", 1.0), post("too fast", 2.0), post("stored", 3.0)]

    assert summarize(posts, 60.0).most_in_any_period == 2


def test_a_post_is_frozen_to_its_fields() -> None:
    fields = {"email": "jan@example.com"}
    record = Post(arrived_at=NOON, seconds=0.5, verdict="stored", status=201, fields=fields)

    fields["email"] = "piet@example.com"

    assert record.fields == {"email": "jan@example.com"}
    with pytest.raises(TypeError):
        record.fields["email"] = "piet@example.com"  # type: ignore[index]  # what is being tested
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.status = 200  # type: ignore[misc]  # what is being tested


def test_a_post_can_be_written_as_json() -> None:
    record = Post(
        arrived_at=NOON,
        seconds=0.5,
        verdict="stored",
        status=201,
        certificate_id=7,
        fields={"email": "jan@example.com"},
        filename="diploma.pdf",
        content_type="application/pdf",
        size=3,
        sha256="abc",
    )

    expected = {
        "arrived_at": "2024-05-01T12:00:00+00:00",
        "seconds": 0.5,
        "verdict": "stored",
        "status": 201,
        "words": "",
        "certificate_id": 7,
        "fields": {"email": "jan@example.com"},
        "filename": "diploma.pdf",
        "content_type": "application/pdf",
        "size": 3,
        "sha256": "abc",
        "request_id": "",
    }
    assert expected == json.loads(json.dumps(as_json(record)))
