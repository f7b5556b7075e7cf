"""Which file was meant, where there is none of the name that a manifest has.

Names are typed on Windows, copied from a Mac, or changed by a spreadsheet: backslashes, quotes around them, another
case, no ``.pdf``, curly apostrophes, spaces at an end, accents that are encoded otherwise. Nothing is opened here.
"""

import difflib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from springest_async.records import shown

# A folder with more names is not searched: that would take hundreds of megabytes, or minutes for each name.
_MOST_NAMES = 100_000
_MOST_FOLDERS = 1_000
_MOST_NAMES_COMPARED = 5_000
_MOST_COMPARISONS = 20  # in one manifest: each may take a second

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))


class FileNames:
    """The names of the files in the folder of a manifest.

    Args:
        folder: the folder.
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
            return f"{shown(cell)} (one exists whose accents are encoded differently, as on a Mac: rename it)"
        return f"{shown(cell)} (there is {shown(meant)}: correct the name)"

    def meant(self, cell: str) -> str | None:
        """Return the one name that is the same but for how it is written; None if there is none, or several."""
        cleaned = cell.replace("\\", "/").strip("\"' ")
        if not cleaned or "\0" in cleaned:
            return None
        found: list[str] = []
        here = Path(cleaned[0]) if cleaned.startswith("/") else self._folder
        parts = [part for part in cleaned.split("/") if part]
        for number, part in enumerate(parts, start=1):
            name = self._one_like(here, part, is_file=number == len(parts))
            if name is None:
                return None
            found.append(name)
            here = here / name
        return ("/" if cleaned.startswith("/") else "") + "/".join(found)

    def _one_like(self, folder: Path, part: str, *, is_file: bool) -> str | None:
        if part in (".", "..") or (os.path.lexists(folder / part) and not (is_file and (folder / part).is_dir())):
            return part
        likes: Sequence[str] = self._names_in(folder).get(_key(part), ())
        if is_file:
            likes = [*likes, *self._names_in(folder).get(_key(f"{part}.pdf"), ())]
            likes = [name for name in likes if not (folder / name).is_dir()]
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


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)


def _names_in(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the names in a folder by their keys; none if it cannot be read, or there are too many."""
    names: dict[str, tuple[str, ...]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, _MOST_NAMES + 1):
                key = _key(entry.name)
                names[key] = (*names.get(key, ()), entry.name)
    except (OSError, ValueError):  # the latter for a name that no folder can have
        return {}
    return names if len(names) <= _MOST_NAMES else {}


def _key(name: str) -> str:
    """Return what two names have in common that are the same but for how they are written."""
    return unicodedata.normalize("NFC", name).translate(_APOSTROPHES).casefold().strip()
