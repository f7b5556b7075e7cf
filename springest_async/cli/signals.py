"""Handle Ctrl-C, SIGTERM and a closed terminal, for commands that stop in good order instead of at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupts(callback: Callable[[], None]) -> Iterator[None]:
    """Call `callback` in the event loop at each Ctrl-C or SIGTERM, and once at SIGHUP, instead of Python's handlers."""
    loop = asyncio.get_running_loop()
    numbers = {signal.SIGINT, signal.SIGTERM}
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        numbers.add(signal.SIGHUP)

    def wake(number: int, _: object) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            # The shell sends it as well as the terminal; the second one must not abort the uploads.
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(callback)

    # signal.signal and not loop.add_signal_handler, which Windows does not have.
    before = {number: signal.signal(number, wake) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
