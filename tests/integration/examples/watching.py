"""The examples of docs/watching.md: a migration of some people, of whom one is unknown and one stays in doubt."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import attrs

from springest_async.sandbox import Sandbox, SandboxCertification
from springest_async.sandbox.certificates import Form
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


def _make_with_password(folder: Path) -> None:
    _make(folder)
    password = folder / "password.txt"
    password.touch(mode=0o600)
    password.write_text("correct horse battery staple\n")


def _stored(people: Sequence[str]) -> Sequence[Stored]:
    return [Stored(f"{person}.pdf", _certification(person), f"{person}@example.org", "2025-05-31") for person in people]


_STORED = _stored([person for person in _PEOPLE if person != _STRANGER])


def _sandbox(
    stranger: str = _STRANGER,
    kind: type[PickySandbox] = PickySandbox,
    silent: Collection[int] = (15,),
    **options: Any,
) -> Sandbox:
    """Make a Springest that does not know one person, and answers nothing of use about one certification."""
    options |= {"limit": 1000, "certifications": _CERTIFICATIONS}
    return kind(strangers=(f"{stranger}@example.org",), silent=silent, **options)


@attrs.define(kw_only=True, eq=False)
class _EditedSandbox(PickySandbox):
    """A Springest in which somebody has been at work: at Tom's dates, Eva's and Kim's certificates, and one more.

    Ids go by the order of the people, not by that of the POSTs.

    Attributes:
        edited: the people of whom something is changed when their first certificate is stored.
    """

    edited: Collection[str] = ("tom", "kim", "eva")
    _seen: set[str] = attrs.field(init=False, factory=set)

    def _store(self, form: Form) -> Any:
        outcome = super()._store(form)
        if outcome.certificate_id is None:
            return outcome
        person = form.fields["email"].partition("@")[0]
        number = 4711 + _PEOPLE.index(person)
        one = attrs.evolve(self._certificates.pop(), id=number)
        is_edited = person in self.edited and person not in self._seen
        self._seen.add(person)
        match person if is_edited else None:
            case "tom":
                self._certificates.append(attrs.evolve(one, valid_from=date(2025, 5, 13)))
            case "kim":  # it is deleted
                self._certificates.append(attrs.evolve(one, certification_id=15, email="nobody@example.org"))
            case "eva":  # entered by hand as well, and another one
                by_hand = attrs.evolve(one, id=4740), attrs.evolve(one, id=4741, email="sam@example.org")
                self._certificates += [one, *by_hand]
            case _:
                self._certificates.append(one)
        return attrs.evolve(outcome, certificate_id=number, body=outcome.body | {"id": number})


# With the key, a check would say beforehand which certifications are not verified.
_VARIABLES = {"SPRINGEST_CERTIFICATIONS_API_KEY": None}

EXAMPLES: Mapping[str, Example] = {
    "watch": Example(_make_with_password, _STORED, lambda: _sandbox(answers=1), 1, _VARIABLES),
    "pause": Example(_make, _STORED, lambda: _sandbox(answers=1), 1, _VARIABLES),
    "stop": Example(_make, _stored(_PEOPLE[1:]), lambda: _sandbox(_PEOPLE[0]), 1, _VARIABLES),
    "hooks": Example(_make, _STORED, _sandbox, 1, _VARIABLES),
    "reconcile": Example(_make, _STORED, lambda: _sandbox(kind=_EditedSandbox), 1, _VARIABLES),
    "repair": Example(
        _make,
        _stored([*_PEOPLE, "kim"]),
        lambda: _sandbox("nobody", silent=(), kind=_EditedSandbox, edited=("kim",)),
        variables=_VARIABLES,
    ),
}
