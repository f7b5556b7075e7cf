"""Uploads that are paused, resumed and stopped as somebody asked, as real processes; the clock of some is put forward.

libfaketime puts it forward for a process that runs already, as a machine's clock is after a sleep.
"""

import asyncio
import re
import signal
from pathlib import Path

import pytest

from tests.pdfs import archive, hashes
from tests.waiting import until

from .command import (
    HeldSandbox,
    end,
    environment,
    noted,
    outcomes,
    springest,
    springest_sandbox,
    start_attentive,
    stored,
    table_of,
    until_said,
)
from .servers.postgresql import Database

IN_FLIGHT = 8  # how many the command sends at once
A_MOMENT = 0.5
"""Seconds, in which a run that is not paused sends all that there is to send."""


# --- pause and resume ---


async def test_a_pause_finishes_uploads_and_goes_on_when_resumed(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 13)
    async with HeldSandbox() as sandbox:
        process = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.held == IN_FLIGHT)
        paused = await springest("pause", manifest)
        again = await springest("pause", manifest)
        said = await until_said(process, "Paused since")
        sandbox.go_on.set()
        await until(lambda: noted(manifest) == outcomes(stored=9, waiting=4))
        await asyncio.sleep(A_MOMENT)
        assert len(sandbox.audit) == 9
        silent = await springest("pause", manifest)
        told, listed = await springest("status", manifest), await springest("status")
        resumed = await springest("resume", manifest)
        await until_said(process, "Resumed after")
        ran = await end(process)
        too_late, not_paused = await springest("pause", manifest), await springest("resume", manifest)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=13))
    assert stored(sandbox) == hashes(tmp_path)
    assert (paused.code, again.code, told.code, resumed.code) == (0, 0, 0, 0)
    resume = f"springest resume {manifest}"
    assert said.endswith(f": nothing more is sent until: {resume} (Ctrl-C ends this run, and not the pause)\n")
    assert paused.out.startswith("Paused.\nA run on ")
    assert "is uploading: within seconds nothing more is sent. What is being sent is finished, and rows" in paused.out
    assert paused.out.endswith(f"\nTo go on: {resume}\n")
    assert again.out.startswith("It is paused already, since ")
    assert " is uploading: within seconds nothing more is sent." in again.out
    assert re.fullmatch(r"It is paused already, since .+\nA run on .+ is waiting\.\nTo go on: .+\n", silent.out)
    assert f": nothing is sent until: {resume}\nA run on " in told.out
    assert "is waiting.\n" in told.out
    assert re.search(r"  paused +9 of 13  ", listed.out)
    assert resumed.out.startswith("Resumed, after ")
    assert resumed.out.endswith(" is uploading again within seconds.\n")
    assert too_late.out == "Nothing is left to pause: every row is stored, rejected or failed.\n"
    assert not_paused.out == "It is not paused.\n"


async def test_a_run_that_begins_in_a_pause_waits_and_can_be_ended(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 40)
    async with springest_sandbox() as sandbox:
        process = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.summary().stored == 30)
        process.send_signal(signal.SIGINT)
        await end(process)
        paused = await springest("pause", manifest)
        process = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until_said(process, "Paused since")
        process.send_signal(signal.SIGINT)
        ran = await end(process)
        resumed = [await springest("resume", manifest) for _ in range(2)]

    assert (ran.code, table_of(ran.out)) == (130, outcomes(stored=30, waiting=10))
    assert f"It is still paused, so that run waits too, until: springest resume {manifest}\n" in ran.err
    assert "Nothing uploads it now. A springest upload that is started waits.\n" in paused.out
    assert resumed[0].out.startswith("Resumed, after ")
    assert resumed[1].out.startswith("It is not paused.\n")
    assert all(each.out.endswith(f"To continue: springest upload {manifest}\n") for each in resumed)


@pytest.mark.postgresql
async def test_all_machines_of_a_journal_are_paused(tmp_path: Path, database: Database) -> None:
    manifest = archive(tmp_path, 33)
    async with springest_sandbox() as sandbox:
        machines = [
            environment(sandbox.origin, SPRINGEST_JOURNAL=database.url, XDG_STATE_HOME=str(tmp_path / name))
            for name in ("one", "other")
        ]
        processes = [await start_attentive("upload", manifest, env=env) for env in machines]
        await until(lambda: sandbox.summary().stored == 30)
        paused = await springest("pause", manifest, SPRINGEST_JOURNAL=database.url)
        for process in processes:
            await until_said(process, "Paused since")
        resumed = await springest("resume", manifest, SPRINGEST_JOURNAL=database.url)
        for process in processes:
            await until_said(process, "Resumed after")
            process.send_signal(signal.SIGINT)
        ran = [await end(process) for process in processes]

    assert [each.code for each in ran] == [130, 130]
    assert "2 runs on " in paused.out
    assert " are uploading again within seconds.\n" in resumed.out
    assert len(sandbox.audit) == 30


