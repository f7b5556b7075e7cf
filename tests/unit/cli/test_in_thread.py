"""Work in a thread, whose end nobody has to wait for."""

import asyncio
import gc
import io
import threading

import pytest
from rich.console import Console

from springest_async.cli.in_thread import GoOn, in_thread
from springest_async.errors import ConfigurationError


def err() -> Console:
    return Console(file=io.StringIO())


async def test_result_is_that_of_the_thread() -> None:
    def work(go_on: GoOn) -> str:
        go_on()
        return threading.current_thread().name

    assert await in_thread(work, str, err()) == "springest-check"


async def test_error_is_that_of_the_thread() -> None:
    def work(_: GoOn) -> None:
        raise ConfigurationError("no space")

    with pytest.raises(ConfigurationError, match="no space"):
        await in_thread(work, str, err())


async def test_thread_ends_when_nobody_waits_any_more(caplog: pytest.LogCaptureFixture) -> None:
    began, ended = threading.Event(), threading.Event()

    def work(go_on: GoOn) -> None:
        try:
            while True:
                began.set()
                go_on()
        finally:
            ended.set()

    task = asyncio.create_task(in_thread(work, str, err()))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(ended.wait)
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []


async def test_a_disk_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.cli.in_thread._PATIENCE", 0.0)
    began, answers = threading.Event(), threading.Event()

    def work(_: GoOn) -> None:
        began.set()
        answers.wait()

    task = asyncio.create_task(in_thread(work, str, err()))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answers.set()
