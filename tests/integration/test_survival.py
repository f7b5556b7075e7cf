"""Migrations that are killed again and again, and several at once, on one budget: nothing lost, nothing twice.

Real processes, killed with SIGKILL, against a sandbox that drops answers and answers 500 before and after storing.
Most of it runs in a minute of 3 s: the same arithmetic, 20 times as fast.
"""

import asyncio
import contextlib
import csv
import hashlib
import os
import random
import signal
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from springest_async.bulk import COLUMNS, JournalReader, State, default_path
from springest_async.sandbox import Mishap, Sandbox
from tests.pdfs import certificate

from .migration import command

VERIFIED, UNVERIFIED, UNKNOWN = "1", "3", "99"
MOMENTS = ("never", "never", "never", "before-sending", "after-sending", "before-outcome", "after-outcome")


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

    def states(self) -> dict[str, State]:
        """Return the state of each certificate by the hash of its file."""
        with JournalReader.open(default_path(self.manifest)) as journal:
            assert journal.counts().total() == len(self.rows)
            return {self.hash_of(entry.file): entry.state for entry in journal.entries()}

    def waiting(self) -> int:
        if not default_path(self.manifest).exists():
            return 0
        with JournalReader.open(default_path(self.manifest)) as journal:
            return journal.counts()[State.WAITING]

    def hash_of(self, file: str) -> str:
        return hashlib.sha256((self.folder / file).read_bytes()).hexdigest()


async def begin(lane: Lane, sandbox: Sandbox, limits: Path, moment: str = "never", after: int = 0) -> Process:
    process = await asyncio.create_subprocess_exec(
        *command(lane.manifest, sandbox.origin, limits, moment=moment, after=after), stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()  # it begins
    return process


async def end(process: Process) -> int:
    _, err = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode


async def run_and_kill(lane: Lane, sandbox: Sandbox, limits: Path, kills: int) -> None:
    """Run the migration until it has been killed so often, and once more to its end."""
    while lane.kills < kills:
        lane.grow(max(0, 15 - lane.waiting()))
        moment = lane.chance.choice(MOMENTS)
        process = await begin(lane, sandbox, limits, moment, after=lane.chance.randint(1, 4))
        try:
            async with asyncio.timeout(lane.chance.uniform(0.0, 1.2)):
                await process.wait()
        except TimeoutError:
            # `Process.kill` would first look whether it has ended, and if it just has, take its status from asyncio.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        lane.kills += await end(process) == -signal.SIGKILL
    assert await end(await begin(lane, sandbox, limits)) == 0


def mishaps(seed: int) -> Callable[[], Mishap | None]:
    chance = random.Random(seed)
    return lambda: chance.choices((None, *Mishap), (80, 5, 5, 5, 5))[0]


async def survive(folder: Path, kills: int, seed: int) -> None:
    lanes = [Lane(folder, name, random.Random(f"{seed} {name}")) for name in ("anna", "bert", "cleo")]
    async with Sandbox(period=3.0, mishap=mishaps(seed)) as sandbox:
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(run_and_kill(lane, sandbox, folder / "limits.sqlite3", kills // len(lanes) + 1))
        stored = Counter(post.sha256 for post in sandbox.audit if post.verdict == "stored")
        summary = sandbox.summary()

    assert sum(lane.kills for lane in lanes) >= kills
    assert set(stored.values()) == {1}  # none is stored twice
    for lane in lanes:
        kinds = {lane.hash_of(row["file"]): row["certification_id"] for row in lane.rows}
        states = lane.states()
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


async def test_killed_again_and_again_nothing_is_lost_or_stored_twice(tmp_path: Path) -> None:
    await survive(tmp_path, kills=6, seed=1)


@pytest.mark.soak
async def test_killed_200_times_nothing_is_lost_or_stored_twice(tmp_path: Path) -> None:
    await survive(tmp_path, kills=200, seed=2)


async def test_four_processes_share_one_budget_and_none_starves(tmp_path: Path) -> None:
    lanes = [Lane(tmp_path, name, random.Random(name)) for name in ("anna", "bert", "cleo", "dora")]
    for lane in lanes:
        lane.grow(45)
    async with Sandbox(period=3.0) as sandbox:
        limits = tmp_path / "limits.sqlite3"
        processes = await asyncio.gather(*(begin(lane, sandbox, limits) for lane in lanes))
        assert [await end(process) for process in processes] == [0, 0, 0, 0]
        summary = sandbox.summary()
        whose = [post.fields["email"][:4] for post in sandbox.audit]

    assert summary.most_in_any_period <= 30
    assert summary.refused_for_speed == 0
    for lane in lanes:
        assert set(lane.states().values()) <= {State.STORED, State.REJECTED}
    # Whoever is there first takes the first thirty; in the middle of the run all have their share.
    middle = Counter(whose[60:150])
    assert min(middle[lane.name] for lane in lanes) >= 12, middle
