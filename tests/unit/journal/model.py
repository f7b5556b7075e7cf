"""Makers of what the tests of the journal need, and a clock that they set."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from attrs import define, frozen

from springest_async.journal import certificates
from springest_async.journal.loading import ManifestRow
from springest_async.journal.migrations import Source
from springest_async.journal.records import Intent, KnownCertificate, Outcome, State
from springest_async.journal.sqlite import SQLiteConnection, SQLiteEngine

ORIGIN = "https://api.springest.nl"
LEASE = 60.0
SHA256 = bytes(range(32))


@define
class Clock:
    """The journal's clock of this machine."""

    now: float = 100_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def set_clock(clock: Clock) -> Iterator[Clock]:
    """Let the journal use this clock."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("sqlite", "journal"):
            patch.setattr(f"springest_async.journal.{module}.elapsed", clock)
        yield clock


def opened(path: Path) -> SQLiteConnection:
    """Open or make a journal, which does not wait for the disk: these tests cut no power."""
    connection = SQLiteEngine(path).connect(create=True)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


@frozen(kw_only=True)
class Fields:
    """The fields of a certificate."""

    certification_id: int = 7
    email: str = "jo@example.org"
    valid_from: date = date(2026, 1, 31)
    valid_until: date | None = date(2027, 1, 31)
    conversion_id: int | None = None


@define
class Worker:
    """A worker of a journal, which does one thing in one transaction."""

    connection: SQLiteConnection
    name: str

    def renew(self, lease: float = LEASE, migration: int | None = None) -> None:
        """Extend its lease."""
        with self.connection.transaction():
            certificates.renew(self.connection, self.name, f"machine of {self.name}", self.name, lease, migration)

    def leave(self) -> None:
        """End it."""
        with self.connection.transaction():
            certificates.leave(self.connection, self.name)

    def claim(
        self, fields: Fields | None = None, sha256: bytes = SHA256, *, claim: str = "", send_again: bool = False
    ) -> KnownCertificate:
        """Claim a certificate; by default the claim has the name of the worker."""
        with self.connection.transaction():
            return certificates.claim(
                self.connection,
                fields or Fields(),
                ORIGIN,
                sha256,
                claim=claim or self.name,
                worker=self.name,
                send_again=send_again,
            )

    def begin(self, certificate: int, claim: str = "", attempt: str = "") -> str:
        """Begin a POST, and return the name of the attempt."""
        intent = Intent(id=attempt or uuid4().hex, certificate=certificate, claim=claim or self.name)
        with self.connection.transaction():
            now = self.connection.now()
            certificates.begin(
                self.connection, intent, worker=self.name, budget="b", counted_until=now + 30, back_at=now + 90
            )
        return intent.id

    def send(self, fields: Fields | None = None, sha256: bytes = SHA256) -> tuple[int, str]:
        """Claim a certificate and begin a POST of it; return its key and the name of the attempt."""
        known = self.claim(fields, sha256)
        return known.id, self.begin(known.id)

    def end(self, attempt: str, state: State, springest_id: int | None = None, reason: str = "") -> None:
        """Record what became of a POST."""
        with self.connection.transaction():
            certificates.end(
                self.connection, Outcome(attempt=attempt, state=state, springest_id=springest_id, reason=reason)
            )

    def release(self, certificate: int, state: State = State.WAITING, reason: str = "", claim: str = "") -> None:
        """Give up a claim."""
        with self.connection.transaction():
            certificates.release(self.connection, certificate, claim or self.name, state, reason)

    def take_over(self) -> None:
        """Take over what dead workers had."""
        with self.connection.transaction():
            certificates.take_over(self.connection)

    def claim_doubt(self, certificate: int, claim: str = "") -> KnownCertificate | None:
        """Become the settler of a certificate, if nobody else is."""
        with self.connection.transaction():
            return certificates.claim_doubt(self.connection, certificate, claim=claim or uuid4().hex, worker=self.name)

    def settle(
        self, certificate: KnownCertificate, state: State, springest_id: int | None = None, reason: str = ""
    ) -> KnownCertificate:
        """Record what Springest said of it."""
        with self.connection.transaction():
            return certificates.settled(self.connection, certificate, state, springest_id=springest_id, reason=reason)

    def read(self, certificate: int) -> KnownCertificate:
        """Return a certificate as it is."""
        with self.connection.snapshot():
            return certificates.read(self.connection, certificate)


def source(folder: Path, content: bytes = b"manifest", *, machine: str = "m", name: str = "list.csv") -> Source:
    """Make a manifest in a folder, by what it contains."""
    return Source(origin=ORIGIN, sha256=content.ljust(32)[:32], path=folder / name, folder=folder, machine=machine)


def rows(count: int, **changes: Any) -> list[ManifestRow]:
    """Make so many rows: row 2 has 2.pdf and person2@example.org, and so on."""
    return [row(number, **changes) for number in range(2, count + 2)]


def row(number: int, file: str = "", **changes: Any) -> ManifestRow:
    """Make a row."""
    values: dict[str, Any] = {
        "certification_id": 7,
        "email": f"person{number}@example.org",
        "valid_from": date(2026, 1, 31),
        "valid_until": None,
        "conversion_id": None,
    }
    return ManifestRow(number=number, file=file or f"{number}.pdf", **values | changes)
