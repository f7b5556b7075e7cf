"""What all benchmarks share: options, measuring in turns, tables (Markdown, JSON, SVG), and the guard of ``--quick``.

A number of one run is compared with others of the same run only, because a machine is never twice as busy: `in_turns`
measures the ways that are compared one after the other, again and again.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pygal
from attrs import asdict, field, frozen
from pygal.style import Style

__all__ = ["Table", "in_turns", "medians", "parser", "publish"]

_LIBRARIES = ("aiohttp", "httpx", "niquests", "pycurl", "pydantic", "requests", "uvloop")

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
        picture: bars in groups, one for each column; or a line for each row; or none.
        floors: by row and column, the smallest number that the guard accepts.
        ceilings: by row and column, the largest number that the guard accepts.
    """

    key: str
    title: str
    unit: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]
    notes: Sequence[str] = ()
    picture: Literal["bars", "lines"] | None = "bars"
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
        style = Style(
            background="transparent",
            plot_background="transparent",
            foreground=_INK,
            foreground_strong=_INK,
            foreground_subtle=_INK,
            colors=_COLOURS,
            font_family="sans-serif",
            title_font_size=15,
            legend_font_size=12,
            label_font_size=12,
            major_label_font_size=12,
        )
        kind = pygal.Line if self.picture == "lines" else pygal.Bar
        chart = kind(
            style=style,
            js=(),
            no_prefix=True,
            title=f"{self.title} ({self.unit})",
            x_labels=list(self.columns),
            legend_at_bottom=True,
            legend_at_bottom_columns=3,
            truncate_legend=-1,
            height=460,
            width=900,
            include_x_axis=True,
            formatter=_text,
            value_formatter=_text,
            show_dots=True,
        )
        for label, numbers in self.rows.items():
            chart.add(label, list(numbers))
        drawn: str = chart.render(is_unicode=True)
        return drawn


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


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks.

    Args:
        name: the benchmark's.
        doc: the docstring of its module, whose first line is shown.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}", description=(doc or "").partition("\n")[0], allow_abbrev=False
    )
    made.add_argument("--quick", action="store_true", help="take seconds, and fail when a number is out of its bounds")
    made.add_argument("--output", type=Path, metavar="DIR", help=f"write DIR/{name}.json and pictures beside it")
    return made


def publish(name: str, tables: Sequence[Table], options: argparse.Namespace) -> int:
    """Print the tables, write what ``--output`` asks for, and return the exit code: 1 when the guard fails.

    Args:
        name: the benchmark's.
        tables: what it has found.
        options: as `parser` made them.
    """
    print("\n\n".join(table.markdown() for table in tables))
    if options.output is not None:
        _write(name, tables, options.output)
    broken = [sentence for table in tables for sentence in table.broken()] if options.quick else []
    for sentence in broken:
        print(f"{name}: {sentence}", file=sys.stderr)
    return 1 if broken else 0


def _write(name: str, tables: Sequence[Table], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.svg"):
        old.unlink()
    for table in tables:
        if table.picture:
            (folder / f"{name}-{table.key}.svg").write_text(table.svg(), encoding="utf-8")
    found = {
        "benchmark": name,
        "command": " ".join(["python -m benchmarks", name, *sys.argv[2:]]),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "tables": [_plain(table) for table in tables],
    }
    text = json.dumps(found, ensure_ascii=False, indent=1)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _plain(table: Table) -> dict[str, Any]:
    """Return what JSON can hold of a table; the bounds belong to the guard."""
    return asdict(table, filter=lambda attribute, _: attribute.name not in ("floors", "ceilings"))


def machine() -> dict[str, str]:
    """Return what the numbers depend on: the processor, the system, Python and the libraries."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{library} {version}" for library, version in versions.items()),
    }


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each way once a round, and return the results of each, of which there are as many as rounds.

    A first round does not count. Each round begins with another way, so that none always runs after the same one.
    """
    names = list(ways)
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result = ways[name]()
            if number:
                results[name].append(result)
    return results


def medians(results: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each way's results."""
    return {name: statistics.median(numbers) for name, numbers in results.items()}
