"""Handle Ctrl-C, SIGTERM and a closed terminal, for commands that stop in good order instead of at once.

Nothing here waits: a thread that waits for a database may do so for as long as the database likes.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from springest_async.cli.exit_codes import Exit

if TYPE_CHECKING:
    from springest_async.journal.journal import Journal

T = TypeVar("T")

_TICK = 0.1  # seconds
_TICKS = 10  # that a journal may take for one thing when the process is to end
_LAST_WORDS = 0.3  # seconds for what is printed last: a terminal may be stopped


def run_interruptibly(command: Coroutine[Any, Any, T]) -> T:
    """Run a command as `asyncio.run` does, and end the process within about a second after a second Ctrl-C.

    The first one cancels the command. Its threads go on, perhaps for as long as a database or a disk likes, and Python
    would wait for them.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    is_interrupted = is_ending = False

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt(_: int, __: object) -> None:
            nonlocal is_interrupted, is_ending
            if not is_interrupted and not task.done():
                is_interrupted = True
                loop.call_soon_threadsafe(task.cancel)
            elif not is_ending:
                is_ending = True
                threading.Thread(target=_end_soon, name="springest-abort", daemon=True).start()
                raise KeyboardInterrupt

        if is_ours:
            signal.signal(signal.SIGINT, interrupt)
        return await command

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if is_interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if is_ours and not is_ending:
            signal.signal(signal.SIGINT, before)


def _end_soon() -> None:
    time.sleep(_TICK * _TICKS)
    os._exit(Exit.INTERRUPTED)


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


def abort_without(journal: "Journal", last_words: Callable[[], object]) -> None:
    """End the process within about a second, unless the journal answers and so lets it end by itself.

    A server that is frozen, or a standby that is waited for, may answer much later. That wait is not cancelled: a
    commit that PostgreSQL was told to cancel in the wait for a standby is there all the same. The connection is left
    as it is, and what was being sent is in doubt for the next run.

    Args:
        journal: the journal, which may be closing.
        last_words: prints why the process ends so.
    """
    with suppress(RuntimeError):  # it is closing, so its thread is at work already
        journal.note(lambda _: None)

    def watch() -> None:
        before, ticks = None, 0
        # Ticks, because the other threads of a process that gets no processor do not get on either.
        while ticks < _TICKS:
            time.sleep(_TICK)
            now = journal.at_work
            ticks = ticks + 1 if now is not None and now == before else 0
            before = now
        speaking = threading.Thread(target=last_words, daemon=True)
        speaking.start()
        speaking.join(_LAST_WORDS)
        os._exit(Exit.INTERRUPTED)

    threading.Thread(target=watch, name="springest-abort", daemon=True).start()
