"""The name that is nearest to one that was not found, for messages."""

import difflib
import re
from collections.abc import Collection

_MOST_NAMES = 20_000
_MOST_SEARCHES = 20  # each may take a second


class Nearest:
    """The names that there are.

    Args:
        names: each as it is compared.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._found: dict[str, str | None] = {}

    def to(self, name: str) -> str | None:
        """Return the nearest name; None if none is near, or after too many searches.

        A name with other digits is never near: a number that differs is somebody else's.
        """
        if name not in self._found:
            if len(self._found) >= _MOST_SEARCHES or len(self._names) > _MOST_NAMES:
                return None
            near = difflib.get_close_matches(name, self._names, n=3, cutoff=0.75)
            self._found[name] = next((other for other in near if _digits(other) == _digits(name)), None)
        return self._found[name]


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)
