"""Thousands of uploads through all kinds of faults: each is what it is said to be, and nothing at all is left of them.

The server and the lines to it that break are in a process of their own, so that what is counted here is the client's
alone.
"""

import asyncio
import contextlib
import gc
import os
import random
import threading
from collections import Counter
from contextlib import AbstractAsyncContextManager
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from springest_async import (
    CancelledTooLate,
    CertificateUpload,
    InDoubt,
    Limiter,
    Receipt,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    UploadStep,
)
from springest_async.http.body import CertificateBody
from springest_async.limits.permit import Permit
from springest_async.sandbox import Mishap
from springest_async.upload import Upload
from tests.descriptors import open_descriptors
from tests.waiting import until

from .faults.proxy import Cut, Direction, Line
from .sandbox_process import SandboxProcess, sandbox_process

KEY = "key-of-the-tests"
SEED = 20260131
AT_ONCE = 50
SIZES = (2_000, 2_000, 2_000, 20_000, 20_000, 120_000, 700_000)
CUTS: tuple[Cut, ...] = ("closed", "reset", "half closed", "silent")
FIRST_AID, NEEDS_AN_END = 1, 2  # of the sandbox's certifications


# --- the other process: a sandbox, and bad lines to it ---


def a_line(luck: random.Random) -> Line:
    """Return a line that is good three times of four, and otherwise cut anywhere on the way up or down."""
    if luck.random() < 0.75:
        return Line()
    cut = luck.choices(CUTS, (40, 40, 15, 5))[0]
    if luck.random() < 0.7:
        return Line(up=Direction(cut_after=luck.choice((luck.randrange(3_000), luck.randrange(200_000))), cut=cut))
    return Line(down=Direction(cut_after=luck.randrange(300), cut=cut))


def server(uploads: int) -> AbstractAsyncContextManager[SandboxProcess]:
    """Run the other process, with more mishaps and bad lines than so many uploads meet."""
    luck = random.Random(SEED)
    mishaps = [luck.choice(list(Mishap)) if luck.random() < 0.06 else None for _ in range(2 * uploads)]
    lines = [a_line(luck) for _ in range(2 * uploads)]
    return sandbox_process(api_key=KEY, limit=10**9, mishaps=mishaps, lines=lines)


# --- the client's side ---


def claim(outcome: object) -> str:
    """Return what an upload's end says of its certificate."""
    if isinstance(outcome, TimeoutError):
        outcome = outcome.__cause__
    if isinstance(outcome, asyncio.CancelledError):
        outcome = outcome.__cause__
    match outcome:
        case Receipt() | CancelledTooLate():
            return "stored"
        case InDoubt():
            return "in doubt"
        case SpringestError() | None:  # None: cancelled before it began
            return "not stored"
    raise AssertionError(outcome)


async def upload_one(number: int, client: Springest, nowhere: Springest, folder: Path, luck: random.Random) -> object:
    """Upload a certificate of its own with something wrong with it or its caller, at times; give how it ended."""
    path = folder / f"{number}.pdf"
    path.write_bytes(b"%PDF-1.7\n" + luck.randbytes(luck.choice(SIZES)))
    trouble = luck.choices(
        ("none", "cancelled", "timed out", "changed", "gone", "missing", "invalid", "refused"),
        (60, 12, 12, 4, 3, 2, 4, 3),
    )[0]
    upload = CertificateUpload(
        file=path,
        certification_id=NEEDS_AN_END if trouble == "invalid" else FIRST_AID,
        email=f"employee{number}@example.org",
        valid_from=date(2026, 1, 31),
    )
    if trouble == "missing":
        path.unlink()

    def listen(step: UploadStep) -> None:
        if step.kind == "sending" and trouble == "changed":
            path.write_bytes(b"%PDF-1.7\nchanged")
        if step.kind == "sending" and trouble == "gone":
            path.unlink(missing_ok=True)

    call = (nowhere if trouble == "refused" else client).upload(upload, listener=listen)
    try:
        if trouble == "timed out":
            async with asyncio.timeout(luck.choice((0.0, 0.01, 0.05, 0.2))):
                return await call
        task = asyncio.create_task(call)
        if trouble == "cancelled":
            await asyncio.sleep(luck.choice((0.0, 0.01, 0.05, 0.2)))
            task.cancel()
        await asyncio.wait([task])
        return task.result()
    except (SpringestError, TimeoutError, asyncio.CancelledError) as outcome:
        return outcome
    finally:
        path.unlink(missing_ok=True)


OURS = (Upload, CertificateBody, Permit)


def left() -> dict[str, Any]:
    """Count all that an upload could leave behind in this process."""
    gc.collect()
    return {
        "files": open_descriptors(),
        "tasks": len(asyncio.all_tasks()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "objects": Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, OURS)),
    }


async def assert_left(expected: dict[str, Any]) -> None:
    """See that no more than this is left, when the thread has ended."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: left() == expected)
    assert left() == expected


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("uploads", [500, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_uploads_through_all_faults_end_as_reported(
    uploads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.upload.backoff", lambda _: 0.002)
    limiter = Limiter(posts=10**6, period=0.5, requests_per_hour=10**10)
    settings = Settings(limiter=limiter, timeouts=Timeouts(connect=1.0, answer=1.0, stall=1.0))
    claims, ended, memory = dict[int, str](), Counter[str](), list[int]()
    luck = random.Random(SEED)
    before = left()
    async with server(uploads) as sandbox:
        open_server = left()
        async with (
            Springest(api_key=KEY, host=sandbox.origin, settings=settings) as client,
            Springest(api_key=KEY, host="http://127.0.0.1:1", settings=settings) as nowhere,
        ):
            numbers = iter(range(uploads))

            async def work() -> None:
                for number in numbers:
                    outcome = await upload_one(number, client, nowhere, tmp_path, luck)
                    claims[number] = claim(outcome)
                    ended[type(outcome).__name__] += 1
                    if number in (uploads // 2, uploads - 1):
                        del outcome
                        gc.collect()
                        memory.append(resident())

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work())
            await asyncio.sleep(2.0)  # the last tokens rest for the time that an answer may take, and their period
            assert " 0 under way, 0 resting" in repr(limiter)
            for springest in (client, nowhere):
                for session in springest._transport._sessions.values():
                    assert isinstance(session.connector, aiohttp.TCPConnector)
                    assert not session.connector._acquired
        await assert_left(open_server)
    await assert_left(before)

    stored = Counter(post.fields["email"] for post in sandbox.audit if post.certificate_id is not None)
    truth = {number: stored[f"employee{number}@example.org"] for number in claims}
    allowed = {"stored": {1}, "in doubt": {0, 1}, "not stored": {0}}
    assert {number: truth[number] for number in claims if truth[number] not in allowed[claims[number]]} == {}
    assert len(claims) == uploads
    assert ended.keys() == {
        "Receipt",
        "InDoubt",
        "NotSent",
        "Rejected",
        "UnusableFile",
        "CancelledError",
        "TimeoutError",
    }
    assert memory[1] < 1.2 * memory[0]
