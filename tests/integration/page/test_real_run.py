"""The page beside a real run of ``springest upload``, which is paused and resumed by a click."""

import signal
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from springest_async import Journal
from springest_async.page import StatusPage
from tests.integration.command import HeldSandbox, end, environment, journal_path, start, until_said
from tests.pdfs import archive
from tests.waiting import until

from .viewer import viewer

pytestmark = pytest.mark.chromium


async def test_a_run_is_paused_and_resumed_by_a_click(tmp_path: Path, browser: Browser) -> None:
    manifest = archive(tmp_path, 45)  # of which the limit lets 30 leave in the first minute
    async with HeldSandbox() as sandbox:
        process = await start("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.held > 0)
        async with Journal(journal_path()) as journal, StatusPage(journal) as page, viewer(browser, page.url) as seen:
            await expect(seen.card()).to_contain_text("is uploading.")
            await seen.button("Pause: certificates.csv").click()
            await expect(seen.card()).to_contain_text("in progress will be finished. Resume, and the run goes on.")
            await until_said(process, "nothing more is sent until")  # its own word, not the journal's
            sandbox.go_on.set()
            await expect(seen.card()).to_contain_text("nothing new is sent. Resume, and the run goes on.")
            shown = await seen.outcomes()
            assert shown["stored"] + shown["waiting"] == 45
            assert shown["stored"] == len(sandbox.audit) < 45

            await seen.button("Resume: certificates.csv").click()
            await until_said(process, "esumed")
            await expect(seen.card()).to_contain_text("is uploading.")
            process.send_signal(signal.SIGINT)
            await expect(seen.card()).to_contain_text("No run is uploading this at the moment.")
        ran = await end(process)

    assert ran.code == 130
