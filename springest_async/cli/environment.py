"""From the environment to a client. Keys come from here only: an argument would show them in the list of processes."""

import os

from springest_async.client import Springest
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
    if not os.environ.get(_KEY):
        raise ConfigurationError(f"set {_KEY} to the API key for certificates of your host (see springest --help)")
    return Springest(
        api_key=os.environ[_KEY],
        certifications_api_key=os.environ.get(_CERTIFICATIONS_KEY),
        host=os.environ.get(_HOST) or "nl",
    )


def springest_for_certifications() -> Springest:
    """Make a client that lists certifications, for which the other key is not needed.

    Raises:
        ConfigurationError: when the key is missing, or the host is none.
    """
    key = os.environ.get(_CERTIFICATIONS_KEY)
    if not key:
        raise ConfigurationError(
            f"set {_CERTIFICATIONS_KEY} to the API key for certifications of your host (see springest --help)"
        )
    return Springest(api_key=key, certifications_api_key=key, host=os.environ.get(_HOST) or "nl")


def certifications_key_is_set() -> bool:
    """Whether certifications can be asked for."""
    return bool(os.environ.get(_CERTIFICATIONS_KEY))
