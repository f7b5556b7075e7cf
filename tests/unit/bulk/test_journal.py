"""The journal on real files: what it recognises, that nothing is sent twice, and what a crash leaves."""

import contextlib
import csv
import hashlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from springest_async.bulk.entries import Entry, Siblings, State
from springest_async.bulk.journal import Journal, default_path
from springest_async.bulk.manifest import COLUMNS, Manifest
from springest_async.bulk.plan import Loaded
from springest_async.bulk.reader import JournalReader
from springest_async.errors import ConfigurationError, JournalError, JournalInUse, ManifestError
from springest_async.records import CertificateUpload
from tests.bulk_runs import LATER, NOW, Attempt, attempts_in, identified, manifest_of, settle, turn
from tests.pipes import without_waiting

ORIGIN = "https://api.springest.nl"
SETTLED = [State.STORED, State.REJECTED, State.IN_DOUBT]
FOREIGN = "is not a journal of springest: move it away, or choose another name with --journal"
BACKUPS = (
    "A backup does not contain what was sent after it was made, and would send that again:"
    " use one only if nothing was uploaded since"
)

OPEN_IT: list[Any] = [Journal.open, JournalReader.open]

Cells = dict[str, str]


def row(file: str, email: str = "jan@example.org", **cells: str) -> Cells:
    return {"file": file, "certification_id": "7", "email": email, "valid_from": "2026-01-31"} | cells


def manifest_with(
    folder: Path, *rows: Cells, name: str = "certificates.csv", columns: Sequence[str] = COLUMNS
) -> Manifest:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return manifest_of(folder, text.getvalue(), name)


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(f"%PDF {name}".encode())


def states(journal: JournalReader) -> dict[int | None, State]:
    return {entry.number: entry.state for entry in journal.entries()}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "certificates.journal") as journal:
        yield journal


# --- where it is ---


@pytest.mark.parametrize(
    ("manifest", "journal"),
    [
        ("certificates.csv", "certificates.journal"),
        ("certificates.failed.csv", "certificates.journal"),
        ("certificates.failed-12.csv", "certificates.journal"),
        ("certificates.in-doubt.csv", "certificates.journal"),
        ("a.b.csv", "a.b.journal"),
        ("failed.csv", "failed.journal"),
        ("archive", "archive.journal"),
    ],
)
def test_it_is_beside_the_manifest_also_of_its_failed_rows(manifest: str, journal: str) -> None:
    assert default_path(Path("/srv") / manifest) == Path("/srv") / journal


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Journal.open(tmp_path / "x.journal") as journal:
            journal.load(manifest_with(tmp_path, row("a.pdf"), name="x.csv"), ORIGIN)
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("x.journal*")}
    finally:
        os.umask(before)

    assert modes == dict.fromkeys(["x.journal", "x.journal-wal", "x.journal-shm", "x.journal.lock"], 0o600)


def test_it_is_one_ordinary_file_when_it_is_closed(tmp_path: Path) -> None:
    """It can be copied alone."""
    with Journal.open(tmp_path / "x.journal") as journal:
        journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    journal.close()

    assert sorted(path.name for path in tmp_path.glob("x.journal*")) == ["x.journal", "x.journal.lock"]


def test_changes_are_in_the_file_and_not_only_in_its_log(journal: Journal, tmp_path: Path) -> None:
    """A killed run leaves a log, which people forget to copy."""
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    settle(journal, State.STORED, springest_id=5)
    journal.sending(turn(journal).id, NOW)

    shutil.copy(journal.path, tmp_path / "copy.journal")

    with Journal.open(tmp_path / "copy.journal") as copy:
        assert states(copy) == {2: State.STORED, 3: State.IN_DOUBT}


def test_a_link_to_a_journal_is_the_same_journal(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "link.journal").symlink_to(journal.path)

    with pytest.raises(JournalInUse) as caught:
        Journal.open(tmp_path / "link.journal")

    assert caught.value.pid == os.getpid()
    with JournalReader.open(tmp_path / "link.journal") as reader:
        assert reader.writer == os.getpid()


def test_a_link_that_leads_to_itself_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.journal").symlink_to(tmp_path / "x.journal")

    with pytest.raises(JournalError):
        Journal.open(tmp_path / "x.journal")


@pytest.mark.parametrize("content", [b"", bytes(4096)], ids=["nothing", "zeros"])
def test_an_empty_file_is_not_taken_for_a_new_journal(tmp_path: Path, content: bytes) -> None:
    """A crash of the machine may empty a journal, and a new one in its place would send all rows again."""
    (tmp_path / "x.journal").write_bytes(content)

    for open_it in OPEN_IT:
        with pytest.raises(JournalError, match=rf"is empty\. Delete it if you have never uploaded with it\. {BACKUPS}"):
            open_it(tmp_path / "x.journal")

    assert (tmp_path / "x.journal").read_bytes() == content
    assert list(tmp_path.iterdir()) == [tmp_path / "x.journal"]


def test_its_making_can_be_broken_off(tmp_path: Path) -> None:
    (tmp_path / "x.journal.new").write_bytes(b"SQLite format 3\0 half of it")

    with Journal.open(tmp_path / "x.journal"):
        assert not (tmp_path / "x.journal.new").exists()


# --- what is no journal ---


