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

from attrs import define, frozen

from springest_async import protocol
from springest_async.decode import WireFormat
from springest_async.errors import InDoubt, NoAnswer, NotSent, SpringestError
from springest_async.limiter import Limiter, Turn
from springest_async.multipart import CertificateBody, SourceFile
from springest_async.protocol import Inconclusive, Refusal, Stored
from springest_async.records import CertificateUpload, Receipt
from springest_async.retry import TRIES, Meaning, Verdicts, backoff
from springest_async.transport import ApiKey, Timeouts, Transport

__all__ = ["Delivery", "UploadListener", "UploadStep"]


@frozen
class UploadStep:
    """What an upload is doing now, told to an `UploadListener`.

    ``waiting``: not on its way, and safe to cancel: nothing of this try has left. ``sending``: a POST is under way
    from now on. ``refused``: the server answered 400 without a reason, and it will be sent again.
    """

    kind: Literal["waiting", "sending", "refused"]
    attempts: int
    words: str = ""


class UploadListener(Protocol):
    """Whoever wants to know what an upload is doing; called synchronously, so it must be quick."""

    def __call__(self, step: UploadStep, /) -> None:
        """Take note of a step."""


class _Post(Protocol):
    """`Limiter.post`, or what `Limiter.probe` gives."""

    def __call__(self, *, counted_within: float) -> AbstractAsyncContextManager[Turn]: ...


@define(eq=False, kw_only=True)
class Delivery:
    """One certificate on its way: it is sent, and sent again, until there is a receipt or a verdict."""

    upload: CertificateUpload
    source: SourceFile
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
    refused: int = 0  # refusals at the slow pace that may have had either meaning
    accepted_before: int = 0  # what `verdicts.accepted` was at the last of them

    async def run(self) -> Receipt:
        """Send until the certificate is stored.

        Raises:
            SpringestError: those that `Springest.upload` names.
        """
        while True:
            try:
                outcome, position = await self._try(self.limiter.post)
                receipt = outcome if isinstance(outcome, Receipt) else await self._refused(outcome, position)
            except NotSent:
                self.unsent += 1
                if self.unsent >= TRIES:
                    raise
                self.listener(UploadStep("waiting", self.attempts))
                await asyncio.sleep(backoff(self.unsent))
            else:
                if receipt is not None:
                    return receipt

    async def _try(self, post: _Post) -> tuple[Receipt | Refusal, int]:
        """Send one POST when it may leave; give what came of it and the turn's position."""
        self.listener(UploadStep("waiting", self.attempts))
        async with post(counted_within=self.timeouts.answer) as turn:
            self.attempts += 1
            self.listener(UploadStep("sending", self.attempts))
            sent_at = datetime.now(UTC)
            meaning = await self._send(turn, sent_at)
        self.unsent = 0
        if isinstance(meaning, Refusal):
            self.listener(UploadStep("refused", self.attempts, meaning.error.words))
            return meaning, turn.position
        self.verdicts.was_accepted()
        receipt = Receipt(
            id=meaning.id,
            upload=self.upload,
            attempts=self.attempts,
            sent_at=sent_at,
            answered_at=datetime.now(UTC),
        )
        return receipt, turn.position

    async def _send(self, turn: Turn, sent_at: datetime) -> Stored | Refusal:
        """Send one POST and raise all that ends the try."""
        body = CertificateBody(
            self.source,
            protocol.certificate_fields(self.upload),
            executor=self.executor,
            stall_timeout=self.timeouts.stall,
        )
        doubt = partial(
            InDoubt,
            self.where,
            email=self.upload.email,
            certification_id=self.upload.certification_id,
            sent_at=sent_at,
        )
        failure: SpringestError
        try:
            answer = await self.transport.post(self.path, body, self.key)
        except NotSent as error:
            if not error.connected:
                turn.mark_unsent()
            failure = body.failure or error
        except NoAnswer as error:
            failure = doubt(error.reason)
        else:
            turn.mark_answered()
            match protocol.post_meaning(answer, self.where, self.wire_format):
                case Stored() | Refusal() as meaning:
                    return meaning
                case Inconclusive(reason, status, words):
                    failure = doubt(reason, status=status, words=words)
                case refused:
                    failure = refused
        raise failure

    async def _refused(self, refusal: Refusal, position: int) -> Receipt | None:
        """Find out what a refusal means; None says that it was for speed and the certificate is to be sent again."""
        meaning = self.verdicts.meaning(refusal)
        if meaning is Meaning.INVALID:
            self.verdicts.was_rejected()
            raise refusal.error
        if meaning is Meaning.UNKNOWN:
            return await self._probe(refusal, position)
        if refusal.names_limit or not self.limiter.slow:
            self.limiter.slow_down(position, silence=refusal.retry_after or None)
            return None
        # The pace is slow already, and this body may mean either. Refused again and again while others are accepted
        # in between: invalid. Refused twice with nothing accepted in between: only silence can tell.
        accepted, self.accepted_before = self.verdicts.accepted - self.accepted_before, self.verdicts.accepted
        self.refused += 1
        if self.refused > 1 and accepted == 0:
            return await self._probe(refusal, position)
        if self.refused >= TRIES:
            raise refusal.error
        await asyncio.sleep(backoff(self.refused))
        return None

    async def _probe(self, refusal: Refusal, position: int) -> Receipt | None:
        """Send the certificate again while all others wait: after 2, 4 and 8 seconds, and alone after a silence."""
        async with self.limiter.probe() as post:
            meaning = self.verdicts.meaning(refusal)
            if meaning is Meaning.INVALID or (meaning is Meaning.TOO_FAST and self.refused == 0):
                return None  # another certificate found it out while this one waited for its probe
            pauses = [backoff(tries) for tries in range(1, TRIES)] if meaning is Meaning.UNKNOWN else []
            for pause in (*pauses, None):
                outcome, _ = await self._try(partial(post, pause=pause))
                if isinstance(outcome, Receipt):
                    self.verdicts.settle(refusal, Meaning.TOO_FAST)
                    self.limiter.slow_down(position, silence=0.0 if pause is None else None)
                    return outcome
                refusal = outcome
            if refusal.names_limit:
                return None
            self.verdicts.settle(refusal, Meaning.INVALID)
            raise refusal.error
