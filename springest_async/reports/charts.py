"""The pictures of a report, as SVG by pygal, and beside each a table with the same numbers.

A picture contains no script, no link and no text of a manifest. Its colours are variables of CSS, so that the page
around it decides about light and dark. Whoever has no pygal gets a `ConfigurationError` that says what to install.
"""

import math
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from xml.etree import ElementTree

from attrs import frozen

from springest_async.errors import ConfigurationError
from springest_async.journal.history import AnswerTime, Stretch
from springest_async.journal.records import State
from springest_async.journal.status import MigrationStatus

STRETCHES = 60
"""How many stretches of time a picture shows at most. With three values of each, it has at most 180 marks."""

COLOURS = {
    State.STORED: "stored",
    State.REJECTED: "rejected",
    State.FAILED: "failed",
    State.IN_DOUBT: "doubt",
    State.WAITING: "waiting",
    State.SENDING: "sending",
}
"""The variables of CSS with the colours of the states, without their dashes; ``--limit``, ``--ink`` and ``--rule`` are
used too."""

_WITHIN = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, math.inf)  # seconds
_FEW = 12  # points, which get dots, because one point makes no line
_LABELS = 4  # below the stretches
_SOME_DAYS = timedelta(days=4)
_DROPPED = ("script", "desc", "title")  # for pygal's own script, without which they would only be read out
_SVG = "http://www.w3.org/2000/svg"


@frozen(kw_only=True)
class Picture:
    """A picture and its table.

    Attributes:
        key: a name for ids, unique in a report.
        title: what it shows.
        words: how to read it, in a sentence.
        svg: the picture.
        columns: the header of the table; all columns but the first have numbers.
        rows: the cells of the table.
    """

    key: str
    title: str
    words: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def outcomes(status: MigrationStatus) -> Picture:
    """Draw how many rows are in each state."""
    counts = [(state, status.counts[state]) for state in State if state is not State.SENDING or status.counts[state]]
    top_down = counts[::-1]  # pygal begins at the bottom
    chart = _chart("HorizontalBar", "outcomes", show_legend=False, height=40 + 36 * len(counts), margin_right=40)
    chart.x_labels = [state.value for state, _ in top_down]
    chart.add("rows", [{"value": rows, "color": f"var(--{COLOURS[state]})"} for state, rows in top_down])
    return Picture(
        key="outcomes",
        title="What became of the rows",
        words="How many rows of the manifest are in each state.",
        svg=_svg(chart, max(rows for _, rows in counts), steps=2),
        columns=("outcome", "rows", "share"),
        rows=tuple((state.value, number(rows), _share(rows, status.rows)) for state, rows in counts),
    )


def throughput(stretches: Sequence[Stretch], limit: int) -> Picture:
    """Draw how many POSTs left in a minute, on average and at most, against the limit."""
    busiest = [stretch.busiest for stretch in stretches]
    lines: dict[str, Sequence[float]] = {"sent": busiest}
    colours: tuple[str, ...] = ("sending", "limit")
    words = "How many left in each minute."
    if stretches[0].minutes > 1:  # else both lines were the same
        lines = {"busiest minute": busiest, "average": [stretch.posts / stretch.minutes for stretch in stretches]}
        colours = ("sending", "stored", "limit")
        words = f"In stretches of {_length(stretches[0])}: on average, and in the busiest minute."
    chart = _chart("Line", "throughput", colours=colours, show_dots=len(stretches) <= _FEW)
    _label(chart, stretches)
    for name, values in lines.items():
        chart.add(name, values)
    # The last one is on top of the others, which reach it.
    chart.add("limit", [limit] * len(stretches), stroke_style={"dasharray": "6, 6"}, show_dots=False)
    return Picture(
        key="throughput",
        title="Certificates sent a minute",
        words=f"{words} The limit is {limit} in any minute.",
        svg=_svg(chart, max(limit, *busiest)),
        columns=("from (UTC)", "POSTs", "average", "busiest"),
        rows=tuple(
            (shown(each.at), number(each.posts), f"{each.posts / each.minutes:.1f}", number(each.busiest))
            for each in stretches
        ),
    )


def answer_times(times: Sequence[AnswerTime]) -> Picture:
    """Draw how long Springest took to answer."""
    counts = [
        sum(each.posts for each in times if least <= each.seconds < within)
        for least, within in zip((0.0, *_WITHIN), _WITHIN, strict=False)
    ]
    every = sum(counts)
    chart = _chart("Bar", "answers", colours=("sending",), show_legend=False, x_title="answered within … seconds")
    chart.x_labels = [*(f"{within:g}" for within in _WITHIN[:-1]), "more"]
    chart.add("answers", counts)
    names = [f"up to {within:g} s" for within in _WITHIN[:-1]] + [f"over {_WITHIN[-2]:g} s"]
    return Picture(
        key="answers",
        title="How long the answers took",
        words=f"From the beginning of a POST to its answer. Half of them took at most {seconds(quantile(times, 0.5))},"
        f" 95 % at most {seconds(quantile(times, 0.95))}, and the slowest {seconds(times[-1].until)}.",
        svg=_svg(chart, max(counts)),
        columns=("answered within", "answers", "share"),
        rows=tuple(
            (name, number(count), _share(count, every)) for name, count in zip(names, counts, strict=True) if count
        ),
    )


