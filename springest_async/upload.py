"""One certificate on its way: sent, and sent again, until there is a receipt or a verdict.

This is where the promises meet: a POST leaves only with a permit of the limiter, is sent again only when the server
cannot have stored it, and ends in a `Receipt` or in an error that says whether the certificate is at Springest. What
an answer means is decided by `protocol` and `verdicts`; here it is only done.
"""

import asyncio
import logging
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import attrs
from attrs import define, field, frozen

from springest_async.api import protocol
from springest_async.api.decode import WireFormat
from springest_async.api.protocol import Answer, Inconclusive, Refusal, Stored
from springest_async.api.verdicts import TRIES, Action, RefusalCause, RefusalHistory, Verdicts, backoff
from springest_async.errors import CancelledTooLate, InDoubt, NoAnswer, NotSent, Rejected, SpringestError
from springest_async.http.api_key import ApiKey
from springest_async.http.body import CertificateBody
from springest_async.http.exchange import Exchange
from springest_async.http.transport import Timeouts, Transport
from springest_async.limits.limiter import Limiter
from springest_async.limits.permit import Permit
from springest_async.random_names import new_request_id
from springest_async.records import CertificateUpload, Receipt
from springest_async.source_file import FileReader, SourceFile, inspect_file, open_file

if TYPE_CHECKING:
    from springest_async.journal.journal import Claim
    from springest_async.journal.records import Intent, Outcome

_log = logging.getLogger(__name__)

_Kind = Literal["waiting", "sending", "refused", "unsent", "stored", "rejected", "not stored", "in doubt"]


@frozen
class UploadStep:
    """What an upload is doing now, reported to an `UploadListener`.

    Attributes:
        kind: ``waiting``: not on its way, and safe to cancel: no byte of this try has left. ``sending``: a POST is
            under way from now on. ``refused``: the server answered 400 (or 429) without a reason. ``unsent``: the
            server cannot have had it whole. After these two it is sent again, unless an error ends the upload.
            The last step of every upload says what became of the certificate, also when it is cancelled: ``stored``,
            ``rejected``, ``not stored`` (for any other reason) or ``in doubt``.
        attempts: how many POSTs of it have left or were about to.
        at: when (UTC).
        status: the HTTP status of the answer, if there was one.
        words: what the server said, or why it was not sent.
        connected: False if there was no connection, so that no byte of the last POST has left.
        request_id: the ``X-Request-Id`` of the last POST that has left or is about to; empty before the first.
    """

    kind: _Kind
    attempts: int
    at: datetime
    status: int | None = None
    words: str = ""
    connected: bool = True
    request_id: str = ""


class UploadListener(Protocol):
    """A callback for the steps of an upload. It is called synchronously, so it must be quick.

    An exception that it raises ends the upload; raised at ``sending``, the POST is not sent. One that it raises at the
    last step is logged, and changes nothing.
    """

    def __call__(self, step: UploadStep, /) -> None:
        """Note a step."""


class _Post(Protocol):
    """`Limiter.post`, or what `Limiter.probe` gives."""

    def __call__(self, *, count_window: float, intent: "Intent | None") -> AbstractAsyncContextManager[Permit]: ...


@frozen(kw_only=True)
class Uploader:
    """What all uploads of one client share.

    Attributes:
        transport: to the host.
        key: for certificates.
        wire_format: of the answers.
        timeouts: of the transport.
        limiter: of the host and key.
        verdicts: what the refusals of this host turned out to mean.
        executor: where files are read.
    """

    transport: Transport
    key: ApiKey
    wire_format: WireFormat
    timeouts: Timeouts
    limiter: Limiter
    verdicts: Verdicts
    executor: Executor

    @property
    def path(self) -> str:
        """The path of the POSTs."""
        return protocol.path(protocol.CERTIFICATES, self.wire_format)

    @property
    def where(self) -> str:
        """Method and address of the POSTs, for errors."""
        return self.transport.where("POST", self.path)


@define(eq=False)
class _Try:
    """One POST of a certificate: the exchange, and when it left."""

    exchange: Exchange
    sent_at: datetime


def _answered_at(exchange: Exchange) -> datetime | None:
    return None if exchange.status is None else datetime.now(UTC)


