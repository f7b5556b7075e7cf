"""What a row of a manifest costs: to read, to check, to load and to resume; and hashing on all cores.

``python -m benchmarks manifest`` takes some minutes and about 2 GB of disk; ``--rows 100000`` shortens it. Each size
runs in a process of its own, with a new journal in SQLite. All rows have another person and the same small file, so
the file is opened for each row and comes from memory, and each row is warned of. The same again is what a resumed run
does: all rows are stored, so each file's size and time are compared. In the edited manifest all rows are sorted the
other way round. Nothing is sent. The last table shows how fast the preflight reads whole files, which it does for rows
with the same fields.
"""

import asyncio
import csv
import hashlib
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

from attrs import define, field

from benchmarks.report import Table, in_turns, medians, parser, publish
from springest_async import Journal
from springest_async.bulk import Kind, KnownFiles, Manifest, check_manifest, load_manifest, source_of

__all__ = ["main", "measure"]

_ORIGIN = "https://api.springest.nl"
_PDF = b"%PDF-1.7\n" + b"\n" * 9_000 + b"startxref\n9\n%%EOF\n"
_HEADER = "file,certification_id,email,valid_from,valid_until,conversion_id,department\n"

_CSV = "`csv` alone"
_TABLE = "`csv` and `sqlite3` alone"
_READ = "read the values"
_CHECK = "check"
_LOAD = "first load"
_CHECK_AGAIN = "check again, all stored"
_LOAD_AGAIN = "load again, all stored"
_EDITED = "load, edited"
_LOOP = "`hashlib` in a loop"


@define
class Costs:
    """What was found for one number of rows.

    Attributes:
        rows: how many.
        seconds: of the processor, by step.
        growth: how much larger the process became in MB; None where it is unknown.
    """

    rows: int
    seconds: dict[str, float] = field(factory=dict)
    growth: float | None = None

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Measure a block."""
        began = time.process_time()
        yield
        self.seconds[step] = time.process_time() - began

    def microseconds(self, step: str) -> float:
        """Return the cost of a row."""
        return self.seconds[step] * 1e6 / self.rows


def measure(rows: int) -> Costs:
    """Run all steps in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(rows, Path(folder)))


async def _measure(rows: int, folder: Path) -> Costs:
    costs, path = Costs(rows), folder / "certificates.csv"
    (folder / "a.pdf").write_bytes(_PDF)
    _write(path, range(rows))
    with costs.of(_CSV), path.open(encoding="utf-8", newline="") as stream:
        for _ in csv.reader(stream):
            pass
    with costs.of(_TABLE):
        _plain_load(path, folder / "plain.sqlite3")
    manifest = Manifest.open(path)
    before = _peak()
    async with Journal(folder / "journal.sqlite3") as journal:
        with costs.of(_READ):
            for row in manifest:
                manifest.fields(row)
        with costs.of(_CHECK):
            _check(journal, manifest)
        with costs.of(_LOAD):
            await load_manifest(journal, manifest, _ORIGIN)
        _store(journal, folder / "a.pdf")
        with costs.of(_CHECK_AGAIN):
            _check(journal, manifest)
        with costs.of(_LOAD_AGAIN):
            await load_manifest(journal, manifest, _ORIGIN)
        _write(path, reversed(range(rows)))
        with costs.of(_EDITED):
            await load_manifest(journal, Manifest.open(path), _ORIGIN)
    after = _peak()
    costs.growth = None if before is None or after is None else after - before
    return costs


def _write(path: Path, numbers: Iterator[int] | range) -> None:
    first = date(2024, 1, 1)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(_HEADER)
        for number in numbers:
            valid_from = first + timedelta(days=number % 700)
            stream.write(f"a.pdf,{number % 4 + 1},employee{number}@example.org,{valid_from},,,Logistics\n")


