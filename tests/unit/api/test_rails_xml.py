"""XML is read in two ways, which must agree: a short one for what Rails writes, and a parser of all XML."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.api import rails_xml
from springest_async.sandbox.render import Tree, render_xml
from tests.spoilt import spoilt

SAMPLES = Path(__file__).parents[2] / "samples"
BODIES = [path.read_bytes() for path in sorted(SAMPLES.glob("*/body.xml"))]
LISTS = [path.read_bytes() for path in sorted(SAMPLES.glob("certifi*/body.xml"))]
TEXT: Tree = {"certificates": [], "name": "a\nb & <c>"}
DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'


def short(data: bytes) -> Any:
    """Return the values of the short way as text, which tells 1 from True, or None when it leaves it to the other."""
    try:
        return json.dumps(rails_xml._split(data))
    except rails_xml._Unusual:
        return None


def general(data: bytes) -> Any:
    """Return the values of the other way as text, or the exception that it raised."""
    try:
        return json.dumps(rails_xml._plain(rails_xml._root(data)))
    except (ValueError, SyntaxError, LookupError, RecursionError, Warning) as error:
        return error


@pytest.mark.parametrize("data", [*LISTS, render_xml(TEXT, "response").encode()])
def test_the_lists_of_rails_take_the_short_way(data: bytes) -> None:
    assert short(data) is not None
    assert short(data) == general(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"<a><b>1</b><b>2</b></a>", id="a name twice"),
        pytest.param(b"<a>x<b>1</b></a>", id="text beside an element"),
        pytest.param(b"<a><b>1</b>x</a>", id="text behind an element"),
        pytest.param(b"<a b='1'/>", id="an attribute"),
        pytest.param(b"<a type='integer'>1</a>", id="other quotes"),
        pytest.param(b'<a type="integer">1.5</a>', id="no integer"),
        pytest.param(b"<a>\r\n</a>", id="a carriage return"),
        pytest.param(b"<a>&#233;</a>", id="a number for a character"),
        pytest.param(b"<a>&nbsp;</a>", id="an unknown entity"),
        pytest.param(b"<a>a & b</a>", id="a bare ampersand"),
        pytest.param(b"<a>]]></a>", id="the end of CDATA"),
        pytest.param(b"<a><![CDATA[b]]></a>", id="CDATA"),
        pytest.param(b"<a><!-- b --></a>", id="a comment"),
        pytest.param(b"<a><?b?></a>", id="an instruction"),
        pytest.param(b"<!DOCTYPE a><a/>", id="a DTD"),
        pytest.param(b'<a xmlns="b"/>', id="a namespace"),
        pytest.param(b"<a:b/>", id="a prefix"),
        pytest.param(b"<a>\x00</a>", id="a control character"),
        pytest.param("<a>\uffff</a>".encode(), id="no character"),
        pytest.param(b"<a>\xed\xa0\x80</a>", id="half a character"),
        pytest.param(b"<a>\xff</a>", id="no UTF-8"),
        pytest.param(b"<a/><b/>", id="two roots"),
        pytest.param(b"<a></b>", id="another end"),
        pytest.param(b"<a><b></a></b>", id="ends out of order"),
        pytest.param(b"<a><b/></a></a>", id="an end too many"),
        pytest.param(b"<a><b>", id="no end"),
        pytest.param(b"</a>", id="no beginning"),
        pytest.param(b"<a/>x", id="text behind the root"),
        pytest.param(b"x<a/>", id="text before the root"),
        pytest.param(b"\n" + DECLARATION + b"<a/>", id="a line before the declaration"),
        pytest.param(b"<a>" + DECLARATION + b"</a>", id="a declaration within"),
        pytest.param(DECLARATION, id="no root"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_rails_does_not_write_is_left_to_the_parser(data: bytes) -> None:
    assert short(data) is None


PIECES = [
    *b"<|>|/|</|/>|<a>|</a>|<b>|</b>|<a-b>|</a-b>|<a/>|true|1| 1 |-1|x| |\n|\t|\r|<?x?>|<!--|]]>|\"|='".split(b"|"),
    *b'<a type="array">|<a type="array"/>|<a type="integer">|<a type="boolean">| type="date"|<a nil="true"/>'.split(
        b"|"
    ),
    *b'<a nil="true">|&amp;|&lt;|&a;|&#65;|&'.split(b"|"),
    DECLARATION,
    "é⛑️\u00a0\ufffd\uffff".encode(),
]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join) | spoilt(BODIES, PIECES))
def test_what_both_ways_read_is_the_same(data: bytes) -> None:
    found = short(data)

    assert found is None or found == general(data)


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("<>&\"'\n\t "), max_size=10)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | TEXTS.filter(lambda text: text.strip()) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "valid_from", "users"]), inner, min_size=1)
    ),
)


@given(TREES)
def test_whatever_rails_writes_takes_the_short_way(tree: Tree) -> None:
    data = render_xml(tree, "response").encode()
    found = short(data)

    assert found is not None
    assert found == general(data)
