"""How long a program waits until it can begin: imports beside those of aiohttp, and the help beside its libraries.

``python -m benchmarks start`` takes about half a minute. Each way is a whole process, from its start to its end, with
Python itself (the row ``python``). All bytecode is written before the first round that counts, as an installer does it.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import Table, in_turns, medians, parser, publish

__all__ = ["PROGRAMS", "main", "run"]

_AIOHTTP, _PACKAGE, _CLIENT = "import aiohttp", "import springest_async", "from springest_async import Springest"
_TERMINAL, _HELP, _COMMAND = "import cyclopts, rich", "springest --help", "springest upload --help"
_ENTRY = "import sys; from springest_async.cli import main; sys.exit(main())"

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "python": ("-c", "pass"),
    _AIOHTTP: ("-c", _AIOHTTP),
    _PACKAGE: ("-c", _PACKAGE),
    _CLIENT: ("-c", _CLIENT),
    "import httpx": ("-c", "import httpx"),
    "import requests": ("-c", "import requests"),
    _TERMINAL: ("-c", _TERMINAL),
    _HELP: ("-c", _ENTRY, "--help"),
    _COMMAND: ("-c", _ENTRY, "upload", "--help"),
}


def run(program: tuple[str, ...], bytecode: Path) -> float:
    """Run Python with these arguments, and return how many seconds that took.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    begun = time.perf_counter()
    subprocess.run([sys.executable, *program], env=environment, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    return time.perf_counter() - begun


def main(arguments: list[str]) -> int:
    """Print the tables, and return the exit code."""
    options = parser("start", __doc__).parse_args(arguments)
    with TemporaryDirectory() as bytecode:
        ways: dict[str, Callable[[], float]] = {
            name: partial(run, program, Path(bytecode)) for name, program in PROGRAMS.items()
        }
        seconds = in_turns(ways, 5 if options.quick else 21)

    def ratio(name: str, peer: str) -> float:
        return statistics.median(ours / theirs for ours, theirs in zip(seconds[name], seconds[peer], strict=True))

    times = Table(
        key="times",
        title="A process that only starts",
        unit="ms",
        columns=["ms"],
        rows={name: [found * 1000] for name, found in medians(seconds).items()},
    )
    ratios = Table(
        key="ratios",
        title="Ratios of those times",
        unit="×",
        columns=[f"× {_AIOHTTP}", f"× {_TERMINAL}"],
        rows={
            _PACKAGE: [ratio(_PACKAGE, _AIOHTTP), None],
            _CLIENT: [ratio(_CLIENT, _AIOHTTP), None],
            _HELP: [None, ratio(_HELP, _TERMINAL)],
            _COMMAND: [None, ratio(_COMMAND, _TERMINAL)],
        },
        notes=[
            "A name of the package is imported when it is first used; the client is what nearly every program uses.",
            "The help of a command is made by cyclopts; that of a program with one command takes 2.0 times the import.",
        ],
        ceilings={
            (_PACKAGE, f"× {_AIOHTTP}"): 0.5,
            (_CLIENT, f"× {_AIOHTTP}"): 1.7,
            (_HELP, f"× {_TERMINAL}"): 1.6,
        },
    )
    return publish("start", [times, ratios], options)
