"""Damaged journals raise a `JournalError`, are left unchanged, and never make us post twice."""

import contextlib
import csv
import faulthandler
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from springest_async.bulk.entries import State
from springest_async.bulk.journal import Journal
from springest_async.bulk.manifest import COLUMNS, Manifest
from springest_async.bulk.reader import JournalReader
from springest_async.cli.app import run
from springest_async.errors import ConfigurationError, JournalError
from tests.bulk_runs import LATER, NOW, identified, settle, turn

ORIGIN = "https://api.springest.nl"
PAGE = 4096
ROWS = 60
ENDS = [State.STORED, State.REJECTED, State.FAILED, State.IN_DOUBT, State.STORED, State.WAITING]
OPEN_IT: list[Any] = [Journal.open, JournalReader.open]


@pytest.fixture(autouse=True)
def _an_end() -> Iterator[None]:
    """Abort a test that hangs: SQLite cannot be interrupted while it waits for a pipe."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@frozen
class Archive:
    """A folder with a manifest and its files, and its journal at some moments, by the ends of its files' names.

    `closed` is of a run that came to its end, `killed` of one that was killed while it was sending the row after, and
    `earlier` is what a backup kept when half of the rows had had their turn.
    """

    folder: Path
    earlier: dict[str, bytes] = field(repr=False)
    killed: dict[str, bytes] = field(repr=False)
    closed: dict[str, bytes] = field(repr=False)

    @property
    def path(self) -> Path:
        return self.folder / "x.journal"

    def put(self, files: dict[str, bytes]) -> Path:
        """Replace the journal's files by these."""
        for old in self.folder.glob("x.journal*"):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        for end, content in files.items():
            (self.folder / f"x.journal{end}").write_bytes(content)
        return self.path

    def kept(self) -> dict[str, bytes]:
        """Return the current content of the journal's files."""
        return {end: file.read_bytes() for end in ("", "-wal") if (file := Path(f"{self.path}{end}")).exists()}


