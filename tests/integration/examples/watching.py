"""The examples of docs/watching.md: a migration of some people, of whom one is unknown and one stays in doubt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from springest_async.sandbox import Sandbox, SandboxCertification
from tests.integration.picky_sandbox import PickySandbox

from .example import Example, Stored, write_pdfs, write_text

_PEOPLE = ("jan", "zoe", "an", "piet", "fatima", "ruud", "ines", "tom", "eva", "bas", "mia", "kim")
_CERTIFICATIONS = (
    SandboxCertification(id=7, name="First aid"),
    SandboxCertification(id=15, name="Working at height", verified=False),
)
_STRANGER, _IN_DOUBT = "piet", "ruud"


def _certification(person: str) -> int:
    return 15 if person == _IN_DOUBT else 7


def _make(folder: Path) -> None:
    write_pdfs(folder, *(f"{person}.pdf" for person in _PEOPLE))
    rows = (f"{person}.pdf,{_certification(person)},{person}@example.org,2025-05-31" for person in _PEOPLE)
    write_text(folder / "certificates.csv", "\n".join(("file,certification_id,email,valid_from", *rows, "")))


def _stored(people: Sequence[str]) -> Sequence[Stored]:
    return [Stored(f"{person}.pdf", _certification(person), f"{person}@example.org", "2025-05-31") for person in people]


_STORED = _stored([person for person in _PEOPLE if person != _STRANGER])


def _sandbox(stranger: str = _STRANGER, **options: Any) -> Sandbox:
    """Make a Springest that does not know one person, and answers nothing of use about one certification."""
    options |= {"limit": 1000, "certifications": _CERTIFICATIONS}
    return PickySandbox(strangers=(f"{stranger}@example.org",), silent=(15,), **options)


# With the key, a check would say beforehand which certifications are not verified.
_VARIABLES = {"SPRINGEST_CERTIFICATIONS_API_KEY": None}

EXAMPLES: Mapping[str, Example] = {
    "watch": Example(_make, _STORED, lambda: _sandbox(answers=1), 1, _VARIABLES),
    "pause": Example(_make, _STORED, lambda: _sandbox(answers=1), 1, _VARIABLES),
    "stop": Example(_make, (), lambda: _sandbox(_PEOPLE[0]), 1, _VARIABLES),
    "hooks": Example(_make, _STORED, _sandbox, 1, _VARIABLES),
}
