"""Where the processor time of an upload goes: one thing added after another, and a profile by thread and library.

Run it with ``python -m benchmarks profile``. The first tables are a ladder, from a POST by aiohttp with bytes in memory
to a row of a bulk run with its journal; each rung does one thing more than another, beside which it is shown. They run
in turns, as in ``upload``. The other tables are profiles of `Springest.upload` and of a bulk run, taken by samples of
the thread that runs, so that small functions do not look dearer than they are; see `sampling` and `rooms`.
"""

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.peers import AIOHTTP, BULK, OURS, Job
from benchmarks.report import Table, parser, publish, ratio
from benchmarks.rooms import OTHER, ROOMS, THREADS, function_of, room_of, shares, thread_of
from benchmarks.rungs import BELOW, HASHED, JOURNAL, OPENED, RUNGS, SESSION
from benchmarks.sampling import Stack, sample
from benchmarks.sink import Sink, leaving_a_core_to_the_sink
from benchmarks.upload import Cell, Found, measure, write_pdf

__all__ = ["hashing", "ladder", "main", "profile"]

_SIZE = 50_000
_CELLS = (Cell(_SIZE, 1), Cell(_SIZE, 8))
_SAMPLED = Cell(_SIZE, 8)
_HASHED_CELLS = (Cell(5_000_000, 8), Cell(200_000_000, 1))  # a bulk run reads these twice, and smaller ones once
_WAYS = {"an upload": OURS, "a bulk run": BULK}
_MOST = 25  # functions that are shown

# What the guard accepts: of what a quiet machine finds, two thirds. `upload` guards the others.
_FLOORS = {(SESSION, str(_SAMPLED)): 1.4, (OPENED, str(_SAMPLED)): 1.2, (JOURNAL, str(_SAMPLED)): 0.25}
_MOST_OTHER = 3.0  # percent of samples that belong to no room: more would show that `rooms` does not know one


def ladder(found: Mapping[Cell, Mapping[str, Found]]) -> list[Table]:
    """Return what each rung costs, what it adds, and what that is beside aiohttp as documented."""
    columns = [str(cell) for cell in found]
    return [
        Table(
            key="ladder",
            title="What a POST costs the client, with one thing more after another",
            unit="ms of the processor",
            columns=columns,
            rows={name: [statistics.median(cell[name].cpu) for cell in found.values()] for name in RUNGS},
            notes=["A column's title is the size of the files and how many are in flight."],
        ),
        Table(
            key="steps",
            title="What a rung costs more than the one below it",
            unit="µs of the processor",
            columns=columns,
            rows={
                f"{name}, beside {below}": [_more(cell[name].cpu, cell[below].cpu) * 1000 for cell in found.values()]
                for name, below in BELOW.items()
            },
            notes=["It is the median of the differences of each round, which need not add up."],
            picture=None,
        ),
        Table(
            key="ratios",
            title="How many POSTs cost as much as one by aiohttp as documented",
            unit="POSTs",
            columns=columns,
            rows={name: [ratio(cell[AIOHTTP].cpu, cell[name].cpu) for cell in found.values()] for name in RUNGS},
            picture=None,
            floors=_FLOORS,
        ),
    ]


def hashing(found: Mapping[Cell, Mapping[str, Found]]) -> list[Table]:
    """Return what a bulk run on one core costs beside an upload and the hash that it needs, which others lack."""
    columns = [str(cell) for cell in found]
    return [
        Table(
            key="hashing",
            title="What it costs to hash a file as well",
            unit="ms of the processor",
            columns=columns,
            rows={name: [statistics.median(cell[name].cpu) for cell in found.values()] for name in HASHED},
            picture=None,
        ),
        Table(
            key="bounds",
            title="What a bulk run on one core can be at most: an upload and its hash",
            unit="POSTs that cost as much as one by aiohttp as documented",
            columns=columns,
            rows={name: [ratio(cell[AIOHTTP].cpu, cell[name].cpu) for cell in found.values()] for name in HASHED},
            picture=None,
        ),
    ]


