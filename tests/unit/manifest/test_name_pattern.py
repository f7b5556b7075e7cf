"""What the names of files say: what fits a pattern in one way is known, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.manifest.name_pattern import NameParts, NamePattern, NoFitError, PatternError

USUAL = "{certification_id}_{email}_{valid_from}.pdf"


def read(pattern: str, name: str) -> NameParts:
    return NamePattern.of(pattern).read(name)


def values(pattern: str, name: str) -> dict[str, str]:
    parts = read(pattern, name)
    assert parts.unclear == {}
    return dict(parts.values)


@pytest.mark.parametrize(
    ("name", "email", "valid_from"),
    [
        ("7_jan@example.org_2026-01-31.pdf", "jan@example.org", "2026-01-31"),
        ("7_jan@example.org_2026-01-31.PDF", "jan@example.org", "2026-01-31"),
        ("7_jan_de_vries@example.org_2026_1_31.pdf", "jan_de_vries@example.org", "2026-01-31"),
        ("7_jan@example.org_20260131.pdf", "jan@example.org", "2026-01-31"),
        ("7_jan@example.org_31012026.pdf", "jan@example.org", "31/01/2026"),
        ("7_jan@example.org_31.01.2026.pdf", "jan@example.org", "2026-01-31"),
        ("7_jan@example.org_31-01-2026.pdf", "jan@example.org", "31/01/2026"),
        ("7_jan@example.org_05_06_2026.pdf", "jan@example.org", "05/06/2026"),
        ("7_jan@example.org_06-06-2026.pdf", "jan@example.org", "2026-06-06"),
        ("7_jan@example.org_31_januari_2026.pdf", "jan@example.org", "2026-01-31"),
        ("7_jan@example.org_31-Jan-2026.pdf", "jan@example.org", "2026-01-31"),
        ("2025/zomer/7_jan@example.org_2026-01-31.pdf", "jan@example.org", "2026-01-31"),
    ],
)
def test_a_name_is_read_by_the_usual_pattern(name: str, email: str, valid_from: str) -> None:
    assert values(USUAL, name) == {"certification_id": "7", "email": email, "valid_from": valid_from}


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (
            "{certification}/{user}",
            "2025/VCA Basis/Jan Jansen.pdf",
            {"certification": "VCA Basis", "user": "Jan Jansen"},
        ),
        ("{user_id}{valid_from}", "220250131.pdf", {"user_id": "2", "valid_from": "2025-01-31"}),
        ("{name} ({email})", "Jan (nr 2) (jan@example.org).pdf", {"name": "Jan (nr 2)", "email": "jan@example.org"}),
        ("diploma {user_id}", "DIPLOMA 12.pdf", {"user_id": "12"}),
        ("{ User_ID }-{valid_until}.pdf", "3-2026-01-31.pdf", {"user_id": "3", "valid_until": "2026-01-31"}),
        (
            "{E-mailadres}_{geldig tot}",
            "a@example.org_2026-01-31.pdf",
            {"email": "a@example.org", "valid_until": "2026-01-31"},
        ),
        ("René {user_id}", "Rene\u0301 12.pdf", {"user_id": "12"}),
        (
            "{certification}_{user_id}_{valid_until}.pdf",
            "First_Aid_2417_2019-12-31.pdf",
            {"certification": "First_Aid", "user_id": "2417", "valid_until": "2019-12-31"},
        ),
    ],
)
def test_a_pattern_finds_its_parts(pattern: str, name: str, expected: dict[str, str]) -> None:
    assert values(pattern, name) == expected


def test_what_can_be_read_in_two_ways_is_unclear() -> None:
    parts = read("{certification}_{user}_{valid_from}", "First_Aid_2417_2019-12-31.pdf")

    assert parts.values == {"valid_from": "2019-12-31"}
    assert parts.unclear == {"certification": ("First", "First_Aid"), "user": ("Aid_2417", "2417")}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x_jan@example.org_2026-01-31.pdf", "there is no number where {certification_id} should be"),
        ("0_jan@example.org_2026-01-31.pdf", "there is no number where {certification_id} should be"),
        ("7_jan@example_2026-01-31.pdf", "there is no email address where {email} should be"),
        ("7_jan@example.org_2026-02-31.pdf", "there is no date where {valid_from} should be"),
        ("7_jan@example.org_26-02-01.pdf", "there is no date where {valid_from} should be"),
        ("7_jan@example.org_99999999.pdf", "there is no date where {valid_from} should be"),
        ("7_jan@example.org_2026-01-31 (2).pdf", "there is no date where {valid_from} should be"),
        ("7.pdf", "there is no number where {certification_id} should be"),
    ],
)
def test_a_name_that_does_not_fit_says_where(name: str, reason: str) -> None:
    with pytest.raises(NoFitError) as caught:
        read(USUAL, name)

    assert str(caught.value) == reason


def test_missing_text_between_parts_is_named() -> None:
    with pytest.raises(NoFitError, match="'VCA ' is not where it should be"):
        read("VCA {user_id}", "BHV 12.pdf")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("certificate.pdf", "it has no placeholder"),
        ("{email}_{email}", "it has {email} twice"),
        ("{file}", "{file} is no placeholder"),
        ("{Bestandsnaam}", "{Bestandsnaam} is no placeholder"),
        ("{e-mail}_{email}", "it has {email} twice"),
        ("{}_{email}", "{} is no placeholder"),
        ("{certifcation_ids}", "{certifcation_ids} is not known: write {certification_id}"),
        ("{email_{valid_from}", "has a brace without its partner"),
        ("{email}}", "has a brace without its partner"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError) as caught:
        NamePattern.of(pattern)

    assert reason in str(caught.value)


def test_a_name_of_separators_alone_ends_soon() -> None:
    parts = read("{a}_{b}_{c}_{d}_{e}", "_" * 250 + ".pdf")

    assert set(parts.unclear) == set("abcde")


TEXT = st.text("ab_-. 12@", min_size=1, max_size=12).filter(lambda text: text == text.strip())


@given(certification=st.integers(1, 10**17), name=TEXT, day=st.dates())
def test_what_was_put_into_a_name_is_read_or_unclear(certification: int, name: str, day: object) -> None:
    pattern = NamePattern.of("{certification_id}_{name}_{valid_from}")
    parts = pattern.read(f"{certification}_{name}_{day}.pdf")

    put = {"certification_id": str(certification), "name": name, "valid_from": str(day)}
    assert {field: put[field] for field in parts.values} == parts.values
    assert set(parts.values) | set(parts.unclear) == set(put)
