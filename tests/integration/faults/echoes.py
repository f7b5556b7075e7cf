"""Servers that echo the key, which was in the request line, in each place of an answer and in each way of writing."""

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote, unquote

from tests.integration.raw_server import Behaviour, Exchange, raw_server

from .catalogue import Fault, Outcome, World

__all__ = ["ESCAPES", "FAULTS", "echoing"]

ESCAPES: dict[str, Callable[[str], bytes]] = {
    "as it came": str.encode,
    "in HTML": lambda text: f"<h1>{html.escape(text)}</h1>".encode(),
    "in HTML as Rack escapes it": lambda text: "<h1>{}</h1>".format(html.escape(text).replace("/", "&#x2F;")).encode(),
    "in HTML as PHP escapes it": lambda text: f"<h1>{html.escape(text).replace('&#x27;', '&#039;')}</h1>".encode(),
    "in HTML, each letter as a number": lambda text: "".join(f"&#{ord(letter)};" for letter in unquote(text)).encode(),
    "in JSON": lambda text: json.dumps({"error": text}).encode(),
    "in JSON as Rails escapes it": lambda text: json.dumps({"error": text}).replace("&", r"\u0026").encode(),
    "in JSON as PHP escapes it": lambda text: json.dumps({"error": text}).replace("/", r"\/").encode(),
    "in XML": lambda text: f"<errors><error>{html.escape(text)}</error></errors>".encode(),
    "in an address": lambda text: f"/login?return_to={quote(text, safe='')}".encode(),
    "in small letters": lambda text: re.sub("%..", lambda code: code[0].lower(), text).encode(),
    "as Latin-1 that it is not": lambda text: text.encode().decode("latin-1").encode(),
}
"""What servers make of a text before they send it back."""


def echoing(answer: bytes, escape: Callable[[str], bytes] = str.encode, *, silent: bool = False) -> Behaviour:
    """Take all, say this, and hang up, or fall silent.

    In it {line} stands for the request line, {target} for its address, {both} for the line and the bare key behind it,
    and {length} for the length of what follows the headers.
    """

    async def behaviour(exchange: Exchange) -> None:
        await exchange.go_on()
        await exchange.read()
        line = exchange.line
        said = answer
        target = line.split()[1]
        key = unquote(target.partition("api_key=")[2])
        for name, text in (("line", line), ("target", target), ("both", f"{line} {key}")):
            said = said.replace(b"{%s}" % name.encode(), escape(text))
        length = len(said.partition(b"\r\n\r\n")[2])
        await exchange.send(said.replace(b"{length}", b"%d" % length))
        if silent:
            await asyncio.get_running_loop().create_future()
        exchange.hang_up()

    return behaviour


def _fault(name: str, behaviour: Behaviour, expected: Outcome) -> Fault:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with raw_server(behaviour) as server:
            yield World(server.origin, posts=lambda: len(server.exchanges))

    name = f"the key comes back {name}"
    return Fault(name=name, happens=happens, expected=expected)


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", "Content-Length: {length}", *headers, "", "")).encode()


_LINE = "POST /users/certificates.json?api_key=*** HTTP/1.1"
_BOTH = f"{_LINE} ***"


def _not_found(words: str) -> Outcome:
    said = f": {words}" if words else ""
    advice = "Check the host: this address does not exist there."
    return Outcome("not stored", 1, "NotFound", f"POST … answered 404{said}. {advice}")


def _in_doubt(reason: str, words: str = "") -> Outcome:
    return Outcome("in doubt", 1, "InDoubt", f"{reason} ({words})" if words else reason)


_TOLD = {
    "in JSON": f'{{"error": "{_BOTH}"}}',
    "in JSON as Rails escapes it": f'{{"error": "{_BOTH}"}}',
    "in JSON as PHP escapes it": f'{{"error": "{_BOTH}"}}'.replace("/", r"\/"),
    "in an address": "/login?return_to=POST%20%2Fusers%2Fcertificates.json%3Fapi_key%3D***",
    "in HTML, each letter as a number": "".join(f"&#{ord(letter)};" for letter in _BOTH).replace("&#42;", "*"),
}
_NO_HTTP = _in_doubt("the answer is not HTTP, or too long in its headers")

