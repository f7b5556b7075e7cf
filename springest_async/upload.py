"""One certificate on its way: sent, and sent again, until there is a receipt or a verdict.

This is where the promises meet: a POST leaves only with a turn of the limiter, is sent again only when the server
cannot have stored it, and ends in a `Receipt` or in an error that says whether the certificate is at Springest. What
an answer means is decided by `protocol` and `retry`; here it is only done.
"""

import asyncio
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Literal, Protocol

import attrs
from attrs import define, field, frozen

from springest_async.api import protocol
from springest_async.api.decode import WireFormat
from springest_async.api.protocol import Answer, Inconclusive, Refusal, Stored
from springest_async.api.verdicts import TRIES, Action, RefusalCause, RefusalHistory, Verdicts, backoff
from springest_async.errors import CancelledTooLate, InDoubt, NoAnswer, NotSent, SpringestError
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.transport import Timeouts, Transport
from springest_async.limits.limiter import Limiter, Permit
from springest_async.records import CertificateUpload, Receipt
from springest_async.source_file import SourceFile, inspect_file

__all__ = ["Delivery", "UploadListener", "UploadStep"]

_Kind = Literal["waiting", "sending", "refused", "unsent"]


@frozen
class UploadStep:
    """What an upload is doing now, told to an `UploadListener`; `at` is the time (UTC).

    ``waiting``: not on its way, and safe to cancel: nothing of this try has left. ``sending``: a POST is under way
    from now on. ``refused``: the server answered 400 (or 429) without a reason; ``unsent``: the server cannot have had
    it whole. After both it will be sent again, unless an error ends the upload; `status` and `words` say what happened.
    """

    kind: _Kind
    attempts: int
    at: datetime
    status: int | None = None
    words: str = ""


class UploadListener(Protocol):
    """Whoever wants to know what an upload is doing; called synchronously, so it must be quick.

    What it raises ends the upload; raised at ``sending``, the POST is not sent.
    """

    def __call__(self, step: UploadStep, /) -> None:
        """Take note of a step."""


class _Post(Protocol):
    """`Limiter.post`, or what `Limiter.probe` gives."""

    def __call__(self, *, count_window: float) -> AbstractAsyncContextManager[Permit]: ...


