"""Digests that come again."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from springest_async.journal.repeats import SeenDigests


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_a_digest_that_comes_again_is_always_seen(digests: list[bytes]) -> None:
    seen = SeenDigests()
    for digest in digests:
        seen.add(digest)

    assert all(map(seen.add, digests))


def test_few_others_seem_to_have_come_before() -> None:
    seen = SeenDigests()
    digests = [hashlib.blake2b(b"%d" % number, digest_size=16).digest() for number in range(20_000)]

    assert sum(map(seen.add, digests)) <= 1
