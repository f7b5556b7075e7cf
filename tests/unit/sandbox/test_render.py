"""Answers in JSON and in Rails' XML, compared as text."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from defusedxml import ElementTree
from hypothesis import given
from hypothesis import strategies as st

from springest_async.sandbox.render import Tree, render_error, render_json, render_xml

CERTIFICATE: Tree = {
    "id": 7,
    "name": "First aid & <more>",
    "valid_from": date(2024, 5, 1),
    "valid_until": None,
    "created_at": datetime(2024, 5, 1, 12, 30, 15, 678_900, tzinfo=UTC),
    "shown": True,
    "user": {"email": "jan@example.com", "external_id": None},
}


def test_json() -> None:
    expected = (
        '{"id":7,"name":"First aid & <more>","valid_from":"2024-05-01","valid_until":null,'
        '"created_at":"2024-05-01T12:30:15.678Z","shown":true,'
        '"user":{"email":"jan@example.com","external_id":null}}'
    )
    assert expected == render_json(CERTIFICATE)


def test_xml() -> None:
    expected = """\
<?xml version="1.0" encoding="UTF-8"?>
<certificate>
  <id type="integer">7</id>
  <name>First aid &amp; &lt;more&gt;</name>
  <valid-from type="date">2024-05-01</valid-from>
  <valid-until nil="true"/>
  <created-at type="dateTime">2024-05-01T12:30:15Z</created-at>
  <shown type="boolean">true</shown>
  <user>
    <email>jan@example.com</email>
    <external-id nil="true"/>
  </user>
</certificate>
"""
    assert expected == render_xml(CERTIFICATE, "certificate")


def test_xml_arrays() -> None:
    tree: Tree = {"certificates": [{"id": 1}, {"id": 2}], "none": [], "email": ["is invalid"]}

    expected = """\
<?xml version="1.0" encoding="UTF-8"?>
<response>
  <certificates type="array">
    <certificate>
      <id type="integer">1</id>
    </certificate>
    <certificate>
      <id type="integer">2</id>
    </certificate>
  </certificates>
  <none type="array"/>
  <email type="array">
    <email>is invalid</email>
  </email>
</response>
"""
    assert expected == render_xml(tree, "response")


def test_times_are_written_in_utc() -> None:
    amsterdam = datetime(2024, 5, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))

    assert render_json(amsterdam) == '"2024-04-30T23:00:00.000Z"'
    assert "2024-04-30T23:00:00Z" in render_xml(amsterdam, "at")


@given(st.text())
def test_any_text_makes_well_formed_xml(text: str) -> None:
    element = ElementTree.fromstring(render_xml({"name": text}, "hash").encode("utf-8", "replace"))

    assert element.find("name") is not None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_json(text: str) -> None:
    assert text == json.loads(render_json(text))


@pytest.mark.parametrize("write", [render_json, lambda tree: render_xml(tree, "hash")])
def test_a_value_of_another_type_is_refused(write: Any) -> None:
    with pytest.raises(TypeError, match="bytes cannot be part"):
        write(cast("Tree", b"raw"))


def test_an_error_page_explains_nothing() -> None:
    page = render_error(404)

    assert page.startswith("<!DOCTYPE html>")
    assert "Not Found (404)" in page
