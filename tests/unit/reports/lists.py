"""Springest's lists in memory, and a comparison of a manifest with them, for the tests of the reports."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from attrs import define, field

from springest_async.api.decode import Page
from springest_async.bulk import OpenMigration
from springest_async.client import Settings, Springest
from springest_async.errors import ConfigurationError, SpringestError
from springest_async.http.transport import Timeouts
from springest_async.journal.engine import Connection
from springest_async.journal.journal import Journal
from springest_async.journal.ledger import JournalLedger
from springest_async.limits.limiter import Limiter
from springest_async.records import Certificate, Certification, User
from springest_async.reports.reconcile import Reconciliation
from tests.bulk_runs import LATER, ORIGIN, loaded, manifest_of

HEADER = "file;certification_id;email;valid_from;valid_until\n"


def certificate(number: int, email: str | None = "jan@example.org", **changes: Any) -> Certificate:
    values: dict[str, Any] = {"certification_id": 7, "valid_from": date(2026, 1, 31), "created_at": LATER}
    return Certificate(id=number, user=User(email=email) if email else None, **(values | changes))


@define
class Lists:
    """A Springest that lists certificates.

    Attributes:
        certificates: those of certifications that it shows.
        certifications: those that it shows; None if there is no key for them.
        page: how many it lists on a page.
        says_totals: whether it says how long a list is.
        filters: whether it lists only what it is asked for.
        offsets: whether it knows other pages than the first.
        budget: the name of the budget of the client's key; that of `settle` is empty.
        between: called after each page.
        failing: called with each query, and may raise.
        asked: all queries.
    """

    certificates: list[Certificate]
    certifications: Sequence[int] | None = (7, 8)
    page: int = 100
    says_totals: bool = True
    filters: bool = True
    offsets: bool = True
    budget: str = ""
    between: Callable[[], None] = lambda: None
    failing: Callable[[dict[str, Any]], None] = lambda _: None
    asked: list[dict[str, Any]] = field(factory=list)

    def _found(self, query: dict[str, Any]) -> list[Certificate]:
        query = {name: value for name, value in query.items() if value is not None}
        self.asked.append(query)
        self.failing(query)
        since = query.get("created_from", date.min)
        return [
            one
            for one in self.certificates
            if not self.filters
            or (
                query.get("certification_id") in (None, one.certification_id)
                and ("email" not in query or (one.user is not None and one.user.email == query["email"]))
                and (one.created_at is None or one.created_at.date() >= since)
            )
        ]

    async def pages(self, **query: Any) -> AsyncGenerator[Page[Certificate], None]:
        offset, before = 0, set[int]()
        while True:
            found = self._found(query)
            total = len(found) if self.says_totals else None
            records = found[offset : offset + self.page] if self.offsets else found[: self.page]
            new = tuple(one for one in records if one.id not in before)
            yield Page(new, total)
            self.between()
            offset += len(records)
            if not new or (total is not None and offset >= total):
                return
            before = {one.id for one in records}

    async def count(self, **query: Any) -> int | None:
        return len(self._found(query | {"count": True})) if self.says_totals else None

    async def shown(self) -> AsyncGenerator[Certification, None]:
        self.asked.append({"certifications": True})
        self.failing({"certifications": True})
        if self.certifications is None:
            raise ConfigurationError("certifications need their own key")
        for key in self.certifications:
            yield Certification(id=key, name=f"No. {key}")

    def springest(self) -> Springest:
        """Return a client of it, as far as a comparison needs one."""

        class Client:
            origin = ORIGIN
            settings = Settings(timeouts=Timeouts(answer=120.0))
            certificate_pages = staticmethod(self.pages)
            count_certificates = staticmethod(self.count)
            certifications = staticmethod(self.shown)
            limiter = Limiter(ledger=JournalLedger(cast(Journal, None), self.budget))

        return cast("Springest", Client())


@asynccontextmanager
async def sent(folder: Path, *rows: str) -> AsyncIterator[OpenMigration]:
    """Load a manifest of these rows (``a.pdf;7;jan@example.org;2026-01-31;``); none of them is sent yet."""
    async with loaded(manifest_of(folder, HEADER + "\n".join(rows))) as migration:
        yield migration


async def set_times(migration: OpenMigration, at: datetime = LATER) -> None:
    """Let all POSTs be sent at this time."""
    moment = (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000

    def job(connection: Connection) -> None:
        connection.execute("UPDATE certificates SET sent_at = ? WHERE sent_at IS NOT NULL", (int(moment),))
        connection.execute("UPDATE attempts SET sent_at = ?", (int(moment),))

    await migration.journal.run(job)


async def set_ids(migration: OpenMigration, **ids: int) -> None:
    """Let the certificates of these files, without their suffix, have these ids at Springest."""

    def job(connection: Connection) -> None:
        for file, key in ids.items():
            connection.execute(
                "UPDATE certificates SET springest_id = ? WHERE id IN"
                " (SELECT certificate FROM manifest_rows WHERE file = ?)",
                (key, f"{file}.pdf"),
            )

    await migration.journal.run(job)


@asynccontextmanager
async def compared(migration: OpenMigration, lists: Lists) -> AsyncIterator[Reconciliation]:
    """Compare a migration with these lists."""
    async with Reconciliation(migration, lists.springest()) as comparison:
        await comparison.read_rows()
        await comparison.count_requests()
        await comparison.fetch()
        yield comparison


def fails_with(error: SpringestError, **query: Any) -> Callable[[dict[str, Any]], None]:
    """Return what raises an error for queries that have these values."""

    def fail(asked: dict[str, Any]) -> None:
        if query.items() <= asked.items():
            raise error

    return fail
