"""From the bytes of an answer to records: the one place where an answer is taken apart.

JSON and Rails' XML become the same plain values (`parse`), and one cattrs converter makes records of them
(`page`, `receipt_id`). Strict about types, because ``int(1.9)`` and ``bool("false")`` would corrupt data without
a word; tolerant of the shapes that Springest leaves open: with or without an envelope, ids as strings, a name on
the certificate or on a nested certification, unknown keys. Knows no status codes and no network.
"""

import json
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Generic, Literal, NoReturn, TypeVar
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from attrs import frozen
from cattrs import Converter, transform_error
from cattrs.gen import make_dict_structure_fn
from defusedxml.ElementTree import DefusedXMLParser

from springest_async.records import Certificate

__all__ = ["DecodeError", "Page", "WireFormat", "page", "parse", "receipt_id"]

WireFormat = Literal["json", "xml"]
"""What the API speaks; the extension of the path picks it."""

Record = TypeVar("Record")

# Bounds that only an attacker meets: a list nests four deep, its namespaces (if any) are short addresses, and a page
# is a hundred records. What gets past them costs time and memory in proportion to its bytes.
_DEEPEST = 32
_MOST_DIGITS = 100
_LONGEST_NAMESPACE = 256
_MOST_PROBLEMS = 100


class DecodeError(ValueError):
    """The bytes are not what they should be; its text is what was expected where."""


@frozen
class Page(Generic[Record]):
    """One page of a list. `total` is how many records the whole list has, or None when the server does not tell."""

    records: tuple[Record, ...]
    total: int | None = None


def page(data: bytes, wire_format: WireFormat, record: type[Record], name: str) -> Page[Record]:
    """Read a page of a list: a bare array, or an envelope that has it under `name`.

    Raises:
        DecodeError: with the places in the page that are not as they should be: the first few in full, and how many
            more there are in the records until the hundredth such place.
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
    problems: list[str] = []
    for index, item in enumerate(plain):
        # One at a time, because an error is a thousand times as big as the bytes that it is about.
        try:
            records.append(_converter.structure(item, record))
        except Exception as error:  # noqa: BLE001 # cattrs raises groups of whatever the hooks below raised
            problems += transform_error(error, path=f"{name}[{index}]", format_exception=_problem)
            if len(problems) >= _MOST_PROBLEMS:
                break
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise DecodeError("; ".join(problems[:3]) + more)
    return Page(tuple(records), total)


def receipt_id(data: bytes, wire_format: WireFormat) -> int | None:
    """Read the new id from a 201's body, or None when the body does not tell one.

    Never raises: the status has said "stored" already, and nothing in the body can take that back.
    """
    try:
        plain = parse(data, wire_format)
        while isinstance(plain, dict) and "id" not in plain and len(plain) == 1:
            plain = next(iter(plain.values()))  # {"certificate": {"id": …}}
        return _id(plain["id"]) if isinstance(plain, dict) else None
    except (DecodeError, KeyError):
        return None


def parse(data: bytes, wire_format: WireFormat) -> Any:
    """Make plain values (dict, list, str, int, float, bool, None) of JSON or of Rails' XML.

    XML's dashes in names become underscores, its ``type`` attributes become types, and its root's name is dropped,
    so that both formats give the same values.

    Raises:
        DecodeError: when the bytes are no such format, or try what only an attacker would.
    """
    try:
        if wire_format == "xml":
            parser = DefusedXMLParser(target=_Tree(), forbid_dtd=True)
            parser.feed(data)
            return _shallow(_plain(parser.close()))
        return _shallow(json.loads(data, parse_constant=_no_constant, parse_int=_whole, object_pairs_hook=_object))
    # ParseError is a SyntaxError; what defusedxml forbids is a ValueError, as is a wrong encoding. Some encodings warn,
    # and a program may have made warnings errors.
    except (ValueError, ParseError, LookupError, RecursionError, Warning) as error:
        raise DecodeError(f"{wire_format.upper()} ({_cut(str(error)) or type(error).__name__})") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _whole(digits: str) -> int:
    # Python's own bound can be switched off, and int() takes quadratic time.
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object with the same key twice")
    return members


def _shallow(plain: Any) -> Any:
    """Give the values back if they nest no deeper than all that walk through them can bear."""
    level = [plain]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return plain
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _inner(outer: Any) -> Iterable[Any]:
    if isinstance(outer, dict):
        return outer.values()
    return outer if isinstance(outer, list) else ()


class _Tree(TreeBuilder):
    def start_ns(self, _: str, uri: str) -> None:
        # The tree has it in the name of each element anew.
        if len(uri) > _LONGEST_NAMESPACE:
            raise ValueError(f"a namespace of {len(uri)} characters")


def _plain(element: Element) -> Any:
    """Undo Rails' ``to_xml``: https://api.rubyonrails.org/classes/ActiveModel/Serializers/Xml.html."""
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


