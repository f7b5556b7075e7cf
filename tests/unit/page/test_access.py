"""The names that the page answers to."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.page.access import Access


@given(st.text(), st.text(), st.text())
def test_any_header_is_answered_and_none_is_own(host: str, shown: str, token: str) -> None:
    for access in (Access(host="127.0.0.1"), Access(host="0.0.0.0", password="a long password")):  # noqa: S104
        access.knows_host(host)
        assert access.knows_password(shown) is (access.password is None)
        assert access.knows_address(token) is (access.password is not None)
        assert not access.is_own(host, shown, token)


def test_two_pages_have_four_tokens() -> None:
    pages = [Access(host="127.0.0.1"), Access(host="127.0.0.1")]
    assert len({token for page in pages for token in (page.address_token, page.page_token)}) == 4
    assert all(page.address_token not in repr(page) and page.page_token not in repr(page) for page in pages)


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("els-laptop", True),
        ("els-laptop.office.example:8080", True),
        ("els-laptop.local", True),
        ("status.example", True),
        ("192.0.2.7", True),
        ("els-laptop.evil.example", False),
        ("evil.example", False),
        ("", False),
        ("[", False),
    ],
)
def test_with_a_password_the_names_of_this_machine_are_known(host: str, is_known: bool) -> None:
    with patch("platform.node", lambda: "els-laptop.office.example"):
        assert Access(host="status.example", password="a long password").knows_host(host) is is_known
