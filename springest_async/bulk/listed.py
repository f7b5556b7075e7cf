"""Find the rows of a manifest that Springest lists already, so that they are not sent to it a second time.

A row is listed when Springest lists a certificate of the same person, certification and dates, which the journal does
not know as another one. A listed certificate stands for one row only. Springest lists verified certificates only, so
this finds what was stored long ago, by hand or by another program; what this library stores is in its journal.

Nothing here is in memory for each row or for each listed certificate.
"""

import math
from collections.abc import Generator
from contextlib import aclosing, closing
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import frozen

from springest_async.bulk.rows import RowSet
from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.client import PAGE_SIZE, Springest
from springest_async.journal.identity import lookalike
from springest_async.journal.known_files import KnownFiles
from springest_async.manifest.manifest import Fields, Manifest
from springest_async.records import Certificate

_AT_ONCE = 1000  # lines that are written together
_FEW_PEOPLE = 400  # where nobody knows how long the lists are: so many requests may leave at once

_TABLES = (
    "CREATE TABLE people (lower TEXT PRIMARY KEY, email TEXT) WITHOUT ROWID",
    "CREATE TABLE listed (id TEXT PRIMARY KEY, looks BLOB NOT NULL) WITHOUT ROWID",
    "CREATE INDEX listed_looks ON listed (looks)",
    "CREATE TABLE compared (looks BLOB PRIMARY KEY) WITHOUT ROWID",
)


@frozen
class ListedRow:
    """A row that Springest lists already, and its file."""

    number: int
    certification_id: int
    path: Path


@frozen
class _Listed:
    """The fields of a listed certificate, as those of a certificate to send."""

    certification_id: int
    email: str
    valid_from: date
    valid_until: date | None
    conversion_id: None = None


def listed_looks(certificate: Certificate, origin: str) -> bytes | None:
    """Return the `lookalike` of a listed certificate, or None if the list does not say whose it is."""
    if certificate.user is None:
        return None
    fields = _Listed(
        certificate.certification_id, certificate.user.email, certificate.valid_from, certificate.valid_until
    )
    return lookalike(fields, origin)


