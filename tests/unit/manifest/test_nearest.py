"""The nearest of the names that there are."""

from springest_async.manifest.nearest import Nearest


def test_the_nearest_name_is_found() -> None:
    nearest = Nearest(["jan jansen", "piet de vries", "first aid 2024"])
    assert nearest.to("jan janssen") == "jan jansen"
    assert nearest.to("kees") is None


def test_another_number_is_not_near() -> None:
    nearest = Nearest(["first aid 2024", "12345"])
    assert nearest.to("first aid 2025") is None
    assert nearest.to("12346") is None
    assert nearest.to("first-aid 2024") == "first aid 2024"


def test_it_is_sought_a_limited_number_of_times() -> None:
    nearest = Nearest(["jan jansen"])
    searched = [f"jan jansen{'x' * number}" for number in range(3)] + [f"kees {'x' * number}" for number in range(17)]
    assert [nearest.to(name) for name in searched] == ["jan jansen"] * 3 + [None] * 17
    assert nearest.to("jan janssen") is None
    assert nearest.to("jan jansenx") == "jan jansen"


def test_a_long_list_is_not_searched() -> None:
    assert Nearest([f"jan {'x' * 3}{number}" for number in range(20_001)]).to("jan xx1") is None
