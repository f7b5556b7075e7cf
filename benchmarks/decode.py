"""What a list costs: from bytes to records beside pydantic, XML beside JSON, and the memory of a long one.

``python -m benchmarks decode`` takes about a minute. A page has a hundred certificates with all fields; the 20 pages
that are read have 4 000 days. pydantic reads the same bytes: with its own rules (``strict=True``); and with those of
``api/structure.py`` (ids as strings, the times of Rails, a nested certification), which need a validator of the whole
record, after or before those of its fields. The server of the long list is a process of its own.
"""

import asyncio
import json
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from benchmarks.report import Table, in_turns, medians, parser, publish
from springest_async import Certificate, Settings, Springest
from springest_async.api.decode import page
from springest_async.sandbox.render import render_json, render_xml

__all__ = ["main", "pages"]

_RECORDS = 100  # a page's
_PAGES = 20

# --- the pages ---


def _certificate(number: int) -> dict[str, Any]:
    day = date(2020, 1, 1) + timedelta(days=number * 37 % 2000)
    return {
        "id": 5000 + number,
        "name": "VCA Basis",
        "description": "Veilig werken voor operationeel medewerkers",
        "certification_id": 100 + number % 50,
        "valid_from": day,
        "valid_until": day + timedelta(days=3650),
        "status": "approved",
        "created_at": datetime(2026, 1, 5, 9, 30, tzinfo=UTC) + timedelta(seconds=number),
        "user": {"email": f"medewerker{number}@example.com", "external_id": f"E-{number}"},
    }


def pages() -> tuple[list[bytes], list[bytes]]:
    """Return pages of certificates as Rails writes them, in JSON and in XML."""
    trees: list[dict[str, Any]] = [
        {
            "meta": {"results": _PAGES * _RECORDS, "offset": first},
            "certificates": [_certificate(number) for number in range(first, first + _RECORDS)],
        }
        for first in range(0, _PAGES * _RECORDS, _RECORDS)
    ]
    return [render_json(tree).encode() for tree in trees], [render_xml(tree, "response").encode() for tree in trees]


# --- pydantic's way ---

_STRICT = ConfigDict(strict=True, frozen=True)
_Id = Annotated[int, Field(gt=0, lt=2**63)]


class _Meta(BaseModel):
    results: int


class _User(BaseModel):
    model_config = _STRICT
    email: str
    external_id: str | None = None


class _Plain(BaseModel):
    """A certificate by pydantic's own rules."""

    model_config = _STRICT
    id: _Id
    certification_id: _Id
    valid_from: date
    name: str | None = None
    description: str | None = None
    valid_until: date | None = None
    status: str | None = None
    created_at: datetime | None = None
    user: _User | None = None


def _number(text: str) -> int:
    if not 0 < (number := int(text)) < 2**63:
        raise ValueError("no id")
    return number


def _time(text: str) -> datetime:
    return _zoned(datetime.fromisoformat(re.sub(r" UTC$| (?=[+-][0-9:]+$)", "", text)))


def _zoned(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_AnyId = Annotated[
    _Id | Annotated[str, Field(pattern=r"^[0-9]{1,19}$"), AfterValidator(_number)],
    Field(union_mode="left_to_right"),
]
_AnyTime = Annotated[
    Annotated[datetime, AfterValidator(_zoned)]
    | Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]"), AfterValidator(_time)],
    Field(union_mode="left_to_right"),
]


class _Certification(BaseModel):
    model_config = _STRICT
    id: _AnyId | None = None
    name: str | None = None
    description: str | None = None


class _After(BaseModel):
    """A certificate by our rules, with what is inherited filled in after the other validators."""

    model_config = _STRICT
    id: _AnyId
    certification_id: _AnyId | None = None
    valid_from: date
    name: str | None = None
    description: str | None = None
    valid_until: date | None = None
    status: str | None = None
    created_at: _AnyTime | None = None
    user: _User | None = None
    certification: _Certification | str | None = None

    @model_validator(mode="after")
    def _inherit(self) -> "_After":
        if isinstance(nested := self.certification, _Certification):
            inherited = {"certification_id": nested.id, "name": nested.name, "description": nested.description}
            for name, value in inherited.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
        if self.certification_id is None:
            raise ValueError("certification_id is missing")
        return self


class _Before(BaseModel):
    """A certificate by our rules, with what is inherited filled in before the other validators.

    It is not strict: after such a validator, pydantic would no longer take texts as dates.
    """

    model_config = ConfigDict(frozen=True)
    id: _AnyId
    certification_id: _AnyId
    valid_from: date
    name: str | None = None
    description: str | None = None
    valid_until: date | None = None
    status: str | None = None
    created_at: _AnyTime | None = None
    user: _User | None = None

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(nested := value.get("certification"), dict):
            inherited = {"certification_id": "id", "name": "name", "description": "description"}
            return value | {own: nested.get(theirs) for own, theirs in inherited.items() if value.get(own) is None}
        return value


_Model = TypeVar("_Model", _Plain, _After, _Before)


class _Page(BaseModel, Generic[_Model]):
    meta: _Meta
    certificates: list[_Model]


# --- from bytes to records ---

