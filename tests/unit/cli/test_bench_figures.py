"""The figures of ``springest bench``: what bounds a run, and how it is told."""

import math
from typing import Any

import pytest

from springest_async.cli.bench_figures import Figures, percentile, readable


def figures(**changes: Any) -> Figures:
    """Return the figures of a run of 10 s in which nothing was busy, with these changes."""
    idle: dict[str, Any] = {
        "seconds": 10.0,
        "uploads": 100,
        "size": 50_000,
        "concurrency": 8,
        "stored": 100,
        "posts": 104,
        "refusals": 4,
        "most_in_any_minute": 100,
        "latencies": [number / 1000 for number in range(1, 101)],
        "sending": 0.0,
        "answering": 0.0,
        "client_cpu": 0.52,
        "server_cpu": 0.104,
        "limit": 0.0,
        "disk": 0.0,
    }
    return Figures(**(idle | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": 9.8}, "the limit, for which uploads waited 98% of the time"),
        ({"disk": 7.0, "answering": 40.0}, "the disk, for which the journal waited 70% of the time"),
        ({"answering": 72.0}, "the server, for whose answers uploads waited 90% of their time"),
        ({"sending": 60.0, "answering": 16.0}, "the network, to which uploads were sent 75% of their time"),
        ({}, "the client, which used 5% of a processor"),
        ({"server_cpu": 1.0}, "the server, which used 10% of a processor"),
    ],
)
def test_what_was_waited_for_the_most_bounds_the_run(changes: dict[str, float], words: str) -> None:
    assert figures(**changes).bound() == words


@pytest.mark.parametrize(
    ("client_cpu", "server_cpu", "words"),
    [
        (9.5, 5.0, "the client, which used 95% of a processor"),
        (8.5, 9.9, "the server, which used 99% of a processor"),
        (8.5, None, "the client, which used 85% of a processor"),
    ],
)
def test_a_processor_without_rest_bounds_the_run(client_cpu: float, server_cpu: float | None, words: str) -> None:
    # All uploads wait for answers then, and the journal's thread for its turn: that is the effect.
    busy = figures(client_cpu=client_cpu, server_cpu=server_cpu, answering=80.0, disk=10.0)

    assert busy.bound() == words


def test_fewer_uploads_than_may_be_in_flight_are_all_in_flight() -> None:
    assert figures(uploads=2, concurrency=8, answering=18.0).bound().endswith("waited 90% of their time")


def test_the_figures_are_told_in_units() -> None:
    assert list(figures().lines().values()) == [
        "100 of 100, in 10.0 s",
        "10, 500 kB/s",
        "50.0 / 95.0 / 99.0",
        "4 of 104",
        "100, as the server counted",
        "5.00",
        "1.00",
    ]


def test_a_server_of_which_nothing_is_known_has_no_figures() -> None:
    lines = figures(server_cpu=None).lines()

    assert lines["most POSTs in any 60 s"] == "100, as they left"
    assert not any(name.endswith("server") for name in lines)


def test_a_run_that_was_stopped_at_once_has_no_quantiles() -> None:
    lines = figures(stored=0, posts=0, refusals=0, latencies=[]).lines()

    assert "nan / nan / nan" in lines.values()
    assert lines["ms of a processor for each upload, client"] == "-"


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (95, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], percent) == value


def test_there_is_no_percentile_of_nothing() -> None:
    assert math.isnan(percentile([], 50))


@pytest.mark.parametrize(
    ("count", "text"), [(186, "186 bytes"), (50_000, "50 kB"), (5.25e6, "5.25 MB"), (2e9, "2 GB"), (3e12, "3e+03 GB")]
)
def test_bytes_are_told_in_a_fitting_unit(count: float, text: str) -> None:
    assert readable(count) == text
