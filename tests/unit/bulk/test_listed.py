"""Which rows of a manifest Springest lists already."""

from collections.abc import AsyncGenerator, Iterable
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import define, field

from springest_async.bulk.listed import ListedCertificates, listed_looks
from springest_async.bulk.plan import leave_out_listed
from springest_async.bulk.rows import RowSet
from springest_async.bulk.totals import Totals
from springest_async.client import Springest
from springest_async.journal.identity import lookalike
from springest_async.journal.known_files import KnownFiles
from springest_async.manifest.manifest import Manifest
from springest_async.records import Certificate, User
from tests.bulk_runs import manifest_of

ORIGIN = "https://api.springest.nl"
HEADER = "file;certification_id;email;valid_from;valid_until\n"


def manifest(folder: Path, *rows: str) -> Manifest:
    for row in rows:
        (folder / row.partition(";")[0]).write_bytes(b"%PDF-1.4")
    return manifest_of(folder, HEADER + "\n".join(rows))


def certificate(number: int, email: str | None = "jan@example.org", **changes: Any) -> Certificate:
    values: dict[str, Any] = {"certification_id": 7, "valid_from": date(2026, 1, 31), "valid_until": None}
    return Certificate(id=number, user=User(email=email) if email else None, **(values | changes))


@define
class Lists:
    """A Springest that lists certificates, and what it was asked for."""

    certificates_of: list[Certificate]
    says_totals: bool = True
    filters: bool = True
    asked: list[dict[str, Any]] = field(factory=list)

    def _found(self, **query: Any) -> list[Certificate]:
        self.asked.append({name: value for name, value in query.items() if value is not None})
        return [
            one
            for one in self.certificates_of
            if not self.filters
            or (
                (query.get("certification_id") in (None, one.certification_id))
                and (query.get("email") is None or (one.user is not None and one.user.email == query["email"]))
            )
        ]

    async def count_certificates(self, **query: Any) -> int | None:
        found = self._found(count=True, **query)
        return len(found) if self.says_totals else None

    async def certificates(self, **query: Any) -> AsyncGenerator[Certificate, None]:
        for one in self._found(**query):
            yield one


class Known:
    """A journal that knows certificates by what Springest lists of them."""

    def __init__(self, *ids: int | None) -> None:
        self.ids = list(ids)

    def listed_as(self, _: bytes) -> list[int | None]:
        return self.ids


async def found(
    manifest: Manifest, lists: Lists, known: Known | None = None, rows: Iterable[int] = range(2, 1000)
) -> tuple[list[int], int | None]:
    """Return the rows that are listed, and how many requests that takes."""
    to_send = RowSet()
    for row in rows:
        to_send.add(row)
    with ListedCertificates(manifest, ORIGIN, to_send) as listed:
        for _ in listed.read_rows():
            pass
        requests = await listed.count_requests(cast("Springest", lists))
        await listed.fetch(cast("Springest", lists))
        return [row.number for row in listed.rows(cast("KnownFiles | None", known)) if row], requests


async def test_a_row_is_listed_by_person_certification_and_dates(tmp_path: Path) -> None:
    rows = manifest(
        tmp_path,
        "a.pdf;7;Jan@Example.org;2026-01-31;",
        "b.pdf;8;jan@example.org;2026-01-31;",
        "c.pdf;7;piet@example.org;2026-01-31;",
        "d.pdf;7;jan@example.org;2026-02-01;",
        "e.pdf;7;jan@example.org;2026-01-31;2027-01-31",
        "f.pdf;7;an@example.org;2026-01-31;2027-01-31",
    )
    end = date(2027, 1, 31)
    lists = Lists([certificate(1), certificate(2, "an@example.org", valid_until=end), certificate(3, "x@example.org")])
    assert (await found(rows, lists))[0] == [2, 7]


async def test_a_listed_certificate_stands_for_one_row(tmp_path: Path) -> None:
    rows = manifest(tmp_path, *(f"{name}.pdf;7;jan@example.org;2026-01-31;" for name in "abc"))
    assert (await found(rows, Lists([certificate(1), certificate(2)])))[0] == [2, 3]


async def test_rows_that_are_not_to_send_stand_for_none(tmp_path: Path) -> None:
    rows = manifest(tmp_path, *(f"{name}.pdf;7;jan@example.org;2026-01-31;" for name in "abc"))
    assert (await found(rows, Lists([certificate(1)]), rows=[4]))[0] == [4]


