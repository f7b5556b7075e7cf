"""The page as a person sees and uses it, in a real browser."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from springest_async import Journal
from springest_async.bulk import State
from springest_async.journal.engine import Connection
from springest_async.journal.status_reader import StatusReader
from springest_async.page import StatusPage
from springest_async.page.picture import read_picture
from springest_async.reports.status_json import as_json
from tests.bulk_runs import settle
from tests.integration.browser import axe_violations
from tests.waiting import until

from .rows import load, loaded, manifest
from .viewer import Viewer, shown, viewer

pytestmark = pytest.mark.chromium

SOME = (State.STORED, State.STORED, State.REJECTED, State.IN_DOUBT, State.FAILED, State.IN_DOUBT)


async def test_the_numbers_are_those_of_the_status(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 10, SOME) as migration, StatusReader(migration.journal) as reader:
        status = as_json(await reader.status(migration.id))
        async with StatusPage(migration.journal) as page, viewer(browser, page.url) as seen:
            await expect(seen.card()).to_contain_text("4 of 10 rows done (40 %)")
            shown = await seen.outcomes()
            bar = seen.card().get_by_role("progressbar", name="Rows done: certificates.csv")
            await expect(bar).to_have_attribute("aria-valuetext", "4 of 10")

    assert shown == {
        state.replace("sending", "being sent").replace("_", " "): n for state, n in status["counts"].items()
    }


async def test_rows_left_out_with_faults_are_said(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 1, [State.STORED]) as migration, shown(migration, browser) as seen:
        await expect(seen.card()).to_contain_text("Every row is stored.")
        await expect(seen.card().get_by_text("left out")).to_be_hidden()
        await migration.journal.run(lambda connection: connection.execute("UPDATE migrations SET faulty = 12"))
        words = "12 rows of the manifest have faults and were left out (--skip-faulty): see springest check."
        await expect(seen.card().get_by_text(words)).to_be_visible()
        await expect(seen.card()).to_contain_text("Every row without faults is stored.")


async def test_all_migrations_are_there_the_newest_first(tmp_path: Path, browser: Browser) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        for name in ("2024.csv", "2025.csv", "2026.csv"):
            await load(journal, manifest(tmp_path, 3, name=name, file=name + "{}.pdf"))
        old = await load(journal, manifest(tmp_path, 1, name="old.csv"), [State.STORED])
        await journal.run(
            lambda connection: connection.execute("UPDATE migrations SET moved_at = 0 WHERE id = ?", (old.id,))
        )
        async with StatusPage(journal) as page, viewer(browser, page.url) as seen:
            await expect(seen.page.get_by_role("heading", level=2)).to_have_text(["2026.csv", "2025.csv", "2024.csv"])
            await seen.page.get_by_text("1 finished upload").click()
            await expect(seen.card("old.csv")).to_contain_text("Every row is stored.")


async def test_a_journal_without_uploads_says_so(tmp_path: Path, browser: Browser) -> None:
    async with (
        Journal(tmp_path / "journal.sqlite3") as journal,
        StatusPage(journal) as page,
        viewer(browser, page.url) as seen,
    ):
        await expect(seen.page.get_by_text("The journal has no uploads yet.")).to_be_visible()
        await load(journal, manifest(tmp_path, 2))
        await expect(seen.card()).to_contain_text("0 of 2 rows done")
        await expect(seen.page.get_by_text("The journal has no uploads yet.")).to_be_hidden()


async def test_pause_and_resume_reach_the_journal_and_all_viewers(tmp_path: Path, browser: Browser) -> None:
    async with (
        loaded(tmp_path, 3, [State.STORED]) as migration,
        StatusPage(migration.journal) as page,
        viewer(browser, page.url) as seen,
        viewer(browser, page.url) as other,
    ):
        await seen.button("Pause: certificates.csv").click()
        await expect(seen.card()).to_contain_text("Paused since")
        await expect(other.card()).to_contain_text("Paused since")
        assert await migration.paused_at() is not None

        await other.button("Resume: certificates.csv").click()
        await expect(seen.card()).to_contain_text("is uploading.")
        await expect(seen.button("Pause: certificates.csv")).to_be_focused()  # the same button has another name
        assert await migration.paused_at() is None


async def test_the_two_answers_to_a_row_in_doubt(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 6, SOME, reason="HTTP 500") as migration, shown(migration, browser) as seen:
        first = seen.doubt("Row 5")
        await expect(first).to_contain_text("employee4@example.org · certification 5 · valid from 2026-01-31")
        await expect(first).to_contain_text("HTTP 500")
        entry, _ = await migration.entries(State.IN_DOUBT)
        await expect(first).to_contain_text(f"Request {entry.request_id}")
        await seen.answer("Springest has it: row 5 of certificates.csv", "Yes, Springest has it")
        await expect(seen.card().get_by_text("1 row in doubt")).to_be_visible()
        await expect(seen.button("Springest has it: row 7 of certificates.csv")).to_be_focused()

        await seen.answer("Send again: row 7 of certificates.csv", "Yes, send again")
        await expect(seen.doubt("Row 7")).to_have_count(0)

        states = {entry.number: entry.state for entry in await migration.entries(limit=10)}
    assert (states[5], states[7]) == (State.STORED, State.WAITING)


async def test_an_answer_that_is_not_confirmed_changes_nothing(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 6, SOME) as migration, shown(migration, browser) as seen:
        await seen.button("Send again: row 5 of certificates.csv").click()
        dialog = seen.page.get_by_role("dialog", name="Send row 5 again?")
        await expect(dialog).to_contain_text("What Springest has already would be stored twice.")
        await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        await seen.page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(seen.button("Send again: row 5 of certificates.csv")).to_be_focused()
        await seen.button("Springest has it: row 5 of certificates.csv").click()
        await seen.page.get_by_role("button", name="Cancel").click()
        assert [request for request in seen.requests if "answers" in request] == []

        assert (await migration.counts())[State.IN_DOUBT] == 2


async def test_an_answer_that_comes_too_late_is_told(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 6, SOME) as migration, shown(migration, browser) as seen:
        await seen.button("Springest has it: row 5 of certificates.csv").click()
        await migration.resolve([5], State.STORED)  # in another window
        await seen.page.get_by_role("dialog").get_by_role("button", name="Yes, Springest has it").click()
        await expect(seen.page.get_by_role("alert")).to_contain_text("Not in doubt: row 5 of the manifest.")
        await expect(seen.doubt("Row 5")).to_have_count(0)
        await seen.page.get_by_role("alert").get_by_role("button", name="Close").click()
        await expect(seen.page.get_by_role("alert")).to_have_count(0)
        seen.complaints.clear()  # Chromium notes every answer of 400 and more


async def test_a_thousand_rows_in_doubt_are_shown_in_pages(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 1000, [State.IN_DOUBT] * 1000) as migration, shown(migration, browser) as seen:
        summary = seen.card().get_by_text("1 000 rows in doubt: they wait for your answer")
        await expect(
            seen.button("Springest has it: row 2 of certificates.csv")
        ).to_be_hidden()  # it would hide what is below
        await summary.click()
        await expect(seen.card().get_by_text("1 to 50 of 1 000")).to_be_visible()
        await expect(seen.card().get_by_text("valid from")).to_have_count(50)
        for _ in range(2):
            await seen.button("Next 50: certificates.csv").click()
        await expect(seen.card().get_by_text("101 to 150 of 1 000")).to_be_visible()
        await expect(seen.button("Springest has it: row 102 of certificates.csv")).to_be_visible()
        await seen.answer("Springest has them: certificates.csv", "Yes, Springest has them")
        await expect(seen.card().get_by_text("101 to 150 of 950")).to_be_visible()
        await expect(seen.button("Springest has it: row 152 of certificates.csv")).to_be_visible()
        await seen.button("Previous 50: certificates.csv").click()
        await expect(seen.card().get_by_text("51 to 100 of 950")).to_be_visible()

        stored = await migration.entries(State.STORED)
    assert [entry.number for entry in stored] == list(range(102, 152))


async def test_a_hundred_thousand_rows_are_no_strain(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 100_000) as migration:

        def fill(connection: Connection) -> None:
            connection.execute("UPDATE manifest_rows SET state = 'rejected', reason = email WHERE number <= 50000")
            connection.execute("UPDATE manifest_rows SET state = 'in doubt' WHERE number > 99000")

        await migration.journal.run(fill)
        async with shown(migration, browser) as seen:
            await expect(seen.card()).to_contain_text("49 999 of 100 000 rows done (49 %)")
            assert await seen.page.evaluate("document.getElementsByTagName('*').length") < 300
            await seen.card().get_by_text("1 001 rows in doubt").click()
            await expect(seen.button("Springest has it: row 99\u00a0001 of certificates.csv")).to_be_visible()
            assert await seen.page.evaluate("document.getElementsByTagName('*').length") < 1000
        async with StatusReader(migration.journal) as reader:
            picture = await reader.read(read_picture)

    assert sum(len(text) for text in picture.migrations.values()) < 3000


async def test_new_posts_are_drawn_under_the_limit(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 4, [State.STORED, State.STORED, State.REJECTED]) as migration:
        await migration.note_budget("a budget")
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET budget = 'a budget', back_at = sent + 3600")
        )
        async with StatusPage(migration.journal) as page, viewer(browser, page.url) as seen:
            picture = seen.card().get_by_role("img", name="Certificates sent in each of the last 60 minutes")
            await expect(picture).to_have_accessible_name(
                "Certificates sent in each of the last 60 minutes: at most 3 in one; the limit is 30"
            )
            await expect(seen.card()).to_contain_text("in the last minute; 27 can leave now. All uploads")
            await migration.pause()
            await expect(seen.card()).to_contain_text("in the last minute. All uploads")
            await seen.card().get_by_text("These numbers as a table").click()
            await expect(seen.card().get_by_role("table").get_by_role("row").nth(1)).to_contain_text("3")
            cells = await seen.card().get_by_role("row").nth(1).get_by_role("cell").all_inner_texts()
            assert cells[1:] == ["3", "2", "0"]


async def test_an_hour_is_drawn_under_its_own_limit(tmp_path: Path, browser: Browser) -> None:
    """Sixty were agreed while these were sent, and the program that knows it has ended since."""
    async with loaded(tmp_path, 4, [State.STORED, State.STORED, State.REJECTED]) as migration:
        await migration.note_budget("a budget")
        change = "UPDATE attempts SET budget = 'a budget', back_at = sent + 3600, allowed = 60"
        await migration.journal.run(lambda connection: connection.execute(change))
        async with StatusPage(migration.journal) as page, viewer(browser, page.url) as seen:
            await expect(seen.card()).to_contain_text("limit: 60 a minute, now 30")


HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[2J{{7*7}}</script>"


async def test_the_last_answers_are_in_plain_words(tmp_path: Path, browser: Browser) -> None:
    reason = "POST https://api.springest.nl/users/certificates.json rejected the certificate (400): email: is nobody"
    states = [State.REJECTED, State.IN_DOUBT, State.IN_DOUBT]
    async with loaded(tmp_path, 4, states, reason=reason) as migration:

        def change(connection: Connection) -> None:  # row 2 was refused, and the POST of row 3 never left
            connection.execute("UPDATE attempts SET outcome = 'waiting' WHERE outcome = 'in doubt'")
            connection.execute("UPDATE attempts SET status = 429 WHERE certificate = 2")

        await migration.journal.run(change)
        async with StatusPage(migration.journal) as page, viewer(browser, page.url) as seen:
            await expect(seen.card()).to_contain_text("1 row rejected: email: is nobody")
            last = seen.card().locator(".list-last li")
            await expect(last.filter(has_text="rejected (email: is nobody)")).to_have_count(1)
            await expect(last.filter(has_text="refused, to be sent again (HTTP 429)")).to_have_count(1)
            await expect(last).to_have_count(2)


async def test_hostile_names_and_words_are_only_text(tmp_path: Path, browser: Browser) -> None:
    states = [State.REJECTED, State.IN_DOUBT]
    async with (
        loaded(tmp_path, 3, states, reason=HOSTILE, file="<b>{}</b>&amp;.pdf") as migration,
        shown(migration, browser) as seen,
    ):
        await expect(seen.doubt("Row 3")).to_contain_text("<b>2</b>&amp;.pdf")
        await expect(seen.doubt("Row 3")).to_contain_text("<img src=x onerror=alert(1)>")
        await expect(seen.card().get_by_text("1 row rejected")).to_be_visible()
        assert await seen.page.locator("img, b").count() == 0


LISTEN = """
() => {
    window.heard = [];
    for (const live of document.querySelectorAll("[role=status], [role=alert]"))
        new MutationObserver(() => heard.push(live.textContent)).observe(live, {childList: true});
}
"""


async def test_a_screen_reader_hears_what_matters_and_no_numbers(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 6, [State.STORED]) as migration, shown(migration, browser) as seen:
        await expect(seen.card()).to_contain_text("1 of 6 rows done")
        await seen.page.evaluate(LISTEN)
        for _ in range(3):
            await load(migration.journal, manifest(tmp_path, 6), [State.STORED])
        await expect(seen.card()).to_contain_text("4 of 6 rows done")
        await load(migration.journal, manifest(tmp_path, 6), [State.IN_DOUBT])
        await expect(seen.card()).to_contain_text("1 row in doubt")
        await migration.pause()
        await expect(seen.card()).to_contain_text("Paused since")
        heard = await seen.page.evaluate("heard")

    assert heard == ["certificates.csv: 1 row in doubt", "certificates.csv: Paused"]


async def test_it_works_by_keyboard_alone(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 6, SOME) as migration, shown(migration, browser) as seen:
        await expect(seen.button("Springest has it: row 5 of certificates.csv")).to_be_visible()
        await _tab_to(seen, "Pause: certificates.csv")
        await seen.page.keyboard.press("Enter")
        await expect(seen.card()).to_contain_text("Paused since")
        await _tab_to(seen, "Springest has it: row 5 of certificates.csv")
        await seen.page.keyboard.press("Enter")
        await _tab_to(seen, "Yes, Springest has it")
        await seen.page.keyboard.press("Space")
        await expect(seen.card().get_by_text("1 row in doubt")).to_be_visible()

        assert await migration.paused_at() is not None
        assert (await migration.counts())[State.STORED] == 3


async def _tab_to(seen: Viewer, name: str) -> None:
    """Press Tab until a button has the focus, and see that the focus is shown."""
    for _ in range(30):
        await seen.page.keyboard.press("Tab")
        focused = seen.page.get_by_role("button", name=name, exact=True).and_(seen.page.locator(":focus-visible"))
        if await focused.count():
            return
    pytest.fail(f"no Tab reaches {name}")


@pytest.mark.axe
@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
async def test_axe_finds_nothing_and_nothing_is_cut_off(
    tmp_path: Path, browser: Browser, colours: str, width: int
) -> None:
    async with loaded(tmp_path, 80, [*SOME, *[State.IN_DOUBT] * 60], reason="x" * 200) as migration:
        await migration.note_budget("a budget")
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET budget = 'a budget', back_at = sent + 3600")
        )
        size = {"width": width, "height": 740}
        async with (
            StatusPage(migration.journal) as page,
            viewer(browser, page.url, color_scheme=colours, viewport=size) as seen,
        ):
            await seen.card().get_by_text("62 rows in doubt").click()
            await seen.card().get_by_text("These numbers as a table").click()
            await expect(seen.button("Send again: row 5 of certificates.csv")).to_be_visible()
            assert await axe_violations(seen.page) == []
            assert await seen.page.evaluate("document.documentElement.scrollWidth") == width

            await migration.pause()
            await expect(seen.card()).to_contain_text("Paused since")
            await seen.button("Send again: row 5 of certificates.csv").click()
            assert await axe_violations(seen.page) == []


@pytest.mark.axe
@pytest.mark.parametrize("width", [360, 1200])
async def test_manifests_with_the_same_name_are_told_apart(tmp_path: Path, browser: Browser, width: int) -> None:
    """A person must not pause, or answer for, the wrong one."""
    size = {"width": width, "height": 740}
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        first = await load(journal, manifest(tmp_path / "2024", 10, file="a{}.pdf"), SOME, "HTTP 500")
        async with StatusPage(journal) as page, viewer(browser, page.url, viewport=size) as seen:
            await expect(seen.button("Springest has it: row 5 of certificates.csv")).to_be_visible()
            second = await load(
                journal, manifest(tmp_path / "2025", 10, file="b{}.pdf", domain="example.com"), SOME, "HTTP 500"
            )
            await first.note_budget("a budget")
            await second.note_budget("a budget")
            await journal.run(
                lambda connection: connection.execute("UPDATE attempts SET budget = 'a budget', back_at = sent + 3600")
            )
            years = ["2025/certificates.csv", "2024/certificates.csv"]
            await expect(seen.page.get_by_role("heading", level=2)).to_have_text(years)
            for year in years:
                await expect(seen.button(f"Springest has it: row 5 of {year}", year)).to_be_visible()
                await seen.card(year).get_by_text("These numbers as a table").click()
            buttons = [button.get_attribute("aria-label") for button in await seen.page.locator("section button").all()]
            labels = [await label for label in buttons]
            assert len(set(labels)) == len(labels)
            assert await axe_violations(seen.page) == []
            assert await seen.page.evaluate("document.documentElement.scrollWidth") == width

            await seen.button("Pause: 2024/certificates.csv", "2024/certificates.csv").click()
            await expect(seen.card("2024/certificates.csv")).to_contain_text("Paused since")
            assert await first.paused_at() is not None
            assert await second.paused_at() is None
            await seen.button("Send again: row 5 of 2025/certificates.csv", "2025/certificates.csv").click()
            dialog = seen.page.get_by_role("dialog", name="Send row 5 again?")
            await expect(dialog).to_contain_text("2025/certificates.csv: b4.pdf")


async def test_a_page_whose_program_has_ended_says_so(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 3) as migration, AsyncExitStack() as stack:
        page = await stack.enter_async_context(StatusPage(migration.journal))
        async with viewer(browser, page.url) as seen:
            await expect(seen.card()).to_contain_text("0 of 3 rows done")
            await stack.aclose()
            await expect(seen.page.get_by_role("alert")).to_contain_text("This page is not up to date")
            await expect(seen.button("Pause: certificates.csv")).to_have_attribute("aria-disabled", "true")
            seen.complaints.clear()


HIDE = """
(hidden) => {
    Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}
