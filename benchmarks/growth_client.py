"""The clients that ``python -m benchmarks growth`` measures, each a process of its own (``python -m`` this module).

A process says on stdout, as JSON, when it is ready; then it makes as many uploads as each line of stdin asks for, tells
what they have cost, and ends when stdin does.
"""

import argparse
import asyncio
import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.sink import keep_to_a_core
from springest_async import CertificateUpload, Journal, Limiter, Settings, Springest
from springest_async.bulk import COLUMNS, BulkEvent, Manifest, RowDone, State, UploadQueue, load_manifest

__all__ = ["BulkClient", "Client", "Cost", "Files", "UploadClient"]

_KEY = "a key for the sink"
_NO_LIMIT = 10**9
_PERIOD = 1.0  # seconds that a token rests, so that only those of the last second are out
_LINKS = 500  # names of one file
_END = b"startxref\n0\n%%EOF\n"

Files = Sequence[tuple[int, int]]
"""Groups of certificates: how many, and the bytes of each."""


@frozen
class Cost:
    """What some uploads have cost a client.

    Attributes:
        cpu: seconds of the processor for each.
        now: the memory of the process in MiB; None where that is unknown.
        peak: the most that it ever was, in MiB.
    """

    cpu: float
    now: float | None
    peak: float | None


class Client:
    """A client in a process of its own, which ends with `stack`."""

    def __init__(self, stack: ExitStack, *arguments: str) -> None:
        self._process = stack.enter_context(
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "benchmarks.growth_client", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
            )
        )
        self._answer()  # it is ready

    def upload(self, count: int) -> Cost:
        """Make so many uploads, and return what they have cost."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return Cost(**self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a client has ended")
        return json.loads(line)


class UploadClient(Client):
    """A client that calls `Springest.upload` again and again; see `BulkClient`."""

    def __init__(self, stack: ExitStack, origin: str, folder: Path, *, in_flight: int, files: Files) -> None:
        super().__init__(stack, "upload", origin, str(folder), str(in_flight), "0", json.dumps(files))


class BulkClient(Client):
    """A client that uploads the rows of a manifest, and stops after as many as it is asked for.

    Args:
        stack: what ends it.
        origin: the sink.
        folder: for its journal, manifest and certificates; empty.
        in_flight: how many uploads at once.
        files: the certificates, in turn: how many, and the bytes of each.
        others: how many rows more the manifest has, which wait behind those.
    """

    def __init__(
        self, stack: ExitStack, origin: str, folder: Path, *, in_flight: int, files: Files, others: int = 0
    ) -> None:
        super().__init__(stack, "bulk", origin, str(folder), str(in_flight), str(others), json.dumps(files))


# --- the process ---

_Upload = Callable[[int], Awaitable[int]]
"""Makes so many uploads, or a few more, and returns how many it has made."""


def _certificates(folder: Path, files: Files) -> Iterator[CertificateUpload]:
    """Make certificates, many of which are further names of a few files."""
    first = folder
    for number, size in enumerate(chain.from_iterable(repeat(size, count) for count, size in files)):
        file = folder / f"{number}.pdf"
        if number % _LINKS and first.stat().st_size == size:
            os.link(first, file)
        else:
            first = file
            with file.open("wb") as stream:
                stream.write(b"%PDF-1.4\n")
                stream.seek(size - len(_END))
                stream.write(_END)
        yield CertificateUpload(
            file=file, certification_id=1, email=f"employee{number}@example.org", valid_from=date(2026, 1, 31)
        )


def _settings(in_flight: int, **options: Any) -> Settings:
    limiter = Limiter(posts=_NO_LIMIT, period=_PERIOD, requests_per_hour=_NO_LIMIT, **options)
    return Settings(limiter=limiter, concurrency=in_flight)


async def _upload_again_and_again(origin: str, folder: Path, in_flight: int, files: Files) -> None:
    certificates = list(_certificates(folder, files))
    turn = (certificate for _ in repeat(None) for certificate in certificates)
    async with Springest(api_key=_KEY, host=origin, settings=_settings(in_flight)) as springest:

        async def upload(count: int) -> int:
            left = iter(range(count))

            async def work() -> None:
                for _ in left:
                    await springest.upload(next(turn))

            async with asyncio.TaskGroup() as workers:
                for _ in range(in_flight):
                    workers.create_task(work())
            return count

        await _answer_lines(upload)


async def _upload_in_bulk(origin: str, folder: Path, in_flight: int, files: Files, others: int) -> None:
    path = folder / "certificates.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for certificate in _certificates(folder, files):
            writer.writerow([certificate.file.name, 1, certificate.email, certificate.valid_from, "", ""])
        for number in range(others):
            writer.writerow([f"other{number}.pdf", 1, f"other{number // 4}@example.org", "2026-01-31", "", ""])
    async with Journal(folder / "journal.sqlite3") as journal:
        settings = _settings(in_flight, ledger=journal.ledger("a benchmark"))
        async with Springest(api_key=_KEY, host=origin, settings=settings, journal=journal) as springest:
            migration, _ = await load_manifest(journal, Manifest.open(path), springest.origin)

            async def upload(count: int) -> int:
                stored = 0

                def stop_in_time(event: BulkEvent) -> None:
                    nonlocal stored
                    if isinstance(event, RowDone) and event.state is not State.WAITING:
                        assert event.state is State.STORED, event
                        stored += 1
                        if stored == count:
                            queue.stop()

                queue = UploadQueue(springest, migration, stop_in_time)
                if (error := await queue.run()) is not None:
                    raise error
                return stored

            await _answer_lines(upload)


async def _answer_lines(upload: _Upload) -> None:
    """Make the uploads that the lines of stdin ask for, and print what they have cost."""
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began = time.process_time()
        made = await upload(int(line))
        cpu = (time.process_time() - began) / made
        print(json.dumps({"cpu": cpu, "now": _memory("VmRSS"), "peak": _memory("VmHWM")}), flush=True)


def _memory(name: str) -> float | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


def _serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("origin")
    parser.add_argument("folder", type=Path)
    parser.add_argument("in_flight", type=int)
    parser.add_argument("others", type=int)
    parser.add_argument("files", type=json.loads)
    options = parser.parse_args()
    keep_to_a_core(0)
    if options.kind == "upload":
        asyncio.run(_upload_again_and_again(options.origin, options.folder, options.in_flight, options.files))
    else:
        asyncio.run(_upload_in_bulk(options.origin, options.folder, options.in_flight, options.files, options.others))


if __name__ == "__main__":
    _serve()
