"""How many certificates a second are uploaded without a limit, by ours and by other libraries, and at what cost.

Run it with ``python -m benchmarks upload``, and a part of it with ``--size 50KB --in-flight 8 --ways aiohttp upload``.
The server has a core of its own, whose use is told, so that it is seen not to bound anything; the client has the other
cores: of two, that is one. Each way uploads for about a second at a time, in turns with the others; a ratio is the
median of those of each round. The files lie in the system's memory after the first round, so no disk is measured but
that of the journal.
"""

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trustme
from attrs import define, field, frozen

from benchmarks.peers import AIOHTTP, BULK, ON_UVLOOP, OURS, SENDFILE, WAYS, Job, Prepare, Way
from benchmarks.report import Table, in_turns, parser, publish, ratio
from benchmarks.sink import Sink, leaving_a_core_to_the_sink

__all__ = ["Cell", "Found", "main", "measure", "uploads_within", "write_pdf"]

_UNITS = {"KB": 10**3, "MB": 10**6}
_ON_ASYNCIO = [name for name in WAYS if not name.endswith(ON_UVLOOP)]
_WITH_UVLOOP = [name for name in WAYS if f"{name}{ON_UVLOOP}" in WAYS or name.endswith(ON_UVLOOP)]
_OVER_TLS = [name for name in _ON_ASYNCIO if name != SENDFILE]  # the system encrypts nothing that it sends by itself


