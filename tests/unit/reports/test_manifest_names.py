"""Names of manifests in a list: a person can tell them apart."""

from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.reports.manifest_names import names_of
from tests.statuses import status_of

API = "https://api.springest.nl"


def named(*places: str | tuple[str, str]) -> list[str]:
    """Return the names of manifests with these paths, or these paths and hosts; their numbers begin with 1."""
    migrations = []
    for number, place in enumerate(places, 1):
        path, origin = (place, API) if isinstance(place, str) else place
        name = path.replace("\\", "/").rpartition("/")[2]
        migrations.append(status_of({"id": number, "path": path, "name": name, "origin": origin}))
    names = names_of(migrations)
    return [names[number] for number in range(1, len(places) + 1)]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["/hr/2024/x.csv"], ["x.csv"]),
        (["/hr/2024/x.csv", "/hr/2024/y.csv"], ["x.csv", "y.csv"]),
        (["/hr/2024/x.csv", "/hr/2025/x.csv", "/hr/2025/y.csv"], ["2024/x.csv", "2025/x.csv", "y.csv"]),
        (["/hr/24/a/x.csv", "/hr/25/a/x.csv", "/hr/25/b/x.csv"], ["24/a/x.csv", "25/a/x.csv", "b/x.csv"]),
        (["/x.csv", "/hr/x.csv", "/a/hr/x.csv"], ["/x.csv", "/hr/x.csv", "a/hr/x.csv"]),
        ([r"C:\2024\x.csv", r"C:\2025\x.csv", "/hr/2025/x.csv"], [r"2024\x.csv", r"2025\x.csv", "2025/x.csv"]),
    ],
)
def test_the_shortest_end_of_a_path_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert named(*paths) == names


def test_the_same_path_is_told_apart_by_its_host() -> None:
    sandbox = "http://127.0.0.1:8000"

    assert named(("/hr/x.csv", API), ("/hr/x.csv", sandbox)) == [
        "x.csv (api.springest.nl)",
        "x.csv (http://127.0.0.1:8000)",
    ]
    assert named(("/hr/x.csv", API), ("/hr/x.csv", sandbox), ("/it/x.csv", API)) == [
        "hr/x.csv (api.springest.nl)",
        "hr/x.csv (http://127.0.0.1:8000)",
        "it/x.csv",
    ]


def test_the_same_path_and_host_are_told_apart_by_the_number() -> None:
    """As of two machines."""
    assert named("/hr/x.csv", "/hr/x.csv") == ["x.csv (number 1)", "x.csv (number 2)"]
    assert named(("/hr/x.csv", API), ("/hr/x.csv", "http://a"), ("/hr/x.csv", "http://a")) == [
        "x.csv (api.springest.nl)",
        "x.csv (http://a, number 2)",
        "x.csv (http://a, number 3)",
    ]


PARTS = st.lists(st.sampled_from(ascii_lowercase[:3]), min_size=1, max_size=4)
PATHS = st.builds(lambda root, parts: root + "/".join(parts), st.sampled_from(["/", "", "//"]), PARTS)


@given(st.lists(st.tuples(PATHS, st.sampled_from([API, "http://a"])), max_size=8))
def test_no_two_names_are_the_same(places: list[tuple[str, str]]) -> None:
    names = named(*places)

    assert len(set(names)) == len(names)
    assert all(name.partition(" ")[0] in path for name, (path, _) in zip(names, places, strict=True))
