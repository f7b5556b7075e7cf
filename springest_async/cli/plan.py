"""Show the plan of an upload: for people, and as JSON."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from springest_async.bulk.plan import Plan
from springest_async.cli.bench_figures import readable
from springest_async.cli.console import cell, folding_table, say
from springest_async.cli.times import clock_time, duration
from springest_async.journal.records import State
from springest_async.manifest.certifications import Certifications
from springest_async.reports.numbers import count, number

_CERTIFICATIONS_SHOWN = 20


def show_plan(plan: Plan, origin: str, out: Console) -> None:
    """Print what an upload would do: the rows, the certifications, and how long it takes."""
    say(out, f"Plan for {origin}:", "bold")
    for rows, words in _lines_of(plan):
        say(out, f"  {number(rows):>9}  {words}")
    certifications = plan.totals.certifications.most_common()
    if certifications := [(key, rows) for key, rows in certifications if rows]:
        table = folding_table("Certification", "Name", "Rows to send", "valid_until")
        for key, rows in certifications[:_CERTIFICATIONS_SHOWN]:
            name, needs = _words_of(plan.certifications, key)
            table.add_row(*map(cell, (str(key) if key > 0 else "?", name, number(rows), needs)))
        out.print(table)
        if (more := len(certifications) - _CERTIFICATIONS_SHOWN) > 0:
            say(out, f"… and {count(more, 'other certification')}")
    if plan.totals.to_send:
        say(out, forecast(plan))


def _words_of(certifications: Certifications | None, key: int) -> tuple[str, str]:
    """Return the name of a certification, and whether it requires valid_until, as far as they are known."""
    if certifications is None or (found := certifications.get(key)) is None:
        return "is not listed" if certifications is not None and certifications.is_complete else "unknown", ""
    if certifications.is_unlisted:
        return found.name, ""
    return found.name, "required" if found.requires_valid_until else "optional"


def _lines_of(plan: Plan) -> list[tuple[int, str]]:
    known, listed = plan.totals.known, len(plan.listed or ())
    lines = [
        (known[State.STORED], "stored before, so not sent again"),
        (known[State.REJECTED], "rejected before, so not sent again (springest resolve … --send-again)"),
        (known[State.IN_DOUBT], "in doubt: an upload asks Springest whether they are stored"),
        (listed, "listed by Springest already, so not sent"),
        (plan.faulty, "with faults, so not sent"),
    ]
    to_send = len(plan.totals.to_send)
    return [
        (plan.totals.rows, "row" if plan.totals.rows == 1 else "rows"),
        *((rows, words) for rows, words in lines if rows),
        *([(0, "listed by Springest already")] if plan.listed is not None and not listed else []),
        (to_send, f"to send{f' ({readable(plan.totals.size)})' if to_send else ''}"),
    ]


def forecast(plan: Plan, now: datetime | None = None) -> str:
    """Return how long an upload takes and when it is done, if it began now, in this machine's time zone."""
    now = now or datetime.now(UTC)
    at = clock_time(plan.done_at(now), now)
    takes = f"about {duration(plan.seconds)}" if plan.seconds >= 1 else "a moment"
    return f"At {count(plan.posts_per_minute, 'certificate')} a minute this takes {takes}: done {at} if started now."


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan, for ``--format json``."""
    known, certifications = plan.totals.known, plan.certifications
    return {
        "rows": plan.totals.rows,
        "to_send": len(plan.totals.to_send),
        "bytes": plan.totals.size,
        "stored_before": known[State.STORED],
        "rejected_before": known[State.REJECTED],
        "in_doubt": known[State.IN_DOUBT],
        "listed": None if plan.listed is None else len(plan.listed),
        "faulty": plan.faulty,
        "certifications": [
            {
                "id": key if key > 0 else None,
                "rows": rows,
                "name": found.name if found else None,
                "is_listed": found is not None if certifications and certifications.is_complete else None,
                "requires_valid_until": found.requires_valid_until if found and key > 0 else None,
            }
            for key, rows in plan.totals.certifications.most_common()
            if rows
            for found in [None if certifications is None else certifications.get(key)]
        ],
        "posts_per_minute": plan.posts_per_minute,
        "seconds": round(plan.seconds),
        "done_at": plan.done_at().isoformat(timespec="seconds"),
    }