@pytest.fixture(scope="module")
def archive(module_folder: Path) -> Archive:
    folder = module_folder
    with (folder / "x.csv").open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow([*COLUMNS, "department"])
        for number in range(ROWS):
            (folder / f"{number}.pdf").write_bytes(b"%%PDF %d" % number)
            email = f"employee{number // 2}@example.org"
            lines.writerow([f"{number}.pdf", 7, email, "2026-01-31", "2027-01-31", number or "", "Logistics " * 20])
    archive = Archive(folder, {}, {}, {})
    with Journal.open(archive.path) as journal:
        journal.load(Manifest.open(folder / "x.csv"), ORIGIN)
        for number in range(ROWS // 2):
            settle(journal, ENDS[number % 5], springest_id=5000 + number)
        archive.earlier.update({"": archive.path.read_bytes()})
        for number in range(ROWS // 2, ROWS - 5):
            settle(journal, ENDS[number % 5], springest_id=5000 + number)
        journal.sending(turn(journal).id, NOW)
        archive.killed.update(archive.kept())
    archive.closed.update(archive.kept())
    assert set(archive.killed) == {"", "-wal"}
    assert set(archive.closed) == {""}
    assert len(archive.closed[""]) > 10 * PAGE
    return archive


def look(path: Path) -> None:
    """Call all methods of a reader."""
    with JournalReader.open(path) as journal:
        assert sum(journal.counts().values()) <= ROWS
        entries = list(journal.entries())
        for entry in [*entries, *journal.doubts()]:
            journal.siblings(entry)
            journal.known_hash(entry.path, 1, 1)
            status = entry.path.stat() if entry.path.exists() else path.stat()
            journal.known_hash(entry.path, status.st_size, status.st_mtime_ns)
        _ = journal.writer


def go_on(path: Path, posted: list[str]) -> None:
    """Upload what is left, as the queue does; add the files whose POST left to `posted`, also when it ends early."""
    with Journal.open(path) as journal:
        journal.load(Manifest.open(path.with_suffix(".csv")), ORIGIN)
        journal.counts()
        while (entry := journal.next()) is not None:
            entry = identified(journal, entry)
            if entry.state is State.WAITING:
                journal.sending(entry.id, LATER)
                posted.append(entry.file)
                journal.ended(entry.id, State.STORED, at=LATER, springest_id=1)
        with contextlib.suppress(ConfigurationError):  # a row that is not in doubt
            journal.resolve({2, 5}, State.STORED)
        journal.resolve(None, State.STORED)


def done(count: int) -> set[str]:
    """Return the files of the rows that were stored, or may be, after the first `count` rows."""
    sent = {f"{number}.pdf" for number in range(count) if ENDS[number % 5] in (State.STORED, State.IN_DOUBT)}
    return sent | {f"{ROWS - 5}.pdf"} if count == ROWS - 5 else sent


def check(archive: Archive, files: dict[str, bytes]) -> bool:
    """Use a journal in all ways; return whether it was accepted.

    Only a JournalError may be raised, a refused file must be unchanged, and nothing that may be stored is posted again.
    """
    path = archive.put(files)
    with contextlib.suppress(JournalError):
        look(path)
    path = archive.put(files)
    before = archive.kept()
    try:
        Journal.open(path).close()
    except JournalError:
        assert before[""] == path.read_bytes()
        return False
    archive.put(files)
    posted: list[str] = []
    with contextlib.suppress(JournalError):
        go_on(path, posted)
    assert not done(ROWS - 5) & set(posted)
    return True


# --- bytes that are not what they were ---


@pytest.mark.parametrize("moment", ["closed", "killed"])
def test_an_undamaged_journal_goes_on(archive: Archive, moment: str) -> None:
    """Otherwise the other tests here would prove nothing."""
    path = archive.put(getattr(archive, moment))
    look(path)
    posted: list[str] = []
    go_on(path, posted)

    assert set(posted) == {f"{number}.pdf" for number in range(ROWS)} - done(ROWS - 5) - {
        f"{number}.pdf" for number in range(ROWS - 5) if ENDS[number % 5] is State.REJECTED
    }


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one random kind of damage."""
    page, other = (chance.randrange(len(content) // PAGE) * PAGE for _ in range(2))
    at = chance.choice([at for at in range(page, page + PAGE) if content[at]] or [page])
    new = bytearray(content)
    match chance.choice(["bit", "bit", "bytes", "zeros", "copy", "swap", "cut", "longer", "header"]):
        case "bit":
            new[at] ^= 1 << chance.randrange(8)
        case "bytes":
            piece = chance.randbytes(chance.randint(1, 40))
            new[at : at + len(piece)] = piece
        case "zeros":
            new[page : page + PAGE] = bytes(PAGE)
        case "copy":
            new[page : page + PAGE] = content[other : other + PAGE]
        case "swap":
            new[page : page + PAGE] = content[other : other + PAGE]
            new[other : other + PAGE] = content[page : page + PAGE]
        case "cut":
            del new[chance.choice([at, page]) :]
        case "longer":
            new += chance.choice([b"\0", bytes(PAGE), content[:PAGE], content])
        case "header":
            # "The Database Header" on https://www.sqlite.org/fileformat.html
            at = chance.randrange(16, 100)
            piece = chance.choice([b"\0", b"\1", b"\2", b"\xff", bytes(4), b"\xff" * 4, b"\x7f\xff"])
            new[at : at + len(piece)] = piece
    return bytes(new)


def test_invalid_text_in_a_statement_is_reported(archive: Archive) -> None:
    """SQLite quotes it in its message, which then is not valid text."""
    path = archive.put({"": archive.closed[""].replace(b"attempt_running ON", b"attempt_running \xcfN")})

    with pytest.raises(JournalError, match="is damaged"):
        JournalReader.open(path)


# A number makes the same damage again, and shows less than the bytes would when a test fails.
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_any_damage_of_the_file_doubles_nothing(archive: Archive, seed: int) -> None:
    check(archive, {"": damaged(archive.closed[""], random.Random(seed))})


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), ends=st.sampled_from([("-wal",), ("",), ("", "-wal")]))
def test_any_damage_after_a_killed_run_doubles_nothing(archive: Archive, seed: int, ends: tuple[str, ...]) -> None:
    chance = random.Random(seed)
    changed = {end: damaged(archive.killed[end], chance) for end in ends}
    garbage = chance.choice([{}, {"-shm": b"\xff" * 32768}, {"-journal": b"\xff" * 512}, {".lock": b"x"}])

    check(archive, archive.killed | changed | garbage)


def test_a_page_that_comes_back_as_it_was_before_doubles_nothing(archive: Archive) -> None:
    """After a lost write the page is valid, but says that its rows are still waiting."""
    old, new = archive.earlier[""], archive.closed[""]
    stale = [at for at in range(0, len(old), PAGE) if old[at : at + PAGE] != new[at : at + PAGE]]
    assert len(stale) > 4

    for at in stale:
        check(archive, {"": new[:at] + old[at : at + PAGE] + new[at + PAGE :]})


def test_a_backup_beside_the_log_of_a_killed_run_is_refused(archive: Archive) -> None:
    """SQLite would take the log for the backup's own, and write it into the backup."""
    path = archive.put({"": archive.earlier[""], "-wal": archive.killed["-wal"]})

    with pytest.raises(JournalError, match="is damaged"):
        Journal.open(path)

    assert path.read_bytes() == archive.earlier[""]


def test_a_run_that_was_killed_while_it_closed_is_gone_on_with(archive: Archive) -> None:
    """A reader cannot roll back what SQLite was doing to the file."""
    path = archive.put(archive.closed)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE entry SET reason = hex(zeroblob(300))")
        half_done = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-journal")}
    archive.put(half_done)

    with pytest.raises(JournalError, match="a run was killed while closing it: springest upload repairs that"):
        JournalReader.open(path)
    with Journal.open(path) as journal:
        assert {entry.reason for entry in journal.entries(State.STORED)} == {""}


# --- values and tables that we never write ---


def forge(path: Path, *statements: str) -> None:
    """Change a journal behind our back."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entry SET state = 'lost' WHERE id = 3",
        "UPDATE entry SET state = x'ff' WHERE id = 3",
        "UPDATE entry SET valid_from = 'yesterday' WHERE id = 3",
        "UPDATE entry SET valid_from = x'00' WHERE id = 3",
        "UPDATE entry SET valid_until = '2026-02-30' WHERE id = 3",
        "UPDATE entry SET sent_at = 9223372036854775807 WHERE id = 3",
        "UPDATE entry SET given_up_at = -9223372036854775808 WHERE id = 3",
        "UPDATE entry SET sent_at = 'noon' WHERE id = 3",
        "UPDATE entry SET sent_at = 1e300 WHERE id = 3",
        "UPDATE entry SET number = 'first' WHERE id = 3",
        "UPDATE entry SET file = x'612e706466' WHERE id = 3",
        "UPDATE entry SET email = CAST(x'ff' AS TEXT) WHERE id = 3",
        "UPDATE entry SET email = x'00' WHERE id = 3",
        "UPDATE entry SET reason = x'00' WHERE id = 3",
        "UPDATE entry SET extra = '{' WHERE id = 3",
        "UPDATE entry SET extra = replace(hex(zeroblob(50000)), '00', '9') WHERE id = 3",
    ],
)
def test_an_invalid_value_is_reported(archive: Archive, statement: str) -> None:
    path = archive.put(archive.closed)
    forge(path, statement)
    files = archive.kept()

    with pytest.raises(JournalError, match="is damaged"):
        look(path)

    check(archive, files)


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE attempt DROP COLUMN words"],
        ["ALTER TABLE attempt RENAME COLUMN words TO text"],
        ["DROP TABLE hash"],
        ["DROP INDEX entry_identity"],
        ["DROP INDEX entry_row", "CREATE INDEX entry_row ON entry (file, fields, conversion_id, copy) WHERE copy > 0"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = 'CREATE TABLE hash (' WHERE name = 'hash'"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET rootpage = 1 WHERE name = 'hash'"],
        ["PRAGMA writable_schema = ON", "UPDATE sqlite_master SET sql = CAST(x'ff' AS TEXT) WHERE name = 'hash'"],
        ["PRAGMA writable_schema = ON", "DELETE FROM sqlite_master"],
    ],
    ids=lambda statements: statements[-1][:40],
)
def test_damaged_tables_are_refused(archive: Archive, statements: list[str]) -> None:
    path = archive.put(archive.closed)
    forge(path, *statements)
    before = archive.kept()

    for open_it in OPEN_IT:
        with pytest.raises(JournalError, match="is damaged"):
            open_it(path)

    assert archive.kept() == before


@pytest.mark.parametrize("open_it", OPEN_IT)
def test_statistics_of_another_program_are_no_damage(archive: Archive, open_it: Any) -> None:
    """Some database viewers run ANALYZE by themselves."""
    path = archive.put(archive.closed)
    forge(path, "ANALYZE")

    with open_it(path) as journal:
        assert journal.counts()[State.WAITING] > 0


@pytest.mark.parametrize("change", ["email = 'other@example.org'", "certification_id = 8", "valid_from = '2026-01-30'"])
def test_a_certificate_is_never_sent_with_changed_fields(archive: Archive, change: str) -> None:
    path = archive.put(archive.closed)
    forge(path, f"UPDATE entry SET {change} WHERE state = 'waiting'")  # noqa: S608 # of the list above

    with Journal.open(path) as journal:
        entry = journal.next()
        assert entry is not None
        with pytest.raises(JournalError, match="is damaged"):
            identified(journal, entry)


def test_a_stored_certificate_marked_as_waiting_is_not_sent(archive: Archive) -> None:
    path = archive.put(archive.closed)
    forge(path, "UPDATE entry SET state = 'waiting', springest_id = NULL WHERE id = 1")

    with Journal.open(path) as journal:
        entry = journal.next()
        assert entry is not None
        assert entry.id == 1
        entry = identified(journal, entry)
        with pytest.raises(JournalError, match="is damaged"):
            journal.sending(entry.id, LATER)


# --- what else may stand there ---


def pipe(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def door(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


STRANGE: list[Callable[[Path], None]] = [pipe, loop, door, Path.mkdir]


@pytest.mark.parametrize("make", STRANGE)
def test_other_kinds_of_files_are_reported(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.journal")

    for open_it in OPEN_IT:
        with pytest.raises(JournalError):
            open_it(tmp_path / "x.journal")


def test_a_journal_with_two_names_is_not_written(archive: Archive) -> None:
    """Each name has a lock of its own, so two runs would send the same certificates at the same time."""
    path = archive.put(archive.closed)
    with Journal.open(path):
        os.link(path, path.with_name("x.journal2"))
        with pytest.raises(JournalError, match=r"has another name \(a hard link\): remove that, or make a copy of it"):
            Journal.open(path.with_name("x.journal2"))
        path.with_name("x.journal2").unlink()

    with Journal.open(path) as journal:
        assert journal.next() is not None


# --- what a person sees ---


UPLOAD = ["upload"]


@pytest.mark.parametrize(
    ("damage", "arguments"),
    [
        (lambda path: os.truncate(path, PAGE * 3), UPLOAD),
        (lambda path: path.write_bytes(path.read_bytes()[:PAGE] + bytes(PAGE) + path.read_bytes()[PAGE * 2 :]), UPLOAD),
        (lambda path: forge(path, "DROP TABLE hash"), UPLOAD),
        (lambda path: path.write_bytes(b"x"), UPLOAD),
        (lambda path: path.write_bytes(b"x"), ["status"]),
        (lambda path: path.write_bytes(b"x"), ["resolve", "--all", "--stored"]),
    ],
    ids=["cut", "a page of zeros", "a missing table", "no journal", "status", "resolve"],
)
def test_the_command_reports_it_in_one_line(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    arguments: list[str],
) -> None:
    monkeypatch.setenv("SPRINGEST_API_KEY", "key-for-certificates")
    monkeypatch.setenv("SPRINGEST_HOST", "http://127.0.0.1:9")
    path = archive.put(archive.closed)
    damage(path)
    before = path.read_bytes()

    code = run([arguments[0], str(path if arguments[0] != "upload" else path.with_suffix(".csv")), *arguments[1:]])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert " ".join(err.split()).startswith(f"springest: {path}: ")
    assert "Traceback" not in err
    assert path.read_bytes() == before
