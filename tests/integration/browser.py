"""A real browser for tests: Debian's Chromium without a window, and axe-core, which knows what is hard to use for whom.

Each test has a browser of its own, because a browser belongs to the event loop that has started it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

from .servers import AXE, find

_OPTIONS = (
    "--no-sandbox",  # which Chromium cannot have as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # It speaks to nobody but the page.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

_RUN = """
async () => (await axe.run()).violations.map(found =>
    `${found.impact}: ${found.id}: ${found.help}: ${found.nodes.map(node => node.target.join(" ")).join(", ")}`)
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start Debian's Chromium, and end it when the block is left."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find("chromium"), args=_OPTIONS)
        try:
            yield browser
        finally:
            await browser.close()


async def axe_violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page as it is shown now, one sentence each: how bad, what, and where.

    The test must be marked with ``axe``.
    """
    # Not as a script of the page, whose Content-Security-Policy may forbid it.
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = await page.evaluate(_RUN)
    return found
