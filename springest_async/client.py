"""`Springest`: the client, composed of the limiter, the transport and the protocol.

It parses nothing and decides nothing itself; `springest_async.upload` takes one certificate through all its tries.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from datetime import UTC, date, datetime
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import define, field, frozen
from attrs.converters import optional
from attrs.validators import ge, in_

from springest_async.api import protocol
from springest_async.api.decode import Page, Record, WireFormat
from springest_async.api.protocol import CERTIFICATES, CERTIFICATIONS
from springest_async.api.settlement import Unclear, clock_was_ahead, find, listed_from, still_in_doubt
from springest_async.api.verdicts import Verdicts, ask_again
from springest_async.errors import ConfigurationError, InDoubt
from springest_async.http.api_key import ApiKey
from springest_async.http.proxy import Proxy, proxy_at
from springest_async.http.transport import Connector, Timeouts, Transport
from springest_async.limits.budgets import keep_budget_in, shared_limiter
from springest_async.limits.limiter import POSTS_PER_MINUTE, REQUESTS_PER_HOUR, Limiter
from springest_async.records import Certificate, CertificateUpload, Certification, Receipt
from springest_async.source_file import FileReader, SourceFile
from springest_async.upload import Upload, Uploader, UploadListener, UploadStep
from springest_async.version import __version__

if TYPE_CHECKING:
    from springest_async.journal.journal import Claim, Journal

PAGE_SIZE = 100
"""How many records a list asks for in one request."""

# A longer list cannot settle anything, or it never ends.
_MOST_LISTED = 10_000
_PATIENCE_WITH_JOURNAL = 10.0  # seconds that closing waits for one that is away
USER_AGENT = f"springest_async/{__version__}"
"""The name under which this library asks."""


@frozen(kw_only=True)
class Settings:
    """The settings beside host and keys; every default is right for Springest as its pages describe it.

    Args:
        wire_format: ``"json"``, the only one that Springest supports fully, or ``"xml"``.
        timeouts: how long to wait, in seconds.
        concurrency: how many uploads of a bulk run are in flight at once.
        posts_per_minute: the limit that Springest has agreed with you (30). More without an agreement gets your uploads
            refused.
        burst: how many POSTs may leave at once (1 to `posts_per_minute`, which is the default); 1 spaces them evenly.
        requests_per_hour: the limit of all requests together that Springest has agreed with you (4000).
        connector: an aiohttp connector of your own (`aiohttp.BaseConnector`), for instance with a resolver or an SSL
            context. It is not closed, and must be open. Give it ``keepalive_timeout=1``: a POST on a connection that
            the server is just closing is in doubt (docs/faults.md).
        ca_file: a file (PEM) with the certificates of CAs to trust beside those of the system, such as a company's own;
            read when the client is opened. Not together with `connector`.
        proxy: an HTTP proxy to go through, such as ``http://proxy.example:3128`` or, with a name and a password,
            ``http://name:password@proxy.example:3128``. It learns the host, but neither key nor certificates, and is
            not used for a host that is ``http``, which is this machine.
        limiter: a `Limiter` of your own, instead of `posts_per_minute`, `burst` and `requests_per_hour`.

    Raises:
        ConfigurationError: `proxy` is not such an address, `ca_file` is given together with `connector`, or `limiter`
            together with a setting that it replaces.
    """

    wire_format: WireFormat = field(default="json", validator=in_(("json", "xml")))
    timeouts: Timeouts = field(factory=Timeouts)
    concurrency: int = field(default=8, validator=ge(1))
    posts_per_minute: int | None = field(default=None, validator=attrs.validators.optional(ge(1)))
    burst: int | None = None
    requests_per_hour: int | None = field(default=None, validator=attrs.validators.optional(ge(1)))
    connector: Connector | None = None
    ca_file: Path | None = field(default=None, converter=optional(Path))
    proxy: Proxy | None = field(default=None, converter=proxy_at)
    limiter: Limiter | None = None

    def __attrs_post_init__(self) -> None:
        if self.ca_file and self.connector:
            raise ConfigurationError("ca_file is not for a connector of your own: give that an SSL context")
        if self.limiter is not None:
            replaced = ("posts_per_minute", "burst", "requests_per_hour")
            if ignored := [name for name in replaced if getattr(self, name) is not None]:
                raise ConfigurationError(
                    f"limiter replaces {' and '.join(ignored)}: set the numbers of the Limiter instead"
                )


class Springest:
    """An asyncio client for the certificates API of one Springest host.

    Usage::

        async with Springest(api_key="…", host="nl") as springest:
            receipt = await springest.upload(
                CertificateUpload(
                    file="jan.pdf", certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31)
                )
            )
            async for certificate in springest.certificates(email="jan@example.org"):
                print(certificate)

    Its ``async with`` ends like that of a task group. It accepts no new uploads, and waits for those that other tasks
    have begun, however long the limit makes them wait. After an exception, or when that waiting is cancelled, it
    cancels those tasks; the `asyncio.CancelledError` of each says what became of its certificate (see `upload`). To
    stop within a time, call `aclose`.

    A client belongs to the event loop and process that opened it, and is open at most once at a time: share the open
    client among tasks. Clients with the same host and key share one limit.

    Args:
        api_key: the key for certificates on this host.
        certifications_api_key: the key for `certifications`, which is a different one.
        host: ``nl``, ``be``, ``de``, ``uk``, ``com``, or an origin such as ``https://site.api.go.springest.nl``.
        settings: see `Settings`.
        journal: the path of a file or ``postgresql://…``, which is opened and closed with the client, or a `Journal`
            that is open. It makes `upload` idempotent, and shares the limit with everybody who uses it. Without one,
            the limit is shared within this process, and nothing is remembered.

    Raises:
        ConfigurationError: a key is empty, or the host is invalid, or it is ``http`` to another machine; from
            ``async with``: `Settings.ca_file` cannot be read.
        RuntimeError: from ``async with``: the client is open already; from all other methods: it is closed, or it was
            opened on another event loop or in another process.
    """

    def __init__(
        self,
        *,
        api_key: str,
        certifications_api_key: str | None = None,
        host: str = "nl",
        settings: Settings | None = None,
        journal: "Journal | str | PathLike[str] | None" = None,
    ) -> None:
        # No variable may hold a plain key, because a traceback may show it.
        self._key, self._certifications_key = ApiKey(api_key), ApiKey(certifications_api_key or "")
        api_key = certifications_api_key = "***"
        if not self._key:
            raise ConfigurationError("api_key is empty: ask Springest for the key of this host")
        if not (self._key.is_printable() and self._certifications_key.is_printable()):
            raise ConfigurationError("a key has letters that cannot be printed: it is damaged")
        self.settings = settings = settings or Settings()
        self.origin = protocol.origin_of(host)
        self._verdicts = Verdicts()
        self._shown: set[int] = set()  # the certifications that Springest was last seen to list
        self._server_time: datetime | None = None  # when it listed anything
        self._transport = Transport(
            self.origin,
            timeouts=settings.timeouts,
            user_agent=USER_AGENT,
            connector=settings.connector,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
        )
        self._budget = budget = self._key.budget(self.origin)
        self._own_journal = isinstance(journal, str | PathLike)
        self.journal = _journal_at(journal) if isinstance(journal, str | PathLike) else journal
        make = partial(
            Limiter,
            posts=settings.posts_per_minute or POSTS_PER_MINUTE,
            burst=settings.burst,
            requests_per_hour=settings.requests_per_hour or REQUESTS_PER_HOUR,
        )
        if settings.limiter is not None:
            self.limiter = settings.limiter
            if self.journal is not None and not self.journal.has_ledger(self.limiter.ledger):
                raise ConfigurationError(
                    "with a journal, a limiter must keep its tokens there: Limiter(ledger=journal.ledger(…))"
                )
        elif self.journal is not None:
            self.limiter = make(ledger=self.journal.ledger(budget))
        else:
            self.limiter = shared_limiter(budget, make)
        self._opening = threading.Lock()
        self._opened: _Opened | None = None

    @classmethod
    def from_env(
        cls, *, settings: Settings | None = None, journal: "Journal | str | PathLike[str] | None" = None
    ) -> Self:
        """Return a client made from environment variables, as the command ``springest`` does.

        Args:
            settings: see `Settings`.
            journal: see `Springest`; instead of ``SPRINGEST_JOURNAL``.

        Environment:
            ``SPRINGEST_API_KEY``: the key for certificates.
            ``SPRINGEST_CERTIFICATIONS_API_KEY``: the key for certifications; may be missing.
            ``SPRINGEST_HOST``: the host, ``nl`` by default.
            ``SPRINGEST_JOURNAL``: where the journal is; by default that of this user, which the command uses too.

        Raises:
            ConfigurationError: ``SPRINGEST_API_KEY`` is missing, or there is no folder for a journal; also as
                `Springest` does.
        """
        # No variable holds a key: a traceback may show variables.
        if not _from_env("SPRINGEST_API_KEY"):
            raise ConfigurationError(
                "set SPRINGEST_API_KEY to the API key for certificates of your host: each host has its own"
            )
        from springest_async.journal.journal import where_from_env  # noqa: PLC0415 # see `_journal_at`

        return cls(
            api_key=_from_env("SPRINGEST_API_KEY"),
            certifications_api_key=_from_env("SPRINGEST_CERTIFICATIONS_API_KEY"),
            host=_from_env("SPRINGEST_HOST") or "nl",
            settings=settings,
            journal=where_from_env() if journal is None else journal,
        )

    def __repr__(self) -> str:
        if not hasattr(self, "_opened"):  # a traceback of its __init__ may show it
            return "<Springest, not made>"
        is_open = self._opened is not None and not self._opened.closing
        return f"<Springest {self.origin}, {'open' if is_open else 'closed'}, {self.limiter!r}>"

    async def __aenter__(self) -> Self:
        with self._opening:
            if self._opened is not None and not self._opened.loop.is_closed():
                raise RuntimeError(
                    "the client is open already: share the open client among tasks, and make a client for each thread,"
                    " event loop and process"
                )
            self._opened = _Opened(asyncio.get_running_loop())
        try:
            if self.settings.limiter is None:
                keep_budget_in(self._budget, "its memory" if self.journal is None else self.journal.where)
            if self.journal is not None and self._own_journal:
                await self.journal.open()
            try:
                await self._transport.__aenter__()
            except BaseException:
                await self._close_journal()
                raise
        except BaseException:
            self._opened = None
            raise
        return self

    async def _give_back_and_close(self) -> None:
        """Return what was taken for uploads that were cancelled within their commit, then close the journal."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_WITH_JOURNAL):
                    await self.limiter.finish_changes()
        finally:
            await self._close_journal()

    async def _close_journal(self) -> None:
        if self.journal is not None and self._own_journal:
            await self.journal.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._close(self._opened, None if error is None else 0.0)

    async def aclose(self, *, timeout: float) -> None:  # noqa: ASYNC109 # after it the uploads are cancelled, not aclose
        """Close the client within a time, for instance when a service is asked to stop.

        Everything that only waits is cancelled at once: uploads that wait for the limit or for their next try, lists
        and `settle`. A POST that is being sent has `timeout` to get its answer, then it is cancelled too. Each upload
        ends with its receipt, its error, or an `asyncio.CancelledError` whose ``__cause__`` says what became of it.

        The client accepts no new uploads meanwhile. The ``async with`` that it is called beside, or in, ends as usual.

        Args:
            timeout: seconds.
        """
        if self._opened is None:
            return
        opened = self._checked()
        opened.giving_up = True
        for call in opened.calls:
            call.cancel_if_waiting()
        await self._close(opened, timeout)

    async def _close(self, opened: "_Opened", seconds: float | None) -> None:
        """Wait so many seconds for the calls (None: without end), cancel those that are left, and close everything."""
        opened.closing = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await opened.calls_ended()
        finally:
            opened.cancelling = True  # else a task that catches its cancellation could begin something else
            for call in opened.calls:
                call.task.cancel()
            try:
                await opened.calls_ended()
            finally:
                opened.executor.shutdown(wait=False, cancel_futures=True)
                try:
                    await self._transport.__aexit__(None, None, None)
                    await self._give_back_and_close()
                finally:
                    if self._opened is opened:  # else another task has closed it meanwhile
                        self._opened = None

    def _checked(self) -> "_Opened":
        """Return what was opened, if this event loop and process may use it."""
        opened = self._opened
        if opened is None:
            raise RuntimeError("the client is closed: use it inside `async with Springest(...)`")
        if opened.pid != os.getpid():
            raise RuntimeError("the client was opened before this process was forked: make a client in each process")
        if opened.loop is not asyncio.get_running_loop():
            raise RuntimeError("the client was opened on another event loop: make a client on each loop")
        return opened

    def _call(self) -> "_Call":
        """Return a context for what this task does, so that closing the client waits for it or cancels it."""
        opened, task = self._checked(), asyncio.current_task()
        assert task is not None
        if opened.cancelling:
            raise RuntimeError("the client is closing: it has cancelled everything that was going on")
        return _Call(opened, task)

    # --- POST /users/certificates ---

    async def upload(
        self,
        upload: CertificateUpload,
        *,
        listener: UploadListener | None = None,
    ) -> Receipt:
        """Post a certificate, and return when Springest has stored it.

        It waits for the limit as long as that takes. It sends again what the server certainly has not stored (after a
        broken connection, or a refusal for speed), and nothing that it may have stored.

        The file is looked at before anything else. One of at most 1 MiB is sent as it was then if the limit lets it
        leave at once; any other must still be the same file when it is sent.

        With a journal the same certificate is stored once, however often and wherever this is called: one that is
        stored returns its receipt (`Receipt.stored_before`), one that another task or process is sending is waited for,
        and one in doubt is settled first. One that was rejected or has failed earlier is sent again.

        Args:
            upload: the certificate.
            listener: called at each step, for instance for a progress bar.

        Raises:
            Rejected: Springest does not want this certificate; `Rejected.faults` says why, if the server did.
            NotAuthorized, Forbidden, NotFound, Redirected: nothing was stored, and no other certificate will be
                before a person has checked key and host.
            UnexpectedStatus: nothing was stored, for a reason that the API's pages do not mention.
            UnusableFile: the file cannot be read, or changed while it was sent.
            NotSent: four times in a row there was no connection, or it broke before the whole body was sent; or,
                raised at once, the server's TLS certificate is not trusted. Safe to call again.
            InDoubt: the whole certificate was sent, and no answer says whether it is stored: see `settle`.
            JournalError: the journal cannot be read or written. A POST that it has not recorded is not sent.
            ConfigurationError: the limit cannot be kept (see `Limiter.post`). Nothing was sent.
            RuntimeError: the client is closed, or opened on another event loop or in another process.
            asyncio.CancelledError: its ``__cause__`` is a `NotSent`, an `InDoubt` or a `CancelledTooLate` (stored). The
                TimeoutError of `asyncio.timeout` has the cancellation as its own ``__cause__``.
        """
        uploader = self._uploader()
        with self._call() as call:
            follow = partial(call.follow, listener)
            if self.journal is None:
                return await Upload(uploader, upload, follow).run()

            from springest_async.once import OnceUpload  # noqa: PLC0415 # see `_journal_at`

            def send(source: SourceFile, claim: "Claim") -> Awaitable[Receipt]:
                return Upload(uploader, upload, follow, source=source, claim=claim).run()

            return await OnceUpload(
                self.journal,
                upload,
                follow,
                where=uploader.where,
                origin=self.origin,
                executor=uploader.executor,
                send=send,
                ask=self.settle,
            ).run()

    async def upload_claimed(
        self,
        upload: CertificateUpload,
        claim: "Claim",
        source: SourceFile,
        *,
        listener: UploadListener,
        reader: FileReader | None = None,
    ) -> Receipt:
        """Post a certificate of a bulk run, which has claimed it in the journal; other uploads go first.

        Args:
            upload: the certificate.
            claim: the right to send it; the caller releases it.
            source: the file as it was when it was inspected; a file that has changed since is not sent.
            listener: called at each step.
            reader: of the file, if it was read then: that is sent if it leaves within a second. It is closed.

        Raises:
            ConfigurationError: the claim is of another journal than this client's.
            ClaimLost: another worker has taken over. Nothing was sent.
            SpringestError: as `upload`.
        """
        if claim.journal is not self.journal:
            raise ConfigurationError("the client must have the journal of the migration: Springest(journal=journal)")
        uploader = self._uploader()
        with self._call() as call:
            return await Upload(uploader, upload, partial(call.follow, listener), True, source, claim, reader).run()

    def _uploader(self) -> Uploader:
        opened = self._checked()
        if opened.closing:
            raise RuntimeError("the client is closed to new uploads: it waits for the others, and then closes")
        if opened.uploader is None:
            opened.uploader = Uploader(
                transport=self._transport,
                key=self._key,
                wire_format=self.settings.wire_format,
                timeouts=self.settings.timeouts,
                limiter=self.limiter,
                verdicts=self._verdicts,
                executor=opened.executor,
            )
        return opened.uploader

    async def settle(self, doubt: InDoubt, *, known: Collection[int] = ()) -> Certificate | None:
        """Ask Springest whether a certificate in doubt is stored.

        Usage::

            try:
                await springest.upload(upload)
            except InDoubt as doubt:
                if await springest.settle(doubt) is None:
                    await springest.upload(upload)  # it certainly is not stored

        A certificate is stored if Springest lists one with the same employee, certification and validity dates, created
        since the send. It is not stored if Springest does not list it although it lists certificates of this
        certification (it lists verified certifications only), also after the server has had `Timeouts.answer` to finish
        its work; `settle` waits for that.

        Args:
            doubt: the error that `upload` raised.
            known: ids of other certificates, such as those of receipts.

        Returns:
            The listed certificate if it is stored, None if it certainly is not.

        Raises:
            InDoubt: it is still unknown; `reason` says why. Only a person can decide.
            SpringestError: the same as `certificates` and `certifications`.
        """
        with self._call():
            clock = asyncio.get_running_loop().time  # which no person or time server changes
            given_up = clock() - max(0.0, (datetime.now(UTC) - doubt.given_up_at).total_seconds())
            found = await self._find(doubt, known)
            if found is None and await self._is_shown(doubt.certification_id):
                # The server may still work on it, because the gateway before it or this client gave up first.
                await asyncio.sleep(given_up + self.settings.timeouts.answer - clock())
                found = await self._find(doubt, known)
                if found is None:
                    return None
        if isinstance(found, Certificate):
            return found
        why = found.reason if found else "Springest does not list it, and does not show its certification yet"
        raise attrs.evolve(doubt, reason=still_in_doubt(doubt.reason, why))

    async def _find(self, doubt: InDoubt, known: Collection[int]) -> Certificate | Unclear | None:
        listed = self.certificates(
            email=doubt.email, certification_id=doubt.certification_id, created_from=listed_from(doubt)
        )
        certificates = await _beginning(listed)
        if len(certificates) > _MOST_LISTED:
            return Unclear(f"Springest lists more than {_MOST_LISTED} certificates for it")
        found = find(doubt, certificates, known)
        if found is None and clock_was_ahead(doubt, datetime.now(UTC), self._server_time):
            return Unclear("the clock of this machine is, or was, days ahead of the server's")
        if found is None and any(not _asked_for(doubt, certificate) for certificate in certificates):
            # A server that ignores the filters may ignore the offset too, or it writes the address in another way.
            return Unclear("Springest lists certificates that were not asked for, so it may be there as well")
        return found

    async def _is_shown(self, certification_id: int) -> bool:
        """Return whether Springest lists certificates of this certification: it lists it, or one of them."""
        if not self._certifications_key:
            query = protocol.certificates_query(None, certification_id, None) | {"size": "1"}
            page = await self._page(Certificate, query)
            return any(certificate.certification_id == certification_id for certificate in page.records)
        if certification_id not in self._shown:
            self._shown = {certification.id for certification in await _beginning(self.certifications())}
        return certification_id in self._shown

    # --- GET ---

    def certificates(
        self,
        *,
        email: str | None = None,
        certification_id: int | None = None,
        created_from: date | None = None,
    ) -> AsyncGenerator[Certificate, None]:
        """List the verified certificates; each page is requested when the iteration reaches it.

        Springest lists a certificate that was just uploaded only after it has verified its certification.

        Args:
            email: only those of this employee.
            certification_id: only those for this certification.
            created_from: only those created on or after this date.

        Raises:
            NotAuthorized, Forbidden, NotFound, Redirected, UnexpectedStatus: the server refuses the request.
            ServerError, NoAnswer, NotSent: no list, also after the retries.
            UnreadableAnswer: the answer is not such a list.
            RuntimeError: the client is closed, or opened on another event loop or in another process.
        """
        query = protocol.certificates_query(email, certification_id, created_from)
        return self._list(Certificate, query)

    def certificate_pages(
        self,
        *,
        email: str | None = None,
        certification_id: int | None = None,
        created_from: date | None = None,
    ) -> AsyncGenerator[Page[Certificate], None]:
        """List as `certificates` does, a page at a time, with the length that the whole list has then.

        Whether all of it was read can only be told by that length. A page has no record of the page before it.

        Args and errors are those of `certificates`.
        """
        return self._pages(Certificate, protocol.certificates_query(email, certification_id, created_from))

    async def count_certificates(
        self, *, email: str | None = None, certification_id: int | None = None, created_from: date | None = None
    ) -> int | None:
        """Return how many certificates `certificates` would list, or None if Springest does not say; in one request.

        Args and errors are those of `certificates`.
        """
        query = protocol.certificates_query(email, certification_id, created_from)
        return (await self._page(Certificate, query | {"size": "1", "offset": "0"})).total

    def certifications(self, *, name: str | None = None) -> AsyncGenerator[Certification, None]:
        """List the verified certifications of the host; each page is requested when the iteration reaches it.

        Args:
            name: only those with this name.

        Raises:
            ConfigurationError: there is no `certifications_api_key`.
            SpringestError: the same as `certificates`.
        """
        if not self._certifications_key:
            raise ConfigurationError(
                "certifications need their own key: pass Springest(certifications_api_key=…)"
                " or set SPRINGEST_CERTIFICATIONS_API_KEY"
            )
        return self._list(Certification, {} if name is None else {"name": name})

    async def _list(self, record: type[Record], query: dict[str, str]) -> AsyncGenerator[Record, None]:
        async with aclosing(self._pages(record, query)) as pages:
            async for page in pages:
                for item in page.records:
                    yield item

    async def _pages(self, record: type[Record], query: dict[str, str]) -> AsyncGenerator[Page[Record], None]:
        """Request page after page until the end, which comes also on a server that ignores `offset`."""
        offset = 0
        before: tuple[Record, ...] = ()
        while True:
            page = await self._page(record, query | {"size": str(PAGE_SIZE), "offset": str(offset)})
            # A page with nothing new shows that the server ignores `offset`: then the first page is all that there is.
            # A record that moves to the next page meanwhile is yielded once.
            known = {item.id for item in before}
            new = tuple(item for item in page.records if item.id not in known)
            yield Page(new, page.total)
            offset += len(page.records)
            if not new or (page.total is not None and offset >= page.total):
                return
            before = page.records

    async def _page(self, record: type[Record], query: dict[str, str]) -> Page[Record]:
        if record is Certificate:
            resource, name, key = CERTIFICATES, "certificates", self._key
        else:
            resource, name, key = CERTIFICATIONS, "certifications", self._certifications_key
        path = protocol.path(resource, self.settings.wire_format)
        where = self._transport.where("GET", path)
        retry_after: float | None = None

        import stamina  # noqa: PLC0415 # only lists need it

        def again(error: Exception) -> bool | float:
            return ask_again(error, retry_after)

        tries = stamina.retry_context(on=again, attempts=5, timeout=None, wait_initial=0.5, wait_max=30.0)
        with self._call():
            async for attempt in tries:
                with attempt:
                    await self.limiter.request()
                    retry_after = None
                    answer = await self._transport.get(path, query, key, before_resending=self.limiter.request)
                    retry_after = answer.retry_after
                    if (error := protocol.list_error(answer, where)) is not None:
                        raise error
        self._server_time = answer.server_time
        return protocol.read_page(answer, where, self.settings.wire_format, record, name)


