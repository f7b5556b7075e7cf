"""What a POST costs, one thing after another: from aiohttp with bytes in memory to a row of a bulk run.

Each rung is a way as `peers` has them, and is made of the library's own parts.
"""

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import attrs

from benchmarks.peers import (
    AIOHTTP,
    BULK,
    BYTES,
    NO_LIMIT,
    OURS,
    OWN_KEYS,
    READ,
    WAYS,
    AsyncPrepare,
    Job,
    Run,
    Way,
    by_tasks,
    on_a_loop,
)
from springest_async import Journal, Limiter, Springest
from springest_async.api import protocol
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.exchange import Exchange
from springest_async.http.transport import Timeouts, Transport
from springest_async.source_file import FileReader, open_file

__all__ = ["BELOW", "HASH", "HASHED", "JOURNAL", "OPENED", "PERMIT", "RUNGS", "SESSION"]

SESSION = "our session layer, bytes in memory"
OPENED = "our session layer, a file"
PERMIT = "our session layer, a file and a permit"
JOURNAL = f"{OURS} with a journal"
HASH = f"the SHA-256 of the file and {OURS}"


@asynccontextmanager
async def _session_layer(job: Job, *, opens: bool, permits: bool) -> AsyncIterator[AsyncPrepare]:
    """Upload as `Springest.upload` does, with its inner parts only, as many of them as are asked for."""
    fields, path, key = protocol.certificate_fields(job.certificate()), job.path, ApiKey(next(OWN_KEYS))
    timeouts = Timeouts()
    limiter = Limiter(posts=NO_LIMIT, requests_per_hour=NO_LIMIT)
    read = FileReader.open(job.file)
    assert not read.left, "this file is too large to be read in one piece"
    readers: deque[FileReader] = deque()
    async with AsyncExitStack() as stack:
        files = stack.enter_context(ThreadPoolExecutor(1))
        transport = await stack.enter_async_context(
            Transport(job.origin, timeouts=timeouts, user_agent="benchmarks", ca_file=job.ca_file)
        )

        async def post() -> None:
            reader = await open_file(job.file, files) if opens else readers.popleft()
            body = CertificateBody(reader.source, fields, executor=files, reader=reader)
            answer = await transport.post(Exchange("POST", path, key, body=body))
            assert answer.status == 201, answer.status
            assert json.loads(answer.body)["id"]

        async def post_with_permit() -> None:
            async with limiter.post(count_window=timeouts.answer) as permit:
                await post()
                permit.mark_answered()

        by = by_tasks(post_with_permit if permits else post, job.in_flight)

        async def prepare(uploads: int) -> Run:
            if not opens:  # a reader can be sent once, so there is one for each, of the same bytes
                readers.extend(attrs.evolve(read, beginning=read.beginning) for _ in range(uploads))
            return await by(uploads)

        yield prepare


@asynccontextmanager
async def _upload_with_journal(job: Job) -> AsyncIterator[AsyncPrepare]:
    """Upload a new certificate each time, for the journal keeps its receipt: the same one would not be sent again."""
    numbers = count(1)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journal-", dir=job.folder)))
        journal = await stack.enter_async_context(Journal(folder / "journal.sqlite3"))
        springest = await stack.enter_async_context(
            Springest(api_key=next(OWN_KEYS), host=job.origin, settings=job.settings(), journal=journal)
        )

        async def one() -> None:
            receipt = await springest.upload(job.certificate(f"employee{next(numbers)}@example.org"))
            assert not receipt.stored_before

        yield by_tasks(one, job.in_flight)


@asynccontextmanager
async def _hash_and_upload(job: Job) -> AsyncIterator[AsyncPrepare]:
    """Upload a file that was hashed before, without a journal: the least that a row of a bulk run can be."""
    async with Springest(api_key=next(OWN_KEYS), host=job.origin, settings=job.settings()) as springest:

        async def one() -> None:
            with job.file.open("rb", buffering=0) as stream:
                hashlib.file_digest(stream, "sha256")
            await springest.upload(job.certificate())

        yield by_tasks(one, job.in_flight)


HASHED: Mapping[str, Way] = {
    AIOHTTP: WAYS[AIOHTTP],
    OURS: WAYS[OURS],
    HASH: on_a_loop(_hash_and_upload),
    BULK: WAYS[BULK],
}

RUNGS: Mapping[str, Way] = {
    BYTES: WAYS[BYTES],
    AIOHTTP: WAYS[AIOHTTP],
    READ: WAYS[READ],
    SESSION: on_a_loop(partial(_session_layer, opens=False, permits=False)),
    OPENED: on_a_loop(partial(_session_layer, opens=True, permits=False)),
    PERMIT: on_a_loop(partial(_session_layer, opens=True, permits=True)),
    OURS: WAYS[OURS],
    JOURNAL: on_a_loop(_upload_with_journal),
    BULK: WAYS[BULK],
}

BELOW: Mapping[str, str] = {
    AIOHTTP: BYTES,
    READ: BYTES,
    SESSION: BYTES,
    OPENED: SESSION,
    PERMIT: OPENED,
    OURS: PERMIT,
    JOURNAL: OURS,
    BULK: OURS,
}
"""The rung that each stands on: the one that does the same without what this one adds."""
