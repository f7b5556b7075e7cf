"""What machines are told of a run: the log, with all events that its page has, and when somebody is called."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from springest_async import ConfigurationError, NotAuthorized
from springest_async.bulk import (
    Entry,
    Outage,
    OutageOver,
    Paused,
    Resumed,
    RowDone,
    RowSettling,
    RowStep,
    RunRecorder,
    State,
)
from springest_async.cli import run
from springest_async.cli.console import say, to_stderr
from springest_async.cli.exit_codes import Exit
from springest_async.cli.json_log import JsonLog, wants_json_log
from springest_async.cli.machine_options import MachineOptions
from springest_async.cli.machines import Machines
from springest_async.cli.stop_options import StopOptions
from springest_async.cli.stops import Stops
from springest_async.errors import JournalError, UnusableFile
from springest_async.journal.status import MigrationStatus
from springest_async.upload import UploadStep
from tests.doubts import doubt
from tests.machine_docs import EVENTS, faults_of_event
from tests.statuses import status_of
from tests.virtual import run_at_once

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def row(number: int | None) -> Entry:
    return Entry(
        id=number or 0,
        number=number,
        file="jan@example.org.pdf",
        path=Path("jan@example.org.pdf"),
        certification_id=7,
        email="jan@example.org",
        valid_from=date(2026, 1, 31),
        valid_until=None,
        conversion_id=None,
        origin="https://springest.example",
        state=State.WAITING,
    )


class Run:
    """A run that never was, told to machines in virtual time.

    `lines` are the objects of its `log`; `reads` is how often its status was read.
    """

    def __init__(self, stream: io.StringIO, log: JsonLog, machines: Machines, err: Console) -> None:
        self._stream = stream
        self.log = log
        self.machines = machines
        self.err = err
        self.reads = 0
        self.fails = False

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    async def read(self) -> MigrationStatus:
        self.reads += 1
        if self.fails:
            raise JournalError("a journal", "is away")
        return status_of(waiting=3, stored=self.reads)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        async with self.machines.told_from(self.read, RunRecorder()):
            yield

    async def end(self, code: Exit = Exit.STORED) -> None:
        async def command() -> Exit:
            return code

        assert await self.machines.tell_end_of(command()) is code


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run_at_once(monkeypatch)
    monkeypatch.setattr("signal.signal", lambda *_: None)


@asynccontextmanager
async def a_run(**options: Any) -> AsyncIterator[Run]:
    stream = io.StringIO()
    with redirect_stderr(JsonLog(stream)) as log:
        err = Console(stderr=True)
        async with Machines(Path("x.csv"), MachineOptions(**options), Stops(StopOptions()), err) as machines:
            yield Run(stream, log, machines, err)


@pytest.mark.looptime
async def test_each_event_of_the_page_is_written_as_it_says() -> None:
    async with a_run() as run:
        run.log.event("findings", kinds=[])
        run.log.event(
            "plan",
            **dict.fromkeys(("rows", "to_send", "bytes", "stored_before", "rejected_before", "in_doubt", "faulty"), 1),
            listed=None,
            certifications=[],
            posts_per_minute=30,
            seconds=2,
            done_at="2026-01-31T00:00:00+00:00",
        )
        async with run.going():
            for event in (
                RowStep(row(2), UploadStep("sending", 1, NOW)),
                RowStep(row(2), UploadStep("refused", 1, NOW, 400, "no jan@example.org", request_id="a1")),
                RowSettling(row(None)),
                RowDone(row(2), State.IN_DOUBT, error=doubt()),
                RowDone(row(3), State.FAILED, error=UnusableFile(Path("jan@example.org.pdf"), "is gone")),
                RowDone(row(4), State.STORED, stored_before=True),
                Outage(0.0, "no connection", "refused", 8.0),
                Outage(0.0, "no connection", "refused", None),
                OutageOver("no connection", "refused", 9.0),
                Paused(NOW),
                Resumed(3.0),
            ):
                run.machines(event)
            await asyncio.sleep(61)
        say(run.err, "Stopping.")
        await run.end(Exit.IN_DOUBT)
        run.log.write_end(Exit.IN_DOUBT)

    assert [fault for line in run.lines for fault in faults_of_event(line)] == []
    assert {line["event"] for line in run.lines} == EVENTS
    assert "example.org" not in json.dumps(run.lines)
    assert run.lines[-1]["exit_code"] == 3


@pytest.mark.looptime
async def test_an_outage_is_trouble_after_ten_minutes_and_once() -> None:
    async with a_run() as run, run.going():
        for _ in range(2):
            run.machines(Outage(asyncio.get_running_loop().time(), "no connection", "refused", None))
            await asyncio.sleep(599)
            before = len(run.events("trouble"))
            await asyncio.sleep(2)
            run.machines(OutageOver("no connection", "refused", 601))

    (trouble,) = run.events("trouble")
    assert before == 1  # of the first outage
    assert (trouble["trouble"], trouble["words"]) == ("outage", "no connection for 10 min (refused)")


@pytest.mark.looptime
async def test_short_outages_are_no_trouble() -> None:
    async with a_run() as run, run.going():
        for _ in range(5):
            run.machines(Outage(asyncio.get_running_loop().time(), "no connection", "refused", None))
            await asyncio.sleep(500)
            run.machines(OutageOver("no connection", "refused", 500))

    assert run.events("trouble") == []


@pytest.mark.looptime
async def test_only_the_first_row_in_doubt_is_trouble() -> None:
    async with a_run() as run, run.going():
        run.machines(RowDone(row(2), State.IN_DOUBT, error=doubt()))
        run.machines(RowDone(row(3), State.IN_DOUBT, error=doubt()))
        await asyncio.sleep(1)

    (trouble,) = run.events("trouble")
    assert trouble["words"] == "row 2: no answer within the time allowed"


@pytest.mark.looptime
async def test_a_doubt_of_no_row_is_trouble_too() -> None:
    async with a_run() as run, run.going():
        run.machines(RowDone(row(None), State.IN_DOUBT, error=doubt()))
        await asyncio.sleep(1)

    (trouble,) = run.events("trouble")
    assert trouble["words"] == "a certificate of an earlier run: no answer within the time allowed"


async def test_a_refused_key_is_trouble_before_the_run_began() -> None:
    async def command() -> Exit:
        raise NotAuthorized("GET https://springest.example/certifications.json", 401, "")

    async with a_run() as run:
        with pytest.raises(NotAuthorized):
            await run.machines.tell_end_of(command())
        run.log.write_end(4)

    (trouble,) = run.events("trouble")
    assert (trouble["trouble"], trouble["status"]) == ("key_refused", None)
    assert "401" in trouble["words"]
    assert run.lines[-1]["error"] == trouble["words"]


@pytest.mark.looptime
async def test_the_status_is_read_each_minute_and_no_more() -> None:
    async with a_run() as run, run.going():
        await asyncio.sleep(601)

    assert len(run.events("progress")) == 10
    assert run.reads == 11


@pytest.mark.looptime
async def test_a_slow_journal_gets_ten_times_the_rest() -> None:
    async with a_run() as run:
        read = run.read

        async def slow() -> MigrationStatus:
            await asyncio.sleep(20)
            return await read()

        run.read = slow  # type: ignore[method-assign]
        async with run.going():
            await asyncio.sleep(2000)

    assert run.reads <= 1 + 2000 / 220 + 1
    assert len(run.events("progress")) > 20


@pytest.mark.looptime
async def test_without_the_journal_the_last_status_is_told() -> None:
    async with a_run() as run, run.going():
        run.fails = True
        await asyncio.sleep(61)

    (progress,) = run.events("progress")
    assert progress["status"]["counts"]["stored"] == 1


@pytest.mark.looptime
async def test_metrics_are_written_every_15_seconds_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    async with a_run(metrics=path) as run:
        async with run.going():
            await asyncio.sleep(1)
            path.unlink()
            await asyncio.sleep(15)
            assert "springest_run_exit_code" not in path.read_text()
        await run.end(Exit.NOT_ALL)

    labels = 'file="x.prom",host="https://api.springest.nl",manifest="x.csv",migration="7"'
    assert f"springest_run_exit_code{{{labels}}} 1.0" in path.read_text()


@pytest.mark.looptime
async def test_metrics_that_cannot_be_written_are_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with a_run(metrics=folder / "x.prom") as run:
        folder.rmdir()
        async with run.going():
            await asyncio.sleep(60)
        await run.end()

    (said,) = run.events("message")
    assert "The upload goes on." in said["words"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("upload x.csv --log-format json", True),
        ("upload --log-format=json x.csv", True),
        ("upload x.csv --log-format text", False),
        ("upload x.csv", False),
        ("check x.csv --log-format json", False),
        ("", False),
    ],
)
def test_who_wants_a_log_of_json(arguments: str, wanted: bool) -> None:
    assert wants_json_log(arguments.split()) is wanted


def test_a_fault_of_usage_is_one_object_too() -> None:
    stream = io.StringIO()
    with redirect_stderr(stream):
        code = run(["upload", "x.csv", "--log-format", "json", "--burst", "7"])

    (end,) = map(json.loads, stream.getvalue().splitlines())
    assert (code, end["exit_code"]) == (2, 2)
    assert "--burst" in end["error"]
    assert faults_of_event(end) == []


def test_a_bug_is_one_object_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.cli.app.run_command", lambda _: 1 // 0)
    stream = io.StringIO()
    with redirect_stderr(stream):
        code = run(["upload", "x.csv", "--log-format", "json"])

    message, end = map(json.loads, stream.getvalue().splitlines())
    assert (code, end["exit_code"]) == (1, 1)
    assert "ZeroDivisionError" in message["words"]


def test_no_variable_makes_the_log_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    with redirect_stderr(JsonLog(stream)) as log:
        err = to_stderr()
        with err.status("working"):
            say(err, "a line", "bold red")
        err.print("[bold]half", end="")
        log.flush_line()

    assert [json.loads(line)["words"] for line in stream.getvalue().splitlines()] == ["a line", "half"]


@pytest.mark.parametrize(
    "address",
    [
        "http://ping.example/token-1",
        "https://me:token-1@ping.example/",
        "token-1",
        "https://",
        "ftp://ping.example/token-1",
        "https://ping.example:0/token-1",
    ],
)
async def test_an_address_that_cannot_be_pinged_is_not_shown(address: str) -> None:
    with pytest.raises(ConfigurationError, match="must be one such as https://") as caught:
        async with a_run(ping=address):
            pass
    assert "token-1" not in str(caught.value)
