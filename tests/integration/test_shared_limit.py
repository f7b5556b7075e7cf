"""One budget for the machine: real processes share a real file, some are killed, and no period holds more than 30.

Six seconds stand for the minute. Who is later than a tenth of it is taken for dead and loses its turn, and on a busy
machine any process soon is late by a fifth of a second.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen

from springest_async.sandbox.audit import most_in_any
from tests.waiting import A_WHILE

PERIOD = 6.0
COUNTED_WITHIN = 1.0
FORGOTTEN = COUNTED_WITHIN + PERIOD + 0.1 + 2 * PERIOD / 10  # seconds after which a killed process holds nothing

WORKER = """
import asyncio, os, sys, time
from pathlib import Path
from springest_async.limits.limiter import Limiter
from springest_async.limits.store import FileStore

async def main(name, store, log, period, at_once, lasting):
    limiter = Limiter(posts=30, period=float(period), store=FileStore(Path(store), "a budget"))
    out = os.open(log, os.O_WRONLY | os.O_APPEND)

    def note(what):
        os.write(out, f"{name} {what} {time.monotonic()!r}\\n".encode())

    async def work():
        while True:
            async with limiter.post(count_window=1.0, bulk=True) as turn:
                note("sent")
                await asyncio.sleep(float(lasting))
                note("answered")
                turn.mark_answered()

    await asyncio.gather(*(work() for _ in range(int(at_once))))

asyncio.run(main(*sys.argv[1:]))
"""


@frozen
class Event:
    """One line of the log that all processes write."""

    name: str
    what: str
    at: float


@frozen
class Machine:
    """What starts processes that post, and reads what they did."""

    folder: Path
    stack: ExitStack

    def start(self, name: str, *, at_once: int, lasting: float = 0.02) -> subprocess.Popen[bytes]:
        process = self.stack.enter_context(
            subprocess.Popen(
                [
                    *(sys.executable, "-c", WORKER, name),
                    *(str(self.folder / "state" / "limits.sqlite3"), str(self.log)),
                    *map(str, (PERIOD, at_once, lasting)),
                ]
            )
        )
        self.stack.callback(process.kill)
        return process

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def events(self) -> list[Event]:
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [Event(name, what, float(at)) for name, what, at in lines]

    def sent(self, *, since: float = 0.0, until: float = float("inf")) -> list[Event]:
        return [event for event in self.events() if event.what == "sent" and since <= event.at <= until]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + A_WHILE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def most(self) -> int:
        """Return the most POSTs that any period held, by whichever end of each the server counts."""
        times = {what: [event.at for event in self.events() if event.what == what] for what in ("sent", "answered")}
        return max(most_in_any(sorted(each), PERIOD) for each in times.values())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        machine = Machine(tmp_path, stack)
        machine.log.touch()
        yield machine


@pytest.mark.soak
def test_processes_keep_one_limit_and_each_gets_its_turns(machine: Machine) -> None:
    for name in ("a", "b", "c"):
        machine.start(name, at_once=8)
    machine.wait_until(lambda: len({event.name for event in machine.sent()}) == 3)
    began = time.monotonic()
    time.sleep(3 * PERIOD)

    shares = Counter(event.name for event in machine.sent(since=began))

    assert machine.most() == 30
    assert shares.total() >= 60
    assert min(shares[name] for name in "abc") >= 3  # first come, first served: at least one a period


@pytest.mark.soak
def test_a_process_that_starts_late_gets_its_turns(machine: Machine) -> None:
    machine.start("first", at_once=8)
    machine.wait_until(lambda: len(machine.sent()) >= 30)
    machine.start("late", at_once=8)
    machine.wait_until(lambda: any(event.name == "late" for event in machine.sent()))
    began = time.monotonic()
    time.sleep(3 * PERIOD)

    shares = Counter(event.name for event in machine.sent(since=began))

    assert machine.most() == 30
    assert shares["late"] >= 3


@pytest.mark.soak
@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_what_a_killed_process_held_comes_back_by_itself(machine: Machine) -> None:
    hanging = machine.start("hanging", at_once=20, lasting=3600.0)
    machine.wait_until(lambda: len(machine.sent()) == 20)
    waiting = machine.start("waiting", at_once=8)
    machine.wait_until(lambda: len(machine.sent()) == 30)
    # It lives for longer than its tokens would last without it.
    time.sleep(FORGOTTEN + 0.5)
    held = machine.sent()
    killed_at = time.monotonic()
    hanging.send_signal(signal.SIGKILL)
    hanging.wait()
    time.sleep(FORGOTTEN + 2 * PERIOD)
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()

    # Twenty were held all the time that it lived, and as long as the server may have counted them.
    assert most_in_any(sorted(event.at for event in held if event.name == "waiting"), PERIOD) <= 10
    late = machine.sent(since=killed_at)
    assert most_in_any(sorted(e.at for e in late if e.at < killed_at + COUNTED_WITHIN + PERIOD), PERIOD) <= 10
    assert most_in_any(sorted(event.at for event in late), PERIOD) == 30
    assert machine.most() == 30


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_restart_forgets_nothing(machine: Machine) -> None:
    for round_ in range(3):
        process = machine.start(f"run {round_}".replace(" ", "-"), at_once=30, lasting=0.2)
        machine.wait_until(lambda round_=round_: len(machine.sent()) >= 20 * (round_ + 1))  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert machine.most() <= 30
