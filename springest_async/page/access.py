"""Who may see the page and press its buttons: pure checks of a request's headers.

Other programs of this machine and other machines need the token in the address, or the password. A website that the
owner has open meanwhile must not reach the page through the owner's browser: the host must be named as it is here
(against DNS rebinding), and what changes something must come from the page itself (the ``Origin``, and a token that
only the page knows, in a header).
"""

import base64
import binascii
import hmac
import ipaddress
import platform
import secrets
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from attrs import field, frozen

SHORTEST_PASSWORD = 12
"""Characters. Nothing keeps a program from trying passwords, so a short one would be found."""

TOKEN_HEADER = "X-Springest-Page"  # noqa: S105 # the name of a header

HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of every answer: nothing from outside, nothing kept, and no frame of another site."""


def _new_token() -> str:
    return secrets.token_urlsafe(24)


@frozen(kw_only=True)
class Access:
    """What a request must show.

    Attributes:
        host: the address or name that the page listens on.
        password: what the browser asks for; None for loopback, where the token in the address does.
        address_token: the token in the address; it is not used with a password.
        page_token: what the page shows with each POST, so that no other page can make one.
    """

    host: str
    password: str | None = field(default=None, repr=False)
    address_token: str = field(factory=_new_token, repr=False)
    page_token: str = field(factory=_new_token, repr=False)

    def knows_host(self, host: str) -> bool:
        """Return whether a ``Host`` header names this machine, and is not a name that somebody made lead here."""
        name = _name_of(host)
        if self.password is None:
            return name in ("localhost", "127.0.0.1", "::1")
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return True  # no name at all, so none that could lead elsewhere
        node = platform.node().lower()
        short = node.partition(".")[0]
        return name in ("localhost", self.host.lower(), node, short, f"{short}.local")

    def knows_password(self, authorization: str) -> bool:
        """Return whether an ``Authorization`` header (Basic, of any user) has the password; true without one."""
        if self.password is None:
            return True
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            _, _, shown = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(shown, self.password.encode())

    def knows_address(self, token: str) -> bool:
        """Return whether the address has the token; true with a password."""
        return self.password is not None or _same(token, self.address_token)

    def is_own(self, host: str, origin: str, token: str) -> bool:
        """Return whether a POST comes from the page: its ``Host``, its ``Origin`` and the token in its header."""
        return origin.partition("://")[2] == host and _same(token, self.page_token)


def _same(shown: str, right: str) -> bool:
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), right.encode())


def _name_of(host: str) -> str:
    """Return the name or address in a ``Host`` header, in lower case; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
