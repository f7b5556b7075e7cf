"""Which limiter the clients of this process share, so that one host and key has one budget."""

from collections.abc import Callable, Hashable

from springest_async.errors import ConfigurationError
from springest_async.limits.limiter import Limiter

_shared: dict[Hashable, Limiter] = {}


def keep_budget_in(budget: Hashable, place: str) -> None:
    """Note where this process keeps a budget, which is a host and a key's digest.

    Raises:
        ConfigurationError: another client of this process keeps it elsewhere, so neither would keep the limit.
    """
    if (other := _places.setdefault(budget, place)) != place:
        raise ConfigurationError(
            f"another client of this process uses this host and key and keeps its limit in {other}, not in {place}:"
            " give both the same journal, or none"
        )


_places: dict[Hashable, str] = {}


def shared_limiter(budget: Hashable, make: Callable[[], Limiter]) -> Limiter:
    """Return the limiter that all clients of this process share for a budget, which is a host and a key's digest.

    It lives as long as the process, so that a client that is closed and opened again forgets no POST.

    Raises:
        ConfigurationError: another client opened the same budget with other numbers.
    """
    wanted = make()
    limiter = _shared.setdefault(budget, wanted)
    if _settings(limiter) != _settings(wanted):
        raise ConfigurationError(
            f"another client of this process uses this host and key with {limiter.posts} POSTs a minute, a burst of"
            f" {limiter.burst} and {limiter.requests_per_hour} requests an hour: let both do the same,"
            " because they share one budget"
        )
    return limiter


def _settings(limiter: Limiter) -> tuple[object, ...]:
    return limiter.posts, limiter.period, limiter.burst, limiter.requests_per_hour
