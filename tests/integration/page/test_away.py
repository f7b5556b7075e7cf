"""The page while its journal is away: it says so, keeps what it last knew, and comes back by itself."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from springest_async import Journal
from springest_async.bulk import State
from springest_async.page import StatusPage
from tests.integration.servers.postgresql import Cluster, Database

from .rows import load, loaded, manifest
from .viewer import shown, viewer

pytestmark = pytest.mark.chromium


async def test_a_file_that_was_moved_away_comes_back(tmp_path: Path, browser: Browser) -> None:
    async with loaded(tmp_path, 3, [State.STORED]) as migration, shown(migration, browser) as seen:
        await expect(seen.card()).to_contain_text("1 of 3 rows done")
        file = tmp_path / "journal.sqlite3"
        kept = file.rename(tmp_path / "kept")
        alert = seen.page.get_by_role("alert")
        await expect(alert).to_contain_text("The journal cannot be read:")
        await expect(alert).to_contain_text("was deleted, replaced or moved away")
        await expect(alert).to_contain_text("What is shown here was so at")
        await expect(seen.card()).to_contain_text("1 of 3 rows done")
        await expect(seen.button("Pause: certificates.csv")).to_be_disabled()

        kept.replace(file)
        await expect(alert).to_have_count(0)
        await load(migration.journal, manifest(tmp_path, 3), [State.STORED])
        await expect(seen.card()).to_contain_text("2 of 3 rows done")
        await expect(seen.button("Pause: certificates.csv")).to_be_enabled()


@pytest.mark.postgresql
async def test_a_database_that_was_stopped_comes_back(
    tmp_path: Path, browser: Browser, postgresql: Cluster, database: Database
) -> None:
    async with Journal(database.url) as journal:
        migration = await load(journal, manifest(tmp_path, 3), [State.STORED, State.IN_DOUBT])
        async with StatusPage(journal) as page, viewer(browser, page.url) as seen:
            await expect(seen.button("Springest has it: row 3 of certificates.csv")).to_be_enabled()
            postgresql.stop()
            alert = seen.page.get_by_role("alert")
            await expect(alert).to_contain_text("The journal cannot be read:")
            await expect(seen.button("Springest has it: row 3 of certificates.csv")).to_be_disabled()
            assert postgresql.password not in await seen.page.content()

            postgresql.start()
            await expect(alert).to_have_count(0)
            await seen.answer("Springest has it: row 3 of certificates.csv", "Yes, Springest has it")
            await expect(seen.card()).to_contain_text("2 of 3 rows done")
        assert (await migration.counts())[State.STORED] == 2
