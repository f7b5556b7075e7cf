"""What the benchmark `profile` makes of samples and of what its rungs cost. Nothing is timed."""

import asyncio.selector_events
import concurrent.futures.thread
import json.decoder
import linecache
import pathlib
import selectors
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import aiohttp.client
import aiolimiter
import pytest

from benchmarks import rooms, sampling, sink
from benchmarks.peers import AIOHTTP, BULK, BYTES, OURS, WAYS
from benchmarks.profile import ladder, profile
from benchmarks.rooms import FILES, JOURNAL_THREAD, LOOP, function_of, room_of, shares, thread_of
from benchmarks.rungs import BELOW, RUNGS
from benchmarks.sampling import Frame, Stack, sample, stacks_in
from benchmarks.upload import Cell, Found
from springest_async import client, source_file
from springest_async.api import decode
from springest_async.bulk import queue
from springest_async.http import watchdog
from springest_async.journal import group_commit, sqlite
from springest_async.limits import limiter

WRITTEN = """\
Stack (most recent call first):
  File "/a/b.py", line 12 in <listcomp>
  File "<attrs generated methods springest_async.upload.UploadStep>", line 35 in __init__
Stack (most recent call first):
Stack (most recent call first):
  File "/a/b.py", line ??? in main
"""
BOOTSTRAP = Frame(threading.__file__, 1, "_bootstrap")


def frame(module: object, function: str = "run") -> Frame:
    return Frame(str(module.__file__), 1, function)  # type: ignore[attr-defined]


def test_the_stacks_of_faulthandler_are_read() -> None:
    generated = "<attrs generated methods springest_async.upload.UploadStep>"

    assert stacks_in(WRITTEN) == [
        [Frame("/a/b.py", 12, "<listcomp>"), Frame(generated, 35, "__init__")],
        [Frame("/a/b.py", 0, "main")],
    ]


@pytest.mark.parametrize(
    ("stack", "room"),
    [
        ([frame(limiter)], "our `limits/`"),
        ([frame(client)], rooms.OWN),
        ([frame(decode)], "our `api/`, `records.py`"),
        (
            [Frame("<attrs generated methods springest_async.upload.UploadStep>", 1, "__init__"), frame(queue)],
            rooms.OWN,
        ),
        ([Frame("<attrs generated methods springest_async.errors.Fault>", 1, "__init__")], "our `api/`, `records.py`"),
        ([frame(json.decoder), frame(decode), frame(client)], "our `api/`, `records.py`"),
        ([frame(aiohttp.client), frame(client)], "aiohttp"),
        ([frame(aiolimiter), frame(limiter)], "aiolimiter"),
        ([frame(threading), frame(group_commit)], "asyncio"),
        ([Frame("/usr/lib/strange.py", 1, "f")], rooms.OTHER),
    ],
)
def test_a_sample_belongs_to_the_innermost_room(stack: Stack, room: str) -> None:
    assert room_of(stack) == room
    assert room in rooms.ROOMS


@pytest.mark.parametrize(
    ("line", "module", "room"),
    [
        ("return super().send(*args)", watchdog, rooms.SOCKETS),
        ("data = self._sock.recv(self.max_size)", asyncio.selector_events, rooms.SOCKETS),
        ("events = self._selector.poll(timeout, most)", selectors, rooms.SOCKETS),
        ("await self._request.send(connection)", aiohttp.client, "aiohttp"),  # a method that is called so
        ('self._connection.execute("COMMIT")', sqlite, rooms.SQLITE),
        ("self._tasks.execute(task)", queue, "our `bulk/`"),
        ("return os.open(path, flags)", source_file, rooms.DISK),
        ("return os.stat(self, follow_symlinks=follow_symlinks)", pathlib, rooms.DISK),
        ("piece = self._stream.read(PIECE)", source_file, rooms.DISK),
        ("digest = hashlib.sha256(whole)", queue, rooms.HASHES),
    ],
)
def test_what_a_line_calls_in_c_is_told_apart(
    line: str, module: object, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linecache, "getline", lambda *_: f"        {line}\n")

    assert room_of([frame(module), frame(client)]) == room


