"""Read the body of a POST as it arrives: small fields into memory, the file into a hash.

A file of any size needs one chunk of memory. `certificates` validates the fields and the file.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from springest_async.sandbox.certificates import FORM_FIELDS, Form, ReceivedFile

# More than aiohttp ever buffers of a body (512 KiB and one read). With a smaller chunk, it would push back the rest of
# its buffer, which it warns of.
_CHUNK_BYTES = 1024 * 1024
_MAX_FIELD_BYTES = 64 * 1024
_BASE64_PDF = b"JVBERi0"  # how "%PDF-" begins in base64
_LOOKS = 20  # at a body within its timeout


class MalformedError(ValueError):
    """A body that is not a multipart form, or a broken one; the text says what is wrong."""


async def read_form(request: web.Request, form: Form, body_timeout: float) -> None:
    """Read the whole body into `form`, part by part; if that fails, `form` has the parts that had arrived.

    Only fields that Springest knows are kept; of two with the same name, the later one.

    Raises:
        MalformedError: when the body cannot be read as a form; the rest of it is not read.
        ConnectionError: when the client closed the connection within the body.
        TimeoutError: when no byte arrived for `body_timeout` seconds.
    """
    if request.content_type != "multipart/form-data":
        raise MalformedError(f"the body is not multipart/form-data but {request.content_type}")
    try:
        async with _moving(request, body_timeout):
            await _read_parts(await request.multipart(), form)
            # What follows the end of the form belongs to the body: without it, the POST is not complete.
            await _read_to_end(request)
    except (ValueError, HttpProcessingError, web.RequestPayloadError) as error:
        # aiohttp's parser raises these for a missing boundary or end, and for an invalid header, line or chunk.
        raise MalformedError(f"the multipart is broken: {error}") from error


async def discard_body(request: web.Request, body_timeout: float) -> None:
    """Read the rest of the body and drop it, so that a client that is still writing reads its answer afterwards.

    Raises:
        ConnectionError: when the client closed the connection within the body.
        TimeoutError: when no byte arrived for `body_timeout` seconds.
    """
    # After an invalid chunk, there is nothing left to read.
    with suppress(web.RequestPayloadError):
        async with _moving(request, body_timeout):
            await _read_to_end(request)


@asynccontextmanager
async def _moving(request: web.Request, body_timeout: float) -> AsyncIterator[None]:
    """Read the body in the block, and raise TimeoutError when no byte of it arrives for `body_timeout` seconds."""
    loop, content = asyncio.get_running_loop(), request.content
    next_look: asyncio.TimerHandle

    def look(before: int) -> None:
        nonlocal next_look
        arrived = content.total_bytes
        if arrived != before and not limit.expired():
            limit.reschedule(loop.time() + body_timeout)
        next_look = loop.call_later(body_timeout / _LOOKS, look, arrived)

    async with asyncio.timeout(body_timeout) as limit:
        next_look = loop.call_later(body_timeout / _LOOKS, look, content.total_bytes)
        try:
            yield
        finally:
            next_look.cancel()


async def _read_to_end(request: web.Request) -> None:
    async for _ in request.content.iter_any():
        pass


async def _read_parts(parts: MultipartReader, form: Form) -> None:
    async for part in parts:
        if not isinstance(part, BodyPartReader):
            continue  # a multipart within the form is not a field
        if part.name == "file":
            form.file = await _measure_file(part)
        elif part.name in FORM_FIELDS:
            form.fields[part.name] = await _read_field(part)


async def _read_field(part: BodyPartReader) -> str:
    content = bytearray()
    while not part.at_eof():
        # By lines: by chunks, aiohttp would wait for the file that follows before it returns the field.
        content += await part.readline()
        if len(content) > _MAX_FIELD_BYTES:
            raise ValueError(f"the field {part.name} is longer than {_MAX_FIELD_BYTES} bytes")
    return content.decode("utf-8", "replace")


async def _measure_file(part: BodyPartReader) -> ReceivedFile:
    size, sha256, start = 0, hashlib.sha256(), b""
    while not part.at_eof():
        # These are the raw bytes, whatever transfer encoding the part names.
        chunk = await part.read_chunk(_CHUNK_BYTES)
        size += len(chunk)
        sha256.update(chunk)
        start = (start + chunk[: len(_BASE64_PDF)])[: len(_BASE64_PDF)]
    return ReceivedFile(
        filename=part.filename,
        content_type=part.headers.get(hdrs.CONTENT_TYPE),
        transfer_encoding=part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING),
        size=size,
        sha256=sha256.hexdigest(),
        is_base64=start == _BASE64_PDF,
    )
