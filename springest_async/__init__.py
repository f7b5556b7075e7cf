"""Asyncio client and bulk uploader for the Springest certificates API. The public names; nothing is defined here."""

from springest_async.client import Settings, Springest
from springest_async.delivery import UploadListener, UploadStep
from springest_async.errors import (
    AnswerError,
    ConfigurationError,
    Fault,
    Forbidden,
    InDoubt,
    InvalidUpload,
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
from springest_async.limiter import Limiter
from springest_async.records import Certificate, CertificateUpload, Certification, Receipt, User
from springest_async.transport import Timeouts

__all__ = [
    "AnswerError",
    "Certificate",
    "CertificateUpload",
    "Certification",
    "ConfigurationError",
    "Fault",
    "Forbidden",
    "InDoubt",
    "InvalidUpload",
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
]
