"""How long a journal takes to load a manifest, to load it again, to count it, and to record an upload; and its memory.

Run it with ``python -m benchmarks journal`` (a million rows, about 2 GB of disk for a minute). It prints a Markdown
table. The manifest has a million certificates of a quarter of a million people; there are no files, so the time that a
resuming load spends on checking uploaded files is not included. Memory is how much larger the process became, with
Python and SQLite (Linux only).
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from attrs import define, field

from springest_async.bulk.entries import State
from springest_async.bulk.journal import Journal
from springest_async.bulk.manifest import Manifest
from springest_async.bulk.reader import JournalReader

__all__ = ["Timings", "main", "measure"]

ORIGIN = "https://api.springest.nl"
_SETTLED = 500  # rows that are uploaded one by one


@define
class Timings:
    """The seconds of each step, in order; `largest` is the growth of the process in MB, None where it is unknown."""

    seconds: dict[str, float] = field(factory=dict)
    largest: float | None = None

    @contextmanager
    def of(self, what: str, times: int = 1) -> Iterator[None]:
        """Measure a block that does something `times` times."""
        began = time.perf_counter()
        yield
        self.seconds[what] = (time.perf_counter() - began) / times


def measure(rows: int, folder: Path) -> Timings:
    """Run all steps in a folder, which must be empty."""
    timings = Timings()
    path, moved = folder / "certificates.csv", folder / "moved"
    _write(path, rows, lambda number: f"{number:07}.pdf")
    manifest = Manifest.open(path)
    before = _peak_mb()
    with Journal.open(folder / "certificates.journal") as journal:
        with timings.of("reading the manifest alone"):
            for row in manifest:
                manifest.fields(row)
        with timings.of("first load"):
            journal.load(manifest, ORIGIN)
        with timings.of("the same again"):
            journal.load(manifest, ORIGIN)
        with timings.of("counts, by the writer"):
            journal.counts()
        with timings.of("an upload: next, identify, sending, ended", _SETTLED):
            _upload(journal)
        with JournalReader.open(journal.path) as reader, timings.of("counts, by a reader"):
            reader.counts()
    _write(path, rows, lambda number: f"{number:07}.pdf", reverse=True)
    with Journal.open(journal.path) as journal, timings.of("load, sorted the other way round"):
        journal.load(Manifest.open(path), ORIGIN)
    _write(path, rows, lambda number: f"{moved}/{number:07}.pdf")
    with Journal.open(journal.path) as journal, timings.of("load, all files renamed"):
        journal.load(Manifest.open(path), ORIGIN)
        after = _peak_mb()
        with timings.of("load of ten rows that were left over"):
            _write(folder / "certificates.failed.csv", 10, lambda number: f"{moved}/{number:07}.pdf")
            journal.load(Manifest.open(folder / "certificates.failed.csv"), ORIGIN)
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


def _upload(journal: Journal) -> None:
    for number in range(_SETTLED):
        entry = journal.next()
        if entry is None:
            return
        entry = journal.identify(entry, 50_000, 1, number.to_bytes(32, "big"))
        journal.sending(entry.id, datetime.now(UTC))
        journal.ended(entry.id, State.STORED, at=datetime.now(UTC), status=201, springest_id=number)


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
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=options.folder))
    try:
        timings = measure(options.rows, folder)
        size = (folder / "certificates.journal").stat().st_size / 1e6
    finally:
        shutil.rmtree(folder)
    print(f"| {options.rows} rows | |\n|---|---|")
    for what, seconds in timings.seconds.items():
        print(f"| {what} | {seconds:.2f} s |" if seconds > 0.1 else f"| {what} | {seconds * 1000:.2f} ms |")
    print(f"| the file | {size:.0f} MB |")
    if timings.largest is not None:
        print(f"| memory | {timings.largest:.0f} MB |")
