"""Make clients and journals from environment variables. Keys are never arguments, which the list of processes shows."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from attrs import evolve

from springest_async.api.protocol import is_loopback, origin_of
from springest_async.client import USER_AGENT, Settings, Springest
from springest_async.errors import ConfigurationError
from springest_async.journal.journal import Journal, where_from_env

if TYPE_CHECKING:
    from springest_async.http.ping import Ping

_CERTIFICATIONS_KEY = "SPRINGEST_CERTIFICATIONS_API_KEY"


def springest(journal: Journal) -> Springest:
    """Return the client for uploads; a missing key or an invalid host or proxy raises `ConfigurationError`."""
    return Springest.from_env(settings=_settings(), journal=journal)


def springest_for_certificates() -> Springest:
    """Return a client that lists certificates, without a journal; raises as `springest` does."""
    return _client("SPRINGEST_API_KEY", "certificates")


def springest_for_certifications() -> Springest:
    """Return a client that lists certifications, without the key for certificates; raises as `springest` does."""
    return _client(_CERTIFICATIONS_KEY, "certifications")


def journal_at(option: str | None) -> Journal:
    """Return the journal that the option ``--journal`` names, else the one of the environment.

    Raises:
        ConfigurationError: the option contains a password, or there is no folder for a journal.
        JournalError: it cannot be a journal.
    """
    if option and _has_password(option):
        raise ConfigurationError(
            "--journal contains a password, which the list of processes shows: put it into SPRINGEST_JOURNAL,"
            " PGPASSFILE or a service file"
        )
    return Journal(option or where_from_env())


@asynccontextmanager
async def existing_journal(option: str | None) -> AsyncIterator[Journal]:
    """Open a journal that exists, as `journal_at` finds it; `JournalMissing` if there is none."""
    journal = journal_at(option)
    await journal.open(create=False)
    try:
        yield journal
    finally:
        await journal.close()


def origin() -> str:
    """Return the host that SPRINGEST_HOST names."""
    return origin_of(_value("SPRINGEST_HOST") or "nl")


def local_origin() -> str | None:
    """Return the host that SPRINGEST_HOST names if it is this machine, and None without the variable.

    Raises:
        ConfigurationError: it is another machine.
    """
    if not _value("SPRINGEST_HOST"):
        return None
    found = origin()
    if not is_loopback(urlsplit(found).hostname or ""):
        raise ConfigurationError(
            f"springest bench sends invented certificates, and {found} is a real marketplace or another machine: unset"
            " SPRINGEST_HOST, which starts a sandbox, or set it to a server on this machine"
        )
    return found


def local_springest(journal: Journal, settings: Settings) -> Springest:
    """Return the client for the host that `local_origin` names, which no proxy may lead to another machine.

    A missing key raises `ConfigurationError`.
    """
    return Springest.from_env(settings=evolve(settings, ca_file=_value("SSL_CERT_FILE") or None), journal=journal)


def ping(option: str | None) -> "Ping | None":
    """Return whom to ping, as the option ``--ping`` says, else SPRINGEST_PING; None for nobody.

    Raises:
        ConfigurationError: the address cannot be pinged.
    """
    if not (option or _value("SPRINGEST_PING")):
        return None
    from springest_async.http.ping import Ping  # noqa: PLC0415 # not always needed

    return Ping(option or _value("SPRINGEST_PING"), user_agent=USER_AGENT, proxy_to=_proxy_to)


def _client(key: str, purpose: str) -> Springest:
    # No variable holds a key: a traceback may show variables.
    if not _value(key):
        raise ConfigurationError(f"set {key} to the API key for {purpose} of your host: each host has its own")
    return Springest(
        api_key=_value(key),
        certifications_api_key=_value(_CERTIFICATIONS_KEY),
        host=_value("SPRINGEST_HOST") or "nl",
        settings=_settings(),
    )


def _settings() -> Settings:
    # OpenSSL reads SSL_CERT_FILE by itself, but reports no error when it cannot.
    return Settings(ca_file=_value("SSL_CERT_FILE") or None, proxy=_proxy_to(origin()))


def _proxy_to(address: str) -> str | None:
    """Return the proxy to an origin as other programs do: HTTPS_PROXY, unless NO_PROXY excludes the host.

    Lower-case variables come first, and ``http://`` may be missing.
    """
    parts = urlsplit(address)
    proxy = getproxies_environment().get("https", "").strip()
    if parts.scheme != "https" or not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _has_password(where: str) -> bool:
    """Return whether an address of a database contains a password, in doubt that it does."""
    if not where.startswith(("postgresql://", "postgres://")):
        return False
    user, at, _ = where.partition("://")[2].rpartition("@")
    return bool(at and user.partition(":")[2]) or re.search(r"[?&](ssl)?password=", unquote(where)) is not None


def _value(name: str) -> str:
    # A key that was read from a file may end with a newline.
    return os.environ.get(name, "").strip()
