"""Ask a person a question that is answered with yes or no."""

import asyncio
import os
import sys
import threading
from contextlib import suppress

from rich.console import Console

from springest_async.cli.console import plain


def can_ask(err: Console) -> bool:
    """Return whether a person sees `err` and can answer."""
    return err.is_interactive and sys.stdin is not None and sys.stdin.isatty()


async def confirmed(question: str, err: Console) -> bool:
    """Ask, and return whether the answer is yes: ``y`` or ``yes``. Ctrl-C ends it at once.

    Args:
        question: it ends with a question mark.
        err: where to print it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def settle(line: str) -> None:
        if not answer.done():
            answer.set_result(line)

    def read() -> None:
        # Not `readline`: a thread that has the lock of stdin would keep Python from ending.
        line = os.read(sys.stdin.fileno(), 1000).decode(errors="replace")
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, line)

    err.print(f"{plain(question)} [y/N]", end=" ", markup=False, highlight=False, soft_wrap=True)
    threading.Thread(target=read, name="springest-question", daemon=True).start()
    return (await answer).strip().lower() in ("y", "yes")