@define(eq=False, kw_only=True)
class Delivery:
    """One certificate on its way: it is sent, and sent again, until there is a receipt or a verdict."""

    upload: CertificateUpload
    source: SourceFile | None  # the file as it must be; None: as it is
    bulk: bool
    path: str
    where: str
    key: ApiKey
    wire_format: WireFormat
    timeouts: Timeouts
    limiter: Limiter
    verdicts: Verdicts
    transport: Transport
    executor: Executor
    listener: UploadListener
    attempts: int = 0
    unsent: int = 0  # tries in a row that the server cannot have had
    case: RefusalHistory = field(factory=RefusalHistory)
    refusal: Refusal | None = None  # the last one
    refused_at: int = 0  # the position of the first one that is held against it
    body: CertificateBody | None = None  # of the try that is under way
    sent_at: datetime | None = None  # when the last try left
    begun: bool = False  # whether any byte of it can have left
    status: int | None = None  # what the server answered to it

    async def run(self) -> Receipt:
        """Send until the certificate is stored.

        Raises:
            SpringestError: those that `Springest.upload` names.
            asyncio.CancelledError: its ``__cause__`` says what became of the certificate.
        """
        try:
            if self.source is None:
                self.source = await inspect_file(self.upload.file, self.executor)
            # What was looked at says what the upload's file has to be, and never which other file is sent.
            self.source = attrs.evolve(self.source, path=self.upload.file)
            return await self._until_stored()
        except asyncio.CancelledError as cancelled:
            # Not an error of its own in place of the cancellation, which belongs to whoever cancels: a time-out turns
            # it into a TimeoutError, a task group swallows it.
            cancelled.__cause__ = self._interrupted()
            raise

    async def _until_stored(self) -> Receipt:
        while True:
            try:
                outcome, turn = await self._try(partial(self.limiter.post, bulk=self.bulk))
                if isinstance(outcome, Receipt):
                    self._learn(turn.position)
                    return outcome
                receipt = await self._refused(outcome, turn)
            except NotSent as error:
                self.unsent += 1
                self._tell("unsent", status=self.status, words=error.reason)
                if self.unsent >= TRIES or not error.trusted:
                    raise
                await asyncio.sleep(backoff(self.unsent))
            else:
                if receipt is not None:
                    return receipt

    def _learn(self, position: int) -> None:
        """Note that what was refused before is stored now: nothing changed but the time, so it was for speed."""
        if self.refusal is not None:
            self.verdicts.settle(self.refusal, RefusalCause.TOO_FAST)
            if not self.limiter.slow:
                self.limiter.slow_down(position)

    async def _try(self, post: _Post) -> tuple[Receipt | Refusal, Permit]:
        """Send one POST when it may leave; give what came of it and its turn."""
        self._tell("waiting")
        async with post(count_window=self.timeouts.answer) as turn:
            self.attempts += 1
            self.body = self.status = None
            self.begun = False
            try:
                sent_at = self.sent_at = self._tell("sending")
                number = self.verdicts.sending()
                meaning = await self._send(turn)
            except BaseException:
                if not self.begun:
                    turn.mark_unsent()  # whatever it was: a listener that does not want it, no connection, the caller
                raise
        self.unsent = 0
        if isinstance(meaning, Refusal):
            self._tell("refused", status=self.status, words=meaning.error.words)
            return meaning, turn
        self.verdicts.was_accepted(number)
        receipt = Receipt(
            id=meaning.id,
            upload=self.upload,
            attempts=self.attempts,
            sent_at=sent_at,
            answered_at=datetime.now(UTC),
        )
        return receipt, turn

    def _tell(self, kind: _Kind, *, status: int | None = None, words: str = "") -> datetime:
        now = datetime.now(UTC)
        self.listener(UploadStep(kind, self.attempts, now, status, words))
        return now

    def _begin(self) -> None:
        self.begun = True

    def _note(self, turn: Permit, status: int) -> None:
        self.status = status
        turn.mark_answered()

    async def _send(self, turn: Permit) -> Stored | Refusal:
        """Send one POST and raise all that ends the try."""
        assert self.source is not None
        body = self.body = CertificateBody(
            self.source,
            protocol.certificate_fields(self.upload),
            executor=self.executor,
            stall_timeout=self.timeouts.stall,
        )
        failure: SpringestError
        try:
            answer = await self.transport.post(
                self.path,
                body,
                self.key,
                fully_written=lambda: body.fully_written,
                begun=self._begin,
                answered=partial(self._note, turn),
            )
        except NotSent as error:
            failure = body.failure or error
        except NoAnswer as error:
            failure = self._doubt(error.reason)
        else:
            match protocol.post_meaning(answer, self.where, self.wire_format, body.told):
                case Stored() | Refusal() as meaning:
                    return meaning
                case Inconclusive(reason, status, words):
                    failure = self._doubt(reason, status=status, words=words)
                case refused:
                    failure = refused
        finally:
            if body.fully_written:
                # Without an answer the server may still be working on it, and a big body may have come in just now.
                turn.count_from_now(self.timeouts.answer)
        raise failure

    def _doubt(self, reason: str, *, status: int | None = None, words: str = "") -> InDoubt:
        assert self.sent_at is not None
        return InDoubt(
            self.where,
            reason,
            email=self.upload.email,
            certification_id=self.upload.certification_id,
            valid_from=self.upload.valid_from,
            valid_until=self.upload.valid_until,
            sent_at=self.sent_at,
            given_up_at=datetime.now(UTC),
            status=status,
            words=words,
        )

    def _interrupted(self) -> SpringestError:
        """Say what became of a certificate whose upload is cancelled right now."""
        if self.body is None:
            return NotSent(self.where, "cancelled before it was sent", connected=False)
        if self.status is not None:
            match protocol.post_meaning(Answer(self.status, complete=False), self.where, self.wire_format):
                case Stored() if self.body.fully_written:
                    return CancelledTooLate(self.where)
                case Stored():
                    return self._doubt("cancelled when the server had answered 201 too early", status=self.status)
                case Inconclusive(reason):
                    if self.body.fully_written:
                        return self._doubt(f"cancelled when {reason}", status=self.status)
                case _:
                    return NotSent(self.where, f"cancelled after the server had refused it ({self.status})")
        if self.body.fully_written:
            return self._doubt("cancelled before the answer came")
        when = "before it was sent whole" if self.begun else "before it was sent"
        return NotSent(self.where, f"cancelled {when}", connected=self.begun)

    async def _refused(self, refusal: Refusal, turn: Permit) -> Receipt | None:
        """Do what a refusal asks for; None says that the certificate is to be sent again."""
        self.refusal = refusal
        if self.case.refusals == 0:
            self.refused_at = turn.position
        match self.verdicts.judge(refusal, self.case, slow=self.limiter.slow, late=self._is_late(turn)):
            case Action.REJECT:
                raise refusal.error
            case Action.PROBE:
                return await self._probe(refusal, self.refused_at)
            case Action.SLOW_DOWN:
                self.limiter.slow_down(turn.position, silence=refusal.retry_after or None)
            case Action.AGAIN:
                await asyncio.sleep(backoff(self.case.refusals))
        return None

    def _is_late(self, turn: Permit) -> bool:
        return turn.since_silence > self.limiter.posts

    async def _probe(self, refusal: Refusal, position: int) -> Receipt | None:
        """Send the certificate again while all others wait: after 2, 4 and 8 seconds, and alone after a silence."""
        tests = self.verdicts.tests
        async with self.limiter.probe() as post:
            believed = self.verdicts.believed(refusal)
            if self.verdicts.tests != tests and not believed:
                return None  # another certificate was put to the test while this one waited for its turn
            unknown = self.verdicts.meaning(refusal) is RefusalCause.UNKNOWN
            pauses: list[float | None] = [backoff(tries) for tries in range(1, TRIES)] if unknown else []
            for pause in [backoff(1), None] if believed else [*pauses, None]:
                outcome, turn = await self._try(partial(post, pause=pause))
                if isinstance(outcome, Receipt):
                    self.verdicts.settle(refusal, RefusalCause.TOO_FAST)
                    self.limiter.slow_down(position, silence=0.0 if pause is None else None)
                    return outcome
                refusal = outcome
                if believed and not self._is_late(turn):
                    break
            if refusal.names_limit:
                return None
            if not believed:
                self.verdicts.settle(refusal, RefusalCause.INVALID)
            raise refusal.error
