"""Whether an upload costs the same, and memory stays flat, however many there were and however large a file is.

Run it with ``python -m benchmarks growth``. It measures clients that are processes of their own, beside a sink:
`Springest.upload` and a bulk run, again and again; and bulk runs of manifests whose journals hold up to a million rows
that wait, a few rows of each in turn. Costs are processor time. The limit lets everything through, and a token rests
for a second, so that what grows with the number of tokens is not measured here but in ``waiters``.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from benchmarks.growth_client import BulkClient, Client, Cost, UploadClient
from benchmarks.report import Table, in_turns, medians, parser, publish, ratio
from benchmarks.sink import Sink

__all__ = ["main"]

_SMALL = 50_000
_FILES = {"50 KB": (20, _SMALL), "5 MB": (10, 5_000_000), "200 MB": (3, 200_000_000)}
_BULK = "a bulk run"
_CLIENTS: dict[str, type[UploadClient | BulkClient]] = {"`Springest.upload()`": UploadClient, _BULK: BulkClient}
_IN_FLIGHT = 8


@frozen(kw_only=True)
class Plan:
    """How much to measure.

    Attributes:
        uploads: after how many uploads a client is looked at.
        others: how many other rows the journals hold.
        slice: how many rows of each manifest are uploaded in its turn.
        rounds: how many turns each has.
        warm_up: how many uploads do not count, in which Python specialises the code.
    """

    uploads: Sequence[int] = (1000, 2000, 5000, 10_000, 20_000)
    others: Sequence[int] = (100, 1000, 10_000, 100_000, 1_000_000)
    slice: int = 300
    rounds: int = 9
    warm_up: int = 200


_QUICK = Plan(uploads=(300, 600, 1200), others=(100, 10_000), slice=50, rounds=4)


def measure_uploads(origin: str, plan: Plan) -> list[Table]:
    """Upload with one client of each kind again and again, and look at it from time to time."""
    looks = [0, *plan.uploads]
    # What is in flight at the end of a part of a bulk run is uploaded too.
    files = [(plan.warm_up + looks[-1] + _IN_FLIGHT * (len(looks) + 1), _SMALL)]
    costs: dict[str, list[Cost]] = {}
    for name, kind in _CLIENTS.items():
        with ExitStack() as stack:
            client = kind(stack, origin, stack.enter_context(_folder()), in_flight=_IN_FLIGHT, files=files)
            client.upload(plan.warm_up)
            costs[name] = [client.upload(after - before) for before, after in zip(looks, plan.uploads, strict=False)]
    columns = [_number(uploads) for uploads in plan.uploads]
    return [
        Table(
            key="uploads-cost",
            title="What an upload of 50 KB costs after so many",
            unit="ms of a processor",
            columns=columns,
            rows={name: [cost.cpu * 1000 for cost in found] for name, found in costs.items()},
            picture="lines",
        ),
        Table(
            key="uploads-growth",
            title="What an upload costs after so many, beside the first ones",
            unit=f"× the first {columns[0]}",
            columns=columns,
            rows={name: [cost.cpu / found[0].cpu for cost in found] for name, found in costs.items()},
            picture=None,
            ceilings={(name, columns[-1]): 1.5 for name in costs},
        ),
        Table(
            key="uploads-memory",
            title=f"By how much memory has grown since the first {columns[0]} uploads",
            unit="MiB",
            columns=columns,
            rows={name: [_difference(cost.now, found[0].now) for cost in found] for name, found in costs.items()},
            picture="lines",
            ceilings={(name, columns[-1]): 4.0 for name in costs},
        ),
    ]


def measure_rows(origin: str, plan: Plan) -> list[Table]:
    """Upload a few rows of each of some manifests in turn, of which the other rows wait in the journal."""
    files = [((plan.slice + _IN_FLIGHT) * (plan.rounds + 1), _SMALL)]
    memory: dict[str, Cost] = {}

    def upload(name: str, client: Client) -> float:
        memory[name] = client.upload(plan.slice)
        return memory[name].cpu * 1000

    with ExitStack() as stack:
        ways: dict[str, Callable[[], float]] = {}
        for others in plan.others:
            folder = stack.enter_context(_folder())
            client = BulkClient(stack, origin, folder, in_flight=_IN_FLIGHT, files=files, others=others)
            ways[_number(others)] = partial(upload, _number(others), client)
        found = in_turns(ways, plan.rounds)
    costs = medians(found)
    columns = list(costs)
    first, last = columns[0], columns[-1]
    return [
        Table(
            key="rows-cost",
            title="What a row of 50 KB costs in a bulk run whose journal holds so many others",
            unit="ms of a processor",
            columns=columns,
            rows={_BULK: list(costs.values())},
            picture="lines",
        ),
        Table(
            key="rows-growth",
            title="What a row costs beside so many others",
            unit=f"× beside {first}",
            columns=columns,
            rows={_BULK: [ratio(cost, found[first]) for cost in found.values()]},
            picture=None,
            ceilings={(_BULK, last): 1.5},
        ),
        Table(
            key="rows-memory",
            title=f"How much more memory than with {first} others a bulk run takes, its load included",
            unit="MiB",
            columns=columns,
            rows={_BULK: [_difference(memory[name].peak, memory[first].peak) for name in columns]},
            picture="lines",
        ),
    ]


def measure_files(origin: str) -> list[Table]:
    """Upload files of growing sizes, one at a time, and look at the peak of the memory after each size."""
    rows: dict[str, list[float | None]] = {}
    for name, kind in _CLIENTS.items():
        with ExitStack() as stack:
            folder = stack.enter_context(_folder())
            client = kind(stack, origin, folder, in_flight=1, files=list(_FILES.values()))
            costs = [client.upload(count) for count, _ in _FILES.values()]
            rows[name] = [_difference(cost.peak, costs[0].peak) for cost in costs]
    largest = list(_FILES)[-1]
    return [
        Table(
            key="files-memory",
            title="How much more memory a file takes than one of 50 KB, at its peak",
            unit="MiB",
            columns=list(_FILES),
            rows=rows,
            ceilings={(name, largest): 16.0 for name in rows},
        )
    ]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        yield Path(folder)


def _difference(memory: float | None, before: float | None) -> float | None:
    return None if memory is None or before is None else memory - before


def _number(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def _measure(options: argparse.Namespace) -> list[Table]:
    plan = _QUICK if options.quick else Plan(others=[others for others in Plan().others if others <= options.rows])
    with Sink() as sink:
        return [
            *measure_uploads(sink.origin, plan),
            *measure_rows(sink.origin, plan),
            *measure_files(sink.origin),
        ]


def main(arguments: list[str]) -> int:
    """Measure, publish the tables, and return the exit code."""
    made = parser("growth", __doc__)
    made.add_argument("--rows", type=int, default=1_000_000, help="of the largest journal (1000000), about 1.5 GB")
    options = made.parse_args(arguments)
    return publish("growth", _measure(options), options)
