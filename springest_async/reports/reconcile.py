"""Compare the rows of a migration with what Springest lists, and put back to waiting what is certainly missing there.

Springest lists verified certificates only, so it can show that a certificate is there, and it can show that one is
missing only where it shows others of its certification to the same key. What could not be compared is never "no
difference".
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from springest_async.api.settlement import CERTAINLY_EARLIER
from springest_async.bulk.listed import listed_looks
from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.client import Springest
from springest_async.journal import attempts, comparison, migrations
from springest_async.journal.certificates import microseconds, moment
from springest_async.journal.engine import Connection
from springest_async.journal.ledger import JournalLedger
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import State
from springest_async.journal.status_reader import StatusReader
from springest_async.records import Certificate
from springest_async.reports import matching, springest_lists
from springest_async.reports.matching import Doubt, Finding, Kind, Missing
from springest_async.reports.numbers import count
from springest_async.reports.springest_lists import SpringestLists, created_from, person_of

T = TypeVar("T")

_AT_ONCE = 10_000  # rows that are read together
_LOOKED_FOR_TOGETHER = 1000


class Reconciliation:
    """A comparison of one migration with what Springest lists.

    Usage::

        async with Reconciliation(migration, springest) as comparison:
            await comparison.read_rows()
            print(await comparison.count_requests())
            await comparison.fetch()
            print(comparison.counts, comparison.not_compared)
            for finding in comparison.findings(Kind.MISSING): ...

    Args:
        migration: the migration.
        springest: an open client for its host.

    Attributes:
        since: only what was created on this day or later is compared; None if nothing of the migration was sent.
        faulty: how many rows of the manifest the journal does not have, because of their faults.
        counts: how many rows, and listed certificates of no row, there are of each kind.
        not_compared: what could not be compared, in sentences without a full stop.
        doubts: why it is not certain of missing rows that they are not stored, and of how many.
    """

    def __init__(self, migration: OpenMigration, springest: Springest) -> None:
        self.since: date | None = None
        self.faulty = 0
        self.counts: Counter[Kind] = Counter()
        self.not_compared: list[str] = []
        self.doubts: dict[Doubt, int] = {}
        self._was_repaired = False
        self._stored: Counter[str | None] = Counter()  # by the budget that paid for it
        self._migration = migration
        self._springest = springest
        self._database = TemporaryDatabase(*springest_lists.TABLES, *matching.TABLES)
        self._reader = StatusReader(migration.journal)
        self._lists: SpringestLists | None = None

    @property
    def origin(self) -> str:
        """The host, as in ``https://api.springest.nl``."""
        return self._springest.origin

    async def __aenter__(self) -> Self:
        self._database.__enter__()
        await self._reader.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._reader.__aexit__(kind, error, traceback)
        self._database.__exit__(kind, error, traceback)

    @property
    def asked(self) -> int:
        """How many requests have been made so far."""
        return 0 if self._lists is None else self._lists.asked

    @property
    def by_person(self) -> bool:
        """Whether Springest was asked by person, so that nothing is known of what other people have."""
        return self._lists is not None and self._lists.by_person

    @property
    def _budget(self) -> str | None:
        """The name of the budget of the client, which is that of its key."""
        ledger = self._springest.limiter.ledger
        return ledger.budget if isinstance(ledger, JournalLedger) else None

    @property
    def is_of_other_key(self) -> bool:
        """Whether all that is stored was sent with other keys than the client's; `read_rows` comes before it."""
        return bool(self._stored) and not self._stored[self._budget]

    # --- what the journal knows, and what Springest lists ---

    async def read_rows(self) -> None:
        """Read what is to be compared, before Springest is asked: what is stored later may not be in its lists.

        Raises:
            JournalError: the journal cannot be read, or the migration was erased from it.
        """
        self.faulty = await self._reader.read(partial(migrations.faulty_rows, migration=self._migration.id))
        posts = await self._reader.read(partial(comparison.first_posts, migration=self._migration.id))
        self.since = created_from(posts)
        if self.since is not None:
            self._lists = SpringestLists(self._database, self._springest, self.since)
        settled = microseconds(datetime.now(UTC) - timedelta(seconds=self._springest.settings.timeouts.answer))
        assert settled is not None
        async for rows in self._pages(partial(comparison.rows, migration=self._migration.id), lambda row: row.id):
            await _in_thread(self._note_before, rows, settled)
        ids = partial(attempts.put_back_ids, migration=self._migration.id)
        async for put_back in self._pages(ids, lambda one: one[0]):
            self._was_repaired = True
            await _in_thread(matching.add_put_back, self._database, put_back)

    def _note_before(self, rows: list[comparison.ComparedRow], settled: int) -> None:
        change = self._database.change
        stored = [row for row in rows if row.state is State.STORED]
        self._stored.update(row.budget for row in stored)
        change(
            "INSERT OR IGNORE INTO before VALUES (?, ?, ?)",
            ((row.certificate, row.attempt, (row.settled_at or 0) < settled) for row in stored),
        )
        people = {person_of(row.email): row.email for row in rows}
        change("INSERT OR IGNORE INTO people (person, email) VALUES (?, ?)", people.items())
        sent = Counter({row.certification_id: 0 for row in rows})
        sent.update(row.certification_id for row in rows if row.attempt is not None)
        change(
            "INSERT INTO certifications (id, sent) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET sent = sent + ?",
            ((certification, rows_sent, rows_sent) for certification, rows_sent in sent.items()),
        )

    async def _pages(self, read: Callable[..., list[T]], key_of: Callable[[T], int]) -> AsyncGenerator[list[T], None]:
        """Yield what the journal has, many lines at a time, so that nobody waits for all of it."""
        after = 0
        while True:
            start = after

            def job(connection: Connection, start: int = start) -> list[T]:
                return read(connection, after=start, limit=_AT_ONCE)

            if not (lines := await self._reader.read(job)):
                return
            yield lines
            after = key_of(lines[-1])

    async def count_requests(self, *, before_repair: bool = False) -> int:
        """Return how many requests `fetch` makes at least; `read_rows` comes before it.

        Lists by person may take fewer, and do not show what is there under another address. So they are not enough
        before a repair, nor where one has sent something again, which may be there twice.

        Args:
            before_repair: whether what is missing shall be sent again.

        Raises:
            SpringestError: as `Springest.certificates`.
        """
        if self._lists is None:
            return 0
        return await self._lists.count_requests(may_ask_by_person=not before_repair and not self._was_repaired)

    async def fetch(self) -> None:
        """Fetch the lists and compare the rows with them; `count_requests` comes before it.

        Raises:
            NotAuthorized, Forbidden: the key is refused.
            JournalError: the journal cannot be read, or the migration was erased from it.
        """
        if self._lists is not None:
            await self._lists.fetch()
            self.not_compared += self._lists.unavailable
        # What is listed was sent before, so the journal knows it now.
        rows = partial(comparison.rows, migration=self._migration.id)
        async for page in self._pages(rows, lambda row: row.id):
            await _in_thread(matching.add_rows, self._database, page)
        known = partial(comparison.known, origin=self._migration.source.origin)
        async for certificates in self._pages(known, lambda one: one.id):
            await _in_thread(matching.add_known, self._database, certificates)
        since = self.since or date.max
        await _in_thread(matching.match, self._database, since, by_person=self.by_person, budget=self._budget)
        self.counts = matching.counts(self._database)
        self.doubts = matching.doubts(self._database)
        for why, uncompared in matching.reasons(self._database).items():
            self.not_compared.append(f"{why.value} ({count(uncompared, 'row')})")

    # --- what was found ---

    def findings(self, *kinds: Kind) -> Generator[Finding, None, None]:
        """Yield what was found, of these kinds (default: all); see `matching.findings`."""
        return matching.findings(self._database, *(kinds or tuple(Kind)))

    def certifications(self, kind: Kind) -> Counter[int]:
        """Count the rows of one kind by certification."""
        return matching.certifications(self._database, kind)

    def states(self, kind: Kind) -> Counter[State]:
        """Count the rows of one kind by their state in the journal."""
        return matching.states(self._database, kind)

    @property
    def differences(self) -> int:
        """How many rows and listed certificates differ."""
        return sum(rows for kind, rows in self.counts.items() if kind.is_difference)

    @property
    def is_whole(self) -> bool:
        """Whether each row of the manifest is stored, and Springest shows it."""
        return not self.differences and not self.faulty and set(+self.counts) <= {Kind.SHOWN} and not self.not_compared

    # --- putting back what is missing ---

    def count_missing(self) -> int:
        """Return how many certificates are certainly not stored, as far as the lists show."""
        ((missing,),) = self._database.select("SELECT count(*) FROM items WHERE certain")
        return int(missing)

    async def look_for_missing(self) -> None:
        """Ask Springest once more for each certificate that is certainly missing, by person; one request each.

        Somebody may have moved it to another certification, or it appears late. What is found is not certainly missing
        any more: what has its id is what Springest lists it as. See `found_after_all`.

        Raises:
            SpringestError: as `Springest.certificates`. What was looked for before that counts.
        """
        assert self._lists is not None
        try:
            while some := matching.to_look_for(self._database, _LOOKED_FOR_TOGETHER):
                for missing in some:
                    listed, doubt = await self._look_for(missing)
                    if listed is not None:
                        self._lists.keep(listed)
                    matching.note_search(self._database, missing.key, None if listed is None else listed.id, doubt)
        finally:
            self.counts = matching.counts(self._database)
            self.doubts = matching.doubts(self._database)

    async def _look_for(self, missing: Missing) -> tuple[Certificate | None, Doubt | None]:
        """Return what Springest lists of a missing certificate: what has its id, or what may be it, with the doubt.

        Return neither if it certainly is not there.
        """
        earliest = (moment(missing.sent_at) or datetime.now(UTC)) - CERTAINLY_EARLIER
        first: int | None = None
        read: set[int] = set()
        candidate: Certificate | None = None
        assert self._lists is not None
        # Of all certifications: somebody may have moved it to another one.
        async with aclosing(self._springest.certificate_pages(email=missing.email)) as lists:
            async for page in lists:
                self._lists.asked += 1
                first = page.total if first is None else first
                read.update(one.id for one in page.records)
                for one in page.records:
                    if one.id == missing.springest_id:
                        return one, None
                if any(one.user is None or person_of(one.user.email) != missing.person for one in page.records):
                    return None, Doubt.UNCLEAR  # it is not what was asked for, so this may not be all of it
                for one in page.records:
                    if one.certification_id == missing.certification and not self._is_another(
                        one, missing.looks, earliest
                    ):
                        candidate = candidate or one
        if candidate is not None:
            return candidate, Doubt.MAY_BE_LISTED
        return None, None if first is not None and len(read) >= first else Doubt.UNCLEAR

    def _is_another(self, listed: Certificate, looks: bytes, earliest: datetime) -> bool:
        """Return whether a listed certificate of the same person and certification is certainly not the missing one."""
        query = (
            "SELECT 1 FROM items WHERE springest_id = ? AND NOT certain UNION ALL"
            " SELECT 1 FROM others WHERE springest_id = ? LIMIT 1"
        )
        if any(self._database.select(query, listed.id, listed.id)):
            return True
        if listed_looks(listed, self._springest.origin) == looks:
            return False
        return listed.created_at is not None and listed.created_at < earliest

    def found_after_all(self) -> Generator[Finding, None, None]:
        """Yield the rows that `look_for_missing` has found, or that it is not certain of."""
        return matching.found_after_all(self._database)

    async def send_again(self) -> int:
        """Put certificates back to waiting that `look_for_missing` did not find; the next upload sends them.

        Return how many wait then: those that another run has changed since they were compared are left as they are.

        Raises:
            JournalError: the journal cannot be written. Nothing was changed then.
        """
        return await self._migration.send_missing_again(matching.not_found(self._database))


async def _in_thread(work: Callable[..., object], *values: object, **options: object) -> None:
    """Run what blocks in a thread, to its end: one thread at a time may use the temporary database."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *values, **options))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise
