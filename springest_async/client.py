"""`Springest`: the three verbs of the API, composed of the limiter, the transport and the protocol.

It parses nothing and decides nothing itself; how one certificate gets there is `delivery`'s business.
"""

import hashlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import stamina
from attrs import field, frozen
from attrs.validators import ge, in_

from springest_async import protocol
from springest_async.decode import Page, WireFormat
from springest_async.delivery import Delivery, UploadListener, UploadStep
from springest_async.errors import ConfigurationError
from springest_async.limiter import POSTS_PER_MINUTE, Limiter, shared_limiter
from springest_async.multipart import look
from springest_async.protocol import CERTIFICATES, CERTIFICATIONS
from springest_async.records import Certificate, CertificateUpload, Certification, Receipt
from springest_async.retry import Verdicts, ask_again
from springest_async.transport import ApiKey, Timeouts, Transport

__all__ = ["Settings", "Springest"]

_PAGE_SIZE = 100
_USER_AGENT = f"springest_async/{version('springest-async')} aiohttp/{aiohttp.__version__}"

Record = TypeVar("Record", Certificate, Certification)


@frozen(kw_only=True)
class Settings:
    """What can be set beyond host and keys; every default is right for Springest as its pages describe it.

    Args:
        wire_format: ``"json"``, which is all that Springest fully supports, or ``"xml"``.
        timeouts: how long to wait, in seconds.
        concurrency: how many uploads of a bulk run are in flight at once.
        posts_per_minute: what you have agreed with Springest. More than 30 without that gets your uploads refused.
        burst: how many POSTs may leave at once (1 to `posts_per_minute`, which is the default); 1 spaces them evenly.
        session: an aiohttp session of your own, whose connector, headers, cookies and traces are then used. It is
            not closed.
        limiter: a bucket of your own, with figures of its own. By default all clients of a process with one host and
            key share one.
    """

    wire_format: WireFormat = field(default="json", validator=in_(("json", "xml")))
    timeouts: Timeouts = field(factory=Timeouts)
    concurrency: int = field(default=8, validator=ge(1))
    posts_per_minute: int = field(default=POSTS_PER_MINUTE, validator=ge(1))
    burst: int | None = None
    session: aiohttp.ClientSession | None = None
    limiter: Limiter | None = None


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

    Args:
        api_key: the key for certificates on this host.
        certifications_api_key: the key for `certifications`, which is a different one.
        host: ``nl``, ``be``, ``de``, ``uk``, ``com``, or an origin such as ``https://site.api.go.springest.nl``.
        settings: see `Settings`.

    Raises:
        ConfigurationError: when a key is empty, or the host is none, or is ``http`` to another machine.
    """

    def __init__(
        self,
        *,
        api_key: str,
        certifications_api_key: str | None = None,
        host: str = "nl",
        settings: Settings | None = None,
    ) -> None:
        if not api_key:
            raise ConfigurationError("api_key is empty: ask Springest for the key of this host")
        for key in (api_key, certifications_api_key or ""):
            if not key.isprintable():
                # Surrogates (bytes of the environment that are no text) among others; the key itself is not told.
                raise ConfigurationError("a key has letters that cannot be printed: it is damaged")
        self.settings = settings = settings or Settings()
        self.origin = protocol.origin_of(host)
        self._key = ApiKey(api_key)
        self._certifications_key = ApiKey(certifications_api_key) if certifications_api_key else None
        self._verdicts = Verdicts()
        self._transport = Transport(
            self.origin, timeouts=settings.timeouts, user_agent=_USER_AGENT, session=settings.session
        )
        digest = hashlib.sha256(api_key.encode()).digest()
        make = partial(Limiter, posts=settings.posts_per_minute, burst=settings.burst)
        self.limiter = settings.limiter or shared_limiter((self.origin, digest), make)
        self._executor: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<Springest {self.origin}, {'closed' if self._executor is None else 'open'}, {self.limiter!r}>"

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="springest-files")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)
        await self._transport.__aexit__(kind, error, traceback)

    # --- POST /users/certificates ---

    async def upload(self, upload: CertificateUpload, *, listener: UploadListener | None = None) -> Receipt:
        """Post a certificate, and return when Springest has stored it.

        It waits for the limit as long as that takes. What the server cannot have is sent again (a broken connection,
        a refusal for speed); what it may have is not.

        Args:
            upload: the certificate.
            listener: told of each step, for instance by a progress bar.

        Raises:
            Rejected: Springest does not want this certificate; `Rejected.faults` says why, if the server did.
            NotAuthorized, Forbidden, NotFound, Redirected: nothing was stored, and no other certificate will be
                either before a person has looked at key and host.
            UnexpectedStatus: nothing was stored, for a reason that the API's pages do not know.
            UnusableFile: the file cannot be read, or changed on the way.
            NotSent: no connection, or it broke in the middle, four times in a row. Safe to call again.
            InDoubt: the whole certificate was sent and no answer tells whether it is stored.
        """
        if self._executor is None:
            raise RuntimeError("the client is closed: use it inside `async with Springest(...)`")
        path = protocol.path(CERTIFICATES, self.settings.wire_format)
        return await Delivery(
            upload=upload,
            source=await look(upload.file, self._executor),
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
        ).run()

    # --- GET ---

    async def certificates(
        self,
        *,
        email: str | None = None,
        certification_id: int | None = None,
        created_from: date | None = None,
    ) -> AsyncIterator[Certificate]:
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
        async for certificate in self._list(CERTIFICATES, "certificates", Certificate, query, self._key):
            yield certificate

    async def certifications(self, *, name: str | None = None) -> AsyncIterator[Certification]:
        """List the verified certifications of the host, page by page as you go.

        Args:
            name: only those of this name.

        Raises:
            ConfigurationError: no `certifications_api_key` was given.
            SpringestError: the same as `certificates`.
        """
        if self._certifications_key is None:
            raise ConfigurationError(
                "certifications need a key of their own: give Springest(certifications_api_key=…)"
                " or set SPRINGEST_CERTIFICATIONS_API_KEY"
            )
        query = {} if name is None else {"name": name}
        async for certification in self._list(
            CERTIFICATIONS, "certifications", Certification, query, self._certifications_key
        ):
            yield certification

    async def _list(
        self, resource: str, name: str, record: type[Record], query: dict[str, str], key: ApiKey
    ) -> AsyncIterator[Record]:
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

        async for attempt in stamina.retry_context(on=again, attempts=5, timeout=None, wait_initial=0.5, wait_max=30.0):
            with attempt:
                await self.limiter.request()
                retry_after = None
                answer = await self._transport.get(path, query, key)
                retry_after = answer.retry_after
                if (error := protocol.list_error(answer, where)) is not None:
                    raise error
        return protocol.read_page(answer, where, self.settings.wire_format, record, name)


def _nobody(_: UploadStep) -> None:
    """Listen to nothing."""
