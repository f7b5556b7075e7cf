"""Run the commands of docs/manifests.md, and put what they print where the page has it.

A comment ``<!-- example: NAME -->`` begins a section, whose commands run in a folder with the files of that example. A
comment ``<!-- sheet: FILE -->`` stands above the cells of a workbook. All else is written by hand.
"""

import contextlib
import re
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from attrs import frozen
from openpyxl import load_workbook

from springest_async.sandbox import Sandbox
from tests.integration.command import printed, springest_sandbox

from .inputs import CERTIFICATIONS, EXAMPLES

PAGE = Path(__file__).parents[3] / "docs" / "manifests.md"

_BEGINNING = re.compile(r"<!-- example: (\w+) -->")
_SHEET = re.compile(r"<!-- sheet: (.+) -->")

# What differs from run to run, and what stands for it in the page, which says so.
_FOLDER = "/home/hr/diplomas"
_ORIGIN = "http://127.0.0.1:8080"
_TIMES = (
    (re.compile(r"(?<=stored in )[0-9][0-9dhms .]*(?=:|\n|$)"), "… s"),
    (re.compile(r"(?<=: done ).*(?= if started now)"), "…"),
)


@frozen
class Section:
    """A part of the page.

    Attributes:
        name: of its example; an empty text for what stands before the first one.
        lines: its lines.
    """

    name: str
    lines: Sequence[str]

    async def made_again(self, folder: Path, sandbox: Sandbox) -> Sequence[str]:
        """Return its lines with what the commands print now.

        Args:
            folder: an empty folder.
            sandbox: the server that the commands speak to.
        """
        if not self.name:
            return self.lines
        EXAMPLES[self.name].make(folder)
        shell = _Shell(folder, sandbox)
        made: list[str] = []
        lines = iter(self.lines)
        for line in lines:
            made.append(line)
            if line == "```console":
                made += await shell.block(_until(lines, "```"))
                made.append("```")
            elif found := _SHEET.fullmatch(line):
                for _ in _until(lines, "", skip=1):
                    pass
                made += ["", *_table(folder / found[1]), ""]
        return made


def sections() -> Sequence[Section]:
    """Return the parts of the page, in order."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if begins := _BEGINNING.fullmatch(line):
            found.append((begins[1], []))
        found[-1][1].append(line)
    return [Section(name, lines) for name, lines in found]


def sandbox() -> Sandbox:
    """Return a Springest for one example, with a limit that no example reaches."""
    return springest_sandbox(limit=1000, certifications=CERTIFICATIONS)


class _Shell:
    """Runs the commands of an example, one after another, in its folder."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self._folder = folder
        self._sandbox = sandbox
        self._code = 0

    async def block(self, lines: Sequence[str]) -> Sequence[str]:
        """Return a block of commands, each with what it prints."""
        made: list[str] = []
        for command in _commands(lines):
            if made and made[-1]:
                made.append("")
            made += command
            words = shlex.split(" ".join(line.removesuffix("\\") for line in command).removeprefix("$ "), comments=True)
            made += _lines(self._steady(await self._run(words)))
        return made

    async def _run(self, words: Sequence[str]) -> str:
        match words:
            case ["springest", *arguments]:
                # On a busy machine, a line would say after ten seconds how far it is.
                with contextlib.chdir(self._folder), patch("springest_async.cli.progress._LINE_EVERY", 3600.0):
                    self._code, text = await printed(*arguments, origin=self._sandbox.origin)
                return text
            case ["cat", name]:
                path = self._folder / name
                return (
                    path.read_text(encoding="utf-8-sig") if path.exists() else f"cat: {name}: No such file or directory"
                )
            case ["iconv", "-f", encoding, name]:
                return (self._folder / name).read_text(encoding=encoding)
            case ["unzip", "-Z1", name]:
                with zipfile.ZipFile(self._folder / name) as archive:
                    return "\n".join(archive.namelist())
            case ["echo", "$?"]:
                return str(self._code)
        raise ValueError(f"the page has a command that is not known: {shlex.join(words)}")

    def _steady(self, text: str) -> str:
        text = text.replace(self._sandbox.origin, _ORIGIN)
        text = text.replace(str(self._folder.resolve()), _FOLDER).replace(str(self._folder), _FOLDER)
        for pattern, replacement in _TIMES:
            text = pattern.sub(replacement, text)
        return text


def _commands(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield each command of a block, with the lines on which it goes on."""
    remaining = iter(lines)
    for line in remaining:
        if line.startswith("$ "):
            command = [line]
            while command[-1].endswith("\\"):
                command.append(next(remaining))
            yield command


def _lines(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _until(lines: Iterator[str], end: str, *, skip: int = 0) -> Sequence[str]:
    """Take the lines up to one that is `end`, after so many others of its kind, and leave that out."""
    found: list[str] = []
    for line in lines:
        if line == end and not skip:
            break
        skip -= line == end
        found.append(line)
    return found


def _table(path: Path) -> Iterator[str]:
    """Yield the cells of the first sheet of a workbook as Markdown, as a spreadsheet shows them."""
    sheet = load_workbook(path).worksheets[0]
    rows = [[_shown(cell.value) for cell in row] for row in sheet.iter_rows()]
    letters = [cell.column_letter for cell in next(sheet.iter_rows())]
    yield f"| | {' | '.join(letters)} |"
    yield f"|---|{'---|' * len(letters)}"
    for number, cells in enumerate(rows, start=1):
        yield f"| **{number}** | {' | '.join(cells)} |"


def _shown(value: object) -> str:
    if value is None:
        return ""
    strftime = getattr(value, "strftime", None)
    return strftime("%d-%m-%Y") if strftime else str(value)
