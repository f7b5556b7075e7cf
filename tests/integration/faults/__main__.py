"""Make every fault of the catalogue happen, and write what came of it into docs/faults.md."""

import asyncio
import tempfile
from pathlib import Path

from . import table
from .catalogue import Fault, Outcome, measure
from .groups import GROUPS


async def _measured(faults: tuple[Fault, ...]) -> list[tuple[Fault, Outcome]]:
    found = []
    for fault in faults:
        with tempfile.TemporaryDirectory() as folder:
            found.append((fault, await measure(fault, Path(folder))))
    return found


def main() -> None:
    """Write the tables."""
    groups = {name: asyncio.run(_measured(faults)) for name, faults in GROUPS.items()}
    table.DOCUMENT.write_text(table.begun() + table.written(groups), encoding="utf-8")


if __name__ == "__main__":
    main()
