"""Whole migrations of real PDFs over real sockets, against servers that count the limit by a clock of their own.

What takes a minute here takes it because the limit does. Each server counts in its own way; Springest does not say
how it counts.
"""

import asyncio
import csv
import hashlib
import os
import sys
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest
from fpdf import FPDF

from springest_async import Journal, Limiter, Settings, Springest, SpringestError
from springest_async.bulk import (
    COLUMNS,
    BulkEvent,
    Manifest,
    RowDone,
    RowStep,
    State,
    UploadQueue,
    load_manifest,
)
from springest_async.sandbox import Sandbox

from .servers.nginx import nginx_in_front_of
from .servers.rails import RailsServer


def make_archive(folder: Path, count: int, certification_id: int) -> Manifest:
    """Make real PDFs, all different, and the manifest beside them."""
    path = folder / "manifest.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.DictWriter(stream, COLUMNS)
        rows.writeheader()
        for number in range(count):
            pdf = FPDF()
            pdf.add_page()
            pdf.set_font("helvetica", size=20)
            pdf.cell(text=f"Certificate {number} of {count}")
            file = folder / f"Zoë {number}.pdf"
            pdf.output(str(file))
            rows.writerow(
                {
                    "file": file.name,
                    "certification_id": certification_id,
                    "email": f"employee{number}@example.org",
                    "valid_from": "2026-01-31",
                }
            )
    return Manifest.open(path)


def hashes(folder: Path) -> Counter[str | None]:
    return Counter(hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.pdf"))


async def springest_upload(manifest: Manifest, server: RailsServer) -> tuple[int, str]:
    """Run the command as a user does; give its exit code and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "springest_async.cli",
        "upload",
        manifest.path,
        env=os.environ
        | {
            "SPRINGEST_HOST": server.origin,
            "SPRINGEST_API_KEY": server.key,
            "SPRINGEST_CERTIFICATIONS_API_KEY": server.certifications_key,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def migrate(
    manifest: Manifest, origin: str, key: str, recorder: "Recorder", *, period: float = 60.0
) -> SpringestError | None:
    """Upload all rows, and see that the journal says of each what was told."""
    async with Journal(manifest.path.with_name("journal.sqlite3")) as journal:
        settings = Settings(limiter=Limiter(period=period, ledger=journal.ledger("a budget")))
        async with Springest(api_key=key, host=origin, settings=settings, journal=journal) as springest:
            migration, _ = await load_manifest(journal, manifest, springest.origin)
            error = await UploadQueue(springest, migration, recorder).run()
            assert await migration.counts() == recorder.states
    return error


@attrs.define
class Recorder:
    """Listens to a run, and keeps when each POST was refused, and what became of each row."""

    steps: list[tuple[float, str]] = attrs.field(factory=list)
    states: Counter[State] = attrs.field(factory=Counter)

    def __call__(self, event: BulkEvent) -> None:
        match event:
            case RowStep():
                self.steps.append((time.monotonic(), event.step.kind))
            case RowDone():
                self.steps.append((time.monotonic(), event.state.value))
                self.states[event.state] += 1

    @property
    def refusals(self) -> list[float]:
        return [when for when, what in self.steps if what == "refused"]


@pytest.mark.soak
@pytest.mark.rails
async def test_rails_with_a_sliding_window_refuses_none_of_forty(tmp_path: Path, rails: RailsServer) -> None:
    manifest = make_archive(tmp_path, 40, certification_id=101)
    code, said = await springest_upload(manifest, rails)
    audit = await rails.audit()
    assert code == 0, said
    assert audit.verdicts() == ["stored"] * 40
    assert Counter(post.sha256 for post in audit.posts) == hashes(tmp_path)
    assert audit.most_in_any_period == 30
    assert audit.posts[-1].arrived - audit.posts[0].arrived <= 66, said
    assert rails.key not in said


@pytest.mark.soak
@pytest.mark.nginx
async def test_nginx_with_strict_spacing_refuses_only_at_the_start(
    tmp_path: Path,
) -> None:
    manifest = make_archive(tmp_path, 16, certification_id=1)
    recorder = Recorder()
    async with Sandbox() as sandbox, nginx_in_front_of(sandbox.origin) as origin:
        assert await migrate(manifest, origin, sandbox.api_key, recorder) is None
        stored = Counter(post.sha256 for post in sandbox.audit if post.verdict == "stored")
        assert stored == hashes(tmp_path)
        assert len(sandbox.audit) == 16
    assert recorder.states == {State.STORED: 16}
    assert 0 < len(recorder.refusals) < 10
    assert recorder.refusals[-1] - recorder.steps[0][0] < 30  # before the silence of a minute that follows on them


@pytest.mark.parametrize("window", ["fixed", "sliding", "bucket", "paced"])
async def test_every_row_is_stored_however_the_server_counts(tmp_path: Path, window: str) -> None:
    # A minute of 3 s: the same arithmetic, 20 times as fast.
    manifest = make_archive(tmp_path, 40, certification_id=1)
    recorder = Recorder()
    async with Sandbox(window=window, period=3.0) as sandbox:  # type: ignore[arg-type] # one of the four
        assert await migrate(manifest, sandbox.origin, sandbox.api_key, recorder, period=3.0) is None
        assert Counter(post.sha256 for post in sandbox.audit if post.verdict == "stored") == hashes(tmp_path)
        summary = sandbox.summary()
    assert recorder.states == {State.STORED: 40}
    assert summary.most_in_any_period <= 30
    assert len(recorder.refusals) == summary.refused_for_speed
    assert summary.refused_for_speed < (10 if window == "paced" else 1)
