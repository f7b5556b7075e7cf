"""Springest's protocol as pure functions: a call becomes a path, a query and fields; an answer becomes its meaning.

It knows no network, no clock and no retries: the same input always gives the same output. The rules come from
Springest's help pages "User certificates - certifications" (26 October 2023) and "Introduction to the Springest API".
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from attrs import field, frozen

from springest_async.api import decode
from springest_async.api.decode import DecodeError, Page, Record, WireFormat
from springest_async.errors import (
    AnswerError,
    ConfigurationError,
    Fault,
    Forbidden,
    NotAuthorized,
    NotFound,
    Redirected,
    Rejected,
    ServerError,
    UnexpectedStatus,
    UnreadableAnswer,
)
from springest_async.records import CertificateUpload

HOSTS: Mapping[str, str] = {
    "nl": "https://api.springest.nl",
    "uk": "https://api.springest.co.uk",
    "be": "https://api.nl.springest.be",
    "de": "https://api.springest.de",
    "com": "https://api.springest.com",
}
"""The origin of each country, from the introduction page. A "Go" customer has its own origin."""

# The newest help page posts to this path; an older page posts to "/certificates".
CERTIFICATES = "/users/certificates"
CERTIFICATIONS = "/certifications"


def origin_of(host: str) -> str:
    """Return the origin for a country's short name or an origin; ``http`` is allowed for this machine only.

    Raises:
        ConfigurationError: when `host` is neither, or would send the key and the certificates unencrypted.
    """
    if host in HOSTS:
        return HOSTS[host]
    try:
        parts = urlsplit(host)
        # One spelling for each host, because each origin has its own budget.
        name, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        parts, name, port = urlsplit(""), "", None
    if not re.fullmatch(r"[\w.:%-]+", name) or parts.scheme not in ("https", "http") or parts.username is not None:
        raise ConfigurationError(
            f"host must be one of {', '.join(HOSTS)} or an origin such as https://site.api.go.springest.nl"
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError("host must be an origin only: scheme, name and port, without a path or a query")
    if parts.scheme == "http" and not is_loopback(name):
        raise ConfigurationError(f"http sends the key in the clear: use https://{name} (http is for this machine only)")
    default = 443 if parts.scheme == "https" else 80
    bracketed = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{bracketed}" + (f":{port}" if port not in (None, default) else "")


def is_loopback(name: str) -> bool:
    """Return whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def path(resource: str, wire_format: WireFormat) -> str:
    """Return the path of `CERTIFICATES` or `CERTIFICATIONS`; the extension selects the format of the answer."""
    return f"{resource}.{wire_format}"


def certificate_fields(upload: CertificateUpload) -> tuple[tuple[str, str], ...]:
    """Return the text fields of ``POST /users/certificates`` in the help page's order; the file comes after them."""
    names = ("certification_id", "email", "valid_from", "valid_until", "conversion_id")
    return tuple((name, str(value)) for name in names if (value := getattr(upload, name)) is not None)


def certificates_query(email: str | None, certification_id: int | None, created_from: date | None) -> dict[str, str]:
    """Return the query of ``GET /users/certificates``; `created_from` means created on or after that date."""
    values = {"email": email, "certification_id": certification_id, "created_from": created_from}
    return {name: str(value) for name, value in values.items() if value is not None}


# --- answers ---

# The networks of hotels and trains answer every request with a web page until the user has signed in.
_HTML = re.compile(rb"(?i)\s*<(?:!doctype\s+)?html\b")

# Never wait longer than an hour (seconds), whatever the server asks for.
_MAX_WAIT = 3600.0


@frozen
class Answer:
    """A server's answer.

    Attributes:
        status: the HTTP status.
        headers: the headers, as they came.
        body: the body, decompressed.
        complete: False when the body broke off, or is longer than the bound.
        too_long: True when the body is longer than the bound; `body` holds only its beginning.
    """

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""
    complete: bool = True
    too_long: bool = False

    @property
    def server_time(self) -> datetime | None:
        """Return the time of the server's clock (Date, RFC 9110 section 6.6.1), or None."""
        try:
            time = parsedate_to_datetime(self.headers.get("Date", ""))
        except (ValueError, TypeError, OverflowError):
            return None
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    @property
    def retry_after(self) -> float | None:
        """Return how many seconds the server asks us to wait (Retry-After, RFC 9110 10.2.3; at most 3600), or None."""
        value = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,6}", value):
            return min(float(value), _MAX_WAIT)
        try:
            # The difference to the server's own Date does not depend on this machine's clock.
            until, now = (parsedate_to_datetime(text) for text in (value, self.headers.get("Date", "")))
            return min(max(0.0, (until - now).total_seconds()), _MAX_WAIT)
        except (ValueError, TypeError, OverflowError):
            return None