@pytest.mark.parametrize(
    ("known", "listed"),
    [([], [2, 3]), ([1], [2]), ([1, 2], []), ([None], [2]), ([None, 1], []), ([1, 99], [2]), ([None] * 3, [])],
)
async def test_what_the_journal_knows_is_another_certificate(
    known: list[int | None], listed: list[int], tmp_path: Path
) -> None:
    rows = manifest(tmp_path, *(f"{name}.pdf;7;jan@example.org;2026-01-31;" for name in "abc"))
    assert (await found(rows, Lists([certificate(1), certificate(2)]), Known(*known)))[0] == listed


async def test_few_people_are_asked_for_one_by_one(tmp_path: Path) -> None:
    rows = manifest(tmp_path, "a.pdf;7;Jan@example.org;2026-01-31;", "b.pdf;8;jan@example.org;2026-01-31;")
    lists = Lists([])
    assert await found(rows, lists) == ([], 1)
    assert lists.asked == [{"email": "Jan@example.org"}]


async def test_many_people_are_asked_for_by_certification(tmp_path: Path) -> None:
    people = [f"{n}.pdf;{7 + n % 2};employee{n}@example.org;2026-01-31;" for n in range(6)]
    lists = Lists(
        [certificate(n, f"x{n}@example.org") for n in range(101)] + [certificate(900, "employee2@example.org")]
    )
    assert await found(manifest(tmp_path, *people), lists) == ([4], 2)
    assert lists.asked == [
        {"count": True, "certification_id": 7},
        {"count": True, "certification_id": 8},
        {"certification_id": 7},
    ]


async def test_people_are_asked_for_where_lists_are_longer(tmp_path: Path) -> None:
    people = [f"{n}.pdf;7;employee{n}@example.org;2026-01-31;" for n in range(2)]
    lists = Lists([certificate(n, f"x{n}@example.org") for n in range(301)])
    assert await found(manifest(tmp_path, *people), lists) == ([], 2)
    assert lists.asked[1:] == [{"email": "employee0@example.org"}, {"email": "employee1@example.org"}]


@pytest.mark.parametrize(("people", "requests"), [(3, 3), (401, None)])
async def test_a_list_of_unknown_length_is_asked_for(people: int, requests: int | None, tmp_path: Path) -> None:
    rows = [f"a.pdf;7;employee{n}@example.org;2026-01-31;" for n in range(people)]
    lists = Lists([certificate(5, "employee1@example.org")], says_totals=False)
    assert await found(manifest(tmp_path, *rows), lists) == ([3], requests)


async def test_a_server_that_ignores_filters_lists_nothing_twice(tmp_path: Path) -> None:
    rows = [f"a.pdf;7;{name}@example.org;2026-01-31;" for name in ("an", "jan", "jan")]
    lists = Lists([certificate(1), certificate(2, "x@example.org")], filters=False, says_totals=False)
    assert (await found(manifest(tmp_path, *rows), lists))[0] == [3]


async def test_a_certificate_of_nobody_stands_for_no_row(tmp_path: Path) -> None:
    rows = manifest(tmp_path, "a.pdf;7;jan@example.org;2026-01-31;")
    with ListedCertificates(rows, ORIGIN, to_send := RowSet()) as listed:
        to_send.add(2)
        list(listed.read_rows())
        lists = cast("Springest", Lists([certificate(1, None)], filters=False))
        await listed.count_requests(lists)
        await listed.fetch(lists)
        assert list(listed.rows(None)) == [None]
        assert listed.nameless == 1


async def test_listed_rows_are_left_out_of_the_totals(tmp_path: Path) -> None:
    rows = manifest(tmp_path, "a.pdf;7;jan@example.org;2026-01-31;", "b.pdf;7;an@example.org;2026-01-31;")
    totals = Totals(rows=2)
    for row in (2, 3):
        totals.add(row, 7, 8)
    with ListedCertificates(rows, ORIGIN, totals.to_send) as listed:
        list(listed.read_rows())
        lists = cast("Springest", Lists([certificate(1)]))
        await listed.count_requests(lists)
        await listed.fetch(lists)
        left_out = RowSet()
        assert len(list(leave_out_listed(listed, totals, None, left_out))) == 2
    assert (list(left_out), list(totals.to_send), totals.size) == ([2], [3], 8)
    assert totals.certifications == {7: 1}


def test_looks_are_those_of_the_journal(tmp_path: Path) -> None:
    rows = manifest(tmp_path, "a.pdf;7;JAN@example.org;2026-01-31;")
    (row,) = rows
    assert listed_looks(certificate(1), ORIGIN) == lookalike(rows.fields(row), ORIGIN)
    assert listed_looks(certificate(1, None), ORIGIN) is None
