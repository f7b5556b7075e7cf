"""Answers that are none, or not the one that was asked for, to a certificate that the server has taken whole."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from tests.integration.raw_server import Behaviour, Exchange, created, raw_server

from .catalogue import IMPATIENT, LARGE, SMALL, Fault, Happening, Outcome, World

__all__ = ["FAULTS"]

_ID = b'{"id": 5001}'
_INVALID = b'{"errors": {"email": ["is invalid"]}}'
_CHUNKED = "Transfer-Encoding: chunked"
_MANY = 50_000_000


# --- servers ---


def _by(*behaviours: Behaviour, stored: int | None = None) -> Happening:
    """Make the world of a server with this script; `stored` is how many certificates it means to have stored."""

    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with raw_server(*behaviours) as server:
            yield World(server.origin, None if stored is None else lambda: stored, posts=lambda: len(server.exchanges))

    return happens


def _sends(data: bytes, *, spaces: int = 0, falls_silent: bool = False) -> Behaviour:
    """Take all, send these bytes and so many spaces, and hang up."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read()
        await exchange.send(data)
        for _ in range(spaces // 50_000):
            await exchange.send(b" " * 50_000)
        if falls_silent:
            await asyncio.get_running_loop().create_future()
        exchange.hang_up()

    return behaviour


def _head(status: int | str, *headers: str) -> bytes:
    line = f"HTTP/1.1 {status} Whatever" if isinstance(status, int) else f"HTTP/1.1 {status}"
    return "\r\n".join((line, *headers, "", "")).encode("latin-1")


def _answer(status: int | str, body: bytes = b"", *headers: str) -> bytes:
    return _head(status, f"Content-Length: {len(body)}", *headers) + body


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


async def _endless_page(exchange: Exchange) -> None:
    await exchange.read()
    await exchange.send(_head(400, _CHUNKED) + _chunk(_INVALID))
    while not exchange.writer.is_closing():
        await exchange.send(_chunk(b" " * 60_000))


async def _trickles(exchange: Exchange) -> None:
    await exchange.read()
    await exchange.send(_head(201, "Content-Length: 1000"))
    while not exchange.writer.is_closing():
        await exchange.send(b" ")
        await asyncio.sleep(0.1)


async def _interim_without_end(exchange: Exchange) -> None:
    await exchange.read()
    while not exchange.writer.is_closing():
        await exchange.send(_head("102 Processing"))
        await asyncio.sleep(0.1)


async def _ignores_expect(exchange: Exchange) -> None:
    await exchange.read()
    await exchange.answer(201, _ID)


async def _answers_at_once(exchange: Exchange, status: int, body: bytes) -> None:
    """Answer a certificate of which nothing was asked for yet, and take no more of it."""
    await exchange.answer(status, body, Connection="close")
    exchange.hang_up()


async def _created_at_once(exchange: Exchange) -> None:
    await _answers_at_once(exchange, 201, _ID)


async def _page_at_once(exchange: Exchange) -> None:
    await _answers_at_once(exchange, 200, b"<html><h1>Our Wi-Fi</h1>")


async def _slow_at_once(exchange: Exchange) -> None:
    await _answers_at_once(exchange, 408, b"Be quick")


async def _speaks_before_it_is_spoken_to(exchange: Exchange) -> None:
    # The next thing that this connection says, after the answer, is said to nobody.
    await exchange.read()
    await exchange.send(_answer(400, b"No") + _answer(201, _ID))


# --- outcomes ---

_STORED = Outcome("stored")
_STORED_AFTER_ALL = Outcome("stored", 2)
_INVALID_EMAIL = Outcome("rejected", 1, "Rejected", "POST … rejected the certificate (400): email: is invalid")


def _doubt(reason: str) -> Outcome:
    return Outcome("in doubt", 1, "InDoubt", reason)


def _odd(status: int | str, words: str = "") -> Outcome:
    return _doubt(f"the server answered {status}, not 201" + (f" ({words})" if words else ""))


def _rejected(status: int | str, said: str, *, tries: int = 1) -> Outcome:
    return Outcome("rejected", tries, "Rejected", f"POST … rejected the certificate ({status}): {said}")


def _refused_alone(said: str) -> Outcome:
    # Four tries of a 400 without a reason, and one alone after a silence.
    return _rejected(400, said, tries=5)


_NO_HTTP = _doubt("the answer is not HTTP, or too long in its headers")
_SIGN_IN = "a web page answered ({}), not Springest: perhaps this network wants you to sign in first (Our Wi-Fi)"


# --- faults ---


def _answered(
    name: str,
    data: bytes | Mapping[str, bytes],
    expected: Outcome,
    *,
    spaces: int = 0,
    then: Behaviour | None = None,
    size: int = SMALL,
) -> Fault:
    """Return the fault of a server that sends this, or each of several answers that come to one thing."""
    stored = {"stored": 1, "in doubt": None}.get(expected.certificate, 0)

    def by(answer: bytes) -> Happening:
        sends = _sends(answer, spaces=spaces)
        return _by(sends, then or sends, stored=stored)

    happens = by(data) if isinstance(data, bytes) else {name: by(answer) for name, answer in data.items()}
    return Fault(name=name, happens=happens, expected=expected, size=size)


def _or(names: Iterable[object]) -> str:
    *others, last = map(str, names)
    return f"{', '.join(others)} or {last}"


def _each(statuses: Iterable[int | str], body: bytes = b"", *headers: str) -> dict[str, bytes]:
    """Return this answer with each of these statuses."""
    return {str(status): _answer(f"{status} Whatever", body, *headers) for status in statuses}


def _interim() -> Iterator[Fault]:
    going_on, hints = _head("100 Continue"), _head("103 Early Hints", "Link: </style.css>")
    yield _answered(
        "100 Continue and no more, and the connection closes",
        going_on,
        _doubt("the server closed the connection without an answer"),
    )
    yield Fault(
        name="100 Continue and no more, and silence",
        happens=_by(_sends(going_on, falls_silent=True)),
        expected=_doubt("no answer within the time allowed"),
    )
    yield Fault(
        name="102 Processing again and again, and no answer",
        happens=_by(_interim_without_end),
        expected=_doubt("no answer within the time allowed"),
        timeouts=IMPATIENT,
    )
    yield _answered("102 Processing before the 201", _head("102 Processing") + _answer(201, _ID), _STORED)
    yield _answered("fifty times 103 Early Hints before the 201", hints * 50 + _answer(201, _ID), _STORED)
    yield _answered("101 Switching Protocols", _head(101, "Connection: upgrade", "Upgrade: h2c"), _odd(101))


def _more_than_one() -> Iterator[Fault]:
    yield _answered("201 and 400 in one go", _answer(201, _ID) + _answer(400, _INVALID), _STORED)
    yield _answered("400 and 201 in one go", _answer(400, _INVALID) + _answer(201, _ID), _INVALID_EMAIL)
    yield Fault(
        name="400 without a reason and 201 in one go, each time, and the connection stays open",
        happens=_by(_speaks_before_it_is_spoken_to, stored=0),
        expected=_refused_alone("No"),
    )


def _success() -> Iterator[Fault]:
    yield _answered("200 instead of 201, with the certificate's id", _answer(200, _ID), _STORED)
    yield _answered("200 with nothing", _answer(200), _odd(200))
    yield _answered(
        "200 with a web page, as a hotel's network answers",
        _answer(200, b"<!doctype html><h1>Our Wi-Fi</h1>", "Content-Type: text/html"),
        _doubt(_SIGN_IN.format(200)),
    )
    yield _answered("202 Accepted", _answer(202, b"queued"), _odd(202, "queued"))
    yield _answered("204 No Content", _head("204 No Content"), _odd(204))
    bodies = {
        "nothing": b"",
        "no id": b"{}",
        "null for an id": b'{"id": null}',
        "text for an id": b'{"id": "new"}',
        "a negative id": b'{"id": -1}',
        "an id of 5000 digits": b'{"id": %s}' % (b"9" * 5000),
        "a web page": b"<html><h1>Thank you</h1></html>",
        "NULs": bytes(100),
        "JSON that breaks off": b'{"id": 50',
    }
    answers = {name: _answer(201, body) for name, body in bodies.items()}
    yield _answered(f"201 with {_or(answers)}", answers, _STORED)


def _early() -> Iterator[Fault]:
    yield Fault(
        name="201 by a server that ignores Expect, and gets the certificate after a second",
        happens=_by(_ignores_expect, stored=1),
        expected=_STORED,
        size=LARGE,
    )
    yield Fault(
        name="201 before the server has the certificate",
        happens=_by(_created_at_once),
        expected=_doubt("the server answered 201 before it had the whole certificate"),
        size=LARGE,
    )
    yield Fault(
        name="200 with a web page before the server has the certificate",
        happens=_by(_page_at_once, stored=0),
        expected=Outcome(
            "not stored", 4, "NotSent", "POST …: the server answered 200 before it had the whole certificate"
        ),
        size=LARGE,
    )
    yield Fault(
        name="408 before the server has the certificate, once",
        happens=_by(_slow_at_once, created, stored=1),
        expected=_STORED_AFTER_ALL,
        size=LARGE,
    )


def _statuses() -> Iterator[Fault]:
    said = b"Sorry"
    key = "Check that the API key is the one for this host: each host has its own."
    may = "The key may not do this: certificates and certifications need different keys."
    host = "Check the host: this address does not exist there."
    for status, error, advice in (
        (401, "NotAuthorized", key),
        (403, "Forbidden", may),
        (404, "NotFound", host),
    ):
        outcome = Outcome("not stored", 1, error, f"POST … answered {status}: Sorry. {advice}")
        yield _answered(str(status), _answer(status, said), outcome)
    others = _each((405, 410, 417, 421, 425, 451), said)
    unexpected = Outcome("not stored", 1, "UnexpectedStatus", "POST … answered …: Sorry. Nothing was stored.")
    yield _answered(_or(others), others, unexpected)
    yield _answered("417 to a certificate that asked first", _answer(417), _STORED_AFTER_ALL, then=created, size=LARGE)
    refusals = _each((413, 415, 422), said)
    yield _answered(_or(refusals), refusals, _rejected("…", "Sorry"))
    failures = _each((408, 500, 502, 503, 504, 511), said)
    yield _answered(_or(failures), failures, _odd("…", "Sorry"))
    yield _answered("503 with Retry-After: 120", _answer(503, said, "Retry-After: 120"), _odd(503, "Sorry"))
    yield _answered("429, once", _answer(429, said), _STORED_AFTER_ALL, then=created)
    waits = {
        wait: _answer(429, said, f"Retry-After: {wait}")
        for wait in ("0", "1", "-1", "NaN", "1e400", "soon", "Thu, 01 Jan 1970 00:00:00 GMT")
    }
    yield _answered(f"429 with Retry-After: {_or(waits)}, once", waits, _STORED_AFTER_ALL, then=created)
    for text in ("099", "000"):
        yield _answered(f"status {text}", _answer(f"{text} Whatever", said), _odd(int(text), "Sorry"))
    unknown = _each((600, 999), said)
    yield _answered(f"status {_or(unknown)}", unknown, _odd("…", "Sorry"))
    broken = _each(("99", "2010", "-1", "abc"), said)
    yield _answered(f"status {_or(broken)}", broken, _NO_HTTP)


def _redirects() -> Iterator[Fault]:
    def to(status: int | str, target: str) -> Outcome:
        told = f"POST … answered {status} and points to {target}. Redirects are never followed: "
        return Outcome("not stored", 1, "Redirected", told + "if that is the right host, name it in the settings.")

    location = "Location: https://other.example/users/certificates.json?api_key=x"
    away = _each((300, 301, 302, 303, 305, 307, 308), b"", location)
    yield _answered(f"{_or(away)} to another host", away, to("…", "https://other.example"))
    yield _answered("304", _head(304), to(304, "nowhere"))
    here = "POST … answered 302 and points to another address on the same host. Redirects are never followed: ask"
    yield _answered(
        "302 to another address on the same host",
        _answer(302, b"", "Location: /sign_in?api_key=x"),
        Outcome("not stored", 1, "Redirected", f"{here} Springest what has moved."),
    )
    nowhere = {
        "without a Location": _answer(302),
        "to javascript:": _answer(302, b"", "Location: javascript:alert(1)"),
        "to no address": _answer(302, b"", "Location: http://[::1"),
    }
    yield _answered(f"302 {_or(nowhere)}", nowhere, to(302, "nowhere"))
    for name, location, target in (
        ("to an address with a password", "https://jan:secret@other.example/", "https://other.example"),
        ("to an IPv6 address", "https://[::1]:8443/x", "https://[::1]:8443"),
        ("to letters beyond ASCII", "https://bücher.example/", "https://bücher.example"),
        ("to an encoded name", "https://xn--bcher-kva.example/", "https://xn--bcher-kva.example"),
        ("to an address of 8 KB", "https://other.example/" + "x" * 8_100, "https://other.example"),
    ):
        # The bytes of UTF-8, written one by one as a header is.
        header = f"Location: {location.encode().decode('latin-1')}"
        yield _answered(f"302 {name}", _answer(302, b"", header), to(302, target))


def _bodies() -> Iterator[Fault]:
    def of_50_mb(status: int, body: bytes) -> bytes:
        return _head(status, f"Content-Length: {len(body) + _MANY}") + body

    page = b"<html><h1>Sorry</h1>"
    yield _answered("400 with a page of 50 MB", of_50_mb(400, page), _refused_alone("Sorry"), spaces=_MANY)
    chunk = b"%x\r\n%s" % (len(_INVALID) + _MANY, _INVALID)
    yield _answered("400 with a chunk of 50 MB", _head(400, _CHUNKED) + chunk, _INVALID_EMAIL, spaces=_MANY)
    yield _answered("500 with a page of 50 MB", of_50_mb(500, page), _odd(500, "Sorry"), spaces=_MANY)
    yield _answered("201 with a page of 50 MB", of_50_mb(201, page), _STORED, spaces=_MANY)
    yield Fault(name="400 with a page without end", happens=_by(_endless_page, stored=0), expected=_INVALID_EMAIL)
    yield Fault(
        name="201 with a body that trickles",
        happens=_by(_trickles, stored=1),
        expected=_STORED,
        timeouts=IMPATIENT,
    )
    errors = _INVALID + b" " * 10_000_000
    packed = {"gzip": gzip.compress(errors), "deflate": zlib.compress(errors)}
    for status, outcome in ((400, _INVALID_EMAIL), (201, _STORED)):
        bombs = {name: _answer(status, data, f"Content-Encoding: {name}") for name, data in packed.items()}
        yield _answered(f"{status} with a bomb: 10 MB in {_or(bombs)}", bombs, outcome)
    for status, body, outcome in ((400, _INVALID, _INVALID_EMAIL), (201, _ID, _STORED)):
        plain = {
            encoding: _answer(status, body, f"Content-Encoding: {encoding}")
            for encoding in ("gzip", "deflate", "br", "zstd", "rot13")
        }
        yield _answered(f"{status} that is not in {_or(plain)} and says so", plain, outcome)
    charsets = {
        charset: _answer(400, _INVALID, f"Content-Type: application/json; charset={charset}")
        for charset in ("nonsense", "utf-16", "rot13", "hex", "idna", "base64")
    }
    yield _answered(f"400 in UTF-8 that says charset={_or(charsets)}", charsets, _INVALID_EMAIL)
    utf16 = _INVALID.decode().encode("utf-16")
    yield _answered(
        "400 in UTF-16 that says charset=utf-8",
        _answer(400, utf16, "Content-Type: application/json; charset=utf-8"),
        _INVALID_EMAIL,
    )
    yield _answered("400 in UTF-8 with a byte order mark", _answer(400, b"\xef\xbb\xbf" + _INVALID), _INVALID_EMAIL)
    broken = b'{"errors": {"email": ["is in'
    yield _answered("400 with JSON that breaks off", _answer(400, broken), _refused_alone(broken.decode()))


def _framing() -> Iterator[Fault]:
    def of_length(status: int, body: bytes, *lengths: object) -> bytes:
        return _head(status, *(f"Content-Length: {length}" for length in lengths)) + body

    yield _answered("201 with a Content-Length too long", of_length(201, _ID, 100), _STORED)
    yield _answered("400 with a Content-Length too long", of_length(400, _INVALID, 100), _INVALID_EMAIL)
    yield Fault(
        name="201 with a Content-Length too long, and silence",
        happens=_by(_sends(of_length(201, _ID, 100), falls_silent=True), stored=1),
        expected=_STORED,
    )
    yield _answered("201 with a Content-Length too short", of_length(201, _ID, 5), _NO_HTTP)
    yield _answered(
        "400 with something behind what its Content-Length says", _answer(400, _INVALID) + b"and more", _NO_HTTP
    )
    wrong = {
        "negative": of_length(201, _ID, -5),
        "no number": of_length(201, _ID, "twelve"),
        "of 30 digits": of_length(201, _ID, "9" * 30),
        "said twice": of_length(201, _ID, 12, 13),
    }
    yield _answered(f"201 with a Content-Length that is {_or(wrong)}", wrong, _NO_HTTP)
    both = _head(201, _CHUNKED, "Content-Length: 3") + _chunk(_ID) + b"0\r\n\r\n"
    yield _answered("201 with chunks and a Content-Length", both, _NO_HTTP)
    sizes = {
        name: _head(201, _CHUNKED) + size + b"\r\n{}\r\n" for name, size in (("no number", b"xyz"), ("negative", b"-5"))
    }
    yield _answered(f"201 with a chunk size that is {_or(sizes)}", sizes, _NO_HTTP)
    yield _answered("201 with chunks that break off", _head(201, _CHUNKED) + b"c\r\n" + _ID[:5], _STORED)
    headers = {
        "a header of 9 KB": _answer(201, _ID, "X-Long: " + "x" * 9_000),
        "1000 headers": _answer(201, _ID, *(f"X-{number}: x" for number in range(1000))),
        "a NUL in a header": _answer(201, _ID, "X-Odd: a\0b"),
        "a bare CR in a header": _answer(201, _ID, "X-Odd: a\rb"),
    }
    yield _answered(f"201 with {_or(headers)}", headers, _NO_HTTP)
    yield _answered("201 with bare line feeds", _answer(201, _ID).replace(b"\r\n", b"\n"), _STORED)
    yield _answered("201 without a reason", _answer("201", _ID), _STORED)
    yield _answered("201 in HTTP/1.0", b"HTTP/1.0 201 Created\r\n\r\n" + _ID, _STORED)
    others = {
        "a body without a head (HTTP/0.9)": b"<html>\nStored\n</html>\n",
        "frames of HTTP/2": b"\0\0\x12\x04\0\0\0\0\0\0\3\0\0\0\x80\0\4\0\1\0\0\0\5\0\xff\xff\xff",
        "a TLS alert": b"\x15\x03\x01\0\x02\x02\x28",
        "the greeting of an SSH server": b"SSH-2.0-OpenSSH_9.2\r\n",
    }
    yield _answered(f"{_or(others)} for an answer", others, _NO_HTTP)


FAULTS = (
    *_interim(),
    *_more_than_one(),
    *_success(),
    *_early(),
    *_statuses(),
    *_redirects(),
    *_bodies(),
    *_framing(),
)
