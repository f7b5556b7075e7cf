"""Certifications by their id, name or code: those that Springest lists, and those of a file such as certifications.csv.

A name is compared as a whole, without its case. A code that has lost its zeros in a spreadsheet is still found, if it
can be one certification's only. What can be two certifications is never guessed.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Self

from attrs import evolve, field, frozen

from springest_async.errors import ManifestError
from springest_async.manifest.columns import folded, listed, titles_in
from springest_async.manifest.headers import HEADER_WITHIN, find_header
from springest_async.manifest.ids import Ids, comparable, number_of, says_nothing
from springest_async.manifest.table import Table, open_table
from springest_async.records import Certification, shown

_IDS = titles_in("id, certification id, certification_id, certificering id, Zertifizierungs-ID, id de certification")
_NAMES = titles_in(
    """
    name, title, certification, certification name, certification title, certificate, certificate name, course
    course name, badge template name, naam, titel, certificering, naam certificering, certificaat, naam certificaat
    opleiding, cursus, Zertifizierung, Name der Zertifizierung, Zertifikat, Kurs, nom, intitulé, nom de certification
    nom de la certification, certificat, formation
    """
)
_CODES = titles_in(
    """
    code, certification code, certificate definition, certificate definition code, badge template, badge template id
    course code, external id, external code, certificeringscode, opleidingscode, cursuscode, Zertifizierungscode
    Kurscode, code de certification, code formation
    """
)
_REQUIRES = titles_in(
    """
    requires valid until, valid until required, einddatum verplicht, geldig tot verplicht, gültig bis erforderlich
    Ablaufdatum erforderlich, fin de validité requise, date d'expiration requise
    """
)

_YES = frozenset("true yes y 1 x ja j waar wahr oui o vrai".split())  # noqa: SIM905 # eleven words read best as a line
_NO = frozenset("false no n 0 - nee nein onwaar falsch non faux".split()) | {""}  # noqa: SIM905

_LONGEST_ID = 18  # digits

_MOST_SHOWN = 3  # certifications that can be meant


class NoCertificationError(ValueError):
    """The cell means no certification, or several.

    Attributes:
        cause: what is wrong with it, for people.
        reason: the same, and what to do about it in a row.
    """

    def __init__(self, cause: str, way_out: str = "") -> None:
        self.cause = cause
        self.reason = f"{cause}: {way_out}" if way_out else cause
        super().__init__(self.reason)


@frozen
class Certifications:
    """Certifications by id, name and code. Make them with `of`, `open` or `unlisted`.

    Attributes:
        is_complete: whether Springest has listed them, so that there are no others.
        place: where they are listed, for messages.
        file: the name of the file that names and codes were read from, if there is one.
        is_unlisted: whether there is no list, and each name has a number below 0, which only serves to count.
    """

    is_complete: bool
    place: str
    _by_id: Mapping[int, Certification] = field(repr=False)
    _names: Collection[tuple[str, int]] = field(repr=False)  # names and codes, each with its id
    is_unlisted: bool = False
    file: str = ""

    # Without a list: the number of each name as it is compared, and what has that number.
    _numbers: dict[str, int] = field(init=False, repr=False, eq=False, factory=dict)
    _counted: dict[int, Certification] = field(init=False, repr=False, eq=False, factory=dict)
    _ids: Ids = field(init=False, repr=False, eq=False)

    @_ids.default
    def _ids_and_names(self) -> Ids:
        ids = Ids()
        for number in self._by_id:
            ids.add(str(number), number)
        for name, number in self._names:
            ids.add(comparable(name), number)
        return ids

    @classmethod
    def of(cls, listed: Iterable[Certification]) -> Self:
        """Return all certifications that Springest lists.

        Args:
            listed: as `Springest.certifications` yields them.
        """
        by_id = {certification.id: certification for certification in listed}
        return cls(True, "the list of Springest", by_id, [(known.name, known.id) for known in by_id.values()])

    @classmethod
    def unlisted(cls) -> Self:
        """Return certifications that are known by nothing but their names, so that their rows can be counted.

        The number of a name is no id of Springest, and no certificate can be uploaded with it.
        """
        return cls(False, "", {}, [], is_unlisted=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a table with the columns ID, Name, and if need be Code and Requires valid until.

        Several rows may have the same id: other names and codes of one certification.

        Args:
            path: the file, a CSV or a workbook.

        Raises:
            ManifestError: when it cannot be read, lacks a column, or has an id that is none.
        """
        table = open_table(path)
        if (header := find_header(table, _CertificationColumns.of)) is None:
            raise ManifestError(path, _no_header(table))
        table, number, columns = header
        by_id: dict[int, Certification] = {}
        names: list[tuple[str, int]] = []
        with closing(table.rows()) as rows:
            for row, cells in rows:
                if row <= number or not any(map(str.strip, cells)):
                    continue
                try:
                    certification, keys = columns.certification(cells)
                except ValueError as error:
                    raise ManifestError(path, f"row {row}: {error}") from None
                earlier = by_id.setdefault(certification.id, certification)
                if certification.requires_valid_until and not earlier.requires_valid_until:
                    by_id[certification.id] = certification
                names += ((key, certification.id) for key in keys)
        return cls(False, path.name, by_id, names, file=path.name)

    def with_listed(self, listed: Iterable[Certification]) -> Self:
        """Return the certifications that Springest lists, with the names and codes of these too.

        Args:
            listed: as `Springest.certifications` yields them.
        """
        all_of_them = type(self).of(listed)
        names = [*self._names, *((known.name, known.id) for known in all_of_them)]
        return evolve(all_of_them, place=f"{self.place} or {all_of_them.place}", names=names, file=self.file)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Certification]:
        return iter(self._by_id.values())

    def get(self, certification_id: int) -> Certification | None:
        """Return the certification with this id; None if it is not listed."""
        return self._by_id.get(certification_id) or self._counted.get(certification_id)

    def id_of(self, cell: str) -> int:
        """Return the id of a certification.

        Args:
            cell: its name, code or id.

        Raises:
            NoCertificationError: none or several are called that.
        """
        key = comparable(cell)
        if self.is_unlisted and not says_nothing(key):
            return self._count(cell, key)
        ids = self._ids.find(key)
        if len(ids) == 1:
            return ids.pop()
        if ids:
            raise self._several(cell, sorted(ids))
        raise self._none(cell, key)

    def contradicts(self, cell: str, certification_id: int) -> bool:
        """Return whether certifications are called this, and the one with the id is none of them."""
        found = set() if self.is_unlisted else self._ids.find(comparable(cell))
        return bool(found) and certification_id not in found

    def _count(self, cell: str, key: str) -> int:
        if (digits := number_of(key)) is not None and len(digits) <= _LONGEST_ID:
            return int(digits)
        if (number := self._numbers.get(key)) is None:
            number = self._numbers[key] = -1 - len(self._numbers)
            self._counted[number] = Certification(id=number, name=cell.strip())
        return number

    @property
    def digest(self) -> bytes:
        """A SHA-256 of all that decides what `id_of` returns."""
        names = {(comparable(name), number) for name, number in self._names}
        lines = [repr(sorted(self._by_id)), *(f"{number} {name}" for name, number in sorted(names))]
        return hashlib.sha256("\n".join(lines).encode()).digest()

    def _several(self, cell: str, ids: Sequence[int]) -> NoCertificationError:
        some = ", ".join(self._shown(number) for number in ids[:_MOST_SHOWN])
        more = " and others" if len(ids) > _MOST_SHOWN else ""
        return NoCertificationError(
            f"{shown(cell)} can be several certifications ({some}{more})",
            "put the id of the right one into a column certification_id",
        )

    def _shown(self, number: int) -> str:
        certification = self._by_id.get(number)
        return f"{number}, “{certification.name}”" if certification else str(number)

    def _none(self, cell: str, key: str) -> NoCertificationError:
        if self.is_complete and number_of(key):
            return NoCertificationError(
                f"{shown(cell)} does not exist: springest certifications lists the {len(self)} that do"
            )
        near = ""
        if nearest := self._ids.nearest(key):
            written, number = self._as_written(*nearest), nearest[1]
            near = f" (the nearest is “{written}”, with the id {number})"
        return NoCertificationError(
            f"{shown(cell)} is no certification in {self.place}{near}",
            "correct it, or put the id into a column certification_id; if all rows are of one certification, name it"
            " with --certification",
        )

    def _as_written(self, key: str, number: int) -> str:
        """Return how a name is written that was compared as `key`."""
        return next((name for name, meant in self._names if meant == number and comparable(name) == key), key)


