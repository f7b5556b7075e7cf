"""A named pipe that is put in a file's place: to open it as one opens a file waits for a writer, for ever."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")


def becomes_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def let_go(path: Path) -> None:
    """Release those who wait for a writer at this pipe, so that a test fails and does not hang."""
    with suppress(OSError):  # it may be something else by now
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def without_waiting(path: Path, function: Callable[[], Result]) -> Result:
    """Call a function that must not wait for a writer at this pipe."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        called = executor.submit(function)
        try:
            return called.result(timeout=5)
        finally:
            while not called.done():
                let_go(path)


def swap_after_a_look(monkeypatch: pytest.MonkeyPatch, path: Path, swap: Callable[[Path], Any], looks: int = 1) -> None:
    """Swap a file as soon as so many have looked at it (``stat``), before they can open it."""
    really_look = Path.stat
    left = iter(range(looks, 0, -1))

    def look_and_swap(looked_at: Path, **options: Any) -> os.stat_result:
        status = really_look(looked_at, **options)
        if looked_at == path and next(left, None) == 1:
            swap(path)
        return status

    monkeypatch.setattr(Path, "stat", look_and_swap)
