"""What a column of dates with slashes shows of their order: whether the day or the month comes first."""

from collections.abc import Mapping

from attrs import frozen

from springest_async.manifest.dates import DateOrder


@frozen
class ShownOrder:
    """The first row and date of a column that show an order of day and month."""

    _first: Mapping[DateOrder, tuple[int, str]]
    _month_in_front: tuple[int, str] | None = None  # of a date with dashes or dots

    @property
    def first(self) -> tuple[int, str]:
        """The row and the text of the first date that shows an order."""
        return next(iter(self._first.values()))

    @property
    def order(self) -> DateOrder | None:
        """The order, if there are not two."""
        return next(iter(self._first)) if len(self._first) == 1 else None

    @property
    def proof(self) -> str:
        """The first date that shows it, and its row."""
        number, cell = next(iter(self._first.values()))
        return f"{cell} in row {number}"

    @property
    def words(self) -> str:
        """What to say where no order is known."""
        if not self._first:
            return ", and no other date of this column shows which: use --dates dmy (the day first) or --dates mdy"
        rows = " and ".join(f"{cell} in row {number}" for number, cell in self._first.values())
        return f", because this column has both ({rows}): correct one of them"

    @property
    def month_first(self) -> str:
        """The first date that begins with the month, and its row; an empty text if there is none."""
        if (found := self._first.get("mdy", self._month_in_front)) is None:
            return ""
        number, cell = found
        return f"{cell} in row {number}"
