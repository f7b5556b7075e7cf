"""What all tests share: a small PDF, a limiter that no other test has, and aiohttp's sessions with scripted answers."""

import asyncio
import gc
import importlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest
from aioresponses import aioresponses
from hypothesis import settings

from springest_async import CertificateUpload, Limiter, Settings, Springest
from springest_async.journal import sqlite

# A busy machine is no fault of the code under test.
settings.register_profile("springest", deadline=None)
settings.load_profile("springest")


class _EagerPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 # Python 3.12 or newer has it
        return loop


def pytest_configure() -> None:
    """Run all tests on the event loop that SPRINGEST_TESTS_LOOP names: ``uvloop``, or ``eager`` tasks (`make soak`)."""
    match os.environ.get("SPRINGEST_TESTS_LOOP"):
        case "uvloop":
            asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())
        case "eager":
            asyncio.set_event_loop_policy(_EagerPolicy())


@pytest.fixture(scope="session", autouse=True)
def _a_loop_that_is_closed() -> Iterator[None]:
    """Set an event loop before looptime asks for one: asyncio would make it one that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture(scope="session", autouse=True)
def _a_collector_that_is_quick() -> None:
    """Keep the collector from looking through the thousands of tests themselves, which takes it half a second.

    So long an event loop would stand still, in tests of who waits how long for whom.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """Restore Ctrl-C and the end of a terminal for the processes that tests start.

    They ignore what we ignore: a shell that runs us in the background has us all ignore the one, nohup the other. What
    we have a handler for is as it is by default for them, and we outlive our terminal all the same.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _the_disk_need_not_turn() -> Iterator[None]:
    """Flush no disk in this process: no test cuts the power, and a busy disk needs a hundred times as long as SQLite.

    The processes that tests start flush it as usual.
    """
    with patch("springest_async.journal.sqlite._PRAGMAS", ("synchronous = OFF", *sqlite._PRAGMAS[1:])):
        yield


def pdf_of(text: str) -> bytes:
    """Make a PDF of one page that viewers open: a catalog, a page, a font, the text, and a true table of offsets."""
    drawing = b"BT /F1 18 Tf 72 720 Td (" + text.encode("latin-1") + b") Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R/Resources << /Font << /F1 5 0 R>>>>>>",
        b"<< /Length %d >>\nstream\n" % len(drawing) + drawing + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    pdf = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for number, content in enumerate(objects, start=1):
        table += b"%010d 00000 n \n" % len(pdf)
        pdf += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(pdf))
    return pdf + table + trailer


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    """Return the path of a small certificate."""
    path = tmp_path / "certificate of jan.pdf"
    path.write_bytes(pdf_of("VCA Basis: Jan Jansen"))
    return path


@pytest.fixture
def make_upload(pdf: Path) -> Callable[..., CertificateUpload]:
    """Return a maker of valid uploads, of which a test changes only what it is about."""

    def make(**changes: Any) -> CertificateUpload:
        values: dict[str, Any] = {
            "file": pdf,
            "certification_id": 7,
            "email": "jan@example.org",
            "valid_from": date(2026, 1, 31),
        }
        return CertificateUpload(**(values | changes))

    return make


@pytest.fixture
def upload(make_upload: Callable[..., CertificateUpload]) -> CertificateUpload:
    """Return a valid upload of `pdf`."""
    return make_upload()


@pytest.fixture
def limiter() -> Limiter:
    """Return a full bucket. By default all clients of a host and key share one, and tests would wait for each other."""
    return Limiter()


class _Response(aiohttp.ClientResponse):
    def __init__(self, *args: Any, **options: Any) -> None:
        # aiohttp 3.14 asks for the writer, which the script has none of: its size is all that is ever looked at.
        options.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **options)


class ScriptedAnswers(aioresponses):
    """A script of answers. It stands in for ``ClientSession._request``, so that no body is ever written."""

    def sent(self, method: str) -> list[dict[str, Any]]:
        """Return the options of each request of this method, in no order between addresses."""
        return [call.kwargs for (name, _), calls in self.requests.items() if name == method for call in calls]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedAnswers]:
    """Answer the requests of all aiohttp sessions by a script; what is not in it is refused a connection."""
    monkeypatch.setattr("aioresponses.core.ClientResponse", _Response)
    answers = ScriptedAnswers()
    with answers:
        yield answers


@pytest.fixture
async def springest(limiter: Limiter, scripted: ScriptedAnswers) -> AsyncIterator[Springest]:
    """Return an open client with both keys and a limiter of its own."""
    async with Springest(
        api_key="key-for-certificates",
        certifications_api_key="key-for-certifications",
        settings=Settings(limiter=limiter),
    ) as springest:
        yield springest
