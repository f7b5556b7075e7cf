"""When an upload stops by itself, in virtual time and in the time zone of Amsterdam."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path

import pytest

from springest_async import ConfigurationError, NotSent, Rejected, SpringestError
from springest_async.bulk import Entry, Outage, RowDone, State
from springest_async.cli.stop_options import StopOptions
from springest_async.cli.stops import Stops, next_time

pytestmark = pytest.mark.looptime(start=0, noop_cycles=0)

WHERE = "POST https://springest.example/users/certificates.json"
REJECTED = Rejected(WHERE, 400, "no")


@pytest.fixture(autouse=True)
def amsterdam(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Amsterdam")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Clock:
    """A clock of the wall that goes on with the loop's, and can be put forward, as after a sleep, or back."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now + timedelta(seconds=asyncio.get_running_loop().time())


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


def clock() -> Clock:
    return Clock(utc(2026, 11, 28, 21, 0))  # 22:00 in Amsterdam, on a Saturday


def now() -> float:
    return asyncio.get_running_loop().time()


def done(number: int, state: State, error: SpringestError | None = None) -> RowDone:
    entry = Entry(
        id=number,
        number=number,
        file=f"{number}.pdf",
        path=Path(f"{number}.pdf"),
        certification_id=7,
        email="jan@example.org",
        valid_from=date(2026, 1, 31),
        valid_until=None,
        conversion_id=None,
        origin="https://springest.example",
        state=State.WAITING,
    )
    return RowDone(entry, state, error=error)


# --- times ---


async def test_a_time_is_reached_when_the_clock_shows_it() -> None:
    stops = Stops(StopOptions(until="07:00"), clock())

    assert str(stops) == "at Sunday 07:00 (--until)"
    assert await stops.reached() == "at Sunday 07:00 (--until)"
    assert now() == pytest.approx(9 * 3600)


async def test_a_time_of_today_is_today() -> None:
    stops = Stops(StopOptions(until="22:10"), clock())

    assert await stops.reached() == "at 22:10 (--until)"
    assert now() == pytest.approx(600)
    assert stops.stopped_by == "until"


@pytest.mark.parametrize(
    ("words", "seconds", "said"),
    [
        ("8h", 8 * 3600, "8 h 00 min"),
        ("90m", 5400, "1 h 30 min"),
        ("30s", 30, "30 s"),
        ("1h30m", 5400, "1 h 30 min"),
        (" 2h0m1s ", 7201, "2 h 00 min"),
    ],
)
async def test_a_duration_counts_from_the_start(words: str, seconds: float, said: str) -> None:
    stops = Stops(StopOptions(max_duration=words), clock())

    assert await stops.reached() == f"after {said} (--max-duration)"
    assert stops.stopped_by == "max-duration"
    assert now() == pytest.approx(seconds)


async def test_what_was_over_before_the_run_stops_it_at_once() -> None:
    stops = Stops(StopOptions(max_duration="10m"), clock())
    await asyncio.sleep(3600)

    await stops.reached()

    assert now() == 3600


@pytest.mark.parametrize("options", [StopOptions(until="07:00"), StopOptions(max_duration="9h")])
async def test_a_machine_that_sleeps_stops_when_it_wakes(options: StopOptions) -> None:
    wall = clock()
    stops = Stops(options, wall)
    asyncio.get_running_loop().call_later(100, lambda: setattr(wall, "now", wall.now + timedelta(hours=20)))

    await stops.reached()

    assert 100 <= now() <= 105


async def test_a_clock_that_is_put_back_makes_a_run_longer() -> None:
    wall = clock()
    stops = Stops(StopOptions(until="22:10"), wall)
    asyncio.get_running_loop().call_later(100, lambda: setattr(wall, "now", wall.now - timedelta(minutes=5)))

    await stops.reached()

    assert now() == pytest.approx(900, abs=5)


async def test_the_first_of_several_ends_counts() -> None:
    stops = Stops(StopOptions(until="07:00", max_duration="1h", max_failures=1), clock())
    assert str(stops) == (
        "after 1 h 00 min (--max-duration) or at Sunday 07:00 (--until) or when 1 row cannot be stored (--max-failures)"
    )

    assert await stops.reached() == "after 1 h 00 min (--max-duration)"


