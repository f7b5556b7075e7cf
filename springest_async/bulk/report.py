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
from pathlib import Path

from attrs import field, frozen

from springest_async.bulk.entries import Entry, State
from springest_async.bulk.events import RowDone, RowSettling, RowStep
from springest_async.bulk.formulas import escape
from springest_async.bulk.manifest import COLUMNS, ERROR, Manifest
from springest_async.bulk.reader import JournalReader
from springest_async.errors import ConfigurationError


def _settled(counts: Counter[State]) -> Counter[State]:
    counts = Counter(counts)
    counts[State.IN_DOUBT] += counts.pop(State.SENDING, 0)
    return counts


@frozen(kw_only=True)
class Report:
    """The totals of a manifest: ``rows = stored + rejected + failed + in doubt + waiting``.

    Attributes:
        counts: the rows by state, over all runs. Rows that are still "sending", because the journal could not be
            written any more, count as in doubt.
        posts: how many POSTs this run has sent.
        refusals: how many of these were refused without a reason.
    """

    counts: Counter[State] = field(converter=_settled)
    posts: int
    refusals: int

    @property
    def rows(self) -> int:
        """The number of rows of the manifest."""
        return self.counts.total()

    def count(self, *states: State) -> int:
        """Return how many rows are in any of these states."""
        return sum(self.counts[state] for state in states)


class RunRecorder:
    """A listener that counts the POSTs of a run.

    Usage::

        recorder = RunRecorder()
        await UploadQueue(springest, journal, recorder).run()
        recorder.report(journal)
    """

    def __init__(self) -> None:
        self._posts = 0
        self._refusals = 0

    def __call__(self, event: RowStep | RowSettling | RowDone) -> None:
        """Count an event."""
        if isinstance(event, RowStep):
            self._posts += event.step.kind == "sending"
            self._refusals += event.step.kind == "refused"

    def report(self, journal: JournalReader) -> Report:
        """Return the totals."""
        return Report(counts=journal.counts(), posts=self._posts, refusals=self._refusals)


def write_failed(journal: JournalReader, manifest: Manifest) -> Path | None:
    """Write the rejected and failed rows to a manifest beside the first one, so that its relative paths stay right.

    It has the separator and byte order mark of the first one, and the reasons in a column ``error``. A cell that a
    spreadsheet would run as a formula gets an apostrophe in front, which `Manifest` removes again. No file is ever
    overwritten. Only the owner can read it, because it contains personal data.

    Returns:
        The first free path of ``x.failed.csv``, ``x.failed-2.csv`` …, or the last existing one if it has the same
        content already; None when there are no such rows.

    Raises:
        ConfigurationError: when it cannot be written.
    """
    counts = journal.counts()
    if not counts[State.REJECTED] and not counts[State.FAILED]:
        return None
    columns = [column for column in manifest.columns if column != ERROR]
    try:
        before, path, descriptor = _create(manifest.path)
        encoding = "utf-8-sig" if manifest.bom else "utf-8"
        try:
            with os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace", newline="") as stream:
                writer = csv.writer(stream, delimiter=manifest.delimiter)
                writer.writerow(map(escape, [*columns, ERROR]))
                for entry in journal.entries(State.REJECTED, State.FAILED):
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
