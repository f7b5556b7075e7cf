"""The address of a PostgreSQL, as a URL or as ``host=… dbname=…``, and the part of it that may be shown.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
"""

import contextlib
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

import psycopg
from attrs import field, frozen
from psycopg.conninfo import conninfo_to_dict

from springest_async.errors import JournalError

_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")

# A connection that is cut off without a word is noticed after about 25 s; all times but the last are in seconds.
_DEFAULTS = {
    "application_name": "springest",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


@frozen
class Address:
    """Where a database is.

    Attributes:
        where: host, port, user and name of the database, for people to read.
        parameters: all that is needed to connect, the password included.
    """

    where: str
    parameters: Mapping[str, str] = field(repr=False)

    def scrubbed(self, text: str) -> str:
        """Return `text` without passwords, on one line."""
        secrets = [self.parameters.get(name) for name in _SECRETS] + [os.environ.get("PGPASSWORD")]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        return " ".join(text.split())


def parse_address(url: str) -> Address:
    """Return the address that `url` names, with time-outs for what it leaves open.

    Raises:
        JournalError: it cannot be read; the error contains nothing of it, because any part may be of a password.
    """
    parameters: dict[str, str] | None = None
    with contextlib.suppress(psycopg.Error):  # which quotes the address
        parameters = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    if parameters is None or _splits_a_password(url) or not re.fullmatch(r"[\d,]*", parameters.get("port", "")):
        del url, parameters
        raise JournalError(
            "PostgreSQL",
            "this address of a database cannot be read: write postgresql://USER@HOST:PORT/DATABASE, with %40 for @,"
            " %2F for / and %3A for : in its parts",
        )
    return Address(_where(parameters), _DEFAULTS | parameters | {"client_encoding": "UTF8"})


def _splits_a_password(url: str) -> bool:
    """Return whether a password with a bare ``@`` or ``/`` would be read as a host or a database."""
    _, is_url, rest = url.partition("://")
    place = rest.partition("?")[0]
    return bool(is_url) and (place.count("@") > 1 or "@" in place.partition("/")[2])


def _where(parameters: Mapping[str, str]) -> str:
    known = dict(parameters)
    if "service" not in known:  # a service says the rest itself
        for option in psycopg.pq.Conninfo.get_defaults():
            if option.val is not None:
                known.setdefault(option.keyword.decode(), option.val.decode(errors="replace"))
    user, host, port = known.get("user", ""), known.get("host") or known.get("hostaddr", ""), known.get("port", "")
    name = known.get("dbname") or ("" if "service" in known else user)
    more = {"service": known.get("service"), "host": host if _is_socket(host) else None}
    options = "&".join(f"{key}={value}" for key, value in more.items() if value)
    at = f"{quote(user)}@" if user else ""
    return f"postgresql://{at}{'' if _is_socket(host) else _hosts(host, port)}/{quote(name)}" + (
        options and f"?{options}"
    )


def _is_socket(host: str) -> bool:
    return host.startswith(("/", "@"))


def _hosts(host: str, port: str) -> str:
    """Return hosts with their ports, as a URL has them: several are separated by commas, and may share a port."""
    hosts, ports = host.split(","), port.split(",")
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    bracketed = [f"[{each}]" if ":" in each else each for each in hosts]
    return ",".join(f"{each}:{port}" if each and port else each for each, port in zip(bracketed, ports, strict=True))
