"""Where the command writes: data to stdout, words to stderr."""

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

__all__ = [
    "argument",
    "cell",
    "folding_table",
    "forget_stdout",
    "make_streams",
    "plain",
    "say",
    "to_help",
    "to_stderr",
    "to_stdout",
]


def make_streams() -> None:
    """Make stdout and stderr where we were started without (``>&-``), so that no file of ours takes their places."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # for as long as we live
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", closefd=False))


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process with 1, whatever the command came to.
        raise BrokenPipeError


class _Stderr(Console):
    def _check_buffer(self) -> None:
        # Go on when nobody reads it, its disk is full or its terminal was closed: what is being uploaded must come to
        # its end, and its exit code is its own. rich has a place for this for broken pipes only.
        try:
            self._write_buffer()
        except OSError:
            _forget(sys.stderr)


def to_stdout() -> Console:
    """Give the console for data."""
    # Without a terminal nobody can widen the window: tables get the room that they need.
    return _Stdout() if sys.stdout.isatty() else _Stdout(width=200)


def to_help() -> Console:
    """Give the console for help, which is as wide as the terminal."""
    return _Stdout()


def to_stderr() -> Console:
    """Give the console for words."""
    return _Stderr(stderr=True)


def say(console: Console, words: str, style: str | None = None) -> None:
    """Write one line: what servers, manifests and file systems say is not markup, and is not wrapped; see `plain`."""
    console.print(plain(words), style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def argument(path: Path) -> str:
    """Write a path so that it is one argument of a command that is pasted into a shell, and runs nothing there."""
    return shlex.quote(str(path)) if os.name == "posix" else subprocess.list2cmdline([str(path)])


def folding_table(*names: str) -> Table:
    """Make a table that shows each cell whole, however narrow the terminal is."""
    return Table(*(Column(name, overflow="fold") for name in names))


def cell(words: str) -> Text:
    """Make a cell of a table, or another part of what is shown, that shows words as `say` does."""
    return Text(plain(words))


def plain(words: str) -> str:
    """Make spaces of all that a terminal would not show but do.

    Escape sequences move the cursor, and worse; line ends of any kind feign lines, and marks of direction turn them.
    """
    return "".join(letter if letter.isprintable() else " " for letter in words)


def forget_stdout() -> None:
    """After output that could not be written: Python would try again at exit, and complain of it."""
    _forget(sys.stdout)


def _forget(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # a stream without a descriptor has nothing to flush at exit
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
