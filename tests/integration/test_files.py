"""Files that are not what they were, or never were what they seem: what is sent, and what becomes of their rows."""

import asyncio
import hashlib
import os
import stat
import threading
from asyncio.base_events import BaseEventLoop
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from springest_async import CertificateUpload, Journal, Limiter, Settings, Springest, UnusableFile
from springest_async.bulk import (
    BulkEvent,
    Manifest,
    OpenMigration,
    RowDone,
    RowStep,
    State,
    UploadQueue,
    load_manifest,
    reading,
)
from springest_async.journal.journal import Claim
from springest_async.source_file import inspect_file, open_regular
from tests.conftest import pdf_of
from tests.pdfs import archive, certificate
from tests.pipes import becomes_a_pipe, let_go
from tests.waiting import A_WHILE, until

from .command import (
    HeldSandbox,
    Ran,
    csvs,
    end,
    environment,
    let_leases_end,
    names,
    outcomes,
    row_of,
    rows_of,
    springest,
    springest_sandbox,
    start,
    start_without_privileges,
    stored,
    table_of,
)

CHANGED = "changed between its check and its sending"
Change = Callable[[Path], Any]


def pdfs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.pdf")}


def restore(folder: Path, content: dict[str, bytes]) -> None:
    for path in folder.glob("*.pdf"):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, whole in content.items():
        (folder / name).write_bytes(whole)


