"""`Springest`: the three verbs of the API, composed of the limiter, the transport and the protocol.

It parses nothing and decides nothing itself; how one certificate gets there is `delivery`'s business.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import attrs
import stamina
from attrs import field, frozen
from attrs.converters import optional
from attrs.validators import ge, in_
from attrs.validators import optional as given

from springest_async.api import protocol
from springest_async.api.decode import Page, WireFormat
from springest_async.api.protocol import CERTIFICATES, CERTIFICATIONS
from springest_async.api.settlement import Unclear, clock_was_ahead, find, listed_from
from springest_async.api.verdicts import Verdicts, ask_again
from springest_async.errors import ConfigurationError, InDoubt
from springest_async.http.api_key import ApiKey
from springest_async.http.proxy import Proxy, proxy_at
from springest_async.http.transport import Timeouts, Transport
from springest_async.limits.limiter import POSTS_PER_MINUTE, REQUESTS_PER_HOUR, Limiter, shared_limiter
from springest_async.limits.store import FileStore, default_path
from springest_async.records import Certificate, CertificateUpload, Certification, Receipt
from springest_async.source_file import SourceFile
from springest_async.upload import Delivery, UploadListener, UploadStep
from springest_async.version import __version__

__all__ = ["Settings", "Springest"]

_PAGE_SIZE = 100
# A list that is longer answers no question of a settling, or has no end.
_MOST_LISTED = 10_000
_USER_AGENT = f"springest_async/{__version__} aiohttp/{aiohttp.__version__}"

Record = TypeVar("Record", Certificate, Certification)


@frozen(kw_only=True)
class Settings:
    """What can be set beyond host and keys; every default is right for Springest as its pages describe it.

    Args:
        wire_format: ``"json"``, which is all that Springest fully supports, or ``"xml"``.
        timeouts: how long to wait, in seconds.
        concurrency: how many uploads of a bulk run are in flight at once.
        posts_per_minute: the limit that Springest has agreed with you (30). More without an agreement gets your uploads
            refused.
        burst: how many POSTs may leave at once (1 to `posts_per_minute`, which is the default); 1 spaces them evenly.
        requests_per_hour: the limit of all requests together that Springest has agreed with you (4000).
        session: an aiohttp session of your own, whose connector, headers, cookies and traces are then used. It is
            not closed. Which certificates its connector trusts is then your own business. Its `proxy` and `trust_env`
            are not used.
        ca_file: a file (PEM) with the certificates of CAs to trust beside those of the system, such as a company's own;
            read when the client is opened. Not together with `session`.
        proxy: an HTTP proxy to go through, such as ``http://proxy.example:3128`` or, with a name and a password,
            ``http://name:password@proxy.example:3128``. It learns the host, but neither key nor certificates, and is
            not used for a host that is ``http``, which is this machine.
        machine_wide: share the limit of POSTs with all programs of this machine that use the same host and key and set
            this too, such as the command; then a restart forgets nothing either. By default the clients of one process
            share it.
        limiter: a `Limiter` of your own, instead of `posts_per_minute`, `burst`, `requests_per_hour` and
            `machine_wide`.

    Raises:
        ConfigurationError: `proxy` is not such an address, `ca_file` is given together with `session`, or `limiter`
            together with a setting that it replaces.
    """

    wire_format: WireFormat = field(default="json", validator=in_(("json", "xml")))
    timeouts: Timeouts = field(factory=Timeouts)
    concurrency: int = field(default=8, validator=ge(1))
    posts_per_minute: int | None = field(default=None, validator=given(ge(1)))
    burst: int | None = None
    requests_per_hour: int | None = field(default=None, validator=given(ge(1)))
    session: aiohttp.ClientSession | None = None
    ca_file: Path | None = field(default=None, converter=optional(Path))
    proxy: Proxy | None = field(default=None, converter=proxy_at)
    machine_wide: bool = False
    limiter: Limiter | None = None

    def __attrs_post_init__(self) -> None:
        if self.ca_file and self.session:
            raise ConfigurationError("ca_file is not for a session of your own: give its connector an SSL context")
        if self.limiter is not None:
            replaced = ("posts_per_minute", "burst", "requests_per_hour", "machine_wide")
            if ignored := [name for name in replaced if getattr(self, name) not in (None, False)]:
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

    It is left as a task group is: normally, it waits for the uploads that other tasks have begun, however long the
    limit lets them wait; by an exception, or when that waiting is cancelled, it cancels those tasks, and what became of
    each certificate is in the `asyncio.CancelledError`, as `upload` says. In both cases it takes no new uploads.

    Args:
        api_key: the key for certificates on this host.
        certifications_api_key: the key for `certifications`, which is a different one.
        host: ``nl``, ``be``, ``de``, ``uk``, ``com``, or an origin such as ``https://site.api.go.springest.nl``.
        settings: see `Settings`.

    Raises:
        ConfigurationError: when a key is empty, or the host is none, or is ``http`` to another machine; by
            ``async with``, when `Settings.ca_file` cannot be read.
    """

    def __init__(
        self,
        *,
        api_key: str,
        certifications_api_key: str | None = None,
        host: str = "nl",
        settings: Settings | None = None,
    ) -> None:
        # No variable keeps a key as it is: a traceback may show them.
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
            user_agent=_USER_AGENT,
            session=settings.session,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
        )
        budget = self._key.budget(self.origin)
        make = partial(
            Limiter,
            posts=settings.posts_per_minute or POSTS_PER_MINUTE,
            burst=settings.burst,
            requests_per_hour=settings.requests_per_hour or REQUESTS_PER_HOUR,
            store=FileStore(default_path(), budget) if settings.machine_wide else None,
        )
        self.limiter = settings.limiter or shared_limiter(budget, make)
        self._executor: ThreadPoolExecutor | None = None
        self._calls: dict[asyncio.Future[None], asyncio.Task[Any]] = {}  # what is done now, and on whose behalf

    def __repr__(self) -> str:
        if not hasattr(self, "_executor"):  # a traceback of its __init__ may show it
            return "<Springest, not made>"
        return f"<Springest {self.origin}, {'closed' if self._executor is None else 'open'}, {self.limiter!r}>"

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="springest-files")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        executor, self._executor = self._executor, None
        try:
            if error is None:
                await self._calls_ended()
        finally:
            for task in set(self._calls.values()):
                task.cancel()
            try:
                await self._calls_ended()
            finally:
                if executor is not None:
                    executor.shutdown(wait=False, cancel_futures=True)
                await self._transport.__aexit__(kind, error, traceback)

    async def _calls_ended(self) -> None:
        while self._calls:
            await asyncio.wait(list(self._calls))

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Have what is done in it waited for, or cancelled, when the client is closed."""
        task, ended = asyncio.current_task(), asyncio.get_running_loop().create_future()
        assert task is not None
        self._calls[ended] = task
        try:
            yield
        finally:
            del self._calls[ended]
            ended.set_result(None)

    # --- POST /users/certificates ---

    async def upload(
        self,
        upload: CertificateUpload,
        *,
        listener: UploadListener | None = None,
        bulk: bool = False,
        source: SourceFile | None = None,
    ) -> Receipt:
        """Post a certificate, and return when Springest has stored it.

        It waits for the limit as long as that takes. What the server cannot have is sent again (a broken connection,
        a refusal for speed); what it may have is not.

        Args:
            upload: the certificate.
            listener: told of each step, for instance by a progress bar.
            bulk: let uploads that are not bulk go first.
            source: the file as it was when it was looked at; what is no longer the same is not sent.

        Raises:
            Rejected: Springest does not want this certificate; `Rejected.faults` says why, if the server did.
            NotAuthorized, Forbidden, NotFound, Redirected: nothing was stored, and no other certificate will be
                either before a person has looked at key and host.
            UnexpectedStatus: nothing was stored, for a reason that the API's pages do not know.
            UnusableFile: the file cannot be read, or changed on the way.
            NotSent: no connection, or it broke in the middle, four times in a row; or the server's TLS certificate is
                not trusted, at once. Safe to call again.
            InDoubt: the whole certificate was sent and no answer tells whether it is stored: see `settle`.
            asyncio.CancelledError: its ``__cause__`` is a `NotSent`, an `InDoubt` or a `CancelledTooLate` (stored). A
                TimeoutError of `asyncio.timeout` has the cancellation as its own ``__cause__``.
        """
        if self._executor is None:
            raise RuntimeError("the client is closed: use it inside `async with Springest(...)`")
        path = protocol.path(CERTIFICATES, self.settings.wire_format)
        delivery = Delivery(
            upload=upload,
            source=source,
            bulk=bulk,
            path=path,
            where=self._transport.where("POST", path),
            key=self._key,
            wire_format=self.settings.wire_format,
            timeouts=self.settings.timeouts,
            limiter=self.limiter,
            verdicts=self._verdicts,
            transport=self._transport,
            executor=self._executor,
            listener=listener or _nobody,
        )
        with self._call():
            return await delivery.run()

    async def settle(self, doubt: InDoubt, *, known: Collection[int] = ()) -> Certificate | None:
        """Ask Springest whether a certificate in doubt is stored.

        Usage::

            try:
                await springest.upload(upload)
            except InDoubt as doubt:
                if await springest.settle(doubt) is None:
                    await springest.upload(upload)  # it certainly is not stored

        Stored is what Springest lists with the same employee, certification and validity dates, created since the
        send. Not stored is what it does not list although it shows the certification, and although the server has had
        `Timeouts.answer` to end its work, which is waited for. (Springest lists verified certifications only.)

        Args:
            doubt: what `upload` raised.
            known: ids of certificates that are known to be others, such as those of receipts.

        Returns:
            The certificate as it is listed when it is stored, None when it certainly is not.

        Raises:
            InDoubt: nobody can tell; its `reason` says why. Only a person can decide.
            SpringestError: the same as `certificates` and `certifications`.
        """
        with self._call():
            return await self._settled(doubt, known)

    async def _settled(self, doubt: InDoubt, known: Collection[int]) -> Certificate | None:
        clock = asyncio.get_running_loop().time  # which nobody sets
        given_up = clock() - max(0.0, (datetime.now(UTC) - doubt.given_up_at).total_seconds())
        found = await self._find(doubt, known)
        if found is None and await self._is_shown(doubt.certification_id):
            # The server may be at work on it: behind a gateway that gave up, or when it was we who gave up.
            await asyncio.sleep(given_up + self.settings.timeouts.answer - clock())
            found = await self._find(doubt, known)
            if found is None:
                return None
        if isinstance(found, Certificate):
            return found
        why = found.reason if found else "Springest does not list it, and does not show its certification yet"
        raise attrs.evolve(doubt, reason=doubt.reason if why in doubt.reason else f"{doubt.reason}; {why}")

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
            # A server that ignores the filters may ignore the offset too, or writes the address in another way.
            return Unclear("Springest lists certificates that were not asked for, so it may be there as well")
        return found

    async def _is_shown(self, certification_id: int) -> bool:
        """Whether Springest lists the certificates of a certification: it is listed itself, or one of its own is."""
        if not self._certifications_key:
            query = protocol.certificates_query(None, certification_id, None) | {"size": "1"}
            page = await self._page(CERTIFICATES, "certificates", Certificate, query, self._key)
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
        """List the verified certificates, page by page as you go.

        A certificate that was just uploaded is listed only after Springest has verified its certification.

        Args:
            email: only of this employee.
            certification_id: only for this certification.
            created_from: only those created on or after this date.

        Raises:
            NotAuthorized, Forbidden, NotFound, Redirected, UnexpectedStatus: the request cannot be answered.
            ServerError, NoAnswer, NotSent: also after the retries.
            UnreadableAnswer: the answer is not such a list.
        """
        query = protocol.certificates_query(email, certification_id, created_from)
        return self._list(CERTIFICATES, "certificates", Certificate, query, self._key)

    def certifications(self, *, name: str | None = None) -> AsyncGenerator[Certification, None]:
        """List the verified certifications of the host, page by page as you go.

        Args:
            name: only those of this name.

        Raises:
            ConfigurationError: no `certifications_api_key` was given.
            SpringestError: the same as `certificates`.
        """
        if not self._certifications_key:
            raise ConfigurationError(
                "certifications need a key of their own: give Springest(certifications_api_key=…)"
                " or set SPRINGEST_CERTIFICATIONS_API_KEY"
            )
        query = {} if name is None else {"name": name}
        return self._list(CERTIFICATIONS, "certifications", Certification, query, self._certifications_key)

    async def _list(
        self, resource: str, name: str, record: type[Record], query: dict[str, str], key: ApiKey
    ) -> AsyncGenerator[Record, None]:
        """Follow the pages until the end, and never for ever on a server that ignores `offset`."""
        offset = 0
        before: tuple[Record, ...] = ()
        while True:
            page = await self._page(
                resource, name, record, query | {"size": str(_PAGE_SIZE), "offset": str(offset)}, key
            )
            # A page that came before says that `offset` is ignored: then the first page was all there is to get.
            # Records that move to the next page while we read it are told once.
            known = {item.id for item in before}
            new = [item for item in page.records if item.id not in known]
            for item in new:
                yield item
            offset += len(page.records)
            if not new or (page.total is not None and offset >= page.total):
                return
            before = page.records

    async def _page(
        self, resource: str, name: str, record: type[Record], query: dict[str, str], key: ApiKey
    ) -> Page[Record]:
        path = protocol.path(resource, self.settings.wire_format)
        where = self._transport.where("GET", path)
        retry_after: float | None = None

        def again(error: Exception) -> bool | float:
            return ask_again(error, retry_after)

        tries = stamina.retry_context(on=again, attempts=5, timeout=None, wait_initial=0.5, wait_max=30.0)
        with self._call():
            async for attempt in tries:
                with attempt:
                    await self.limiter.request()
                    retry_after = None
                    answer = await self._transport.get(path, query, key, again=self.limiter.request)
                    retry_after = answer.retry_after
                    if (error := protocol.list_error(answer, where)) is not None:
                        raise error
        self._server_time = answer.server_time
        return protocol.read_page(answer, where, self.settings.wire_format, record, name)


async def _beginning(listed: AsyncGenerator[Record, None]) -> list[Record]:
    """Read a list up to a bound; who gets more than `_MOST_LISTED` has not got all."""
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


def _nobody(_: UploadStep) -> None:
    """Listen to nothing."""
