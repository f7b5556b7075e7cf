"""A manifest to begin with: a row for each PDF of a folder or a ZIP, with what its name says.

What a name does not say for certain stays empty, and is told. The rows are written elsewhere.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from attrs import define, field, frozen

from springest_async.errors import ManifestError
from springest_async.manifest.columns import FIRST_NAME, LAST_NAME, folded
from springest_async.manifest.dates import DateOrder, NoDateError, proves, read_date
from springest_async.manifest.formulas import escape
from springest_async.manifest.name_pattern import NamePattern, NoFitError
from springest_async.source_file import check_folder, is_folder, names_in, why_unreadable

COLUMNS = ("file", "certification_id", "email", "valid_from", "valid_until")
EXAMPLE = ("jan-jansen.pdf", "1", "jan.jansen@example.org", "2026-01-31", "2031-01-31")
"""A row that shows what belongs in each of `COLUMNS`."""

_STANDS_FOR = {"certification": "certification_id", "user": "email", "user_id": "email"}
_TITLES = {"user_id": "User ID"}
_DATES = ("valid_from", "valid_until")


@frozen
class Folder:
    """What a folder, or a ZIP, and its subfolders have.

    Attributes:
        pdfs: the paths of the PDFs, by their names, relative to the folder, with slashes, sorted.
        others: the paths of all other files, but those that the system keeps for itself.
        unreadable: the folders that cannot be read, and the files whose names cannot be written into a manifest.
    """

    pdfs: Sequence[str]
    others: Sequence[str]
    unreadable: Sequence[str]

    @classmethod
    def list(cls, folder: Path) -> Self:
        """List a folder or a ZIP. Links to other folders are not followed, because they may lead in a circle.

        Raises:
            ManifestError: when there is no such folder or ZIP, or it cannot be read.
        """
        pdfs: list[str] = []
        others: list[str] = []
        unreadable: list[str] = []
        for path in _files_in(folder, unreadable):
            kind = pdfs if path.lower().endswith(".pdf") else others
            (kind if _is_text(path) else unreadable).append(path)
        return cls(sorted(pdfs), sorted(others), sorted(unreadable))


def _files_in(folder: Path, unreadable: list[str]) -> Iterator[str]:
    """Yield the files in a folder or a ZIP and in its subfolders; those that cannot be read go into that list.

    Raises:
        ManifestError: as `Folder.list`.
    """

    def refuse(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise ManifestError(folder, why_unreadable(error)) from None
        unreadable.append(_relative(error.filename, folder))

    if folder.is_dir():
        for here, folders, files in os.walk(folder, onerror=refuse):
            folders[:] = [name for name in folders if not _is_of_the_system(name)]
            prefix = "" if Path(here) == folder else f"{_relative(here, folder)}/"
            yield from (prefix + name for name in files if not _is_of_the_system(name))
        return
    try:
        check_folder(folder)
        if not any(True for _ in names_in(folder)):
            raise ManifestError(folder, "has no files, or more than 100 000: unpack it, and name the folder")
        yield from _files_in_archive(folder, "")
    except FileNotFoundError:
        raise ManifestError(folder, "there is no such folder: check its name") from None
    except OSError as error:
        raise ManifestError(folder, why_unreadable(error)) from None


def _files_in_archive(archive: Path, prefix: str) -> Iterator[str]:
    for name in names_in(archive / prefix):
        if _is_of_the_system(name):
            continue
        path = prefix + name
        if not name.lower().endswith(".pdf") and is_folder(archive / path):
            yield from _files_in_archive(archive, f"{path}/")
        else:
            yield path


def _relative(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix()


def _is_of_the_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini")


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


@define
class Template:
    """The rows of a manifest. Make them with `of`.

    Attributes:
        columns: their titles.
        rows: the cells of each.
        misfits: the files whose names do not fit the pattern, and why; their rows have the file alone.
        unclear: the cells that were left empty because a name can be read in several ways: the file, the column, and
            the ways.
    """

    columns: Sequence[str]
    rows: list[list[str]] = field(factory=list)
    misfits: list[tuple[str, str]] = field(factory=list)
    unclear: list[tuple[str, str, str]] = field(factory=list)

    @classmethod
    def of(cls, files: Sequence[str], pattern: NamePattern | None, dates: DateOrder | None = None) -> Self:
        """Make a row for each file.

        Args:
            files: their paths, relative to the folder of the archive, with slashes.
            pattern: of their names; without one, the rows have the file alone.
            dates: what a date such as 05-06-2026 begins with, if it is known; else the names must show it.
        """
        names = tuple(_columns(pattern.placeholders if pattern else ()))
        made = cls([_TITLES.get(name, name) for name in names])
        for file in files:
            values = {"file": _harmless(file)}
            try:
                values |= made._values(file, pattern) if pattern else {}
            except NoFitError as error:
                made.misfits.append((file, str(error)))
            made.rows.append([values.get(name, "") for name in names])
        made._order_dates([names.index(name) for name in _DATES], dates)
        return made

    @property
    def empty(self) -> Counter[str]:
        """How many cells are empty, by column, but for columns without any."""
        return Counter(column for row in self.rows for column, cell in zip(self.columns, row, strict=True) if not cell)

    def _values(self, file: str, pattern: NamePattern) -> dict[str, str]:
        parts = pattern.read(file)
        for name, ways in parts.unclear.items():
            self.unclear.append((file, name, " or ".join(f"“{way}”" for way in ways)))
        values = dict(parts.values)
        for name, value in parts.values.items():
            if escape(value) != value:
                self.unclear.append((file, name, f"a spreadsheet would run “{value}” as a formula"))
                del values[name]
        return values

    def _order_dates(self, columns: Sequence[int], given: DateOrder | None) -> None:
        """Write the dates with slashes as 2026-12-31, if it is known what they begin with; else empty their cells."""
        cells = [(row, column) for row in self.rows for column in columns if "/" in row[column]]
        shown = {order for row, column in cells if (order := proves(row[column]))}
        order = given or (shown.pop() if len(shown) == 1 else None)
        for row, column in cells:
            try:
                row[column] = read_date(row[column], order or proves(row[column])).isoformat()
            except NoDateError as error:
                how = f" (--dates {given} was given)" if given else ": use --dates dmy (the day first) or --dates mdy"
                self.unclear.append((row[0], self.columns[column], f"{error}{how}"))
                row[column] = ""


def _columns(placeholders: Sequence[str]) -> Iterator[str]:
    """Yield the names of the columns; one that a placeholder makes unnecessary is not among them."""
    stands_for = dict(_STANDS_FOR)
    both = [[name for name in placeholders if folded(name) in meant] for meant in (FIRST_NAME, LAST_NAME)]
    if all(both):
        stands_for |= {name: "email" for names in both for name in names}
    yielded = set()
    for column in (*COLUMNS, *placeholders):
        for name in [name for name in placeholders if stands_for.get(name, name) == column] or [column]:
            if name not in yielded:
                yielded.add(name)
                yield name


def _harmless(file: str) -> str:
    """Return a path of a file that no spreadsheet runs as a formula, and whose spaces stay."""
    return f"./{file}" if escape(file) != file or file != file.strip() else file
