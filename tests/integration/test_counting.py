"""Every way in which a server may count the limit, met by whole migrations over real sockets: no row fails for speed.

The sandbox is the judge: it counts by a clock of its own, and its audit has each POST. Most of it runs in a minute of
3 s, with the client's own pauses after a refusal shortened alike: the same arithmetic, 20 times as fast.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from aiohttp import web
from attrs import field, frozen

from springest_async import Journal, Limiter, Settings, Springest, SpringestError
from springest_async.api.verdicts import backoff
from springest_async.bulk import BulkEvent, Manifest, RowDone, RowStep, State, UploadQueue, load_manifest
from springest_async.sandbox import Sandbox, Summary
from springest_async.sandbox.certificates import Form
from springest_async.sandbox.windows import Counting
from tests.pdfs import archive, hashes
from tests.waiting import A_WHILE

from .command import CERTIFICATIONS_KEY, KEY, end, environment, outcomes, start, stored, table_of

PERIOD = 3.0
ROWS = 65  # two full minutes and a bit

WAYS: dict[str, dict[str, Any]] = {
    **{counting: {"window": counting} for counting in get_args(Counting)},
    "sliding, refusals count": {"window": "sliding", "count_refusals": True},
}
# Whoever keeps to 30 in any minute is never refused, but for these two, which want more than that.
OTHERWISE = {"elastic", "paced"}


@frozen
class Migrated:
    """What came of a migration, as the client and as the server saw it."""

    error: SpringestError | None
    states: Counter[State]
    stored: list[str]
    seconds: float
    summary: Summary
    told: Counter[str] = field(factory=Counter)


async def migrate(manifest: Manifest, journal_path: Path, **counting: Any) -> Migrated:
    """Upload all rows to a sandbox that counts in this way."""
    states: Counter[State] = Counter()
    told: Counter[str] = Counter()

    def listen(event: BulkEvent) -> None:
        match event:
            case RowStep():
                told[event.step.kind] += 1
            case RowDone():
                states[event.state] += 1

    async with Sandbox(period=PERIOD, **counting) as sandbox:
        async with Journal(journal_path) as journal:
            settings = Settings(limiter=Limiter(period=PERIOD, ledger=journal.ledger("a budget")))
            async with Springest(
                api_key=sandbox.api_key, host=sandbox.origin, settings=settings, journal=journal
            ) as springest:
                migration, _ = await load_manifest(journal, manifest, sandbox.origin)
                error = await UploadQueue(springest, migration, listen).run()
                assert states == await migration.counts()
        posts = sandbox.audit
        return Migrated(error, states, stored(sandbox), posts[-1].seconds - posts[0].seconds, sandbox.summary(), told)


async def test_no_row_fails_because_of_speed_however_the_server_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda failures: backoff(failures) * PERIOD / 60.0)
    manifest = Manifest.open(archive(tmp_path, ROWS))

    # At once, because they wait most of the time; each has a server and a budget of its own.
    migrations = [migrate(manifest, tmp_path / f"{way}.journal", **counting) for way, counting in WAYS.items()]
    came = dict(zip(WAYS, await asyncio.gather(*migrations), strict=True))

    assert {way: migrated.error for way, migrated in came.items()} == dict.fromkeys(WAYS)
    assert {way: migrated.states for way, migrated in came.items()} == {way: {State.STORED: ROWS} for way in WAYS}
    assert {way for way, migrated in came.items() if migrated.stored != hashes(tmp_path)} == set()
    assert {way for way, migrated in came.items() if migrated.summary.most_in_any_period > 30} == set()
    assert {way for way, migrated in came.items() if migrated.seconds < 2 * PERIOD} == set()
    # Each refusal was one for speed, as the client took it.
    refused = {way: migrated.summary.posts - ROWS for way, migrated in came.items()}
    assert refused == {way: migrated.summary.refused_for_speed for way, migrated in came.items()}
    assert refused == {way: migrated.told["refused"] for way, migrated in came.items()}
    # (A machine that is slow enough keeps the silence that one of them wants by itself.)
    assert {"paced"} <= {way for way, count in refused.items() if count} <= OTHERWISE
    # The first crowd, the test of what their refusals mean, and both once more when only a silence resets the count.
    assert max(refused.values()) <= 30


async def test_the_command_offers_every_way_of_counting() -> None:
    async def begin(counting: Counting) -> str:
        process = await start("sandbox", "--window", counting, env=environment(None))
        assert process.stdout is not None
        async with asyncio.timeout(A_WHILE):
            line = await process.stdout.readline()
        process.kill()  # how it ends of itself is tested elsewhere
        await end(process)
        return line.decode()

    ways: tuple[Counting, ...] = get_args(Counting)
    said = await asyncio.gather(*(begin(counting) for counting in ways))

    assert [f"({counting} window)" in line for counting, line in zip(ways, said, strict=True)] == [True] * 6


# --- the real minute ---


class UnhurriedSandbox(Sandbox):
    """A sandbox whose answers take a while, so that a burst does, too.

    The tokens of a burst that is over within the limiter's margin (0.1 s) are back only after all of it was counted:
    then no server refuses any, however it counts.
    """

    async def _take(self, request: web.Request, form: Form) -> Any:
        await asyncio.sleep(0.25)
        return await super()._take(request, form)


@pytest.mark.soak
async def test_the_command_stores_every_row_in_first_hit_and_elastic(
    tmp_path: Path,
) -> None:
    async def upload(counting: Counting) -> tuple[int, dict[str, int], list[str], Summary]:
        folder = tmp_path / counting
        folder.mkdir()
        async with UnhurriedSandbox(api_key=KEY, certifications_api_key=CERTIFICATIONS_KEY, window=counting) as sandbox:
            process = await start("upload", archive(folder, 40), env=environment(sandbox.origin))
            ran = await end(process, within=400)
            return ran.code, table_of(ran.out), stored(sandbox), sandbox.summary()

    first_hit, elastic = await asyncio.gather(upload("first-hit"), upload("elastic"))

    assert first_hit[:3] == (0, outcomes(stored=40), hashes(tmp_path / "first-hit"))
    assert elastic[:3] == (0, outcomes(stored=40), hashes(tmp_path / "elastic"))
    assert first_hit[3].refused_for_speed == 0
    assert 0 < elastic[3].refused_for_speed <= 20
    assert first_hit[3].most_in_any_period == elastic[3].most_in_any_period == 30
