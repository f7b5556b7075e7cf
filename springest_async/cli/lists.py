"""``springest certificates`` and ``springest certifications``: lists as a table, JSON or CSV, on stdout."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import date
from typing import IO, Any

import attrs
from rich.console import Console

from springest_async.cli.console import Format, cell, folding_table, plain
from springest_async.manifest.formulas import escape
from springest_async.records import Certificate, Certification, User

_Record = Certificate | Certification


async def show(kind: type[_Record], records: AsyncIterator[_Record], form: Format, out: Console) -> None:
    """Print records of one kind: JSON and CSV as they arrive, a table at the end.

    In CSV, a cell that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    if form != "table" and isinstance(out.file, io.TextIOWrapper):
        # Data for programs does not depend on the terminal's encoding.
        out.file.reconfigure(encoding="utf-8", errors="backslashreplace")
    match form:
        case "json":
            await _json(records, out.file)
        case "csv":
            writer = csv.writer(out.file)
            writer.writerow(_columns(kind))
            shown = plain if out.is_terminal else str  # programs get each cell unchanged
            async for record in records:
                writer.writerow(escape(shown(text)) for text in _cells(record))
        case "table":
            table = folding_table(*_columns(kind))
            async for record in records:
                table.add_row(*map(cell, _cells(record)))
            out.print(table)


async def _json(records: AsyncIterator[_Record], stream: IO[str]) -> None:
    stream.write("[")
    separator = "\n"
    async for record in records:
        text = json.dumps(attrs.asdict(record, value_serializer=_value), ensure_ascii=False)
        # JSON permits some control characters (see `plain`); escape them as JSON does.
        if not text.isprintable():
            text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
        stream.write(separator + text)
        separator = ",\n"
    stream.write("\n]\n")


def _value(_: Any, __: Any, value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _columns(kind: type[_Record]) -> list[str]:
    names = [field.name for field in attrs.fields(kind) if field.name != "user"]
    return names + ([f"user_{field.name}" for field in attrs.fields(User)] if kind is Certificate else [])


def _cells(record: _Record) -> list[str]:
    values = attrs.asdict(record, value_serializer=_value)
    if isinstance(record, Certificate):
        user = values.pop("user") or {}
        values |= {f"user_{field.name}": user.get(field.name) for field in attrs.fields(User)}
    return ["" if value is None else str(value) for value in values.values()]
