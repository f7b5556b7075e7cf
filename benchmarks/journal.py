"""How long a journal takes to load a manifest, to load it again, to count it, and for a row's share of a run.

Run it with ``python -m benchmarks journal`` (a million rows, about 2 GB of disk for a minute), and with ``--journal
postgresql://…`` for an empty database. It prints a Markdown table. The manifest has a million certificates of a quarter
of a million people; there are no files, so the time that a resuming load spends on checking uploaded files is not
included, and nothing is hashed or sent. A row's share is its claim, its identification, the token with the intent, and
the outcome, with eight rows in flight. Memory is how much larger the process became (Linux only).
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from attrs import define, field

from springest_async import Journal, Limiter
from springest_async.bulk import Entry, Manifest, OpenMigration, State, load_manifest
from springest_async.journal.records import Outcome

__all__ = ["Timings", "main", "measure"]

ORIGIN = "https://api.springest.nl"
_STORED = 4000  # rows that are brought to their end, at most
_IN_FLIGHT = 8


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


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks journal", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many certificates (1000000)")
    parser.add_argument("--folder", type=Path, default=None, help="where, on the disk to measure (a temporary folder)")
    parser.add_argument("--journal", help="postgresql://… of an empty database (a file in that folder)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=options.folder))
    try:
        path = folder / "journal.sqlite3"
        timings = asyncio.run(measure(options.rows, folder, options.journal or path))
        size = path.stat().st_size / 1e6 if path.exists() else None
    finally:
        shutil.rmtree(folder)
    print(f"| {options.rows} rows | |\n|---|---|")
    for what, seconds in timings.seconds.items():
        print(f"| {what} | {seconds:.2f} s |" if seconds > 0.1 else f"| {what} | {seconds * 1000:.2f} ms |")
    print(f"| a row's share, of the processor | {timings.cpu * 1000:.3f} ms |")
    if size is not None:
        print(f"| the file | {size:.0f} MB |")
    if timings.largest is not None:
        print(f"| memory | {timings.largest:.0f} MB |")