def grows(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def shrinks(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def is_rewritten(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"%PDF-2")
    os.utime(path, ns=(1, 1))  # the clock of some file systems is too coarse for a test


def is_replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(certificate("somebody else's"))
    other.replace(path)


def is_linked_to(target: str) -> Change:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return change


def becomes_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def becomes_a_socket(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


def holds(content: bytes) -> Change:
    def change(path: Path) -> None:
        path.write_bytes(content)

    return change


CHANGES: list[tuple[Change, str]] = [
    (grows, CHANGED),
    (shrinks, CHANGED),
    (is_rewritten, CHANGED),
    (is_replaced, CHANGED),
    (is_linked_to("1.pdf"), CHANGED),
    (holds(b""), CHANGED),
    (Path.unlink, "there is no such file"),
    (is_linked_to("none.pdf"), "there is no such file"),
    (is_linked_to("10.pdf"), "is a link that leads in a circle"),
    (becomes_a_folder, "is a folder"),
    (becomes_a_pipe, "is not a regular file"),
    (becomes_a_socket, "is not a regular file"),
    (is_linked_to("/dev/zero"), "is not a regular file"),
]


class Meddler:
    """Listens to a run, and changes the file of each row but the first when its POST is about to leave."""

    def __init__(self) -> None:
        self.done: dict[int | None, RowDone] = {}

    def __call__(self, event: BulkEvent) -> None:
        if isinstance(event, RowDone):
            self.done[event.row.number] = event
        elif isinstance(event, RowStep) and event.step.kind == "sending" and event.row.path.name != "1.pdf":
            change, _ = CHANGES[int(event.row.path.stem) - 2]
            change(event.row.path)


@pytest.fixture
def leaves_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each file for more than a second after it was read, as if the limit did not allow to send it."""
    monkeypatch.setattr("springest_async.source_file._FRESH_SECONDS", 0.0)


@pytest.mark.usefixtures("leaves_late")
async def test_a_file_that_changes_after_its_check_fails_alone(tmp_path: Path) -> None:
    manifest = Manifest.open(archive(tmp_path, len(CHANGES) + 1))
    before = pdfs(tmp_path)
    pipe = tmp_path / f"{[change for change, _ in CHANGES].index(becomes_a_pipe) + 2}.pdf"
    meddler = Meddler()
    settings = Settings(posts_per_minute=500, concurrency=4)
    async with (
        springest_sandbox(limit=500, period=1.0) as sandbox,
        Journal(tmp_path / "x.sqlite3") as journal,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, settings=settings, journal=journal) as client,
    ):
        migration, _ = await load_manifest(journal, manifest, client.origin)
        try:
            async with asyncio.timeout(A_WHILE):
                error = await UploadQueue(client, migration, meddler).run()
        finally:
            let_go(pipe)
        reasons = {entry.file: (entry.state, entry.reason) for entry in await migration.entries()}

        assert error is None
        assert reasons == {"1.pdf": (State.STORED, "")} | {
            f"{number}.pdf": (State.FAILED, f"{tmp_path / f'{number}.pdf'}: {reason}")
            for number, (_, reason) in enumerate(CHANGES, start=2)
        }
        assert all(isinstance(meddler.done[row].error, UnusableFile) for row in range(3, len(CHANGES) + 3))
        assert stored(sandbox) == [hashlib.sha256(before["1.pdf"]).hexdigest()]
        assert {post.verdict for post in sandbox.audit} <= {"stored", "broken off"}

        # What is as it was once more is stored by the next run, and what was stored is not sent again.
        restore(tmp_path, before)
        migration, _ = await load_manifest(journal, manifest, client.origin)
        assert await UploadQueue(client, migration, lambda _: None).run() is None
        assert await migration.counts() == {State.STORED: len(before)}
        assert stored(sandbox) == sorted(hashlib.sha256(content).hexdigest() for content in before.values())


async def test_a_file_that_leaves_at_once_is_sent_as_it_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes between the two."""
    monkeypatch.setattr("springest_async.source_file._FRESH_SECONDS", A_WHILE)
    manifest = Manifest.open(archive(tmp_path, len(CHANGES) + 1))
    before = pdfs(tmp_path)
    settings = Settings(posts_per_minute=500, concurrency=4)
    pipe = tmp_path / f"{[change for change, _ in CHANGES].index(becomes_a_pipe) + 2}.pdf"
    async with (
        springest_sandbox(limit=500, period=1.0) as sandbox,
        Journal(tmp_path / "x.sqlite3") as journal,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, settings=settings, journal=journal) as client,
    ):
        migration, _ = await load_manifest(journal, manifest, client.origin)
        try:
            async with asyncio.timeout(A_WHILE):
                assert await UploadQueue(client, migration, Meddler()).run() is None
        finally:
            let_go(pipe)
        assert await migration.counts() == {State.STORED: len(before)}

    assert stored(sandbox) == sorted(hashlib.sha256(content).hexdigest() for content in before.values())


@pytest.mark.parametrize("late", [False, True])
async def test_a_small_file_is_read_once_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Together with others, unless it leaves long after that."""
    monkeypatch.setattr("springest_async.source_file._FRESH_SECONDS", 0.0 if late else A_WHILE)
    rows = 20
    manifest = Manifest.open(archive(tmp_path, rows))
    opened: list[Path] = []
    hops = 0
    really_hop = BaseEventLoop.run_in_executor

    def hop(loop: BaseEventLoop, *arguments: Any) -> Any:
        nonlocal hops
        hops += 1
        return really_hop(loop, *arguments)

    def open_counted(path: Path) -> Any:
        opened.append(path)
        return open_regular(path)

    for module in ("source_file", "bulk.reading"):
        monkeypatch.setattr(f"springest_async.{module}.open_source", open_counted)
    settings = Settings(posts_per_minute=500, concurrency=1)
    async with (
        springest_sandbox(limit=500, period=1.0) as sandbox,
        Journal(tmp_path / "x.sqlite3") as journal,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, settings=settings, journal=journal) as client,
    ):
        migration, _ = await load_manifest(journal, manifest, client.origin)
        opened.clear()
        with monkeypatch.context() as patch:
            patch.setattr(BaseEventLoop, "run_in_executor", hop)
            assert await UploadQueue(client, migration, lambda _: None).run() is None
        assert await migration.counts() == {State.STORED: rows}

    assert Counter(opened) == {tmp_path / f"{number}.pdf": 1 + late for number in range(1, rows + 1)}
    assert hops <= rows / 4 + late * rows


@pytest.mark.usefixtures("leaves_late")
async def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.open(archive(tmp_path, 2))
    pipe = tmp_path / "1.pdf"
    really_identify = OpenMigration.identify_all

    async def identify(migration: OpenMigration, rows: Any) -> Any:
        if any(entry.path == pipe for entry, _ in rows):
            becomes_a_pipe(pipe)  # it has been read, and is sent next
        return await really_identify(migration, rows)

    monkeypatch.setattr(OpenMigration, "identify_all", identify)
    async with (
        springest_sandbox() as sandbox,
        Journal(tmp_path / "x.sqlite3") as journal,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, journal=journal) as client,
    ):
        migration, _ = await load_manifest(journal, manifest, client.origin)
        try:
            async with asyncio.timeout(A_WHILE):
                assert await UploadQueue(client, migration, lambda _: None).run() is None
        finally:
            let_go(pipe)
        told = [(entry.state, entry.reason) for entry in await migration.entries()]

    assert told == [(State.FAILED, f"{pipe}: is not a regular file"), (State.STORED, "")]
    assert [row_of(post) for post in sandbox.audit] == [3]


async def test_a_disk_that_hangs_keeps_only_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of several rows are read together; one that a cloud has yet to fetch must not hold the others up."""
    manifest = Manifest.open(archive(tmp_path, 24))
    fetched = threading.Event()

    def fetch(path: Path) -> FileIO:
        if path.name == "3.pdf":
            fetched.wait(A_WHILE)
        return open_regular(path)

    monkeypatch.setattr(reading, "open_source", fetch)
    async with (
        springest_sandbox() as sandbox,
        Journal(tmp_path / "x.sqlite3") as journal,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, journal=journal) as client,
    ):
        migration, _ = await load_manifest(journal, manifest, client.origin)
        running = asyncio.create_task(UploadQueue(client, migration, lambda _: None).run())
        await until(lambda: len(sandbox.audit) == 23)
        fetched.set()
        assert await running is None
        assert await migration.counts() == {State.STORED: 24}

    assert len(sandbox.audit) == 24


async def test_another_file_than_the_uploads_own_is_never_sent(tmp_path: Path) -> None:
    """What was looked at says what the file must be, and never where it is."""
    archive(tmp_path, 2)
    source = await inspect_file(tmp_path / "2.pdf", None)
    upload = CertificateUpload(
        file=tmp_path / "1.pdf", certification_id=1, email="employee1@example.org", valid_from=date(2026, 1, 31)
    )
    async with (
        springest_sandbox() as sandbox,
        Journal(tmp_path / "x.sqlite3") as journal,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, journal=journal) as client,
    ):
        known = await journal.claim(upload, client.origin, b"x" * 32, claim="a claim")
        claim = Claim(journal, known.id, "a claim")
        with pytest.raises(UnusableFile) as caught:
            await client.upload_claimed(upload, claim, source, listener=lambda _: None)

    assert (caught.value.file, caught.value.reason) == (tmp_path / "1.pdf", CHANGED)
    assert stored(sandbox) == []


