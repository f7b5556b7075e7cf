"""The outputs of the command: data to stdout, messages to stderr."""

import io
import json
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from springest_async.cli.exit_codes import Exit
from springest_async.cli.json_log import json_log
from springest_async.cli.streams import forget, make_streams

Format = Literal["table", "json", "csv"]  # of a list on stdout


def guard_streams(command: Callable[[], int]) -> int:
    """Run a command and return its exit code, also when it is interrupted or its output cannot be written."""
    make_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows "?" for characters that it lacks.
            stream.reconfigure(errors="replace")
    try:
        code = int(command())
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return Exit.STORED
    except OSError as error:  # mostly a full disk
        forget_stdout()
        what = f"{error.filename}:" if error.filename else "the output cannot be written:"
        say_error(f"{what} {error.strerror}")
        return Exit.NOT_ALL
    return code


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects, tables as plain lines where nobody sees a box: see `_interactive`.

        A screen reader would read every line of a box aloud, and a program would have to cut it away.
        """
        match objects:
            case (Table() as table,) if not self.is_interactive:
                table.box, table.pad_edge = None, False
                for line in self.render_lines(table, pad=False):
                    words = "".join(segment.text for segment in line).rstrip()
                    super().print(words, markup=False, emoji=False, highlight=False, soft_wrap=True)
            case _:
                super().print(*objects, **options)


class _Stdout(_Console):
    def on_broken_pipe(self) -> None:
        # rich would exit with 1, whatever the command's exit code is.
        raise BrokenPipeError


class _Stderr(_Console):
    def _check_buffer(self) -> None:
        # Continue when the reader or the terminal is gone, or the disk is full: uploads in progress must be finished,
        # and keep their exit code. rich has a hook for broken pipes only.
        try:
            self._write_buffer()
        except OSError:
            forget(sys.stderr)


def to_stdout() -> Console:
    """Return the console for data."""
    # Without a terminal there is no window to widen, so tables get the width that they need.
    return _Stdout(width=None if sys.stdout.isatty() else 200, force_interactive=_interactive())


def to_help() -> Console:
    """Return the console for help, which is as wide as the terminal."""
    return _Stdout()


def to_stderr() -> Console:
    """Return the console for messages."""
    if json_log() is not None:  # which no variable such as FORCE_COLOR makes a terminal
        return _Stderr(stderr=True, force_terminal=False, force_interactive=False)
    return _Stderr(stderr=True, force_interactive=_interactive())


def _interactive() -> bool | None:
    """Return False if all must be plain lines: ACCESSIBLE and NO_COLOR ask for what can be read aloud.

    Else rich looks whether it writes to a terminal that can move its cursor, which neither a pipe nor ``TERM=dumb`` is.
    """
    return False if os.environ.get("ACCESSIBLE") or os.environ.get("NO_COLOR") else None


def say(console: Console, words: str, style: str | None = None, *, indent: str = "") -> None:
    """Print one line, made `plain`, and without markup, because it may quote servers and manifests.

    Where somebody reads it, lines end between words; what may be copied stays whole: addresses, and a command, which
    begins after a colon. Each line but the first begins with `indent`.
    """
    lines = [plain(words)]
    # FORCE_COLOR can make rich believe in a terminal where there is none.
    if console.is_terminal and console.file.isatty() and cell_len(lines[0]) > console.width:
        prose, colon, command = lines[0].partition(": springest ")
        lines = textwrap.wrap(
            prose + colon[:1],
            console.width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [f"{indent}springest {command}"] if colon else []
    for line in lines:
        console.print(line, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say_error(words: str) -> None:
    """Print what ended the command, on stderr."""
    if (log := json_log()) is not None:
        log.end["error"] = words
    else:
        # Nothing that it quotes can begin a line.
        say(to_stderr(), f"springest: {words}", indent="  ")


def print_json(console: Console, document: Any) -> None:
    """Print a document for programs: in ASCII, so that it depends on no encoding, and without control characters."""
    text = json.dumps(document, indent=2).replace("\x7f", "\\u007f")
    console.file.write(f"{text}\n")


def argument(path: Path | str) -> str:
    """Quote a path, so that a printed command can be pasted into a shell."""
    return shlex.quote(str(path)) if os.name == "posix" else subprocess.list2cmdline([str(path)])


def journal_argument(option: str | None) -> str:
    """Return the option ``--journal`` as it is written in a shell, with a space before it, if it was given."""
    return f" --journal {argument(option)}" if option else ""


def folding_table(*names: str) -> Table:
    """Return a table that wraps cells instead of shortening them."""
    return Table(*(Column(name, overflow="fold") for name in names))


def cell(words: str) -> Text:
    """Return a table cell (or another renderable) without markup and control characters, as `say` prints."""
    return Text(plain(words))


def plain(words: str) -> str:
    """Replace control characters by spaces: they could move the cursor, fake lines, or reverse text."""
    return "".join(letter if letter.isprintable() else " " for letter in words)


def forget_stdout() -> None:
    """Drop output that could not be written; Python would try again at exit, and print an error."""
    forget(sys.stdout)
