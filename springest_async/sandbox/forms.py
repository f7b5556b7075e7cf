"""A POST's body, read as it streams in: small fields into memory, the file into a hash.

A file of any size costs one chunk of memory. What the fields mean, and whether the file will do, is for
others to say.
"""

import hashlib
import string
from contextlib import suppress

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import define, field

from springest_async.sandbox.certificates import FORM_FIELDS, Form, ReceivedFile

__all__ = ["FileMeter", "MalformedError", "discard_body", "read_form"]

# More than aiohttp ever holds of a body at once (512 KiB and one read), so that it hands out what has come and
# never has to put back what is over, which it warns of.
_CHUNK_BYTES = 1024 * 1024
_MAX_FIELD_BYTES = 64 * 1024
_BASE64 = (string.ascii_letters + string.digits + "+/").encode()


class MalformedError(ValueError):
    """A body that is no multipart form, or a broken one. The text says what is wrong with it."""


async def read_form(request: web.Request, form: Form) -> None:
    """Read the whole body into `form`, part by part, so that it holds what had come if the reading fails.

    Of the fields only those that Springest knows are kept; of two with one name, the later counts.

    Raises:
        MalformedError: when the body cannot be read as a form. The rest of it is not read.
        ConnectionError: when the client went away within the body.
    """
    if request.content_type != "multipart/form-data":
        raise MalformedError(f"the body is no multipart/form-data, but {request.content_type}")
    try:
        await _read_parts(await request.multipart(), form)
        # What follows the form's end is part of the body: a client that goes away there has not sent its POST.
        await _read_to_end(request)
    except (ValueError, HttpProcessingError, web.RequestPayloadError) as error:
        # aiohttp's parser says so of a missing boundary or end, and of a header, a line or a chunk that cannot be.
        raise MalformedError(f"the multipart is broken: {error}") from error


async def discard_body(request: web.Request) -> None:
    """Read what is left of the body and forget it, so that a client still writing comes to see its answer.

    Raises:
        ConnectionError: when the client went away within the body.
    """
    # After a chunk that cannot be, nothing is left to read.
    with suppress(web.RequestPayloadError):
        await _read_to_end(request)


async def _read_to_end(request: web.Request) -> None:
    async for _ in request.content.iter_any():
        pass


async def _read_parts(parts: MultipartReader, form: Form) -> None:
    async for part in parts:
        if not isinstance(part, BodyPartReader):
            continue  # a multipart within the form is none of its fields
        if part.name == "file":
            form.file = await _measure_file(part)
        elif part.name in FORM_FIELDS:
            form.fields[part.name] = await _read_field(part)


async def _read_field(part: BodyPartReader) -> str:
    content = bytearray()
    while not part.at_eof():
        # By lines: by chunks, aiohttp would wait for the file behind the field before it gave the field.
        content += await part.readline()
        if len(content) > _MAX_FIELD_BYTES:
            raise ValueError(f"the field {part.name} is longer than {_MAX_FIELD_BYTES} bytes")
    return content.decode("utf-8", "replace")


async def _measure_file(part: BodyPartReader) -> ReceivedFile:
    meter = FileMeter()
    while not part.at_eof():
        # The raw bytes, whatever the part says of its transfer encoding: nothing is decoded here.
        meter.add(await part.read_chunk(_CHUNK_BYTES))
    return ReceivedFile(
        filename=part.filename,
        content_type=part.headers.get(hdrs.CONTENT_TYPE),
        transfer_encoding=part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING),
        size=meter.size,
        sha256=meter.sha256,
        is_base64=meter.is_base64,
    )


@define(eq=False)
class FileMeter:
    """The size, the hash and the kind of a content that comes in chunks, which are not kept.

    Base64 here is text of base64's alphabet in lines, padded to a multiple of four. A short plain word can
    look like that; no PDF does, nor any other binary format, since their first bytes are outside the
    alphabet.
    """

    size: int = field(init=False, default=0)
    _hash: "hashlib._Hash" = field(init=False, factory=hashlib.sha256, repr=False)
    _looks_like_base64: bool = field(init=False, default=True)
    _letters: int = field(init=False, default=0)
    _padding: int = field(init=False, default=0)

    def add(self, chunk: bytes) -> None:
        """Take the next bytes into account."""
        self.size += len(chunk)
        self._hash.update(chunk)
        # A PDF is found out at its first chunk, and costs nothing from there on.
        if self._looks_like_base64:
            self._add_base64(chunk.translate(None, b"\r\n"))

    def _add_base64(self, text: bytes) -> None:
        letters = text.rstrip(b"=")
        padding = len(text) - len(letters)
        if letters and (self._padding or letters.translate(None, _BASE64)):
            self._looks_like_base64 = False
        self._letters += len(letters)
        self._padding += padding

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far, in hex."""
        return self._hash.hexdigest()

    @property
    def is_base64(self) -> bool:
        """Whether all bytes so far make up a base64 text."""
        return (
            self._looks_like_base64
            and self._letters > 0
            and self._padding <= 2
            and (self._letters + self._padding) % 4 == 0
        )
