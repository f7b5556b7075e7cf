"""Where the command writes: data to stdout, words to stderr."""

import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.text import Text

__all__ = ["cell", "forget_stdout", "plain", "say", "to_stderr", "to_stdout"]


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process with 1, whatever the command came to.
        raise BrokenPipeError


class _Stderr(Console):
    def on_broken_pipe(self) -> None:
        # Go on without a reader: what is being uploaded must come to its end, and its exit code is its own.
        _forget(sys.stderr)


def to_stdout() -> Console:
    """Give the console for data."""
    # Without a terminal nobody can widen the window: tables get the room that they need.
    return _Stdout() if sys.stdout.isatty() else _Stdout(width=200)


def to_stderr() -> Console:
    """Give the console for words."""
    return _Stderr(stderr=True)


def say(console: Console, words: str, style: str | None = None) -> None:
    """Write one line: what servers, manifests and file systems say is not markup, and is not wrapped; see `plain`."""
    console.print(plain(words), style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def cell(words: str) -> Text:
    """Make a cell of a table, or another part of what is shown, that shows words as `say` does."""
    return Text(plain(words))


def plain(words: str) -> str:
    """Make spaces of all that a terminal would not show but do.

    Escape sequences move the cursor, and worse; line ends of any kind feign lines, and marks of direction turn them.
    """
    return "".join(letter if letter.isprintable() else " " for letter in words)


def forget_stdout() -> None:
    """After a broken pipe: whoever read our output has seen enough, and Python would complain of it at exit."""
    _forget(sys.stdout)


def _forget(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # a stream without a descriptor has nothing to flush at exit
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
