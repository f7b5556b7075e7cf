"""A terminal for a command in a process of its own, and what stands on it."""

import asyncio
import codecs
import os
import pty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from attrs import define, field

from tests.screens import Screen
from tests.waiting import A_WHILE

__all__ = ["Terminal", "opened_terminal"]


@define(eq=False)
class Terminal:
    """A terminal of so many columns, and 24 lines.

    Attributes:
        width: how many columns it has.
        inside: what the process gets as its streams; it is closed when the process has it.
        screen: what stands on it.
    """

    width: int
    inside: int
    screen: Screen
    _decoder: codecs.IncrementalDecoder = field(init=False, factory=codecs.getincrementaldecoder("utf-8"))
    _ended: asyncio.Event = field(init=False, factory=asyncio.Event)

    @property
    def streams(self) -> dict[str, int]:
        """The streams of the process."""
        return dict.fromkeys(("stdin", "stdout", "stderr"), self.inside)

    @property
    def variables(self) -> dict[str, str]:
        """What its environment says of the terminal."""
        return {"TERM": "xterm-256color", "COLUMNS": str(self.width), "LINES": "24"}

    def read(self, outside: int) -> bool:
        """Read what has been written to it, and return whether there may be more."""
        with suppress(OSError):  # how Linux reports the end
            if piece := os.read(outside, 65536):
                self.screen.write(self._decoder.decode(piece).replace("\r\n", "\n"))
                return True
        self._ended.set()
        return False

    async def end(self, process: asyncio.subprocess.Process) -> int:
        """Wait until a process has ended and all that it wrote was read, and return its exit code."""
        async with asyncio.timeout(A_WHILE):
            code = await process.wait()
            await self._ended.wait()
        return code


@asynccontextmanager
async def opened_terminal(width: int) -> AsyncIterator[Terminal]:
    """Open a terminal for one process: start it with its streams, and then close `Terminal.inside`."""
    outside, inside = pty.openpty()
    terminal, loop = Terminal(width, inside, Screen(width)), asyncio.get_running_loop()

    def read() -> None:
        if not terminal.read(outside):
            loop.remove_reader(outside)

    loop.add_reader(outside, read)
    try:
        yield terminal
    finally:
        loop.remove_reader(outside)
        os.close(outside)
