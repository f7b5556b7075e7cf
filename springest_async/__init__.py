"""Asyncio client and bulk uploader for the Springest certificates API. The public names; nothing is defined here."""

from springest_async.client import Settings, Springest
from springest_async.errors import (
    AnswerError,
    CancelledTooLate,
    ConfigurationError,
    Fault,
    Forbidden,
    InDoubt,
    InvalidUpload,
    JournalError,
    JournalMissing,
    JournalUnavailable,
    ManifestError,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Redirected,
    Rejected,
    ServerError,
    SpringestError,
    TransportError,
    UnexpectedStatus,
    UnreadableAnswer,
    UnusableFile,
)
from springest_async.http.transport import Timeouts
from springest_async.journal.journal import Journal
from springest_async.limits.limiter import Limiter
from springest_async.records import Certificate, CertificateUpload, Certification, Receipt, User
from springest_async.upload import UploadListener, UploadStep
from springest_async.version import __version__

__all__ = [
    "AnswerError",
    "CancelledTooLate",
    "Certificate",
    "CertificateUpload",
    "Certification",
    "ConfigurationError",
    "Fault",
    "Forbidden",
    "InDoubt",
    "InvalidUpload",
    "Journal",
    "JournalError",
    "JournalMissing",
    "JournalUnavailable",
    "Limiter",
    "ManifestError",
    "NoAnswer",
    "NotAuthorized",
    "NotFound",
    "NotSent",
    "Receipt",
    "Redirected",
    "Rejected",
    "ServerError",
    "Settings",
    "Springest",
    "SpringestError",
    "Timeouts",
    "TransportError",
    "UnexpectedStatus",
    "UnreadableAnswer",
    "UnusableFile",
    "UploadListener",
    "UploadStep",
    "User",
    "__version__",
]
