"""Run the upload queue on a small archive, and check its events against the journal, for unit and integration tests."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from springest_async import Journal, Springest, SpringestError
from springest_async.bulk import (
    BulkEvent,
    Entry,
    Manifest,
    OpenMigration,
    Outage,
    OutageOver,
    Paused,
    Resumed,
    RowDone,
    RowSettling,
    RowStep,
    State,
    UploadQueue,
    load_manifest,
    source_of,
)
from springest_async.journal import certificates
from springest_async.journal.engine import Connection
from springest_async.journal.records import Intent, Outcome
from springest_async.journal.status import read_all
from springest_async.manifest.csv_table import CsvTable
from tests.pdfs import archive

__all__ = [
    "LATER",
    "NOW",
    "ORIGIN",
    "Event",
    "Events",
    "Kind",
    "attempts",
    "employees",
    "entries",
    "found",
    "journal_of",
    "loaded",
    "manifest_of",
    "queue_of",
    "rewrite",
    "rows_of",
    "run",
    "settle",
    "sha256_of",
    "states",
    "was_killed",
]

Event = BulkEvent
Kind = Literal["waiting", "sending", "refused", "unsent"]

ORIGIN = "https://api.springest.nl"
NOW = datetime(2026, 1, 31, 12, 30, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(seconds=3)

_LONG = 10_000.0
"""Seconds; in virtual time a test that waits for something that never happens ends at once."""


class Events:
    """A listener that keeps all events."""

    def __init__(self) -> None:
        self.done: list[RowDone] = []
        self.steps: list[RowStep] = []
        self.settling: list[RowSettling] = []
        self.outages: list[Outage | OutageOver] = []
        self.pauses: list[Paused | Resumed] = []
        self._waiters: list[tuple[Callable[[], bool], Callable[[], object]]] = []

    def __call__(self, event: Event) -> None:
        match event:
            case RowDone():
                self.done.append(event)
            case RowSettling():
                self.settling.append(event)
            case RowStep():
                self.steps.append(event)
            case Outage() | OutageOver():
                self.outages.append(event)
            case Paused() | Resumed():
                self.pauses.append(event)
        for condition, callback in self._waiters:
            if condition():
                callback()

    @property
    def states(self) -> dict[int | None, State]:
        """The final state of each row; fails when a row was done twice, unless it was put back because of a pause."""
        done = [event for event in self.done if not (self.pauses and event.state is State.WAITING)]
        for rows in ([event.row.id for event in done], [event.row.number for event in done]):
            assert all(count == 1 for row, count in Counter(rows).items() if row is not None)
        return {event.row.number: event.state for event in self.done}

    def error(self, row: int) -> SpringestError | None:
        (event,) = (event for event in self.done if event.row.number == row)
        return event.error

    def count(self, row: int, kind: Kind) -> int:
        return sum(step.row.number == row and step.step.kind == kind for step in self.steps)

    def when(self, condition: Callable[[], bool], callback: Callable[[], object]) -> None:
        """Call back at each event after which the condition holds."""
        self._waiters.append((condition, callback))

    async def until(self, condition: Callable[[], bool]) -> None:
        reached = asyncio.Event()
        self.when(condition, reached.set)
        async with asyncio.timeout(_LONG):
            while not condition():
                await reached.wait()

    async def agree_with(self, migration: OpenMigration, before: dict[int, State]) -> None:
        """Check that the journal has the states of the events, and that every row that was begun was done.

        A row without an event has the state that it had, or that of another row with the same certificate.
        """
        done = self.states
        rows = await _entries_of(migration)
        by_certificate = {rows[row].certificate: state for row, state in done.items() if row is not None}
        by_certificate.pop(None, None)
        assert {row: entry.state for row, entry in rows.items()} == {
            row: done.get(row, by_certificate.get(entry.certificate, before[row])) for row, entry in rows.items()
        }
        assert {step.row.number for step in self.steps} <= done.keys()
        assert {event.row.number for event in self.settling} <= done.keys()
        assert (await migration.counts()).total() == len(before)  # rows = stored + rejected + … + waiting
        assert {event.row.number for event in self.done if event.receipt} <= {
            row for row, state in done.items() if state is State.STORED
        }


def csv_table_of(manifest: Manifest) -> CsvTable:
    """Return the CSV that a manifest is written in."""
    assert isinstance(manifest.table, CsvTable)
    return manifest.table


def manifest_of(folder: Path, content: str | bytes, name: str = "certificates.csv") -> Manifest:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Manifest.open(path)


def rows_of(folder: Path, count: int, changes: Mapping[int, Mapping[str, str]] | None = None) -> Manifest:
    """Return a manifest of new certificates; `changes` are other cells by number, which begins with 1."""
    return Manifest.open(archive(folder, count, changes=changes))


def rewrite(manifest: Manifest, change: Callable[[list[str]], list[str]]) -> Manifest:
    header, *lines = manifest.path.read_text().splitlines()
    manifest.path.write_text("\n".join([header, *change(lines), ""]))
    return Manifest.open(manifest.path)


def journal_of(manifest: Manifest) -> Path:
    """Return where the tests keep the journal of a manifest."""
    return manifest.path.with_name("a journal.sqlite3")


@asynccontextmanager
async def loaded(manifest: Manifest, origin: str = ORIGIN) -> AsyncIterator[OpenMigration]:
    """Open the journal of a manifest and load the manifest, as a run does."""
    async with Journal(journal_of(manifest)) as journal:
        migration, _ = await load_manifest(journal, manifest, origin)
        yield migration


@asynccontextmanager
async def found(manifest: Manifest) -> AsyncIterator[OpenMigration]:
    """Open the journal of a manifest that was loaded before, and change nothing in it."""
    async with Journal(journal_of(manifest)) as journal:
        latest, *_ = await journal.run(read_all)
        migration = await OpenMigration.find(journal, source_of(manifest, latest.origin, journal.machine))
        assert migration is not None
        yield migration


@asynccontextmanager
async def _journal_for(springest: Springest, manifest: Manifest) -> AsyncIterator[Journal]:
    if springest.journal is not None:
        yield springest.journal
        return
    async with Journal(journal_of(manifest)) as journal:
        yield journal


@asynccontextmanager
async def queue_of(springest: Springest, manifest: Manifest, events: Events) -> AsyncIterator[UploadQueue]:
    """Load a manifest into the client's journal, or that of the manifest; at the end, compare it with the events."""
    async with _journal_for(springest, manifest) as journal:
        migration, _ = await load_manifest(journal, manifest, springest.origin)
        before = {number: entry.state for number, entry in (await _entries_of(migration)).items()}
        yield UploadQueue(springest, migration, events)
        await events.agree_with(migration, before)