"""


async def test_a_page_that_nobody_sees_asks_for_nothing(tmp_path: Path, browser: Browser) -> None:
    """A browser opens at most six connections to one program: more tabs would wait for each other."""
    async with (
        loaded(tmp_path, 3) as migration,
        StatusPage(migration.journal) as page,
        viewer(browser, page.url) as seen,
    ):
        await expect(seen.card()).to_contain_text("0 of 3 rows done")
        await seen.page.evaluate(HIDE, True)
        await until(lambda: not page._watch._viewers)
        await load(migration.journal, manifest(tmp_path, 3), [State.STORED])
        await seen.page.evaluate(HIDE, False)
        await expect(seen.card()).to_contain_text("1 of 3 rows done")


async def test_rows_that_were_sent_again_are_shown_anew(tmp_path: Path, browser: Browser) -> None:
    """As many rows are in doubt as before, and nobody has seen a moment in between: the tab was hidden."""
    async with loaded(tmp_path, 6, SOME, reason="HTTP 500") as migration, shown(migration, browser) as seen:
        first, _ = await migration.entries(State.IN_DOUBT)
        await expect(seen.doubt("Row 5")).to_contain_text(f"HTTP 500. Request {first.request_id}")
        await seen.page.evaluate(HIDE, True)
        await migration.resolve([5], State.WAITING)
        await settle(migration, State.IN_DOUBT, reason="HTTP 503")
        again, _ = await migration.entries(State.IN_DOUBT)
        assert (again.number, again.request_id != first.request_id) == (5, True)
        await seen.page.evaluate(HIDE, False)
        await expect(seen.doubt("Row 5")).to_contain_text(f"HTTP 503. Request {again.request_id}")
        await expect(seen.doubt("Row 5")).not_to_contain_text(first.request_id)


async def test_a_row_that_a_run_asks_about_has_no_buttons(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 6, SOME) as migration, shown(migration, browser) as seen:
        await expect(seen.card()).to_contain_text("2 rows in doubt: they wait for your answer")
        await expect(seen.card()).to_contain_text("is finishing: only rows in doubt are left.")
        claimed = await migration.claim_doubt(())
        assert claimed is not None
        row, doubt = claimed
        await expect(seen.card()).to_contain_text("2 rows in doubt: a run is asking Springest about 1 of them now")
        await expect(seen.card()).to_contain_text("is asking Springest about the rows in doubt.")
        await expect(seen.doubt(f"Row {row.number}")).to_contain_text("is asking Springest about it now")
        await expect(seen.button(f"Send again: row {row.number} of certificates.csv")).to_be_hidden()
        other = 12 - (row.number or 0)
        await expect(seen.button(f"Send again: row {other} of certificates.csv")).to_be_visible()
        await expect(seen.button("Send again: certificates.csv")).to_be_hidden()

        await migration.journal.settled(doubt, State.IN_DOUBT, reason="Springest does not list it")
        await expect(seen.button(f"Send again: row {row.number} of certificates.csv")).to_be_visible()
        await expect(seen.doubt(f"Row {row.number}")).to_contain_text("Springest does not list it")
