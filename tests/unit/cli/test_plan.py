"""What is shown of the plan of an upload."""

import io
from datetime import datetime, timedelta, timezone

import pytest
from attrs import evolve
from rich.console import Console

from springest_async.bulk import State
from springest_async.bulk.plan import Plan
from springest_async.bulk.rows import RowSet
from springest_async.bulk.totals import Totals
from springest_async.cli.plan import forecast, show_plan
from springest_async.limits.limiter import Limiter
from springest_async.manifest.certifications import Certifications
from springest_async.records import Certification

AMSTERDAM = timezone(timedelta(hours=1))
VCA = Certification(id=7, name="VCA Basis", requires_valid_until=True)


def plan(rows: int, *, to_send: int, seconds: float = 0.0, listed: RowSet | None = None, **known: int) -> Plan:
    totals = Totals(rows=rows)
    for row in range(2, to_send + 2):
        totals.add(row, 7, 50_000)
    totals.known.update({State[name.upper()]: count for name, count in known.items()})
    return Plan(totals=totals, listed=listed, seconds=seconds, posts_per_minute=30)


def shown(plan: Plan) -> list[str]:
    out = io.StringIO()
    show_plan(plan, "https://api.springest.nl", Console(file=out, width=100))
    return out.getvalue().splitlines()


def row_set(*numbers: int) -> RowSet:
    rows = RowSet()
    for number in numbers:
        rows.add(number)
    return rows


def test_plan_accounts_for_every_row() -> None:
    lines = shown(plan(1012, to_send=1000, listed=row_set(1008, 1009), stored=4, rejected=2, in_doubt=1))
    assert lines[:8] == [
        "Plan for https://api.springest.nl:",
        "      1 012  rows",
        "          4  stored before, so not sent again",
        "          2  rejected before, so not sent again (springest resolve … --send-again)",
        "          1  in doubt: an upload asks Springest whether they are stored",
        "          2  listed by Springest already, so not sent",
        "          3  with faults, so not sent",
        "      1 000  to send (50 MB)",
    ]


@pytest.mark.parametrize(
    ("certifications", "words"),
    [
        (Certifications.of([VCA]), "VCA Basis 3 required"),
        (Certifications.of([evolve(VCA, requires_valid_until=False)]), "VCA Basis 3 optional"),
        (Certifications.of([evolve(VCA, id=8)]), "is not listed 3"),
        (None, "unknown 3"),
    ],
)
def test_plan_says_what_certifications_need(certifications: Certifications | None, words: str) -> None:
    lines = shown(evolve(plan(3, to_send=3), certifications=certifications))
    assert any(" ".join(line.replace("│", " ").split()) == f"7 {words}" for line in lines)


def test_a_plan_of_nothing_has_no_forecast() -> None:
    assert shown(plan(5, to_send=0, stored=5))[1:] == [
        "          5  rows",
        "          5  stored before, so not sent again",
        "          0  to send",
    ]


def test_many_certifications_are_a_short_table() -> None:
    long = plan(0, to_send=0)
    for key in range(1, 501):
        long.totals.add(key, key, 1)
    assert "… and 480 other certifications" in shown(long)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a moment: done 14:05 if"),
        (3600, "about 1 h 00 min: done 15:05 if"),
        (22 * 3600 + 13 * 60, "about 22 h 13 min: done Wednesday 12:18 if"),
        (23 * 86400, "about 23 d 0 h: done Thursday 24 December 2026 14:05 if"),
    ],
)
def test_forecast_says_when_it_is_done(seconds: float, words: str) -> None:
    now = datetime(2026, 12, 1, 14, 5).astimezone()  # wherever this machine is
    assert words in forecast(plan(40_000, to_send=40_000, seconds=seconds), now)


def test_plan_knows_how_long_the_limit_makes_it_take() -> None:
    totals = Totals(rows=90)
    for row in range(2, 92):
        totals.add(row, 7, 1)
    made = Plan.of(totals, Limiter())
    assert 120 <= made.seconds < 121
    now = datetime(2026, 12, 1, 14, 5, tzinfo=AMSTERDAM)
    assert made.done_at(now) == now + timedelta(seconds=made.seconds)


def test_listed_rows_are_told_also_when_there_are_none() -> None:
    assert "          0  listed by Springest already" in shown(plan(1, to_send=1, listed=RowSet()))
    assert not [line for line in shown(plan(1, to_send=1)) if "listed by" in line]
