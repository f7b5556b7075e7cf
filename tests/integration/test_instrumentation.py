"""OpenTelemetry's and Sentry's instrumentation of aiohttp: one span for each request, and the key in none of them.

Both are installed for real. They patch `aiohttp.ClientSession`, so they see every session of the client.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stamina
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from springest_async import CertificateUpload, SpringestError, Timeouts
from tests.waiting import A_WHILE

from .canary import KEY, leaks
from .faults.echoes import echoing
from .raw_server import Exchange, RawServer, raw_server
from .wire import client_of as plain_client_of
from .wire import closed_port, taken


async def serves(exchange: Exchange) -> None:
    """Store a certificate, or list none."""
    await taken(exchange)
    if exchange.line.startswith("POST"):
        await exchange.answer(201, b'{"id": 5001}')
    else:
        await exchange.answer(200, b'{"certificates": [], "meta": {"results": 0}}')


async def hangs_up(exchange: Exchange) -> None:
    await taken(exchange)
    exchange.hang_up()


async def says_nothing(_: Exchange) -> None:
    """Wait for what never comes: this server speaks no TLS."""


HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
SERVERS = {
    "it works": serves,
    "it hangs up": hangs_up,
    "404": echoing(HEAD % b"404 Not Found" + b'{"error": "nothing at {both}"}'),
    "400": echoing(HEAD % b"400 Bad Request" + b'{"errors": {"email": ["is invalid in {both}"]}}'),
}
ANSWERED = {"it works": 200, "404": 404, "400": 400}
METHODS = ("POST", "GET")
FAULTS = [*SERVERS, "connection refused", "connection timeout"]


@asynccontextmanager
async def origin_of(fault: str) -> AsyncIterator[tuple[str, RawServer | None]]:
    """Yield an origin at which this goes wrong, and the server if there is one."""
    if fault == "connection refused":
        yield f"http://127.0.0.1:{closed_port()}", None
    else:
        async with raw_server(SERVERS.get(fault, says_nothing)) as server:
            origin = server.origin
            yield (origin.replace("http:", "https:") if fault == "connection timeout" else origin), server


# --- OpenTelemetry ---


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Instrument aiohttp, and take the patch back."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = AioHttpClientInstrumentor()
    before = aiohttp.ClientSession.__init__
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    assert aiohttp.ClientSession.__init__ is before
    provider.shutdown()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", METHODS)
async def test_opentelemetry_has_one_span_a_request(
    method: str, fault: str, upload: CertificateUpload, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("springest_async.upload.TRIES", 1)
    timeouts = Timeouts(connect=0.2) if fault == "connection timeout" else Timeouts()
    with stamina.set_testing(True, attempts=1):
        async with (
            origin_of(fault) as (origin, server),
            plain_client_of(origin, api_key=KEY, timeouts=timeouts) as client,
        ):
            failed = ""
            try:
                if method == "POST":
                    await client.upload(upload)
                else:
                    assert [certificate async for certificate in client.certificates()] == []
            except SpringestError as error:
                failed = type(error).__name__

    finished = spans.get_finished_spans()
    # aiohttp asks for a list once more by itself, within the same span, when the server closed the connection.
    assert [span.name for span in finished] == [method]
    assert bool(failed) == (fault != "it works")
    if server is not None and fault in ANSWERED:
        assert (finished[0].attributes or {})["http.status_code"] == status_of(fault, method)
        assert [exchange.header("traceparent") is not None for exchange in server.exchanges] == [True]
        assert leaks(server.lines[0]) != []  # the key was sent
    else:
        assert [event.name for event in finished[0].events] == ["exception"]
    assert [leak for span in finished for leak in leaks(span.to_json())] == []


def status_of(fault: str, method: str) -> int:
    """Return what the server of a fault answers."""
    return 201 if (fault, method) == ("it works", "POST") else ANSWERED[fault]


# --- Sentry ---


async def run_sentry_program(file: Path, calls: list[str]) -> list[str]:
    """Return what the program reports to Sentry, an item a line."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.sentry_program", str(file), *calls),
        env={**os.environ, "SPRINGEST_API_KEY": KEY},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(A_WHILE):
        out, err = await program.communicate()
    assert (err.decode(), program.returncode) == ("", 0)
    return out.decode().splitlines()


def http_spans_of(transaction: dict[str, Any]) -> list[tuple[str, int]]:
    """Return method and status of each request that a transaction tells of."""
    spans = [span["data"] for span in transaction["spans"] if span["op"] == "http.client"]
    return [(span["http.method"], int(span["http.response.status_code"])) for span in spans]


def http_breadcrumbs_of(event: dict[str, Any]) -> list[tuple[str, int]]:
    """Return method and status of each request that happened before an event."""
    crumbs = [crumb["data"] for crumb in event["breadcrumbs"]["values"] if crumb["type"] == "http"]
    return [(crumb["http.method"], crumb["http.response.status_code"]) for crumb in crumbs]


def variables_of_the_client(error: dict[str, Any]) -> list[str]:
    """Return the names of all variables of the client's frames that an event shows."""
    frames = [frame for value in error["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    return [name for frame in frames if frame["module"].startswith("springest_async.") for name in frame["vars"]]


async def test_sentry_has_one_span_and_breadcrumb_an_answer(pdf: Path) -> None:
    """Sentry's integration does not report requests without an answer; errors come with the variables of all frames."""
    calls, answers = list[str](), list[list[tuple[str, int]]]()
    async with AsyncExitStack() as stack:
        for fault in FAULTS:
            origin, _ = await stack.enter_async_context(origin_of(fault))
            calls += [f"upload:{origin}", f"list:{origin}"]
            answers += [[(method, status_of(fault, method))] if fault in ANSWERED else [] for method in METHODS]
        lines = await run_sentry_program(pdf, calls)

    items = [json.loads(line) for line in lines]
    assert [http_spans_of(item) for item in items if item["type"] == "transaction"] == answers
    assert [http_breadcrumbs_of(item) for item in items if "message" in item] == answers
    errors = [item for item in items if "exception" in item]
    assert ["self" in variables_of_the_client(error) for error in errors] == [True] * (len(calls) - len(METHODS))
    assert [leak for line in lines for leak in leaks(line)] == []
