"""The process's stdout and stderr as files: opened where they are closed, and given up where they cannot be written."""

import os
import sys
from contextlib import suppress
from typing import TextIO


def make_streams() -> None:
    """Open stdout and stderr if they are closed (``>&-``), so that no file of ours gets their descriptors."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # never closed
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", closefd=False))


def forget(stream: TextIO) -> None:
    """Drop what could not be written to a stream; Python would try again at exit, and print an error."""
    with suppress(OSError, ValueError):  # a stream without a descriptor has nothing to flush at exit
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