def _journal_at(place: str | PathLike[str]) -> "Journal":
    # Imported here, because it takes as long as half of all else, and many services have no journal.
    from springest_async.journal.journal import Journal  # noqa: PLC0415

    return Journal(place)


async def _beginning(listed: AsyncGenerator[Record, None]) -> list[Record]:
    """Return the first records of a list; more than `_MOST_LISTED` of them are not all."""
    records: list[Record] = []
    async with aclosing(listed):
        async for record in listed:
            records.append(record)
            if len(records) > _MOST_LISTED:
                break
    return records


def _asked_for(doubt: InDoubt, certificate: Certificate) -> bool:
    email = certificate.user.email if certificate.user else doubt.email
    return (certificate.certification_id, email.casefold()) == (doubt.certification_id, doubt.email.casefold())


@define(eq=False)
class _Opened:
    """Everything that belongs to one ``async with`` of a client."""

    loop: asyncio.AbstractEventLoop
    pid: int = field(factory=os.getpid)
    executor: ThreadPoolExecutor = field(factory=lambda: ThreadPoolExecutor(1, "springest-files"))  # reads files
    uploader: Uploader | None = None  # once there was an upload
    calls: "set[_Call]" = field(factory=set)
    idle: asyncio.Event = field(factory=asyncio.Event)  # set when the last call has ended
    closing: bool = False  # whether uploads are refused
    cancelling: bool = False  # whether everything is
    giving_up: bool = False  # whether what waits is cancelled

    async def calls_ended(self) -> None:
        while self.calls:
            await self.idle.wait()


@define(eq=False)
class _Call:
    """One call of a method, and the task that made it; it is registered with the client until its block ends."""

    opened: _Opened
    task: asyncio.Task[Any]
    waiting: bool = True  # so that nothing is lost if it is cancelled

    def __enter__(self) -> Self:
        self.opened.calls.add(self)
        self.opened.idle.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.calls.remove(self)
        if not self.opened.calls:
            self.opened.idle.set()

    def follow(self, listener: UploadListener | None, step: UploadStep) -> None:
        """Note whether the upload waits after this step, and pass the step on."""
        self.waiting = step.kind in ("waiting", "refused", "unsent")
        if self.opened.giving_up and self.waiting:
            # Not at once: an upload that ends with this step must not leave a cancellation in the task.
            self.opened.loop.call_soon(self.cancel_if_waiting)
        if listener is not None:
            listener(step)

    def cancel_if_waiting(self) -> None:
        if self.waiting and self in self.opened.calls:
            self.task.cancel()


def _from_env(name: str) -> str:
    # A key that was read from a file may end with a newline.
    return os.environ.get(name, "").strip()
