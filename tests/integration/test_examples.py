"""docs/manifests.md is true: its commands print what it says, and store the certificates that their files mean."""

import hashlib
from pathlib import Path

import pytest

from .examples.inputs import EXAMPLES, content
from .examples.page import Section, sandbox, sections

SECTIONS = [section for section in sections() if section.name]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
async def test_an_example_prints_and_stores_what_it_says(section: Section, tmp_path: Path) -> None:
    """Make the page again with ``python -m tests.integration.examples``, when what the commands print was changed."""
    async with sandbox() as server:
        made = await section.made_again(tmp_path, server)

    posted = [(post.sha256, {name: value for name, value in post.fields.items() if value}) for post in server.audit]
    expected = [
        (
            hashlib.sha256(content(one.file)).hexdigest(),
            {
                "certification_id": str(one.certification_id),
                "email": one.email,
                "valid_from": one.valid_from,
                **({"valid_until": one.valid_until} if one.valid_until else {}),
            },
        )
        for one in EXAMPLES[section.name].stored
    ]
    assert sorted(posted, key=str) == sorted(expected, key=str)
    assert {post.verdict for post in server.audit} <= {"stored"}
    assert list(made) == list(section.lines)


def test_each_example_is_in_the_page_once() -> None:
    assert sorted(section.name for section in SECTIONS) == sorted(EXAMPLES)
