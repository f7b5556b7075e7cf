"""The spreadsheet beside an archive, whose rows become certificates to upload.

What a file is made of is known to `table`, which column is which to `columns`, how a date may be written to `dates`,
who and what is meant by a name to `users` and `certifications`; here they become rows of certificates. Whether the
files exist and are PDFs is checked in `preflight`.
"""

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import date
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Self

from attrs import evolve, frozen

from springest_async.errors import ConfigurationError, Fault, InvalidUpload, ManifestError
from springest_async.manifest.certifications import Certifications, NoCertificationError
from springest_async.manifest.columns import ERROR, Columns
from springest_async.manifest.csv_table import CsvTable
from springest_async.manifest.dates import (
    MUST_BE_A_DATE,
    DateOrder,
    NoDateError,
    begins_with_month,
    is_after_day_12,
    is_ambiguous,
    is_never,
    may_be_made_of_another,
    may_be_swapped,
    proves,
    read_date,
    stayed_text,
)
from springest_async.manifest.file_names import FileNames
from springest_async.manifest.formulas import unescape
from springest_async.manifest.ids import MERGED, comparable, is_error, is_rounded, number_of, says_nothing
from springest_async.manifest.manifest_header import find_header
from springest_async.manifest.reading import Reading
from springest_async.manifest.shown_order import ShownOrder
from springest_async.manifest.table import Table, open_table
from springest_async.manifest.users import NoUserError
from springest_async.records import CertificateUpload, Certification, email_fault, shown
from springest_async.source_file import check_folder, exists, why_unreadable

_APOSTROPHE = "begins with an apostrophe that springest added: put the column “error” back, or remove the apostrophe"

MISSING = "is missing"
"""The reason of the fault of an empty cell."""

NO_LIST = (
    "there is no list of certifications to look it up: set SPRINGEST_CERTIFICATIONS_API_KEY, or put a"
    " certifications.csv with the columns ID and Name beside the manifest"
)
"""The reason of a fault of a certification that is named, where no list has its id."""

_ID = "must be a whole number such as 7"
_WHOLE = re.compile(r"([0-9]{1,18})[.,]0", re.ASCII)
_OF_A_FORMULA = "is the error of a formula ({}): correct the formula, or write the value itself"
_MERGED = "is merged with the cell above: split the two, and write the value into each"
_NO_END = " (leave it empty if there is no end)"
_DATES = ("valid_from", "valid_until")
_CERTIFICATIONS = ("certification_id", "certification")
_OPTIONAL = ("valid_until", "conversion_id")
_FIRST: Mapping[DateOrder, str] = {"dmy": "day", "mdy": "month"}
_ROWS_OF_PROOF = 100  # that are looked at for dates that can be read in two ways


@frozen
class Row:
    """A row of a manifest: its `number` as in the spreadsheet (mostly the header is row 1), and its cells by column."""

    number: int
    cells: Mapping[str, str]


@frozen
class Fields:
    """The values of a row: `file` and `email` without spaces around them, and ids that were found by name."""

    file: str
    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: int | None


