"""Decode the body of an answer into records; no other module parses JSON or XML.

`parse` turns JSON and Rails' XML into the same plain values, and `structure.py` turns those into records. A list may
come with or without an envelope. It knows no status codes and no network.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Literal

from attrs import frozen

from springest_async.api.structure import (
    DecodeError,
    Record,
    cut,
    identifier,
    integer,
    shown,
    structure,
    structure_strictly,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["DecodeError", "Page", "Record", "WireFormat", "page", "parse", "receipt_id"]

WireFormat = Literal["json", "xml"]
"""The formats of the API; the extension of the path selects one."""

# A list nests four deep. The bound keeps functions that walk the values within Python's recursion limit.
_MAX_DEPTH = 32

# How a document of Rails begins, and one without a declaration: both are in UTF-8.
_AS_RAILS = re.compile(rb'<(?:\?xml version="1\.0" encoding="UTF-8"\?>|[a-zA-Z])')


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
    records: list[Record] = []
    for index, item in enumerate(plain):
        try:
            records.append(structure(item, record))
        except Exception:  # noqa: BLE001 # whatever it is, the other way finds it, and says it in words
            _check_depth([item], wire_format)
            # One at a time: an error takes a thousand times the memory of the bytes that caused it.
            records.append(structure_strictly(item, record, f"{name}[{index}]"))
    return Page(tuple(records), total)


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
        return _plain(_root(data)) if wire_format == "xml" else json.loads(data)
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


def _root(data: bytes) -> "Element":
    """Return the outermost element of an XML document."""
    # Imported here, because only lists and answers in XML need them.
    if _AS_RAILS.match(data) and b"<!DOCTYPE" not in data and b"xmlns" not in data:
        # In UTF-8 a DTD or a namespace is written with these letters only, so there is nothing that could be forbidden.
        from xml.etree.ElementTree import XMLParser  # noqa: PLC0415

        quick: XMLParser = XMLParser(encoding="utf-8")  # noqa: S314
        quick.feed(data)
        root: Element = quick.close()
        return root
    from xml.etree.ElementTree import TreeBuilder  # noqa: PLC0415

    from defusedxml.ElementTree import DefusedXMLParser  # noqa: PLC0415

    class Tree(TreeBuilder):
        def start_ns(self, _prefix: str, _uri: str) -> None:
            # Rails writes none, and the tree would repeat a long one in the name of each element.
            raise ValueError("a namespace")

    parser = DefusedXMLParser(target=Tree(), forbid_dtd=True)
    parser.feed(data)
    return parser.close()


def _plain(element: "Element") -> Any:
    """Return the value that Rails' ``to_xml`` wrote: https://api.rubyonrails.org/classes/ActiveModel/Serializers/Xml.html."""
    if element.get("nil") == "true":
        return None
    kind = element.get("type")
    if kind == "array":
        return [_plain(child) for child in element]
    if len(element):
        return _members(element)
    text = element.text or ""
    if kind == "integer":
        return integer(text.strip())
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.strip(), text)
    return text


def _members(element: "Element") -> dict[str, Any]:
    members: dict[str, Any] = {}
    several: dict[str, list[Any]] = {}
    for child in element:
        name, value = child.tag.replace("-", "_"), _plain(child)
        if name in members:
            several.setdefault(name, [members[name]]).append(value)
        else:
            members[name] = value
    return members | several


def _total(meta: Any) -> int | None:
    with suppress(DecodeError, KeyError, TypeError):
        if (total := integer(meta["results"])) >= 0:
            return total
    return None
