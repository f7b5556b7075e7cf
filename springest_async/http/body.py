"""A file on disk and a few fields as a ``multipart/form-data`` body: raw bytes, streamed, with an exact length.

The form is RFC 7578's. Springest's help page refuses base64, and an upload server must be able to plan, so there is
never a Content-Transfer-Encoding and never a chunked body. A `CertificateBody` reads its file while it is written, and
notices when it is no longer the one that was looked at (`files`). Knows no HTTP session and no API.
"""

import asyncio
import unicodedata
import uuid
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from io import FileIO
from typing import Any, NoReturn

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from springest_async.errors import UnusableFile
from springest_async.http.watchdog import SLOWEST, Line
from springest_async.source_file import SourceFile, open_regular

__all__ = ["CertificateBody"]

# A file up to this size is read in one hop to the thread and written at once; a larger one in pieces of it.
# Certificates are 30 KB to 2 MB: one to four hops. (In the usual pieces of 64 KiB, 2 MB would be 32 hops.)
_PIECE = 512 * 1024

# A file up to this size has arrived within a minute, or hardly moves: that is not worth waiting for (0.1 ms of CPU).
_SOON = 60 * SLOWEST


class CertificateBody(Payload):
    """The body of one POST, made anew for each try; the file is open only while it is written.

    Args:
        source: the PDF, as `inspect_file` saw it; its name is sent in ASCII.
        fields: names and values of the text fields, sent before the file in this order.
        executor: where the file is read. One thread serves best: several cost twice the CPU (malloc arenas).
        stall_timeout: seconds within which something of it must move, as `Timeouts.stall` says.

    `fully_written` tells whether the last byte was given to the connection, so that the server may have the whole body;
    `failure`, after a failed request, whether the file was to blame; `told` are the texts in it that are ours.
    """

    def __init__(
        self,
        source: SourceFile,
        fields: Sequence[tuple[str, str]],
        *,
        executor: Executor,
        stall_timeout: float,
    ) -> None:
        boundary = uuid.uuid4().hex
        super().__init__(source.path, content_type=f"multipart/form-data; boundary={boundary}")
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields
        ]
        parts.append(
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{_ascii_filename(source.path.name)}"\r\n'
            "Content-Type: application/pdf\r\n\r\n"
        )
        self.told = (*(value for _, value in fields), source.path.name, _ascii_filename(source.path.name))
        self._preamble = "".join(parts).encode()
        self._epilogue = f"\r\n--{boundary}--\r\n".encode()
        self._size = len(self._preamble) + source.size + len(self._epilogue)
        self._source = source
        self._executor = executor
        self._stall_timeout = stall_timeout
        self.fully_written = False
        self.failure: UnusableFile | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Not to be had: a streamed body has no text."""
        raise TypeError("a certificate's body is streamed and has no text")

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body; its length is exact, so there is nothing to cut off at `content_length`."""
        await self.write(writer)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, and wait until it has arrived, as far as the system can tell.

        Reading and writing take turns, so that an early answer finds the connection still in use.

        Raises:
            UnusableFile: when the file is not the one that `inspect_file` saw (aiohttp wraps it: see `failure`).
            TimeoutError: when it stopped moving.
        """
        opening = self._executor.submit(self._first_piece)
        try:
            stream, piece = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_close)  # the thread goes on, and what it opens is nobody's any more
            raise
        reading: Future[Any] = opening
        with Line(writer, self._stall_timeout) as line:
            try:
                left = self._source.size - len(piece)
                await line.send(self._preamble + piece)
                while left:
                    reading = self._executor.submit(self._next_piece, stream, left)
                    piece = await asyncio.wrap_future(reading)
                    left -= len(piece)
                    await line.send(piece)
            finally:
                # Not before the thread is done with it, which no cancellation stops, nor the end of the loop.
                reading.add_done_callback(lambda _: stream.close())
            # By itself, and noted before it is written: what is in the connection's buffer may still go out after a
            # failure (closing flushes it), and without these last bytes no server takes a body for whole.
            self.fully_written = True
            await line.send(self._epilogue)
            if self._source.size > _SOON:
                await line.arrive()

    # --- in the executor's thread ---

    def _first_piece(self) -> tuple[FileIO, bytes]:
        try:
            stream = open_regular(self._source.path)
        except OSError as error:
            self._fail(error.strerror or "cannot be opened")
        try:
            if not self._source.is_still(stream):
                self._fail("changed between its check and its sending")
            return stream, self._next_piece(stream, self._source.size)
        except BaseException:
            stream.close()
            raise

    def _next_piece(self, stream: FileIO, left: int) -> bytes:
        try:
            piece = stream.read(min(left, _PIECE))
        except OSError as error:
            self._fail(error.strerror or "cannot be read")
        if not piece:
            self._fail("became shorter while it was being sent")
        # The last look is after the last read: what was written in between cannot go out as a mixture unnoticed.
        if len(piece) == left and not self._source.is_still(stream):
            self._fail("changed while it was being sent")
        return piece

    def _fail(self, reason: str) -> NoReturn:
        self.failure = UnusableFile(self._source.path, reason)
        raise self.failure


def _close(opening: "Future[tuple[FileIO, bytes]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


def _ascii_filename(name: str) -> str:
    """Make a filename that every multipart parser reads alike: ASCII, no quotes, no separators.

    RFC 7578 leaves non-ASCII filenames to whatever sender and receiver happen to do; the name is a courtesy here, so
    an accent is dropped rather than risked.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = "".join(letter if letter.isalnum() or letter in " .-_()+," else "_" for letter in plain).strip(" .")
    stem, dot, extension = safe.rpartition(".")
    if not dot or not stem.strip("_"):
        return "certificate.pdf"
    return f"{stem[:100]}.{extension[:10]}"