# --- the command ---

NO_PDF = "is not a PDF: there is no %PDF- in its first 1024 bytes"
MEANWHILE: list[tuple[Change, str]] = [
    (Path.unlink, "there is no such file"),
    (holds(b""), "is empty"),
    (holds(b"Dear Jan,"), NO_PDF),
    (holds(b"<!doctype html><title>Log in</title>"), "is an HTML page, not a PDF"),
    (is_linked_to("none.pdf"), "there is no such file"),
    (is_linked_to("22.pdf"), "is a link that leads in a circle"),
    (becomes_a_folder, "is a folder"),
    (becomes_a_pipe, "is not a regular file"),
    (becomes_a_socket, "is not a regular file"),
    (is_linked_to("/dev/zero"), "is not a regular file"),
    (is_linked_to("/proc/self/mem"), "is empty"),
    (lambda path: path.chmod(0), "may not be read: permission denied"),
]


async def test_a_file_that_changed_since_the_preflight_is_reported(tmp_path: Path) -> None:
    begun = 16  # one is answered, eight are held, and the others are read ahead
    manifest = archive(tmp_path, begun + len(MEANWHILE) + 1)
    whole = pdfs(tmp_path)
    async with HeldSandbox() as sandbox:
        process = await start_without_privileges("upload", manifest, origin=sandbox.origin)
        await until(lambda: sandbox.held == 8)
        for number, (change, _) in enumerate(MEANWHILE, start=begun + 1):
            change(tmp_path / f"{number}.pdf")
        sandbox.go_on.set()
        ran = await end(process)

    good = [*range(1, begun + 1), begun + len(MEANWHILE) + 1]
    assert (ran.code, table_of(ran.out)) == (1, outcomes(stored=len(good), failed=len(MEANWHILE)))
    assert {row["file"]: row["error"] for row in rows_of(tmp_path / "certificates.failed.csv")} == {
        f"{number}.pdf": reason for number, (_, reason) in enumerate(MEANWHILE, start=begun + 1)
    }
    assert stored(sandbox) == sorted(hashlib.sha256(whole[f"{number}.pdf"]).hexdigest() for number in good)
    assert len(sandbox.audit) == len(good)


