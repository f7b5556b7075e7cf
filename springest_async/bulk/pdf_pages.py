"""Find out whether a small PDF has pages, and whether there is anything on them.

What fails to make a certificate leaves a blank page, and a blank page is small: it needs no font and no picture. The
file is not parsed as a viewer would; whatever cannot be read here counts as something that can be seen.
"""

import base64
import re
import zlib
from collections.abc import Iterator

_FIRST_OBJECT_WITHIN = 2 * 1024  # bytes; what has none there is no PDF that can be read here
_MOST_PACKED = 2 * 1024  # bytes of what is on a page; more than that is no blank page
_MOST_ENCODED = 100  # bytes of text in base 85, which takes long to read
_MOST_UNPACKED = 256 * 1024

_FILTERS = re.compile(rb"/Filter\s*(\[[^\]]*\]|/\w+)")
_NAME = re.compile(rb"/(\w+)")
_PAGES = re.compile(rb"/Type\s*/Pages\b")
_PAGE = re.compile(rb"/Type\s*/Page\b")
_ELSEWHERE = re.compile(rb"/(?:Encrypt|Annots|XFA)\b")
_NO_CONTENT = re.compile(rb"/Type\s*/(?:XRef|Metadata)\b|/Length1\b|/FontFile")
_OBJECTS = re.compile(rb"/Type\s*/ObjStm\b")

# ISO 32000-1, tables 60, 107, 109 and 92: what paints a path, shows a text or a picture. A form is a stream of its own.
_BLANK_TEXT = re.compile(rb"\(\s*\)\s*Tj|\[(?:\s|\(\s*\)|[-.0-9])*\]\s*TJ")
_PAINTS = re.compile(rb"(?<![\w/])(?:Tj|TJ|sh|EI|[fBb]\*?|[FSs])(?!\w)|[)>]\s*['\"]")


def page_fault(whole: bytes) -> str | None:
    """Return what is wrong with the pages of a PDF that is here as a whole; None if nothing seems to be."""
    if whole.find(b"obj", 0, _FIRST_OBJECT_WITHIN) < 0:
        return None
    packed_objects = []
    for dictionary, packed in _streams(whole):
        if _NO_CONTENT.search(dictionary):
            continue
        has_objects = _OBJECTS.search(dictionary)
        if b"/Image" in dictionary or (len(packed) > _MOST_PACKED and not has_objects):
            return None
        if (unpacked := _unpacked(dictionary, packed)) is None:
            return None
        if has_objects:
            packed_objects.append(unpacked)
        elif _PAINTS.search(_BLANK_TEXT.sub(b"", unpacked)):
            return None
    visible = [whole, *packed_objects]
    if not any(b"/Pages" in part and _PAGES.search(part) for part in visible):
        return None
    if any(map(_ELSEWHERE.search, visible)):
        return None
    return "has only empty pages" if any(map(_PAGE.search, visible)) else "has no pages"


def _streams(whole: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the streams: what describes each, and its packed content."""
    place = 0
    while (place := whole.find(b"stream", place)) >= 0:
        begin = place + len(b"stream")
        end = whole.find(b"endstream", begin)
        if end < 0:
            return
        yield whole[max(whole.rfind(b"obj", 0, place), 0) : place], whole[begin:end].lstrip(b"\r\n")
        place = end + len(b"endstream")


def _unpacked(dictionary: bytes, packed: bytes) -> bytes | None:
    """Return the content of a stream, or None if it is packed in another way than is usual for small ones."""
    filters = _FILTERS.search(dictionary)
    try:
        for name in _NAME.findall(filters[1]) if filters else ():
            if name in (b"FlateDecode", b"Fl"):
                unpacker = zlib.decompressobj()
                packed = unpacker.decompress(packed, _MOST_UNPACKED)
                if unpacker.unconsumed_tail:
                    return None
            elif name in (b"ASCII85Decode", b"A85") and len(packed) <= _MOST_ENCODED:
                packed = base64.a85decode(packed.strip().removesuffix(b"~>"))
            else:
                return None
    except (ValueError, zlib.error):
        return None
    return packed