class ListedCertificates:
    """What Springest lists of the people or the certifications of a manifest.

    Usage::

        with ListedCertificates(manifest, springest.origin, totals.to_send) as listed:
            for _ in listed.read_rows(): ...
            print(await listed.count_requests(springest))
            await listed.fetch(springest)
            for row in listed.rows(known): ...

    Args:
        manifest: the manifest.
        origin: the host.
        to_send: the rows to look for.

    Attributes:
        asked: how many requests have been made so far.
        nameless: how many listed certificates do not say whose they are, so that they stand for no row.
    """

    def __init__(self, manifest: Manifest, origin: str, to_send: RowSet) -> None:
        self.asked = 0
        self.nameless = 0
        self._manifest = manifest
        self._origin = origin
        self._to_send = to_send
        self._certifications: set[int] = set()
        self._totals: dict[int, int | None] = {}
        self._by_person = False
        self._database = TemporaryDatabase(*_TABLES)

    def __enter__(self) -> Self:
        self._database.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.__exit__(kind, error, traceback)

    # --- what to ask for ---

    def read_rows(self) -> Generator[None, None, None]:
        """Read which people and certifications the rows name; this blocks, and yields after each row.

        Raises:
            ManifestError: when a row cannot be read.
        """
        emails: dict[str, str] = {}
        with closing(self._rows()) as rows:
            for _, fields in rows:
                self._certifications.add(fields.certification_id)
                emails.setdefault(fields.email.lower(), fields.email)
                if len(emails) >= _AT_ONCE:
                    self._write_people(emails)
                yield
        self._write_people(emails)

    def _write_people(self, emails: dict[str, str]) -> None:
        self._database.change("INSERT OR IGNORE INTO people VALUES (?, ?)", emails.items())
        emails.clear()

    def _rows(self) -> Generator[tuple[int, Fields], None, None]:
        with closing(iter(self._manifest)) as rows:
            for row in rows:
                if row.number in self._to_send:
                    yield row.number, self._manifest.fields(row)

    async def count_requests(self, springest: Springest) -> int | None:
        """Return how many requests `fetch` needs, or None if Springest does not say how long its lists are.

        It asks for all certificates of each certification, which takes one request to count them and one for every
        hundred, or for those of each person, whichever takes fewer requests.

        Raises:
            SpringestError: as `Springest.certificates`.
        """
        ((people,),) = self._database.select("SELECT count(*) FROM people")
        if people <= len(self._certifications):
            self._by_person = True
            return int(people)
        for certification in sorted(self._certifications):
            self.asked += 1
            self._totals[certification] = await springest.count_certificates(certification_id=certification)
        totals = [total for total in self._totals.values() if total is not None]
        pages = sum(math.ceil(total / PAGE_SIZE) for total in totals)
        if len(totals) < len(self._totals):
            self._by_person = people <= _FEW_PEOPLE
            return int(people) if self._by_person else None
        self._by_person = people < pages
        return int(min(people, pages))

    # --- asking ---

    async def fetch(self, springest: Springest) -> None:
        """Fetch the lists, as fast as the limit of all requests in an hour allows.

        Raises:
            SpringestError: as `Springest.certificates`.
        """
        if self._by_person:
            with closing(self._database.select("SELECT email FROM people")) as people:
                for (email,) in people:
                    await self._list(springest, email=email)
        else:
            for certification in sorted(self._certifications):
                if self._totals[certification] != 0:
                    await self._list(springest, certification_id=certification)

    async def _list(
        self, springest: Springest, *, email: str | None = None, certification_id: int | None = None
    ) -> None:
        page: list[tuple[str, bytes]] = []
        count = 0
        async with aclosing(springest.certificates(email=email, certification_id=certification_id)) as listed:
            async for certificate in listed:
                count += 1
                if (looks := listed_looks(certificate, self._origin)) is None:
                    self.nameless += 1
                else:
                    page.append((str(certificate.id), looks))
                if len(page) >= PAGE_SIZE:
                    self._write_listed(page)
        self._write_listed(page)
        self.asked += max(1, math.ceil(count / PAGE_SIZE))

    def _write_listed(self, page: list[tuple[str, bytes]]) -> None:
        # A server that ignores the filter lists a certificate several times: it is one all the same.
        self._database.change("INSERT OR IGNORE INTO listed VALUES (?, ?)", page)
        page.clear()

    # --- comparing ---

    def rows(self, known: KnownFiles | None) -> Generator[ListedRow | None, None, None]:
        """Yield the rows that are listed, and None for each other row to send; this blocks.

        Args:
            known: the journal, which knows that some listed certificates are of other rows.

        Raises:
            ManifestError: when a row cannot be read.
            JournalError: when the journal cannot be read.
        """
        with closing(self._rows()) as rows:
            for number, fields in rows:
                looks = lookalike(fields, self._origin)
                if self._is_listed(looks) and self._take(looks, known):
                    yield ListedRow(number, fields.certification_id, self._manifest.path_of(fields.file))
                else:
                    yield None

    def _is_listed(self, looks: bytes) -> bool:
        return any(self._database.select("SELECT 1 FROM listed WHERE looks = ? LIMIT 1", looks))

    def _take(self, looks: bytes, known: KnownFiles | None) -> bool:
        """Take one of the listed certificates of these looks, and return whether there was one left."""
        if known is not None and self._database.change("INSERT OR IGNORE INTO compared VALUES (?)", [(looks,)]):
            ids = known.listed_as(looks)
            self._database.change("DELETE FROM listed WHERE id = ?", [(str(known_id),) for known_id in ids])
            for _ in range(ids.count(None)):
                self._remove_one(looks)  # which may be any of the others
        return self._remove_one(looks)

    def _remove_one(self, looks: bytes) -> bool:
        statement = "DELETE FROM listed WHERE id = (SELECT id FROM listed WHERE looks = ? LIMIT 1)"
        return bool(self._database.change(statement, [(looks,)]))