FAULTS = (
    *(
        _fault(name, echoing(_head("404 Not Found") + b"{both}", escape), _not_found(_TOLD.get(name, _BOTH)))
        for name, escape in ESCAPES.items()
    ),
    _fault(
        "in a part of the request line",
        echoing(_head("404 Not Found") + b"{line}", lambda line: line.partition("%")[0].encode()),
        _not_found("POST /users/certificates.json?api_key=***"),
    ),
    _fault("in the reason", echoing(_head("404 {both}")), _not_found("")),
    _fault("in a header", echoing(_head("404 Not Found", "X-Echo: {both}")), _not_found("")),
    _fault("as the name of a header", echoing(_head("404 Not Found", "x-{target}: x")), _NO_HTTP),
    _fault(
        "in cookies",
        echoing(_head("404 Not Found", "Set-Cookie: line={both}", "Set-Cookie: {both}=line; Path={target}")),
        _not_found(""),
    ),
    _fault(
        "in Location",
        echoing(_head("302 Found", "Location: https://other.example{target}")),
        Outcome(
            "not stored",
            1,
            "Redirected",
            "POST … answered 302 and points to https://other.example."
            " Redirects are never followed: if that is the right host, name it in the settings.",
        ),
    ),
    _fault(
        "in Retry-After",
        echoing(_head("403 Forbidden", "Retry-After: {both}")),
        Outcome(
            "not stored",
            1,
            "Forbidden",
            "POST … answered 403. The key may not do this: certificates and certifications need different keys.",
        ),
    ),
    _fault(
        "in the words of a 401",
        echoing(_head("401 Unauthorized") + b"{both} is no key"),
        Outcome(
            "not stored",
            1,
            "NotAuthorized",
            f"POST … answered 401: {_BOTH} is no key."
            " Check that the API key is the one for this host: each host has its own.",
        ),
    ),
    _fault(
        "in what a 400 says of a field",
        echoing(_head("400 Bad Request") + b'{"errors": {"email": ["is invalid in {line}"]}}'),
        Outcome("rejected", 1, "Rejected", f"POST … rejected the certificate (400): email: is invalid in {_LINE}"),
    ),
    _fault(
        "in the words of a 400 that names no field",
        echoing(_head("400 Bad Request") + b"{both}"),
        Outcome("rejected", 5, "Rejected", f"POST … rejected the certificate (400): {_BOTH}"),
    ),
    _fault(
        "in the words of a 500",
        echoing(_head("500 Internal Server Error") + b"{both}"),
        _in_doubt("the server answered 500, not 201", _BOTH),
    ),
    _fault(
        "in a 200",
        echoing(_head("200 OK") + b"{both}"),
        _in_doubt("the server answered 200, not 201", _BOTH),
    ),
    _fault("as the number of the certificate", echoing(_head("201 Created") + b'{"id": "{line}"}'), Outcome("stored")),
    _fault("in place of HTTP", echoing(b"{both}\r\n\r\n"), _NO_HTTP),
    _fault("as a header that is none", echoing(_head("404 Not Found", "{both}")), _NO_HTTP),
    _fault("in a header that is too long", echoing(_head("404 Not Found", f"X-Echo: {'{both}' * 200}")), _NO_HTTP),
    _fault(
        "in half a head",
        echoing(b"HTTP/1.1 201 Created\r\nX-Echo: {both}\r\n"),
        _in_doubt("the server closed the connection without an answer"),
    ),
    _fault(
        "in an interim answer, and then nothing",
        echoing(b"HTTP/1.1 102 {line}\r\nX-Echo: {both}\r\n\r\n", silent=True),
        _in_doubt("no answer within the time allowed"),
    ),
    _fault(
        "in the size of a chunk",
        echoing(b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n{both}\r\n"),
        _NO_HTTP,
    ),
    _fault(
        "behind the size of a chunk, and behind the last one",
        echoing(
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'2;echo="{target}"\r\nNo\r\n0\r\nX-Echo: {both}\r\n\r\n'
        ),
        _not_found("No"),
    ),
    _fault(
        "in half an answer, and then the server hangs up",
        echoing(b"HTTP/1.1 404 {line}\r\nContent-Length: 9999\r\n\r\n{both}"),
        _not_found(_BOTH),
    ),
    _fault(
        "in half an answer, and then nothing",
        echoing(b"HTTP/1.1 500 {line}\r\nContent-Length: 9999\r\n\r\n{both}", silent=True),
        _in_doubt("the server answered 500, not 201", _BOTH),
    ),
)
