"""A file on disk and a few fields as a ``multipart/form-data`` body: raw bytes, streamed, with an exact length.

The form is RFC 7578's. Springest's help page refuses base64, and an upload server must be able to plan, so there is
never a Content-Transfer-Encoding and never a chunked body. A `CertificateBody` reads its file while it is written, all
but a beginning that was read when the file was checked, and notices when it is no longer that file (`source_file`). It
knows no HTTP session and no API.
"""

import asyncio
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from datetime import UTC, datetime

from aiohttp import ClientError
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from springest_async.errors import UnusableFile
from springest_async.http.watchdog import Progress
from springest_async.random_names import random_name
from springest_async.source_file import FileReader, SourceFile, open_file


class SendingForbidden(ClientError):
    """Ends a request whose body may not be sent any more; it passes through aiohttp as aiohttp's own errors do."""


# Bytes of a file that leaves in one piece with the fields: to copy more takes longer than to write twice.
_JOINED = 64 * 1024


def _always() -> None:
    """Return None: nothing forbids to send."""


class CertificateBody(Payload):
    """The body of one POST, made anew for each try.

    Args:
        source: the PDF as it was when it was checked; its name is sent in ASCII.
        fields: names and values of the text fields, sent before the file in this order.
        executor: where the file is read. One thread serves best: several cost twice the CPU (malloc arenas).
        reader: of the file, if its beginning was read when it was checked.
        may_send: called right before the head of the request, each piece (the first leaves with the fields) and the end
            are written; it returns None, or
            the reason (for people) why nothing more may be sent. The connection is then reset before the end of the
            body, so the server cannot have had all of it.

    Attributes:
        progress: how far it has got.
        failure: after a failed request, the error if the file was to blame.
        forbidden: after a failed request, the reason of `may_send` if that ended it.
        written_at: when its last byte was given to the connection (UTC), if it was.
        sent_texts: the texts in it that are ours, which a server may repeat in its answer.
    """

    def __init__(
        self,
        source: SourceFile,
        fields: Sequence[tuple[str, str]],
        *,
        executor: Executor,
        reader: FileReader | None = None,
        may_send: Callable[[], str | None] = _always,
    ) -> None:
        boundary = random_name()
        super().__init__(source.path, content_type=f"multipart/form-data; boundary={boundary}")
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields
        ]
        filename = _ascii_filename(source.path.name)
        parts.append(
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
            "Content-Type: application/pdf\r\n\r\n"
        )
        self.sent_texts = (*(value for _, value in fields), source.path.name, filename)
        self._preamble = "".join(parts).encode()
        self._epilogue = f"\r\n--{boundary}--\r\n".encode()
        self._size = len(self._preamble) + source.size + len(self._epilogue)
        self._source = source
        self._executor = executor
        self._reader = reader
        self._may_send = may_send
        self._writing: asyncio.Future[None] | None = None
        self.progress = Progress()
        self.failure: UnusableFile | None = None
        self.forbidden: str | None = None
        self.written_at: datetime | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: a streamed body has no text."""
        raise TypeError("a certificate's body is streamed and has no text")

    def check_may_send(self) -> None:
        """Raise if no byte of it may be sent any more.

        Raises:
            SendingForbidden: when `may_send` says so.
        """
        self.forbidden = self._may_send()
        if self.forbidden is not None:
            raise SendingForbidden

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body; its length is exact, so there is nothing to cut off at `content_length`."""
        await self.write(writer)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body.

        Reading and writing take turns, so that an early answer finds the connection still in use.

        Raises:
            UnusableFile: when the file has changed since it was checked (aiohttp wraps it: see `failure`).
            SendingForbidden: when `may_send` says so (see `forbidden`).
        """
        self._writing = asyncio.get_running_loop().create_future()
        # The transport of aiohttp's writer; a writer of another kind has none, and only asyncio's own limits.
        self.progress.begin(getattr(writer, "transport", None))
        try:
            await self._write(writer)
        except BaseException as error:
            if isinstance(error, UnusableFile):
                self.failure = error
            # What was said on a line that broke by itself may still be read.
            if not isinstance(error, ConnectionError):
                self.progress.reset()
            raise
        finally:
            self._writing.set_result(None)

    async def wait_written(self) -> None:
        """Wait until nothing writes it any more, as is soon the case once its connection is closed."""
        if self._writing is not None and not self._writing.done():
            # Not the writer itself, whose cancellation would look like the caller's.
            await asyncio.wait([self._writing])

    def close_file(self) -> None:
        """Close the file, if it is open and nothing has begun to write the body."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _write(self, writer: AbstractStreamWriter) -> None:
        progress = self.progress
        reader, self._reader = self._reader, None  # a body that was sent must not keep what was in the file
        if reader is None:
            progress.reading = True
            reader = await open_file(self._source.path, self._executor, self._source)
        piece, reader.beginning = reader.beginning, b""
        reading: Future[bytes] | None = None
        try:
            progress.reading = False
            self.check_may_send()
            progress.bytes_given += len(self._preamble) + len(piece)
            if len(piece) <= _JOINED:
                piece = self._preamble + piece
            else:
                await writer.write(self._preamble)  # leaves with the head
            await writer.write(piece)
            while reader.left:
                reading = self._executor.submit(reader.read)
                progress.reading = True
                piece = await asyncio.wrap_future(reading)
                progress.reading = False
                self.check_may_send()
                progress.bytes_given += len(piece)
                await writer.write(piece)
        finally:
            if reading is None:
                reader.close()
            else:
                # When the thread is done with it: neither a cancellation nor the end of the loop stops the thread.
                reading.add_done_callback(lambda _: reader.close())
        # An answer that has arrived is read first. If the server has hung up, writing more would lose it where there is
        # no `reading_socket`. asyncio looks for it in one turn of its loop, and reads it in the next.
        for _ in range(2):
            await asyncio.sleep(0)
        self.check_may_send()
        # The end is written alone, and noted before: what is in the connection's buffer may still go out after a
        # failure (closing flushes it), and without these last bytes no server takes a body as whole.
        progress.fully_written = True
        self.written_at = datetime.now(UTC)
        await writer.write(self._epilogue)


# Letters that Unicode does not take apart into a base letter and an accent.
_SPELLED_OUT = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T"}
    | {"\u0131": "i", "ĳ": "ij", "Ĳ": "IJ", "ĸ": "k", "ŋ": "ng", "Ŋ": "Ng"}
)

# Names that are left as they are.
_PLAIN_FILENAME = re.compile(r"[a-z\d][\w .()+,-]{0,99}\.[a-z\d]{1,10}", re.ASCII | re.IGNORECASE)


def _ascii_filename(name: str) -> str:
    """Return a filename that every multipart parser reads alike: ASCII, no quotes, no separators.

    RFC 7578 leaves non-ASCII filenames to whatever sender and receiver happen to do. So accents are left out, other
    Latin letters are spelled out, and any letter that is left becomes "_": none just vanishes.
    """
    if _PLAIN_FILENAME.fullmatch(name):
        return name
    letters = unicodedata.normalize("NFKD", name.translate(_SPELLED_OUT))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    safe = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in " .-_()+,") else "_" for letter in plain
    ).strip(" .")
    stem, dot, extension = safe.rpartition(".")
    if not dot or not stem.strip("_"):
        return "certificate.pdf"
    return f"{stem[:100]}.{extension[:10]}"
