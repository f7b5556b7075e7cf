"""Which file was meant, where there is none of the name that a manifest has.

Names are typed on Windows, copied from a Mac, or changed by a spreadsheet: backslashes, quotes around them, another
case, no ``.pdf``, curly apostrophes, spaces at an end, accents that are encoded otherwise, or in a code page that the
archive does not name. An archive of one folder has its name in front of all names. No file is opened here.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path

from springest_async.records import shown
from springest_async.source_file import exists, is_folder, names_in

# A folder with more names is not searched: that would take hundreds of megabytes, or minutes for each name.
_MOST_NAMES = 100_000
_MOST_FOLDERS = 1_000
_MOST_NAMES_COMPARED = 5_000
_MOST_COMPARISONS = 20  # in one manifest: each may take a second

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))

_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # of a drive or a server


class FileNames:
    """The names of the files in the folder of a manifest.

    Args:
        folder: the folder, or a ZIP archive.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._comparisons = 0
        self._folders: dict[Path, Mapping[str, Sequence[str]]] = {}

    def explain(self, cell: str) -> str:
        """Return what to say of a file that does not exist: its name, and which file may have been meant."""
        meant = self.meant(cell)
        if meant is None:
            nearest = self._nearest(cell)
            near = f" (the nearest name is {shown(nearest)})" if nearest else ""
            return f"{shown(cell)} in {self._folder.absolute()}{near}"
        if unicodedata.normalize("NFC", cell) == unicodedata.normalize("NFC", meant):
            reason = "one exists whose accents are encoded differently, as on a Mac: rename it, or use --fix-names"
            return f"{shown(cell)} ({reason})"
        is_in_top = self._top is not None and self._meant_in(self._folder, _cleaned(cell)) is None
        if is_in_top and not _is_windows_path(cell):
            place = str(self._folder / str(self._top))
            quoted = f'"{place}"' if " " in place else place
            return f"{shown(cell)} (there is {shown(meant)}: name the folder in the ZIP with --files {quoted})"
        return f"{shown(cell)} (there is {shown(meant)}: correct the name)"

    def meant(self, cell: str) -> str | None:
        """Return the one name that is the same but for how it is written; None if there is none, or several."""
        cleaned = _cleaned(cell)
        if is_elsewhere := _is_windows_path(cell):
            cleaned = cleaned.rpartition("/")[2]  # where the file was on another machine says nothing here
        if not cleaned or "\0" in cleaned:
            return None
        if not is_elsewhere and cleaned.startswith("/"):
            found = self._meant_in(Path(cleaned[0]), cleaned)
            return None if found is None else f"/{found}"
        found = self._meant_in(self._folder, cleaned)
        if found is None and self._top is not None:
            found = self._meant_in(self._folder, f"{self._top}/{cleaned}")
        return found

    def _meant_in(self, folder: Path, cleaned: str) -> str | None:
        found: list[str] = []
        here = folder
        parts = [part for part in cleaned.split("/") if part]
        for number, part in enumerate(parts, start=1):
            name = self._one_like(here, part, is_file=number == len(parts))
            if name is None:
                return None
            found.append(name)
            here = here / name
        return "/".join(found)

    @cached_property
    def _top(self) -> str | None:
        """The folder that has all files of an archive, as there is when somebody packs a folder, and not its files."""
        if self._folder.is_dir():
            return None
        names: list[str] = []
        with suppress(OSError, ValueError):
            names = list(islice(names_in(self._folder), 2))
        return names[0] if len(names) == 1 and is_folder(self._folder / names[0]) else None

    def _one_like(self, folder: Path, part: str, *, is_file: bool) -> str | None:
        if part in (".", "..") or (exists(folder / part) and not (is_file and is_folder(folder / part))):
            return part
        likes: Sequence[str] = self._names_in(folder).get(_key(part), ())
        if is_file:
            likes = [*likes, *self._names_in(folder).get(_key(f"{part}.pdf"), ())]
            likes = [name for name in likes if not is_folder(folder / name)]
        return likes[0] if len(likes) == 1 else None

    def _nearest(self, cell: str) -> str | None:
        if self._comparisons >= _MOST_COMPARISONS:
            return None
        self._comparisons += 1
        path = Path(cell)
        names = self._names_in(self._folder / path.parent)
        if len(names) > _MOST_NAMES_COMPARED:
            return None
        key = _key(path.name)
        # A number that differs is somebody else's.
        near = [
            name for name in difflib.get_close_matches(key, names, n=3, cutoff=0.75) if _digits(name) == _digits(key)
        ]
        return str(path.with_name(min(names[near[0]]))) if near else None

    def _names_in(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return the names in a folder by their keys; none where there were too many names before."""
        if folder not in self._folders:
            if len(self._folders) >= _MOST_FOLDERS or sum(map(len, self._folders.values())) > _MOST_NAMES:
                return {}
            self._folders[folder] = _names_in(folder)
        return self._folders[folder]


def _cleaned(cell: str) -> str:
    return cell.replace("\\", "/").strip("\"' ")


def _is_windows_path(cell: str) -> bool:
    return _WINDOWS_PATH.match(cell.strip("\"' ")) is not None


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)


def _names_in(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the names in a folder by their keys; none if it cannot be read, or there are too many."""
    names: dict[str, tuple[str, ...]] = {}
    try:
        for name in islice(names_in(folder), _MOST_NAMES + 1):
            for key in {_key(reading) for reading in _readings(name)}:
                names[key] = (*names.get(key, ()), name)
    except (OSError, ValueError):  # the latter for a name that no folder can have
        return {}
    return names if len(names) <= _MOST_NAMES else {}


def _readings(name: str) -> Iterator[str]:
    """Yield a name, and how it reads in other code pages than cp437, for which archives and what unpacks them take it.

    Windows writes the names in an archive in a code page of the country, and does not say in which.
    """
    yield name
    if not name.isascii():
        for code_page in ("cp850", "cp1252"):
            with suppress(UnicodeError):
                yield name.encode("cp437").decode(code_page)


def _key(name: str) -> str:
    """Return what two names have in common that are the same but for how they are written."""
    return unicodedata.normalize("NFC", name).translate(_APOSTROPHES).casefold().strip()
