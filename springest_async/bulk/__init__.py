"""Bulk uploads: the preflight of a manifest, loading it, the queue, its events and the report. Public names only."""

from springest_async.bulk.events import (
    BulkEvent,
    BulkListener,
    Outage,
    OutageOver,
    Paused,
    Resumed,
    RowDone,
    RowSettling,
    RowStep,
)
from springest_async.bulk.failed_rows import LeftOut, write_failed
from springest_async.bulk.findings import Finding, Kind, Severity
from springest_async.bulk.loading import load_manifest, source_of
from springest_async.bulk.pdf import check_pdf
from springest_async.bulk.preflight import check_manifest
from springest_async.bulk.queue import UploadQueue
from springest_async.bulk.report import Report, RunRecorder
from springest_async.bulk.totals import Totals
from springest_async.journal.known_files import KnownFiles
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Entry, Loaded, State
from springest_async.manifest.certifications import Certifications
from springest_async.manifest.columns import COLUMNS
from springest_async.manifest.manifest import Manifest, Row
from springest_async.manifest.reading import Reading
from springest_async.manifest.users import Users

__all__ = [
    "COLUMNS",
    "BulkEvent",
    "BulkListener",
    "Certifications",
    "Entry",
    "Finding",
    "Kind",
    "KnownFiles",
    "LeftOut",
    "Loaded",
    "Manifest",
    "OpenMigration",
    "Outage",
    "OutageOver",
    "Paused",
    "Reading",
    "Report",
    "Resumed",
    "Row",
    "RowDone",
    "RowSettling",
    "RowStep",
    "RunRecorder",
    "Severity",
    "State",
    "Totals",
    "UploadQueue",
    "Users",
    "check_manifest",
    "check_pdf",
    "load_manifest",
    "source_of",
    "write_failed",
]
