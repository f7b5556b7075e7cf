"""Samples of what a client does with its processor time: the stack of the thread that runs, once a tick of its clock.

`faulthandler` writes it in the handler of SIGPROF, which the system sends to the thread whose time it is. So a thread
has as many samples as is its share of the processor time, what waits has none, and an upload costs a few hundredths
more than without.
(A profiler in another process sees which threads could run, not which one does, and stops the client at its next system
call; one that is called by each function makes small functions look dear.)

The handler may find a stack just when the interpreter changes it, and that ends the process: seldom, once in thousands
of samples, but on Python 3.13.0 once in dozens. So a client is a process of its own (``python -m`` this module), what
it has written until then counts, and another one goes on.
"""

import argparse
import faulthandler
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from benchmarks.peers import WAYS, Job
from benchmarks.sink import keep_to_a_core
from benchmarks.upload import uploads_within, write_pdf

__all__ = ["Frame", "Stack", "sample", "stacks_in"]

_HEADER = "Stack (most recent call first):"
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
_TICK = 0.004  # seconds of processor time; few systems look more often than that
_SLICE = 0.5  # seconds of uploads between two looks at how many samples there are
_CLIENTS = 200  # at most, if they end early


@frozen
class Frame:
    """A function that runs, or that has called the frame before it."""

    file: str
    line: int
    function: str


Stack = Sequence[Frame]
"""The frames of one sample, the innermost first."""


def stacks_in(text: str) -> list[Stack]:
    """Return the stacks that `faulthandler` has written; one that it could not read is left out."""
    stacks: list[Stack] = []
    for block in text.split(_HEADER)[1:]:
        frames = [
            Frame(found["file"], int(found["line"]) if found["line"].isdigit() else 0, found["function"])
            for found in map(_FRAME.fullmatch, block.splitlines())
            if found
        ]
        if frames:
            stacks.append(frames)
    return stacks


def sample(way: str, origin: str, folder: Path, *, size: int, in_flight: int, samples: int) -> list[Stack]:
    """Upload in a way of `peers` until there are so many samples, and return them.

    Args:
        way: its name.
        origin: the address of the sink.
        folder: where the client can keep files.
        size: of each certificate, in bytes.
        in_flight: how many uploads at once.
        samples: how many there are to be at least.

    Raises:
        RuntimeError: when a client failed, or too many ended early.
    """
    found: list[Stack] = []
    for number in range(_CLIENTS):
        path = folder / f"stacks-{number}.txt"
        arguments = [way, origin, str(folder), str(path), str(size), str(in_flight), str(samples - len(found))]
        command = [sys.executable, "-m", "benchmarks.sampling", *arguments]
        code = subprocess.run(command, check=False, cwd=Path(__file__).parents[1]).returncode  # noqa: S603
        if code not in (0, -signal.SIGSEGV, -signal.SIGBUS):
            break
        stacks = stacks_in(path.read_text(encoding="utf-8", errors="replace"))
        found += stacks if code == 0 else stacks[:-1]  # the last one is cut off
        if len(found) >= samples:
            return found
    raise RuntimeError(f"there are only {len(found)} samples, and the last client has ended with {code}")


# --- the process ---


def _upload(way: str, job: Job, path: Path, samples: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_to_a_core(0)
    with WAYS[way](job) as prepare, path.open("wb", buffering=0) as stream:
        uploads = uploads_within(prepare, job.in_flight, _SLICE)
        # faulthandler changes `errno`, which a system call may just have set; it is put back if there is a handler
        # before, and this one does nothing.
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        faulthandler.register(signal.SIGPROF, stream, all_threads=False, chain=True)
        while path.read_bytes().count(_HEADER.encode()) < samples:
            upload = prepare(uploads)
            signal.setitimer(signal.ITIMER_PROF, _TICK, _TICK)
            upload()
            signal.setitimer(signal.ITIMER_PROF, 0.0)


def _serve() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("origin")
    parser.add_argument("folder", type=Path)
    parser.add_argument("path", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("in_flight", type=int)
    parser.add_argument("samples", type=int)
    options = parser.parse_args()
    file = options.folder / "certificate.pdf"
    write_pdf(file, options.size)
    job = Job(origin=options.origin, file=file, in_flight=options.in_flight, folder=options.folder)
    _upload(options.way, job, options.path, options.samples)


if __name__ == "__main__":
    _serve()
