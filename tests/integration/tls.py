"""Certificates for the tests' servers, right and wrong, by a CA of the tests' own."""

import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["WRONG", "Authority", "server_tls"]

NAMES = ("localhost", "127.0.0.1", "springest.test")


class Authority:
    """A CA, with the server's certificates that it issues, and its own one in `file` for those who trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.file)

    def hashed_folder(self) -> Path:
        """Return a folder in which OpenSSL finds the CA: the file's name is a hash of the CA's."""
        command: list[str | Path] = ["openssl", "x509", "-noout", "-hash", "-in", self.file]
        name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        folder = self.file.parent / "hashed"
        folder.mkdir()
        (folder / f"{name}.0").write_bytes(self.file.read_bytes())
        return folder

    def client_tls(self) -> ssl.SSLContext:
        """Return what a session of one's own trusts the CA by."""
        return ssl.create_default_context(cafile=self.file)

    def right(self) -> ssl.SSLContext:
        return server_tls(self.ca.issue_cert(*NAMES))

    def for_another_host(self) -> ssl.SSLContext:
        return server_tls(self.ca.issue_cert("other.example", "192.0.2.1"))

    def expired(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return server_tls(self.ca.issue_cert(*NAMES, not_before=now - timedelta(2), not_after=now - timedelta(1)))

    def not_valid_yet(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return server_tls(self.ca.issue_cert(*NAMES, not_before=now + timedelta(1), not_after=now + timedelta(2)))

    def self_signed(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with self.ca.private_key_pem.tempfile() as key:
            context.load_cert_chain(self.file, key)
        return context


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


WRONG: list[tuple[str, Callable[[Authority, Authority], ssl.SSLContext], str]] = [
    ("is for another host", lambda ours, _: ours.for_another_host(), "it is for another host"),
    ("has expired", lambda ours, _: ours.expired(), "it has expired, or the clock of this machine is wrong"),
    (
        "is not valid yet",
        lambda ours, _: ours.not_valid_yet(),
        "it is not valid yet, or the clock of this machine is wrong",
    ),
    ("is self-signed", lambda _, others: others.self_signed(), "it is self-signed"),
    (
        "was issued by a CA that is not known",
        lambda _, others: others.right(),
        "it was issued by a CA that is not known here",
    ),
]
"""Certificates that are not right: what each is, and what the client says of it; `ours` is a CA that it trusts."""
