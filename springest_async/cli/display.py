"""What is shown of a migration while it moves: at most ten lines in a terminal, or one line without one.

It is made of a `MigrationStatus`, so `springest upload` and `springest status --watch` show the same, with the numbers
of every other view; what an upload knows beyond its journal is in `RunNotes`. Nothing here reads or prints anything.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import frozen
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from springest_async.bulk import State
from springest_async.cli.console import plain
from springest_async.cli.times import clock_time, duration, outage_words
from springest_async.journal.reasons import plain_reason
from springest_async.journal.records import Worker
from springest_async.journal.status import MigrationStatus, RowInProgress, RowOutcome
from springest_async.reports.numbers import number

MAX_LINES = 10
"""How many lines the display has at most."""

_OUTCOMES = 3
_LONGEST_BAR = 40  # cells; a window that is made narrower breaks longer lines
_SHORTEST_NAME = 16  # cells for the manifest's name, before the host is left out
_COLOURS = {State.STORED: "green", State.REJECTED: "red", State.FAILED: "red", State.IN_DOUBT: "yellow"}
_COUNTED = (State.STORED, State.REJECTED, State.FAILED, State.IN_DOUBT, State.SENDING, State.WAITING)
_NAMES = {State.SENDING: "being sent"}


@frozen(kw_only=True)
class RunNotes:
    """What a run knows of itself beyond its journal.

    Attributes:
        held_up_by: what holds it up, such as an outage; empty while it goes on.
        is_asking: whether it asks Springest about rows in doubt.
        seconds_a_row: how long a row takes on its connection, on the average, when the limit does not hold it back.
        posts: how many POSTs a minute it would send, if no other program had a smaller limit.
    """

    held_up_by: str = ""
    is_asking: bool = False
    seconds_a_row: float = 0.0
    posts: int | None = None


@frozen(kw_only=True)
class Moment:
    """Where a migration stands at a moment between two readings.

    Attributes:
        status: what was read last.
        age: how many seconds ago.
        notes: what a run of this process knows.
        is_over: whether this is the last of it, that stays on the screen.
    """

    status: MigrationStatus
    age: float = 0.0
    notes: RunNotes = RunNotes()
    is_over: bool = False

    @property
    def now(self) -> datetime:
        """The time."""
        return self.status.at + timedelta(seconds=self.age)

    @property
    def seconds_left(self) -> float:
        """In how many seconds all rows that wait have left, by the limit and by the speed of the connection."""
        waiting = self.status.counts[State.WAITING]
        return max(self.status.seconds_left - self.age, waiting * self.notes.seconds_a_row, 0.0)


def display(moment: Moment, *, width: int, height: int) -> Group:
    """Return the display: at most `MAX_LINES` lines, each of which fits into a terminal of this size (cells).

    A terminal with fewer lines gets those that come first, which matter most.
    """
    status = moment.status
    lines: list[RenderableType] = [
        _title(moment, width),
        _bar(status, width),
        *_wrapped(_counts(status), width),
    ]
    if not moment.is_over:
        for sentence in _situation(moment):
            lines += _wrapped(sentence, width)
        if status.workers or status.pace.last_minute:
            lines += _wrapped(_pace(moment), width)
        if status.workers or status.sending:
            lines.append(_sending(moment, width))
        lines += _last(status.last[:_OUTCOMES])
    for line in lines:
        if isinstance(line, Text):
            line.truncate(width, overflow="ellipsis")
    return Group(*lines[: max(1, min(MAX_LINES, height - 1))])


def line(moment: Moment) -> str:
    """Return one line that says the same, where there is no terminal, or one that is read aloud."""
    status = moment.status
    sentences = [_counts(status), *_situation(moment)]
    if status.activity == "running" and not moment.notes.held_up_by:
        sentences.append(_pace(moment))
    said = ". ".join(", ".join(part.plain for part in sentence) for sentence in sentences)
    return f"{number(status.done)} of {number(status.rows)} done: {said}."


def activity_words(status: MigrationStatus) -> str:
    """Return what a migration is doing, for people."""
    match status.activity:
        case "outage":
            return "cannot send"
        case "in doubt":
            return "rows in doubt are left"
    return status.activity


def state_words(status: MigrationStatus, state: State) -> str:
    """Return how many rows are in a state, and of those in doubt, how many a run is asking Springest about."""
    rows, asked = status.counts[state], status.doubts.asked if state is State.IN_DOUBT else 0
    about = f" (Springest is being asked about {'it' if rows == 1 else 'them' if rows == asked else number(asked)})"
    return f"{number(rows)} {_NAMES.get(state, state.value)}{about if asked else ''}"


def _title(moment: Moment, width: int) -> Text:
    """Return the name, the host and what is going on, or less if there is no room for a name that can be known."""
    status = moment.status
    name = Text(plain(status.name), "bold")
    host, activity, where = f" to {status.origin}", f": {activity_words(status)}", _hosts(status)
    if moment.is_over and status.workers and status.activity != "done":  # which end now, too
        activity = where = ""
    for rest in (f"{host}{activity}{where}", f"{activity}{where}", activity):
        room = width - Text(plain(rest)).cell_len
        if room >= min(name.cell_len, _SHORTEST_NAME):
            break
    name.truncate(max(1, room), overflow="ellipsis")
    return Text.assemble(name, plain(rest))


def _hosts(status: MigrationStatus) -> str:
    if status.activity not in ("running", "outage"):
        return ""
    hosts = sorted({worker.host for worker in status.workers})
    return f" on {' and '.join(hosts)}" if len(hosts) < 3 else f" on {len(hosts)} machines"


def _bar(status: MigrationStatus, width: int) -> Table:
    share = status.done * 100 // status.rows if status.rows else 100
    bar = Table.grid(expand=False, padding=(0, 1, 0, 0))
    words = Text(f"{number(status.done)} of {number(status.rows)}, {share} %", no_wrap=True)
    bar.add_column()
    bar.add_column(no_wrap=True)
    room = min(_LONGEST_BAR, max(1, width - words.cell_len - 2))
    bar.add_row(ProgressBar(max(1, status.rows), status.done, width=room), words)
    return bar


def _counts(status: MigrationStatus) -> list[Text]:
    counts = [
        Text(state_words(status, state), _COLOURS.get(state, ""))
        for state in _COUNTED
        if status.counts[state] or state is State.STORED
    ]
    left_out = [Text(f"{number(status.faulty)} left out with faults", "red")] if status.faulty else []
    return counts + left_out


def _situation(moment: Moment) -> list[list[Text]]:
    """Return sentences, each of some parts: what is wrong, what can be done about it, or when all is done."""
    status, notes = moment.status, moment.notes
    if notes.held_up_by:
        return [_warning(notes.held_up_by)]
    match status.activity:
        case "done":
            return []
        case "paused":
            assert status.paused_at is not None
            return [
                _warning(f"paused since {clock_time(status.paused_at, moment.now)}, springest resume lets it go on")
            ]
        case "outage":
            assert status.trouble is not None
            return [_warning(_outage_of(status.trouble, moment.age))]
        case "stopped":
            return [_warning("no upload is running, springest upload continues it")]
        case "in doubt":
            return [_warning("only rows in doubt are left, springest status lists them")]
    # One of them is enough to know that something is wrong.
    troubled = [worker for worker in status.workers if worker.trouble][:1]
    warnings = [_warning(f"on {worker.host}: {_outage_of(worker, moment.age)}") for worker in troubled]
    return [*([forecast] if (forecast := _forecast(moment)) else []), *warnings]


def _forecast(moment: Moment) -> list[Text]:
    asking = ["checking rows in doubt"] if moment.notes.is_asking or moment.status.doubts.asked else []
    if not moment.status.counts[State.WAITING]:
        parts = ["sending the last rows"] if moment.status.counts[State.SENDING] else []
    elif (seconds := moment.seconds_left) < 1:
        parts = ["done in a moment"]
    else:
        at = clock_time(moment.now + timedelta(seconds=seconds), moment.now)
        parts = [f"about {duration(seconds)} left", f"done {at}"]
    return _sentence([*parts, *asking])


def _outage_of(worker: Worker, age: float) -> str:
    again_in = None if worker.again_in is None else worker.again_in - age
    return outage_words(worker.trouble, worker.reason, worker.seconds + age, again_in)


def _pace(moment: Moment) -> list[Text]:
    pace, notes = moment.status.pace, moment.notes
    limit = f"at most {number(pace.posts)}"
    if notes.posts is not None and pace.posts < notes.posts:
        limit = f"{limit}, because another program keeps to that"
    parts = [f"{number(pace.last_minute)} sent in the last minute ({limit})"]
    if moment.status.activity != "running":
        return _sentence(parts)  # whatever the limit allows, nothing leaves
    if (next_in := pace.next_in - moment.age) >= 1:
        parts += [f"{number(pace.free)} free"] if pace.free else []
        parts.append(f"next in {duration(next_in)}")
    else:
        parts.append(f"{number(max(1, pace.free))} may leave now")
    if pace.slow:
        parts.append("one at a time, after refusals for speed")
    return _sentence(parts)


def _sending(moment: Moment, width: int) -> Text:
    """Return the rows that are being sent, as many as there is room for."""
    rows, count = moment.status.sending, moment.status.counts[State.SENDING]
    text = "Sending: nothing at the moment"
    for shown in range(len(rows), 0, -1):
        words = ", ".join(_row_words(row, moment.age) for row in rows[:shown])
        more = f" and {count - shown} more" if count > shown else ""
        text = plain(f"Sending: {words}{more}")
        if Text(text).cell_len <= width:
            break
    return Text(text)


def _row_words(row: RowInProgress, age: float) -> str:
    return f"row {row.number} ({duration(row.seconds + age)}, {_file_name(row.file)})"


def _last(outcomes: Sequence[RowOutcome]) -> list[Text]:
    lines: list[Text] = []
    for outcome in outcomes:
        state, words = _outcome_words(outcome)
        head = "Last:    " if not lines else "         "
        lines.append(
            Text.assemble(
                f"{head}{outcome.at.astimezone():%H:%M:%S} row {outcome.number} ",
                (state, _COLOURS.get(outcome.state, "")),
                plain(f"{words} ({_file_name(outcome.file)})"),
            )
        )
    return lines


def _outcome_words(outcome: RowOutcome) -> tuple[str, str]:
    """Return what became of a POST, and why, or at least what the server said."""
    why = plain_reason(outcome.reason) or outcome.words
    match outcome.state:
        case State.STORED:
            return "stored", ""
        case State.WAITING if outcome.status is None:
            return "not sent", ", to be sent again"
        case State.WAITING:
            return f"refused ({outcome.status})", ", to be sent again"
    return outcome.state.value, f": {why}" if why else ""


def _file_name(file: str) -> str:
    """Return the last name of a path, with whichever slashes; there is no room for folders."""
    return re.split(r"[\\/]", file)[-1]


def _warning(words: str) -> list[Text]:
    return _sentence(words.split(", "), "yellow")


def _sentence(parts: Sequence[str], style: str = "") -> list[Text]:
    """Return the parts of a sentence, between which there may be a new line."""
    first = [part[:1].upper() + part[1:] for part in parts[:1]]
    return [Text(plain(part), style) for part in (*first, *parts[1:])]


def _wrapped(parts: Sequence[Text], width: int) -> list[Text]:
    """Return lines that have as many parts each as there is room for, with commas between them."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 2 + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], ", ", part)
        else:
            lines.append(part)
    return lines
