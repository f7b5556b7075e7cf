"""How long a journal takes to load a manifest, to load it again, to count it, and for a row's share of a run.

Run it with ``python -m benchmarks journal`` (a million rows, about 2 GB of disk for a minute), and with ``--journal
postgresql://…`` for an empty database. The manifest has a million certificates of a quarter of a million people; there
are no files, so the time that a resuming load spends on checking uploaded files is not included, and nothing is hashed
or sent. A row's share is its claim, its identification, the token with the intent, and the outcome, with eight rows in
flight; beside it stands a row that Python's sqlite3 writes and flushes alone. Memory is how much larger the process
became (Linux only).
"""

import asyncio
import shutil
import sqlite3
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from attrs import define, field

from benchmarks.report import Table, parser, publish
from springest_async import Journal, Limiter
from springest_async.bulk import Entry, Manifest, OpenMigration, State, load_manifest
from springest_async.journal.records import Outcome

__all__ = ["Timings", "main", "measure"]

ORIGIN = "https://api.springest.nl"
_STORED = 4000  # rows that are brought to their end, at most
_IN_FLIGHT = 8
_COMMITS = 500
_CEILING = 15.0  # of a row's share, in commits of Python's sqlite3


@define
class Timings:
    """The seconds of each step, in order.

    Attributes:
        seconds: by the name of the step.
        cpu: the processor's seconds for a row's share.
        largest: the growth of the process in MB; None where it is unknown.
    """

    seconds: dict[str, float] = field(factory=dict)
    cpu: float = 0.0
    largest: float | None = None

    @contextmanager
    def of(self, what: str, times: int = 1) -> Iterator[None]:
        """Measure a block that does something `times` times."""
        began = time.perf_counter()
        yield
        self.seconds[what] = (time.perf_counter() - began) / times


async def measure(rows: int, folder: Path, where: str | Path) -> Timings:
    """Run all steps in a folder, which must be empty, with a new journal."""
    timings = Timings()
    path, moved = folder / "certificates.csv", folder / "moved"
    _write(path, rows, lambda number: f"{number:07}.pdf")
    manifest = Manifest.open(path)
    before = _peak_mb()
    async with Journal(where) as journal:
        with timings.of("reading the manifest alone"):
            for row in manifest:
                manifest.fields(row)
        with timings.of("first load"):
            migration, _ = await load_manifest(journal, manifest, ORIGIN)
        with timings.of("the same again"):
            await load_manifest(journal, manifest, ORIGIN)
        with timings.of("counts"):
            await migration.counts()
        stored = min(rows, _STORED)
        cpu = time.process_time()
        with timings.of(f"a row's share, {_IN_FLIGHT} in flight", stored):
            await _store(migration, stored)
        timings.cpu = (time.process_time() - cpu) / stored
        _write(path, rows, lambda number: f"{number:07}.pdf", reverse=True)
        with timings.of("load, sorted the other way round"):
            await load_manifest(journal, Manifest.open(path), ORIGIN)
        _write(path, rows, lambda number: f"{moved}/{number:07}.pdf")
        with timings.of("load, all files renamed"):
            await load_manifest(journal, Manifest.open(path), ORIGIN)
        after = _peak_mb()
    timings.largest = None if before is None or after is None else after - before
    return timings


def _write(path: Path, rows: int, name: Callable[[int], str], *, reverse: bool = False) -> None:
    first = date(2024, 1, 1)
    with path.open("w", encoding="utf-8") as stream:
        stream.write("file,certification_id,email,valid_from,valid_until,conversion_id,department\n")
        for number in reversed(range(rows)) if reverse else range(rows):
            email = f"employee{number // 4}@example.org"
            valid_from = first + timedelta(days=number % 700)
            stream.write(f"{name(number)},{number % 4 + 1},{email},{valid_from},,,Logistics\n")


async def _store(migration: OpenMigration, rows: int) -> None:
    limiter = Limiter(posts=10**6, requests_per_hour=10**9, ledger=migration.journal.ledger("a benchmark"))
    claimed: deque[Entry] = deque()
    claiming = asyncio.Lock()
    left = rows

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            async with claiming:
                if not claimed:
                    claimed.extend(await migration.claim(_IN_FLIGHT))
                entry = claimed.popleft()
            _, claim = await migration.identify(entry, 50_000, 1, entry.id.to_bytes(32, "big"))
            assert claim is not None
            intent = claim.intent()
            async with limiter.post(count_window=60.0, bulk=True, intent=intent) as permit:
                permit.mark_answered()
                permit.outcome = Outcome(
                    attempt=intent.id,
                    state=State.STORED,
                    answered_at=datetime.now(UTC),
                    status=201,
                    springest_id=entry.id,
                )

    async with asyncio.TaskGroup() as workers:
        for _ in range(_IN_FLIGHT):
            workers.create_task(work())


def _peak_mb() -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _plain_commit(folder: Path) -> float:
    """Return the processor's seconds for a row that Python's sqlite3 writes and flushes alone."""
    with closing(sqlite3.connect(folder / "plain.sqlite3", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, words TEXT)")
        cpu = time.process_time()
        for _ in range(_COMMITS):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO plain (words) VALUES (?)", ("x" * 100,))
            connection.execute("COMMIT")
        return (time.process_time() - cpu) / _COMMITS


def main(arguments: list[str]) -> int:
    """Run the benchmark, and return the exit code."""
    made = parser("journal", __doc__)
    made.add_argument("--rows", type=int, default=1_000_000, help="how many certificates (1000000)")
    made.add_argument("--folder", type=Path, default=None, help="where, on the disk to measure (a temporary folder)")
    made.add_argument("--journal", help="postgresql://… of an empty database (a file in that folder)")
    options = made.parse_args(arguments)
    rows = min(options.rows, 4_000) if options.quick else options.rows
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=options.folder))
    try:
        path = folder / "journal.sqlite3"
        timings = asyncio.run(measure(rows, folder, options.journal or path))
        size = path.stat().st_size / 1e6 if path.exists() else None
        plain = _plain_commit(folder)
    finally:
        shutil.rmtree(folder)
    column = f"{rows:,} rows".replace(",", "\N{NO-BREAK SPACE}")
    ratio = "a row's share, × a commit of Python's sqlite3"
    tables = [
        Table(
            key="steps",
            title="What the steps take",
            unit="ms",
            columns=[column],
            rows={what: [seconds * 1000] for what, seconds in timings.seconds.items()},
            notes=["A load, a reading and a count are of all rows."],
            picture=None,
        ),
        Table(
            key="share",
            title="What a row of a run costs",
            unit="ms of the processor",
            columns=[column],
            rows={"a row's share": [timings.cpu * 1000], "a commit of Python's sqlite3": [plain * 1000]},
            picture=None,
        ),
        Table(
            key="ratio",
            title="Beside one row that is committed alone",
            unit="×",
            columns=[column],
            rows={ratio: [timings.cpu / plain]},
            picture=None,
            ceilings={(ratio, column): _CEILING},
        ),
        Table(
            key="space",
            title="What it takes",
            unit="MB",
            columns=[column],
            rows={"the file": [size], "memory": [timings.largest]},
            picture=None,
        ),
    ]
    return publish("journal", tables, options)
