"""Load a manifest into a journal. The journal finds which rows are known, which are new, and which have changed."""

import asyncio
import hashlib
import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from springest_async.bulk.rows import RowSet
from springest_async.errors import InvalidUpload, ManifestError
from springest_async.journal.journal import Journal
from springest_async.journal.loading import ManifestRow
from springest_async.journal.migrations import Source
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Loaded
from springest_async.manifest.columns import COLUMNS
from springest_async.manifest.manifest import Manifest


def source_of(manifest: Manifest, origin: str, machine: str, left_out: RowSet | None = None) -> Source:
    """Return where a manifest is, what it contains and which host it is for. This reads the file.

    A symbolic link to a manifest is the same manifest, but the files are where the link is.

    Args:
        manifest: the manifest.
        origin: the host, as in ``https://api.springest.nl``.
        machine: the name of this machine, as in `Journal.machine`.
        left_out: the rows that are not to be sent.

    Raises:
        ManifestError: when it cannot be read, or has changed since it was opened.
    """
    reading = manifest.reading_digest
    if left_out:
        reading = hashlib.sha256(reading + left_out.digest).digest()
    return Source(
        origin=origin,
        sha256=manifest.sha256,
        reading=reading,
        path=Path(os.path.realpath(manifest.path)),
        folder=manifest.files.absolute(),
        machine=machine,
        names=manifest.names,
    )


def rows_of(manifest: Manifest, left_out: RowSet | None = None) -> Generator[ManifestRow, None, None]:
    """Yield the rows of a manifest that has passed the preflight, without those that are left out.

    Raises:
        ManifestError: when a row cannot be read or uploaded; the preflight reports that earlier.
    """
    unknown = [name for name in manifest.columns if name not in COLUMNS]
    with closing(iter(manifest)) as rows:
        for row in rows:
            if left_out and row.number in left_out:
                continue
            try:
                fields = manifest.fields(row)
            except InvalidUpload as error:
                faults = "; ".join(map(str, error.faults))
                raise ManifestError(manifest.path, f"row {row.number}: {faults}") from None
            yield ManifestRow(
                number=row.number,
                file=fields.file,
                extra={name: cell for name in unknown if (cell := row.cells[name])},
                certification_id=fields.certification_id,
                email=fields.email,
                valid_from=fields.valid_from,
                valid_until=fields.valid_until,
                conversion_id=fields.conversion_id,
            )


async def load_manifest(
    journal: Journal,
    manifest: Manifest,
    origin: str,
    *,
    faulty: RowSet | None = None,
    listed: RowSet | None = None,
) -> tuple[OpenMigration, Loaded]:
    """Load a manifest that has passed the preflight, and return its migration and what was new in it.

    Args:
        journal: the journal.
        manifest: the manifest.
        origin: the host, as in ``https://api.springest.nl``.
        faulty: the rows that are left out because of their faults; the journal keeps how many there are.
        listed: the rows that are left out because Springest lists them already.

    Raises:
        ManifestError: when a row cannot be read or uploaded, or the file has changed; nothing is loaded then.
        JournalError: when the journal cannot be written.
    """
    left_out = faulty | listed if faulty and listed else faulty or listed
    source = await asyncio.to_thread(source_of, manifest, origin, journal.machine, left_out)
    columns = manifest.layout.named
    rows = rows_of(manifest, left_out)
    return await OpenMigration.load(journal, source, rows, faulty=len(faulty or ()), columns=columns)
