"""The API key: never shown, and removed from what servers send back. It knows no request."""

import codecs
import functools
import hashlib
import json
import re
from collections.abc import Callable
from typing import Never
from urllib.parse import quote

# A shorter key is a placeholder: removing it from a list would remove it from people's names too.
_SHORTEST_SECRET = 6

# How each way to escape a letter begins (`_written`); the "+" is a space.
_ESCAPE = re.compile(rb"[%&\\+]")

# The key's name in an address, and what is left of the key where a server shows only a part of the address.
_REST_OF_KEY = re.compile(rb"(api_key(?:=|%(?:25)*3[dD]))[^\s&\"'<>\\]+")


class ApiKey:
    """An API key that is never shown: not in a text, and not by its attributes, a copy or a pickle."""

    __slots__ = ("_is_raw", "_value", "_written")

    def __init__(self, value: str) -> None:
        # Functions, because only the name of a function is ever printed.
        self._value: Callable[[], str] = lambda: value
        self._written: Callable[[], re.Pattern[bytes]] = functools.cache(
            lambda: re.compile(b"".join(map(_written, value)))
        )
        # The pattern is dear, and what most servers send back has nothing in it that an escaped key needs. (The UTF-8
        # of other letters than ASCII's may have been taken for Latin-1, which is no escape.)
        self._is_raw: Callable[[bytes], bool] = lambda data: value.encode() in data

    def __repr__(self) -> str:
        return "ApiKey('***')"

    def __bool__(self) -> bool:
        """Return whether there is a key."""
        return bool(self._value())

    def __reduce__(self) -> Never:
        raise TypeError("an API key is neither pickled nor copied")

    def is_printable(self) -> bool:
        """Return whether it can be a key; no key has surrogates, which stand for bytes that are not text."""
        return self._value().isprintable()

    def budget(self, origin: str) -> str:
        """Return a name for the limit of this key at an origin, which does not show the key."""
        return hashlib.sha256(f"{origin} {self._value()}".encode()).hexdigest()

    def added_to(self, target: str) -> str:
        """Return the target of a request with the key in its query; keep it in no variable."""
        return f"{target}{'&' if '?' in target else '?'}api_key={quote(self._value(), safe='')}"

    def hide_in(self, data: bytes) -> bytes:
        """Return what a server sent back without the key, however it is escaped: error pages often show the address."""
        data = self._hidden(data)
        if b"\0" not in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data
        encoding = json.detect_encoding(data)
        if encoding.startswith("utf-8"):
            return data
        # UTF-16 or UTF-32: readers of JSON know it by its NULs, which ASCII has in them, whatever the server says.
        plain = data.decode(encoding, "replace").encode()
        hidden = self._hidden(plain)
        return data if hidden == plain else hidden.decode().encode(encoding)

    def _may_be_in(self, data: bytes) -> bool:
        return not self._value().isascii() or self._is_raw(data) or _ESCAPE.search(data) is not None

    def _hidden(self, data: bytes) -> bytes:
        if len(self._value()) >= _SHORTEST_SECRET and self._may_be_in(data):
            data = self._written().sub(b"***", data)
        return _REST_OF_KEY.sub(rb"\1***", data)


def _written(letter: str) -> bytes:
    """Return a pattern for all ways to write a letter: raw, percent-encoded, and escaped as in HTML, XML and JSON."""
    import html  # noqa: PLC0415 # it has a long table, and most programs never hide a key

    code = ord(letter)
    percent = "".join(f"%{byte:02x}" for byte in letter.encode())
    forms = {percent, percent.replace("%", "%25"), html.escape(letter), json.dumps(letter)[1:-1], f"\\{letter}"}
    forms |= {f"\\u{code:04x}"} | ({"+"} if letter == " " else set())
    forms |= {letter.encode().decode("latin-1")}  # UTF-8 that was taken for Latin-1
    escaped = b"|".join(re.escape(form.encode()) for form in sorted(forms - {letter}))
    return re.escape(letter.encode()).join((b"(?:", b"|(?i:%s|&#0*%d;|&#x0*%x;))" % (escaped, code, code)))
