"""The key: what it is made of shows it to nobody, and it is found in whatever shows it."""

import copy
import html
import io
import json
import pickle
import pprint
from collections.abc import Callable
from functools import partial

import pytest
import rich
import rich.console
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st

from springest_async.http.api_key import ApiKey

KEY = ApiKey("s3cr3t")


def test_an_api_key_is_in_nothing_that_is_made_of_it() -> None:
    out = io.StringIO()
    rich.inspect(KEY, all=True, console=rich.console.Console(file=out, width=500))
    made = [out.getvalue(), pprint.pformat([KEY]), rich.pretty.pretty_repr({"key": KEY}), f"{KEY}", f"{KEY!s:>20}"]
    made += [repr(getattr(KEY, name)) for name in dir(KEY)]

    assert [text for text in made if "s3cr3t" in text] == []


@pytest.mark.parametrize("dump", [pickle.dumps, copy.copy, copy.deepcopy, partial(json.dumps, default=vars), vars])
def test_an_api_key_cannot_be_dumped(dump: Callable[[ApiKey], object]) -> None:
    with pytest.raises(TypeError):
        dump(KEY)


@pytest.mark.parametrize(
    ("echo", "hidden"),
    [
        pytest.param(b"too long: /x?api_key=s3c", b"too long: /x?api_key=***", id="cut off"),
        pytest.param(b"?to=%2Fx%3Fapi_key%3Ds3c%252B&x=1", b"?to=%2Fx%3Fapi_key%3D***&x=1", id="in an address"),
        pytest.param(b'{"at": "/x?api_key=s3c\\u0026x"}', b'{"at": "/x?api_key=***\\u0026x"}', id="in JSON"),
        pytest.param(b"<a href='/x?api_key=s3c&amp;x'>", b"<a href='/x?api_key=***&amp;x'>", id="in HTML"),
        pytest.param(b"&#115;&#051;c&#x00072;3t", b"***", id="as numbers"),
        pytest.param(b"%73%33%63r3t or %2573%2533c%72%33%74", b"*** or ***", id="every letter"),
        pytest.param(b"s3c, S3CR3T", b"s3c, S3CR3T", id="others"),
    ],
)
def test_what_is_left_of_an_api_key_is_taken_out_too(echo: bytes, hidden: bytes) -> None:
    assert KEY.hide_in(echo) == hidden


@pytest.mark.parametrize(
    ("target", "keyed"), [("/x", "/x?api_key=s%20%2B%C3%A9"), ("/x?size=1", "/x?size=1&api_key=s%20%2B%C3%A9")]
)
def test_an_api_key_is_added_to_a_target(target: str, keyed: str) -> None:
    assert ApiKey("s +é").added_to(target) == keyed


def test_limits_are_named_by_key_and_origin() -> None:
    names = {ApiKey(key).budget(origin) for key in ("one", "other") for origin in ("https://a", "https://b")}

    assert len(names) == 4
    assert ApiKey("one").budget("https://a") in names


ESCAPES: list[Callable[[str], str]] = [
    lambda letter: letter,
    lambda letter: "".join(f"%{byte:02X}" for byte in letter.encode()),
    lambda letter: "".join(f"%25{byte:02x}" for byte in letter.encode()),
    lambda letter: f"&#{ord(letter)};",
    lambda letter: f"&#x{ord(letter):X};",
    lambda letter: f"\\u{ord(letter):04X}",
    lambda letter: f"\\{letter}",
    lambda letter: "+" if letter == " " else html.escape(letter),
    lambda letter: letter.encode().decode("latin-1"),
]
LETTERS = st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc"])


@given(
    st.lists(st.tuples(LETTERS, st.sampled_from(ESCAPES)), min_size=6, max_size=12),
    st.text(LETTERS, max_size=5),
)
def test_an_api_key_is_found_however_each_letter_is_written(
    letters: list[tuple[str, Callable[[str], str]]], around: str
) -> None:
    key = ApiKey("".join(letter for letter, _ in letters))
    said = around + "".join(escape(letter) for letter, escape in letters)

    assert b"***" in key.hide_in(said.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_an_api_key_is_taken_out_of_wide_letters(encoding: str) -> None:
    said = json.dumps({"errors": "no zoë s3cr3t"}, ensure_ascii=False).encode(encoding)

    assert json.loads(KEY.hide_in(said)) == {"errors": "no zoë ***"}


def test_what_only_begins_like_wide_letters_hides_no_key() -> None:
    assert KEY.hide_in(b"a\0s3cr3t") == b"a\0***"
