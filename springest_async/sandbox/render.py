"""Write answers as a Rails application does: JSON, XML like that of ``to_xml``, and HTML error pages.

A body is a tree of mappings, sequences and plain values. The rules of the XML are those of Active Support's
``Hash#to_xml`` and ``Array#to_xml``:
https://api.rubyonrails.org/classes/Hash.html#method-i-to_xml
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import TypeAlias
from xml.sax.saxutils import escape

Scalar: TypeAlias = str | int | bool | date | datetime | None
Tree: TypeAlias = "Scalar | list[Tree] | tuple[Tree, ...] | Mapping[str, Tree]"

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_json(tree: Tree) -> str:
    """Return `tree` as JSON: dates as ``YYYY-MM-DD``, times in UTC with milliseconds."""
    return json.dumps(tree, default=_json_scalar, ensure_ascii=False, separators=(",", ":"))


def _json_scalar(value: object) -> str:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be part of an answer")


def render_xml(tree: Tree, root: str) -> str:
    """Return `tree` as an XML document whose outermost element is called `root`.

    Names have dashes, and attributes give the types, as in ``<valid-from type="date">2024-05-01</valid-from>``.
    A character that XML cannot contain, such as a NUL, becomes ``*``.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *_element(root, tree, "")]
    return "\n".join(lines) + "\n"


def _element(name: str, value: Tree, indent: str) -> Iterator[str]:
    tag = escape(name.replace("_", "-"))
    match value:
        case Mapping():
            yield f"{indent}<{tag}>"
            for child, inner in value.items():
                yield from _element(child, inner, indent + "  ")
            yield f"{indent}</{tag}>"
        case [*items]:
            if not items:
                yield f'{indent}<{tag} type="array"/>'
                return
            yield f'{indent}<{tag} type="array">'
            for item in items:
                # "certificates" contains "certificate"s; a name without a plural contains elements of its own name.
                yield from _element(name.removesuffix("s"), item, indent + "  ")
            yield f"{indent}</{tag}>"
        case None:
            yield f'{indent}<{tag} nil="true"/>'
        case _:
            kind, text = _xml_scalar(value)
            attribute = f' type="{kind}"' if kind else ""
            yield f"{indent}<{tag}{attribute}>{escape(_NOT_XML.sub('*', text))}</{tag}>"


def _xml_scalar(value: object) -> tuple[str, str]:
    # bool before int and datetime before date, because the first of each is a subclass of the second.
    match value:
        case str():
            return "", value
        case bool():
            return "boolean", str(value).lower()
        case int():
            return "integer", str(value)
        case datetime():
            return "dateTime", value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case date():
            return "date", value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be part of an answer")


def render_error(status: int) -> str:
    """Return the HTML page for `status` from a Rails site's ``public`` folder, which gives no details."""
    reason = HTTPStatus(status).phrase
    return (
        f"<!DOCTYPE html>\n<html>\n<head><title>{reason} ({status})</title></head>\n"
        f"<body>\n<h1>{reason}</h1>\n</body>\n</html>\n"
    )
