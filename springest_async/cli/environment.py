"""From the environment to a client. Keys come from here only: an argument would show them in the list of processes."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from springest_async.api.protocol import origin_of
from springest_async.client import Settings, Springest
from springest_async.errors import ConfigurationError

__all__ = ["certifications_key_is_set", "springest", "springest_for_certifications"]

_KEY = "SPRINGEST_API_KEY"
_CERTIFICATIONS_KEY = "SPRINGEST_CERTIFICATIONS_API_KEY"
_HOST = "SPRINGEST_HOST"


def springest() -> Springest:
    """Make the client for certificates.

    Raises:
        ConfigurationError: when the key is missing, or the host or the proxy is none.
    """
    # No variable keeps a key: a traceback may show them.
    if not _value(_KEY):
        raise ConfigurationError(f"set {_KEY} to the API key for certificates of your host (see springest --help)")
    host = _host()
    return Springest(
        api_key=_value(_KEY),
        certifications_api_key=_value(_CERTIFICATIONS_KEY),
        host=host,
        # Started twice, or again after an interruption, the command keeps the limit all the same.
        settings=Settings(machine_wide=True, ca_file=_ca_file(), proxy=_proxy(host)),
    )


def springest_for_certifications() -> Springest:
    """Make a client that lists certifications, for which the other key is not needed.

    Raises:
        ConfigurationError: when the key is missing, or the host or the proxy is none.
    """
    if not certifications_key_is_set():
        raise ConfigurationError(
            f"set {_CERTIFICATIONS_KEY} to the API key for certifications of your host (see springest --help)"
        )
    host = _host()
    return Springest(
        api_key=_value(_CERTIFICATIONS_KEY),
        certifications_api_key=_value(_CERTIFICATIONS_KEY),
        host=host,
        settings=Settings(ca_file=_ca_file(), proxy=_proxy(host)),
    )


def certifications_key_is_set() -> bool:
    """Whether certifications can be asked for."""
    return _value(_CERTIFICATIONS_KEY) != ""


def _host() -> str:
    return _value(_HOST) or "nl"


def _ca_file() -> str | None:
    # OpenSSL reads it anyway, in place of the system's CAs, and says nothing when it cannot.
    return _value("SSL_CERT_FILE") or None


def _proxy(host: str) -> str | None:
    """Give the proxy for a host, as other programs take it from the environment: HTTPS_PROXY, unless NO_PROXY says no.

    The variables may be in small letters, which come first, and the proxy may lack its ``http://``.
    """
    origin = urlsplit(origin_of(host))
    proxy = getproxies_environment().get("https", "").strip()
    if origin.scheme != "https" or not proxy or proxy_bypass(origin.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _value(name: str) -> str:
    # A key that was read from a file brings the file's last newline along.
    return os.environ.get(name, "").strip()
