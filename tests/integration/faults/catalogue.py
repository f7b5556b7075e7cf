"""What a fault is, how it is made to happen to an upload, and what came of it.

A fault's `World` is all that stands around the client: servers and lines that are up while one certificate is
uploaded, and what they know of it. `measure` uploads, and gives what a user of `Springest.upload` gets: nothing in it
depends on the time, a port or a random number, so that it can stand in a table.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import evolve, field, frozen

from springest_async import (
    CertificateUpload,
    InDoubt,
    Limiter,
    Rejected,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    UploadStep,
)
from tests.integration.canary import CERTIFICATIONS_KEY, KEY, Witness, watching
from tests.integration.wire import PATIENT
from tests.waiting import A_WHILE, leaping_clock

__all__ = ["IMPATIENT", "KEY", "LARGE", "SMALL", "Fault", "Happening", "Outcome", "World", "is_open", "measure"]

SMALL = 20_000
"""Bytes of a certificate that leaves in one piece, without asking first."""
LARGE = 3_000_000
"""Bytes of one that asks first (``Expect: 100-continue``), leaves in several pieces, and fills every buffer."""

IMPATIENT = Timeouts(connect=1.0, answer=1.0, stall=1.0)
"""For who goes on saying something that is no answer: only a real wait ends that."""
# For silences on a loop whose clock cannot leap over them.
_LESS_PATIENT = Timeouts(connect=15.0, answer=15.0, stall=15.0)
# In seconds of the loop's clock, for one world: many things happen in it. What hangs must fail.
_LONGEST = 10 * A_WHILE
# The minute of the limit on a clock that cannot leap: silences after a 400 that says nothing last as long.
_SHORT_PERIOD = 0.5


@frozen
class World:
    """What the client meets: the `origin` to upload to, with these settings, and what is known there.

    `stored` tells how many certificates were stored; a world without it keeps none, and is a script. `posts` tells how
    many POSTs came, or connections of which each is for one, in a world where all that leave arrive.
    """

    origin: str
    stored: Callable[[], int] | None = None
    settings: dict[str, Any] = field(factory=dict)
    posts: Callable[[], int] | None = field(default=None, kw_only=True)


Happening = Callable[[], AbstractAsyncContextManager[World]]


@frozen
class Outcome:
    """What came of an upload.

    `certificate` is what the client says of it: ``stored``, ``not stored``, ``rejected`` or ``in doubt``. `tries` is
    how often it was sent, or a connection for it was tried; `error` the name of the error that was raised, and `told`
    what that says. Where a fault has several worlds, “…” stands in it for the name of each.
    """

    certificate: str
    tries: int = 1
    error: str = ""
    told: str = ""


@frozen(kw_only=True)
class Fault:
    """Something that goes wrong, in the words of the table, and the outcome that it must have.

    `happens` makes the world in which it does, or several, by names of their own, that must all have this outcome.
    `timeouts` are the client's. `needs` are servers that must be installed (see `servers`). `hangs_up` says whether the
    server may break the connection right behind an answer.
    """

    name: str
    happens: Happening | Mapping[str, Happening]
    expected: Outcome
    size: int = SMALL
    timeouts: Timeouts = PATIENT
    needs: tuple[str, ...] = ()
    hangs_up: bool = False


async def measure(fault: Fault, folder: Path) -> Outcome:
    """Upload a certificate of the fault's size from this folder while it happens, and say what came of it.

    Whatever happens: what the client says of the certificate is true, it is stored once at most, it was sent as often
    as the client says, neither a task nor an open file is left behind, and the key is in nothing that is shown.
    """
    ways = fault.happens if isinstance(fault.happens, Mapping) else {"": fault.happens}
    tasks = asyncio.all_tasks()
    # The clock does not know what another process is about to say.
    clock = nullcontext(False) if fault.needs else leaping_clock()
    with clock as leaps, watching() as witness, patch("springest_async.upload.backoff", lambda _: 0.01):
        if fault.timeouts is PATIENT and not leaps and not fault.needs:
            fault = evolve(fault, timeouts=_LESS_PATIENT)
        period = 60.0 if leaps else _SHORT_PERIOD
        each = [
            _in_one_way(fault, way, folder / f"certificate {number}.pdf", witness, period)
            for number, way in enumerate(ways)
        ]
        # All at once: most of them wait for somebody.
        ended = await asyncio.gather(*each, return_exceptions=True)
    for end in ended:
        if isinstance(end, BaseException):
            raise end
    assert witness.leaks == [], witness.leaks[:5]
    assert asyncio.all_tasks() == tasks
    outcomes = dict(zip(ways, ended, strict=True))
    found = set(outcomes.values())
    assert len(found) == 1, outcomes
    return found.pop()  # type: ignore[return-value] # the errors among them are raised above


async def _in_one_way(fault: Fault, way: str, file: Path, witness: Witness, period: float) -> Outcome:
    happens = fault.happens[way] if isinstance(fault.happens, Mapping) else fault.happens
    try:
        async with asyncio.timeout(_LONGEST):
            outcome = await _measured(fault, happens, file, witness, period)
    except Exception as error:
        error.add_note(f"{fault.name}: {way}")
        raise
    return evolve(outcome, told=outcome.told.replace(way, "…")) if way else outcome


async def _measured(fault: Fault, happens: Happening, file: Path, witness: Witness, period: float) -> Outcome:
    # Random bytes, so that no layer below can make them fewer.
    content = b"%PDF-1.7\n" + random.Random(fault.name).randbytes(fault.size - 9)
    await asyncio.to_thread(file.write_bytes, content)
    upload = CertificateUpload(file=file, certification_id=1, email="jan@example.org", valid_from=date(2026, 1, 31))
    tries = 0

    def listen(step: UploadStep) -> None:
        nonlocal tries
        tries += step.kind == "sending"

    async with happens() as world:
        options: dict[str, Any] = {"limiter": Limiter(period=period), "timeouts": fault.timeouts}
        async with Springest(
            api_key=KEY,
            certifications_api_key=CERTIFICATIONS_KEY,
            host=world.origin,
            settings=Settings(**options | world.settings),
        ) as client:
            witness.trace(client)
            try:
                witness.look_at("receipt", await client.upload(upload, listener=listen))
                outcome = Outcome("stored", tries)
            except SpringestError as error:
                witness.look_at_error("error", error)
                outcome = Outcome(_claim(error), tries, type(error).__name__, _told(error, world.origin, file.parent))
            witness.look_at("client", client)
    # The servers have gone, so nothing can be stored any more.
    if world.stored is not None:
        truth = world.stored()
        assert truth in {"stored": {1}, "in doubt": {0, 1}}.get(outcome.certificate, {0}), (outcome, truth)
    if world.posts is not None:
        assert (came := world.posts()) == tries, f"{came} POSTs came, and the client tells of {tries}"
    assert not is_open(file)
    return outcome


def is_open(file: Path) -> bool:
    """Return whether this process has a file open."""
    return file in {link.resolve() for link in Path("/proc/self/fd").iterdir()}


def _claim(error: SpringestError) -> str:
    match error:
        case InDoubt():
            return "in doubt"
        case Rejected():
            return "rejected"
        case _:
            return "not stored"


def _told(error: SpringestError, origin: str, folder: Path) -> str:
    # An InDoubt's whole text names the time; its reason is what tells one from another.
    told = (
        f"{error.reason} ({error.words})"
        if isinstance(error, InDoubt) and error.words
        else (error.reason if isinstance(error, InDoubt) else str(error))
    )
    return told.replace(f"POST {origin}/users/certificates.json", "POST …").replace(str(folder), "…")
