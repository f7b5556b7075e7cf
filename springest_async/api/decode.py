"""Decode the body of an answer into records; no other module parses JSON or XML.

`parse` turns JSON and Rails' XML into the same plain values, and one cattrs converter turns those into records
(`page`, `receipt_id`). It is strict about types, because ``int(1.9)`` and ``bool("false")`` would silently corrupt
data. It accepts every shape that Springest's pages leave open: with or without an envelope, ids as strings, a name on
the certificate or on a nested certification, unknown keys. It knows no status codes and no network.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, Generic, Literal, TypeVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from attrs import frozen
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn
from defusedxml.ElementTree import DefusedXMLParser

from springest_async.records import Certificate, Certification

WireFormat = Literal["json", "xml"]
"""The formats of the API; the extension of the path selects one."""

Record = TypeVar("Record", Certificate, Certification)

# A list nests four deep. The bound keeps functions that walk the values within Python's recursion limit.
_MAX_DEPTH = 32


class DecodeError(ValueError):
    """The bytes are not what was expected; the text says what was expected, and where."""


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
    plain = parse(data, wire_format)
    total = None
    if isinstance(plain, dict):
        total = _total(plain.get("meta"))
        if name not in plain:
            raise DecodeError(f"an array {name!r} in the envelope, which has {_shown(sorted(plain))}")
        plain = plain[name]
    if not isinstance(plain, list):
        raise DecodeError(f"an array of {name}, not {_shown(plain)}")
    records: list[Record] = []
    for index, item in enumerate(plain):
        # One at a time: an error takes a thousand times the memory of the bytes that caused it.
        try:
            records.append(_converter.structure(item, record))
        except Exception as error:  # noqa: BLE001 # cattrs groups all exceptions that the hooks below raised
            problems = transform_error(error, path=f"{name}[{index}]", format_exception=_problem)
            raise DecodeError("; ".join(problems[:3])) from None
    return Page(tuple(records), total)


def receipt_id(data: bytes, wire_format: WireFormat) -> int | None:
    """Return the id of the new certificate from the body of a 201, or None when the body contains no id.

    It never raises: the status already means "stored", whatever the body contains.
    """
    try:
        plain = parse(data, wire_format)
        while isinstance(plain, dict) and "id" not in plain and len(plain) == 1:
            plain = next(iter(plain.values()))  # {"certificate": {"id": …}}
        return _id(plain["id"]) if isinstance(plain, dict) else None
    except (DecodeError, KeyError):
        return None


def parse(data: bytes, wire_format: WireFormat) -> Any:
    """Return the plain values (dict, list, str, int, float, bool, None) of JSON or of Rails' XML.

    In XML, dashes in names become underscores, the ``type`` attributes become types, and the name of the root is
    dropped, so that both formats give the same values.

    Raises:
        DecodeError: when the bytes are not in this format, nest more than 32 deep, or contain a DTD or a namespace.
    """
    try:
        if wire_format == "xml":
            parser = DefusedXMLParser(target=_Tree(), forbid_dtd=True)
            parser.feed(data)
            plain = _plain(parser.close())
        else:
            plain = json.loads(data)
        _check_depth([plain])
    # ParseError is a SyntaxError; what defusedxml forbids is a ValueError, as is a wrong encoding. Some encodings warn,
    # and a program may turn warnings into errors.
    except (ValueError, ParseError, LookupError, RecursionError, Warning) as error:
        raise DecodeError(f"{wire_format.upper()} ({_cut(str(error)) or type(error).__name__})") from None
    return plain


def _check_depth(plain: Iterable[Any], depth: int = _MAX_DEPTH) -> None:
    if depth < 0:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    for inner in plain.values() if isinstance(plain, dict) else plain:
        if isinstance(inner, dict | list):
            _check_depth(inner, depth - 1)


class _Tree(TreeBuilder):
    def start_ns(self, _prefix: str, _uri: str) -> None:
        # Rails writes none, and the tree would repeat a long one in the name of each element.
        raise ValueError("a namespace")


def _plain(element: Element) -> Any:
    """Return the value that Rails' ``to_xml`` wrote: https://api.rubyonrails.org/classes/ActiveModel/Serializers/Xml.html."""
    kind = element.get("type")
    if element.get("nil") == "true":
        return None
    if kind == "array":
        return [_plain(child) for child in element]
    if len(element):
        return _members(element)
    text = element.text or ""
    if kind == "integer":
        return _integer(text.strip())
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.strip(), text)
    return text


def _members(element: Element) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for child in element:
        members.setdefault(child.tag.replace("-", "_"), []).append(_plain(child))
    return {name: values[0] if len(values) == 1 else values for name, values in members.items()}


def _total(meta: Any) -> int | None:
    with suppress(DecodeError, KeyError, TypeError):
        if (total := _integer(meta["results"])) >= 0:
            return total
    return None


def _shown(value: object) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


# --- the converter: one strict hook for each type, because cattrs alone would convert silently ---


def _id(value: object, _: object = int) -> int:
    if not 0 < (number := _integer(value)) < 2**63:
        raise DecodeError(f"id, not {_shown(value)}")
    return number


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # Ids may be strings. A 64-bit id has at most nineteen digits.
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    raise DecodeError(f"integer, not {_shown(value)}")


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"string, not {_shown(value)}")
    # JSON can contain half of a surrogate pair, which cannot be printed or stored.
    return re.sub("[\ud800-\udfff]", "\ufffd", value)


def _boolean(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise DecodeError(f"boolean, not {_shown(value)}")
    return value


def _date(value: object, _: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise DecodeError(f"date as in 2026-12-31, not {_shown(value)}")


def _datetime(value: object, _: object) -> datetime:
    """Return a time that Rails wrote in either of its two ways; without a zone it is UTC, in which Rails stores it."""
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]", value):
        with suppress(ValueError):
            time = datetime.fromisoformat(re.sub(r" UTC$| (?=[+-][0-9:]+$)", "", value))
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    raise DecodeError(f"time as in 2026-12-31T12:00:00Z, not {_shown(value)}")


def _certificate(value: object, _: object) -> Certificate:
    # The help page does not say whether these belong to the certificate or to its certification.
    if isinstance(value, dict) and isinstance(nested := value.get("certification"), dict):
        inherited = {"certification_id": "id", "name": "name", "description": "description"}
        value = value | {own: nested.get(theirs) for own, theirs in inherited.items() if value.get(own) is None}
    return _structure_certificate(value, Certificate)  # type: ignore[arg-type] # anything but a mapping fails


def _problem(error: BaseException, _: type | None) -> str:
    if isinstance(error, DecodeError):
        return str(error)
    if isinstance(error, KeyError):
        return f"field {error}, which is missing"
    return "an object"


_converter = Converter(detailed_validation=True)
_converter.register_structure_hook(int, _id)  # every integer of a record is an id
_converter.register_structure_hook(str, _string)
_converter.register_structure_hook(bool, _boolean)
_converter.register_structure_hook(date, _date)
_converter.register_structure_hook(datetime, _datetime)
_structure_certificate = make_dict_structure_fn(Certificate, _converter)
_converter.register_structure_hook(Certificate, _certificate)
