"""A list of people, for manifests that name a person by an id, an external id or a name instead of an e-mail address.

A spreadsheet takes the zeros off an id ("0012" becomes "12") and puts separators into it ("1,234"). Such an id is still
found, if it can be one person's only. Who cannot be told apart is never guessed.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice, product
from pathlib import Path
from typing import Self

from attrs import field, frozen

from springest_async.errors import ManifestError
from springest_async.manifest.columns import (
    EMAIL,
    FIRST_NAME,
    LAST_NAME,
    MIDDLE_NAME,
    NAME,
    USER_IDS,
    USER_NAMES,
    folded,
    listed,
    titles_in,
)
from springest_async.manifest.headers import HEADER_WITHIN, find_header
from springest_async.manifest.ids import Ids, comparable, is_rounded, number_of, says_nothing
from springest_async.manifest.table import Table, open_table
from springest_async.records import email_fault, shown

# In a list of people these titles have no other meaning.
_IDS = USER_IDS | titles_in(
    "id, code, number, identifier, nummer, Nummer, identifiant, numéro, external, extern, externe"
)
_NAMES = USER_NAMES | NAME

_MOST_SHOWN = 3  # people who can be meant


class NoUserError(ValueError):
    """The cell names nobody, or several people.

    Attributes:
        reason: what is wrong with it and what to do, for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@frozen
class Users:
    """The people of a list. Make it with `open`.

    Attributes:
        path: the file.
        email_title: the title of its column of e-mail addresses.
        titles: those of the columns by which people are found.
        unused: those of all others.
        sha256: of its bytes.
    """

    path: Path
    email_title: str
    titles: tuple[str, ...]
    unused: tuple[str, ...]
    sha256: bytes
    _emails: Sequence[str] = field(repr=False)
    _rows: Sequence[int] = field(repr=False)
    _ids: Ids = field(repr=False)  # each person's is the position in both

    @classmethod
    def open(cls, path: Path, *, sheet: str | None = None) -> Self:
        """Read a list of people: a CSV or a workbook with a column of e-mail addresses, and one of ids or names.

        Args:
            path: the file.
            sheet: the name of the sheet, if it is a workbook with several.

        Raises:
            ManifestError: when it cannot be read, or has no such columns.
        """
        table = open_table(path, sheet=sheet)
        if (header := find_header(table, _UserColumns.of)) is None:
            raise ManifestError(path, _no_header(table))
        table, number, columns = header
        if len(columns.emails) > 1:
            both = " and ".join(f"“{columns.titles[position]}”" for position in columns.emails)
            raise ManifestError(path, f"row {number}: {both} can each be the e-mail address: rename the others")
        emails: list[str] = []
        rows: list[int] = []
        by_email: dict[str, int] = {}  # whoever has the same address is one person
        ids = Ids()
        with closing(table.rows()) as all_rows:
            for row, cells in all_rows:
                if row <= number or not any(map(str.strip, cells)):
                    continue
                cells.extend([""] * (len(columns.titles) - len(cells)))
                email = cells[columns.emails[0]].strip()
                if says_nothing(address := comparable(email)):
                    email, address = "", f"row {row}"  # not the same person as another one without an address
                if (person := by_email.setdefault(address, len(emails))) == len(emails):
                    emails.append(email)
                    rows.append(row)
                    ids.add(comparable(email), person)
                for name in columns.names_in(cells):
                    ids.add(_key(name), person)
        found_by = tuple(columns.titles[position] for position in columns.used)
        title = columns.titles[columns.emails[0]]
        used = {*columns.used, columns.emails[0]}
        unused = tuple(title for position, title in enumerate(columns.titles) if title.strip() and position not in used)
        return cls(path, title, found_by, unused, table.sha256, emails, rows, ids)

    def __len__(self) -> int:
        return len(self._emails)

    def email_of(self, cell: str) -> str:
        """Return the e-mail address of a person.

        Args:
            cell: an id, an external id, a name such as "Jan Jansen" or "Jansen, Jan", or an address of the list.

        Raises:
            NoUserError: nobody or several people are called that, or the list has no valid address.
        """
        key = _key(cell)
        people = self._ids.find(key)
        if len(people) > 1:
            raise NoUserError(self._several(cell, sorted(people)))
        if not people:
            raise NoUserError(self._nobody(cell, key))
        person = people.pop()
        email = self._emails[person]
        if not email:
            raise NoUserError(f"{shown(cell)} has no e-mail address in row {self._rows[person]} of {self.path.name}")
        if (fault := email_fault(email)) is not None:
            raise NoUserError(f"row {self._rows[person]} of {self.path.name}: {fault}")
        return email

    def contradicts(self, cell: str, email: str) -> bool:
        """Return whether people are called this, and none of them has the address."""
        people = self._ids.find(_key(cell))
        return bool(people) and comparable(email) not in {comparable(self._emails[person]) for person in people}

    def _several(self, cell: str, people: Sequence[int]) -> str:
        some = [
            f"{self._emails[person] or 'without one'} in row {self._rows[person]}" for person in people[:_MOST_SHOWN]
        ]
        more = " and others" if len(people) > _MOST_SHOWN else ""
        return (
            f"{shown(cell)} can be several people of {self.path.name} ({', '.join(some)}{more}):"
            " write the e-mail address of the right one instead"
        )

    def _nobody(self, cell: str, key: str) -> str:
        if is_rounded(cell.strip()):
            return f"{shown(cell)} is a number that a spreadsheet has shortened: write the whole number, as text"
        near = ""
        if nearest := self._ids.nearest(key):
            near = f" (the nearest is {shown(nearest[0])}, in row {self._rows[nearest[1]]})"
        return f"{shown(cell)} is not in {self.path.name}{near}: correct it, or add this person there"


