"""When an upload stops by itself: at a time of the day, after a duration, or when too many rows were not stored.

Times are those of this machine's clock, and it is looked at often: a machine may sleep through them, and the clock may
be put forward or back.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from springest_async.bulk import BulkEvent, RowDone, State
from springest_async.cli.stop_options import StopOptions
from springest_async.cli.times import clock_time, duration
from springest_async.errors import ConfigurationError
from springest_async.reports.numbers import count
from springest_async.reports.summary_json import StoppedBy

_LOOK_EVERY = 5.0  # seconds between two looks at the clock
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DURATION = re.compile(r"(?=.)(?:([0-9]{1,5})h)?(?:([0-9]{1,7})m)?(?:([0-9]{1,8})s)?")


def _now() -> datetime:
    return datetime.now(UTC)


class Stops:
    """A listener that knows when a run is to stop.

    Usage::

        stops = Stops(options)  # the duration begins
        why = await stops.reached()

    Args:
        options: what the user asks for.
        clock: returns the time now, with its time zone.

    Raises:
        ConfigurationError: an option is not a time of the day, a duration or a number of rows.
    """

    def __init__(self, options: StopOptions, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        begun = clock()
        self._ends: list[tuple[datetime, StoppedBy, str]] = []  # when to stop, why, and how that is said
        if options.until is not None:
            at = next_time(_time_of(options.until), begun)
            self._ends.append((at, "until", f"at {clock_time(at, begun)} (--until)"))
        if options.max_duration is not None:
            lasts = _duration_of(options.max_duration)
            words = f"after {duration(lasts.total_seconds())} (--max-duration)"
            self._ends.append((begun + lasts, "max-duration", words))
        self._ends.sort()
        if options.max_failures is not None and options.max_failures < 1:
            raise ConfigurationError("--max-failures needs a number of rows, 1 or more: --max-failures 100")
        self._max_failures = options.max_failures
        self._failures = 0
        self._failed = asyncio.Event()  # one more row
        self.stopped_by: StoppedBy | None = None
        """Which option was reached."""

    def __call__(self, event: BulkEvent) -> None:
        """Count the rows that this run could not store; those that were rejected in an earlier one have no error."""
        if isinstance(event, RowDone) and event.state in (State.REJECTED, State.FAILED) and event.error is not None:
            self._failures += 1
            self._failed.set()

    def __str__(self) -> str:
        """Return when it stops, for a sentence; empty if it does not stop by itself."""
        ends = [words for _, _, words in self._ends]
        if self._max_failures is not None:
            ends.append(f"when {count(self._max_failures, 'row')} cannot be stored (--max-failures)")
        return " or ".join(ends)

    async def reached(self) -> str:
        """Wait until the run is to stop, and return the reason, as in ``Stopping at 07:00 (--until)``."""
        while True:
            if self._max_failures is not None and self._failures >= self._max_failures:
                self.stopped_by = "max-failures"
                return f"because {count(self._failures, 'row')} could not be stored (--max-failures)"
            pause = None
            if self._ends:
                at, option, words = self._ends[0]
                if (left := (at - self._clock()).total_seconds()) <= 0:
                    self.stopped_by = option
                    return words
                pause = min(left, _LOOK_EVERY)
            self._failed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._failed.wait()


def next_time(wanted: time, now: datetime) -> datetime:
    """Return when the clocks of this machine's time zone show a time next, in UTC.

    A time that comes twice in the night when the clocks are put back is the next of the two. One that is left out when
    they are put forward is as long after midnight as on another day.

    Args:
        wanted: the time of the day.
        now: the time now, with its time zone.
    """
    today = now.astimezone().date()
    for days in range(3):
        for fold in (0, 1):
            local = datetime.combine(today + timedelta(days), wanted).replace(fold=fold)
            at = datetime.fromtimestamp(local.timestamp(), UTC)  # astimezone errs about times that are left out
            comes_twice = at.astimezone().replace(tzinfo=None, fold=0) == local.replace(fold=0)
            if at > now and (fold == 0 or comes_twice):
                return at
    raise AssertionError("every time of the day comes within three days")


def _time_of(words: str) -> time:
    found = _TIME.fullmatch(words.strip())
    if found is None:
        raise ConfigurationError(f"--until {words}: write a time of the day, such as 07:00 or 19:30")
    return time(int(found[1]), int(found[2]))


def _duration_of(words: str) -> timedelta:
    found = _DURATION.fullmatch(words.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    if not (lasts := timedelta(hours=hours, minutes=minutes, seconds=seconds)):
        raise ConfigurationError(f"--max-duration {words}: write hours, minutes or seconds, such as 8h, 90m or 1h30m")
    return lasts
