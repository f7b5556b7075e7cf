"""Migrations that are killed again and again, on one journal and one budget: nothing lost, nothing stored twice.

Real processes, killed with SIGKILL, against a sandbox that drops answers and answers 500 before and after storing, in
a minute of 3 s: the same arithmetic, 20 times as fast.
"""

import asyncio
import contextlib
import csv
import hashlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from springest_async import Journal
from springest_async.bulk import COLUMNS, Manifest, OpenMigration, State, source_of
from springest_async.sandbox import Mishap, Sandbox
from tests.pdfs import certificate

from .migration import IDLE, MOMENTS, PERIOD, begin, end
from .servers.postgresql import Database

VERIFIED, UNVERIFIED, UNKNOWN = "1", "3", "99"
LANES = ("anna", "bert", "cleo")


@attrs.define
class Lane:
    """An archive that grows and is sorted anew while it is migrated, and the kills that its migration has seen."""

    folder: Path
    name: str
    chance: random.Random
    rows: list[dict[str, str]] = attrs.field(factory=list)
    kills: int = 0

    @property
    def manifest(self) -> Path:
        return self.folder / f"{self.name}.csv"

    def grow(self, count: int) -> None:
        for _ in range(count):
            number = len(self.rows) + 1
            file = self.folder / f"{self.name} {number}.pdf"
            file.write_bytes(certificate(f"{self.name} {number}"))
            kind = self.chance.choices((VERIFIED, UNVERIFIED, UNKNOWN), (90, 7, 3))[0]
            person = f"{self.name}{number}@example.org"
            values = (file.name, kind, person, "2026-01-31", "", "")
            self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        shown = self.chance.sample(self.rows, len(self.rows)) if self.chance.random() < 0.2 else self.rows
        with self.manifest.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(shown)

    async def states(self, where: Path | str, origin: str) -> dict[str, State]:
        """Return the state of each certificate by the hash of its file; none before the first run has loaded it."""
        async with Journal(where) as journal:
            migration = await OpenMigration.find(
                journal, source_of(Manifest.open(self.manifest), origin, journal.machine)
            )
            if migration is None:
                return {}
            entries = await migration.entries(limit=len(self.rows) + 1)
        return {self.hash_of(entry.file): entry.state for entry in entries}

    def hash_of(self, file: str) -> str:
        return hashlib.sha256((self.folder / file).read_bytes()).hexdigest()


async def run_and_kill(lane: Lane, sandbox: Sandbox, journal: Path | str, kills: int) -> None:
    """Run the migration until it has been killed so often, and once more to its end."""
    lane.grow(15)
    while lane.kills < kills:
        states = await lane.states(journal, sandbox.origin)
        done = sum(state is not State.WAITING for state in states.values())
        lane.grow(max(0, 15 - len(lane.rows) + done))
        # The moments of its own are seldom reached in time when all processes wait for a token.
        moment = lane.chance.choice(("never", *MOMENTS))
        options = ("--moment", moment, "--after", str(lane.chance.randint(1, 4)))
        process = await begin(lane.manifest, sandbox.origin, journal, *options)
        try:
            async with asyncio.timeout(lane.chance.uniform(0.0, 1.2)):
                await process.wait()
        except TimeoutError:
            # `Process.kill` would first look whether it has ended, and if it just has, take its status from asyncio.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        lane.kills += await end(process) == -signal.SIGKILL
    assert await end(await begin(lane.manifest, sandbox.origin, journal)) == 0


def mishaps(seed: int) -> Callable[[], Mishap | None]:
    chance = random.Random(seed)
    return lambda: chance.choices((None, *Mishap), (80, 5, 5, 5, 5))[0]


async def survive(folder: Path, journal: Path | str, *, kills: int, seed: int) -> None:
    lanes = [Lane(folder, name, random.Random(f"{seed} {name}")) for name in LANES]
    async with Sandbox(period=PERIOD, body_timeout=IDLE, mishap=mishaps(seed)) as sandbox:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(run_and_kill(lane, sandbox, journal, kills // len(lanes) + 1))
        found = [await lane.states(journal, sandbox.origin) for lane in lanes]
        stored = Counter(post.sha256 for post in sandbox.audit if post.verdict == "stored")
        summary = sandbox.summary()

    assert sum(lane.kills for lane in lanes) >= kills
    assert set(stored.values()) == {1}  # none is stored twice
    for lane, states in zip(lanes, found, strict=True):
        kinds = {lane.hash_of(row["file"]): row["certification_id"] for row in lane.rows}
        assert states.keys() == kinds.keys()  # none is lost
        for sha256, state in states.items():
            match state:
                case State.STORED:
                    assert stored[sha256] == 1
                case State.REJECTED:
                    assert (stored[sha256], kinds[sha256]) == (0, UNKNOWN)
                case State.IN_DOUBT:
                    assert kinds[sha256] != VERIFIED  # Springest shows nothing of these, so nobody can tell
                case State.FAILED:
                    assert stored[sha256] == 0  # four times there was no answer
                case _:
                    raise AssertionError(f"nothing should be {state.value} at the end")
    assert summary.most_in_any_period <= 30
    assert summary.refused_for_speed == 0


async def test_killed_a_few_times_nothing_is_lost_or_stored_twice(tmp_path: Path) -> None:
    await survive(tmp_path, tmp_path / "journal.sqlite3", kills=2, seed=1)


@pytest.mark.soak
async def test_killed_200_times_on_sqlite(tmp_path: Path) -> None:
    """Nothing is lost, nothing is stored twice, and the limit is kept."""
    await survive(tmp_path, tmp_path / "journal.sqlite3", kills=200, seed=2)


@pytest.mark.soak
@pytest.mark.postgresql
async def test_killed_200_times_on_postgresql(tmp_path: Path, database: Database) -> None:
    """Nothing is lost, nothing is stored twice, and the limit is kept."""
    await survive(tmp_path, database.url, kills=200, seed=3)