def _size_of(text: str) -> int:
    """Return the bytes of a size such as ``50KB``."""
    unit = text.upper()[-2:]
    if unit not in _UNITS or not text[:-2].isdigit() or not int(text[:-2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 50KB or 5MB")
    return int(text[:-2]) * _UNITS[unit]


def _size_text(size: int) -> str:
    unit = max((unit for unit in _UNITS if _UNITS[unit] <= size), key=_UNITS.__getitem__)
    return f"{size / _UNITS[unit]:g} {unit}"


@frozen
class Cell:
    """What one column of a table measures: files of a size (bytes), and how many are in flight."""

    size: int
    in_flight: int

    def __str__(self) -> str:
        return f"{_size_text(self.size)}, {self.in_flight}"


@frozen
class Section:
    """A part of the benchmark: the ways that it compares, and the cells of a whole run."""

    title: str
    ways: Sequence[str]
    cells: Sequence[Cell]


_SHORT = [Cell(50_000, 1), Cell(50_000, 8), Cell(500_000, 8), Cell(5_000_000, 8)]
_SECTIONS = {
    "http": Section(
        "HTTP",
        _ON_ASYNCIO,
        [
            *(Cell(50_000, in_flight) for in_flight in (1, 8, 64)),
            *(Cell(500_000, in_flight) for in_flight in (8, 64)),
            Cell(5_000_000, 8),
            Cell(200_000_000, 1),
        ],
    ),
    "uvloop": Section("HTTP with uvloop", _WITH_UVLOOP, _SHORT),
    "tls": Section("HTTPS", _OVER_TLS, _SHORT),
}
_QUICK = Section("HTTP", [AIOHTTP, OURS, BULK], [Cell(50_000, 8), Cell(5_000_000, 8)])


@define
class Found:
    """What was found of one way in one cell: a number for each of its turns.

    Attributes:
        rates: uploads a second.
        cpu: milliseconds of the client's processor for an upload.
        sink: the share of its core that the server used.
    """

    rates: list[float] = field(factory=list)
    cpu: list[float] = field(factory=list)
    sink: list[float] = field(factory=list)


def measure(job: Job, sink: Sink, ways: Mapping[str, Way], *, rounds: int, seconds: float) -> dict[str, Found]:
    """Measure these ways in turns, of about so many seconds each, and return what was found of each."""
    found = {name: Found() for name in ways}
    with ExitStack() as opened:
        turns = {}
        for name, way in ways.items():
            prepare = opened.enter_context(way(job))
            uploads = uploads_within(prepare, job.in_flight, seconds)
            turns[name] = partial(_turn, prepare, uploads, sink, found[name])
        rates = in_turns(turns, rounds)
    for name in ways:
        # The first turn of each does not count.
        found[name] = Found(rates[name], found[name].cpu[1:], found[name].sink[1:])
    return found


def uploads_within(prepare: Prepare, in_flight: int, seconds: float) -> int:
    """Return how many uploads take about so long."""
    uploads, took = in_flight, 0.0
    while took < seconds / 4:
        if took:
            uploads = max(uploads * 2, round(uploads * seconds / 3 / took))
        upload = prepare(uploads)
        began = time.perf_counter()
        upload()
        took = time.perf_counter() - began
    return max(in_flight, round(uploads * seconds / took))


def _turn(prepare: Prepare, uploads: int, sink: Sink, found: Found) -> float:
    """Upload so many certificates, note what it cost, and return the uploads a second."""
    upload = prepare(uploads)
    gc.collect()  # what others have left
    before = sink.work()
    cpu, began = time.process_time(), time.perf_counter()
    upload()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    work = sink.work() - before
    assert work.posts == uploads, f"{work.posts} arrived of {uploads}"
    found.cpu.append(cpu / uploads * 1000)
    found.sink.append(work.cpu / took)
    return uploads / took


def _tables(key: str, section: Section, found: Mapping[Cell, Mapping[str, Found]], *, quick: bool) -> Iterator[Table]:
    """Yield the tables of a section: ratios, rates, and what an upload costs."""
    columns = [str(cell) for cell in found]
    ways = [name for name in section.ways if all(name in ways for ways in found.values())]
    busiest = max(statistics.median(one.sink) for ways in found.values() for one in ways.values())
    if AIOHTTP in ways:
        yield Table(
            key=key,
            title=f"Uploads over {section.title}, beside aiohttp",
            unit=f"× {AIOHTTP}",
            columns=columns,
            rows={name: [ratio(cell[name].rates, cell[AIOHTTP].rates) for cell in found.values()] for name in ways},
            notes=["A column's title is the size of the files and how many are in flight."],
            floors=_FLOORS if quick else {},
        )
    yield Table(
        key=f"{key}-rates",
        title=f"Uploads over {section.title}",
        unit="uploads/s",
        columns=columns,
        rows={name: [statistics.median(cell[name].rates) for cell in found.values()] for name in ways},
        picture=None,
    )
    yield Table(
        key=f"{key}-cpu",
        title=f"What an upload over {section.title} costs the client",
        unit="ms of the processor",
        columns=columns,
        rows={name: [statistics.median(cell[name].cpu) for cell in found.values()] for name in ways},
        notes=[f"The server used {busiest:.0%} of its core at most."],
        picture=None,
    )
    if quick:
        yield Table(
            key=f"{key}-costs",
            title=f"What an upload over {section.title} costs the client, beside aiohttp",
            unit=f"× {AIOHTTP}",
            columns=columns,
            rows={name: [ratio(cell[name].cpu, cell[AIOHTTP].cpu) for cell in found.values()] for name in ways},
            picture=None,
            ceilings=_CEILINGS,
        )


# What the guard accepts: costs of half as much again as a quiet machine finds. On a busy one all rates fall, but not
# alike, and a bulk run waits for its disk, so the floors of the rates are the wider bounds.
_FLOORS = {
    (OURS, "50 KB, 8"): 0.8,
    (OURS, "5 MB, 8"): 0.6,
    (BULK, "50 KB, 8"): 0.3,
    (BULK, "5 MB, 8"): 0.15,
}
_CEILINGS = {
    (OURS, "50 KB, 8"): 1.1,
    (OURS, "5 MB, 8"): 1.3,
    (BULK, "50 KB, 8"): 2.2,
    (BULK, "5 MB, 8"): 3.7,
}


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    made = parser("upload", __doc__)
    made.add_argument("--section", choices=_SECTIONS, action="append", help="only this part; can be given again")
    made.add_argument("--size", type=_size_of, nargs="+", help="only files of these sizes, such as 50KB or 5MB")
    made.add_argument("--in-flight", type=int, nargs="+", help="only so many at once")
    made.add_argument("--ways", nargs="+", default=[], metavar="WORD", help="only ways whose names have these words")
    made.add_argument("--rounds", type=int, default=5, help="how often each way has its turn (5)")
    made.add_argument("--seconds", type=float, default=0.6, help="of one turn (0.6)")
    made.add_argument("--folder", type=Path, help="where, on the disk to measure (a temporary folder)")
    return made.parse_args(arguments)


def _sections(options: argparse.Namespace) -> dict[str, Section]:
    """Return what is to be measured."""
    if options.quick:
        return {"http": _QUICK}
    alone = options.size or options.in_flight
    found = {}
    for key in options.section or (["http"] if alone else list(_SECTIONS)):
        section = _SECTIONS[key]
        cells = section.cells
        if alone:
            sizes = options.size or sorted({cell.size for cell in cells})
            numbers = options.in_flight or sorted({cell.in_flight for cell in cells})
            cells = [Cell(size, in_flight) for size in sizes for in_flight in numbers]
        words = [word.lower() for word in options.ways]
        ways = [name for name in section.ways if not words or any(word in name.lower() for word in words)]
        found[key] = Section(section.title, ways, cells)
    return found


def main(arguments: list[str]) -> int:
    """Print the tables of each section."""
    options = _parsed(arguments)
    if options.quick:
        options.rounds, options.seconds = 3, 0.25
    folder = Path(tempfile.mkdtemp(prefix="upload-", dir=options.folder))
    try:
        tables: list[Table] = []
        for key, section in _sections(options).items():
            found = _measure_section(key, section, folder, options)
            tables += _tables(key, section, found, quick=options.quick)
    finally:
        shutil.rmtree(folder)
    return publish("upload", tables, options)


def _measure_section(
    key: str, section: Section, folder: Path, options: argparse.Namespace
) -> dict[Cell, dict[str, Found]]:
    found = {}
    with _sink(folder, tls=key == "tls") as (sink, ca_file), leaving_a_core_to_the_sink():
        for cell in section.cells:
            file = folder / f"{cell.size}.pdf"
            if not file.exists():
                write_pdf(file, cell.size)
            job = Job(origin=sink.origin, file=file, in_flight=cell.in_flight, folder=folder, ca_file=ca_file)
            ways = {name: WAYS[name] for name in section.ways}
            found[cell] = measure(job, sink, ways, rounds=options.rounds, seconds=options.seconds)
    return found


@contextmanager
def _sink(folder: Path, *, tls: bool) -> Iterator[tuple[Sink, Path | None]]:
    """Start a sink, and return it with the certificate of the CA to trust, if it speaks TLS."""
    if not tls:
        with Sink() as sink:
            yield sink, None
        return
    ca, ca_file, own_file = trustme.CA(), folder / "ca.pem", folder / "server.pem"
    ca.cert_pem.write_to_path(ca_file)
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(own_file)
    with Sink(own_file) as sink:
        yield sink, ca_file


def write_pdf(path: Path, size: int) -> None:
    """Write a file of so many bytes that looks like a PDF and cannot be compressed."""
    head, tail = b"%PDF-1.7\n", b"\n%%EOF\n"
    middle = os.urandom(min(size, 10**6))
    with path.open("wb") as stream:
        stream.write(head)
        left = size - len(head) - len(tail)
        while left > 0:
            left -= stream.write(middle[:left])
        stream.write(tail)
