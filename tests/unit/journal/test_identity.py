"""What makes two certificates the same, and what only looks the same in Springest's lists."""

import unicodedata
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from springest_async.journal.identity import identity, lookalike, place, row_digests

from .model import ORIGIN, SHA256, Fields

# Addresses with letters whose case and composition are special.
LETTERS = (
    "abkéÅßİŉᾳΐøﬁ.@" + "\N{LATIN SMALL LETTER DOTLESS I}\N{LATIN SMALL LETTER LONG S}\u0301\u0345\u0327\u1100\u1161"
)
EMAILS = st.text(LETTERS, min_size=1)
DAYS = st.dates(date(2020, 1, 1), date(2030, 1, 1))
FIELDS = st.builds(
    Fields,
    certification_id=st.integers(1, 99),
    email=EMAILS,
    valid_from=DAYS,
    valid_until=st.none() | DAYS,
    conversion_id=st.none() | st.integers(1, 99),
)


@given(FIELDS, st.sampled_from(["NFC", "NFD"]))
def test_the_form_of_an_address_changes_nothing(fields: Fields, form: Literal["NFC", "NFD"]) -> None:
    other = evolve(fields, email=unicodedata.normalize(form, fields.email))

    assert identity(other, ORIGIN, SHA256) == identity(fields, ORIGIN, SHA256)
    assert lookalike(other, ORIGIN) == lookalike(fields, ORIGIN)
    assert row_digests(other, ORIGIN, "a.pdf")[0] == row_digests(fields, ORIGIN, "a.pdf")[0]


@given(FIELDS)
def test_the_case_of_an_address_changes_nothing(fields: Fields) -> None:
    other = evolve(fields, email=unicodedata.normalize("NFD", fields.email).casefold())

    assert identity(other, ORIGIN, SHA256) == identity(fields, ORIGIN, SHA256)
    assert lookalike(other, ORIGIN) == lookalike(fields, ORIGIN)


def test_the_case_of_an_ascii_address_changes_nothing() -> None:
    names = ["jo@example.org", "JO@EXAMPLE.ORG", "Jo@Example.org"]

    assert len({identity(Fields(email=name), ORIGIN, SHA256) for name in names}) == 1


@given(FIELDS, FIELDS, st.binary(min_size=32, max_size=32))
def test_identities_are_the_same_only_for_the_same(one: Fields, other: Fields, sha256: bytes) -> None:
    def key(fields: Fields, content: bytes) -> object:
        email = unicodedata.normalize("NFC", unicodedata.normalize("NFD", fields.email).casefold())
        return evolve(fields, email=email), content

    same = key(one, SHA256) == key(other, sha256)

    assert (identity(one, ORIGIN, SHA256) == identity(other, ORIGIN, sha256)) is same


@given(FIELDS)
def test_each_field_is_part_of_the_identity(fields: Fields) -> None:
    others = [
        evolve(fields, certification_id=fields.certification_id + 1),
        evolve(fields, email="x" + fields.email),
        evolve(fields, valid_from=fields.valid_from + timedelta(1)),
        evolve(fields, valid_until=None if fields.valid_until else date(2026, 1, 1)),
        evolve(fields, conversion_id=None if fields.conversion_id else 5),
    ]
    digests = [identity(other, ORIGIN, SHA256) for other in [fields, *others]]
    digests += [identity(fields, "https://other.example", SHA256), identity(fields, ORIGIN, bytes(32))]

    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {32}


@given(FIELDS)
def test_lookalikes_differ_in_file_and_conversion_only(fields: Fields) -> None:
    same = evolve(fields, conversion_id=None if fields.conversion_id else 5)
    others = [
        evolve(fields, certification_id=fields.certification_id + 1),
        evolve(fields, email="x" + fields.email),
        evolve(fields, valid_from=fields.valid_from + timedelta(1)),
        evolve(fields, valid_until=None if fields.valid_until else date(2026, 1, 1)),
    ]

    assert lookalike(same, ORIGIN) == lookalike(fields, ORIGIN)
    assert row_digests(fields, ORIGIN, "a.pdf")[1] == lookalike(fields, ORIGIN)
    assert lookalike(fields, ORIGIN) not in {lookalike(other, ORIGIN) for other in others}
    assert lookalike(fields, ORIGIN) != lookalike(fields, "https://other.example")


def test_a_row_is_known_by_its_file_name_too() -> None:
    assert row_digests(Fields(), ORIGIN, "a.pdf")[0] != row_digests(Fields(), ORIGIN, "A.pdf")[0]


def test_any_file_name_has_a_digest() -> None:
    names = ["a\udcff.pdf", "a\ud800.pdf", "a\0.pdf", "", "a\n.pdf"]

    assert len({row_digests(Fields(), ORIGIN, name)[0] for name in names}) == len(names)


def test_a_place_is_a_path_on_a_machine(tmp_path: Path) -> None:
    digests = {place("m", b"/a"), place("m", b"/b"), place("n", b"/a"), place("m", b"/a\xff")}

    assert len(digests) == 4
