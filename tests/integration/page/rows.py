"""Journals for the tests of the page: migrations whose rows have any states."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from springest_async import Journal
from springest_async.bulk import Manifest, OpenMigration, State, load_manifest
from tests.bulk_runs import ORIGIN, settle

COLUMNS = "file,certification_id,email,valid_from"


def manifest(
    folder: Path, rows: int, *, name: str = "certificates.csv", file: str = "{}.pdf", domain: str = "example.org"
) -> Manifest:
    """Write a manifest whose files do not exist; the page reads no files. All e-mail addresses are of one domain."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = [f"{file.format(row)},{row % 7 + 1},employee{row}@{domain},2026-01-31" for row in range(1, rows + 1)]
    path.write_text("\n".join([COLUMNS, *lines, ""]), encoding="utf-8")
    return Manifest.open(path)


async def load(journal: Journal, manifest: Manifest, states: Sequence[State] = (), reason: str = "") -> OpenMigration:
    """Load a manifest, and bring its first rows to these states; they have this reason."""
    migration, _ = await load_manifest(journal, manifest, ORIGIN)
    for state in states:
        # One after another, so that they have the states in this order.
        await settle(migration, state, reason=reason if state is not State.STORED else "")
    return migration


@asynccontextmanager
async def loaded(
    folder: Path, rows: int, states: Sequence[State] = (), *, reason: str = "", file: str = "{}.pdf"
) -> AsyncIterator[OpenMigration]:
    """Open a journal in a folder with one migration, as `load` makes it."""
    async with Journal(folder / "journal.sqlite3") as journal:
        yield await load(journal, manifest(folder, rows, file=file), states, reason)
