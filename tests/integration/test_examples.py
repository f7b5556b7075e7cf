"""docs/manifests.md and docs/watching.md are true: their commands print what they say, and store what they mean."""

import hashlib
from pathlib import Path

import pytest

from .examples.example import content
from .examples.page import PAGES, Page, Section

SECTIONS = [section for page in PAGES for section in page.sections() if section.example is not None]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
async def test_an_example_prints_and_stores_what_it_says(section: Section, tmp_path: Path) -> None:
    """Make the page again with ``python -m tests.integration.examples``, when what the commands print was changed."""
    assert section.example is not None
    async with section.example.sandbox() as server:
        made = await section.made_again(tmp_path, server)

    posted = [
        (post.sha256, {name: value for name, value in post.fields.items() if value})
        for post in server.audit
        if post.verdict == "stored"
    ]
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
        for one in section.example.stored
    ]
    assert sorted(posted, key=str) == sorted(expected, key=str)
    assert len(server.audit) == len(posted) + section.example.refused
    assert list(made) == list(section.lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)
def test_each_example_is_in_its_page_once(page: Page) -> None:
    assert sorted(section.name for section in page.sections() if section.name) == sorted(page.examples)
