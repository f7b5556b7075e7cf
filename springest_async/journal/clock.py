"""The seconds that have passed on this machine, also while it slept."""

import time


def elapsed() -> float:
    """Return the seconds since a fixed moment, which count the time that the machine sleeps where it can tell.

    That is CLOCK_BOOTTIME on Linux, and elsewhere `time.monotonic`.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
