"""Make a page of docs/ again: run its commands, and put what they print where the page has it.

A comment ``<!-- example: NAME -->`` begins a section, whose commands run in a folder with the files of that example. A
comment ``<!-- sheet: FILE -->`` stands above the cells of a workbook. After a comment ``<!-- minutes pass -->``, the
answers that the journal has came some minutes ago. All else is written by hand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen
from openpyxl import load_workbook

from springest_async.sandbox import Sandbox
from tests.integration.command import let_minutes_pass

from . import machines, manifests, watching
from .example import Example
from .shell import Shell

__all__ = ["PAGES", "Page", "Section"]

_DOCS = Path(__file__).parents[3] / "docs"
_BEGINNING = re.compile(r"<!-- example: (\w+) -->")
_SHEET = re.compile(r"<!-- sheet: (.+) -->")


@frozen
class Section:
    """A part of a page.

    Attributes:
        name: of its example; an empty text for what stands before the first one.
        lines: its lines.
        example: its example; None before the first one.
    """

    name: str
    lines: Sequence[str]
    example: Example | None

    async def made_again(self, folder: Path, sandbox: Sandbox) -> Sequence[str]:
        """Return its lines with what the commands print now.

        Args:
            folder: an empty folder.
            sandbox: the server that the commands speak to.
        """
        if self.example is None:
            return self.lines
        self.example.make(folder)
        shell = Shell(folder, sandbox, self.example.variables)
        made: list[str] = []
        lines = iter(self.lines)
        for line in lines:
            made.append(line)
            if line == "```console":
                made += await shell.block(_until(lines, "```"))
                made.append("```")
            elif line == "<!-- minutes pass -->":
                let_minutes_pass()
            elif found := _SHEET.fullmatch(line):
                for _ in _until(lines, "", skip=1):
                    pass
                made += ["", *_table(folder / found[1]), ""]
        return made


@frozen
class Page:
    """A page.

    Attributes:
        path: its file.
        examples: those that it has, by name.
    """

    path: Path
    examples: Mapping[str, Example]

    def sections(self) -> Sequence[Section]:
        """Return the parts of the page, in order."""
        found: list[tuple[str, list[str]]] = [("", [])]
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if begins := _BEGINNING.fullmatch(line):
                found.append((begins[1], []))
            found[-1][1].append(line)
        return [Section(name, lines, self.examples[name] if name else None) for name, lines in found]


PAGES = (
    Page(_DOCS / "machines.md", machines.EXAMPLES),
    Page(_DOCS / "manifests.md", manifests.EXAMPLES),
    Page(_DOCS / "watching.md", watching.EXAMPLES),
)
"""The pages that have examples."""


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
