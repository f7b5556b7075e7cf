"""The command ``springest`` with a shorter minute: ``python -m tests.integration.scaled SECONDS COMMAND…``.

Nothing else about it differs: what takes a minute takes so many seconds, and so do its hour, its backoff, its patience
with an answer, and the time that a server may keep what a vanished worker has sent. So a migration of hours is one of
minutes, with the same arithmetic. A lease lasts `LEASE` seconds, which a busy machine has to extend in time.

`MACHINE` in the environment is the name of the machine: with a state folder of its own, it is another one.
"""

import os
import platform
import sys
from functools import partial
from importlib import import_module
from typing import Any

import attrs

__all__ = ["ANSWER", "LEASE", "MACHINE"]

MACHINE = "SPRINGEST_TESTS_MACHINE"
"""The variable with the name of the machine; without it, it is that of this one."""

LEASE = 6.0
"""How long a worker that is not heard of keeps what it has, in seconds."""

ANSWER = 6.0
"""How long an upload waits for its answer, at least, in seconds."""


def scale(period: float) -> None:
    """Make a minute of this process so many seconds. Nothing of the library may have been imported before.

    A module takes these numbers from another one when it is imported, so each is changed before the next import.
    """
    factor = period / 60
    _module("springest_async.limits.bucket").PERIOD_SECONDS = period
    limiter = _module("springest_async.limits.limiter")
    limiter.REQUESTS_PER_HOUR = int(limiter.REQUESTS_PER_HOUR / factor)
    verdicts = _module("springest_async.api.verdicts")
    backoff = verdicts.backoff
    verdicts.backoff = lambda failures, *, longest=60.0: backoff(failures, longest=longest) * factor
    _module("springest_async.journal.certificates").SERVER_IDLE_SECONDS *= factor
    environment = _module("springest_async.cli.environment")
    timeouts = _module("springest_async.http.transport").Timeouts(answer=max(ANSWER, 120 * factor))
    settings = environment._settings
    environment._settings = lambda: attrs.evolve(settings(), timeouts=timeouts)
    environment.Journal = partial(environment.Journal, lease=LEASE)


def _module(name: str) -> Any:
    return import_module(name)


def main() -> int:
    """Run the command, and return its exit code."""
    seconds, *arguments = sys.argv[1:]
    if name := os.environ.get(MACHINE):
        platform.node = lambda: name
    scale(float(seconds))
    code: int = _module("springest_async.cli").run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