@define(eq=False)
class Upload:
    """One certificate on its way.

    Args:
        uploader: what it shares with others.
        certificate: what is sent.
        listener: called at each step.
        bulk: whether uploads that somebody waits for go first. It ends when there is no connection: the caller waits.
        source: the file as it must be; None: as it is.
        claim: the right to send it, if there is a journal, which records each POST. The caller releases it.
        reader: of the file, if it was read just now.
    """

    uploader: Uploader
    certificate: CertificateUpload
    listener: UploadListener
    bulk: bool = False
    source: SourceFile | None = None
    claim: "Claim | None" = None
    _reader: FileReader | None = None  # of the file, until the next try takes it
    attempts: int = field(default=0, init=False)
    _request_id: str = field(default="", init=False)  # of the last POST that has left or is about to
    _unsent: int = field(default=0, init=False)  # tries in a row that the server cannot have had
    _history: RefusalHistory = field(factory=RefusalHistory, init=False)
    _refusal: Refusal | None = field(default=None, init=False)  # the last one
    _refused_at: int = field(default=0, init=False)  # the position of the first one that is held against it
    _try: _Try | None = field(default=None, init=False)  # the last one

    async def run(self) -> Receipt:
        """Send until the certificate is stored.

        Raises:
            SpringestError: those that `Springest.upload` names.
            asyncio.CancelledError: its ``__cause__`` says what became of the certificate.
        """
        try:
            if self.source is None:
                await self._open_file()
            elif self.source.path != self.certificate.file:
                # The inspection says what the upload's file has to be, and never which other file is sent.
                self.source = attrs.evolve(self.source, path=self.certificate.file)
                self._close_file()
            receipt = await self._until_stored()
        except asyncio.CancelledError as cancelled:
            # Not an error of its own in place of the cancellation, which belongs to the caller: a time-out turns it
            # into a TimeoutError, a task group swallows it. So the listener hears of it as well.
            outcome = self._outcome_if_interrupted()
            outcome.request_id = self._request_id
            cancelled.__cause__ = outcome
            self._report_outcome(outcome)
            raise
        except SpringestError as error:
            error.request_id = self._request_id
            self._report_outcome(error)
            raise
        except Exception:  # a listener's, or a mistake of ours
            self._report_outcome(self._outcome_if_interrupted())
            raise
        finally:
            self._close_file()
        self._report_outcome(receipt)
        return receipt

    async def _open_file(self) -> None:
        """Look at the file, so that a fault of it is found before the upload waits; read it if it need not wait."""
        path, executor, limiter = self.certificate.file, self.uploader.executor, self.uploader.limiter
        if not limiter.is_open:
            self.source = await inspect_file(path, executor)
            return
        self._reader = await open_file(path, executor)
        self.source = self._reader.source
        if not limiter.is_open:
            self._close_file()  # thousands may wait, and each would hold an open file and 1 MiB

    def _close_file(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _until_stored(self) -> Receipt:
        while True:
            try:
                outcome, permit = await self._send_once(partial(self.uploader.limiter.post, bulk=self.bulk))
                if isinstance(outcome, Receipt):
                    self._learn(permit.position)
                    return outcome
                receipt = await self._after_refusal(outcome, permit)
            except NotSent as error:
                self._unsent += 1
                self._report("unsent", status=self._status, words=error.reason, connected=error.connected)
                # A bulk run waits for a connection by itself, and lets one of its certificates try.
                if self._unsent >= TRIES or not error.trusted or (self.bulk and not error.connected):
                    raise
                await asyncio.sleep(backoff(self._unsent))
            else:
                if receipt is not None:
                    return receipt

    def _learn(self, position: int) -> None:
        """Note that what was refused before is stored now: nothing changed but the time, so it was for speed."""
        if self._refusal is not None:
            self.uploader.verdicts.settle(self._refusal, RefusalCause.TOO_FAST)
            if not self.uploader.limiter.slow:
                self.uploader.limiter.slow_down(position)

    # --- one POST ---

    async def _send_once(self, post: _Post) -> tuple[Receipt | Refusal, Permit]:
        """Send one POST when it may leave; return what came of it and its permit."""
        uploader = self.uploader
        self._report("waiting")
        intent = self.claim.intent() if self.claim else None
        async with post(count_window=uploader.timeouts.answer, intent=intent) as permit:
            self.attempts += 1
            self._try = None
            exchange, sent_before = self._exchange(intent.id if intent else new_request_id()), self._request_id
            self._request_id = exchange.request_id
            try:
                sent_at = self._report("sending")
                self._try = _Try(exchange, sent_at)
                number = uploader.verdicts.sending()
                meaning = await self._answer_to(exchange, sent_at)
            except BaseException as error:
                if intent is not None:
                    ended = error if isinstance(error, SpringestError) else self._outcome_if_interrupted()
                    permit.outcome = self._outcome_for_journal(intent, exchange, ended)
                raise
            else:
                if intent is not None:
                    permit.outcome = self._outcome_for_journal(intent, exchange, meaning)
            finally:
                self._settle_permit(permit, exchange)
                if not exchange.left:
                    self._request_id = sent_before
                exchange.close_file()
        self._unsent = 0
        if isinstance(meaning, Refusal):
            self._report("refused", status=exchange.status, words=meaning.error.words)
            return meaning, permit
        uploader.verdicts.was_accepted(number)
        receipt = Receipt(
            id=meaning.id,
            upload=self.certificate,
            attempts=self.attempts,
            sent_at=sent_at,
            answered_at=datetime.now(UTC),
            request_id=exchange.request_id,
        )
        return receipt, permit

    def _outcome_for_journal(
        self, intent: "Intent", exchange: Exchange, ended: Stored | Refusal | SpringestError
    ) -> "Outcome":
        """Return what the journal records of a POST that has ended."""
        from springest_async.journal.records import Outcome, State  # noqa: PLC0415 # who has no journal needs none of it

        springest_id, reason = None, ""
        match ended:
            case Stored():
                state, springest_id = State.STORED, ended.id
            case CancelledTooLate():
                state = State.STORED
            case InDoubt():
                state, reason = State.IN_DOUBT, ended.reason
            case Rejected():
                state, reason = State.REJECTED, str(ended)
            case _:
                state = State.WAITING
        words = ended.error.words if isinstance(ended, Refusal) else getattr(ended, "words", "")
        return Outcome(
            attempt=intent.id,
            state=state,
            written_at=exchange.written_at,
            answered_at=_answered_at(exchange),
            status=exchange.status,
            server_date=exchange.server_date,
            words=words,
            reason=reason,
            springest_id=springest_id,
            server_request_id=exchange.server_request_id,
        )

    def _exchange(self, request_id: str) -> Exchange:
        assert self.source is not None
        fields = protocol.certificate_fields(self.certificate)
        may_send = {} if self.claim is None else {"may_send": self.claim.may_send}
        if self._reader is not None and not self._reader.is_fresh:
            self._close_file()
        reader, self._reader = self._reader, None
        body = CertificateBody(self.source, fields, executor=self.uploader.executor, reader=reader, **may_send)
        return Exchange("POST", self.uploader.path, self.uploader.key, body=body, request_id=request_id)

    def _settle_permit(self, permit: Permit, exchange: Exchange) -> None:
        """Mark the permit of a POST that has ended: answered, unsent, or counted for a while to come."""
        status = exchange.status
        if exchange.fully_written and (status is None or status == 408 or status >= 500):
            # A gateway may have given up before the server behind it counts, and a big body may have come in just now.
            permit.count_from_now(self.uploader.timeouts.answer)
        elif status is not None:
            permit.mark_answered()
        elif not exchange.headers_sent:
            permit.mark_unsent()  # a listener that does not want it, no connection, the caller

    async def _answer_to(self, exchange: Exchange, sent_at: datetime) -> Stored | Refusal:
        """Send one POST and raise all that ends the try."""
        uploader, body = self.uploader, exchange.body
        assert body is not None
        failure: SpringestError
        try:
            answer = await uploader.transport.post(exchange)
        except NotSent as error:
            failure = body.failure or error
        except NoAnswer as error:
            failure = self._doubt(sent_at, error.reason)
        else:
            match protocol.post_meaning(answer, uploader.where, uploader.wire_format, body.sent_texts):
                case Stored() | Refusal() as meaning:
                    return meaning
                case Inconclusive(reason, status, words):
                    failure = self._doubt(sent_at, reason, status=status, words=words)
                case refused:
                    failure = refused
        raise failure

    def _doubt(self, sent_at: datetime, reason: str, *, status: int | None = None, words: str = "") -> InDoubt:
        certificate = self.certificate
        return InDoubt(
            self.uploader.where,
            reason,
            email=certificate.email,
            certification_id=certificate.certification_id,
            valid_from=certificate.valid_from,
            valid_until=certificate.valid_until,
            sent_at=sent_at,
            given_up_at=datetime.now(UTC),
            status=status,
            words=words,
            request_id=self._request_id,
        )

    # --- refusals ---

    async def _after_refusal(self, refusal: Refusal, permit: Permit) -> Receipt | None:
        """Do what a refusal asks for; None says that the certificate is to be sent again."""
        limiter, verdicts = self.uploader.limiter, self.uploader.verdicts
        self._refusal = refusal
        if self._history.refusals == 0:
            self._refused_at = permit.position
        match verdicts.judge(refusal, self._history, slow=limiter.slow, over_limit=self._is_over_limit(permit)):
            case Action.REJECT:
                raise refusal.error
            case Action.PROBE:
                return await self._probe(refusal, self._refused_at)
            case Action.SLOW_DOWN:
                limiter.slow_down(permit.position, silence=refusal.retry_after or None)
            case Action.AGAIN:
                await asyncio.sleep(backoff(self._history.refusals))
        return None

    def _is_over_limit(self, permit: Permit) -> bool:
        return permit.since_silence > self.uploader.limiter.posts

    async def _probe(self, refusal: Refusal, position: int) -> Receipt | None:
        """Send the certificate again while all others wait: after 2, 4 and 8 seconds, and alone after a silence."""
        limiter, verdicts = self.uploader.limiter, self.uploader.verdicts
        tests = verdicts.tests
        async with limiter.probe() as post:
            believed = verdicts.believed(refusal)
            if verdicts.tests != tests and not believed:
                return None  # another certificate was put to the test while this one waited
            unknown = verdicts.meaning(refusal) is RefusalCause.UNKNOWN
            pauses: list[float | None] = [backoff(tries) for tries in range(1, TRIES)] if unknown else []
            for pause in [backoff(1), None] if believed else [*pauses, None]:
                outcome, permit = await self._send_once(partial(post, pause=pause))
                if isinstance(outcome, Receipt):
                    verdicts.settle(refusal, RefusalCause.TOO_FAST)
                    limiter.slow_down(position, silence=0.0 if pause is None else None)
                    return outcome
                refusal = outcome
                if believed and not self._is_over_limit(permit):
                    break
            if refusal.names_limit:
                return None
            if not believed:
                verdicts.settle(refusal, RefusalCause.INVALID)
            raise refusal.error

    # --- what is reported ---

    @property
    def _status(self) -> int | None:
        """What the server answered to the last try."""
        return self._try.exchange.status if self._try else None

    def _report(self, kind: _Kind, *, status: int | None = None, words: str = "", connected: bool = True) -> datetime:
        now = datetime.now(UTC)
        self.listener(UploadStep(kind, self.attempts, now, status, words, connected, self._request_id))
        return now

    def _report_outcome(self, outcome: Receipt | SpringestError) -> None:
        report_outcome(self.listener, outcome, attempts=self.attempts, status=self._status)

    def _outcome_if_interrupted(self) -> SpringestError:
        """Return what became of a certificate whose upload is interrupted right now."""
        where = self.uploader.where
        if self._try is None:
            return NotSent(where, "cancelled before it was sent", connected=False)
        exchange, sent_at = self._try.exchange, self._try.sent_at
        if exchange.status is not None:
            answer = Answer(exchange.status, complete=False)
            match protocol.post_meaning(answer, where, self.uploader.wire_format):
                case Stored() if exchange.fully_written:
                    return CancelledTooLate(where)
                case Stored():
                    reason = "cancelled when the server had answered 201 too early"
                    return self._doubt(sent_at, reason, status=exchange.status)
                case Inconclusive(reason):
                    if exchange.fully_written:
                        return self._doubt(sent_at, f"cancelled when {reason}", status=exchange.status)
                case _:
                    return NotSent(where, f"cancelled after the server had refused it ({exchange.status})")
        if exchange.fully_written:
            return self._doubt(sent_at, "cancelled before the answer came")
        when = "before it was sent whole" if exchange.headers_sent else "before it was sent"
        return NotSent(where, f"cancelled {when}", connected=exchange.headers_sent)


def report_outcome(
    listener: UploadListener, outcome: Receipt | SpringestError, *, attempts: int, status: int | None
) -> None:
    """Call the listener with the last step of an upload; what it raises is logged.

    Args:
        listener: the listener.
        outcome: what became of the certificate.
        attempts: how many POSTs of it were tried.
        status: the status of the last answer, if there was one.
    """
    kind: _Kind
    words = "" if isinstance(outcome, Receipt) else outcome.words
    connected = True
    match outcome:
        case Receipt() | CancelledTooLate():
            kind = "stored"
        case InDoubt(reason=reason):
            kind, words = "in doubt", words or reason
        case Rejected():
            kind = "rejected"
        case NotSent(reason=reason, connected=connected):
            kind, words = "not stored", reason
        case _:
            kind = "not stored"
    try:
        listener(UploadStep(kind, attempts, datetime.now(UTC), status, words, connected, outcome.request_id))
    except Exception:  # noqa: BLE001 (what became of the certificate must not depend on who listens)
        _log.exception("the listener of an upload failed at its last step")