async def test_files_that_cannot_be_read_are_reported_before_any_post(tmp_path: Path) -> None:
    odd: list[tuple[str, str]] = [
        ("none.pdf", f"there is no such file: 'none.pdf' in {tmp_path}"),
        ("loop.pdf", "is a link that leads in a circle"),
        ("folder", "is a folder"),
        ("to the folder.pdf", "is a folder"),
        ("pipe.pdf", "is not a regular file"),
        ("socket.pdf", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("/proc/self/mem", "cannot be read (Input/output error)"),
        ("secret.pdf", "may not be read: permission denied"),
        ("1.pdf/1.pdf", "there is no such folder: '1.pdf/1.pdf'"),
        ("x" * 256, f"its name is too long: '{'x' * 99}…{'x' * 99}'"),
    ]
    (tmp_path / "folder").mkdir()
    for name, target in (("dangling.pdf", "none.pdf"), ("loop.pdf", "loop.pdf"), ("to the folder.pdf", "folder")):
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe.pdf")
    os.mknod(tmp_path / "socket.pdf", stat.S_IFSOCK | 0o600)
    (tmp_path / "secret.pdf").write_bytes(pdf_of("secret"))
    (tmp_path / "secret.pdf").chmod(0)
    changes = {number: {"file": name} for number, (name, _) in enumerate(odd, start=1)}
    manifest = archive(tmp_path, len(odd) + 1, changes=changes)
    findings = tmp_path / "findings.csv"
    async with springest_sandbox() as sandbox:
        ran = await end(await start_without_privileges("upload", manifest, origin=sandbox.origin))
        await end(await start_without_privileges("check", manifest, "--findings", findings, origin=sandbox.origin))

    assert (ran.code, ran.out, sandbox.audit) == (2, "", ())
    advice = "Nothing was sent. Correct the rows, then run the same command again."
    assert ran.err.splitlines()[-1].startswith(f"{len(odd)} faults in {len(odd)} rows. {advice}")
    assert [(row, column, reason) for row, column, _, _, reason in map(dict.values, rows_of(findings))] == [
        (str(row), "file", reason) for row, (_, reason) in enumerate(odd, start=2)
    ]


# --- names ---

NAMES = [
    "one\nrow 3: all is well\n.pdf",
    "a\r\x1b[2J\x1b]0;owned\x07\x9b31m.pdf",
    "🎓 é 漢.pdf",
    "\u202efdp.lived\u2066.pdf",
    "x" * 251 + ".pdf",
    "-rf.pdf",
    "=HYPERLINK(1).pdf",
    "'=1.pdf",
    '";=1\u2028.pdf',
    "[bold]\\[red.pdf",
]


@pytest.fixture(params=[b"plain", b"caf\xe9\x1b[31m [bold]\n\xff["], ids=["plain folder", "hostile folder"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a folder; the name of one is no text, and would do things to a terminal."""
    path = tmp_path / os.fsdecode(request.param)
    path.mkdir()
    return path


def archive_of_names(folder: Path, **cells: str) -> Path:
    manifest = archive(folder, len(NAMES), changes={n: {"file": name} | cells for n, name in enumerate(NAMES, start=1)})
    for number, name in enumerate(NAMES, start=1):
        (folder / f"{number}.pdf").rename(folder / name)
    return manifest


def contents(folder: Path) -> list[str]:
    return sorted(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES)


def assert_harmless(ran: Ran) -> None:
    """See that nothing was printed that a terminal would not show but do."""
    assert "".join((ran.out + ran.err).split("\n")).isprintable()


async def test_any_file_name_is_stored_under_a_harmless_name(folder: Path) -> None:
    manifest = archive_of_names(folder)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)
        told = await springest("status", manifest)

    assert (ran.code, told.code, table_of(ran.out)) == (0, 0, outcomes(stored=len(NAMES)))
    assert stored(sandbox) == contents(folder)
    for post in sandbox.audit:
        assert post.filename is not None
        assert set(post.filename) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .-_()+,")
        assert len(post.filename) <= 111
    assert_harmless(ran)
    assert_harmless(told)


async def test_whatever_a_file_is_called_its_row_can_be_mended(folder: Path) -> None:
    manifest = archive_of_names(folder, certification_id="99")
    failed = folder / "certificates.failed.csv"
    async with springest_sandbox() as sandbox:
        for path in (manifest, failed):  # what was rejected is not sent again: it is the same certificate
            ran = await springest("upload", path, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
            assert (ran.code, table_of(ran.out)) == (1, outcomes(rejected=len(NAMES)))
            assert_harmless(ran)
        assert sandbox.summary().posts == len(NAMES)
        assert [Manifest.open(failed).fields(row).file for row in Manifest.open(failed)] == NAMES
        written = [row["file"] for row in rows_of(failed) if row["file"].startswith("'")]
        assert written == ["'-rf.pdf", "'=HYPERLINK(1).pdf", "''=1.pdf"]

        failed.write_bytes(failed.read_bytes().replace(b",99,", b",1,"))
        ran = await springest("upload", failed, origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=len(NAMES)))
    assert stored(sandbox) == contents(folder)
    assert csvs(folder) == ["certificates.csv", "certificates.failed.csv"]


async def test_a_fault_of_any_file_name_is_reported_in_one_line(folder: Path) -> None:
    manifest = archive_of_names(folder, email="jan\x1b[31m\nrow 9: fine\u202e")
    for name in NAMES:
        (folder / name).write_bytes(b"")
    findings = folder / "findings.csv"
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)
        checked = await springest("check", manifest, "--findings", findings, origin=sandbox.origin)

    assert (ran.code, ran.out, sandbox.audit) == (2, "", ())
    assert checked.code == 2
    assert len([row for row in rows_of(findings) if row["reason"].isprintable()]) == 2 * len(NAMES)
    assert_harmless(ran)
    assert_harmless(checked)


async def test_a_file_whose_name_is_no_text_is_stored(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.pdf")
    path.write_bytes(pdf_of("VCA Basis"))
    async with (
        springest_sandbox() as sandbox,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, settings=Settings(limiter=Limiter())) as client,
    ):
        await client.upload(
            CertificateUpload(file=path, certification_id=1, email="jan@example.org", valid_from=date(2026, 1, 31))
        )

    (post,) = sandbox.audit
    assert (post.filename, post.sha256) == ("caf_.pdf", hashlib.sha256(path.read_bytes()).hexdigest())


# --- who may read what is left behind ---


async def test_only_the_owner_can_read_what_a_run_leaves_behind(tmp_path: Path, state: Path) -> None:
    """Whatever the umask is, while it runs, when it was killed, and when it has ended."""
    manifest = archive(tmp_path, 10, changes={10: {"certification_id": "99"}})
    before = names(tmp_path, "*")
    modes: dict[str, set[int]] = {}

    def look_around() -> None:
        for path in (*tmp_path.iterdir(), *state.rglob("*")):
            if path.name not in before:
                with suppress(FileNotFoundError):  # the log of the journal comes and goes
                    modes.setdefault(path.name, set()).add(stat.S_IMODE(path.stat().st_mode))

    async with HeldSandbox() as sandbox:
        env = environment(sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        process = await start("upload", manifest, env=env, umask=0)
        await until(lambda: sandbox.held >= 8)
        look_around()
        process.kill()
        await process.wait()
        look_around()
        sandbox.go_on.set()
        let_leases_end()
        ran = await end(await start("upload", manifest, env=env, umask=0))
        look_around()

    assert ran.code in (1, 3)
    journal = {f"journal.sqlite3{end}" for end in ("", "-wal", "-shm")}
    assert modes.pop("springest") == {0o700}
    assert modes == {name: {0o600} for name in (*journal, "certificates.failed.csv")}