@pytest.mark.parametrize(
    ("stack", "thread"),
    [
        ([frame(client), frame(asyncio.selector_events)], LOOP),
        ([frame(sqlite), frame(group_commit), BOOTSTRAP], JOURNAL_THREAD),
        ([frame(source_file), frame(concurrent.futures.thread), BOOTSTRAP], FILES),
        ([frame(threading), frame(concurrent.futures.thread), frame(client)], LOOP),  # it hands work to a thread
    ],
)
def test_a_sample_belongs_to_a_thread(stack: Stack, thread: str) -> None:
    assert thread_of(stack) == thread


def test_a_function_is_named_with_its_class_and_file() -> None:
    work = Frame(sink.__file__, sink.Sink.work.__code__.co_firstlineno + 2, "work")
    generated = Frame("<attrs generated methods springest_async.upload.UploadStep>", 3, "__init__")

    assert function_of([work]) == "`Sink.work`, benchmarks/sink.py"
    assert function_of([generated]) == "`UploadStep.__init__`, springest_async/upload.py"
    assert function_of([Frame("<frozen posixpath>", 3, "join")]) == "`join`, <frozen posixpath>"


def test_shares_are_of_all_samples() -> None:
    stacks = [[frame(client)], [frame(limiter)], [frame(limiter)], [frame(sqlite), BOOTSTRAP]]

    assert shares(stacks, room_of)["our `limits/`"] == 50
    assert shares(stacks, thread_of, stacks[2:]) == {LOOP: 25, JOURNAL_THREAD: 25}


def test_each_rung_stands_on_another() -> None:
    assert set(BELOW) == set(RUNGS) - {BYTES}
    assert all(list(RUNGS).index(below) < list(RUNGS).index(name) for name, below in BELOW.items())


def test_a_ladder_shows_costs_steps_and_ratios() -> None:
    costs = {name: [float(number), float(number)] for number, name in enumerate(RUNGS, 1)}
    found = {name: Found([1.0, 1.0], cpu, [0.1, 0.1]) for name, cpu in costs.items()}

    ladders = {table.key: table for table in ladder({Cell(50_000, 8): found})}

    assert ladders["ladder"].rows[BYTES] == [1.0]
    steps = ladders["steps"].rows
    assert steps[f"{AIOHTTP}, beside {BYTES}"] == [1000.0]
    assert ladders["ratios"].rows[AIOHTTP] == [1.0]
    assert ladders["ratios"].rows[BULK] == [costs[AIOHTTP][0] / costs[BULK][0]]


def test_a_profile_shows_threads_rooms_and_functions() -> None:
    stacks: list[Stack] = [[frame(client)], [frame(limiter)], [frame(limiter)], [frame(sqlite), BOOTSTRAP]]

    tables = {table.key: table for table in profile({"an upload": stacks[:3], "a bulk run": stacks})}

    assert tables["threads"].rows == {LOOP: [100, 75], JOURNAL_THREAD: [0, 25], FILES: [0, 0]}
    assert tables["rooms"].columns == ["an upload: event loop", "a bulk run: event loop", "a bulk run: journal"]
    assert tables["rooms"].rows["our `limits/`"] == [pytest.approx(200 / 3), 50, 0]
    assert "aiohttp" not in tables["rooms"].rows
    assert "3 samples of an upload, 4 samples of a bulk run." in tables["rooms"].notes
    assert [numbers[1] for numbers in tables["functions-run"].rows.values()] == [50, 75, 100]


def ending(codes: list[int], text: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a stand-in for `subprocess.run`, whose processes write this text and end with these codes."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        Path(command[6]).write_text(text, encoding="utf-8")
        return subprocess.CompletedProcess(command, codes.pop(0))

    return run


def test_another_client_goes_on_for_one_that_ended_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ending([-11, 0], WRITTEN))

    found = sample(OURS, "http://sink", tmp_path, size=1, in_flight=1, samples=3)

    assert found == [*stacks_in(WRITTEN)[:1], *stacks_in(WRITTEN)]


@pytest.mark.parametrize("codes", [[1], [-11] * 300])
def test_clients_that_fail_are_an_error(codes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ending(codes, ""))

    with pytest.raises(RuntimeError, match="only 0 samples"):
        sample(OURS, "http://sink", tmp_path, size=1, in_flight=1, samples=3)


def test_what_is_sampled_is_a_way_of_the_comparison() -> None:
    assert {OURS, BULK} <= WAYS.keys()
    assert sampling.stacks_in("") == []