@frozen
class _CertificationColumns:
    """What the columns of a list of certifications are; positions in its titles."""

    titles: tuple[str, ...]
    id: int
    names: tuple[int, ...]
    codes: tuple[int, ...]
    requires: tuple[int, ...]

    @classmethod
    def of(cls, titles: Sequence[str]) -> Self | None:
        """Return what these titles mean; None if they are not those of a list of certifications."""

        def positions(meant: Collection[str]) -> tuple[int, ...]:
            return tuple(position for position, title in enumerate(titles) if folded(title) in meant)

        ids, names, codes = positions(_IDS), positions(_NAMES), positions(_CODES)
        columns = cls(tuple(titles), ids[0], names, codes, positions(_REQUIRES)) if len(ids) == 1 else None
        return columns if names or codes else None

    def certification(self, cells: Sequence[str]) -> tuple[Certification, Iterator[str]]:
        """Return the certification of a row, and its names and codes.

        Raises:
            ValueError: a cell is wrong; its text says how, for people.
        """
        cells = [*map(str.strip, cells), *[""] * (len(self.titles) - len(cells))]
        digits = number_of(cells[self.id])
        if digits is None or digits == "0" or len(digits) > _LONGEST_ID:
            raise ValueError(f"{self.titles[self.id]} must be a whole number such as 7, not {shown(cells[self.id])}")
        texts = [cells[position] for position in (*self.names, *self.codes)]
        required = False
        for position in self.requires:
            if (key := comparable(cells[position])) not in _YES | _NO:
                raise ValueError(f"{self.titles[position]} must be yes or no, not {shown(cells[position])}")
            required = required or key in _YES
        name = next(filter(None, texts), digits)
        return Certification(id=int(digits), name=name, requires_valid_until=required), filter(None, texts)


def _no_header(table: Table) -> str:
    """Return what the row lacks that comes nearest to the titles of a list of certifications."""
    with closing(table.rows()) as all_rows:
        rows = [(number, [cell.strip() for cell in cells]) for number, cells in islice(all_rows, HEADER_WITHIN)]
    if not rows:
        return "is empty: it must have the columns ID and Name"
    number, titles = max(rows, key=lambda row: (any(folded(title) in _IDS for title in row[1]), sum(map(bool, row[1]))))
    has = f"it has {listed(title for title in titles if title)}"
    ids = [title for title in titles if folded(title) in _IDS]
    if len(ids) > 1:
        return f"row {number}: {' and '.join(f'“{title}”' for title in ids)} can each be the id: rename the others"
    return f"row {number} lacks a column {'“Name” or “Code”' if ids else '“ID”'}; {has}"