async def run(springest: Springest, manifest: Manifest, events: Events) -> SpringestError | None:
    """Upload, or continue; fails when that does not end."""
    async with queue_of(springest, manifest, events) as queue, asyncio.timeout(_LONG):
        return await queue.run()


async def _entries_of(migration: OpenMigration) -> dict[int, Entry]:
    return {entry.number: entry for entry in await migration.entries(limit=2**31) if entry.number is not None}


async def entries(manifest: Manifest) -> dict[int, Entry]:
    """Return what the journal of a manifest says of each row."""
    async with found(manifest) as migration:
        return await _entries_of(migration)


async def states(manifest: Manifest) -> dict[int, State]:
    """Return the state of each row in the journal of a manifest."""
    return {number: entry.state for number, entry in (await entries(manifest)).items()}


async def attempts(manifest: Manifest, row: int) -> list[tuple[State | None, int | None, str]]:
    """Return the outcome of each POST of a row; fails when their times are out of order."""
    async with found(manifest) as migration:
        entry = (await _entries_of(migration))[row]

        def read(connection: Connection) -> list[tuple[int, int | None, str | None, int | None, str]]:
            return connection.execute(
                "SELECT sent_at, answered_at, outcome, status, words FROM attempts WHERE certificate = ?"
                " ORDER BY sent_at",
                (entry.certificate,),
            )

        lines = await migration.journal.run(read)
    times = [moment for sent_at, answered_at, *_ in lines for moment in (sent_at, answered_at) if moment is not None]
    assert times == sorted(times)
    assert certificates.microseconds(entry.sent_at) == (lines[-1][0] if lines else None)
    return [(State(outcome) if outcome else None, status, words) for _, _, outcome, status, words in lines]


def employees(*numbers: int) -> list[str]:
    return sorted(f"employee{number}@example.org" for number in numbers)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def settle(
    migration: OpenMigration, *wanted: State, reason: str = "", springest_id: int | None = None
) -> list[Entry]:
    """Bring the first waiting rows to these states as a worker does, and return them as they were.

    A file that does not exist gets a hash of its row's number. SENDING leaves a row as a killed process does.
    """
    journal = migration.journal
    claimed = await migration.claim(len(wanted))
    for entry, state in zip(claimed, wanted, strict=True):
        if state is State.WAITING:
            migration.release(entry)
            continue
        if entry.path.exists():
            status = entry.path.stat()
            file = status.st_size, status.st_mtime_ns, bytes.fromhex(sha256_of(entry.path))
        else:
            assert entry.number is not None
            file = 1, 1, entry.number.to_bytes(32, "big")
        _, claim = await migration.identify(entry, *file)
        assert claim is not None
        if state is State.FAILED:
            claim.release(state, reason)
            continue
        intent = claim.intent()

        def begin(connection: Connection, intent: Intent = intent) -> None:
            certificates.begin(connection, intent, worker=journal.worker, budget="", counted_until=0.0, back_at=0.0)

        await journal.run(begin)
        if state is not State.SENDING:
            outcome = Outcome(
                attempt=intent.id, state=state, answered_at=LATER, reason=reason, springest_id=springest_id
            )
            await journal.run(partial(certificates.end, outcome=outcome))
    return claimed


async def was_killed(manifest: Manifest, origin: str, count: int) -> None:
    """Leave a journal as a process does that was killed a minute ago while it sent the first rows."""
    async with loaded(manifest, origin) as migration:
        journal = migration.journal
        await settle(migration, *[State.SENDING] * count)
        await journal.run(lambda connection: connection.execute("UPDATE workers SET lease_until = ?", (0.0,)))
        assert journal._beat is not None
        journal._beat.cancel()
        journal._beat = None  # so that it does not take its leave
