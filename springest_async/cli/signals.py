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
from springest_async.cli.json_log import json_log
from springest_async.errors import JournalError

if TYPE_CHECKING:
    from springest_async.journal.journal import Journal

T = TypeVar("T")

# Time is counted in ticks, because the other threads of a process that gets no processor do not get on either.
_TICK = 0.1  # seconds
_TICKS = 10  # for a command to end by itself, for a server to answer, and for the last words: a terminal may be stopped
_TICKS_AT_WORK = 5  # that a journal may take for one thing before it is asked whether it answers


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
    _end(lambda: None)


def _end(last_words: Callable[[], object]) -> None:
    """End the process now, whatever its threads wait for: with the last words, and the last object of a JSON log."""

    def speak() -> None:
        last_words()
        if (log := json_log()) is not None:
            log.write_end(Exit.INTERRUPTED)

    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    for _ in range(_TICKS):
        speaking.join(_TICK)
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


class Abort:
    """Ends the process at Ctrl-C when its journal does not answer; one that answers lets it end by itself.

    A journal that another program has locked is waited for, because what it does not know yet of the uploads would be
    in doubt. A server that is frozen is not: it may answer much later. That wait is not cancelled: a commit that
    PostgreSQL was told to cancel in the wait for a standby is there all the same. The connection is left as it is.

    Args:
        journal: the journal, which may be closing.
        say_waiting: prints that the journal is waited for.
        last_words: prints why the process ends.
    """

    def __init__(self, journal: "Journal", say_waiting: Callable[[], object], last_words: Callable[[], object]) -> None:
        self._journal = journal
        self._say_waiting = say_waiting
        self._last_words = last_words
        self._has_begun = self._is_urgent = False

    def interrupt(self) -> None:
        """End the process if the journal does not answer; called again, also if it only is not done."""
        if self._has_begun:
            self._is_urgent = True
            return
        self._has_begun = True
        with suppress(RuntimeError):  # it is closing, so its thread is at work already
            self._journal.note(lambda _: None)
        threading.Thread(target=self._watch, name="springest-abort", daemon=True).start()

    def _watch(self) -> None:
        before, ticks, has_said = None, 0, False
        while True:
            time.sleep(_TICK)
            now = self._journal.at_work
            ticks = ticks + 1 if now is not None and now == before else 0
            before = now
            if ticks < _TICKS_AT_WORK:
                continue
            if self._is_urgent or not self._answers():
                break
            ticks = 0
            if not has_said:
                has_said = True
                self._say_waiting()
        _end(self._last_words)

    def _answers(self) -> bool:
        """Return whether the journal answers, though it is not done: then it waits for another program's lock."""
        if self._journal.kind == "SQLite":
            return True
        answered = threading.Event()

        def ask() -> None:
            with suppress(JournalError):
                self._journal.connect().close()
                answered.set()

        threading.Thread(target=ask, daemon=True).start()
        return any(answered.wait(_TICK) for _ in range(_TICKS))
