"""What a bulk run came to: the totals, and the rows that need mending, as a manifest that can be uploaded.

Rejected and failed rows are known not to be stored. They are written with their reasons; mended there or in the first
manifest, they are uploaded with the same journal, so that nothing is stored twice. Rows in doubt are not among them:
they are for `UploadQueue` to settle, and for a person to resolve.
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
from springest_async.bulk.journal import JournalReader
from springest_async.bulk.manifest import ERROR, Manifest
from springest_async.errors import ConfigurationError

__all__ = ["Report", "RunRecorder", "write_failed"]


def _settled(counts: Counter[State]) -> Counter[State]:
    counts = Counter(counts)
    counts[State.IN_DOUBT] += counts.pop(State.SENDING, 0)
    return counts


@frozen(kw_only=True)
class Report:
    """What has become of a manifest so far: `counts` over all runs; `posts` and `refusals` of this run.

    ``rows = stored + rejected + failed + in doubt + waiting``: a row that was being sent when the journal could not be
    written any more counts as in doubt.
    """

    counts: Counter[State] = field(converter=_settled)
    posts: int
    refusals: int

    @property
    def rows(self) -> int:
        """How many rows the manifest has."""
        return self.counts.total()

    def count(self, *states: State) -> int:
        """How many rows are in any of these states."""
        return sum(self.counts[state] for state in states)


class RunRecorder:
    """Listens to a run, and counts its POSTs.

    Usage::

        recorder = RunRecorder()
        await UploadQueue(springest, journal, recorder).run()
        recorder.report(journal)
    """

    def __init__(self) -> None:
        self._posts = 0
        self._refusals = 0

    def __call__(self, event: RowStep | RowSettling | RowDone) -> None:
        """Take note of an event."""
        if isinstance(event, RowStep):
            self._posts += event.step.kind == "sending"
            self._refusals += event.step.kind == "refused"

    def report(self, journal: JournalReader) -> Report:
        """Give the totals."""
        return Report(counts=journal.counts(), posts=self._posts, refusals=self._refusals)


def write_failed(journal: JournalReader, manifest: Manifest) -> Path | None:
    """Write the rejected and failed rows to a manifest beside the first one, so that the paths in it hold.

    It is as the first one is written (separator, byte order mark), with the reasons in a column ``error``. A cell that
    a spreadsheet would run as a formula begins with an apostrophe, which `Manifest` takes off again. No file is ever
    overwritten. Only its owner can read it, since it holds personal data.

    Returns:
        The first free one of ``x.failed.csv``, ``x.failed-2.csv`` …, or the last one of them when that says the same
        already; None when there are no such rows.

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
            path.unlink()  # half of it would be taken for all that failed
            raise
        # A migration of weeks is interrupted often, and what was rejected stays rejected.
        if before is not None and before.is_file() and filecmp.cmp(before, path, shallow=False):
            path.unlink()
            return before
    except OSError as error:
        reason = error.strerror or "cannot be written"
        raise ConfigurationError(f"the failed rows cannot be written beside {manifest.path}: {reason}") from None
    return path


def _cells(entry: Entry) -> dict[str, str]:
    values = {
        "file": entry.file,
        "certification_id": entry.certification_id,
        "email": entry.email,
        "valid_from": entry.valid_from,
        "valid_until": entry.valid_until,
        "conversion_id": entry.conversion_id,
    }
    return dict(entry.extra) | {name: "" if value is None else str(value) for name, value in values.items()}


def _create(manifest: Path) -> tuple[Path | None, Path, int]:
    """Make the first file that is not there yet, and give the last one that is."""
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
