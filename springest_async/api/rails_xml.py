"""Read the XML of Rails' ``to_xml`` into plain values: https://api.rubyonrails.org/classes/Hash.html#method-i-to_xml.

What is written exactly as Rails writes it takes a short way, five times as fast: its text is split at each ``<``. That
accepts a small part of XML only: one declaration, elements without attributes other than ``type`` and ``nil``, and
texts with the five entities. A DTD, a namespace, a comment, an instruction, CDATA, or anything else that it does not
know goes to a parser of all XML, which refuses what could be an attack.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from springest_async.api.structure import integer

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read(data: bytes) -> Any:
    """Return the plain values of a document, however deep they nest.

    Dashes in names become underscores, the ``type`` attributes become types, and the name of the root is dropped.

    Raises:
        ValueError, SyntaxError, LookupError, RecursionError, Warning: it is no XML, or contains a DTD or a namespace.
    """
    try:
        return _split(data)
    except _Unusual:
        return _plain(_root(data))


# --- the short way ---

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
_BLANK = " \t\n"
_BEGIN = re.compile(r'([a-zA-Z][a-zA-Z0-9_-]*)(?: type="([a-zA-Z]+)"| (nil)="true")?(/?)')
# Not a carriage return, which the other parser turns into a newline.
_NO_TEXT = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCE = re.compile("&(?:[a-z]+;)?")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}


class _Unusual(Exception):
    """Rails does not write such a document."""


def _split(data: bytes) -> Any:
    """Return the plain values of a document.

    Raises:
        _Unusual: the parser of all XML is to decide.
    """
    try:
        before, *pieces = data.decode().removeprefix(_DECLARATION).split("<")
        _check_blank(before)
        return _value(pieces)
    except (ValueError, KeyError, IndexError):  # no UTF-8, no integer, no such entity, or not well-formed
        raise _Unusual from None


def _value(pieces: list[str]) -> Any:
    """Return the value of the root from what is behind each ``<``: a tag, and the text up to the next one."""
    tags, ends = _Tags(), _Ends()
    outer: list[tuple[_Tag, Any, bool]] = []  # the elements that are open, each with the values beside it
    values: Any = []  # of the elements in the innermost one that has any: a list or a dict
    in_list = True
    kept = empty = 0  # how many values are in finished elements, and how many of all elements are empty
    opened: _Tag | None = None  # the last tag, if it begins an element: then only `text` was in it so far
    text = ""
    for piece in pieces:
        if piece[0] == "/":
            name = ends[piece]
            if opened is not None:
                tag, opened = opened, None
                # Most texts need no call.
                value = text if tag.is_string and text.isprintable() and "&" not in text else tag.read(text)
            else:
                value = values
                kept += len(values)
                tag, values, in_list = outer.pop()
            if name != tag.name:
                raise _Unusual
        else:
            if opened is not None:
                _check_blank(text)
                outer.append((opened, values, in_list))
                in_list = opened.is_array
                values = [] if in_list else {}
            written, text = piece.split(">")
            tag = tags[written]
            if not tag.is_empty:
                opened = tag
                continue
            _check_blank(text)
            opened, value = None, tag.read("")
            empty += 1
        if in_list:
            values.append(value)
        else:
            values[tag.key] = value
    (root,) = values
    # Each element has two tags or is empty. One whose value was replaced, by another of its name, is missing here.
    if opened is not None or outer or 2 * (kept + 1) != len(pieces) + empty:
        raise _Unusual
    return root


@frozen
class _Tag:
    """The beginning of an element, or a whole one that has nothing in it.

    Attributes:
        name: of the element.
        key: of its value.
        read: makes the value of the text in it, if there is nothing else.
        is_string: True when its value is the text.
        is_array: True when the elements in it are those of a list.
        is_empty: True when it is a whole one.
    """

    name: str
    key: str
    read: Callable[[str], Any]
    is_string: bool
    is_array: bool
    is_empty: bool


class _Tags(dict[str, _Tag]):
    """The tags of a document by what is written in them, of which a list has few."""

    def __missing__(self, written: str) -> _Tag:
        if not (found := _BEGIN.fullmatch(written)):
            raise _Unusual
        name, kind, nil, empty = found.groups()
        if nil and not empty:
            raise _Unusual
        read = _nil if nil else _READERS.get(kind, _string)
        tag = self[written] = _Tag(name, name.replace("-", "_"), read, read is _string, kind == "array", bool(empty))
        return tag


class _Ends(dict[str, str]):
    """The names of elements by their ends, with the white space behind those, of which a list has few."""

    def __missing__(self, piece: str) -> str:
        name, text = piece[1:].split(">")
        _check_blank(text)
        self[piece] = name
        return name


def _check_blank(text: str) -> None:
    if text.strip(_BLANK):
        raise _Unusual


def _string(text: str) -> str:
    if _NO_TEXT.search(text):
        raise _Unusual
    return _REFERENCE.sub(lambda found: _ENTITIES[found[0]], text)


def _number(text: str) -> int:
    # A longer one may not be an id.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else integer(_string(text).strip())


def _boolean(text: str) -> bool | str:
    text = _string(text)
    return {"true": True, "false": False}.get(text.strip(), text)


def _nil(_: str) -> None:
    return None


def _array(text: str) -> list[Any]:
    _check_blank(text)
    return []


_READERS: dict[str | None, Callable[[str], Any]] = {"integer": _number, "boolean": _boolean, "array": _array}


# --- all XML ---


def _root(data: bytes) -> "Element":
    # Imported here, because Springest is rarely asked for XML.
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
    kind = element.get("type")
    if element.get("nil") == "true":
        return None
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
    members: dict[str, list[Any]] = {}
    for child in element:
        members.setdefault(child.tag.replace("-", "_"), []).append(_plain(child))
    return {name: values[0] if len(values) == 1 else values for name, values in members.items()}
