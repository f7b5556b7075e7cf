"""The commands of ``--on-finish`` and ``--on-trouble``, as processes of the platform's shell."""

import asyncio
import json
import os
import shlex
from pathlib import Path

import pytest

from springest_async.cli.hooks import hook_environment, run_hook
from tests.waiting import A_WHILE, until


async def hooked(command: str, *, seconds: float = A_WHILE) -> tuple[str, list[str]]:
    """Run a hook, and return what went wrong and what it has written."""
    lines: list[str] = []
    return await run_hook(command, {"event": "end"}, lines.append, seconds=seconds), lines


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # What has ended and was not waited for still has its number.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_it_gets_the_summary_and_its_lines_are_shown() -> None:
    assert await hooked("cat; echo to stderr >&2") == ("", ['{"event": "end"}', "to stderr"])


async def test_it_need_not_read() -> None:
    assert await hooked("true") == ("", [])


async def test_a_failure_is_told() -> None:
    assert await hooked("echo half; exit 3") == ("ended with exit code 3", ["half"])


async def test_a_command_that_does_not_exist_is_a_failure() -> None:
    failure, lines = await hooked("no-such-command-at-all")

    assert failure == "ended with exit code 127"
    assert "not found" in lines[0]


async def test_one_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = f"echo so far; echo $$ > {pids}; sh -c 'echo $$ >> {pids}; exec sleep 600' & wait"

    for seconds in (1, 4, 16, 64):
        failure, lines = await hooked(command, seconds=seconds)
        started = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
        if len(started) == 2:  # a busy machine may need longer to start them
            break

    assert (failure, lines) == (f"took longer than {seconds} seconds, and was ended", ["so far"])
    await until(lambda: not any(map(is_alive, started)))


async def test_one_that_is_given_up_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(hooked(f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"))
    await until(pid.exists)
    task.cancel()
    await asyncio.wait([task])

    await until(lambda: not is_alive(int(pid.read_text())))


async def test_a_child_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    assert await hooked(f"sleep 600 & echo $! > {pid}") == ("", [])
    os.kill(int(pid.read_text()), 9)


async def test_endless_output_is_cut() -> None:
    failure, lines = await hooked("head -c 10000000 /dev/zero | tr '\\0' x")

    assert failure == ""
    assert sum(map(len, lines)) == 64 * 1024


def test_neither_keys_nor_addresses_are_in_its_environment() -> None:
    kept = {"PATH": "/bin", "SPRINGEST_HOST": "nl", "HTTPS_PROXY": "http://proxy.example", "KEY": "other"}
    secret = {
        "SPRINGEST_API_KEY": "a",
        "SPRINGEST_CERTIFICATIONS_API_KEY": "b",
        "springest_api_key": "c",
        "SPRINGEST_KEY_OLD": "d",
        "SPRINGEST_JOURNAL": "e",
        "SPRINGEST_PING": "f",
        "PGPASSWORD": "g",
    }

    assert hook_environment(kept | secret) == kept


async def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)

    assert await hooked("true") == ("cannot be run: No space left on device", [])


async def test_what_it_gets_is_one_line_of_json(tmp_path: Path) -> None:
    got = tmp_path / "got"
    await run_hook(f"cat > {shlex.quote(str(got))}", {"words": "a\nb “c”"}, print)

    assert json.loads(got.read_text()) == {"words": "a\nb “c”"}
    assert got.read_text().count("\n") == 1
