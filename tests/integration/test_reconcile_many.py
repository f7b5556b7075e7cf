"""A comparison with Springest's lists of a hundred thousand certificates: few requests, flat memory, no mistakes."""

import random
import resource
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web

from springest_async import Journal, Settings, Springest
from springest_async.bulk import Manifest, load_manifest
from springest_async.journal.certificates import microseconds
from springest_async.journal.engine import Connection
from springest_async.journal.ledger import JournalLedger
from springest_async.reports.matching import Kind
from springest_async.reports.reconcile import Reconciliation
from springest_async.sandbox import Sandbox, SandboxCertification
from springest_async.sandbox.certificates import SandboxCertificate

CERTIFICATIONS = tuple(SandboxCertification(id=key, name=f"No. {key}", verified=key < 8) for key in range(1, 9))
SENT_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIRST = 2  # the first row
EACH = 20  # differences of each kind


@attrs.define(kw_only=True, eq=False)
class QuickSandbox(Sandbox):
    """A sandbox that need not look at all certificates for each page of one certification."""

    certifications: Any = attrs.field(default=CERTIFICATIONS, on_setattr=attrs.setters.frozen, repr=False)
    _by_certification: dict[str, list[SandboxCertificate]] = attrs.field(init=False, factory=dict)

    def fill(self, certificates: Iterable[SandboxCertificate]) -> None:
        for one in certificates:
            self._certificates.append(one)
            self._by_certification.setdefault(str(one.certification_id), []).append(one)

    async def _get_certificates(self, request: web.Request) -> web.Response:
        everything = self._certificates
        self._certificates = self._by_certification.get(request.query.get("certification_id", ""), everything)
        try:
            return await super()._get_certificates(request)
        finally:
            self._certificates = everything


def certificate(row: int, **changes: Any) -> SandboxCertificate:
    values: dict[str, Any] = {
        "id": row,
        "certification_id": certification_of(row),
        "email": f"employee{row}@example.org",
        "valid_from": date(2026, 1, 30),
        "valid_until": None,
        "conversion_id": None,
        "created_at": SENT_AT,
    }
    return SandboxCertificate(**(values | changes))


def certification_of(row: int) -> int:
    """Return the certification of a row; one row in five hundred has the one that is not verified."""
    return 8 if row % 500 == 0 else 1 + row % 7


def manifest_of(folder: Path, count: int) -> Manifest:
    path = folder / "certificates.csv"
    with path.open("w") as stream:
        stream.write("file,certification_id,email,valid_from\n")
        for row in range(FIRST, FIRST + count):
            stream.write(f"{row}.pdf,{certification_of(row)},employee{row}@example.org,2026-01-30\n")
    return Manifest.open(path)


def store_all(connection: Connection, origin: str, budget: str) -> None:
    """Let all rows be stored; of one in three, the journal does not know Springest's id."""
    at = microseconds(SENT_AT)
    connection.execute(
        "INSERT INTO certificates (identity, lookalike, origin, certification_id, email, valid_from, state, attempts,"
        " attempt, springest_id, sent_at, answered_at) SELECT fields, lookalike, ?, certification_id, email,"
        " valid_from, 'stored', 1, 'attempt ' || number, CASE WHEN number % 3 = 0 THEN NULL ELSE number END, ?, ?"
        " FROM manifest_rows",
        (origin, at, at),
    )
    connection.execute(
        "UPDATE manifest_rows SET state = 'stored', certificate = (SELECT id FROM certificates WHERE identity = fields)"
    )
    connection.execute(
        "INSERT INTO attempts (id, certificate, budget, worker, back_at, sent_at, outcome)"
        " SELECT attempt, id, ?, 'a worker', 0, sent_at, 'stored' FROM certificates",
        (budget,),
    )


def plant(listed: dict[int, SandboxCertificate]) -> dict[tuple[int | None, str], int]:
    """Change what is listed, by row, and return what is to be found of these rows."""
    chance = random.Random(len(listed))
    shown = [row for row in listed if certification_of(row) != 8]
    with_id = chance.sample([row for row in shown if row % 3], 2 * EACH)
    others = chance.sample(sorted(set(shown) - set(with_id)), 3 * EACH)
    stranger = certificate(1, email="x@example.org")
    found: dict[tuple[int | None, str], int] = {}
    changes: list[tuple[list[int], Kind, Callable[[int], object]]] = [
        (others[:EACH], Kind.MISSING, listed.pop),
        (others[EACH : 2 * EACH], Kind.OTHER_DATES, lambda row: _change(listed, row, valid_until=date(2030, 1, 1))),
        (others[2 * EACH :], Kind.DOUBLED, lambda row: _add(listed, row + 10_000_000, listed[row])),
        (with_id[:EACH], Kind.OTHER_PERSON, lambda row: _change(listed, row, email=f"new{row}@example.org")),
        (with_id[EACH:], Kind.NOT_OURS, lambda row: _add(listed, row + 20_000_000, stranger)),
    ]
    for rows, kind, change in changes:
        for row in rows:
            change(row)
            key = (None if kind is Kind.NOT_OURS else row, kind.value)
            found[key] = found.get(key, 0) + 1
    return found


def _change(listed: dict[int, SandboxCertificate], row: int, **changes: Any) -> None:
    listed[row] = attrs.evolve(listed[row], **changes)


def _add(listed: dict[int, SandboxCertificate], key: int, like: SandboxCertificate) -> None:
    listed[key] = attrs.evolve(like, id=key)


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.soak)])
async def test_every_planted_difference_among_many_is_found(tmp_path: Path, count: int) -> None:
    listed = {row: certificate(row) for row in range(FIRST, FIRST + count)}
    planted = plant(listed)
    async with (
        QuickSandbox() as sandbox,
        Journal(tmp_path / "a journal.sqlite3") as journal,
        Springest(
            api_key=sandbox.api_key,
            certifications_api_key=sandbox.certifications_api_key,
            host=sandbox.origin,
            settings=Settings(requests_per_hour=1_000_000),
            journal=journal,
        ) as springest,
    ):
        sandbox.fill(listed.values())
        migration, _ = await load_manifest(journal, manifest_of(tmp_path, count), sandbox.origin)
        assert isinstance(springest.limiter.ledger, JournalLedger)
        budget = springest.limiter.ledger.budget
        await journal.run(lambda connection: store_all(connection, sandbox.origin, budget))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with Reconciliation(migration, springest) as comparison:
            await comparison.read_rows()
            said = await comparison.count_requests()
            await comparison.fetch()
            assert comparison.asked <= said <= count / 100 + 10
            await comparison.look_for_missing()
            found = Counter(
                (one.row, one.kind.value) for one in comparison.findings(*(kind for kind in Kind if kind.is_difference))
            )
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024  # MB

    assert found == planted
    assert comparison.not_compared == []
    unseen = sum(certification_of(row) == 8 for row in range(FIRST, FIRST + count))
    differ = sum(rows for (row, kind), rows in planted.items() if row is not None and kind != Kind.DOUBLED.value)
    assert comparison.counts[Kind.NOT_SHOWN] == unseen
    assert comparison.counts[Kind.SHOWN] == count - unseen - differ
    assert comparison.asked <= said + EACH <= 1_100
    assert more < 64
