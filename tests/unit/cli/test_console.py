"""Consoles whose reader went away."""

import asyncio
import io
import sys
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from springest_async.cli.console import cell, folding_table, say, say_error, to_stderr, to_stdout
from springest_async.cli.progress import UploadProgress
from springest_async.journal.status import MigrationStatus
from tests.statuses import STATUS


class Gone(io.StringIO):
    """A pipe whose reader went away."""

    tries = 0

    def write(self, _: str) -> int:
        self.tries += 1
        raise BrokenPipeError


class Terminal(io.StringIO):
    """A terminal that somebody reads."""

    def isatty(self) -> bool:
        return True


def nobody_reads(monkeypatch: pytest.MonkeyPatch) -> Gone:
    """Take the readers away; not in a fixture, because pytest sets the streams anew after those."""
    pipe = Gone()
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(sys, "stderr", pipe)
    return pipe


def test_stderr_without_a_reader_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = nobody_reads(monkeypatch)
    console = to_stderr()
    say(console, "one")
    say(console, "two")

    assert gone.tries


def test_stdout_without_a_reader_is_a_broken_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_reads(monkeypatch)

    with pytest.raises(BrokenPipeError):
        say(to_stdout(), "one")


@pytest.mark.looptime
@pytest.mark.parametrize("terminal", [False, True])
async def test_progress_without_a_reader_harms_nothing(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    gone = nobody_reads(monkeypatch)
    monkeypatch.setattr(gone, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm-256color")

    async def read() -> MigrationStatus:
        return STATUS

    async with UploadProgress(to_stderr(), read, posts=30).shown():
        await asyncio.sleep(60)

    assert gone.tries
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("name", ["ACCESSIBLE", "NO_COLOR"])
def test_lines_are_asked_for_by_a_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("sys.stdout", Mock(isatty=lambda: True, encoding="utf-8"))
    monkeypatch.setattr("sys.stderr", Mock(isatty=lambda: True, encoding="utf-8"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv(name, raising=False)
    assert to_stdout().is_interactive
    assert to_stderr().is_interactive

    monkeypatch.setenv(name, "1")
    assert not to_stdout().is_interactive
    assert not to_stderr().is_interactive
    assert to_stderr().is_terminal


@pytest.mark.parametrize("variables", [{"ACCESSIBLE": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_tables_have_boxes_only_where_somebody_sees_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """In a terminal, unless it asks for plain lines; not in a pipe."""
    screens = []
    for stream, asked in ((Terminal(), {}), (Terminal() if variables else io.StringIO(), variables)):
        monkeypatch.setattr("sys.stdout", stream)
        for name, value in ({"ACCESSIBLE": "", "NO_COLOR": "", "TERM": "xterm-256color"} | asked).items():
            monkeypatch.setenv(name, value)
        table = folding_table("outcome", "")
        table.add_row("stored", "7")
        table.add_row("", cell("[b]"))
        to_stdout().print(table)
        screens.append(stream.getvalue())

    assert "─┬─" in screens[0] or "━┳━" in screens[0]
    assert screens[1] == "outcome\nstored   7\n         [b]\n"


def test_words_are_no_markup_and_move_no_cursor() -> None:
    screen = io.StringIO()
    say(Console(file=screen, force_terminal=True, color_system=None), "[b]\x1b[2Jno\x9b2J, [/] René\r\ntwo :smile:")

    assert screen.getvalue() == "[b] [2Jno 2J, [/] René  two :smile:\n"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("it is short", ["it is short"]),
        ("one and twenty letters and more", ["one and twenty", "letters and more"]),
        ("see https://springest.example/a/long/address", ["see", "https://springest.example/a/long/address"]),
        ("Send it again: springest upload 'a b.csv' --yes", ["Send it again:", "springest upload 'a b.csv' --yes"]),
    ],
)
def test_in_a_terminal_lines_end_between_words(words: str, lines: list[str]) -> None:
    """What may be copied stays whole, as it does for programs."""
    screen, pipe = Terminal(), io.StringIO()
    say(Console(file=screen, width=20, height=24, color_system=None), words)
    say(Console(file=pipe, width=20, height=24), words)

    assert (screen.getvalue().splitlines(), pipe.getvalue()) == (lines, f"{words}\n")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("it is short", ["springest: it is short"]),
        ("certificates.csv: it is not in", ["springest: certificates.csv:", "  it is not in"]),
        ("Run: springest upload 'a b.csv' --yes", ["springest: Run:", "  springest upload 'a b.csv' --yes"]),
    ],
)
def test_an_error_ends_its_lines_between_words(monkeypatch: pytest.MonkeyPatch, words: str, lines: list[str]) -> None:
    """What it quotes can begin no line, so that nobody takes it for the command's own words."""
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm-256color")
    say_error(words)

    assert screen.getvalue().splitlines() == lines


@given(st.text() | st.text("\n\r\x1b\x9b\u2028\u202e\u200f\u2066\ud800a[", max_size=20))
def test_whatever_is_said_is_one_line_of_what_can_be_printed(words: str) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=400)
    say(console, words)
    console.print(cell(words), soft_wrap=True)

    said = "".join(letter if letter.isprintable() else " " for letter in words)
    assert screen.getvalue() == f"{said}\n{said}\n"
    assert (said + "x").splitlines() == [said + "x"]
