"""What tests of long migrations stand on: the command with a shorter minute, and a server that can go away."""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.pdfs import archive

from .command import KEY, end, environment, kill_at_end, table_of
from .sandbox_process import sandbox_process
from .scaled import MACHINE

PERIOD = 2.0


async def test_a_shorter_minute_keeps_its_limit(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 70)
    async with sandbox_process(api_key=KEY, period=PERIOD) as sandbox:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.scaled", str(PERIOD), "upload", manifest),
            env=environment(sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None, **{MACHINE: "anna"}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        kill_at_end(process)
        ran = await end(process)

    summary = sandbox.summary()
    assert (ran.code, table_of(ran.out)["stored"]) == (0, 70)
    assert (summary.posts, summary.refused_for_speed) == (70, 0)
    assert summary.most_in_any_period <= 30


async def test_a_sandbox_goes_away_and_comes_back_as_it_was() -> None:
    async with sandbox_process(api_key=KEY) as sandbox, aiohttp.ClientSession() as session:
        async with session.post(f"{sandbox.origin}/users/certificates.json", params={"api_key": KEY}) as response:
            assert response.status == 400
        await sandbox.go_away()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(sandbox.origin)
        await sandbox.come_back()
        async with session.get(f"{sandbox.origin}/__audit") as response:
            assert len((await response.json())["posts"]) == 1

    assert len(sandbox.audit) == 1
