"""Ctrl-C and SIGTERM, for commands that end in good order instead of at once."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["interrupts"]


@contextmanager
def interrupts(callback: Callable[[], None]) -> Iterator[None]:
    """Call back in the event loop at each Ctrl-C or SIGTERM, in place of what Python would do."""
    loop = asyncio.get_running_loop()

    def wake(*_: object) -> None:
        loop.call_soon_threadsafe(callback)

    # signal.signal and not loop.add_signal_handler, which Windows does not have.
    before = {number: signal.signal(number, wake) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