@pytest.mark.parametrize("command", ["pause", "resume"])
async def test_a_manifest_that_was_never_uploaded_cannot_be_paused(tmp_path: Path, command: str) -> None:
    async with springest_sandbox() as sandbox:
        await springest("upload", archive(tmp_path, 1), origin=sandbox.origin)
    (other := tmp_path / "other.csv").write_text("file\n")
    ran = await springest(command, other)

    assert (ran.code, ran.out) == (2, "")
    assert "nothing of this manifest is in the journal" in ran.err


# --- stopped as asked ---


async def with_a_clock(env: dict[str, str], clock: Path) -> dict[str, str]:
    """Return the environment of a process whose clock on the wall is ahead by what the file says."""
    asking = await asyncio.create_subprocess_exec(
        *("faketime", "-f", "+0", "printenv", "LD_PRELOAD"), stdout=asyncio.subprocess.PIPE
    )
    library, _ = await asking.communicate()
    return env | {
        "LD_PRELOAD": library.decode().strip(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "TZ": "Europe/Amsterdam",
    }


@pytest.mark.faketime
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--max-duration", "9h30m", "after 9 h 30 min (--max-duration)"), ("--until", "07:00", " 07:00 (--until)")],
)
async def test_a_run_stops_by_the_clock_on_the_wall(tmp_path: Path, option: str, value: str, said: str) -> None:
    """It sleeps a day while it sends; then a Ctrl-C changes nothing."""
    manifest, clock = archive(tmp_path, 13), tmp_path / "clock"
    clock.write_text("+0\n")
    async with HeldSandbox() as sandbox:
        env = await with_a_clock(environment(sandbox.origin), clock)
        process = await start_attentive("upload", manifest, option, value, env=env)
        assert (await until_said(process, "Stops by itself")).endswith(f"{said}.\n")
        await until(lambda: sandbox.held == IN_FLIGHT)
        clock.write_text("+1d\n")
        line = await until_said(process, "Stopping")
        process.send_signal(signal.SIGINT)
        await until_said(process, "Stopping: finishing the uploads in progress. Press Ctrl-C again to abort.")
        sandbox.go_on.set()
        ran = await end(process)
        second = await springest("upload", manifest, origin=sandbox.origin)

    assert line.startswith("Stopping ")
    assert line.endswith(f"{said}: finishing the uploads in progress. Press Ctrl-C twice to abort.\n")
    assert (ran.code, table_of(ran.out)) == (130, outcomes(stored=9, waiting=4))
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=13))
    assert stored(sandbox) == hashes(tmp_path)


async def test_a_run_of_some_seconds_stops_in_a_wait(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 33)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, "--max-duration", "2s", origin=sandbox.origin)

    waiting = table_of(ran.out)["waiting"]
    assert ran.code == 5
    assert waiting >= 3
    assert table_of(ran.out) == outcomes(stored=33 - waiting, waiting=waiting)
    assert "\nStopping after 2 s (--max-duration): finishing the uploads in progress." in ran.err
    assert f"\nWaiting: {waiting} rows. Run the same command again to continue.\n" in ran.err


async def test_a_run_that_fails_too_often_stops(tmp_path: Path) -> None:
    """As when all certifications of a manifest are wrong. What is in flight is rejected, too."""
    manifest = archive(tmp_path, 25, changes={number: {"certification_id": "99"} for number in range(1, 26)})
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", manifest, "--max-failures", "2", "--yes"),
            origin=sandbox.origin,
            SPRINGEST_CERTIFICATIONS_API_KEY=None,
        )

    found = table_of(ran.out)
    assert ran.code == 5
    assert 2 <= found["rejected"] <= 2 + 2 * IN_FLIGHT
    assert found == outcomes(rejected=found["rejected"], waiting=25 - found["rejected"])
    assert "Stops by itself when 2 rows cannot be stored (--max-failures).\n" in ran.err
    assert "rows could not be stored (--max-failures): finishing the uploads in progress." in ran.err
    assert "Not stored: " in ran.err


async def test_a_run_that_is_done_has_the_code_of_its_rows(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3, changes={2: {"certification_id": "99"}})
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", manifest, "--max-failures", "1", "--max-duration", "8h"),
            origin=sandbox.origin,
            SPRINGEST_CERTIFICATIONS_API_KEY=None,
        )

    assert (ran.code, table_of(ran.out)) == (1, outcomes(stored=2, rejected=1))


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--until", "7 o'clock", "write a time of the day, such as 07:00 or 19:30"),
        ("--max-duration", "8", "write hours, minutes or seconds, such as 8h, 90m or 1h30m"),
        ("--max-failures", "0", "needs a number of rows, 1 or more"),
        ("--max-failures", "many", "many"),
    ],
)
async def test_an_option_that_means_nothing_is_refused_first(
    tmp_path: Path, option: str, value: str, expected: str
) -> None:
    ran = await springest("upload", tmp_path / "none.csv", option, value)

    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert ran.err.count("\n") == 1