_JSON, _XML, _OURS = "JSON", "XML", "springest_async"
_PEERS: dict[str, Callable[[bytes], Any]] = {
    "pydantic, its own rules": _Page[_Plain].model_validate_json,
    "pydantic, our rules, validator after": _Page[_After].model_validate_json,
    "pydantic, our rules, validator before": _Page[_Before].model_validate_json,
}
_LOADS = "json.loads alone, no records"


def _decoding(rounds: int) -> Iterator[Table]:
    in_json, in_xml = pages()

    def way(read: Callable[[bytes], Any], pages: list[bytes]) -> Callable[[], float]:
        def measure() -> float:
            began = time.process_time()
            for data in pages:
                read(data)
            return (time.process_time() - began) / _PAGES / _RECORDS * 1e6

        return measure

    ways = {name: way(read, in_json) for name, read in _PEERS.items()}
    ways[_LOADS] = way(json.loads, in_json)
    ways[_JSON] = way(lambda data: page(data, "json", Certificate, "certificates"), in_json)
    ways[_XML] = way(lambda data: page(data, "xml", Certificate, "certificates"), in_xml)
    found = medians(in_turns(ways, rounds))
    yield Table(
        key="records",
        title=f"From the bytes of pages of {_RECORDS} certificates to records",
        unit="µs of CPU a record",
        columns=["a record"],
        rows={f"{_OURS}, {name}" if name in (_JSON, _XML) else name: [number] for name, number in found.items()},
    )
    yield Table(
        key="ratios",
        title="The time of springest_async beside others",
        unit="× the other",
        columns=["ratio"],
        rows={
            **{f"{_JSON} beside {name}": [found[_JSON] / found[name]] for name in [*_PEERS, _LOADS]},
            f"{_XML} beside {_JSON}": [found[_XML] / found[_JSON]],
        },
        notes=[
            "pydantic parses and checks in Rust.",
            "json.loads, which makes no records, takes about 0.7 of the time of pydantic with its own rules.",
            "To be faster than that takes another parser than the standard library's.",
        ],
        picture=None,
        ceilings={
            (f"{_JSON} beside pydantic, our rules, validator before", "ratio"): 1.1,
            (f"{_XML} beside {_JSON}", "ratio"): 4.0,
        },
    )


# --- a long list ---


def _serve(total: int, ready: Connection) -> None:
    """Serve a list of so many certificates on a port that is told to `ready`, until the process is terminated."""
    asyncio.run(_server(total, ready))


async def _server(total: int, ready: Connection) -> None:
    record = render_json(_certificate(0)).replace("%", "%%").replace('"id":5000', '"id":%d')

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
            query = dict(re.findall(r"[?&](size|offset)=([0-9]+)", request))
            first, size = int(query["offset"]), int(query["size"])
            records = ",".join(record % number for number in range(first + 1, min(first + size, total) + 1))
            body = f'{{"meta":{{"results":{total},"offset":{first}}},"certificates":[{records}]}}'.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
            await answer(reader, writer)

    async with await asyncio.start_server(client, "127.0.0.1", 0) as server:
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()


@contextmanager
def _listing_server(total: int) -> Iterator[str]:
    """Yield the origin of a server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(total, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


async def _list(origin: str, marks: list[int]) -> list[tuple[float, float]]:
    """Return the seconds until each of these records, and the growth of memory (MiB) since the first page."""
    settings = Settings(requests_per_hour=10**9)
    found: list[tuple[float, float]] = []
    count, before = 0, 0.0
    async with Springest(api_key="key", host=origin, settings=settings) as springest:
        began = time.perf_counter()
        async for _ in springest.certificates():
            count += 1
            if count == _RECORDS:
                before = _resident()
            if count in marks:
                found.append((time.perf_counter() - began, _resident() - before))
    return found


def _resident() -> float:
    """Return the MiB of memory that this process has now."""
    pages_of_memory = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages_of_memory * os.sysconf("SC_PAGE_SIZE") / 2**20


def _long_list(marks: list[int]) -> Iterator[Table]:
    with _listing_server(marks[-1]) as origin:
        found = asyncio.run(_list(origin, marks))
    columns = [f"{mark:,}".replace(",", "\N{NO-BREAK SPACE}") for mark in marks]
    yield Table(
        key="long",
        title="A list from a server on loopback, by the number of records so far",
        unit="µs a record",
        columns=columns,
        rows={_OURS: [seconds / mark * 1e6 for mark, (seconds, _) in zip(marks, found, strict=True)]},
        notes=["The time of the server, a process of its own, is included."],
        picture="lines",
    )
    yield Table(
        key="memory",
        title="The growth of memory since the first page of the list",
        unit="MiB",
        columns=columns,
        rows={_OURS: [grown for _, grown in found]},
        picture="lines",
        ceilings={(_OURS, columns[-1]): 8.0},
    )


def main(arguments: list[str]) -> int:
    """Print the tables, and return the exit code."""
    options = parser("decode", __doc__).parse_args(arguments)
    tables = list(_decoding(7 if options.quick else 50))
    if Path("/proc/self/statm").exists():
        tables += _long_list([1000, 10_000, 20_000] if options.quick else [1000, 10_000, 100_000, 1_000_000])
    return publish("decode", tables, options)
