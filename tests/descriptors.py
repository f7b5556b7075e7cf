"""What this process has open: files, sockets and pipes, as Linux tells it, for tests that nothing is left behind."""

import contextlib
from pathlib import Path

__all__ = ["open_descriptors", "open_files", "open_files_in"]


def _links() -> dict[str, Path]:
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the directory itself, closed by now
            found[descriptor.name] = descriptor.readlink()
    return found


def open_files() -> set[str]:
    """Name all, each with its number."""
    return {f"{number} {link}" for number, link in _links().items()}


def open_files_in(folder: Path) -> list[str]:
    """Name the files of a folder that are open."""
    return [str(link) for link in _links().values() if link.is_relative_to(folder)]


def open_descriptors() -> int:
    """Count all."""
    return len(_links())
