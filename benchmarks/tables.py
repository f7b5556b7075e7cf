"""A table of numbers that a benchmark has found: in Markdown, as a picture, and within its bounds or not."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import field, frozen

from springest_async.reports.charts import import_pygal

__all__ = ["Table"]

_SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL)

# Readable on a light page and on a dark one.
_INK = "#808890"
_COLOURS = (
    "#2a7fd4",
    "#e0851b",
    "#2f9e5f",
    "#c9483b",
    "#8a63d2",
    "#8c6d4a",
    "#d765a8",
    "#6b7780",
    "#a8a222",
    "#1fa6b5",
    "#b0c4de",
    "#7a3e3e",
    "#b9d98c",
    "#e6b8d0",
    "#40506a",
    "#d9c27a",
)


@frozen(kw_only=True)
class Table:
    """What a benchmark has found: one number for each row and column.

    Attributes:
        key: a short name, unique within the benchmark; the picture is named after it.
        title: one line.
        unit: of all numbers, such as ``uploads/s``, ``ms`` or ``× aiohttp``.
        columns: their titles.
        rows: by label, a number for each column; None: not measured.
        notes: sentences below the table.
        picture: bars in groups, one for each column; or one bar for each column, in which the rows stand on each other;
            or a line for each row; or none.
        floors: by row and column, the smallest number that the guard accepts.
        ceilings: by row and column, the largest number that the guard accepts.
    """

    key: str
    title: str
    unit: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]
    notes: Sequence[str] = ()
    picture: Literal["bars", "stacked", "lines"] | None = "bars"
    floors: Mapping[tuple[str, str], float] = field(factory=dict)
    ceilings: Mapping[tuple[str, str], float] = field(factory=dict)

    def broken(self) -> list[str]:
        """Return a sentence for each number that the guard does not accept; one that was not measured is accepted."""
        found = []
        bounds = [(place, floor, "under its floor") for place, floor in self.floors.items()]
        bounds += [(place, ceiling, "over its ceiling") for place, ceiling in self.ceilings.items()]
        for (row, column), bound, what in bounds:
            number = self.rows[row][self.columns.index(column)]
            if number is not None and (number < bound if what.startswith("under") else number > bound):
                found.append(f"{self.key}, {row}, {column}: {_text(number)} {self.unit} is {what} of {_text(bound)}")
        return found

    def markdown(self) -> str:
        """Return the table in Markdown, below its title and above its notes."""
        lines = [
            f"**{self.title}** ({self.unit})",
            "",
            "| | " + " | ".join(self.columns) + " |",
            "|---|" + "---:|" * len(self.columns),
            *(f"| {label} | " + " | ".join(map(_text, numbers)) + " |" for label, numbers in self.rows.items()),
        ]
        if self.notes:
            lines += ["", " ".join(self.notes)]
        return "\n".join(lines)

    def svg(self) -> str:
        """Return the picture, which needs no script and looks right on a light page and on a dark one."""
        pygal = import_pygal()
        style = pygal.style.Style(
            background="transparent",
            plot_background="transparent",
            foreground=_INK,
            foreground_strong=_INK,
            foreground_subtle=_INK,
            guide_stroke_color=_INK,
            major_guide_stroke_color=_INK,
            colors=_COLOURS,
            font_family="sans-serif",
            title_font_size=15,
            legend_font_size=12,
            label_font_size=12,
            major_label_font_size=12,
        )
        kind = {"bars": pygal.Bar, "stacked": pygal.StackedBar, "lines": pygal.Line}[self.picture or "bars"]
        chart = kind(
            style=style,
            js=(),
            no_prefix=True,
            title=f"{self.title} ({self.unit})",
            x_labels=list(self.columns),
            legend_at_bottom=True,
            legend_at_bottom_columns=3,
            truncate_legend=-1,
            truncate_label=-1,
            height=480,
            margin_bottom=30,
            width=900,
            include_x_axis=True,
            formatter=_text,
            value_formatter=_text,
            show_dots=True,
        )
        for label, numbers in self.rows.items():
            chart.add(re.sub("[`*]", "", label), list(numbers))
        drawn: str = chart.render(is_unicode=True)
        return _SCRIPT.sub("", drawn)


def _text(number: float | None) -> str:
    """Return a number with as many digits as tell anything."""
    match number:
        case None:
            return "–"
        case _ if number == round(number) or abs(number) >= 100:
            return f"{round(number):,}".replace(",", "\N{NO-BREAK SPACE}")
        case _ if abs(number) >= 10:
            return f"{number:.1f}"
        case _ if abs(number) >= 0.1:
            return f"{number:.2f}"
        case _:
            return f"{number:.2g}"
