"""Upload a certificate that a journal knows or will know: stored once, in whatever process it is named.

Stored before: its receipt. Being sent by another task, process or machine: wait for what becomes of it. In doubt:
settle it first. Else claim it and send it.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from attrs import define, field

from springest_async.api.verdicts import backoff
from springest_async.errors import NotSent, Rejected, SpringestError, UnusableFile
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.journal import Claim, Journal
from springest_async.journal.records import KnownCertificate, State
from springest_async.records import CertificateUpload, Receipt
from springest_async.settling import Ask, doubt_of, settle_claimed
from springest_async.source_file import FileReader, SourceFile, open_source, why_unreadable
from springest_async.upload import UploadListener, report_outcome

_LONGEST_PAUSE = 2.0  # seconds between two looks at what another worker is sending


@define(eq=False)
class OnceUpload:
    """An upload of a certificate that is sent only if the journal does not know that it is stored.

    Args:
        journal: the journal.
        upload: the certificate.
        listener: called at the end, and by `send` at each step.
        where: method and address of the POSTs, for errors.
        origin: the host.
        executor: where the file is read.
        send: sends it, once it is claimed, and reports the outcome.
        ask: asks Springest about a certificate in doubt.
    """

    journal: Journal
    upload: CertificateUpload
    listener: UploadListener
    where: str = field(kw_only=True)
    origin: str = field(kw_only=True)
    executor: Executor = field(kw_only=True)
    send: Callable[[SourceFile, Claim], Awaitable[Receipt]] = field(kw_only=True)
    ask: Ask = field(kw_only=True)
    _reported: bool = field(default=False, init=False)

    async def run(self) -> Receipt:
        """Return the receipt of the certificate.

        Raises:
            InDoubt: it was sent before, and nobody can tell whether it is stored.
            Rejected: another worker sent it meanwhile, and Springest does not want it.
            SpringestError: as `send` and `ask`, and `JournalError`.
        """
        try:
            receipt = await self._until_known()
        except asyncio.CancelledError as cancelled:
            if cancelled.__cause__ is None:
                cancelled.__cause__ = NotSent(self.where, "cancelled before it was sent", connected=False)
                self._report(cancelled.__cause__)
            raise
        except SpringestError as error:
            self._report(error)
            raise
        self._report(receipt)
        return receipt

    def _report(self, outcome: Receipt | SpringestError) -> None:
        if not self._reported:
            report_outcome(self.listener, outcome, attempts=0, status=None)

    async def _until_known(self) -> Receipt:
        source, sha256 = await _inspect_and_hash(self.upload.file, self.journal, self.executor)
        claim = uuid4().hex
        looks = 0
        while True:
            # A call is a person's word: what was rejected earlier is sent again, but not what is rejected meanwhile.
            known = await self.journal.claim(self.upload, self.origin, sha256, claim=claim, send_again=looks == 0)
            looks += 1
            match known.state:
                case State.STORED:
                    return _receipt(known, self.upload)
                case State.REJECTED:
                    rejected = Rejected(self.where, 400, known.reason)
                    rejected.request_id = known.request_id
                    raise rejected
                case State.IN_DOUBT:
                    if (doubted := await self.journal.claim_doubt(known.id)) is not None:
                        try:
                            settled = await settle_claimed(self.journal, doubted, self.ask)
                        except ClaimLost:
                            continue
                        except BaseException:
                            self.journal.stop_settling(doubted)
                            raise
                        if settled.state is State.IN_DOUBT:
                            raise doubt_of(settled)
                        continue
                case State.WAITING if known.claim == claim:
                    right = Claim(self.journal, known.id, claim)
                    try:
                        receipt = await self.send(source, right)
                    except ClaimLost:
                        # This worker was stopped or cut off for so long that another one has taken over.
                        continue
                    except BaseException:
                        self._reported = True
                        raise
                    finally:
                        right.release()
                    self._reported = True
                    return receipt
            await asyncio.sleep(min(_LONGEST_PAUSE, backoff(looks) / 20))


async def _inspect_and_hash(path: Path, journal: Journal, executor: Executor) -> tuple[SourceFile, bytes]:
    """Check a file, and return it and its SHA-256. A large one is read only if its size or time is new to the journal.

    Raises:
        UnusableFile: it cannot be read, or changed meanwhile.
        JournalError: the journal cannot be read.
    """
    loop = asyncio.get_running_loop()
    source, sha256 = await loop.run_in_executor(executor, _look, path)
    if sha256 is None:
        sha256 = await journal.known_hash(source.path, source.size, source.modified_ns)
    if sha256 is None:
        sha256 = await loop.run_in_executor(executor, _read, source)
        journal.remember_hash(source.path, source.size, source.modified_ns, sha256)
    return source, sha256


def _look(path: Path) -> tuple[SourceFile, bytes | None]:
    # To hash a small file, which is read anyway, costs less than to ask the journal.
    reader = FileReader.open(path)
    sha256 = None if reader.left else hashlib.sha256(reader.beginning).digest()
    reader.close()
    return reader.source, sha256


def _read(source: SourceFile) -> bytes:
    try:
        with open_source(source.path) as stream:
            sha256 = hashlib.file_digest(stream, "sha256").digest()
            unchanged = source.is_still(stream)
    except OSError as error:
        raise UnusableFile(source.path, why_unreadable(error)) from None
    if not unchanged:
        raise UnusableFile(source.path, "changed while it was being read")
    return sha256


def _receipt(known: KnownCertificate, upload: CertificateUpload) -> Receipt:
    """Return the receipt of a certificate that was stored before."""
    sent_at = known.sent_at or datetime.now(UTC)
    return Receipt(
        id=known.springest_id,
        upload=upload,
        attempts=known.attempts,
        sent_at=sent_at,
        answered_at=known.answered_at or sent_at,
        stored_before=True,
        request_id=known.request_id,
    )
