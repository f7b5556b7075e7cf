"""Make clients from environment variables. Keys are never arguments, which the list of processes would show."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from springest_async.api.protocol import origin_of
from springest_async.client import Settings, Springest
from springest_async.errors import ConfigurationError

_KEY = "SPRINGEST_API_KEY"
_CERTIFICATIONS_KEY = "SPRINGEST_CERTIFICATIONS_API_KEY"


def springest() -> Springest:
    """Return the client for certificates; a missing key or an invalid host or proxy raises `ConfigurationError`."""
    # The limit is shared with other runs on this machine, also with those that have just been interrupted.
    return _client(_KEY, "certificates", machine_wide=True)


def springest_for_certifications() -> Springest:
    """Return a client that lists certifications, without the key for certificates; raises as `springest` does."""
    return _client(_CERTIFICATIONS_KEY, "certifications", machine_wide=False)


def _client(key: str, purpose: str, *, machine_wide: bool) -> Springest:
    # No variable holds a key: a traceback may show variables.
    if not _value(key):
        raise ConfigurationError(f"set {key} to the API key for {purpose} of your host (see springest --help)")
    host = _value("SPRINGEST_HOST") or "nl"
    # OpenSSL reads SSL_CERT_FILE by itself, but reports no error when it cannot.
    settings = Settings(machine_wide=machine_wide, ca_file=_value("SSL_CERT_FILE") or None, proxy=_proxy(host))
    return Springest(
        api_key=_value(key), certifications_api_key=_value(_CERTIFICATIONS_KEY), host=host, settings=settings
    )


def _proxy(host: str) -> str | None:
    """Return the proxy for a host as other programs do: HTTPS_PROXY, unless NO_PROXY excludes the host.

    Lower-case variables come first, and ``http://`` may be missing.
    """
    origin = urlsplit(origin_of(host))
    proxy = getproxies_environment().get("https", "").strip()
    if origin.scheme != "https" or not proxy or proxy_bypass(origin.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _value(name: str) -> str:
    # A key that was read from a file may end with a newline.
    return os.environ.get(name, "").strip()