@frozen
class _UserColumns:
    """What the columns of a list of people are; positions in its titles."""

    titles: tuple[str, ...]
    emails: tuple[int, ...]
    whole: tuple[int, ...]  # ids and whole names
    first: tuple[int, ...]
    middle: tuple[int, ...]
    last: tuple[int, ...]

    @classmethod
    def of(cls, titles: Sequence[str]) -> Self | None:
        """Return what these titles mean; None if people cannot be found with them."""

        def positions(meant: frozenset[str]) -> tuple[int, ...]:
            return tuple(position for position, title in enumerate(titles) if folded(title) in meant)

        emails = tuple(position for position, title in enumerate(titles) if title.lower() == "email") or positions(
            EMAIL
        )
        first = positions(FIRST_NAME)
        last = (positions(LAST_NAME) or positions(NAME)) if first else ()
        whole = tuple(position for position in positions(_IDS | _NAMES) if position not in last)
        columns = cls(tuple(titles), emails, whole, first, positions(MIDDLE_NAME), last)
        return columns if emails and columns.used else None

    @property
    def used(self) -> tuple[int, ...]:
        """The columns by which people are found."""
        return tuple(sorted((*self.whole, *(self.first + self.middle + self.last if self.first and self.last else ()))))

    def names_in(self, cells: Sequence[str]) -> Iterator[str]:
        """Yield each id and name of a row's person."""
        yield from (cells[position] for position in self.whole)
        for first, last in product(self.first, self.last):
            if cells[first].strip() and cells[last].strip():
                yield " ".join(cells[position] for position in (first, *self.middle, last))


def _key(cell: str) -> str:
    """Return what is compared of an id or a name, with the first name in front."""
    key = comparable(cell)
    if "," in key and number_of(key) is None and not is_rounded(key):
        return " ".join(part.strip() for part in reversed(key.split(",")) if part.strip())
    return key


def _no_header(table: Table) -> str:
    """Return what the row lacks that comes nearest to the titles of a list of people."""
    with closing(table.rows()) as all_rows:
        rows = [(number, [cell.strip() for cell in cells]) for number, cells in islice(all_rows, HEADER_WITHIN)]
    if not rows:
        return "is empty: it must have a column of e-mail addresses, and one of ids or names"
    number, titles = max(
        rows, key=lambda row: (any(folded(title) in EMAIL for title in row[1]), sum(map(bool, row[1])))
    )
    lacks = "of ids or names (such as “ID”, “External ID” or “Name”)"
    if not any(folded(title) in EMAIL for title in titles):
        lacks = "of e-mail addresses (such as “Email”)"
    return f"row {number} lacks a column {lacks}; it has {listed(title for title in titles if title)}"
