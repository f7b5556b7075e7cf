"""Run what blocks in a thread, with a line that says how far it is, so that Ctrl-C ends it at once."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias, TypeVar

from rich.console import Console

from springest_async.cli.console import cell

_T = TypeVar("_T")

GoOn: TypeAlias = Callable[[], None]
"""What a function in a thread calls often: it raises an error when nobody waits for the result any more."""

_TICK = 0.25  # seconds between two updates of the line
_PATIENCE = 1.0  # seconds for the thread to end after Ctrl-C


class _GivenUpError(Exception):
    """Nobody waits for the result any more."""


async def in_thread(work: Callable[[GoOn], _T], words: Callable[[], str], err: Console) -> _T:
    """Run a function in a thread of its own, and show a line meanwhile if there is a terminal.

    The thread is a daemon: one that waits for a disk that hangs cannot keep the process from ending.

    Args:
        work: the function. It must call its argument often, which ends it after Ctrl-C.
        words: returns the line, such as how many rows were checked.
        err: where to show it.

    Raises:
        Exception: what `work` raises.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()
    given_up = False

    def go_on() -> None:
        if given_up:
            raise _GivenUpError

    def settle(set_it: Callable[[], None]) -> None:
        if not result.done():
            set_it()

    def run() -> None:
        try:
            value = work(go_on)
        except BaseException as error:  # noqa: BLE001 # it belongs to the coroutine
            end = _setter(result.set_exception, error)
        else:
            end = _setter(result.set_result, value)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, end)

    thread = threading.Thread(target=run, name="springest-check", daemon=True)
    thread.start()
    with err.status("") as status:
        try:
            while not (await asyncio.wait([result], timeout=_TICK))[0]:
                status.update(cell(words()))
        finally:
            given_up = True
            result.cancel()  # unless it is there: else asyncio would complain that nobody has looked at it
            thread.join(_PATIENCE)
    return result.result()


def _setter(setter: Callable[[_T], None], value: _T) -> Callable[[], None]:
    return lambda: setter(value)
