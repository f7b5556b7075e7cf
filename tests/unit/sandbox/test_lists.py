"""The lists: filters, pages, and verified certifications only."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.sandbox.certificates import SandboxCertificate, SandboxCertification, ValidationError
from springest_async.sandbox.lists import list_certificates, list_certifications

CERTIFICATIONS = {
    1: SandboxCertification(id=1, name="First aid", description="Basic"),
    2: SandboxCertification(id=2, name="Forklift driver", requires_valid_until=True),
    3: SandboxCertification(id=3, name="Working at height", verified=False),
}


def certificate(
    number: int, certification_id: int = 1, email: str = "jan@example.com", day: int = 1
) -> SandboxCertificate:
    return SandboxCertificate(
        id=number,
        certification_id=certification_id,
        email=email,
        valid_from=date(2024, 1, 1),
        valid_until=None,
        conversion_id=None,
        created_at=datetime(2024, 5, day, 12, tzinfo=UTC),
    )


CERTIFICATES = [
    certificate(1),
    certificate(2, certification_id=2, day=2),
    certificate(3, certification_id=3),
    certificate(4, email="Piet@example.com", day=3),
]


def ids(query: Mapping[str, str]) -> list[int]:
    page = cast("dict[str, Any]", list_certificates(CERTIFICATES, CERTIFICATIONS, query))
    return [shown["id"] for shown in page["certificates"]]


@pytest.mark.parametrize(
    ("expected", "query"),
    [
        ([1, 2, 4], {}),
        ([1, 2, 4], {"email": "", "certification_id": "", "created_from": ""}),
        ([1, 2], {"email": "JAN@example.com"}),
        ([2], {"certification_id": "2"}),
        ([], {"certification_id": "3"}),
        ([], {"certification_id": "99"}),
        ([2, 4], {"created_from": "2024-05-02"}),
        ([4], {"created_from": "2024-05-02", "email": "piet@example.com"}),
        ([2], {"size": "1", "offset": "1"}),
        ([], {"offset": "3"}),
    ],
)
def test_filters_and_pages(expected: list[int], query: dict[str, str]) -> None:
    assert expected == ids(query)


def test_the_fields_of_a_certificate() -> None:
    expected = {
        "meta": {"results": 3, "offset": 0},
        "certificates": [
            {
                "id": 1,
                "name": "First aid",
                "description": "Basic",
                "certification_id": 1,
                "valid_from": date(2024, 1, 1),
                "valid_until": None,
                "status": "verified",
                "created_at": datetime(2024, 5, 1, 12, tzinfo=UTC),
                "user": {"email": "jan@example.com", "external_id": None},
            }
        ],
    }
    assert expected == list_certificates(CERTIFICATES, CERTIFICATIONS, {"size": "1"})


def test_certifications_are_found_by_a_part_of_their_name() -> None:
    expected = {
        "meta": {"results": 1, "offset": 0},
        "certifications": [{"id": 2, "name": "Forklift driver", "description": None, "requires_valid_until": True}],
    }
    assert expected == list_certifications(CERTIFICATIONS.values(), {"name": "FORK"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("certification_id", "first"),
        ("created_from", "01-05-2024"),
        ("size", "0"),
        ("size", "-1"),
        ("size", "many"),
        ("offset", "-1"),
    ],
)
def test_a_bad_query_is_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        list_certificates(CERTIFICATES, CERTIFICATIONS, {name: value})

    assert [name] == list(caught.value.faults)


@given(st.integers(0, 250), st.integers(1, 120))
def test_pages_end_to_end_make_the_whole_list(results: int, size: int) -> None:
    stored = [certificate(number) for number in range(results)]
    seen: list[int] = []

    while True:
        query = {"size": str(size), "offset": str(len(seen))}
        page = cast("dict[str, Any]", list_certificates(stored, CERTIFICATIONS, query))
        assert {"results": results, "offset": len(seen)} == page["meta"]
        assert len(page["certificates"]) <= min(size, 100)
        if not page["certificates"]:
            break
        seen += [shown["id"] for shown in page["certificates"]]

    assert list(range(results)) == seen
