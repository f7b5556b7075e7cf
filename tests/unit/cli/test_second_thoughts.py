"""The seconds in which an upload with warnings can still be stopped."""

import asyncio
import io
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from rich.console import Console

from springest_async.cli.upload import _wait_for_second_thoughts

pytestmark = pytest.mark.looptime


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: "\n"))


async def said(monkeypatch: pytest.MonkeyPatch, add_reader: Mock, *, interrupt: bool = False) -> str:
    screen = io.StringIO()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "add_reader", add_reader)
    monkeypatch.setattr(loop, "remove_reader", Mock(side_effect=add_reader.side_effect))
    waiting = asyncio.create_task(_wait_for_second_thoughts(Console(file=screen, width=80, force_terminal=True)))
    if interrupt:
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        await waiting
    return screen.getvalue()


async def test_enter_is_offered_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    words = await said(monkeypatch, Mock())
    assert words == "Starting in 5 seconds. Enter begins at once, Ctrl-C ends without sending anything.\n"


async def test_enter_is_not_offered_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    words = await said(monkeypatch, Mock(side_effect=NotImplementedError))
    assert words == "Starting in 5 seconds. Ctrl-C ends without sending anything.\n"


@pytest.mark.parametrize("side_effect", [None, NotImplementedError])
async def test_ctrl_c_says_that_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch, side_effect: type[Exception] | None
) -> None:
    words = await said(monkeypatch, Mock(side_effect=side_effect), interrupt=True)
    assert words.splitlines()[1:] == ["Nothing was sent."]
