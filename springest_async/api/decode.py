"""Decode the body of an answer into records; no other module parses JSON or XML.

`parse` turns JSON and Rails' XML into the same plain values, and `structure.py` turns those into records. A list may
come with or without an envelope. It knows no status codes and no network.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, Literal

from attrs import frozen

from springest_async.api.structure import (
    DecodeError,
    Record,
    cut,
    identifier,
    integer,
    quick_structure,
    shown,
    structure_strictly,
)

__all__ = ["DecodeError", "Page", "Record", "WireFormat", "page", "parse", "receipt_id"]

WireFormat = Literal["json", "xml"]
"""The formats of the API; the extension of the path selects one."""

# A list nests four deep. The bound keeps functions that walk the values within Python's recursion limit.
_MAX_DEPTH = 32


@frozen
class Page(Generic[Record]):
    """One page of a list; `total` is the number of records in the whole list, or None when the server does not say."""

    records: tuple[Record, ...]
    total: int | None = None


def page(data: bytes, wire_format: WireFormat, record: type[Record], name: str) -> Page[Record]:
    """Return a page of a list, which is a bare array or an envelope with the array under `name`.

    Raises:
        DecodeError: when it is no such list, or a record has a wrong value; it names up to three wrong values of the
            first such record.
    """
    plain = _read(data, wire_format)
    total = None
    if isinstance(plain, dict):
        _check_depth((value for key, value in plain.items() if key != name), wire_format)
        total = _total(plain.get("meta"))
        if name not in plain:
            raise DecodeError(f"an array {name!r} in the envelope, which has {shown(sorted(plain))}")
        plain = plain[name]
    if not isinstance(plain, list):
        _check_depth([plain], wire_format)
        raise DecodeError(f"an array of {name}, not {shown(plain)}")
    quick = quick_structure(record)
    try:
        return Page(tuple([quick(item) for item in plain]), total)
    except Exception:  # noqa: BLE001 # whatever it is, the other way finds it, and says it in words
        return Page(tuple(_strictly(plain, wire_format, record, name)), total)


def _strictly(plain: list[Any], wire_format: WireFormat, record: type[Record], name: str) -> Iterator[Record]:
    # One at a time: an error takes a thousand times the memory of the bytes that caused it.
    for index, item in enumerate(plain):
        _check_depth([item], wire_format)
        yield structure_strictly(item, record, f"{name}[{index}]")


def receipt_id(data: bytes, wire_format: WireFormat) -> int | None:
    """Return the id of the new certificate from the body of a 201, or None when the body contains no id.

    It never raises: the status already means "stored", whatever the body contains.
    """
    try:
        plain = parse(data, wire_format)
        while isinstance(plain, dict) and "id" not in plain and len(plain) == 1:
            plain = next(iter(plain.values()))  # {"certificate": {"id": …}}
        return identifier(plain["id"]) if isinstance(plain, dict) else None
    except (DecodeError, KeyError):
        return None


def parse(data: bytes, wire_format: WireFormat) -> Any:
    """Return the plain values (dict, list, str, int, float, bool, None) of JSON or of Rails' XML.

    In XML, dashes in names become underscores, the ``type`` attributes become types, and the name of the root is
    dropped, so that both formats give the same values.

    Raises:
        DecodeError: when the bytes are not in this format, nest more than 32 deep, or contain a DTD or a namespace.
    """
    plain = _read(data, wire_format)
    _check_depth([plain], wire_format)
    return plain


def _read(data: bytes, wire_format: WireFormat) -> Any:
    """Return plain values that may nest deeper than Python's recursion limit allows to walk."""
    try:
        if wire_format == "json":
            return json.loads(data)
        from springest_async.api import rails_xml  # noqa: PLC0415 # few programs ask for XML

        return rails_xml.read(data)
    # What defusedxml forbids is a ValueError, as is a wrong encoding; the XML parser raises a SyntaxError. Some
    # encodings warn, and a program may turn warnings into errors.
    except (ValueError, SyntaxError, LookupError, RecursionError, Warning) as error:
        raise DecodeError(f"{wire_format.upper()} ({cut(str(error)) or type(error).__name__})") from None


def _check_depth(plain: Iterable[Any], wire_format: WireFormat, depth: int = _MAX_DEPTH) -> None:
    if depth < 0:
        raise DecodeError(f"{wire_format.upper()} (nested more than {_MAX_DEPTH} deep)")
    for inner in plain.values() if isinstance(plain, dict) else plain:
        if isinstance(inner, dict | list):
            _check_depth(inner, wire_format, depth - 1)


def _total(meta: Any) -> int | None:
    with suppress(DecodeError, KeyError, TypeError):
        if (total := integer(meta["results"])) >= 0:
            return total
    return None
