"""Run the upload queue on a small archive, and check its events against the journal, for unit and integration tests."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from attrs import frozen

from springest_async import Springest, SpringestError
from springest_async.bulk import (
    Entry,
    Journal,
    JournalReader,
    Manifest,
    RowDone,
    RowSettling,
    RowStep,
    State,
    UploadQueue,
    default_path,
)
from springest_async.bulk.reader import EPOCH
from tests.pdfs import archive

__all__ = [
    "LATER",
    "NOW",
    "Attempt",
    "Event",
    "Events",
    "Kind",
    "attempts",
    "attempts_in",
    "employees",
    "entries",
    "identified",
    "manifest_of",
    "queue_of",
    "rewrite",
    "rows_of",
    "run",
    "settle",
    "sha256_of",
    "states",
    "turn",
    "was_killed",
]

Event = RowStep | RowSettling | RowDone
Kind = Literal["waiting", "sending", "refused", "unsent"]

NOW = datetime(2026, 1, 31, 12, 30, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(seconds=3)

_LONG = 1_000_000.0
"""Seconds; in virtual time a test that waits for something that never happens ends at once."""


class Events:
    """A listener that keeps all events."""

    def __init__(self) -> None:
        self.done: list[RowDone] = []
        self.steps: list[RowStep] = []
        self.settling: list[RowSettling] = []
        self._waiters: list[tuple[Callable[[], bool], Callable[[], object]]] = []

    def __call__(self, event: Event) -> None:
        match event:
            case RowDone():
                self.done.append(event)
            case RowSettling():
                self.settling.append(event)
            case RowStep():
                self.steps.append(event)
        for condition, callback in self._waiters:
            if condition():
                callback()

    @property
    def states(self) -> dict[int | None, State]:
        """The final state of each row; fails when a row was done twice."""
        for name in ("number", "id"):
            assert all(count == 1 for count in Counter(getattr(event.row, name) for event in self.done).values())
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

    def agree_with(self, journal: JournalReader, before: dict[int, State]) -> None:
        """Check that the journal has the states of the events, and that every row that was begun was done."""
        done = self.states
        assert _states_in(journal) == before | done
        assert {step.row.number for step in self.steps} <= done.keys()
        assert {row for row, state in before.items() if state is State.IN_DOUBT} <= done.keys()
        assert journal.counts().total() == len(before)  # rows = stored + rejected + failed + in doubt + waiting
        assert {event.row.number for event in self.done if event.receipt} <= {
            row for row, state in done.items() if state is State.STORED
        }


def _states_in(journal: JournalReader) -> dict[int | None, State]:
    """Return each row's state. "Sending", which a run could not change any more, is in doubt for the next run."""
    found = {entry.number: entry.state for entry in journal.entries()}
    return {row: State.IN_DOUBT if state is State.SENDING else state for row, state in found.items()}


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


@contextmanager
def queue_of(
    springest: Springest, manifest: Manifest, events: Events, kind: type[Journal] = Journal
) -> Iterator[UploadQueue]:
    """Open a queue on the manifest's journal; at the end, compare the events with the journal."""
    with kind.open(default_path(manifest.path)) as journal:
        journal.load(manifest, springest.origin)
        before = {entry.number: entry.state for entry in journal.entries() if entry.number is not None}
        yield UploadQueue(springest, journal, events)
        events.agree_with(journal, before)


async def run(
    springest: Springest, manifest: Manifest, events: Events, kind: type[Journal] = Journal
) -> SpringestError | None:
    """Upload, or continue; fails when that does not end."""
    with queue_of(springest, manifest, events, kind) as queue:
        async with asyncio.timeout(_LONG):
            return await queue.run()


def entries(manifest: Manifest) -> dict[int | None, Entry]:
    with JournalReader.open(default_path(manifest.path)) as journal:
        return {entry.number: entry for entry in journal.entries()}


def states(manifest: Manifest) -> dict[int | None, State]:
    return {number: entry.state for number, entry in entries(manifest).items()}


@frozen(kw_only=True)
class Attempt:
    """One POST of an entry, as the journal records it; not ended while it is in progress."""

    number: int
    sent_at: datetime
    ended_at: datetime | None = None
    outcome: State | None = None
    status: int | None = None
    words: str = ""


def attempts_in(journal: JournalReader, entry_id: int) -> list[Attempt]:
    """Return all POSTs of an entry, in order."""
    lines = journal._connection.execute(
        "SELECT number, sent_at, ended_at, outcome, status, words FROM attempt WHERE entry = ? ORDER BY number",
        (entry_id,),
    )
    return [
        Attempt(
            number=number,
            sent_at=EPOCH + timedelta(microseconds=sent_at),
            ended_at=None if ended_at is None else EPOCH + timedelta(microseconds=ended_at),
            outcome=None if outcome is None else State(outcome),
            status=status,
            words=words,
        )
        for number, sent_at, ended_at, outcome, status, words in lines
    ]


def attempts(manifest: Manifest, row: int) -> list[tuple[State | None, int | None, str]]:
    """Return the outcome of each POST of a row; fails when their times are out of order."""
    entry = entries(manifest)[row]
    with JournalReader.open(default_path(manifest.path)) as journal:
        found = attempts_in(journal, entry.id)
    assert [attempt.number for attempt in found] == list(range(1, len(found) + 1))
    for attempt in found:
        assert attempt.ended_at is not None
        assert attempt.ended_at - attempt.sent_at >= timedelta()
    assert entry.sent_at == (found[-1].sent_at if found else None)
    return [(attempt.outcome, attempt.status, attempt.words) for attempt in found]


def employees(*numbers: int) -> list[str]:
    return sorted(f"employee{number}@example.org" for number in numbers)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def identified(journal: Journal, entry: Entry) -> Entry:
    """Hash a row's file, as the queue does."""
    status = entry.path.stat()
    sha256 = journal.known_hash(entry.path, status.st_size, status.st_mtime_ns)
    return journal.identify(entry, status.st_size, status.st_mtime_ns, sha256 or bytes.fromhex(sha256_of(entry.path)))


def turn(journal: Journal) -> Entry:
    """Begin the turn of the next waiting row."""
    entry = journal.next()
    assert entry is not None
    return identified(journal, entry)


def settle(
    journal: Journal,
    state: State = State.STORED,
    *,
    entry: Entry | None = None,
    sha256: bytes | None = None,
    springest_id: int | None = None,
    reason: str = "",
) -> Entry:
    """Bring the next row, or this entry, to a state by a POST; `sha256` stands for a file that does not exist."""
    entry = entry or journal.next()
    assert entry is not None
    entry = identified(journal, entry) if sha256 is None else journal.identify(entry, 1, 1, sha256)
    assert entry.state is State.WAITING
    journal.sending(entry.id, NOW)
    journal.ended(entry.id, state, at=LATER, springest_id=springest_id, reason=reason)
    return entry


def was_killed(manifest: Manifest, origin: str, count: int) -> None:
    """Leave a journal as a process does that is killed while it sends the first rows."""
    with Journal.open(default_path(manifest.path)) as journal:
        journal.load(manifest, origin)
        for _ in range(count):
            journal.sending(turn(journal).id, datetime.now(UTC))
