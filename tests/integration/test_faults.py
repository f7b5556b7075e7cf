"""Each fault of the catalogue, on real sockets, has the outcome that it must have, and docs/faults.md says so."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from springest_async import Limiter
from springest_async.api.protocol import Answer
from springest_async.http.transport import Transport

from .faults import catalogue, table
from .faults.catalogue import KEY, Fault, Outcome, World, measure
from .faults.groups import GROUPS
from .loops import on_uvloop
from .raw_server import created, raw_server

CATALOGUE = [fault for faults in GROUPS.values() for fault in faults]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[getattr(pytest.mark, need) for need in fault.needs])
        for fault in CATALOGUE
    ],
)
async def test_a_fault_has_the_outcome_that_the_document_tells(fault: Fault, tmp_path: Path) -> None:
    outcome = await measure(fault, tmp_path)

    if fault.hangs_up and on_uvloop():
        # There a broken connection may hide the answer (docs/faults.md); `measure` has seen that what is said is true.
        assert outcome.certificate in {fault.expected.certificate, "in doubt", "not stored"}
        return
    assert outcome == fault.expected
    assert table.row(fault, outcome) in table.documented().splitlines()


async def test_a_fault_that_shows_the_key_is_seen(tmp_path: Path) -> None:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with raw_server(created) as server:
            yield World(server.origin, settings={"limiter": Talkative()})

    class Talkative(Limiter):
        def post(self, **options: Any) -> Any:
            logging.getLogger("somebody").debug("with %s", KEY)
            return super().post(**options)

    with pytest.raises(AssertionError, match="log of somebody"):
        await measure(Fault(name="a limiter that talks", happens=happens, expected=Outcome("stored")), tmp_path)


async def test_a_client_that_sends_everything_twice_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    posts = Transport.post

    async def posts_twice(transport: Transport, *arguments: Any, **options: Any) -> Answer:
        await posts(transport, *arguments, **options)
        return await posts(transport, *arguments, **options)

    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        async with raw_server(created) as server:
            yield World(server.origin, posts=lambda: len(server.exchanges))

    monkeypatch.setattr(Transport, "post", posts_twice)
    with pytest.raises(AssertionError, match="2 POSTs came, and the client tells of 1"):
        await measure(Fault(name="nothing", happens=happens, expected=Outcome("stored")), tmp_path)


@pytest.mark.parametrize("left", ["nothing", "a task", "an open file", "a second certificate"])
async def test_what_a_fault_leaves_behind_is_seen(left: str, tmp_path: Path) -> None:
    with ExitStack() as afterwards:

        @asynccontextmanager
        async def happens() -> AsyncIterator[World]:
            if left == "a task":
                afterwards.callback(asyncio.create_task(asyncio.sleep(60)).cancel)
            if left == "an open file":
                afterwards.enter_context((tmp_path / "certificate 0.pdf").open("rb"))
            async with raw_server(created) as server:
                yield World(server.origin, lambda: 2 if left == "a second certificate" else 1)

        measured = measure(Fault(name=left, happens=happens, expected=Outcome("stored")), tmp_path)
        with nullcontext() if left == "nothing" else pytest.raises(AssertionError):
            await measured


async def test_a_fault_that_hangs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def happens() -> AsyncIterator[World]:
        await asyncio.get_running_loop().create_future()
        yield World("http://localhost")

    monkeypatch.setattr(catalogue, "_LONGEST", 0.1)
    with pytest.raises(TimeoutError) as caught:
        await measure(Fault(name="it hangs", happens={"for ever": happens}, expected=Outcome("stored")), tmp_path)

    assert caught.value.__notes__ == ["it hangs: for ever"]


@pytest.mark.parametrize(
    ("told", "cell"),
    [
        ("", ""),
        ("api_key=*** <b> &#80;", "`api_key=*** <b> &#80;`"),
        ("`ls`", "`` `ls` ``"),
        ("a|b\nc", r"`a\|b c`"),
    ],
)
def test_a_table_shows_what_is_read_as_it_is(told: str, cell: str) -> None:
    fault = Fault(name="nothing", happens={}, expected=Outcome("in doubt"))

    assert (
        table.row(fault, Outcome("in doubt", 1, "InDoubt", told)) == f"| nothing | in doubt | 1 | `InDoubt` | {cell} |"
    )


def test_the_document_tells_of_each_fault_and_of_no_other() -> None:
    # Each outcome is the expected one, or the test above fails.
    expected = {name: [(fault, fault.expected) for fault in faults] for name, faults in GROUPS.items()}

    assert table.documented() == table.written(expected)
