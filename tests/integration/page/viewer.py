"""A person who looks at the page in a browser: what is shown, and by which names it is found."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from springest_async.bulk import OpenMigration
from springest_async.page import StatusPage

expect.set_options(timeout=60_000)


@attrs.define(eq=False)
class Viewer:
    """The page in a browser; `requests` and `complaints` are what it has asked for, and what the browser disliked."""

    page: Page
    requests: list[str] = attrs.field(factory=list)
    complaints: list[str] = attrs.field(factory=list)

    def card(self, name: str = "certificates.csv") -> Locator:
        """Return the part of the page about a manifest."""
        return self.page.get_by_role("region", name=name, exact=True)

    async def outcomes(self, name: str = "certificates.csv") -> dict[str, int]:
        """Return the rows by state, as they are shown."""
        card = self.card(name)
        states = await card.get_by_role("term").all_inner_texts()
        rows = await card.get_by_role("definition").all_inner_texts()
        return {state.lower(): int(re.sub(r"\D", "", count)) for state, count in zip(states, rows, strict=True)}

    def button(self, name: str, card: str = "certificates.csv") -> Locator:
        """Return a button of a manifest."""
        return self.card(card).get_by_role("button", name=name, exact=True)

    def doubt(self, row: str) -> Locator:
        """Return the line of a row in doubt."""
        return self.page.get_by_role("listitem").filter(has=self.page.get_by_text(row, exact=True))

    async def answer(self, button: str, yes: str) -> None:
        """Press a button, and confirm it."""
        await self.button(button).click()
        await self.page.get_by_role("dialog").get_by_role("button", name=yes, exact=True).click()


@asynccontextmanager
async def viewer(browser: Browser, url: str, **options: Any) -> AsyncIterator[Viewer]:
    """Open the page; at the end, see that it asked nobody else for anything, and that the browser had no complaint."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    seen = Viewer(page)

    def on_request(request: Request) -> None:
        seen.requests.append(request.url)

    def on_console(message: ConsoleMessage) -> None:
        seen.complaints.append(message.text)

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    await page.goto(url)
    yield seen
    await context.close()
    assert [request for request in seen.requests if not request.startswith(url)] == []
    assert seen.complaints == []


@asynccontextmanager
async def shown(migration: OpenMigration, browser: Browser, **options: Any) -> AsyncIterator[Viewer]:
    """Serve the page of a migration's journal, and open it."""
    async with StatusPage(migration.journal) as page, viewer(browser, page.url, **options) as seen:
        yield seen
