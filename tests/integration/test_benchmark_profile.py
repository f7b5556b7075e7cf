"""The rungs of the benchmark `profile` upload what they are asked to, and a client is sampled. Nothing is timed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import BULK, WAYS, Job
from benchmarks.rooms import JOURNAL_THREAD, LOOP, OTHER, room_of, thread_of
from benchmarks.rungs import RUNGS
from benchmarks.sampling import sample
from benchmarks.sink import Sink
from benchmarks.upload import write_pdf


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.mark.parametrize("name", [name for name in RUNGS if name not in WAYS])
def test_each_rung_uploads_what_it_is_asked_to(name: str, sink: Sink, tmp_path: Path) -> None:
    file = tmp_path / "certificate.pdf"
    write_pdf(file, 100_000)
    before = sink.work().posts

    with RUNGS[name](Job(origin=sink.origin, file=file, in_flight=2, folder=tmp_path)) as prepare:
        for uploads in (5, 3):
            prepare(uploads)()

    assert sink.work().posts - before == 8
    assert list(tmp_path.iterdir()) == [file]


def test_a_bulk_run_is_sampled_in_its_threads(sink: Sink, tmp_path: Path) -> None:
    stacks = sample(BULK, sink.origin, tmp_path, size=50_000, in_flight=8, samples=60)

    assert len(stacks) >= 60
    assert {LOOP, JOURNAL_THREAD} <= set(map(thread_of, stacks))
    assert [room_of(stack) for stack in stacks].count(OTHER) < len(stacks) / 2
