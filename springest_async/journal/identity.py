"""Digests that say which certificates are the same, and which look the same in Springest's lists.

Nothing here reads a file or a database.
"""

import hashlib
import unicodedata
from datetime import date
from typing import Protocol


class CertificateFields(Protocol):
    """What a certificate is, apart from its file: a `CertificateUpload`, or the fields of a row of a manifest."""

    @property
    def certification_id(self) -> int:
        """Springest's id of the certification."""

    @property
    def email(self) -> str:
        """The address of the employee."""

    @property
    def valid_from(self) -> date:
        """The first day."""

    @property
    def valid_until(self) -> date | None:
        """The last day, or None."""

    @property
    def conversion_id(self) -> int | None:
        """Springest's id of the conversion, or None."""


def identity(certificate: CertificateFields, origin: str, sha256: bytes) -> bytes:
    """Return the 32-byte digest of all that makes a certificate: its fields, its host and the hash of its whole file.

    Neither the key nor the name of the file is part of it.
    """
    conversion = certificate.conversion_id or 0
    return hashlib.sha256(f"{_common(certificate, origin)}\n{conversion}\n{sha256.hex()}".encode()).digest()


def lookalike(certificate: CertificateFields, origin: str) -> bytes:
    """Return a 16-byte digest of what Springest's list shows of a certificate: neither its file nor its conversion."""
    return hashlib.blake2b(_common(certificate, origin).encode(), digest_size=16).digest()


def row_digests(certificate: CertificateFields, origin: str, file: str) -> tuple[bytes, bytes]:
    """Return two 16-byte digests of a row of a manifest.

    The first is of its fields and the name of its file, as it is written there; the second is its `lookalike`.
    """
    digest = hashlib.blake2b(_common(certificate, origin).encode(), digest_size=16)
    looks = digest.digest()
    digest.update(f"\n{certificate.conversion_id or 0}\n{file}".encode(errors="surrogatepass"))
    return digest.digest(), looks


def place(machine: str, path: bytes) -> bytes:
    """Return a 16-byte digest of a file's absolute path on a machine."""
    return hashlib.blake2b(machine.encode() + b"\0" + path, digest_size=16).digest()


def folded(email: str) -> str:
    """Return an address as all its forms, in another case or with accents encoded otherwise, are written here."""
    lower = email.lower()
    if lower.isascii():
        return lower
    # Folded after NFD, all forms are the same ("Canonical Caseless Matching" in Unicode, section 3.13).
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", email).casefold())


def _common(certificate: CertificateFields, origin: str) -> str:
    # An address contains no newline, so no two certificates have the same text.
    email = folded(certificate.email)
    return f"{origin}\n{certificate.certification_id}\n{certificate.valid_from}\n{certificate.valid_until}\n{email}"
