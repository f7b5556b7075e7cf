"""A report as one HTML file for a mail: readable without a network, on a phone, in the dark, and on paper.

It has no script, loads nothing and links to nothing. Every text that came from a manifest or a server is escaped, and
without addresses unless somebody asks for them. It has at most `SHOWN` rows, so it stays small however many there are.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

from springest_async.journal.attempts import Double, SentAgain
from springest_async.journal.history import RowHistory
from springest_async.journal.reasons import plain_reason
from springest_async.journal.records import State
from springest_async.journal.status import MigrationStatus
from springest_async.reports import charts
from springest_async.reports.addresses import without_addresses
from springest_async.reports.audit import Audit, Peak, notes, sentence
from springest_async.reports.charts import Picture, number, shown
from springest_async.reports.left_out import left_out
from springest_async.reports.summary import Summary, outcomes_of
from springest_async.version import __version__

SHOWN = 200
"""How many rows that need a person a report shows."""

_MAX_CHARS = 300  # of a text in a cell
_MAX_ROWS_BYTES = 300_000  # of all rows together, whatever is in them

# What is said of what a migration is doing; see `MigrationStatus.activity`.
_ACTIVITIES = {
    "done": "Nothing is left to send.",
    "running": "The upload is running.",
    "outage": "The upload is running, but cannot reach Springest at the moment.",
    "paused": "The upload is paused: springest resume lets it go on.",
    "stopped": "No upload is running: springest upload goes on with the rows that wait.",
    "in doubt": "Nothing is left to send. The rows in doubt wait for an answer from Springest, or for a person.",
}

# Colours for which text and bars have a contrast of at least 4.5 and 3 on their backgrounds.
_CSS = """
:root { color-scheme: light dark; --page: #fff; --ink: #1d2430; --soft: #525b6b; --rule: #d5dae2; --panel: #f4f6f9;
  --stored: #197a55; --rejected: #c22f3d; --failed: #a65e00; --doubt: #7446bd; --waiting: #6b7280; --sending: #1f6fd0;
  --limit: #b3003c }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14181f; --ink: #e6e9ef; --soft: #a5aebd;
  --rule: #38414f; --panel: #1d232d; --stored: #41b98a; --rejected: #f0727c; --failed: #e0a047; --doubt: #b095ee;
  --waiting: #98a2b3; --sending: #6aaef5; --limit: #ff7d9c } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem }
p { margin: .5rem 0; max-width: 46rem }
.soft { color: var(--soft) }
.lead { font-size: 1.15rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 1rem 0 }
dt { color: var(--soft) }
dd { margin: 0; font-variant-numeric: tabular-nums }
figure { display: grid; grid-template-columns: minmax(0, 28rem) minmax(0, 1fr); gap: 1rem 2rem; margin: .5rem 0 }
figure > svg { width: 100%; height: auto; align-self: start }
.series .line { stroke-width: 2.5 !important }
.scroll { overflow: auto; max-height: 20rem; border: 1px solid var(--rule); border-radius: .375rem; align-self: start }
.scroll:focus-visible { outline: 3px solid var(--sending); outline-offset: 2px }
.long { max-height: none }
table { border-collapse: collapse; width: 100%; font-size: .875rem }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule) }
thead th { background: var(--panel); position: sticky; top: 0 }
tbody tr:last-child > * { border-bottom: 0 }
td, tbody th { font-weight: normal }
figure tbody th, .time { white-space: nowrap }
.number { text-align: right; font-variant-numeric: tabular-nums }
td.number { white-space: nowrap }
.exceeded, .stored-twice { color: var(--rejected) }
.state { white-space: nowrap }
.state::before { content: ""; display: inline-block; width: .65em; height: .65em; margin-right: .4em;
  border-radius: 50%; background: var(--dot) }
.file, .why, .id { overflow-wrap: anywhere; min-width: 11rem }
.id { font-family: ui-monospace, Consolas, "Liberation Mono", monospace; font-size: .8125rem }
code { font-family: ui-monospace, Consolas, "Liberation Mono", monospace; font-size: .9em; background: var(--panel);
  padding: .1em .3em; border-radius: .25rem; white-space: nowrap }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .75rem }
@media (max-width: 46rem) { figure { grid-template-columns: minmax(0, 1fr) } dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: .5rem } th, td { padding: .35rem }
  table { font-size: .8125rem } }
