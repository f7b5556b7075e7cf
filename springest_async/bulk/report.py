"""What a bulk run came to: the totals, and the rows that are left over, as manifests that can be uploaded again.

Rows that are rejected, failed or waiting are known not to be stored, so they go into one manifest that is safe to
upload again. Rows in doubt go into another one, because uploading that again may store a certificate twice.
"""

import csv
import os
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from attrs import field, frozen

from springest_async.bulk.events import RowDone, RowStep, State
from springest_async.bulk.manifest import Manifest
from springest_async.errors import ConfigurationError

__all__ = ["Report", "RunRecorder"]

_LEFT_OVER = {
    State.REJECTED: "failed",
    State.FAILED: "failed",
    State.WAITING: "failed",
    State.IN_DOUBT: "in-doubt",
}


@frozen(kw_only=True)
class Report:
    """The totals of a run. `rows` is the sum of the states; `left_over` are the manifests of what is not stored."""

    counts: dict[State, int]
    posts: int
    refusals: int
    left_over: dict[str, Path] = field(factory=dict)

    @property
    def rows(self) -> int:
        """How many rows the manifest has."""
        return sum(self.counts.values())

    def count(self, *states: State) -> int:
        """How many rows ended in any of these states."""
        return sum(self.counts.get(state, 0) for state in states)


class RunRecorder:
    """Listens to a run: counts, and writes down each row that is not stored at the moment when that is known.

    Usage::

        with RunRecorder(manifest) as recorder:
            await UploadQueue(springest, manifest, recorder).run()
        recorder.report()

    The files are made beside the manifest, so that the paths in them hold, when the first row needs them; no file is
    ever overwritten. Only their owner can read them, since they hold personal data.

    Raises:
        ConfigurationError: on entering, when nothing can be written beside the manifest.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._counts: Counter[State] = Counter()
        self._posts = 0
        self._refusals = 0
        self._files = ExitStack()
        self._writers: dict[str, Any] = {}
        self._streams: dict[str, IO[str]] = {}
        self._left_over: dict[str, Path] = {}

    def __enter__(self) -> Self:
        folder = self._manifest.path.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"cannot write in {folder.absolute()}: rows that are not stored are written down beside the manifest"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()
        if self._counts.keys() == {State.WAITING}:
            # Nothing became of any row, so the manifest itself is what is left over.
            for path in self._left_over.values():
                path.unlink()
            self._left_over.clear()

    def __call__(self, event: RowStep | RowDone) -> None:
        """Take note of an event."""
        if isinstance(event, RowStep):
            self._posts += event.step.kind == "sending"
            self._refusals += event.step.kind == "refused"
            return
        self._counts[event.state] += 1
        if (name := _LEFT_OVER.get(event.state)) is not None:
            self._write(name, event)

    def report(self) -> Report:
        """Give the totals so far."""
        return Report(
            counts=dict(self._counts), posts=self._posts, refusals=self._refusals, left_over=dict(self._left_over)
        )

    def _write(self, name: str, event: RowDone) -> None:
        writer = self._writers.get(name) or self._open(name)
        error = str(event.error) if event.error is not None else "not sent: the run was interrupted"
        cells = [event.row.cells.get(column, "") for column in self._columns]
        writer.writerow([*cells, " ".join(error.split())])
        # A waiting row is one of maybe a million, and lost with nothing; all others are written at once.
        if event.state is not State.WAITING:
            self._streams[name].flush()

    @property
    def _columns(self) -> list[str]:
        return [column for column in self._manifest.columns if column != "error"]

    def _open(self, name: str) -> Any:
        path, descriptor = _create(self._manifest.path, name)
        encoding = "utf-8-sig" if self._manifest.bom else "utf-8"
        stream = self._files.enter_context(
            os.fdopen(descriptor, "w", encoding=encoding, errors="backslashreplace", newline="")
        )
        writer = csv.writer(stream, delimiter=self._manifest.delimiter)
        writer.writerow([*self._columns, "error"])
        self._writers[name] = writer
        self._streams[name] = stream
        self._left_over[name] = path
        return writer


def _create(manifest: Path, name: str) -> tuple[Path, int]:
    """Make a file beside the manifest under the first free name: ``x.failed.csv``, ``x.failed-2.csv`` …."""
    stem = re.sub(r"\.(failed|in-doubt)(-[0-9]+)?$", "", manifest.stem)
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        path = manifest.with_name(f"{stem}.{name}{suffix}{manifest.suffix or '.csv'}")
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
