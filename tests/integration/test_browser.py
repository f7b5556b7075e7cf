"""The browser of the tests, and what axe-core finds in it."""

import pytest
from playwright.async_api import Browser

from .browser import axe_violations

_PAGE = """
<!doctype html>
<html lang="en">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<title>A page</title>
<main><h1>A page</h1>{}</main>
"""


@pytest.mark.chromium
async def test_a_page_is_shown_as_it_is_read(browser: Browser) -> None:
    page = await browser.new_page()
    await page.set_content(_PAGE.format("<button>Pause</button>"))

    assert await page.get_by_role("button", name="Pause").is_visible()


@pytest.mark.axe
async def test_axe_says_what_is_hard_to_use_and_where(browser: Browser) -> None:
    page = await browser.new_page()
    await page.set_content(_PAGE.format("<p>Good.</p>"))
    assert await axe_violations(page) == []

    await page.set_content(_PAGE.format("<button></button>"))
    (found,) = await axe_violations(page)
    assert found == "critical: button-name: Buttons must have discernible text: button"
