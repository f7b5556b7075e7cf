"""The four mishaps: stored or not, answered or not."""

from springest_async.sandbox import Mishap


def test_the_four_mishaps_are_all_that_can_happen() -> None:
    expected = {(False, None), (True, None), (False, 500), (True, 500)}

    assert len(Mishap) == 4
    assert expected == {(mishap.stores, mishap.status) for mishap in Mishap}
