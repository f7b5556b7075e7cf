"""Random names for what is made with every POST, such as the boundary of its form.

Their randomness is the system's, fetched for many at once: each call of the system lets another thread run, and this
one wait for it, which costs more than everything else in making a name.
"""

import os

_AT_ONCE = 256

_names: list[str] = []
if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_names.clear)


def random_name() -> str:
    """Return 32 random hex digits that no other call returns, in no thread or process."""
    while True:
        try:
            return _names.pop()
        except IndexError:
            digits = os.urandom(16 * _AT_ONCE).hex()
            _names.extend(digits[at : at + 32] for at in range(0, len(digits), 32))
