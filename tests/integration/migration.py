"""A migration as a process of its own, made to be killed: ``python -m tests.integration.migration``.

What the command ``springest upload`` does, with a minute that is shorter, and with an end by its own hand at moments
that a kill from outside hits too seldom: right after "sending" is on disk, and right before an outcome is.
"""

import argparse
import asyncio
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from springest_async import Limiter, Settings, Springest, Timeouts
from springest_async.bulk import Journal, Manifest, RowDone, RowSettling, RowStep, UploadQueue, default_path
from springest_async.bulk.entries import State
from springest_async.limits.store import FileStore


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class MortalJournal(Journal):
    """A journal whose process ends at the n-th of the steps of one kind."""

    moment = "never"
    left = 0

    def _count(self, moment: str) -> None:
        if moment == self.moment:
            self.left -= 1
            if self.left == 0:
                die()

    def sending(self, entry_id: int, sent_at: datetime) -> None:
        self._count("before-sending")
        super().sending(entry_id, sent_at)
        self._count("after-sending")

    def ended(self, entry_id: int, state: State, **outcome: Any) -> None:
        self._count("before-outcome")
        super().ended(entry_id, state, **outcome)
        self._count("after-outcome")


def ignore(_: RowStep | RowSettling | RowDone) -> None:
    """Listen to nothing."""


async def migrate(options: argparse.Namespace) -> None:
    settings = Settings(
        limiter=Limiter(period=options.period, store=FileStore(options.limits, "a budget")),
        timeouts=Timeouts(answer=options.answer),
    )
    async with Springest(
        api_key="sandbox-key",
        certifications_api_key="sandbox-certifications-key",
        host=options.origin,
        settings=settings,
    ) as springest:
        with MortalJournal.open(default_path(options.manifest)) as journal:
            journal.moment, journal.left = options.moment, options.after
            journal.load(Manifest.open(options.manifest), options.origin)
            sys.stdout.write("begins\n")
            sys.stdout.flush()
            error = await UploadQueue(springest, journal, ignore).run()
    if error is not None:
        raise error


def command(manifest: Path, origin: str, limits: Path, *, moment: str = "never", after: int = 0) -> list[str]:
    """Return the command line of a migration."""
    return [
        *(sys.executable, "-m", "tests.integration.migration", str(manifest), origin, str(limits)),
        *("--moment", moment, "--after", str(after)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("origin")
    parser.add_argument("limits", type=Path)
    parser.add_argument("--period", type=float, default=3.0)
    parser.add_argument("--answer", type=float, default=3.0)
    parser.add_argument("--moment", default="never")
    parser.add_argument("--after", type=int, default=0)
    asyncio.run(migrate(parser.parse_args()))


if __name__ == "__main__":
    main()
