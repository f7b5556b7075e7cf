"""What the names of files say, where they follow a pattern such as ``{certification_id}_{email}_{valid_from}.pdf``.

A name may fit a pattern in several ways. A part that is the same in all of them is known; another one is not, and is
never guessed. Nothing is opened here.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from typing import Self

from attrs import frozen

from springest_async.manifest.columns import Columns
from springest_async.manifest.dates import DateOrder, NoDateError, is_ambiguous, read_date
from springest_async.records import email_fault, shown

_NUMBER = re.compile(r"[0-9]{1,18}")
_MAYBE_EMAIL = re.compile(r"[^@\s/]+@[^@\s/_]+\.[^@\s/_.]{2,}")  # no host has an underscore
_YEAR_FIRST = re.compile(r"(?P<year>[0-9]{4})([-_. ])(?P<month>[0-9]{1,2})\2(?P<day>[0-9]{1,2})")
_YEAR_LAST = re.compile(r"(?P<first>[0-9]{1,2})([-_ ])(?P<second>[0-9]{1,2})\2(?P<year>[0-9]{4})")
# Of eight digits, only one of both can be meant: no month is 19 or 20.
_DIGITS_YEAR_FIRST = re.compile(r"(?P<year>(?:19|20)[0-9]{2})(?P<month>0[1-9]|1[0-2])(?P<day>[0-9]{2})")
_DIGITS_YEAR_LAST = re.compile(r"(?P<first>[0-9]{2})(?P<second>[0-9]{2})(?P<year>(?:19|20)[0-9]{2})")

_KINDS = {
    "certification_id": "number",
    "conversion_id": "number",
    "user_id": "number",
    "email": "email",
    "valid_from": "date",
    "valid_until": "date",
    "user": "text",
    "certification": "text",
}
_MEANT = {"number": "number", "email": "email address", "date": "date", "text": "text"}

KNOWN = tuple(_KINDS)
"""The placeholders that have a meaning; any other one stands for some text that is not sent."""


class PatternError(ValueError):
    """The pattern is none; its text says why, for people."""


class NoFitError(ValueError):
    """A name does not fit the pattern; its text says where, for people."""


@frozen
class NameParts:
    """What a name says.

    Attributes:
        values: by the placeholder: text as it stands in the name, dates as 2026-12-31 or, where it is not certain
            whether the day or the month comes first, as 05/06/2026.
        unclear: the placeholders that may stand for several texts, with two of these.
    """

    values: Mapping[str, str]
    unclear: Mapping[str, tuple[str, str]]


@frozen
class NamePattern:
    """A pattern of file names. Make it with `of`.

    Attributes:
        text: as it was given, with ``.pdf`` at its end.
        placeholders: their names, in order.
    """

    text: str
    placeholders: tuple[str, ...]
    _parts: tuple["_Literal | _Placeholder", ...]

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a pattern: placeholders in braces, and all other text as it stands in the names, in any case.

        A pattern with slashes is for the last folders of a path too. ``.pdf`` at the end may be left out.

        Raises:
            PatternError: it has no placeholder, one twice, ``{file}``, or braces that are no placeholder.
        """
        text = unicodedata.normalize("NFC", text.strip().replace("\\", "/"))
        if not text.lower().endswith(".pdf"):
            text += ".pdf"
        parts: list[_Literal | _Placeholder] = []
        for number, piece in enumerate(re.split(r"\{([^{}]*)\}", text)):
            if number % 2:
                parts.append(_placeholder(piece))
            elif "{" in piece or "}" in piece:
                raise PatternError(f"{shown(piece)} has a brace without its partner: write placeholders as {{email}}")
            elif piece:
                parts.append(_Literal(piece, re.compile(re.escape(piece), re.IGNORECASE)))
        names = tuple(part.name for part in parts if isinstance(part, _Placeholder))
        if not names:
            raise PatternError(f"it has no placeholder: write some, such as {_listed(KNOWN)}")
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise PatternError(f"it has {{{twice[0]}}} twice")
        return cls(text, names, tuple(parts))

    def read(self, path: str) -> NameParts:
        """Return what a name says.

        Args:
            path: of the file, relative to the folder of the archive, with slashes.

        Raises:
            NoFitError: the name does not fit.
        """
        text = unicodedata.normalize("NFC", path)
        text = "/".join(text.split("/")[-self.text.count("/") - 1 :])
        spans = self._spans(text)
        values: dict[str, str] = {}
        unclear: dict[str, tuple[str, str]] = {}
        for part, found in zip(self._parts, spans, strict=True):
            if isinstance(part, _Placeholder):
                first, *others = dict.fromkeys(part.value(text[start:end]) for start, end in found)
                if others:
                    unclear[part.name] = (first or "", others[0] or "")
                else:
                    values[part.name] = first or ""
        return NameParts(values, unclear)

    def _spans(self, text: str) -> Sequence[Sequence[tuple[int, int]]]:
        """Return where each part may stand in a name, in any way in which the whole name fits."""
        starts: Iterable[int] = (0,)
        spans: list[list[tuple[int, int]]] = []
        for part, following in pairwise((*self._parts, None)):
            assert part is not None
            found = [(start, end) for start in starts for end in part.ends(text, start, following)]
            if not found:
                raise NoFitError(part.expected)
            starts = sorted({end for _, end in found})
            spans.append(found)
        ends = {len(text)}
        for number in reversed(range(len(spans))):
            spans[number] = [span for span in spans[number] if span[1] in ends]
            ends = {start for start, _ in spans[number]}
        return spans