async def test_without_options_nothing_stops_it() -> None:
    stops = Stops(StopOptions(), clock())
    for _ in range(1000):
        stops(done(2, State.FAILED, NotSent(WHERE, "the connection broke")))
    assert str(stops) == ""

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10_000_000):
            await stops.reached()


# --- when clocks are put forward or back ---


@pytest.mark.parametrize(
    ("wanted", "at", "expected"),
    [
        (time_of_day(7, 0), utc(2026, 11, 28, 5, 59, 59), utc(2026, 11, 28, 6, 0)),
        (time_of_day(7, 0), utc(2026, 11, 28, 6, 0), utc(2026, 11, 29, 6, 0)),
        (time_of_day(0, 0), utc(2026, 11, 28, 22, 59), utc(2026, 11, 28, 23, 0)),
        (time_of_day(0, 0), utc(2026, 11, 28, 23, 30), utc(2026, 11, 29, 23, 0)),
        # Put forward at 02:00 on 29 March 2026: an hour less of that night.
        (time_of_day(7, 0), utc(2026, 3, 28, 21, 0), utc(2026, 3, 29, 5, 0)),
        (time_of_day(2, 30), utc(2026, 3, 28, 21, 0), utc(2026, 3, 29, 1, 30)),
        (time_of_day(2, 30), utc(2026, 3, 29, 1, 31), utc(2026, 3, 30, 0, 30)),
        # Put back at 03:00 on 25 October 2026: 02:30 comes twice.
        (time_of_day(7, 0), utc(2026, 10, 24, 21, 0), utc(2026, 10, 25, 6, 0)),
        (time_of_day(2, 30), utc(2026, 10, 24, 21, 0), utc(2026, 10, 25, 0, 30)),
        (time_of_day(2, 30), utc(2026, 10, 25, 0, 45), utc(2026, 10, 25, 1, 30)),
        (time_of_day(2, 30), utc(2026, 10, 25, 1, 30), utc(2026, 10, 26, 1, 30)),
    ],
)
def test_the_next_time_is_that_of_the_clocks_on_the_wall(wanted: time_of_day, at: datetime, expected: datetime) -> None:
    assert next_time(wanted, at) == expected


# --- failures ---


async def test_the_rows_that_this_run_cannot_store_are_counted() -> None:
    stops = Stops(StopOptions(max_failures=3), clock())
    reached = asyncio.create_task(stops.reached())

    stops(Outage(0.0, "no connection", "", None))
    stops(done(2, State.STORED))
    stops(done(3, State.REJECTED, REJECTED))
    stops(done(4, State.REJECTED))  # in an earlier run
    stops(done(5, State.WAITING, REJECTED))
    stops(done(6, State.IN_DOUBT, REJECTED))
    stops(done(7, State.FAILED, NotSent(WHERE, "the connection broke")))
    await asyncio.sleep(100)
    assert not reached.done()
    stops(done(8, State.REJECTED, REJECTED))

    assert await reached == "because 3 rows could not be stored (--max-failures)"
    assert stops.stopped_by == "max-failures"
    assert now() == 100


# --- options that mean nothing ---


@pytest.mark.parametrize("words", ["", "7", "24:00", "7:60", "07:00:00", "19h", "7.00", "tomorrow", "-7:00", "007:00"])
async def test_what_is_no_time_of_the_day_is_refused(words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^--until {words}: write a time of the day, such as 07:00 or 19:30$"):
        Stops(StopOptions(until=words))


@pytest.mark.parametrize("words", ["", "8", "0h", "0m0s", "30m1h", "1.5h", "-1h", "8 hours", "1d", "h", "9999999h"])
async def test_what_is_no_duration_is_refused(words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--max-duration .*: write hours, minutes or seconds, such as 8h"):
        Stops(StopOptions(max_duration=words))


@pytest.mark.parametrize("number", [0, -1])
async def test_a_number_of_failures_is_one_or_more(number: int) -> None:
    with pytest.raises(ConfigurationError, match="--max-failures 100"):
        Stops(StopOptions(max_failures=number))