@media screen and (max-width: 37.5rem) { .stack, .stack tbody, .stack tr { display: block }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
  .stack tr { padding: .5rem 0; border-bottom: 1px solid var(--rule) }
  .stack tr > * { display: grid; grid-template-columns: 5.5rem minmax(0, 1fr); border: 0; padding: .1rem .6rem }
  .stack tr > *::before { content: attr(data-name); color: var(--soft) }
  .stack .file, .stack .why, .stack .id { min-width: 0 } }
@media print { figure { grid-template-columns: 20rem minmax(0, 1fr) }
  body { max-width: none; padding: 0; font-size: 10pt } h2 { break-after: avoid }
  .scroll { max-height: none; overflow: visible } tr, figure > svg { break-inside: avoid } thead th { position: static }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
"""


def page(summary: Summary, rows: Iterable[RowHistory], *, with_addresses: bool = False) -> str:
    """Return the report as a page.

    Args:
        summary: what is told.
        rows: the rows that a person must look at; the first `SHOWN` of them are shown.
        with_addresses: whether e-mail addresses are shown, which are personal data.

    Raises:
        ConfigurationError: pygal is missing, which draws the pictures.
    """
    return _Page(with_addresses).of(summary, rows)


class _Page:
    def __init__(self, with_addresses: bool) -> None:
        self._with_addresses = with_addresses

    def of(self, summary: Summary, rows: Iterable[RowHistory]) -> str:
        title = f"Upload of {self._text(summary.status.name)}"
        parts = [
            self._opening(title, summary),
            *(_section(picture.title, self._figure(picture)) for picture in _pictures(summary)),
            self._reasons(summary),
            self._rows(summary, rows),
            _proof(summary.audit),
        ]
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
            '<meta name="referrer" content="no-referrer">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
            + "\n".join(filter(None, parts))
            + f'\n</main>\n<footer class="soft"><p>{self._closing()}</p></footer>\n</body>\n</html>\n'
        )

    def _opening(self, title: str, summary: Summary) -> str:
        status, posts = summary.status, summary.posts
        facts = [
            ("Springest", escape(status.origin)),
            ("Rows of the manifest", number(status.rows + status.faulty)),
            ("Loaded first", f"{shown(posts.begun_at)} UTC"),
        ]
        if posts.posts:
            facts += [
                ("Sent", f"from {shown(posts.first_at)} to {shown(posts.last_at)} UTC"),
                ("POSTs", f"{number(posts.posts)}: {outcomes_of(posts)}"),
            ]
        items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
        stored, rows = status.counts[State.STORED], status.rows + status.faulty
        if not rows:
            lead = "This manifest has no rows in the journal."
        elif stored == rows:
            lead = f"All {number(stored)} certificates are stored."
        else:
            lead = f"{number(stored)} of {number(rows)} certificates are stored."
        activity = _ACTIVITIES[status.activity] if status.rows else ""
        faulty = f"<p>{escape(left_out(status.faulty))}.</p>" if status.faulty else ""
        verdict = sentence(summary.audit) if posts.posts else "Nothing was sent for this manifest."
        return (
            f'<h1>{title}</h1>\n<p class="soft">As of {shown(status.at)} UTC</p>\n'
            f'<p class="lead"><strong>{lead}</strong> {activity}</p>\n'
            f"{faulty}<p>{escape(verdict)}</p>\n<dl>{items}</dl>"
        )

    def _figure(self, picture: Picture) -> str:
        table = _table(picture.columns, [[escape(cell) for cell in row] for row in picture.rows], numbers=True)
        return f"<p>{escape(picture.words)}</p>\n<figure>{picture.svg}{_scrolling(picture.title, table)}</figure>"

    def _reasons(self, summary: Summary) -> str:
        if not summary.reasons:
            return ""
        lines = [[_state(reason.state), number(reason.rows), self._text(reason.words)] for reason in summary.reasons]
        more = summary.more_reasons
        rest = f"<p>… and {number(more)} other {'reason' if more == 1 else 'reasons'}.</p>" if more else ""
        table = _table(("outcome", "rows", "why"), lines)
        title = "Why rows are not stored"
        return _section(title, _scrolling(title, table, long=True) + rest)

    def _rows(self, summary: Summary, rows: Iterable[RowHistory]) -> str:
        title = "Rows that need a person"
        if not summary.status.wait_for_person:
            none = "<p>None, apart from those that were left out.</p>" if summary.status.faulty else "<p>None.</p>"
            return _section(title, _asked_about(summary.status) or none)
        columns = ["row", "file", "outcome", "why", "last sent (UTC)", "request id"]
        if self._with_addresses:
            columns.insert(2, "e-mail")
        lines, size = [], 0
        for row in islice(rows, SHOWN):
            why = self._text(plain_reason(row.reason) or row.words, row.email)
            line = [
                f"<div>{number(row.number)}</div>",
                f'<div class="file">{self._text(row.file, row.email)}</div>',
                f"<div>{_state(row.state)}</div>",
                f'<div class="why">{why}</div>',
                f'<div class="time">{shown(row.last_sent_at)}</div>',
                f'<div class="id">{self._text(row.request_id if row.tries else "")}</div>',
            ]
            if self._with_addresses:
                line.insert(2, f'<div class="file">{self._text(row.email)}</div>')
            size += sum(len(cell.encode()) for cell in line)
            if size > _MAX_ROWS_BYTES:
                break
            lines.append(line)
        more = summary.status.wait_for_person - len(lines)
        rest = f"<p>… and {number(more)} other rows. springest report --csv has all of them.</p>" if more > 0 else ""
        table = _table(columns, lines, stacked=True)
        return _section(
            title, _advice(summary) + _asked_about(summary.status) + _scrolling(title, table, long=True) + rest
        )

    def _text(self, text: str, email: str = "") -> str:
        """Return a text that came from elsewhere as HTML: shortened, and without addresses unless they are wanted."""
        if not self._with_addresses:
            text = without_addresses(_without(text, email))
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        return escape(text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}…")

    def _closing(self) -> str:
        addresses = "It shows e-mail addresses, which are personal data." if self._with_addresses else ""
        return f"Made by springest report {escape(__version__)}. {addresses}".strip()


def _pictures(summary: Summary) -> list[Picture]:
    pictures = [charts.outcomes(summary.status)] if summary.status.rows else []
    if summary.stretches:
        pictures.append(charts.throughput(summary.stretches, summary.audit.limit))
    if summary.answer_times:
        pictures.append(charts.answer_times(summary.answer_times))
    if any(stretch.refused or stretch.rejected or stretch.unanswered for stretch in summary.stretches):
        pictures.append(charts.refusals(summary.stretches))
    return pictures


def _proof(audit: Audit) -> str:
    """Return the verdict of the audit, and the numbers that show it."""
    title = "Was the limit kept, and nothing stored twice?"
    if audit.verdict == "nothing sent":
        return _section(title, f"<p>{escape(sentence(audit))}</p>")
    lines = [
        ("POSTs of this manifest", number(audit.own_posts)),
        ("all POSTs with the same key in that time", number(audit.posts)),
        ("POSTs without a time of Springest", number(audit.undated)),
        (f"most in any {audit.period:g} s, by our clock", _peak(audit.by_our_clock)),
        (f"most in any {audit.period:g} s, by the clock of Springest", _peak(audit.by_server_clock)),
        (f"allowed in any {audit.period:g} s", number(audit.limit)),
        ("refused and sent again", number(audit.refused)),
        ("… of them as too fast", number(audit.too_fast)),
        ("stored twice", number(audit.doubles)),
        ("sent again, because Springest did not list it", number(audit.sent_again)),
        ("rows in doubt", number(audit.in_doubt)),
    ]
    doubles = "".join(f"<li>{escape(_double(double))}</li>" for double in audit.first_doubles)
    more = audit.doubles - len(audit.first_doubles)
    rest = f"<p>… and {number(more)} more: springest audit shows how to find them.</p>" if more > 0 else ""
    again = "".join(f"<li>{escape(_sent_again(one))}</li>" for one in audit.first_sent_again)
    more = audit.sent_again - len(audit.first_sent_again)
    others = f"<p>… and {number(more)} more that were sent again.</p>" if more > 0 else ""
    return _section(
        title,
        f'<p><strong class="{audit.verdict.replace(" ", "-")}">{escape(sentence(audit))}</strong></p>'
        + "".join(f"<p>{escape(note)}</p>" for note in notes(audit))
        + _scrolling(title, _table(("what was counted", "number"), lines), long=True)
        + (f"<ul>{doubles}</ul>{rest}" if doubles else "")
        + (f"<ul>{again}</ul>{others}" if again else ""),
    )


def _peak(peak: Peak | None) -> str:
    if peak is None:
        return "not known"
    return f"{number(peak.posts)}, from {peak.at:%Y-%m-%d %H:%M:%S} UTC" if peak.at else number(peak.posts)


def _double(double: Double) -> str:
    what = (
        "stored by several POSTs" if double.springest_id is None else f"all with Springest's id {double.springest_id}"
    )
    return f"{_rows_of(double)}: {what}; request ids {', '.join(double.request_ids)}"


def _sent_again(one: SentAgain) -> str:
    was = ", ".join(map(str, one.missing_ids)) or "not known"
    now = "not known yet" if one.springest_id is None else str(one.springest_id)
    return (
        f"{_rows_of(one)}: sent again; Springest's id was {was}, and is {now}; request ids {', '.join(one.request_ids)}"
    )


def _rows_of(found: Double | SentAgain) -> str:
    return f"{'Row' if len(found.rows) == 1 else 'Rows'} {', '.join(map(str, found.rows))}"


def _advice(summary: Summary) -> str:
    """Return what to do about the rows that need a person."""
    counts, words = summary.status.counts, []
    if counts[State.IN_DOUBT] > summary.status.doubts.asked:
        words.append(
            "Rows <strong>in doubt</strong> were sent, but no answer said whether they are stored. Look them up at"
            " Springest (its staff can find each by its request id), then run <code>springest resolve</code> with"
            " <code>--stored</code> or <code>--send-again</code>."
        )
    if counts[State.REJECTED] or counts[State.FAILED]:
        words.append(
            "<strong>Rejected</strong> rows were refused by Springest for good, and <strong>failed</strong> ones could"
            " not be sent. <code>springest report --failed FILE</code> writes both to a new manifest, to be corrected"
            " and uploaded."
        )
    return "".join(f"<p>{each}</p>" for each in words)


def _asked_about(status: MigrationStatus) -> str:
    """Return what is said of rows in doubt that need no person yet."""
    if not (asked := status.doubts.asked):
        return ""
    rows, they = ("1 row", "it needs") if asked == 1 else (f"{number(asked)} rows", "they need")
    return f"<p>A run is asking Springest about {rows} in doubt now, so {they} no person yet.</p>"


def _without(text: str, email: str) -> str:
    """Return a text without this address, also where it is a part of a file's name."""
    if not email:
        return text
    found, at = [], 0
    folded, wanted = text.lower(), email.lower()
    if len(folded) != len(text):  # some letters have a lower case of two, and the places would not agree
        return text.replace(email, "…")
    while (place := folded.find(wanted, at)) >= 0:
        found += [text[at:place], "…"]
        at = place + len(wanted)
    return "".join([*found, text[at:]])


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _scrolling(title: str, table: str, *, long: bool = False) -> str:
    """Return a table in a box of its own, in which the keyboard can scroll too."""
    classes = "scroll long" if long else "scroll"
    return f'<div class="{classes}" role="region" aria-label="{escape(title)}, as a table" tabindex="0">{table}</div>'


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False, stacked: bool = False
) -> str:
    """Return a table; its cells are HTML.

    Args:
        columns: their names.
        rows: the cells of each row.
        numbers: whether all columns but the first have numbers.
        stacked: whether the cells of a row stand below each other, with their names, where a screen is narrow.
    """
    right = [False, *[numbers] * (len(columns) - 1)]
    head = "".join(
        f'<th scope="col"{_role("columnheader", stacked)}{_number(is_number)}>{escape(name)}</th>'
        for name, is_number in zip(columns, right, strict=True)
    )
    names = [f' data-name="{escape(name)}"' if stacked else "" for name in columns]
    row_role, head_role, cell_role = (_role(name, stacked) for name in ("row", "rowheader", "cell"))
    body = "".join(
        f"<tr{row_role}>"
        + "".join(
            f'<th scope="row"{head_role}{name}>{cell}</th>'
            if not place
            else f"<td{cell_role}{name}{_number(right[place])}>{cell}</td>"
            for place, (name, cell) in enumerate(zip(names, row, strict=True))
        )
        + "</tr>"
        for row in rows
    )
    group, stack = _role("rowgroup", stacked), ' class="stack" role="table"' if stacked else ""
    return f"<table{stack}><thead{group}><tr{row_role}>{head}</tr></thead><tbody{group}>{body}</tbody></table>"


def _role(name: str, stacked: bool) -> str:
    """Return the role of a part of a table that may be shown as blocks, which some browsers take for no table then."""
    return f' role="{name}"' if stacked else ""


def _number(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _state(state: State) -> str:
    return f'<span class="state" style="--dot: var(--{charts.COLOURS[state]})">{state.value}</span>'
