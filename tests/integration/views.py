"""What each view says of a migration, as the same numbers: the page, the terminal, reports and JSON.

A view is read as a person or a script reads it: a page by what it shows, the terminal by what stands on it.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Page
from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import A_WHILE

from .command import springest

__all__ = [
    "Numbers",
    "agreed",
    "numbers_in_json",
    "numbers_in_log",
    "numbers_in_metrics",
    "numbers_in_page",
    "numbers_in_report",
    "numbers_in_terminal",
    "status_of",
    "status_until",
]

Numbers = Mapping[str, int]
"""The rows by state, as in JSON: ``stored``, ``in_doubt`` …"""

_STATES = ("stored", "rejected", "failed", "in_doubt", "waiting", "sending")
_BETWEEN_LOOKS = 0.3


async def status_of(manifest: Path, journal: str) -> dict[str, Any]:
    """Return what ``springest status --format json`` prints of a manifest."""
    ran = await springest("status", manifest, "--format", "json", SPRINGEST_JOURNAL=journal)
    assert ran.err == ""
    status: dict[str, Any] = json.loads(ran.out)
    return status


async def status_until(
    condition: Callable[[dict[str, Any]], bool], manifest: Path, journal: str, *, within: float = A_WHILE
) -> dict[str, Any]:
    """Wait until the status of a manifest is so (seconds), and return it."""
    status: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within):
            while True:
                status = await status_of(manifest, journal)
                if condition(status):
                    return status
                await asyncio.sleep(_BETWEEN_LOOKS)
    except TimeoutError:
        raise AssertionError(f"still {json.dumps(status, indent=2)}") from None


def numbers_in_json(status: Mapping[str, Any]) -> Numbers:
    """Return the numbers of ``springest status --format json``, also where it is a part of something else."""
    return {state: status["counts"][state] for state in _STATES}


async def numbers_in_page(page: Page) -> Numbers:
    """Return the numbers that the status page shows of its only migration."""
    shown = (
        await page.get_by_role("region")
        .filter(has=page.get_by_role("heading", level=2))
        .first.locator("dl")
        .inner_text()
    )
    cells = [line for line in shown.splitlines() if line]
    return {_state(title): _number(value) for title, value in zip(cells[::2], cells[1::2], strict=True)}


_COUNT = re.compile(r"(\d[\d ]*) (stored|rejected|failed|in doubt|being sent|waiting)")


def numbers_in_terminal(lines: Sequence[str]) -> Numbers:
    """Return the numbers of the display of an upload; those that it leaves out are 0."""
    parts = [line.split(", ") for line in lines]
    (counts,) = [found for line in parts if all(found := [_COUNT.fullmatch(part) for part in line])][-1:] or [[]]
    shown = {_state(found[2]): _number(found[1]) for found in counts if found}
    return dict.fromkeys(_STATES, 0) | shown


async def numbers_in_report(page: Page) -> Numbers:
    """Return the numbers of the page that ``springest report`` has written."""
    table = page.get_by_role("region", name="What became of the rows, as a table")
    rows = [line.split("\t") for line in (await table.inner_text()).splitlines()[1:]]
    return dict.fromkeys(_STATES, 0) | {_state(title): _number(value) for title, value, _ in rows}


def _state(words: str) -> str:
    """Return the name of a state in JSON for what people read."""
    return {"being sent": "sending"}.get(words.lower(), words.lower().replace(" ", "_"))


def _number(text: str) -> int:
    return int(re.sub(r"\s", "", text))


def numbers_in_log(text: str) -> Numbers:
    """Return the numbers of the last object of ``--log-format json``, which says how a run has ended."""
    (end,) = [line for line in map(_object_in, text.splitlines()) if line.get("event") == "end"]
    return numbers_in_json(end["status"])


def _object_in(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
    return found


def numbers_in_metrics(text: str) -> Numbers:
    """Return the numbers of a file for Prometheus."""
    return {
        sample.labels["state"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "springest_rows"
    }


async def agreed(views: Mapping[str, Callable[[], Awaitable[Numbers]]]) -> Numbers:
    """Wait until all views show the same numbers, where nothing moves, and return them.

    A view may be some seconds old, so none is expected to be right at once.
    """
    shown: dict[str, Numbers] = {}
    try:
        async with asyncio.timeout(A_WHILE):
            while True:
                shown = {name: await read() for name, read in views.items()}
                first, *others = shown.values()
                if all(other == first for other in others):
                    return first
                await asyncio.sleep(_BETWEEN_LOOKS)
    except TimeoutError:
        raise AssertionError(f"the views do not agree: {shown}") from None
