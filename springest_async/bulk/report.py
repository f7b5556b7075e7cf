"""The result of a bulk run: the totals, and a manifest of the rows that need correcting.

Rejected and failed rows are certainly not stored. They are written with their reasons, to be corrected there or in the
first manifest and uploaded with the same journal, so that nothing is stored twice. Rows in doubt are not among them:
`UploadQueue` settles those, or a person resolves them.
"""

import csv
import filecmp
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from attrs import field, frozen

from springest_async.bulk.events import RowDone, RowSettling, RowStep
from springest_async.errors import ConfigurationError
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, Loaded, State
from springest_async.manifest.csv_table import SEPARATORS
from springest_async.manifest.formulas import escape
from springest_async.manifest.manifest import COLUMNS, ERROR, Manifest


def _settled(counts: Counter[State]) -> Counter[State]:
    counts = Counter(counts)
    counts[State.IN_DOUBT] += counts.pop(State.SENDING, 0)
    return counts


@frozen(kw_only=True)
class Report:
    """The totals of a manifest: ``rows = stored + rejected + failed + in doubt + waiting``.

    Attributes:
        counts: the rows by state, over all runs and workers. Rows that are still "sending" count as in doubt.
        posts: how many POSTs this run has sent.
        refusals: how many of these were refused without a reason.
        stored: how many rows this run has stored or found at Springest.
        stored_before: how many rows needed no POST, because another manifest or an upload had stored their certificate.
    """

    counts: Counter[State] = field(converter=_settled)
    posts: int = 0
    refusals: int = 0
    stored: int = 0
    stored_before: int = 0

    @property
    def rows(self) -> int:
        """The number of rows of the manifest."""
        return self.counts.total()

    def count(self, *states: State) -> int:
        """Return how many rows are in any of these states."""
        return sum(self.counts[state] for state in states)


class RunRecorder:
    """A listener that counts the POSTs of a run, and the rows that it stored.

    Usage::

        migration, loaded = await load_manifest(journal, manifest, springest.origin)
        recorder = RunRecorder(loaded)
        await UploadQueue(springest, migration, recorder).run()
        report = await recorder.report(migration)

    Args:
        loaded: the result of loading the manifest for this run, if it was.
    """

    def __init__(self, loaded: Loaded | None = None) -> None:
        self._posts = 0
        self._refusals = 0
        self._stored = 0
        self._stored_before = loaded.known if loaded else 0

    def __call__(self, event: RowStep | RowSettling | RowDone) -> None:
        """Count an event."""
        match event:
            case RowStep():
                self._posts += event.step.kind == "sending"
                self._refusals += event.step.kind == "refused"
            case RowDone(state=State.STORED) if event.row.number is not None:
                self._stored_before += event.stored_before
                self._stored += not event.stored_before

    async def report(self, migration: OpenMigration) -> Report:
        """Return the totals.

        Raises:
            JournalError: when the journal cannot be read.
        """
        return Report(
            counts=await migration.counts(),
            posts=self._posts,
            refusals=self._refusals,
            stored=self._stored,
            stored_before=self._stored_before,
        )


async def write_failed(migration: OpenMigration, manifest: Manifest) -> Path | None:
    """Write the rejected and failed rows to a manifest beside the first one, so that its relative paths stay right.

    It has the separator of the first one, and the reasons in a column ``error``. It is UTF-8, with a byte order mark
    unless the first one is UTF-8 without one. A cell that a spreadsheet would run as a formula gets an apostrophe in
    front, which `Manifest` removes again. No file is ever overwritten. Only the owner can read it, because it contains
    personal data.

    Returns:
        The first free path of ``x.failed.csv``, ``x.failed-2.csv`` …, or the last existing one if it has the same
        content already; None when there are no such rows.

    Raises:
        ConfigurationError: when it cannot be written.
        JournalError: when the journal cannot be read; no file is left then.
    """
    counts = await migration.counts()
    if not counts[State.REJECTED] and not counts[State.FAILED]:
        return None
    columns = [column for column in manifest.columns if column != ERROR]
    try:
        before, path, descriptor = _create(manifest.path)
        encoding = "utf-8" if (table := manifest.table).encoding == "utf-8" and not table.bom else "utf-8-sig"
        try:
            with os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace", newline="") as stream:
                writer = csv.writer(stream, delimiter=table.separator if table.separator in SEPARATORS else ";")
                writer.writerow(map(escape, [*columns, ERROR]))
                async for entry in _failed(migration):
                    cells = _cells(entry)
                    reason = " ".join(entry.reason.split())
                    writer.writerow(map(escape, [*(cells.get(column, "") for column in columns), reason]))
        except BaseException:
            path.unlink()  # an incomplete file would look like all failed rows
            raise
        # A long migration is interrupted often, and each run would write the same rejected rows again.
        if before is not None and before.is_file() and filecmp.cmp(before, path, shallow=False):
            path.unlink()
            return before
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise ConfigurationError(f"the failed rows cannot be written beside {manifest.path}: {reason}") from None
    return path


async def _failed(migration: OpenMigration) -> AsyncIterator[Entry]:
    after = 0
    while page := await migration.entries(State.REJECTED, State.FAILED, after=after):
        for entry in page:
            yield entry
        after = page[-1].number or after


def _cells(entry: Entry) -> dict[str, str]:
    values = {name: getattr(entry, name) for name in COLUMNS}
    return dict(entry.extra) | {name: "" if value is None else str(value) for name, value in values.items()}


def _create(manifest: Path) -> tuple[Path | None, Path, int]:
    """Create the first file of the series that does not exist; return the one before it, its path and descriptor."""
    before: Path | None = None
    stem = re.sub(r"\.failed(-[0-9]+)?$", "", manifest.stem)
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        path = manifest.with_name(f"{stem}.failed{suffix}{manifest.suffix or '.csv'}")
        try:
            return before, path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            before = path
            number += 1