def _plain_load(path: Path, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, path.open(encoding="utf-8", newline="") as stream:
        columns = _HEADER.strip().split(",")
        connection.execute(f"CREATE TABLE manifest_rows ({', '.join(columns)})")
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO manifest_rows VALUES ({marks})", csv.reader(stream))  # noqa: S608 # question marks
        connection.commit()


def _check(journal: Journal, manifest: Manifest) -> None:
    with KnownFiles(journal, source_of(manifest, _ORIGIN, journal.machine)) as known:
        kinds = {finding.kind for finding in check_manifest(manifest, known, _ORIGIN) if finding is not None}
    assert kinds <= {Kind.OTHER_COLUMN, Kind.SHARED_PDF}


def _store(journal: Journal, file: Path) -> None:
    """Mark all rows as stored in the journal."""
    status = file.stat()
    with closing(journal.connect()) as connection, connection.transaction():
        connection.execute(
            "INSERT INTO certificates (id, identity, lookalike, origin, state)"
            " SELECT id, fields, lookalike, ?, 'stored' FROM manifest_rows",
            (_ORIGIN,),
        )
        connection.execute(
            "UPDATE manifest_rows SET certificate = id, state = 'stored', size = ?, modified_ns = ?",
            (status.st_size, status.st_mtime_ns),
        )


def _peak() -> float | None:
    """Return the peak of this process's memory in MB (Linux only)."""
    if sys.platform != "linux":
        return None
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _costs(sizes: list[int]) -> list[Costs]:
    found = []
    for size in sizes:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            found.append(process.submit(measure, size).result())
    return found


def _hashing(files: int, size: int, rounds: int) -> Table:
    """Compare how fast whole files are read: by one loop, and by the preflight."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{number}.pdf" for number in range(files)]
        for path in paths:
            path.write_bytes(b"%PDF-1.7\n" + os.urandom(size) + b"\nstartxref\n9\n%%EOF\n")
        path = folder / "certificates.csv"
        lines = [f"{each.name},1,jan@example.org,2026-01-01\n" for each in paths]
        path.write_text("file,certification_id,email,valid_from\n" + "".join(lines))
        manifest = Manifest.open(path)

        def one_loop() -> None:
            for each in paths:
                with each.open("rb") as stream:
                    hashlib.file_digest(stream, "sha256")

        def preflight() -> None:
            assert not any(finding.is_fault for finding in check_manifest(manifest) if finding)

        ways = {_LOOP: one_loop, "the preflight": preflight}
        rates = medians(in_turns({label: _rate(way, files * size) for label, way in ways.items()}, rounds))
    loop = rates[_LOOP]
    return Table(
        key="hashing",
        title=f"Reading and hashing {files} files of {size >> 20} MB, from memory",
        unit="MB/s",
        columns=["MB/s", "× `hashlib`"],
        rows={label: [rate, rate / loop] for label, rate in rates.items()},
        notes=[f"The machine has {os.cpu_count()} cores; on an idle one the preflight uses all of them."],
        picture=None,
        floors={("the preflight", "× `hashlib`"): 0.45},
    )


def _rate(way: Callable[[], None], size: int) -> Callable[[], float]:
    def measured() -> float:
        began = time.perf_counter()
        way()
        return size / 1e6 / (time.perf_counter() - began)

    return measured


def main(arguments: list[str]) -> int:
    """Run the benchmark, and return the exit code."""
    made = parser("manifest", __doc__)
    made.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="in the largest manifest")
    options = made.parse_args(arguments)
    largest = min(options.rows, 5_000) if options.quick else options.rows
    sizes = [size for size in (1_000, 10_000, 100_000) if size < largest] + [largest]
    found = _costs(sizes)
    columns = [f"{size:,} rows".replace(",", "\N{NO-BREAK SPACE}") for size in sizes]
    steps = (_CSV, _TABLE, _READ, _CHECK, _LOAD, _CHECK_AGAIN, _LOAD_AGAIN, _EDITED)
    tables = [
        Table(
            key="rows",
            title="What a row costs",
            unit="µs of processor time",
            columns=columns,
            rows={step: [costs.microseconds(step) for costs in found] for step in steps},
            picture="lines",
        ),
        Table(
            key="ratios",
            title="Beside Python's own modules",
            unit="×",
            columns=columns,
            rows={
                f"{_READ}, × {_CSV}": [costs.seconds[_READ] / costs.seconds[_CSV] for costs in found],
                f"{_LOAD}, × {_TABLE}": [costs.seconds[_LOAD] / costs.seconds[_TABLE] for costs in found],
            },
            picture=None,
            ceilings={
                (f"{_READ}, × {_CSV}", columns[-1]): 16.0,
                (f"{_LOAD}, × {_TABLE}", columns[-1]): 18.0,
            },
        ),
        Table(
            key="memory",
            title="How much larger the process becomes",
            unit="MB",
            columns=columns,
            rows={"all steps": [costs.growth for costs in found]},
            picture=None,
        ),
        _hashing(16, 1 << 20, 3) if options.quick else _hashing(64, 4 << 20, 7),
    ]
    return publish("manifest", tables, options)