@frozen
class Stored:
    """The certificate is at Springest; `id` is None when the answer has no id."""

    id: int | None


@frozen
class Refusal:
    """A 400 (or 429) that names no field: it can mean "too fast" or "invalid".

    Attributes:
        signature: equal for answers that differ only in numbers, such as a request id, or in texts that we sent.
        names_limit: True when the words, the status 429 or a Retry-After say that it was the limit.
        retry_after: how many seconds the server asks us to wait, or None.
        error: the error to raise if the answer turns out to mean "invalid".
    """

    signature: str
    names_limit: bool
    retry_after: float | None
    error: Rejected


@frozen
class Inconclusive:
    """An answer to a POST that does not show whether the certificate was stored."""

    reason: str
    status: int
    words: str


def post_meaning(
    answer: Answer, where: str, wire_format: WireFormat, sent_texts: Iterable[str] = ()
) -> Stored | Refusal | Inconclusive | AnswerError:
    """Return what an answer to a POST means; a returned `AnswerError` means that the certificate was not stored.

    `sent_texts` are the texts of the request, which a server may repeat in its words.
    """
    if answer.status == 201:
        return Stored(decode.receipt_id(answer.body, wire_format))
    message = words(answer)
    match answer.status:
        case 200 if (stored := decode.receipt_id(answer.body, wire_format)) is not None:
            return Stored(stored)
        case 400 | 429:
            return _refusal(answer, where, message, sent_texts)
        case 413 | 415 | 422:
            return Rejected(where, answer.status, message, _faults(answer))
        case status if status < 300 and _HTML.match(answer.body):
            reason = f"a web page answered ({status}), not Springest: perhaps this network wants you to sign in first"
            return Inconclusive(reason, status, message)
        # A 408 after a whole body comes from a gateway that stopped waiting for the application behind it.
        case status if status < 300 or status == 408 or status >= 500:
            return Inconclusive(f"the server answered {status}, not 201", status, message)
    return _error(answer, where, message)


def list_error(answer: Answer, where: str) -> AnswerError | None:
    """Return the error that the answer to a list request means, or None when it is a list (200)."""
    if answer.status == 200:
        return None
    message = words(answer)
    return ServerError(where, answer.status, message) if answer.status >= 500 else _error(answer, where, message)


def read_page(answer: Answer, where: str, wire_format: WireFormat, record: type[Record], name: str) -> Page[Record]:
    """Return the page of a list that a 200 contains.

    Raises:
        UnreadableAnswer: when the body is not such a page.
    """
    expected = "the whole answer, which is too long"
    if answer.complete:
        try:
            return decode.page(answer.body, wire_format, record, name)
        except DecodeError as error:
            expected = str(error)
    raise UnreadableAnswer(where, answer.status, words(answer), expected)


def _error(answer: Answer, where: str, message: str) -> AnswerError:
    known = {401: NotAuthorized, 403: Forbidden, 404: NotFound}
    if 300 <= answer.status < 400:
        return Redirected(where, answer.status, message, _target(answer.headers.get("Location", ""), where))
    return known.get(answer.status, UnexpectedStatus)(where, answer.status, message)


def _target(location: str, where: str) -> str:
    if not location:
        return ""
    try:
        parts = urlsplit(urljoin(where.partition(" ")[2], location))
        name, port = parts.hostname, parts.port
    except ValueError:
        return ""
    # People read it: no control characters, no broken text, no kilobytes.
    if not name or parts.scheme not in ("https", "http") or not re.fullmatch(r"[\w.:-]{1,253}", name):
        return ""
    return f"{parts.scheme}://" + (f"[{name}]" if ":" in name else name) + (f":{port}" if port else "")


# --- the server's words ---

MAX_MESSAGE_CHARS = 400


