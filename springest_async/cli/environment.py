"""From the environment to a client. Keys come from here only: an argument would show them in the list of processes."""

import os

from springest_async.client import Settings, Springest
from springest_async.errors import ConfigurationError

__all__ = ["certifications_key_is_set", "springest", "springest_for_certifications"]

_KEY = "SPRINGEST_API_KEY"
_CERTIFICATIONS_KEY = "SPRINGEST_CERTIFICATIONS_API_KEY"
_HOST = "SPRINGEST_HOST"


def springest() -> Springest:
    """Make the client for certificates.

    Raises:
        ConfigurationError: when the key is missing, or the host is none.
    """
    key = _value(_KEY)
    if key is None:
        raise ConfigurationError(f"set {_KEY} to the API key for certificates of your host (see springest --help)")
    return Springest(
        api_key=key,
        certifications_api_key=_value(_CERTIFICATIONS_KEY),
        host=_value(_HOST) or "nl",
        # Started twice, or again after an interruption, the command keeps the limit all the same.
        settings=Settings(machine_wide=True),
    )


def springest_for_certifications() -> Springest:
    """Make a client that lists certifications, for which the other key is not needed.

    Raises:
        ConfigurationError: when the key is missing, or the host is none.
    """
    key = _value(_CERTIFICATIONS_KEY)
    if key is None:
        raise ConfigurationError(
            f"set {_CERTIFICATIONS_KEY} to the API key for certifications of your host (see springest --help)"
        )
    return Springest(api_key=key, certifications_api_key=key, host=_value(_HOST) or "nl")


def certifications_key_is_set() -> bool:
    """Whether certifications can be asked for."""
    return _value(_CERTIFICATIONS_KEY) is not None


def _value(name: str) -> str | None:
    # A key that was read from a file brings the file's last newline along.
    return os.environ.get(name, "").strip() or None