def _total(meta: object) -> int | None:
    try:
        total = _integer(meta["results"]) if isinstance(meta, dict) else -1
    except (DecodeError, KeyError):
        return None
    return total if total >= 0 else None


def _shown(value: object) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


# --- the converter: one strict hook a type, because cattrs alone would coerce without a word ---


def _id(value: object, _: object = int) -> int:
    if not 0 < (number := _integer(value)) < 2**63:
        raise DecodeError(f"id, not {_shown(value)}")
    return number


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # Ids may come as strings. Nineteen digits are what a 64-bit id has at most.
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    raise DecodeError(f"integer, not {_shown(value)}")


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"string, not {_shown(value)}")
    # JSON can name half of a surrogate pair, which nothing could print or store; one such name spoils no list.
    return re.sub("[\ud800-\udfff]", "\ufffd", value)


def _boolean(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise DecodeError(f"boolean, not {_shown(value)}")
    return value


def _date(value: object, _: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass  # told below, like any other value that is no date
    raise DecodeError(f"date as in 2026-12-31, not {_shown(value)}")


def _datetime(value: object, _: object) -> datetime:
    """Read Rails' two ways to write a time; one without a zone is in UTC, in which Rails keeps its times."""
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]", value):
        try:
            time = datetime.fromisoformat(re.sub(r" ?(UTC|(?=[+-][0-9:]+$))", _zone, value))
            return time if time.tzinfo else time.replace(tzinfo=UTC)
        except ValueError:
            pass  # told below, like any other value that is no time
    raise DecodeError(f"time as in 2026-12-31T12:00:00Z, not {_shown(value)}")


def _zone(found: re.Match[str]) -> str:
    return "+00:00" if found[1] else ""


def _certificate(value: object, _: object) -> Certificate:
    # The help page's indentation leaves open whether these stand on the certificate or on its certification.
    if isinstance(value, dict) and isinstance(nested := value.get("certification"), dict):
        inherited = {"certification_id": "id", "name": "name", "description": "description"}
        value = value | {own: nested.get(theirs) for own, theirs in inherited.items() if value.get(own) is None}
    return _structure_certificate(value, Certificate)  # type: ignore[arg-type] # what is no mapping fails, as it must


def _problem(error: BaseException, _: type | None) -> str:
    if isinstance(error, DecodeError):
        return str(error)
    if isinstance(error, KeyError):
        return f"field {error}, which is missing"
    return "an object"


_converter = Converter(detailed_validation=True)
_converter.register_structure_hook(int, _id)  # no record has another integer
_converter.register_structure_hook(str, _string)
_converter.register_structure_hook(bool, _boolean)
_converter.register_structure_hook(date, _date)
_converter.register_structure_hook(datetime, _datetime)
_structure_certificate = make_dict_structure_fn(Certificate, _converter)
_converter.register_structure_hook(Certificate, _certificate)
