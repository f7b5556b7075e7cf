"""The row of a table that has the titles of its columns; above it there may be others, such as a title of the whole."""

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from typing import TypeVar

from springest_async.errors import ManifestError
from springest_async.manifest.table import Table, fitting

HEADER_WITHIN = 10
"""How many rows are searched for the titles."""

_Columns = TypeVar("_Columns")


def find_header(
    table: Table, understand: Callable[[Sequence[str]], _Columns | None]
) -> tuple[Table, int, _Columns] | None:
    """Find the titles of a table, in whichever way it can be read.

    Args:
        table: the table.
        understand: returns what the titles of a row mean, or None if they are no titles.

    Returns:
        The table as it must be read, the number of the row, and what its titles mean; None without such a row.

    Raises:
        ManifestError: the table cannot be read, or several of its sheets have such a row.
    """
    errors: list[ManifestError | None] = []  # of each reading

    def fit(reading: Table) -> tuple[Table, int, _Columns] | None:
        errors.append(None)
        try:
            with closing(reading.rows()) as rows:
                for number, cells in islice(rows, HEADER_WITHIN):
                    if (columns := understand([cell.strip() for cell in cells])) is not None:
                        return reading, number, columns
        except ManifestError as error:  # with another separator it may be readable
            errors[-1] = error
        return None

    if (found := fitting(table, fit, "Hide or delete the other sheets")) is None and errors[0] is not None:
        raise errors[0]
    return found
