"""Asyncio client and bulk uploader for the Springest certificates API. The public names; nothing is defined here.

A name is imported when it is first used, so that a program waits only for what it needs: the command's help does
without aiohttp, and a client without a journal does without a database.
"""

from importlib import import_module

from springest_async.version import __version__

TYPE_CHECKING = False  # type checkers know the name; to import it takes longer than all else here
if TYPE_CHECKING:
    from springest_async.client import Settings, Springest
    from springest_async.errors import (
        AnotherServer,
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
        MigrationMissing,
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

__all__ = [
    "AnotherServer",
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
    "MigrationMissing",
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

_MODULES = {
    "Certificate": "records",
    "CertificateUpload": "records",
    "Certification": "records",
    "Journal": "journal.journal",
    "Limiter": "limits.limiter",
    "Receipt": "records",
    "Settings": "client",
    "Springest": "client",
    "Timeouts": "http.transport",
    "UploadListener": "upload",
    "UploadStep": "upload",
    "User": "records",
}  # all others are errors

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted(globals().keys() | set(__all__))