@frozen
class Manifest:
    """A manifest with a valid header. Make it with `open`; iterate over it for its rows.

    Attributes:
        table: the file and how it is written.
        header_row: the number of the row with the names of the columns.
        layout: which column is which.
        reading: how it is read.
    """

    table: Table
    header_row: int
    layout: Columns
    reading: Reading

    @property
    def path(self) -> Path:
        """The file."""
        return self.table.path

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: of ours, or as the file has them, in lower case."""
        return self.layout.names

    @property
    def unused(self) -> tuple[str, ...]:
        """The titles of the unknown columns, without those that are not needed beside one certification of all rows."""
        overruled = {title for name in _CERTIFICATIONS for title in self.layout.meaning(name)}
        return tuple(title for title in self.layout.unused if not (self.reading.certification and title in overruled))

    @property
    def mistyped(self) -> tuple[str, ...]:
        """Those of the `unused` that may mean a column which the manifest does not seem to have."""
        missing = [name for name in _OPTIONAL if name not in self.layout and name not in self.reading.columns]
        may_mean = {title for name in missing for title in self.layout.nearly(name)}
        return tuple(title for title in self.unused if title in may_mean)

    @property
    def sha256(self) -> bytes:
        """A digest of its bytes.

        Raises:
            ManifestError: when it cannot be read, or has changed since `open`.
        """
        return self.table.sha256

    @property
    def reading_digest(self) -> bytes:
        """A digest of all that decides what the bytes mean; empty where nothing was said about it."""
        reading = self.reading
        said = {
            "dates": reading.dates,
            "sheet": reading.sheet,
            "columns": sorted(reading.columns.items()),
            "users": reading.users and reading.users.sha256.hex(),
            "certification": reading.certification,
            "certifications": self.names_certifications
            and reading.certifications
            and reading.certifications.digest.hex(),
        }
        said = {name: value for name, value in said.items() if value}
        return hashlib.sha256(json.dumps(said).encode()).digest() if said else b""

    @property
    def names_certifications(self) -> bool:
        """Whether it depends on a list of certifications which ones are meant."""
        named = self.reading.certification
        if named:
            return not named.isdigit()
        return "certification" in self.layout or self._has_names_as_ids

    @property
    def files(self) -> Path:
        """What the names of its files are relative to."""
        return self.path.parent if self.reading.files is None else self.reading.files

    @cached_property
    def names(self) -> FileNames | None:
        """What finds files whose names are written otherwise, if that is asked for."""
        return FileNames(self.files) if self.reading.fix_names else None

    def path_of(self, file: str) -> Path:
        """Return where the file of a row is; `file` is what the row says."""
        path = self.files / file
        if self.names is None or exists(path) or (meant := self.names.meant(file)) is None:
            return path
        return self.files / meant

    @classmethod
    def open(cls, path: Path, reading: Reading | None = None) -> Self:
        """Read the header.

        Args:
            path: the file.
            reading: how to read it, as far as somebody says so.

        Raises:
            ManifestError: when it is not a readable table, a column is missing or occurs twice, or its files should be
                in what is neither a folder nor a readable archive. It may be gone, as files may that are stored.
        """
        reading = reading or Reading()
        if reading.files is not None:
            try:
                check_folder(reading.files)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ManifestError(reading.files, why_unreadable(error)) from None
        header = find_header(open_table(path, sheet=reading.sheet), reading)
        if "email" not in header.columns and reading.users is None:
            title = header.columns.title("user")
            reason = (
                f"row {header.row} has “{title}” and no email addresses: name the list of the users with --users FILE,"
                ' or the column of the addresses as in --map email="E-mail"'
            )
            raise ManifestError(path, reason)
        return cls(header.table, header.row, header.columns, reading)

    def with_listed(self, certifications: Iterable[Certification]) -> Self:
        """Return the same manifest for when Springest has listed its certifications.

        Args:
            certifications: as `Springest.certifications` yields them.
        """
        known = self.reading.certifications
        listed = Certifications.of(certifications) if known is None else known.with_listed(certifications)
        return evolve(self, reading=evolve(self.reading, certifications=listed))

    def with_unlisted(self) -> Self:
        """Return the same manifest for a check without a list of certifications: rows that name one are counted.

        Where there is a list, such as a certifications.csv beside the manifest, nothing changes.
        """
        if self.reading.certifications is not None:
            return self
        return evolve(self, reading=evolve(self.reading, certifications=Certifications.unlisted()))

    def __iter__(self) -> Generator[Row, None, None]:
        """Yield the rows, without empty ones. Close the generator, and so the file, if you stop early.

        Raises:
            ManifestError: when a row cannot be read, or the file has changed since `open`.
        """
        # By `failed_rows`; elsewhere an apostrophe belongs to the cell.
        escaped = ERROR in self.columns and isinstance(self.table, CsvTable)
        names = (*self.columns, "")  # cells beyond the header have no column; they are kept under an empty name
        width = len(self.columns)
        with closing(self.table.rows()) as rows:
            for number, cells in rows:
                if number <= self.header_row or not any(map(str.strip, cells)):
                    continue
                if escaped:
                    cells[:] = map(unescape, cells)
                if len(cells) > width:
                    cells[width:] = ["".join(cells[width:])]
                else:
                    cells.extend([""] * (len(names) - len(cells)))
                yield Row(number, dict(zip(names, cells, strict=True)))

    def upload(self, row: Row) -> CertificateUpload:
        """Return the certificate of a row.

        Raises:
            InvalidUpload: with all faults of the row; `Fault.field` is the column.
        """
        fields = self.checked_fields(row)
        return CertificateUpload(
            file=self.path_of(fields.file),
            certification_id=fields.certification_id,
            email=fields.email,
            valid_from=fields.valid_from,
            valid_until=fields.valid_until,
            conversion_id=fields.conversion_id,
        )

    def checked_fields(self, row: Row) -> Fields:
        """Return the values of a row.

        Raises:
            InvalidUpload: as `upload`.
        """
        if (fields := self._fields(row)) is not None and self._email_fault(fields.email) is None:
            return fields
        raise InvalidUpload(tuple(self._faults(row)))

    def fields(self, row: Row) -> Fields:
        """Return the values of a row, faster than `checked_fields`: the email address is not checked.

        Raises:
            InvalidUpload: as `upload`, except for faults of the email address.
        """
        if (fields := self._fields(row)) is None:
            raise InvalidUpload(tuple(self._faults(row)))
        return fields

    def file(self, row: Row) -> str:
        """Return the name of the file of a row, without spaces around it; empty if there is none."""
        if (pattern := self.layout.patterns.get("file")) is not None:
            return pattern.fill(row.cells).strip()
        cell = row.cells["file"].strip()
        # A spreadsheet that has lost the column "error" keeps the apostrophes that came with it.
        if (
            cell.startswith("'")
            and (bare := unescape(cell)) != cell
            and not self._is_there(cell)
            and self._is_there(bare)
        ):
            return bare
        return cell

    def _is_there(self, file: str) -> bool:
        return exists(self.files / file)

    @property
    def understood(self) -> tuple[str, ...]:
        """How it is read, in sentences for people: the form of the file, the columns, the order of day and month."""
        titles = [
            f"{name} is {f'“{title}”' if name in self.layout.names else title}"
            for name, title in self.layout.understood
            if title.lower() != name and not (self.reading.certification and name in _CERTIFICATIONS)
        ]
        columns = f"; {', '.join(titles)}" if titles else ""
        dates = [
            f"{self.layout.title(name)}: the {_FIRST[order]} comes first in dates with slashes, as {proof} shows"
            for name, (order, proof) in self._proved.items()
        ]
        return (f"{self.table.form}{columns}", *self._told_of_lists(), *self._told_of_certifications(), *dates)

    def _told_of_lists(self) -> Iterator[str]:
        """Yield which lists of people and certifications are used, and how."""
        if (users := self.reading.users) is not None:
            by, unused = (", ".join(f"“{title}”" for title in titles) for titles in (users.titles, users.unused))
            people = f"{users.path.name}: {len(users)} {'person' if len(users) == 1 else 'people'}, found by {by}"
            yield f"{people}; the address is “{users.email_title}”{f'; not used: {unused}' if unused else ''}"
        if (certifications := self.reading.certifications) is not None and certifications.file:
            yield f"{certifications.file}, beside the manifest, says which certifications are meant by names and codes"

    def _told_of_certifications(self) -> Iterator[str]:
        """Yield which certification is that of all rows, and which columns of certifications are so left alone."""
        if not self.reading.certification:
            return
        with suppress(NoCertificationError):  # `check_manifest` raises it
            number, known = self._certification_of_all, self.reading.certifications
            found = None if known is None else known.get(number)
            which = f"{number}, “{found.name}”," if found else str(number)
            if found and number < 0:  # without a list
                which = f"“{found.name}”"
            unused = [f"“{title}”" for column in _CERTIFICATIONS for title in self.layout.meaning(column)]
            columns, are = ("columns", "are") if len(unused) > 1 else ("column", "is")
            more = f"; the {columns} {' and '.join(unused)} {are} not used" if unused else ""
            yield f"certification is {which} for all rows{more}"

    @property
    def _proved(self) -> Mapping[str, tuple[DateOrder, str]]:
        """The order of day and month that a column shows, where its first rows have dates that depend on it."""
        if self.reading.dates is not None:
            return {}
        depends: set[str] = set()
        with closing(iter(self)) as rows, suppress(ManifestError):  # of which the rows themselves are told
            for row in islice(rows, _ROWS_OF_PROOF):
                depends.update(name for name in _DATES if is_ambiguous(self.cell(row, name).strip()))
        proved = {name: self._shown[name] for name in _DATES if name in depends}
        return {name: (shown.order, shown.proof) for name, shown in proved.items() if shown.order is not None}

    def date_of(self, row: Row, column: str) -> date | None:
        """Return a date of a row, or None if there is none.

        Raises:
            NoDateError: the cell is no date, or can be read in two ways.
        """
        return self._date(column, self.cell(row, column))

    def certification_id(self, row: Row) -> int | None:
        """Return the id of the certification of a row, if it names one, also if the row has other faults."""
        with suppress(NoCertificationError):
            if isinstance(found := self._certification_id(row), int):
                return found
        return None

    def _fields(self, row: Row) -> Fields | None:
        """Return the values of a row, or None when `_faults` has something to say."""
        file, conversion_id = self.file(row), _number(row.cells.get("conversion_id", ""))
        try:
            certification_id, email = self._certification_id(row), self._email(row)
            valid_from, valid_until = (self._date(name, self.cell(row, name)) for name in _DATES)
        except (NoDateError, NoUserError, NoCertificationError):
            return None
        if (
            row.cells[""]
            or not (file and email and certification_id and valid_from)
            or isinstance(certification_id, str)
            or isinstance(conversion_id, str)
        ):
            return None
        return Fields(file, certification_id, email, valid_from, valid_until, conversion_id)

    def cell(self, row: Row, name: str) -> str:
        """Return the text of a column of ours, which may be made of other cells; empty if there is no such column."""
        if self.layout.patterns and (pattern := self.layout.patterns.get(name)) is not None:
            return pattern.fill(row.cells)
        return row.cells.get(name, "")

    def check_certification(self) -> None:
        """Check the certification of all rows, if one is named.

        Raises:
            ConfigurationError: it is none that is known.
        """
        if not self.reading.certification:
            return
        try:
            number = self._certification_of_all
        except NoCertificationError as error:
            way_out = error.reason if error.reason == error.cause else f"{error.cause}: write its exact name, or its id"
            raise ConfigurationError(f"--certification {self.reading.certification}: {way_out}") from None
        known = self.reading.certifications
        if known is not None and known.is_complete and known.get(number) is None:
            reason = f"springest certifications lists no certification with the id {number}"
            raise ConfigurationError(f"--certification {self.reading.certification}: {reason}")

    def unlisted_name(self, row: Row) -> str:
        """Return the name of the certification of a row, if there is no list to look it up; else an empty text."""
        cell = self.cell(row, "certification").strip()
        if self.reading.certifications is not None or self.reading.certification:
            return ""
        return "" if self.cell(row, "certification_id").strip() or not _is_name(cell) else cell

    def _certification_id(self, row: Row) -> int | str | None:
        """Return the id of a certification; a text that is none, or None for an empty cell.

        Raises:
            NoCertificationError: no certification, or several, have this name or code, or the one with the id of the
                row has another name.
        """
        if self.reading.certification:
            return self._certification_of_all
        known = self.reading.certifications
        if cell := self.cell(row, "certification_id").strip():
            if known is not None and _is_name(cell) and self._has_names_as_ids:
                found: int | str | None = known.id_of(cell)
            else:
                found = _number(cell)
            if known is not None and isinstance(found, int):
                self._compare_name(row, found, known)
            return found
        if not (cell := self.cell(row, "certification").strip()):
            return None
        if known is not None:
            return known.id_of(cell)
        if isinstance(number := _number(cell), str):
            raise NoCertificationError(f"{shown(cell)} is not an id, and {NO_LIST}")
        return number

    def _compare_name(self, row: Row, certification_id: int, known: Certifications) -> None:
        """Compare the id of a row with the name beside it, which may be what somebody has read and corrected.

        A name that no certification has may be that of a course, and numbers beside the id may be anything.

        Raises:
            NoCertificationError: the name is that of another certification.
        """
        cell = self.cell(row, "certification").strip()
        if cell and _is_name(cell) and known.contradicts(cell, certification_id):
            title = self.layout.title("certification_id")
            raise NoCertificationError(
                f"{shown(cell)} is not the certification {certification_id} of the column “{title}”",
                "correct the name or the id, or empty one of them",
            )

    @cached_property
    def _has_names_as_ids(self) -> bool:
        """Whether the column of ids has names instead, as its first rows show.

        The others are not read for it: whether the list of certifications belongs to `reading_digest` depends on it.
        """
        known = self.reading.certifications
        if known is None or known.is_unlisted or self.reading.certification or "certification_id" not in self.layout:
            return False
        with closing(iter(self)) as rows, suppress(ManifestError):  # of which the rows themselves are told
            cells = [self.cell(row, "certification_id").strip() for row in islice(rows, _ROWS_OF_PROOF)]
            return any(_is_name(cell) for cell in cells)
        return False

    @cached_property
    def _certification_of_all(self) -> int:
        named = self.reading.certification
        if self.reading.certifications is not None:
            return self.reading.certifications.id_of(named)
        if isinstance(number := _number(named), int):
            return number
        raise NoCertificationError(NO_LIST)

    def _email(self, row: Row) -> str:
        """Return the email address of a row; empty if there is none.

        Raises:
            NoUserError: nobody, or several people, have this id or name, or only others than the address of the row.
        """
        email, users = self.cell(row, "email").strip(), self.reading.users
        if users is None or not (user := self.cell(row, "user").strip()):
            return email
        if not email:
            return users.email_of(user)
        if users.contradicts(user, email):
            raise NoUserError(
                f"{shown(user)} has another address in {users.path.name} than {shown(email)} of the column"
                f" “{self.layout.title('email')}”: correct one of the two, or empty one of the cells"
            )
        return email

    def _email_fault(self, email: str) -> str | None:
        if email.startswith("'") and ERROR not in self.columns and unescape(email) != email:
            return _APOSTROPHE
        return email_fault(email)

    def _faults(self, row: Row) -> Iterator[Fault]:
        """Yield the faults of a row."""
        for fault in self._plain_faults(row):
            cell = self.cell(row, fault.field).strip()
            if cell == MERGED:
                yield Fault(fault.field, _MERGED)
            else:
                yield Fault(fault.field, _OF_A_FORMULA.format(cell)) if is_error(comparable(cell)) else fault

    def _plain_faults(self, row: Row) -> Iterator[Fault]:
        if extra := row.cells[""]:
            yield Fault("", f"has more cells than there are columns: {shown(extra)}")
        if not self.file(row):
            yield Fault("file", MISSING)
        yield from self._faults_of_certification(row)
        try:
            email = self._email(row)
        except NoUserError as error:
            yield Fault("user", str(error))
        else:
            if not email:
                yield Fault("email" if "email" in self.layout else "user", MISSING)
            elif (reason := self._email_fault(email)) is not None:
                yield Fault("email", reason)
        for name in _DATES:
            cell = self.cell(row, name).strip()
            try:
                if self._date(name, cell) is None and name == "valid_from":
                    yield Fault(name, MISSING)
            except NoDateError as error:
                is_other = name == "valid_until" and str(error).startswith(MUST_BE_A_DATE)
                yield Fault(name, f"{error}{_NO_END if is_other else ''}")
        if isinstance(conversion := _number(self.cell(row, "conversion_id")), str):
            yield Fault("conversion_id", f"{_ID}, not {shown(conversion)}")

    def _faults_of_certification(self, row: Row) -> Iterator[Fault]:
        name = "certification_id" if "certification_id" in self.layout else "certification"
        try:
            found = self._certification_id(row)
        except NoCertificationError as error:
            yield Fault("certification", str(error))
        else:
            if found is None:
                yield Fault(name, MISSING)
            elif isinstance(found, str):
                yield Fault(name, f"{_ID}, not {shown(found)}")

    def _date(self, column: str, cell: str) -> date | None:
        """Return the date of a cell, or None if there is none.

        Raises:
            NoDateError: as `read_date`.
        """
        cell = cell.strip()
        if not cell or (column == "valid_until" and is_never(cell)):
            return None
        if may_be_swapped(cell):
            self._refuse_swapped(column, cell)
        elif self._left_as_text and column in self._left_as_text and may_be_made_of_another(cell):
            raise NoDateError(
                f"{shown(cell)} may have day and month the wrong way round, as {self._left_as_text[column]} stayed text"
                " when a spreadsheet made dates of this column: compare them with their source, and correct both"
            )
        if "/" not in cell or not is_ambiguous(cell):
            return read_date(cell, day_numbers=self.table.has_day_numbers)
        if (order := self.reading.dates or self._shown[column].order) is None:
            raise NoDateError(f"{shown(cell)} can be read in two ways{self._shown[column].words}")
        try:
            return read_date(cell, order)
        except NoDateError as error:
            raise NoDateError(f"{error} (--dates {order} was given)" if self.reading.dates else str(error)) from None

    def _refuse_swapped(self, column: str, cell: str) -> None:
        """Refuse a date such as 5-6-2026 in a column with dates that begin with the month.

        Excel may have made it of slashes: where dates begin with the day, Excel takes 5/6/2026 for its own date, and
        12/31/2026 in the next row for text. Or somebody begins with the month also before dashes, as in 12-31-2026.

        Raises:
            NoDateError: it is one.
        """
        if begins_with_month(cell):
            raise NoDateError(f"{shown(cell)} begins with the month: write it as in 2026-12-31")
        month_first = self._shown[column].month_first
        if month_first or self.reading.dates == "mdy":
            beside = f", beside {month_first}" if month_first else ", with --dates mdy"
            raise NoDateError(f"{shown(cell)} may begin with the month{beside}: write it as in 2026-12-31")

    def opposite_dates(self) -> tuple[tuple[str, int, str], ...]:
        """Return the column, row and text of a date of each column, if the columns show opposite orders; else nothing.

        It reads all rows, unless a date with slashes was read before.
        """
        shown = [(name, *orders.first) for name, orders in self._shown.items() if orders.order is not None]
        opposite = not self.reading.dates and len({self._shown[name].order for name, *_ in shown}) > 1
        return tuple(shown) if opposite else ()

    @cached_property
    def _left_as_text(self) -> Mapping[str, str]:
        """The first date, by column, that a spreadsheet took for text where it may have swapped all others.

        A spreadsheet that expects the day first makes 5 June of 5/6/2026, and takes 12/31/2026 for text. If it had
        expected the right order, some real date would be after the twelfth of a month.
        """
        real = {self.columns[index] for index in self.table.real_dates if index < len(self.columns)}
        names = real.intersection(_DATES)
        texts: dict[str, str] = {}
        right: set[str] = set()
        with suppress(ManifestError):  # who reads the rows is told of it at its row
            for row in self if names else ():
                for name in names:
                    cell = row.cells[name].strip()
                    if name not in texts and stayed_text(cell):
                        texts[name] = f"{cell} in row {row.number}"
                    elif name not in right and is_after_day_12(cell):
                        right.add(name)
        return {name: text for name, text in texts.items() if name not in right}

    @cached_property
    def _shown(self) -> Mapping[str, ShownOrder]:
        """What the dates with slashes of each column of dates begin with, as far as they show it."""
        shown: dict[str, dict[DateOrder, tuple[int, str]]] = {name: {} for name in _DATES if name in self.layout}
        others: dict[str, tuple[int, str]] = {}  # with dashes or dots, where the day should come first
        with suppress(ManifestError):  # who reads the rows is told of it at its row
            for row in self:
                for name, orders in shown.items():
                    if "/" in (cell := self.cell(row, name).strip()):
                        if (order := proves(cell)) is not None:
                            orders.setdefault(order, (row.number, cell))
                    elif name not in others and begins_with_month(cell):
                        others[name] = (row.number, cell)
        return {name: ShownOrder(orders, others.get(name)) for name, orders in shown.items()}


def _is_name(cell: str) -> bool:
    """Return whether a cell without spaces around it has a text that is no id."""
    if cell.isdigit():
        return False
    key = comparable(cell)
    return not says_nothing(key) and not is_rounded(key) and number_of(key) is None


def _number(cell: str) -> int | str | None:
    """Return a positive number of up to 18 digits as an int, any other cell as it is, and an empty one as None."""
    cell = cell.strip()
    if cell.isascii() and cell.isdigit() and len(cell) <= 18:
        return int(cell) or cell
    # 7.0 is what pandas makes of 7 if another cell of the column is empty.
    found = _WHOLE.fullmatch(cell) if cell else None
    return (int(found[1]) or cell) if found else cell or None
