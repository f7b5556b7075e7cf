"""Ids as a spreadsheet leaves them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.manifest.ids import Ids, comparable, is_rounded, number_of, says_nothing


@pytest.mark.parametrize(
    "text", ["1234", "01234", "0001234", "1234.0", "1234,0", "1234.00", "1,234", "1.234", "1 234", "1'234", "1.234,00"]
)
def test_a_number_is_known_however_it_is_written(text: str) -> None:
    assert number_of(text) == "1234"


@pytest.mark.parametrize(
    "text",
    ["", "A1234", "1234-5", "-1234", "1234.5", "12,34", "1,2345", "1,234.567", "1.234,567", "1e5", "١٢٣٤", "1234."],
)
def test_what_is_no_whole_number(text: str) -> None:
    assert number_of(text) is None


@given(
    st.integers(min_value=0, max_value=10**14), st.integers(min_value=0, max_value=9), st.sampled_from([",", ".", " "])
)
def test_no_spreadsheet_changes_the_number(number: int, zeros: int, separator: str) -> None:
    written = ("0" * zeros + str(number), f"{number:,}".replace(",", separator), f"{number}.0", str(number))
    assert {number_of(text) for text in written} == {str(number)}


def test_a_long_number_may_be_shortened() -> None:
    assert is_rounded("1.23457E+11")
    assert is_rounded("1,23457E+11")
    assert is_rounded("1E+15")
    assert not is_rounded("12345")
    assert not is_rounded("1E5")
    assert not is_rounded("E11")


def test_case_and_runs_of_spaces_do_not_matter() -> None:
    assert comparable(" JAN  de\xa0Vries\n") == "jan de vries"
    assert comparable("O\u2019Neill") == comparable("o'neill")
    assert comparable("Zoe\u0308") == comparable("ZO\xcb")
    assert comparable("José") != comparable("Jose")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#N/A",
        "#NV",
        "#REF!",
        "#DIV/0!",
        "#NAAM?",
        "#NUM!",
        "#GETTING_DATA",
        "Err:502",
        "n/a",
        "-",
        "NULL",
        "nan",
        "0",
        "N.v.t.",
    ],
)
def test_what_stands_for_no_value(text: str) -> None:
    assert says_nothing(comparable(text))


@pytest.mark.parametrize("text", ["jan", "erik", "#12", "#a1", "err:x", "00"])
def test_what_is_a_value(text: str) -> None:
    assert not says_nothing(text)


@given(st.lists(st.sampled_from(["7", "07", "7.0", "70", "0", "n/a", "7,000", "jan", "1E+11"]), max_size=9))
def test_nothing_is_found_that_was_not_added(keys: list[str]) -> None:
    ids = Ids()
    for meant, key in enumerate(keys):
        ids.add(key, meant)
    for key in ("7", "07", "007", "7.0", "70", "7000", "7.000", "jan"):
        same = {meant for meant, other in enumerate(keys) if comparable_number(other) == comparable_number(key)}
        if key == "07" and "07" in keys:
            same = {meant for meant, other in enumerate(keys) if other == "07"}
        assert ids.find(key) == same
    for key in ("0", "n/a", "1E+11"):
        assert not ids.find(key)


def comparable_number(key: str) -> str:
    return number_of(key) or key


def test_what_many_share_takes_no_memory_for_each() -> None:
    ids = Ids()
    for meant in range(100_000):
        ids.add("00840", meant)
    assert 2 <= len(ids.find("00840")) == len(ids.find("840")) <= 10
