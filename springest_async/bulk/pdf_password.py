"""Find out whether an encrypted PDF asks for a password.

Many systems encrypt certificates so that they cannot be changed; these open without a password, and nobody needs to be
warned. The rules are those of ISO 32000-1, section 7.6.3. Newer encryption (AES with 256 bits, revision 6) would take
too long to try. Nothing is decrypted.
"""

import hashlib
import re
from collections.abc import Iterable

ENCRYPTED = re.compile(rb"/Encrypt\s*(?:([0-9]+)\s+([0-9]+)\s+R|<<)")
"""What says that a PDF is encrypted, and which object says how."""

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")

_ID = re.compile(rb"/ID\s*\[\s*([(<])")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|\r\n|.)", re.DOTALL)


def asks_for_password(parts: Iterable[bytes]) -> bool | None:
    """Return whether an encrypted PDF opens with a password only; None if these parts of it do not show it."""
    parts = tuple(parts)
    found = next(filter(None, map(ENCRYPTED.search, parts)), None)
    if found is None:
        return None
    if found[1] is None:
        dictionary = found.string[found.start() :]
    else:
        start = re.compile(rb"(?<![0-9])%s\s+%s\s+obj\b" % (found[1], found[2]))
        placed = next(filter(None, map(start.search, parts)), None)
        if placed is None:
            return None
        dictionary = placed.string[placed.end() :]
    dictionary = dictionary.partition(b"endobj")[0]
    if not re.search(rb"/Filter\s*/Standard\b", dictionary):
        return None
    revision, user = _number(rb"/R", dictionary), _string(rb"/U\s*([(<])", dictionary)
    if revision == 5 and len(user) >= 40:
        return hashlib.sha256(user[32:40]).digest() != user[:32]
    owner = _string(rb"/O\s*([(<])", dictionary)
    length = _key_length(revision, dictionary)
    if length is None or len(owner) < 32 or len(user) < 32:
        return None
    id_ = next((_string_at(part, id_) for part in parts if (id_ := _ID.search(part))), b"")
    return not _opens(length, dictionary, owner[:32], user[:32], id_)


def _key_length(revision: int | None, dictionary: bytes) -> int | None:
    """Return how many bytes a key has; None if that is not known here."""
    if revision == 2:
        return 5
    if revision == 3:
        length = (_number(rb"/Length", dictionary) or 40) // 8
        return length if 5 <= length <= 16 else None
    return 16 if revision == 4 else None


def _opens(length: int, dictionary: bytes, owner: bytes, user: bytes, id_: bytes) -> bool:
    """Return whether the empty password is right (algorithms 2, 4 and 5)."""
    revision = _number(rb"/R", dictionary)
    permissions = (_number(rb"/P", dictionary) or 0) % 2**32
    text = _PADDING + owner + permissions.to_bytes(4, "little") + id_
    if revision == 4 and re.search(rb"/EncryptMetadata\s+false\b", dictionary):
        text += b"\xff\xff\xff\xff"
    key = _md5(text)
    if revision == 2:
        return _rc4(key[:length], _PADDING) == user
    for _ in range(50):
        key = _md5(key[:length])
    key = key[:length]
    found = _md5(_PADDING + id_)
    for number in range(20):
        found = _rc4(bytes(byte ^ number for byte in key), found)
    return found == user[:16]


def _number(name: bytes, dictionary: bytes) -> int | None:
    found = re.search(name + rb"\s+(-?[0-9]{1,10})(?!\s+[0-9]+\s+R)", dictionary)
    return int(found[1]) if found else None


def _string(pattern: bytes, dictionary: bytes) -> bytes:
    found = re.search(pattern, dictionary)
    return _string_at(dictionary, found) if found else b""


def _string_at(text: bytes, found: re.Match[bytes]) -> bytes:
    """Return the string that begins with the bracket of a match."""
    start = found.end()
    if found[1] == b"<":
        digits = re.sub(rb"[^0-9A-Fa-f]", b"", text[start : text.find(b">", start)])
        return bytes.fromhex(digits.decode() + "0" * (len(digits) % 2))
    depth = 1
    for bracket in re.finditer(rb"\\.|[()]", text[start:], re.DOTALL):
        depth += {b"(": 1, b")": -1}.get(bracket[0], 0)
        if not depth:
            return _ESCAPED.sub(_unescaped, text[start : start + bracket.start()])
    return b""


def _unescaped(found: re.Match[bytes]) -> bytes:
    escaped = found[1]
    if escaped.isdigit() and b"8" not in escaped and b"9" not in escaped:
        return bytes([int(escaped, 8) % 256])
    return b"" if escaped in (b"\n", b"\r", b"\r\n") else _ESCAPES.get(escaped, escaped)


def _md5(text: bytes) -> bytes:
    return hashlib.new("md5", text, usedforsecurity=False).digest()


def _rc4(key: bytes, text: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    found = bytearray()
    for byte in text:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        found.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(found)
