"""The public API as its users write it: mypy checks this file, and nobody runs it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import date, datetime
from pathlib import Path
from typing import assert_never, assert_type

import aiohttp

import springest_async
from springest_async import (
    AnswerError,
    CancelledTooLate,
    Certificate,
    CertificateUpload,
    Certification,
    ConfigurationError,
    Fault,
    Forbidden,
    InDoubt,
    InvalidUpload,
    Journal,
    JournalError,
    JournalMissing,
    JournalUnavailable,
    Limiter,
    NoAnswer,
    NotAuthorized,
    NotFound,
    NotSent,
    Receipt,
    Redirected,
    Rejected,
    ServerError,
    Settings,
    Springest,
    SpringestError,
    Timeouts,
    TransportError,
    UnexpectedStatus,
    UnreadableAnswer,
    UnusableFile,
    UploadListener,
    UploadStep,
    User,
)
from springest_async.bulk import (
    BulkListener,
    Entry,
    Finding,
    KnownFiles,
    Loaded,
    Manifest,
    OpenMigration,
    Report,
    RunRecorder,
    State,
    UploadQueue,
    check_manifest,
    load_manifest,
    source_of,
    write_failed,
)


def uploads() -> list[CertificateUpload]:
    least = CertificateUpload(
        file=Path("jan.pdf"), certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31)
    )
    most = CertificateUpload(
        file="jan.pdf",
        certification_id=7,
        email="jan@example.org",
        valid_from=date(2026, 1, 31),
        valid_until=date(2027, 1, 31),
        conversion_id=12,
    )
    assert_type(most.file, Path)
    assert_type(most.certification_id, int)
    assert_type(most.email, str)
    assert_type(most.valid_from, date)
    assert_type(most.valid_until, date | None)
    assert_type(most.conversion_id, int | None)
    return [least, most]


async def a_service() -> None:
    async with Springest(api_key="…", host="nl") as springest:
        assert_type(springest, Springest)
        receipt = await springest.upload(uploads()[0])
        assert_type(receipt, Receipt)
        assert_type(receipt.id, int | None)
        assert_type(receipt.upload, CertificateUpload)
        assert_type(receipt.attempts, int)
        assert_type(receipt.request_id, str)
        assert_type(receipt.sent_at, datetime)
        assert_type(receipt.answered_at, datetime)


async def many_at_once(springest: Springest) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(springest.upload(upload)) for upload in uploads()]
    assert_type([task.result() for task in tasks], list[Receipt])


async def lists(springest: Springest) -> None:
    async with aclosing(springest.certificates()) as certificates:
        assert_type(certificates, AsyncGenerator[Certificate, None])
    async for certificate in springest.certificates(
        email="jan@example.org", certification_id=7, created_from=date(2026, 1, 1)
    ):
        assert_type(certificate, Certificate)
        assert_type(certificate.id, int)
        assert_type(certificate.certification_id, int)
        assert_type(certificate.valid_from, date)
        assert_type(certificate.valid_until, date | None)
        assert_type(certificate.name, str | None)
        assert_type(certificate.status, str | None)
        assert_type(certificate.created_at, datetime | None)
        assert_type(certificate.user, User | None)
        if certificate.user is not None:
            assert_type(certificate.user.email, str)
            assert_type(certificate.user.external_id, str | None)
    found = [certification async for certification in springest.certifications(name="VCA")]
    assert_type(found, list[Certification])
    assert_type([(item.id, item.name, item.requires_valid_until) for item in found], list[tuple[int, str, bool]])


async def everything_set(connector: aiohttp.BaseConnector) -> None:
    settings = Settings(
        wire_format="xml",
        timeouts=Timeouts(connect=10, answer=60.0, stall=30.0),
        concurrency=4,
        posts_per_minute=30,
        burst=1,
        requests_per_hour=4000,
        connector=connector,
    )
    Settings(limiter=Limiter(posts=30, period=60.0, burst=1, requests_per_hour=4000))
    springest = Springest(
        api_key="…", certifications_api_key="…", host="https://site.api.go.springest.nl", settings=settings
    )
    assert_type(springest.settings, Settings)
    assert_type(springest.limiter, Limiter)
    assert_type(springest.origin, str)
    assert_type(springest.limiter.slow, bool)


async def with_a_bucket_of_ones_own(limiter: Limiter) -> None:
    async with limiter.post(count_window=120.0) as turn:
        turn.mark_answered()
        assert_type(turn.position, int)
    await limiter.request()
    assert_type(limiter.seconds_until(31), float)


class Progress:
    def __call__(self, step: UploadStep, /) -> None:
        assert_type(step.at, datetime)
        match step.kind:
            case "waiting" | "sending":
                assert_type(step.attempts, int)
            case "refused" | "unsent" | "stored" | "rejected" | "not stored" | "in doubt":
                assert_type(step.status, int | None)
                assert_type(step.words, str)
            case _:
                assert_never(step.kind)


async def listened_to(springest: Springest, steps: list[UploadStep]) -> None:
    listener: UploadListener = Progress()
    await springest.upload(uploads()[0], listener=listener)
    await springest.upload(uploads()[0], listener=steps.append)
    await springest.upload(uploads()[0], listener=None)


async def settled(springest: Springest, receipts: list[Receipt]) -> Certificate | None:
    known = [receipt.id for receipt in receipts if receipt.id is not None]
    try:
        await springest.upload(uploads()[0])
    except InDoubt as doubt:
        assert_type(doubt.valid_from, date)
        assert_type(doubt.valid_until, date | None)
        assert_type(doubt.given_up_at, datetime)
        found = await springest.settle(doubt)
        assert_type(found, Certificate | None)
        return await springest.settle(doubt, known=known)
    return None


async def within_a_minute(springest: Springest) -> str:
    try:
        async with asyncio.timeout(60):
            await springest.upload(uploads()[0])
    except TimeoutError as error:
        return what_became_of_it(error.__cause__)
    except asyncio.CancelledError as cancelled:
        what_became_of_it(cancelled)
        raise
    return "stored"


def what_became_of_it(cancelled: BaseException | None) -> str:
    match cancelled and cancelled.__cause__:
        case CancelledTooLate() as stored:
            assert_type(stored.where, str)
            return "stored"
        case NotSent() as not_sent:
            assert_type(not_sent.connected, bool)
            return "not sent"
        case InDoubt() as doubt:
            assert_type(doubt.sent_at, datetime)
            return "in doubt"
    return "not begun"


async def with_a_journal_of_the_machine(path: Path) -> None:
    async with Springest(api_key="…", journal=path) as springest:
        assert_type((await springest.upload(uploads()[0])).stored_before, bool)


async def with_a_journal_that_machines_share() -> None:
    async with (
        Journal("postgresql://db.example/springest") as journal,
        Springest(api_key="…", host="nl", journal=journal) as dutch,
        Springest(api_key="…", host="be", journal=journal),
    ):
        assert_type(journal.where, str)
        assert_type(dutch.journal, Journal | None)


async def a_bulk_run(manifest: Manifest, listener: BulkListener) -> None:
    async with Journal() as journal, Springest(api_key="…", journal=journal) as springest:
        with KnownFiles(journal, source_of(manifest, springest.origin, journal.machine)) as known:
            assert_type(next(check_manifest(manifest, known, springest.origin)), Finding | None)
        migration, loaded = await load_manifest(journal, manifest, springest.origin)
        assert_type(migration, OpenMigration)
        assert_type(loaded, Loaded)
        recorder = RunRecorder(loaded)
        assert_type(await UploadQueue(springest, migration, recorder).run(), SpringestError | None)
        await UploadQueue(springest, migration, listener).run()
        assert_type(await recorder.report(migration), Report)
        assert_type(await write_failed(migration, manifest), Path | None)
        assert_type(await migration.entries(State.IN_DOUBT), list[Entry])


async def behind_a_proxy_with_a_ca_of_the_company() -> None:
    settings = Settings(ca_file="company.pem", proxy="http://jan:secret@proxy.example:3128")
    async with Springest(api_key="…", settings=settings) as springest:
        assert_type(springest.settings.ca_file, Path | None)
    Settings(ca_file=Path("company.pem"), proxy=settings.proxy)


async def every_way_to_fail(springest: Springest) -> None:  # noqa: C901, PLR0912 # as many branches as errors
    try:
        await springest.upload(uploads()[0])
    except Rejected as error:
        assert_type(error.faults, tuple[Fault, ...])
        assert_type(error.status, int)
        assert_type([(fault.field, fault.reason) for fault in error.faults], list[tuple[str, str]])
    except InDoubt as error:
        assert_type(error.sent_at, datetime)
        assert_type(error.status, int | None)
        assert_type((error.email, error.certification_id), tuple[str, int])
    except NotSent as error:
        assert_type((error.connected, error.trusted), tuple[bool, bool])
    except UnusableFile as error:
        assert_type(error.file, Path)
    except (JournalMissing, JournalUnavailable) as error:
        assert_type(error.reason, str)
    except JournalError as error:
        assert_type(error.journal, Path | str)
    except Redirected as error:
        assert_type(error.target, str)
    except (NotAuthorized, Forbidden, NotFound, UnexpectedStatus, ServerError) as error:
        assert_type(error.where, str)
        assert_type(error.words, str)
    except UnreadableAnswer as error:
        assert_type(error.expected, str)
    except NoAnswer as error:
        assert_type(error.reason, str)
    except InvalidUpload as error:
        assert_type(error.faults, tuple[Fault, ...])
    except ConfigurationError as error:
        assert_type(error.message, str)
    except (AnswerError, TransportError) as error:
        assert_type(error.where, str)
    except SpringestError as error:
        assert_type(error.status, int | None)
        assert_type(error.words, str)


def what_mypy_refuses() -> None:
    """Each of these is a mistake that mypy must go on finding: an unused ignore fails its run."""
    CertificateUpload(file="x.pdf", certification_id="7", email="a@b.org", valid_from=date.min)  # type: ignore[arg-type]
    CertificateUpload("x.pdf", 7, "a@b.org", date.min)  # type: ignore[call-arg]
    Settings(wire_format="csv")  # type: ignore[arg-type]
    Springest(api_key="…", journal=True)  # type: ignore[arg-type]
    Settings(proxy=True)  # type: ignore[arg-type]
    asyncio.run(Springest(api_key="…").settle(uploads()[0]))  # type: ignore[arg-type]
    Springest("key")  # type: ignore[call-arg]
    Receipt(id=1)  # type: ignore[call-arg]
    uploads()[0].email = "b@b.org"  # type: ignore[misc]
    springest_async.CertificateBody  # type: ignore[attr-defined] # noqa: B018 # an internal name is no public one
