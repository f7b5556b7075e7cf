"""The list of certifications that an upload begins with: asked for, done without, or waited for in an outage.

A run that is started when there is no network yet, by cron for instance, is to behave as one that loses it later.
"""

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from rich.console import Console
from rich.status import Status

from springest_async.api.verdicts import backoff
from springest_async.bulk import BulkListener, Manifest, OpenMigration, Outage, OutageOver
from springest_async.cli.check import Asked, not_checked_without_list
from springest_async.cli.console import cell, say
from springest_async.cli.exit_codes import Exit
from springest_async.cli.json_log import json_log
from springest_async.cli.signals import interrupts
from springest_async.cli.stops import Stops
from springest_async.cli.times import duration, outage_words
from springest_async.client import Springest
from springest_async.errors import AnswerError, ConfigurationError, NoAnswer, NotSent, ServerError
from springest_async.journal.journal import Journal
from springest_async.journal.ledger import JournalLedger
from springest_async.records import Certification

_TICK = 0.5  # seconds between two updates of the line

_UNREACHABLE = (NotSent, NoAnswer, ServerError)
_Unreachable: TypeAlias = NotSent | NoAnswer | ServerError


class CertificationList:
    """The list of certifications at the beginning of an upload.

    Args:
        asked: the open client and journal; what is not checked without the list is added to it.
        stops: when to stop waiting.
        listener: gets an `Outage` at each new try, and an `OutageOver`.
        err: where to print messages, and what is waited for.
    """

    def __init__(self, asked: Asked, stops: Stops, listener: BulkListener, err: Console) -> None:
        assert asked.journal is not None
        assert asked.springest is not None
        self._asked = asked
        self._journal: Journal = asked.journal
        self._springest: Springest = asked.springest
        self._stops = stops
        self._listener = listener
        self._err = err

    async def read(self, manifest: Manifest, *, needs_network: bool) -> Manifest | Exit:
        """Return the manifest with the list, or without it where it can do so; an exit code if the waiting was ended.

        In an outage, a manifest whose certifications are ids goes on without the list: the queue waits. With names,
        nothing can be done before the list is there, so it is waited for, if Springest was ever reached with this key.

        Args:
            manifest: as it was opened.
            needs_network: whether nothing can be done without Springest, also where certifications are ids.

        Raises:
            SpringestError: there is no list, and no reason to wait for it.
        """
        began = asyncio.get_running_loop().time()
        try:
            with self._err.status(cell("Asking Springest for its certifications")):
                return manifest.with_listed(await self._ask())
        except ConfigurationError:
            say(
                self._err,
                "SPRINGEST_CERTIFICATIONS_API_KEY is not set, so springest does not check whether the certifications"
                " exist and which of them require valid_until.",
            )
            return manifest
        except _UNREACHABLE as error:
            if isinstance(error, NotSent) and not error.trusted:
                raise
            names = await asyncio.to_thread(_has_names, manifest)
            if not names and not needs_network:
                outage = _outage(error, began)
                self._asked.not_checked.append(not_checked_without_list(f"{outage.what}: {outage.reason}"))
                return manifest
            if not await self._was_answered():
                if names:
                    say(
                        self._err,
                        f"{manifest.path} has names of certifications, so nothing can be sent without a list.",
                    )
                raise
            listed = await self._wait(manifest, error, began)
        return listed if isinstance(listed, Exit) else manifest.with_listed(listed)

    async def _ask(self) -> list[Certification]:
        return [certification async for certification in self._springest.certifications()]

    async def _was_answered(self) -> bool:
        ledger = self._springest.limiter.ledger
        return isinstance(ledger, JournalLedger) and await self._journal.was_answered(ledger.budget)

    async def _wait(self, manifest: Manifest, error: _Unreachable, since: float) -> Sequence[Certification] | Exit:
        """Wait until Springest lists its certifications, or until somebody or the clock ends that."""
        await self._note_migration(manifest)
        asking = asyncio.create_task(self._ask_until_answered(error, since))
        stopping = asyncio.create_task(self._stops.reached())

        def interrupt() -> None:
            asking.cancel()

        try:
            with interrupts(interrupt):
                await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, stopping):
                task.cancel()
            await asyncio.wait([asking, stopping])
        if not asking.cancelled():
            return asking.result()
        why, code = "", Exit.INTERRUPTED
        if not stopping.cancelled():
            why, code = f" {stopping.result()}", Exit.STOPPED
        say(self._err, f"Stopped{why}. Nothing was sent. Run the same command again to continue.")
        return code

    async def _note_migration(self, manifest: Manifest) -> None:
        """Show others that this run waits, if the journal knows the manifest."""
        for migration in await OpenMigration.look_up(self._journal, manifest.path):
            if migration.source.origin == self._springest.origin:
                await self._journal.work(migration.id)

    async def _ask_until_answered(self, error: _Unreachable, since: float) -> Sequence[Certification]:
        now = asyncio.get_running_loop().time
        outage = _outage(error, since)
        failures = 0
        say(
            self._err, "The list of certifications is needed first, so the upload waits until Springest can be reached."
        )
        with self._err.status("") as status:
            try:
                while True:
                    failures += 1
                    outage = _outage(error, since, again_at=now() + backoff(failures))
                    self._report(outage)
                    await self._show(status, outage)
                    outage = _outage(error, since)
                    self._report(outage)
                    asking = asyncio.create_task(self._ask())
                    try:
                        while not (await asyncio.wait([asking], timeout=_TICK))[0]:
                            status.update(cell(_words(outage, now())))
                        listed = asking.result()
                    except _UNREACHABLE as failure:
                        error = failure
                    else:
                        say(self._err, f"Springest is reached again after {duration(now() - since)}.")
                        return listed
                    finally:
                        asking.cancel()
            finally:
                self._journal.note_trouble("")
                self._listener(OutageOver(outage.what, outage.reason, now() - since))

    def _report(self, outage: Outage) -> None:
        now = asyncio.get_running_loop().time()
        again_in = None if outage.again_at is None else outage.again_at - now
        self._journal.note_trouble(outage.what, outage.reason, seconds=now - outage.since, again_in=again_in)
        self._listener(outage)
        if again_in is not None and json_log() is None and not self._err.is_interactive:
            say(self._err, f"{_words(outage, now)}.")

    async def _show(self, status: Status, outage: Outage) -> None:
        """Show an outage until it is time to try again."""
        now = asyncio.get_running_loop().time
        assert outage.again_at is not None
        while (left := outage.again_at - now()) > 0:
            status.update(cell(_words(outage, now())))
            await asyncio.sleep(min(left, _TICK))


def _has_names(manifest: Manifest) -> bool:
    """Return whether the list decides which certifications are meant. This reads rows."""
    return manifest.with_listed(()).names_certifications


def _outage(error: _Unreachable, since: float, again_at: float | None = None) -> Outage:
    is_away = isinstance(error, NotSent) and not error.connected
    reason = f"the server answered {error.status}" if isinstance(error, AnswerError) else error.reason
    return Outage(
        since, "no connection" if is_away else "no clear answer", reason.removeprefix("no connection: "), again_at
    )


def _words(outage: Outage, now: float) -> str:
    again_in = None if outage.again_at is None else outage.again_at - now
    words = outage_words(outage.what, outage.reason, now - outage.since, again_in)
    return words[0].upper() + words[1:]