@frozen
class _Literal:
    text: str
    _regex: re.Pattern[str]

    @property
    def expected(self) -> str:
        return f"{shown(self.text)} is not where it should be"

    def ends(self, text: str, start: int, following: "_Literal | _Placeholder | None") -> Iterator[int]:
        found = self._regex.match(text, start)
        if found and (following is not None or found.end() == len(text)):
            yield found.end()

    def places(self, text: str, start: int) -> Iterator[int]:
        """Yield where it stands, from `start` on."""
        while found := self._regex.search(text, start):
            yield found.start()
            start = found.start() + 1


@frozen
class _Placeholder:
    name: str
    kind: str

    @property
    def expected(self) -> str:
        return f"there is no {_MEANT[self.kind]} where {{{self.name}}} should be"

    def ends(self, text: str, start: int, following: "_Literal | _Placeholder | None") -> Iterator[int]:
        within = text.find("/", start)
        limit = len(text) if within < 0 else within
        if following is None:
            places: Iterable[int] = (len(text),)
        elif isinstance(following, _Literal):
            places = following.places(text, start + 1)
        else:
            places = range(start + 1, limit + 1)
        for end in places:
            if end > limit:
                return
            if self.value(text[start:end]) is not None:
                yield end

    def value(self, text: str) -> str | None:
        """Return what the manifest should have of a text, or None if it cannot be meant."""
        text = text.strip()
        match self.kind:
            case "number":
                return text if _NUMBER.fullmatch(text) and int(text) else None
            case "email":
                return text if _MAYBE_EMAIL.fullmatch(text) and email_fault(text) is None else None
            case "date":
                return _date(text)
        return text or None


def _placeholder(written: str) -> _Placeholder:
    name = unicodedata.normalize("NFC", written.strip().lower())
    if name not in _KINDS:
        name = Columns.of((name,)).names[0]  # a known column under another name, as a manifest may have it
    if not written.strip() or name == "file":
        known = _listed(KNOWN)
        raise PatternError(
            f"{{{written}}} is no placeholder: the known ones are {known}; any other name is passed over"
        )
    if name not in _KINDS and (near := difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.8)):
        raise PatternError(f"{{{written}}} is not known: write {{{near[0]}}}")
    return _Placeholder(name, _KINDS.get(name, "text"))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


@lru_cache(maxsize=4096)  # a hundred thousand names have a few thousand dates
def _date(text: str) -> str | None:
    """Return a date as in `NameParts.values`; None if the text is none, whether its day or its month comes first."""
    written = _with_slashes(text)
    orders: tuple[DateOrder, ...] = ("dmy", "mdy")
    for order in orders:
        with suppress(NoDateError):
            day = read_date(written, order)
            return written if is_ambiguous(written) else day.isoformat()
    return None


def _with_slashes(text: str) -> str:
    """Return a date with the signs that a manifest would have.

    The name of a file cannot have slashes, so other signs stand for them: 05-06-2026 may be in May or in June.
    """
    if found := _YEAR_FIRST.fullmatch(text) or _DIGITS_YEAR_FIRST.fullmatch(text):
        return "-".join(found.group("year", "month", "day"))
    if found := _YEAR_LAST.fullmatch(text) or _DIGITS_YEAR_LAST.fullmatch(text):
        return "/".join(found.group("first", "second", "year"))
    return text.replace("_", " ")
