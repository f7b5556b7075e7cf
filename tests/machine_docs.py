"""docs/machines.md as a schema: what is written for machines is compared with the tables that people read."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

__all__ = ["EVENTS", "METRICS", "faults_of", "faults_of_event"]

_PAGE = (Path(__file__).parents[1] / "docs" / "machines.md").read_text(encoding="utf-8")


def _tables() -> dict[str, dict[str, str]]:
    """Return the type of each field, by the name in the heading above its table."""
    found: dict[str, dict[str, str]] = {}
    for name, text in re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", _PAGE, re.MULTILINE | re.DOTALL):
        found[name] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
        if "fields of a [summary]" in text:
            found[name] |= {"summary": "summary"}
    for name in [name for name, fields in found.items() if "summary" in fields]:
        del found[name]["summary"]
        found[name] |= found["summary"]
    return found


_TABLES = _tables()
_LOG = _PAGE[_PAGE.index("## Log") : _PAGE.index("## Metrics")]
_PARTS = ("finding", "certification", "summary", "run")

EVENTS = frozenset(re.findall(r"^### `(\w+)`", _LOG, re.MULTILINE)) - set(_PARTS)
"""The names of all events."""

METRICS = {
    name: (kind, words)
    for name, kind, words in re.findall(r"^\| `(springest_\w+)` \| (\w+) \|[^|]*\| ([^|]+?) \|", _PAGE, re.MULTILINE)
}
"""The type of each metric, and what its help says."""


def faults_of_event(record: Mapping[str, Any]) -> list[str]:
    """Return where an event differs from its table."""
    name = record.get("event")
    if name not in EVENTS:
        return [f"no such event: {name}"]
    return faults_of(record, str(name), {"event": "text", "at": "time"})


def faults_of(record: Any, table: str, more: Mapping[str, str] | None = None) -> list[str]:
    """Return where an object differs from a table of the page."""
    if not isinstance(record, dict):
        return [f"{table} is no object: {record!r}"]
    fields = {**_TABLES[table], **(more or {})}
    faults = [f"{table}.{name} is not in the page" for name in record.keys() - fields.keys()]
    faults += [f"{table}.{name} is missing" for name in fields.keys() - record.keys()]
    for name in record.keys() & fields.keys():
        faults += _faults_of_value(record[name], fields[name], f"{table}.{name}")
    return sorted(faults)


def _faults_of_value(value: Any, kind: str, where: str) -> list[str]:
    if kind.endswith(" or null"):
        return [] if value is None else _faults_of_value(value, kind.removesuffix(" or null"), where)
    if kind.startswith("list of "):
        if not isinstance(value, list):
            return [f"{where} is no list: {value!r}"]
        each = kind.removeprefix("list of ")
        return [fault for part in value for fault in _faults_of_value(part, each, where)]
    if kind.startswith("`"):
        return faults_of(value, kind.strip("`"))
    return [] if _is(value, kind) else [f"{where} is no {kind}: {value!r}"]


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "yes/no":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "time":
            return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() == timedelta(0)
        case _:
            raise ValueError(f"the page has an unknown type: {kind}")
