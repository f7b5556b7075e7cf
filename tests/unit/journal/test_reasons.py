"""Why rows are not stored, in the words that people need."""

import pytest

from springest_async.journal.reasons import plain_reason


@pytest.mark.parametrize(
    ("reason", "plain"),
    [
        ("POST https://api.springest.nl/x.json rejected the certificate (400): email: is unknown", "email: is unknown"),
        ("POST https://api.springest.nl/x.json answered 500", "answered 500"),
        ("1.pdf: no such file", "1.pdf: no such file"),
        ("", ""),
    ],
)
def test_what_stands_before_the_words_of_the_server_is_left_out(reason: str, plain: str) -> None:
    assert plain_reason(reason) == plain
