"""Commands that ``springest upload`` runs at the end or in trouble: ``--on-finish`` and ``--on-trouble``.

They run through the platform's shell, get the summary of the run as JSON on stdin, and neither the keys nor the address
of the journal. They cannot stop a run or change its exit code.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

HOOK_SECONDS = 30.0
"""How long a hook may take; then it is killed, with its children."""

_OUTPUT_SHOWN = 64 * 1024  # bytes
_SECRETS = frozenset({"SPRINGEST_JOURNAL", "SPRINGEST_PING", "PGPASSWORD"})


async def run_hook(
    command: str, summary: Mapping[str, Any], show: Callable[[str], None], *, seconds: float = HOOK_SECONDS
) -> str:
    """Run a hook, and return what went wrong with it, or an empty text.

    Args:
        command: for the platform's shell.
        summary: what it gets on stdin.
        show: called with each line that it has written, to stdout or stderr, when it has ended.
        seconds: how long it may take.
    """
    try:
        # Files, because a pipe would have to be emptied for as long as any child of it lives.
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
            told.write(json.dumps(summary).encode() + b"\n")
            told.seek(0)
            process = await asyncio.create_subprocess_shell(
                command, stdin=told, stdout=said, stderr=said, env=hook_environment(os.environ), start_new_session=True
            )
            failure = await _ended(process, seconds)
            said.seek(0)
            for line in said.read(_OUTPUT_SHOWN).decode(errors="replace").splitlines():
                show(line)
            return failure
    except OSError as error:
        return f"cannot be run: {error.strerror}"


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            code = await process.wait()
    except TimeoutError:
        await _kill(process)
        return f"took longer than {seconds:.0f} seconds, and was ended"
    except BaseException:
        await _kill(process)
        raise
    return f"ended with exit code {code}" if code else ""


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a hook with its children."""
    if sys.platform == "win32":
        await asyncio.to_thread(
            subprocess.run,
            ["taskkill", "/T", "/F", "/PID", str(process.pid)],
            capture_output=True,
            check=False,
        )
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def hook_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a hook: all but those with keys and with the addresses of the journal and the ping."""

    def is_secret(name: str) -> bool:
        return name in _SECRETS or (name.startswith("SPRINGEST_") and "KEY" in name)

    return {name: value for name, value in variables.items() if not is_secret(name.upper())}
