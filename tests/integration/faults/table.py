"""The catalogue's faults and what came of them, as the tables of docs/faults.md: made from a run, never by hand."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from .catalogue import Fault, Outcome

__all__ = ["DOCUMENT", "begun", "documented", "row", "written"]

DOCUMENT = Path(__file__).parents[3] / "docs" / "faults.md"

_BEGINNING = "<!-- What follows is written by `python -m tests.integration.faults`. -->\n"
_HEAD = "| what goes wrong | the certificate | tries | error | what you read |\n|---|---|---|---|---|\n"


def row(fault: Fault, outcome: Outcome) -> str:
    """Return a fault's line of a table."""
    cells = (fault.name, outcome.certificate, str(outcome.tries), _as_code(outcome.error), _as_code(outcome.told))
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def _as_code(text: str) -> str:
    """Make Markdown show a text as it is, whatever stars, tags or entities are in it."""
    return f"`` {text} ``" if "`" in text else text and f"`{text}`"


def written(groups: Mapping[str, Iterable[tuple[Fault, Outcome]]]) -> str:
    """Return the part of the document that is made from a run."""
    tables = (
        f"\n## {name}\n\n{_HEAD}" + "".join(f"{row(fault, outcome)}\n" for fault, outcome in measured)
        for name, measured in groups.items()
    )
    return _BEGINNING + "".join(tables)


def begun() -> str:
    """Return the part of the document that is written by people."""
    return DOCUMENT.read_text(encoding="utf-8").partition(_BEGINNING)[0]


def documented() -> str:
    """Return the part that is made from a run, as it stands in the document."""
    _, beginning, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGINNING)
    return beginning + rest
