"""Where the command writes: data to stdout, words to stderr."""

import sys

from rich.console import Console

__all__ = ["say", "to_stderr", "to_stdout"]


def to_stdout() -> Console:
    """Give the console for data."""
    # Without a terminal nobody can widen the window: tables get the room that they need.
    return Console() if sys.stdout.isatty() else Console(width=200)


def to_stderr() -> Console:
    """Give the console for words."""
    return Console(stderr=True)


def say(console: Console, words: str, style: str | None = None) -> None:
    """Write a line as it is: what servers, manifests and file systems say is not markup, and is not wrapped."""
    console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)
