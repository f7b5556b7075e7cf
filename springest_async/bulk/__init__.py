"""Bulk uploads: a manifest, its preflight, the journal, the queue, its events and the report. Public names only."""

from springest_async.bulk.entries import Entry, Siblings, State
from springest_async.bulk.events import BulkListener, RowDone, RowSettling, RowStep
from springest_async.bulk.journal import Journal, default_path
from springest_async.bulk.manifest import COLUMNS, Manifest, Row
from springest_async.bulk.plan import Loaded
from springest_async.bulk.preflight import Finding, check_manifest, check_pdf
from springest_async.bulk.queue import UploadQueue
from springest_async.bulk.reader import JournalReader
from springest_async.bulk.report import Report, RunRecorder, write_failed

__all__ = [
    "COLUMNS",
    "BulkListener",
    "Entry",
    "Finding",
    "Journal",
    "JournalReader",
    "Loaded",
    "Manifest",
    "Report",
    "Row",
    "RowDone",
    "RowSettling",
    "RowStep",
    "RunRecorder",
    "Siblings",
    "State",
    "UploadQueue",
    "check_manifest",
    "check_pdf",
    "default_path",
    "write_failed",
]