def other_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entry (id)")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"x"),
        lambda path: path.write_bytes(b"file,certification_id,email,valid_from\n" * 99),
        lambda path: path.write_bytes(b"SQLite format 3\0"),
        other_database,
    ],
    ids=["a letter", "a manifest", "half a header", "another program's"],
)
def test_other_files_are_reported_and_left_alone(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "x.journal"
    make(path)
    before = path.read_bytes(), path.stat().st_mtime_ns

    for open_it in OPEN_IT:
        with pytest.raises(JournalError) as caught:
            open_it(path)
        assert (caught.value.journal, caught.value.reason) == (path, FOREIGN)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_a_journal_of_a_newer_version_is_reported(tmp_path: Path, open_it: Any) -> None:
    path = tmp_path / "x.journal"
    Journal.open(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    before = path.read_bytes()

    with pytest.raises(JournalError, match=r"made by another version of springest \(its format is 9, not 1\)"):
        open_it(path)

    assert path.read_bytes() == before


def full_journal(folder: Path) -> Path:
    path = folder / "x.journal"
    with Journal.open(path) as journal:
        journal.load(manifest_with(folder, *(row(f"{n}.pdf") for n in range(2000))), ORIGIN)
    return path


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_a_journal_that_is_cut_off_is_reported_and_left_alone(tmp_path: Path, open_it: Any) -> None:
    path = full_journal(tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    before = path.read_bytes()

    with pytest.raises(JournalError, match="is damaged"):
        open_it(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_a_journal_that_is_damaged_is_reported_and_left_alone(tmp_path: Path, open_it: Any) -> None:
    path = full_journal(tmp_path)
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2 // 4096 * 4096)
        stream.write(b"\xff" * 4096)
    before = path.read_bytes()

    with pytest.raises(JournalError, match="is damaged"):
        open_it(path)

    assert path.read_bytes() == before


def test_damage_that_comes_later_is_reported(tmp_path: Path) -> None:
    path = full_journal(tmp_path)
    with JournalReader.open(path) as journal:
        with path.open("r+b") as stream:
            stream.seek(path.stat().st_size // 2)
            stream.write(b"\xff" * (path.stat().st_size // 2))
        journal._connection.execute("PRAGMA shrink_memory")  # of what was read when it was opened

        with pytest.raises(JournalError, match="is damaged"):
            list(journal.entries())


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_a_folder_is_no_journal(tmp_path: Path, open_it: Any) -> None:
    (tmp_path / "x.journal").mkdir()

    with pytest.raises(JournalError) as caught:
        open_it(tmp_path / "x.journal")

    assert caught.value.reason == "is a folder"


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_a_pipe_is_no_journal_and_not_waited_for(tmp_path: Path, open_it: Any) -> None:
    path = tmp_path / "x.journal"
    os.mkfifo(path)

    with pytest.raises(JournalError) as caught:
        without_waiting(path, lambda: open_it(path))

    assert caught.value.reason == "is not a regular file"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["x\0.journal", "x\ud800.journal"])
def test_an_invalid_file_name_is_reported(tmp_path: Path, name: str) -> None:
    for open_it in OPEN_IT:
        with pytest.raises(JournalError) as caught:
            open_it(tmp_path / name)
        assert (caught.value.journal, caught.value.reason) == (tmp_path / name, "is not a valid file name")


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_a_working_directory_that_is_gone_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_it: Any
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(JournalError, match=r"^x\.journal: the current folder was deleted: change to another folder$"):
        open_it(Path("x.journal"))


def test_a_folder_that_is_not_there_is_reported_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no such folder"):
        Journal.open(tmp_path / "none" / "x.journal")

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_in_is_reported() -> None:
    """Not even root can make a file in /proc."""
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    with pytest.raises(JournalError):
        Journal.open(Path("/proc/self/x.journal"))


def test_a_reader_makes_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal yet"):
        JournalReader.open(tmp_path / "x.journal")

    assert list(tmp_path.iterdir()) == []


def test_a_name_of_any_letters_will_do(tmp_path: Path) -> None:
    path = tmp_path / "a b%20?#\udcff.journal"

    with Journal.open(path), JournalReader.open(path) as reader:
        assert reader.counts() == Counter()


# --- the disk ---


def test_on_a_full_disk_nothing_of_a_change_is_kept(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    entry = turn(journal)
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(JournalError, match="the disk is full"):
        journal.load(manifest_with(tmp_path, *(row(f"{n}.pdf") for n in range(5000))), ORIGIN)

    assert states(journal) == {2: State.WAITING}
    assert journal.counts() == Counter({State.WAITING: 1})
    journal.sending(entry.id, NOW)


def test_a_disk_that_is_nearly_full_is_reported_before_a_post(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    entry = turn(journal)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=9_999_999))

    with pytest.raises(JournalError, match="the disk is nearly full"):
        journal.sending(entry.id, NOW)

    assert (states(journal), attempts_in(journal, entry.id)) == ({2: State.WAITING}, [])


def test_a_disk_of_half_a_megabyte(tmp_path: Path) -> None:
    """A real disk; the journal reports that it is full, and is intact afterwards."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("needs to mount")
    try:
        with Journal.open(tmp_path / "x.journal") as journal:
            journal.load(manifest_with(tmp_path, row("0.pdf")), ORIGIN)
            with pytest.raises(JournalError, match="the disk is full"):
                journal.load(manifest_with(tmp_path, *(row(f"{n}.pdf") for n in range(3000))), ORIGIN)
            assert states(journal) == {2: State.WAITING}
        with Journal.open(tmp_path / "x.journal") as journal:
            assert states(journal) == {2: State.WAITING}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# --- one writer, many readers ---


def test_two_writers_in_one_process_are_one_too_many(journal: Journal) -> None:
    with pytest.raises(JournalInUse) as caught:
        Journal.open(journal.path)

    assert (caught.value.journal, caught.value.pid) == (journal.path, os.getpid())


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


HOLD = """
import sys, time
from pathlib import Path
from springest_async.bulk.journal import Journal
with Journal.open(Path(sys.argv[1])) as journal:
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_writer_keeps_others_out_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    with python(HOLD, path) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with JournalReader.open(path) as reader:
                assert reader.writer == other.pid
            with pytest.raises(JournalInUse) as caught:
                Journal.open(path)
            assert caught.value.pid == other.pid
        finally:
            other.kill()
        assert other.wait() == -signal.SIGKILL

    with JournalReader.open(path) as reader:
        assert reader.writer is None
    with Journal.open(path) as journal:
        assert journal.writer == os.getpid()


def test_it_can_be_read_while_it_is_written(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)

    with JournalReader.open(journal.path) as reader:
        assert reader.writer == os.getpid()
        assert reader.counts() == {State.WAITING: 2}
        settle(journal)
        assert reader.counts() == {State.WAITING: 1, State.STORED: 1}
        journal.sending(turn(journal).id, NOW)
        assert reader.counts() == {State.SENDING: 1, State.STORED: 1}
        assert states(reader) == {2: State.STORED, 3: State.SENDING}
        assert reader.doubts() == []


def test_what_a_dead_writer_was_sending_is_read_as_in_doubt(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    journal.sending(turn(journal).id, NOW)
    crash(journal)

    with JournalReader.open(journal.path) as reader:
        assert reader.writer is None
        assert reader.counts() == {State.IN_DOUBT: 1}
        assert [entry.state for entry in reader.entries(State.IN_DOUBT)] == [State.IN_DOUBT]
        assert [entry.number for entry in reader.doubts()] == [2]
        assert list(reader.entries(State.SENDING)) == []


def crash(journal: Journal) -> None:
    """Leave a journal as a killed process leaves it."""
    journal._connection.close()
    journal._lock.release()


TRANSITIONS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from springest_async.bulk.entries import State
from springest_async.bulk.journal import Journal
with Journal.open(Path(sys.argv[1])) as journal:
    while (entry := journal.next()) is not None:
        entry = journal.identify(entry, 1, 1, entry.file.encode().ljust(32))
        print("sending", entry.id, flush=True)
        journal.sending(entry.id, datetime.now(UTC))
        print("sent", entry.id, flush=True)
        journal.ended(entry.id, State.STORED, at=datetime.now(UTC), springest_id=entry.id)
        print("stored", entry.id, flush=True)
"""


def test_what_a_killed_process_has_written_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    with Journal.open(path) as journal:
        journal.load(manifest_with(tmp_path, *(row(f"{n}.pdf") for n in range(3000))), ORIGIN)
    stored: set[int] = set()
    for lines in (40, 77, 101):
        with python(TRANSITIONS, path) as other:
            assert other.stdout is not None
            said = [next(other.stdout).split() for _ in range(lines)]
            other.kill()
            said += [line.split() for line in other.stdout if line.endswith("\n")]
        stored |= {int(key) for word, key in said if word == "stored"}
        last, key = said[-1][0], int(said[-1][1])

        with Journal.open(path) as journal:
            found = {entry.id for entry in journal.entries(State.STORED)}
            assert stored <= found <= stored | {key}
            assert {entry.id for entry in journal.doubts()} <= {key, key + 1}
            if last == "sent":
                assert key in {entry.id for entry in journal.doubts()} | found
            assert sum(journal.counts().values()) == 3000
            stored = found
            journal.resolve(None, State.STORED)
            stored |= {entry.id for entry in journal.entries(State.STORED)}


# --- what a load knows again ---


def test_a_new_manifest_is_waiting_in_its_order(journal: Journal, tmp_path: Path) -> None:
    cells = row("a.pdf", "Jan@Example.org", valid_from="31-01-2026", valid_until="2031-01-31", conversion_id="5")
    manifest = manifest_with(
        tmp_path, cells | {"naam": "Jan", "error": ""}, row("b.pdf"), columns=[*COLUMNS, "naam", "error"]
    )

    loaded = journal.load(manifest, ORIGIN)

    assert loaded == Loaded(rows=2, new=2, changed=0, changed_rows=())
    assert journal.counts() == {State.WAITING: 2}
    first = journal.next()
    assert first == Entry(
        id=1,
        number=2,
        file="a.pdf",
        path=tmp_path / "a.pdf",
        certification_id=7,
        email="Jan@Example.org",
        valid_from=date(2026, 1, 31),
        valid_until=date(2031, 1, 31),
        conversion_id=5,
        origin=ORIGIN,
        state=State.WAITING,
        extra={"naam": "Jan"},
    )
    assert first.upload() == manifest.upload(next(iter(manifest)))
    second = journal.next({1})
    assert second is not None
    assert (second.number, journal.next({1, 2})) == (3, None)
    assert second.upload() == CertificateUpload(
        file=tmp_path / "b.pdf", certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31)
    )


def test_a_manifest_without_rows(journal: Journal, tmp_path: Path) -> None:
    assert journal.load(manifest_with(tmp_path), ORIGIN).rows == 0
    assert journal.next() is None


def test_a_sorted_and_extended_manifest_goes_on(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf", "c.pdf", "d.pdf")
    a, b, c, d = (row(f"{name}.pdf") for name in "abcd")
    journal.load(manifest_with(tmp_path, a, b, c), ORIGIN)
    for state in SETTLED:
        settle(journal, state)

    loaded = journal.load(manifest_with(tmp_path, c, d, b, a), ORIGIN)

    assert (loaded.rows, loaded.new) == (4, 1)
    assert states(journal) == {2: State.IN_DOUBT, 3: State.WAITING, 4: State.REJECTED, 5: State.STORED}


@pytest.mark.parametrize(
    "cells",
    [
        {"valid_from": "31-01-2026"},
        {"valid_from": "31.1.2026"},
        {"certification_id": "007"},
        {"email": "JAN@example.ORG"},
        {"email": " jan@example.org "},
    ],
)
def test_a_row_that_is_written_in_another_way_is_the_same(journal: Journal, tmp_path: Path, cells: Cells) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    settle(journal)

    loaded = journal.load(manifest_with(tmp_path, row("a.pdf") | cells), ORIGIN)

    assert (loaded.new, journal.counts()) == (0, {State.STORED: 1})


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ({"valid_from": "2026-02-01"}, State.STORED),
        ({"valid_until": "2031-01-31"}, State.STORED),
        ({"certification_id": "8"}, State.STORED),
        ({"email": "piet@example.org"}, State.STORED),
        ({"conversion_id": "1"}, State.STORED),
        ({"conversion_id": "1"}, State.REJECTED),
        ({"conversion_id": "1"}, State.IN_DOUBT),
    ],
)
def test_a_row_with_other_fields_is_another_certificate(
    journal: Journal, tmp_path: Path, cells: Cells, state: State
) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    settle(journal, state)

    loaded = journal.load(manifest_with(tmp_path, row("a.pdf") | cells), ORIGIN)

    assert loaded == Loaded(rows=1, new=1, changed=1, changed_rows=(2,))
    assert journal.counts() == {State.WAITING: 1}
    again = journal.load(manifest_with(tmp_path, row("a.pdf") | cells), ORIGIN)
    assert (again.new, again.changed) == (0, 1)  # until it is sent


def test_only_the_first_changed_rows_are_named(journal: Journal, tmp_path: Path) -> None:
    names = [f"{n}.pdf" for n in range(25)]
    files(tmp_path, *names)
    journal.load(manifest_with(tmp_path, *map(row, names)), ORIGIN)
    for _ in names:
        settle(journal)

    loaded = journal.load(manifest_with(tmp_path, *(row(name, "piet@example.org") for name in names)), ORIGIN)

    assert (loaded.changed, loaded.changed_rows) == (25, tuple(range(2, 22)))


def test_another_host_is_another_certificate(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    manifest = manifest_with(tmp_path, row("a.pdf"))
    journal.load(manifest, ORIGIN)
    settle(journal)

    loaded = journal.load(manifest, "https://api.springest.be")

    assert (loaded.new, loaded.changed) == (1, 0)
    assert settle(journal).origin == "https://api.springest.be"
    assert journal.load(manifest, ORIGIN).new == 0


def test_rows_no_longer_in_the_manifest_are_kept_uncounted(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    settle(journal)

    journal.load(manifest_with(tmp_path, row("b.pdf")), ORIGIN)
    assert journal.counts() == {State.WAITING: 1}

    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    assert journal.counts() == {State.STORED: 1}


def test_failed_rows_get_another_turn_and_rejected_ones_do_not(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    manifest = manifest_with(tmp_path, row("a.pdf"), row("b.pdf"))
    journal.load(manifest, ORIGIN)
    settle(journal, State.REJECTED)
    entry = journal.next()
    assert entry is not None
    journal.ended(entry.id, State.FAILED, at=NOW, reason="No such file or directory")
    assert states(journal) == {2: State.REJECTED, 3: State.FAILED}

    journal.load(manifest, ORIGIN)

    assert states(journal) == {2: State.REJECTED, 3: State.WAITING}
    entry = journal.next()
    assert entry is not None
    assert entry.reason == ""


def test_a_row_that_cannot_be_read_keeps_all_as_it_was(journal: Journal, tmp_path: Path) -> None:
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)

    with pytest.raises(ManifestError, match="row 3: certification_id: must be a whole number"):
        journal.load(manifest_with(tmp_path, row("b.pdf"), row("c.pdf", certification_id="x")), ORIGIN)

    assert [entry.file for entry in journal.entries()] == ["a.pdf"]
    assert journal.counts() == {State.WAITING: 1}
    assert journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN).new == 1


def test_a_moved_archive_goes_on(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    files(old, "a.pdf", "b.pdf")
    with Journal.open(old / "certificates.journal") as journal:
        journal.load(manifest_with(old, row("a.pdf"), row("b.pdf")), ORIGIN)
        first = settle(journal)
    old.rename(new)

    with Journal.open(new / "certificates.journal") as journal:
        assert [entry.path for entry in journal.entries()] == [new / "a.pdf", new / "b.pdf"]
        journal.load(Manifest.open(new / "certificates.csv"), ORIGIN)
        assert states(journal) == {2: State.STORED, 3: State.WAITING}
        status = (new / "a.pdf").stat()
        assert journal.known_hash(new / "a.pdf", status.st_size, status.st_mtime_ns) == first.sha256


def test_what_is_left_over_is_known_to_the_journal(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    settle(journal)
    left_over = manifest_with(tmp_path, row("b.pdf"), name="certificates.failed.csv")
    assert default_path(left_over.path) == journal.path

    assert journal.load(left_over, ORIGIN).new == 0
    settle(journal)

    journal.load(Manifest.open(tmp_path / "certificates.csv"), ORIGIN)
    assert journal.counts() == {State.STORED: 2}


def test_columns_that_mean_nothing_are_kept_as_they_are_now(journal: Journal, tmp_path: Path) -> None:
    columns = [*COLUMNS, "naam"]
    journal.load(manifest_with(tmp_path, row("a.pdf", naam="Jan"), columns=columns), ORIGIN)
    journal.load(manifest_with(tmp_path, row("a.pdf", "JAN@example.org", naam="Jan 🎓"), columns=columns), ORIGIN)

    (entry,) = journal.entries()

    assert (entry.email, entry.extra) == ("JAN@example.org", {"naam": "Jan 🎓"})


# --- what the file turns out to be ---


@pytest.mark.parametrize("state", SETTLED)
def test_a_renamed_file_is_known_at_its_turn(journal: Journal, tmp_path: Path, state: State) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    first = settle(journal, state)
    (tmp_path / "a.pdf").rename(tmp_path / "b.pdf")
    journal.load(manifest_with(tmp_path, row("b.pdf", naam="x"), columns=[*COLUMNS, "naam"]), ORIGIN)
    assert journal.counts() == {State.WAITING: 1}

    known = turn(journal)

    assert (known.id, known.number, known.file, known.state, known.changed) == (first.id, 2, "b.pdf", state, False)
    assert (known.path, known.extra) == (tmp_path / "b.pdf", {"naam": "x"})
    assert (journal.counts(), journal.next()) == ({state: 1}, None)
    assert journal.load(manifest_with(tmp_path, row("b.pdf")), ORIGIN).new == 0


@pytest.mark.parametrize("state", SETTLED)
def test_a_file_that_was_only_touched_is_the_same(journal: Journal, tmp_path: Path, state: State) -> None:
    files(tmp_path, "a.pdf")
    manifest = manifest_with(tmp_path, row("a.pdf"))
    journal.load(manifest, ORIGIN)
    first = settle(journal, state)
    os.utime(tmp_path / "a.pdf", ns=(1, 1))

    loaded = journal.load(manifest, ORIGIN)
    assert (loaded.new, loaded.changed) == (1, 0)
    known = turn(journal)

    assert (known.id, known.state, known.changed) == (first.id, state, False)
    assert journal.load(manifest, ORIGIN).new == 0
    assert journal.counts() == {state: 1}


@pytest.mark.parametrize("state", SETTLED)
def test_a_file_with_another_content_is_another_certificate(journal: Journal, tmp_path: Path, state: State) -> None:
    files(tmp_path, "a.pdf")
    manifest = manifest_with(tmp_path, row("a.pdf"))
    journal.load(manifest, ORIGIN)
    first = settle(journal, state)
    (tmp_path / "a.pdf").write_bytes(b"%PDF other")
    journal.load(manifest, ORIGIN)

    other = turn(journal)
    assert (other.id != first.id, other.state, other.changed) == (True, State.WAITING, True)
    settle(journal)

    files(tmp_path, "a.pdf")  # and back again
    journal.load(manifest, ORIGIN)
    back = turn(journal)
    assert (back.id, back.state) == (first.id, state)


def test_a_file_missing_in_another_folder_was_not_moved_away(journal: Journal, tmp_path: Path) -> None:
    """Two folders may share a journal, and contain files of the same name."""
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    settle(journal)
    other = tmp_path / "other"
    other.mkdir()
    manifest = manifest_with(other, row("a.pdf"))
    (line,) = manifest

    assert not journal.is_settled(manifest.fields(line), ORIGIN, other / "a.pdf")
    assert journal.load(manifest, ORIGIN).new == 1
    assert states(journal) == {2: State.WAITING}


@pytest.mark.parametrize("state", SETTLED)
def test_a_file_that_is_gone_was_moved_away(journal: Journal, tmp_path: Path, state: State) -> None:
    files(tmp_path, "a.pdf")
    manifest = manifest_with(tmp_path, row("a.pdf"))
    journal.load(manifest, ORIGIN)
    settle(journal, state)
    (tmp_path / "a.pdf").unlink()

    assert journal.load(manifest, ORIGIN).new == 0
    assert journal.counts() == {state: 1}


def test_the_same_certificate_in_two_rows_is_sent_once(journal: Journal, tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(b"%PDF same")
    manifest = manifest_with(tmp_path, row("a.pdf"), row("b.pdf"), row("a.pdf"))
    journal.load(manifest, ORIGIN)
    settle(journal)

    for number in (3, 4):
        entry = turn(journal)
        assert (entry.number, entry.state) == (number, State.FAILED)
        assert entry.reason == "is the same certificate as in row 2"

    assert journal.counts() == {State.STORED: 1, State.FAILED: 2}
    assert journal.load(manifest, ORIGIN).new == 0
    journal.load(manifest_with(tmp_path, row("b.pdf")), ORIGIN)
    assert turn(journal).state is State.STORED


def test_a_file_changed_after_a_refusal_is_another_certificate(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    refused = settle(journal, State.WAITING)
    (tmp_path / "a.pdf").write_bytes(b"%PDF other")

    other = turn(journal)

    assert (other.id != refused.id, other.number, other.state) == (True, 2, State.WAITING)
    assert [attempt.outcome for attempt in attempts_in(journal, refused.id)] == [State.WAITING]
    assert attempts_in(journal, other.id) == []
    assert journal.counts() == {State.WAITING: 1}


def test_a_hash_is_known_for_one_size_and_time(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    journal.remember_hash(path, 1, 2, b"x" * 32)

    assert journal.known_hash(path, 1, 2) == b"x" * 32
    assert journal.known_hash(path, 1, 3) is journal.known_hash(path, 2, 2) is None
    journal.remember_hash(path, 3, 4, b"y" * 32)
    assert journal.known_hash(path, 3, 4) == b"y" * 32


def test_identifying_remembers_the_hash(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)

    entry = turn(journal)

    status = entry.path.stat()
    assert entry.sha256 == hashlib.sha256(b"%PDF a.pdf").digest()
    assert journal.known_hash(entry.path, status.st_size, status.st_mtime_ns) == entry.sha256


@pytest.mark.parametrize("state", [*SETTLED, State.WAITING, State.FAILED])
def test_a_settled_file_need_not_be_checked(journal: Journal, tmp_path: Path, state: State) -> None:
    files(tmp_path, "a.pdf")
    manifest = manifest_with(tmp_path, row("a.pdf"))
    fields, path = manifest.fields(next(iter(manifest))), tmp_path / "a.pdf"
    assert not journal.is_settled(fields, ORIGIN, path)
    journal.load(manifest, ORIGIN)
    settle(journal, state)

    assert journal.is_settled(fields, ORIGIN, path) is (state in SETTLED)
    assert not journal.is_settled(fields, "https://api.springest.be", path)
    os.utime(path, ns=(1, 1))
    assert not journal.is_settled(fields, ORIGIN, path)
    path.unlink()
    assert journal.is_settled(fields, ORIGIN, path) is (state in SETTLED)


# --- POSTs ---


def test_every_post_is_noted(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    key = turn(journal).id

    journal.sending(key, NOW)
    assert attempts_in(journal, key) == [Attempt(number=1, sent_at=NOW)]
    journal.ended(key, State.WAITING, at=LATER, status=400, words="slow down \ud800", reason="refused")
    journal.sending(key, LATER)
    journal.ended(key, State.STORED, at=LATER, status=201, springest_id=5)

    assert attempts_in(journal, key) == [
        Attempt(number=1, sent_at=NOW, ended_at=LATER, outcome=State.WAITING, status=400, words="slow down \\ud800"),
        Attempt(number=2, sent_at=LATER, ended_at=LATER, outcome=State.STORED, status=201),
    ]
    (entry,) = journal.entries(State.STORED)
    assert (entry.springest_id, entry.sent_at, entry.given_up_at, entry.reason) == (5, LATER, None, "")


def test_an_id_that_is_no_id_keeps_no_row_from_being_stored(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    settle(journal, springest_id=2**63)

    assert [entry.springest_id for entry in journal.entries(State.STORED)] == [None]


def test_what_was_being_sent_is_in_doubt_for_the_next_writer(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    key = turn(journal).id
    journal.sending(key, NOW)
    crash(journal)

    with Journal.open(journal.path) as again:
        (entry,) = again.doubts()
        assert (entry.id, entry.reason, entry.sent_at) == (key, "interrupted while it was being sent", NOW)
        assert entry.given_up_at is not None
        assert [attempt.outcome for attempt in attempts_in(again, key)] == [State.IN_DOUBT]
        assert again.counts() == {State.IN_DOUBT: 1, State.WAITING: 1}
        following = again.next()
        assert following is not None
        assert following.number == 3


def test_what_is_in_doubt_is_settled_by_asking(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    stored, waiting = settle(journal, State.IN_DOUBT), settle(journal, State.IN_DOUBT)
    assert [entry.given_up_at for entry in journal.doubts()] == [LATER, LATER]

    journal.ended(stored.id, State.IN_DOUBT, at=LATER + timedelta(days=1), reason="not shown yet")
    assert journal.doubts()[0].given_up_at == LATER
    journal.ended(stored.id, State.STORED, at=LATER, springest_id=9)
    journal.ended(waiting.id, State.WAITING, at=LATER)

    assert states(journal) == {2: State.STORED, 3: State.WAITING}
    assert [attempt.outcome for attempt in attempts_in(journal, stored.id)] == [State.IN_DOUBT]


@pytest.mark.parametrize("before", [State.STORED, State.REJECTED, State.FAILED])
def test_the_end_is_the_end(journal: Journal, tmp_path: Path, before: State) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    entry = settle(journal, before)

    for after in State:
        with pytest.raises(AssertionError):
            journal.ended(entry.id, after, at=NOW)
    with pytest.raises(AssertionError):
        journal.sending(entry.id, NOW)
    with pytest.raises(AssertionError):
        identified(journal, entry)
    assert states(journal) == {2: before}


def test_nothing_is_sent_twice_at_once_or_without_a_name(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    with pytest.raises(AssertionError, match="must be identified before it is sent"):
        journal.sending(1, NOW)
    entry = turn(journal)
    journal.sending(entry.id, NOW)

    with pytest.raises(AssertionError, match="is sending"):
        journal.sending(entry.id, NOW)
    with pytest.raises(AssertionError, match="unknown"):
        journal.sending(99, NOW)
    with pytest.raises(AssertionError):
        journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)


@pytest.mark.parametrize("after", [State.STORED, State.IN_DOUBT, State.SENDING])
def test_a_waiting_row_comes_to_nothing_that_needs_a_post(journal: Journal, tmp_path: Path, after: State) -> None:
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)

    with pytest.raises(AssertionError):
        journal.ended(1, after, at=NOW)


# --- siblings ---


def test_siblings_are_those_that_springest_lists_alike(journal: Journal, tmp_path: Path) -> None:
    names = [f"{n}.pdf" for n in range(6)]
    files(tmp_path, *names)
    rows = [
        row(names[0]),
        row(names[1], "JAN@example.org"),
        row(names[2], conversion_id="5"),
        row(names[3], "piet@example.org"),
    ]
    journal.load(manifest_with(tmp_path, *rows, row(names[4], valid_until="2031-01-31"), row(names[5])), ORIGIN)
    assert journal.siblings(next(journal.entries())) == Siblings()
    entries = [settle(journal, springest_id=number) for number in range(1, 6)]

    assert journal.siblings(entries[0]) == Siblings(frozenset({2, 3}))
    assert journal.siblings(entries[3]) == Siblings()
    last = turn(journal)
    assert journal.siblings(last) == Siblings(frozenset({1, 2, 3}))
    journal.sending(last.id, NOW)
    assert journal.siblings(entries[0]) == Siblings(frozenset({2, 3}), uncertain=True)
    assert journal.siblings(last) == Siblings(frozenset({1, 2, 3}))


@pytest.mark.parametrize(
    ("state", "uncertain"),
    [
        (State.STORED, True),
        (State.IN_DOUBT, True),
        (State.REJECTED, False),
        (State.FAILED, False),
        (State.WAITING, False),
    ],
)
def test_a_sibling_without_an_id_is_uncertain_if_maybe_stored(
    journal: Journal, tmp_path: Path, state: State, uncertain: bool
) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    settle(journal, state)
    journal.load(manifest_with(tmp_path, row("b.pdf")), ORIGIN)  # also of what has no row any more

    assert journal.siblings(turn(journal)) == Siblings(uncertain=uncertain)


# --- a person's decision ---


@pytest.mark.parametrize("state", [State.STORED, State.WAITING])
def test_a_person_decides_about_rows_in_doubt(journal: Journal, tmp_path: Path, state: Any) -> None:
    files(tmp_path, "a.pdf", "b.pdf", "c.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf"), row("c.pdf")), ORIGIN)
    for _ in "abc":
        settle(journal, State.IN_DOUBT)

    assert journal.resolve([3], state) == 1

    assert states(journal) == {2: State.IN_DOUBT, 3: state, 4: State.IN_DOUBT}
    words = "a person found it stored" if state is State.STORED else "a person found it not stored"
    assert [entry.reason for entry in journal.entries(state)] == [f"{words} at Springest"]
    journal.load(manifest_with(tmp_path, row("a.pdf")), ORIGIN)
    assert [entry.number for entry in journal.doubts()] == [2, None]
    assert journal.resolve(None, state) == 2
    assert (journal.doubts(), journal.counts()) == ([], {state: 1})


def test_a_rejected_row_is_sent_again_when_a_person_names_it(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    for _ in "ab":
        settle(journal, State.REJECTED)

    assert journal.resolve(None, State.WAITING) == 0
    with pytest.raises(ConfigurationError):
        journal.resolve([2], State.STORED)
    assert journal.resolve([2], State.WAITING) == 1

    assert states(journal) == {2: State.WAITING, 3: State.REJECTED}


def test_resolving_a_row_not_in_doubt_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    files(tmp_path, "a.pdf", "b.pdf")
    journal.load(manifest_with(tmp_path, row("a.pdf"), row("b.pdf")), ORIGIN)
    settle(journal, State.IN_DOUBT)

    with pytest.raises(ConfigurationError) as caught:
        journal.resolve([2, 3, 99], State.STORED)

    assert str(caught.value) == "not in doubt: row 3, 99 of the manifest. Nothing was changed."
    assert states(journal) == {2: State.IN_DOUBT, 3: State.WAITING}


# --- whatever happens ---

CONTENTS = [b"%PDF one", b"%PDF two", b"%PDF another"]
PAIRS = [(file, email) for file in ("a.pdf", "b.pdf", "c.pdf") for email in ("jan@example.org", "piet@example.org")]
OUTCOMES = [State.STORED, State.REJECTED, State.FAILED, State.IN_DOUBT, State.WAITING]

Pair = tuple[str, str]  # a file and an address: what the manifest says
Identity = tuple[str, bytes]  # an address and a content: what the certificate is


class Migrations(RuleBasedStateMachine):
    """Migrations of all kinds against a model in dicts.

    `known` is what became of each certificate that ever had a turn; `bound` which one a row of the manifest stood for
    when it had its turn, and the time of its file then; `rows` what became of the rows that stand for none yet.
    """

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm"  # noqa: S108 # what is tested here is not the disk, which takes most of the time
        self.folder = Path(tempfile.mkdtemp(prefix="journal-", dir=memory if os.access(memory, os.W_OK) else None))
        self.clock = 0
        self.contents: dict[str, bytes] = {}
        self.manifest: list[Pair] = []
        self.known: dict[Identity, State] = {}
        self.bound: dict[Pair, tuple[Identity, int]] = {}
        self.rows: dict[Pair, State] = {}
        self.sending: dict[int, Identity] = {}
        self.untouchable: set[Identity] = set()  # stored, or in doubt before a person has decided
        self.journal = Journal.open(self.folder / "certificates.journal")

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    # --- the model ---

    def stat(self, pair: Pair) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / pair[0]).stat().st_mtime_ns
        return None

    def state(self, pair: Pair) -> State:
        return self.known[self.bound[pair][0]] if pair in self.bound else self.rows[pair]

    def become(self, identity: Identity, state: State) -> None:
        self.known[identity] = state
        if state in (State.STORED, State.IN_DOUBT):
            self.untouchable.add(identity)

    def turn_of(self, pair: Pair, time: int) -> State:
        """Return the state of a waiting row after its turn has begun."""
        identity = pair[1], self.contents[pair[0]]
        owners = [owner for owner, (bound, _) in self.bound.items() if bound == identity and owner != pair]
        if any(owner in self.manifest for owner in owners):
            if pair in self.bound:
                self.become(self.bound[pair][0], State.FAILED)
            else:
                self.rows[pair] = State.FAILED
            return State.FAILED
        for owner in owners:
            del self.bound[owner]
        if self.known.get(identity, State.FAILED) is State.FAILED:
            self.known[identity] = State.WAITING
        self.bound[pair] = identity, time
        return self.known[identity]

    # --- what people do ---

    @rule(file=st.sampled_from(["a.pdf", "b.pdf", "c.pdf"]), content=st.sampled_from(CONTENTS))
    def save(self, file: str, content: bytes) -> None:
        self.clock += 1
        (self.folder / file).write_bytes(content)
        os.utime(self.folder / file, ns=(self.clock, self.clock))
        self.contents[file] = content

    @rule(file=st.sampled_from(["a.pdf", "b.pdf", "c.pdf"]))
    def move_away(self, file: str) -> None:
        (self.folder / file).unlink(missing_ok=True)
        self.contents.pop(file, None)

    @precondition(lambda self: not self.sending)
    @rule(pairs=st.lists(st.sampled_from(PAIRS), unique=True, min_size=1, max_size=5))
    def load(self, pairs: list[Pair]) -> None:
        self.manifest, self.rows = pairs, {}
        for pair in pairs:
            if pair in self.bound:
                identity, time = self.bound[pair]
                if self.stat(pair) in (None, time):
                    if self.known[identity] is State.FAILED:
                        self.known[identity] = State.WAITING
                    continue
                del self.bound[pair]
            self.rows[pair] = State.WAITING

        loaded = self.journal.load(manifest_with(self.folder, *(row(*pair) for pair in pairs)), ORIGIN)

        assert loaded.rows == len(pairs)

    @precondition(lambda self: State.IN_DOUBT in self.known.values())
    @rule(state=st.sampled_from([State.STORED, State.WAITING]), every=st.booleans())
    def decide(self, state: Any, every: bool) -> None:
        doubts = {key for key, known in self.known.items() if known is State.IN_DOUBT}
        numbers = None
        if not every:
            named = {n: self.bound[pair][0] for n, pair in enumerate(self.manifest, start=2) if pair in self.bound}
            numbers = [n for n, identity in named.items() if identity in doubts][:2]
            doubts = {named[n] for n in numbers}
        assert self.journal.resolve(numbers, state) == len(doubts)
        for identity in doubts:
            self.known[identity] = state
            if state is State.WAITING:
                self.untouchable.discard(identity)

    # --- what a run does ---

    @precondition(lambda self: self.manifest)
    @rule(send=st.sampled_from([True, True, True, False]))
    def turn(self, send: bool) -> None:
        first = next((pair for pair in self.manifest if self.state(pair) is State.WAITING), None)
        entry = self.journal.next()
        if first is None or entry is None:
            assert (first, entry) == (None, None)
            return
        assert (entry.number, entry.file, entry.email) == (2 + self.manifest.index(first), *first)
        if (time := self.stat(first)) is None:
            self.journal.ended(entry.id, State.FAILED, at=NOW, reason="No such file or directory")
            if first in self.bound:
                self.become(self.bound[first][0], State.FAILED)
            else:
                self.rows[first] = State.FAILED
            return
        state = self.turn_of(first, time)
        entry = identified(self.journal, entry)
        assert entry.state is state
        if send and state is State.WAITING:
            identity = first[1], self.contents[first[0]]
            assert identity not in self.untouchable
            self.journal.sending(entry.id, NOW)
            self.known[identity] = State.SENDING
            self.sending[entry.id] = identity

    @precondition(lambda self: self.sending)
    @rule(state=st.sampled_from(OUTCOMES))
    def answer(self, state: State) -> None:
        key, identity = self.sending.popitem()
        self.journal.ended(key, state, at=LATER, status=201)
        self.become(identity, state)

    @precondition(lambda self: State.IN_DOUBT in self.known.values())
    @rule(state=st.sampled_from([State.STORED, State.WAITING, State.IN_DOUBT]))
    def ask(self, state: State) -> None:
        entry = self.journal.doubts()[0]
        self.journal.ended(entry.id, state, at=LATER)
        (identity,) = (
            identity
            for identity, known in self.known.items()
            if known is State.IN_DOUBT
            and (identity[0], hashlib.sha256(identity[1]).digest()) == (entry.email, entry.sha256)
        )
        self.become(identity, state)
        if state is State.WAITING:
            self.untouchable.discard(identity)

    # --- what happens to it ---

    @rule(die=st.booleans())
    def end(self, die: bool) -> None:
        if die:
            crash(self.journal)
        else:
            self.journal.close()
        for identity in self.sending.values():
            self.become(identity, State.IN_DOUBT)
        self.sending.clear()
        self.journal = Journal.open(self.journal.path)

    # --- what always holds ---

    @invariant()
    def every_row_is_somewhere(self) -> None:
        expected = {n: self.state(pair) for n, pair in enumerate(self.manifest, start=2)}

        assert states(self.journal) == expected
        assert self.journal.counts() == Counter(expected.values())
        assert sum(self.journal.counts().values()) == len(self.manifest)

    @invariant()
    def a_reader_sees_the_same(self) -> None:
        with JournalReader.open(self.journal.path) as reader:
            assert reader.counts() == self.journal.counts()
            assert len(reader.doubts()) == sum(state is State.IN_DOUBT for state in self.known.values())


TestMigrations = Migrations.TestCase
TestMigrations.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