def _more(costs: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(one - other for one, other in zip(costs, below, strict=True))


def profile(samples: Mapping[str, Sequence[Stack]]) -> Iterator[Table]:
    """Yield where the samples of each way were taken: in which threads, rooms and functions."""
    parts = {
        f"{way}: {thread}": (stacks, [stack for stack in stacks if thread_of(stack) == thread])
        for way, stacks in samples.items()
        for thread in THREADS
    }
    parts = {name: part for name, part in parts.items() if part[1]}
    threads = {way: shares(stacks, thread_of) for way, stacks in samples.items()}
    yield Table(
        key="threads",
        title="Which threads the processor time of an upload belongs to",
        unit="% of it",
        columns=list(samples),
        rows={thread: [threads[way][thread] for way in samples] for thread in THREADS},
        picture=None,
    )
    rooms = {name: shares(stacks, room_of, of) for name, (stacks, of) in parts.items()}
    found = [room for room in ROOMS if any(counted[room] for counted in rooms.values())]
    yield Table(
        key="rooms",
        title="Which rooms and libraries the processor time of an upload belongs to",
        unit="% of it",
        columns=list(parts),
        rows={room: [counted[room] for counted in rooms.values()] for room in found},
        notes=[
            "A library of Python's own, such as json, counts as the room that calls it.",
            f"{', '.join(f'{len(stacks)} samples of {way}' for way, stacks in samples.items())}.",
        ],
        picture="stacked",
        ceilings={(OTHER, name): _MOST_OTHER for name in parts if OTHER in found},
    )
    for way, stacks in samples.items():
        dearest = shares(stacks, function_of).most_common(_MOST)
        together = itertools.accumulate(share for _, share in dearest)
        yield Table(
            key=f"functions-{way.rpartition(' ')[2]}",
            title=f"The {_MOST} functions that cost {way} most, without what they call",
            unit="% of its processor time",
            columns=["own", "together"],
            rows={name: [share, total] for (name, share), total in zip(dearest, together, strict=True)},
            picture=None,
        )


def _measure(options: argparse.Namespace) -> list[Table]:
    cells = (_SAMPLED,) if options.quick else _CELLS
    with Sink() as sink, tempfile.TemporaryDirectory(prefix="profile-", dir=options.folder) as temporary:
        folder = Path(temporary)
        file = folder / "certificate.pdf"
        write_pdf(file, _SIZE)
        found, hashed = {}, {}
        with leaving_a_core_to_the_sink():
            for cell in cells:
                job = Job(origin=sink.origin, file=file, in_flight=cell.in_flight, folder=folder)
                found[cell] = measure(job, sink, RUNGS, rounds=options.rounds, seconds=options.seconds)
            for cell in () if options.quick else _HASHED_CELLS:
                large = folder / f"{cell.size}.pdf"
                write_pdf(large, cell.size)
                job = Job(origin=sink.origin, file=large, in_flight=cell.in_flight, folder=folder)
                hashed[cell] = measure(job, sink, HASHED, rounds=options.rounds, seconds=options.seconds)
                large.unlink()
        samples = {
            name: sample(way, sink.origin, folder, size=_SIZE, in_flight=_SAMPLED.in_flight, samples=options.samples)
            for name, way in _WAYS.items()
        }
    return [*ladder(found), *(hashing(hashed) if hashed else ()), *profile(samples)]


def main(arguments: list[str]) -> int:
    """Measure, publish the tables, and return the exit code."""
    made = parser("profile", __doc__)
    made.add_argument("--rounds", type=int, default=7, help="how often each rung has its turn (7)")
    made.add_argument("--seconds", type=float, default=0.4, help="of one turn (0.4)")
    made.add_argument("--samples", type=int, default=5000, help="of each profile, 250 a second on most systems (5000)")
    made.add_argument("--folder", type=Path, help="where, on the disk to measure (a temporary folder)")
    options = made.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.samples = 2, 0.1, 200
    return publish("profile", _measure(options), options)