def refusals(stretches: Sequence[Stretch]) -> Picture:
    """Draw how many POSTs were refused, rejected or not answered, over time."""
    kinds = [
        ("refused", "waiting", [stretch.refused for stretch in stretches]),
        ("rejected", "rejected", [stretch.rejected for stretch in stretches]),
        ("no clear answer", "doubt", [stretch.unanswered for stretch in stretches]),
    ]
    chart = _chart("StackedBar", "refusals", colours=tuple(colour for _, colour, _ in kinds))
    _label(chart, stretches)
    for name, _, counts in kinds:
        chart.add(name, counts)
    stacked = [sum(each) for each in zip(*(counts for _, _, counts in kinds), strict=True)]
    return Picture(
        key="refusals",
        title="Refusals over time",
        words=f"In stretches of {_length(stretches[0])}: how many POSTs were refused because of the limit or without a"
        " reason, so that they were sent again; rejected for good; or answered unclearly or not at all.",
        svg=_svg(chart, max(stacked)),
        columns=("from (UTC)", "refused", "rejected", "unclear"),
        rows=tuple(
            (shown(stretch.at), number(stretch.refused), number(stretch.rejected), number(stretch.unanswered))
            for stretch, every in zip(stretches, stacked, strict=True)
            if every
        ),
    )


def quantile(times: Sequence[AnswerTime], share: float) -> float:
    """Return in how many seconds this share of the answers came, at most.

    Args:
        times: at least one, the fastest first.
        share: between 0 and 1.
    """
    left = share * sum(each.posts for each in times)
    for each in times:
        left -= each.posts
        if left <= 0:
            return each.until
    return times[-1].until


def number(value: int) -> str:
    """Return a number with spaces between the thousands, at which no line is broken."""
    return f"{value:,}".replace(",", "\N{NO-BREAK SPACE}")


def seconds(value: float) -> str:
    """Return a time in seconds, as exact as it is known."""
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def shown(at: datetime | None) -> str:
    """Return a time for people, to the minute."""
    return f"{at:%Y-%m-%d %H:%M}" if at else ""


def import_pygal() -> Any:
    """Return the module that draws, without the finder of plugins that it installs.

    Raises:
        ConfigurationError: it is missing.
    """
    try:
        import pygal.style  # noqa: PLC0415 # only for pictures
    except ImportError as error:
        reason = "need one more package: pip install 'springest-async[report]'"
        raise ConfigurationError(f"the pictures of a report {reason}") from error
    # The finder lacks what Python 3.11 asks of one, and imports would warn of it.
    sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return pygal


def _chart(kind: str, key: str, *, colours: Sequence[str] = (), height: int = 300, **options: Any) -> Any:
    pygal = import_pygal()
    ink, rule = "var(--ink)", "var(--rule)"
    style = pygal.style.Style(
        background="transparent",
        plot_background="transparent",
        foreground=ink,
        foreground_strong=ink,
        foreground_subtle=ink,
        guide_stroke_color=rule,
        major_guide_stroke_color=rule,
        guide_stroke_dasharray="none",
        major_guide_stroke_dasharray="none",
        colors=tuple(f"var(--{colour})" for colour in colours) or (ink,),
        value_colors=(ink,) * max(1, len(colours)),
        opacity="1",
        stroke_opacity="1",
        font_family="inherit",
        title_font_size=15,
        legend_font_size=15,
        label_font_size=15,
        major_label_font_size=15,
    )
    settings = {
        "style": style,
        "js": (),
        "width": 480,
        "height": height,
        "margin": 8,
        "margin_right": 24,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "truncate_legend": -1,
        "truncate_label": -1,
        "formatter": number,
        "include_x_axis": True,
    }
    chart = getattr(pygal, kind)(**(settings | options))
    chart.uuid = key  # no random one: a report of the same numbers is the same file
    return chart


def _svg(chart: Any, most: float, *, steps: int = 5) -> str:
    """Draw a chart whose largest value this is, and return what of it belongs into a page."""
    ticks = _ticks(most, steps)
    chart.range = (0, ticks[-1])
    chart.y_labels = [{"value": tick, "label": number(tick)} for tick in ticks]
    root: ElementTree.Element = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            is_comment = not isinstance(child.tag, str)
            if is_comment or child.tag in _DROPPED or "tooltip-overlay" in child.get("class", ""):
                parent.remove(child)
        if parent is not root:
            parent.attrib.pop("id", None)
    root.set("xmlns", _SVG)
    root.set("aria-hidden", "true")  # the table has the same
    return ElementTree.tostring(root, encoding="unicode")


def _ticks(most: float, steps: int) -> list[int]:
    """Return whole numbers for the axis in at most so many steps, from 0 to one that is not less than any value."""
    least = max(1.0, most) / steps
    power = 10 ** math.floor(math.log10(least))
    step = max(1, math.ceil(min(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)))
    return list(range(0, math.ceil(max(1.0, most) / step) * step + 1, step))


def _label(chart: Any, stretches: Sequence[Stretch]) -> None:
    """Label the stretches: some of them, of which each says what differs."""
    first, last = stretches[0].at, stretches[-1].at
    if last - first >= _SOME_DAYS:
        form = "%b" if first.year == last.year else "%b %Y"
    else:
        form = "%b %H:%M" if first.date() != last.date() else ""
    every = -(-len(stretches) // _LABELS)
    chart.x_labels = [
        "" if place % every else f"{at.day} {at:{form}}" if form else f"{at:%H:%M}"
        for place, at in enumerate(stretch.at for stretch in stretches)
    ]


def _length(stretch: Stretch) -> str:
    minutes = stretch.minutes
    for unit, size in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes % size == 0:
            return _count(minutes // size, unit)
    raise AssertionError(minutes)


def _count(value: int, noun: str) -> str:
    return f"{value} {noun}" if value == 1 else f"{value} {noun}s"


def _share(part: int, whole: int) -> str:
    """Return a share in percent, which is 0 or 100 only if it is exactly that."""
    if not whole:
        return ""
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{min(percent, 99.9) if part < whole else percent:.1f} %".replace(".0 %", " %")
