"""Bulk uploads: a manifest, its preflight, the queue, its events and the report. Public names only."""

from springest_async.bulk.events import BulkListener, RowDone, RowStep, State
from springest_async.bulk.manifest import COLUMNS, Manifest, Row
from springest_async.bulk.preflight import Finding, check_manifest, check_pdf
from springest_async.bulk.queue import UploadQueue
from springest_async.bulk.report import Report, RunRecorder

__all__ = [
    "COLUMNS",
    "BulkListener",
    "Finding",
    "Manifest",
    "Report",
    "Row",
    "RowDone",
    "RowStep",
    "RunRecorder",
    "State",
    "UploadQueue",
    "check_manifest",
    "check_pdf",
]
