"""Durations and times of the day for people, as all commands print them."""

from datetime import datetime, timedelta

_WEEK = timedelta(days=6)  # a day's name alone says which one is meant


def duration(seconds: float) -> str:
    """Return a duration for people: ``43 s``, ``12 min``, ``3 h 05 min``, ``23 d 3 h``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} d {hours % 24} h"


def clock_time(at: datetime, now: datetime) -> str:
    """Return a time in this machine's time zone: ``15:20``, ``Thursday 15:20``, ``Thursday 31 December 2026 15:20``.

    Args:
        at: the time, with its time zone; the day is left out if it is today, and the date if it is not far away.
        now: the time now, with its time zone.
    """
    at, now = at.astimezone(), now.astimezone()
    if at.date() == now.date():
        return f"{at:%H:%M}"
    return f"{at:%A} {at:%H:%M}" if abs(at - now) < _WEEK else f"{at:%A} {at.day} {at:%B %Y} {at:%H:%M}"


def outage_words(what: str, reason: str, seconds: float, again_in: float | None) -> str:
    """Return what is said of an outage, as in ``no connection for 40 s (Connection refused), trying again in 8 s``.

    Args:
        what: as in `Outage`.
        reason: as in `Outage`.
        seconds: since when.
        again_in: seconds until the next try; None while it is under way.
    """
    again = "trying again now" if again_in is None or again_in < 1 else f"trying again in {duration(again_in)}"
    return f"{what} for {duration(seconds)} ({reason}), {again}"
