"""What all benchmarks share: options, measuring in turns, publishing what was found, and the guard of ``--quick``.

A number of one run is compared with others of the same run only, because a machine is never twice as busy: `in_turns`
measures the ways that are compared one after the other, again and again.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import asdict

from benchmarks import page
from benchmarks.tables import Table

__all__ = ["Table", "in_turns", "medians", "parser", "publish", "ratio"]

_LIBRARIES = ("aiohttp", "httpx", "niquests", "pycurl", "pydantic", "requests", "uvloop")


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks.

    Args:
        name: the benchmark's.
        doc: the docstring of its module, whose first line is shown.
    """
    about = (doc or "").partition("\n")[0]
    made = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=about, allow_abbrev=False)
    made.set_defaults(about=about)
    made.add_argument("--quick", action="store_true", help="take seconds, and fail when a number is out of its bounds")
    made.add_argument(
        "--output", type=Path, metavar="DIR", help=f"write DIR/{name}.json and its pictures, and DIR.md if there is one"
    )
    return made


def publish(name: str, tables: Sequence[Table], options: argparse.Namespace) -> int:
    """Print the tables, write what ``--output`` asks for, and return the exit code: 1 when the guard fails.

    Args:
        name: the benchmark's.
        tables: what it has found.
        options: as `parser` made them.
    """
    print("\n\n".join(table.markdown() for table in tables))
    if options.output is not None:
        _write(name, tables, options)
    broken = [sentence for table in tables for sentence in table.broken()] if options.quick else []
    for sentence in broken:
        print(f"{name}: {sentence}", file=sys.stderr)
    return 1 if broken else 0


def _write(name: str, tables: Sequence[Table], options: argparse.Namespace) -> None:
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.svg"):
        old.unlink()
    for table in tables:
        if table.picture:
            (folder / f"{name}-{table.key}.svg").write_text(table.svg(), encoding="utf-8")
    found = {
        "benchmark": name,
        "about": options.about,
        "command": " ".join(["python -m benchmarks", name, *sys.argv[2:]]),
        "day": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "tables": [_plain(table) for table in tables],
    }
    text = json.dumps(found, ensure_ascii=False, indent=1)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    page.rewrite(folder)


def _plain(table: Table) -> dict[str, Any]:
    """Return what JSON can hold of a table; the bounds belong to the guard."""
    return asdict(table, filter=lambda attribute, _: attribute.name not in ("floors", "ceilings"))


def machine() -> dict[str, str]:
    """Return what the numbers depend on: the processor, the system, Python and the libraries."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{library} {version}" for library, version in versions.items()),
    }


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each way once a round, and return the results of each, of which there are as many as rounds.

    A first round does not count. Each round begins with another way, so that none always runs after the same one.
    """
    names = list(ways)
    results: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result = ways[name]()
            if number:
                results[name].append(result)
    return results


def medians(results: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each way's results."""
    return {name: statistics.median(numbers) for name, numbers in results.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of each round: what disturbs a round disturbs both sides of it."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
