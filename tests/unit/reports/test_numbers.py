"""Numbers as people read them."""

from springest_async.reports.numbers import count, number


def test_thousands_are_set_apart() -> None:
    assert [number(value) for value in (0, 997, 19_997, 1_000_000)] == ["0", "997", "19 997", "1 000 000"]


def test_only_one_thing_is_singular() -> None:
    assert [count(value, "row") for value in (0, 1, 2, 20_000)] == ["0 rows", "1 row", "2 rows", "20 000 rows"]