def words(answer: Answer) -> str:
    """Return the body as one line of plain text, of at most 400 characters: no markup, no control characters."""
    text = answer.body[:65536].decode("utf-8", errors="replace")
    if text.lstrip()[:1] == "<":
        text = re.sub(r"(?is)<(script|style|head)\b.*?(?:</\1\s*>|(?=<body)|\Z)|<[^<>]*>", " ", text)
        import html  # noqa: PLC0415 # it has a long table, for pages of errors only

        # No character has a number of eight digits, and int() refuses a number of thousands of digits.
        text = html.unescape(re.sub(r"(?i)&#(?:[0-9]{8,}|x[0-9a-f]{8,});?", "\ufffd", text))
    return _line(text)


def _line(text: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"


_LIMIT_WORDS = re.compile(
    r"too many requests|rate.?limit|throttl|retry later|slow down|requests per minute", re.IGNORECASE
)


def _refusal(answer: Answer, where: str, message: str, sent_texts: Iterable[str]) -> Refusal | Rejected:
    faults = _faults(answer) if answer.status == 400 else ()
    if faults:
        return Rejected(where, answer.status, message, faults)
    normalized = message.lower()
    for text in sorted({text.lower() for text in sent_texts if len(text) > 2}, key=len, reverse=True):
        normalized = normalized.replace(text, "#")
    return Refusal(
        signature=f"{answer.status} {re.sub(r'[0-9a-f-]*[0-9][0-9a-f-]*', '#', normalized)}",
        names_limit=answer.status == 429 or answer.retry_after is not None or _LIMIT_WORDS.search(message) is not None,
        retry_after=answer.retry_after,
        error=Rejected(where, answer.status, message),
    )


_MAX_FAULTS = 20

# The fields of a POST by the names that Rails may use: the parameter, or the association behind it.
_FIELDS = {name: name for name in ("certification_id", "email", "valid_from", "valid_until", "file", "conversion_id")}
_FIELDS |= {"certification": "certification_id", "conversion": "conversion_id", "user_email": "email"}

# A full message of Rails is a field followed by a verb: "Valid until can't be blank". Without the verb,
# "Email support@… to raise your limit" would look like a fault of the field "email".
_VERBS = "is|are|was|has|have|must|may|should|does|do|can|cannot|can't|isn't|not|needs|required|invalid"
_FULL_MESSAGE = re.compile(
    rf"(?i)\W*(?P<field>{'|'.join(sorted((n.replace('_', '[ _]') for n in _FIELDS), key=len, reverse=True))})"
    rf"[\"'`]?(?P<reason>:?\s+(?:{_VERBS})\b.*|:\s.*)",
    re.DOTALL,
)


def _faults(answer: Answer) -> tuple[Fault, ...]:
    """Return the faults in a body, at most twenty, in each shape in which Rails sites send validation errors.

    These are ``{"errors": {"email": ["is invalid"]}}``, ``{"email": ["is invalid"]}``,
    ``{"errors": ["Email is invalid"]}``, ``{"error": "email is invalid"}``, the same in XML, and a bare line of text.
    """
    is_xml = answer.body.lstrip()[:1] == b"<"
    try:
        plain = decode.parse(answer.body, "xml" if is_xml else "json")
    except DecodeError:
        plain = None if is_xml else answer.body.decode("utf-8", errors="replace")
    return tuple(dict.fromkeys(_named(plain, inside_errors=False)))[:_MAX_FAULTS]


def _named(plain: Any, *, inside_errors: bool) -> Iterator[Fault]:
    if isinstance(plain, str):
        if found := _FULL_MESSAGE.fullmatch(_line(plain)):
            name = found["field"].lower().replace(" ", "_")
            yield Fault(_FIELDS[name], found["reason"].lstrip(": ").strip())
    elif isinstance(plain, list):
        for item in plain:
            yield from _named(item, inside_errors=inside_errors)
    elif isinstance(plain, dict):
        for name, value in plain.items():
            known = _FIELDS.get(str(name).rpartition(".")[2].lower())
            # Outside of "errors", a text under a field's name may be the value that we sent.
            if known and (isinstance(value, list) or inside_errors):
                yield from (Fault(known, reason) for reason in _texts(value))
            else:
                yield from _named(value, inside_errors=inside_errors or str(name).lower() in ("error", "errors"))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str) and (text := _line(value)):
        yield text
