"""The command ``springest`` that looks around often: ``python -m tests.integration.attentive COMMAND…``.

Within a second, it hears of other runs, of pauses and of the time of the day, leaves to others what it cannot begin
soon, and ``status --watch`` looks again. The real one does that within 2 to 10 seconds, for which no test of what it
does then need wait; and it asks for a list once again at once, not four times within ten seconds. Nothing else about it
differs: a lease lasts as long.
"""

import sys

import stamina

from springest_async.bulk import queue
from springest_async.cli import main, stops, upload_run, watching
from springest_async.journal import journal

__all__ = ["main"]

_LOOK_EVERY = 0.5
"""Seconds."""

if __name__ == "__main__":
    journal._BEATS = int(journal.LEASE_SECONDS / _LOOK_EVERY)
    stamina.set_testing(True, attempts=2)
    queue._TURN_WITHIN = queue._LOOK_EVERY = stops._LOOK_EVERY = upload_run._LOOK_EVERY = _LOOK_EVERY
    if sys.argv[1:2] == ["status"]:  # an upload's own lines are as rare as ever
        watching._REST = watching._LINE_EVERY = _LOOK_EVERY
    sys.exit(main())
