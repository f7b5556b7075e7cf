"""A journal in a file: made, opened, refused, full, damaged, shared, and kept through a reboot."""

import contextlib
import json
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from unittest.mock import Mock

import pytest

from springest_async.errors import JournalError, JournalMissing, JournalUnavailable
from springest_async.journal import place, schema, sqlite
from springest_async.journal.records import State
from springest_async.journal.sqlite import APPLICATION_ID, SQLiteConnection, SQLiteEngine
from springest_async.limits.bucket import Bucket, Ticket
from tests.privileges import WITHOUT_PRIVILEGES

from .model import LEASE, Clock, Worker, opened, set_clock

ONCE = "INSERT INTO meta VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def fill(path: Path, count: int = 400) -> None:
    """Make a journal with some content."""
    with closing(opened(path)) as connection, connection.transaction():
        connection.executemany(ONCE, [(f"key {number}", "value " * 20) for number in range(count)])


def commit(connection: SQLiteConnection, *values: tuple[str, str]) -> None:
    """Commit some content."""
    with connection.transaction():
        connection.executemany(ONCE, values)


def read_all(path: Path) -> None:
    """Read the content of a journal whose pages are not checked."""
    with closing(SQLiteEngine(path).connect(create=False)) as connection, connection.snapshot():
        connection.execute("SELECT key, value FROM meta ORDER BY value")


def refusal(path: Path, *, create: bool = True) -> str:
    """Return why a journal is refused."""
    before = path.read_bytes()
    with pytest.raises(JournalError) as caught:
        SQLiteEngine(path).connect(create=create)
    assert path.read_bytes() == before
    assert caught.value.journal == str(path)
    return caught.value.reason


# --- made and opened ---


def test_a_journal_is_made_for_its_owner_only(path: Path) -> None:
    folder = path.parent / "new"
    with closing(SQLiteEngine(folder / path.name).connect(create=True)) as connection, connection.snapshot():
        assert connection.execute("SELECT count(*) FROM certificates") == [(0,)]

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in [folder, *folder.iterdir()]}

    assert modes.pop("new") == 0o700
    assert set(modes.values()) == {0o600}


def test_a_journal_is_marked_and_has_a_version(path: Path) -> None:
    fill(path)

    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert other.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("create", [True, False])
def test_a_journal_is_opened_again(path: Path, create: bool) -> None:
    fill(path)

    with closing(SQLiteEngine(path).connect(create=create)) as connection, connection.snapshot():
        assert connection.execute("SELECT count(*) FROM meta") == [(401,)]


AS_USERS_HAVE_THEM = sqlite._PRAGMAS  # while this is imported, no fixture has replaced them


def test_commits_are_flushed_and_the_log_is_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PRAGMAS", AS_USERS_HAVE_THEM)
    with closing(SQLiteEngine(path).connect(create=True)) as connection:
        pragmas = ["synchronous", "wal_autocheckpoint", "mmap_size", "secure_delete"]

        assert [connection.execute(f"PRAGMA {pragma}")[0][0] for pragma in pragmas] == [2, 0, 0, 1]


def test_a_missing_journal_is_not_made_by_looking(path: Path) -> None:
    with pytest.raises(JournalMissing):
        SQLiteEngine(path).connect(create=False)

    assert not path.exists()


def test_an_empty_file_is_no_journal_yet(path: Path) -> None:
    path.touch(0o600)
    with pytest.raises(JournalMissing):
        SQLiteEngine(path).connect(create=False)

    SQLiteEngine(path).connect(create=True).close()

    SQLiteEngine(path).connect(create=False).close()


def test_a_link_leads_to_the_same_journal(path: Path) -> None:
    fill(path)
    link = path.with_name("link.sqlite3")
    link.symlink_to(path)

    with closing(SQLiteEngine(link).connect(create=True)):
        pass

    assert {file.name for file in path.parent.iterdir()} == {path.name, link.name}


def test_closing_again_does_nothing(path: Path) -> None:
    connection = SQLiteEngine(path).connect(create=True)
    connection.close()
    connection.close()


def test_a_repr_shows_where_it_is(path: Path) -> None:
    assert repr(SQLiteEngine(path)) == f"<SQLiteEngine {path}>"


# --- refused ---


def test_a_journal_of_the_old_form_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA application_id = {place.OLD_APPLICATION_ID}")
        other.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY)")

    assert refusal(path) == place.OLD_JOURNAL


@pytest.mark.parametrize("marked", [0, 0x12345678])
def test_the_file_of_another_program_is_refused(path: Path, marked: int) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA application_id = {marked}")
        other.execute("CREATE TABLE bookmarks (url TEXT)")

    assert "is not a journal of springest" in refusal(path)


@pytest.mark.parametrize("content", [b"email,file\n" * 500, b"SQLite format 3\0" + bytes(4080), b"x"])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes, create: bool) -> None:
    path.write_bytes(content)

    assert "journal" in refusal(path, create=create)


def test_another_version_is_refused(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {schema.VERSION + 1}")

    assert "another version of springest" in refusal(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is a folder"):
        SQLiteEngine(tmp_path).connect(create=True)


@pytest.mark.parametrize("where", ["page", "end"])
def test_a_damaged_journal_is_refused(path: Path, where: str) -> None:
    fill(path)
    content = path.read_bytes()
    if where == "end":
        path.write_bytes(content[: len(content) // 2 // 4096 * 4096])
    else:
        with path.open("r+b") as stream:
            stream.seek(len(content) - 4096)
            stream.write(b"\xa5" * 4096)

    assert "is damaged. Keep it" in refusal(path)


def test_a_read_that_finds_damage_says_so(path: Path) -> None:
    fill(path)
    size = path.stat().st_size
    with path.open("r+b") as stream:
        for page in range(20, size // 4096):
            stream.seek(page * 4096)
            stream.write(b"\xa5" * 4096)

    with pytest.raises(JournalError, match="is damaged"):
        read_all(path)


def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_read_mounts", lambda: "1 0 0:1 / / rw - nfs4 server:/ rw\n")

    with pytest.raises(JournalError, match="network"):
        SQLiteEngine(path).connect(create=True)

    assert not path.exists()


def test_a_file_that_cannot_be_written_is_refused(path: Path) -> None:
    fill(path)
    path.chmod(0o400)
    program = (
        "import pathlib, sys; from springest_async.journal.sqlite import SQLiteEngine;"
        " SQLiteEngine(pathlib.Path(sys.argv[1])).connect(create=True)"
    )

    ran = subprocess.run(
        [*WITHOUT_PRIVILEGES, sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert "JournalError" in ran.stderr
    assert "cannot be written" in ran.stderr


# --- transactions ---


def test_a_transaction_is_kept_or_undone(connection: SQLiteConnection) -> None:
    with connection.transaction():
        connection.execute(ONCE, ("kept", ""))
    with contextlib.suppress(ValueError), connection.transaction():
        connection.execute(ONCE, ("undone", ""))
        raise ValueError

    with connection.snapshot():
        assert connection.execute("SELECT key FROM meta WHERE key <> 'clock'") == [("kept",)]


def test_a_snapshot_waits_for_nobody_and_stays_the_same(connection: SQLiteConnection, path: Path) -> None:
    query = "SELECT count(*) FROM meta"
    with closing(opened(path)) as other, other.snapshot():
        before = other.execute(query)
        with connection.transaction():
            connection.execute(ONCE, ("new", ""))

            assert other.execute(query) == before
        assert other.execute(query) == before


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.02)


@pytest.mark.usefixtures("_impatient")
def test_two_transactions_never_overlap(path: Path) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        with one.transaction(), pytest.raises(JournalUnavailable, match="locked"), other.transaction():
            pass
        with other.transaction():
            other.execute(ONCE, ("later", ""))


@pytest.mark.usefixtures("_impatient")
def test_a_lock_is_released_after_an_error(path: Path) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        with contextlib.suppress(ValueError), one.transaction():
            raise ValueError
        with other.transaction():
            pass


def test_a_mistake_in_a_statement_is_no_error_of_the_journal(connection: SQLiteConnection) -> None:
    with pytest.raises(sqlite3.ProgrammingError), connection.transaction():
        connection.execute(ONCE, ("too few",))


def test_the_log_is_copied_into_the_file_now_and_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_CHANGES_PER_CHECKPOINT", 3)
    with closing(opened(path)) as connection:
        before = path.stat().st_size
        for number in range(3):
            with connection.transaction():
                connection.execute(ONCE, (f"{number}", "x" * 9000))

        assert path.stat().st_size > before


def test_nobody_can_commit_during_a_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else SQLite 3.7.0 to 3.51.2 could lose a commit (https://sqlite.org/wal.html, section 11)."""
    monkeypatch.setattr(sqlite, "_CHANGES_PER_CHECKPOINT", 1)
    refused: list[bool] = []

    def look(statement: str) -> None:
        if "wal_checkpoint" in statement:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            refused.append(True)

    with (
        closing(opened(path)) as connection,
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other,
    ):
        connection._connection.set_trace_callback(look)
        commit(connection, ("a", ""))
        connection.erase()
        connection._connection.set_trace_callback(None)

        other.execute("BEGIN IMMEDIATE")  # and afterwards everybody can

    assert len(refused) >= 2


def test_checkpoints_keep_no_file_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_CHANGES_PER_CHECKPOINT", 1)
    files = Path("/proc/self/fd") if sys.platform == "linux" else Path("/dev/fd")
    with closing(opened(path)) as connection:
        commit(connection, ("first", ""))
        before = len(list(files.iterdir()))
        for number in range(10):
            commit(connection, (f"{number}", ""))

        assert len(list(files.iterdir())) == before


def test_a_failed_checkpoint_undoes_no_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is durable: a POST whose intent is in it would be in doubt."""
    monkeypatch.setattr(sqlite, "_CHANGES_PER_CHECKPOINT", 1)

    def deny(action: int, name: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if name == "wal_checkpoint" else sqlite3.SQLITE_OK

    with closing(opened(path)) as connection:
        connection._connection.set_authorizer(deny)  # the disk cannot be made to fail here only

        with connection.transaction():
            connection.execute(ONCE, ("kept", ""))

        with connection.snapshot():
            assert connection.execute("SELECT count(*) FROM meta WHERE key = 'kept'") == [(1,)]


# --- full disks ---


def test_a_full_disk_undoes_the_transaction(connection: SQLiteConnection) -> None:
    ((pages,),) = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    with pytest.raises(JournalError, match="the disk is full"):
        commit(connection, ("small", ""), ("big", "x" * 100_000))

    connection.execute("PRAGMA max_page_count = 1000000")
    with connection.transaction():
        assert connection.execute("SELECT count(*) FROM meta WHERE key = 'small'") == [(0,)]


def test_a_disk_that_fails_undoes_the_transaction(connection: SQLiteConnection) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limit[1]))
    try:
        with pytest.raises(JournalError, match="check the disk"):
            commit(connection, ("big", "x" * 500_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    with connection.transaction():
        assert connection.execute("SELECT count(*) FROM meta WHERE key = 'big'") == [(0,)]


def test_no_post_begins_on_a_nearly_full_disk(a: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    key = a.claim().id
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Mock(free=1_000_000))

    with pytest.raises(JournalError, match="nearly full"):
        a.begin(key)

    assert a.read(key).state is State.WAITING


@pytest.mark.parametrize("replaced", [False, True])
def test_no_post_begins_when_the_file_is_gone(replaced: bool, a: Worker, path: Path) -> None:
    key = a.claim().id
    kept = path.rename(path.with_name("kept"))
    if replaced:
        path.write_bytes(b"another")

    with pytest.raises(JournalError, match="was deleted, replaced or moved away"):
        a.begin(key)
    kept.replace(path)
    a.begin(key)


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_read_when_the_file_is_gone(replaced: bool, connection: SQLiteConnection, path: Path) -> None:
    kept = path.rename(path.with_name("kept"))
    if replaced:
        path.write_bytes(b"another")

    with pytest.raises(JournalError, match="was deleted, replaced or moved away"), connection.snapshot():
        pass
    kept.replace(path)
    with connection.snapshot():
        assert connection.now() > 0


# --- erased ---


def test_what_is_erased_is_nowhere_on_the_disk(path: Path) -> None:
    fill(path)
    with closing(SQLiteEngine(path).connect(create=True)) as connection:
        with connection.transaction():
            connection.executemany(ONCE, [(f"secret {number}", "jo@example.org " * 50) for number in range(50)])
        with connection.transaction():
            connection.execute("DELETE FROM meta WHERE key LIKE 'secret%'")
        assert b"jo@example.org" in b"".join(file.read_bytes() for file in path.parent.iterdir())

        connection.erase()

        assert b"jo@example.org" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
        with connection.transaction():
            assert connection.execute("SELECT count(*) FROM meta") == [(401,)]


@pytest.mark.usefixtures("_impatient")
def test_erasing_says_when_a_reader_keeps_the_log(connection: SQLiteConnection, path: Path) -> None:
    with closing(opened(path)) as reader, reader.snapshot():
        reader.execute("SELECT * FROM meta")

        with pytest.raises(JournalUnavailable):
            connection.erase()

    connection.erase()


# --- reboots ---


def with_clock(path: Path, now: float) -> "contextlib.AbstractContextManager[SQLiteConnection]":
    """Open a journal at this time."""

    @contextlib.contextmanager
    def opening() -> Iterator[SQLiteConnection]:
        with set_clock(Clock(now)), closing(opened(path)) as connection:
            yield connection

    return opening()


def test_a_reboot_keeps_the_time_that_is_left(path: Path) -> None:
    before = 100_000.0
    with with_clock(path, before) as connection:
        worker = Worker(connection, "a")
        worker.renew()
        worker.end(worker.send(sha256=b"1" * 32)[1], State.IN_DOUBT)
        _, attempt = worker.send()
        with connection.transaction():
            connection.execute("UPDATE attempts SET back_at = 99000 WHERE id <> ?", (attempt,))

    with with_clock(path, 20.0) as connection, connection.snapshot():
        assert connection.execute("SELECT lease_until FROM workers") == [(LEASE,)]
        assert connection.execute("SELECT given_up FROM certificates WHERE state = 'in doubt'") == [(0.0,)]
        assert connection.execute("SELECT counted_until, back_at FROM attempts WHERE id = ?", (attempt,)) == [
            (30.0, 90.0)
        ]
        assert connection.execute("SELECT DISTINCT sent FROM attempts") == [(0.0,)]
        ((back_at,),) = connection.execute("SELECT back_at FROM attempts WHERE id <> ?", (attempt,))
        assert 0 < back_at < 0.001  # it is back, and it has left


def test_the_time_is_written_once_a_second(path: Path) -> None:
    query = "SELECT value FROM meta WHERE key = 'clock'"
    with set_clock(clock := Clock(100.0)), closing(opened(path)) as connection:
        seen = []
        for number, clock.now in enumerate((100.0, 100.5, 101.0, 101.9, 102.0, 50.0)):
            commit(connection, (f"{number}", ""))
            with connection.snapshot():
                seen.append(float(connection.execute(query)[0][0]))

    assert seen == [100.0, 100.0, 101.0, 101.0, 102.0, 50.0]


def test_a_reboot_keeps_the_pace_and_the_hour(path: Path) -> None:
    before = 100_000.0
    bucket = Bucket(slow=True, quiet=2.0, batch=28, since_silence=3, last_answer=before - 7)
    bucket.queue.append(Ticket("x", True, 1, before + 1, before + 2))
    bucket.hour.level, bucket.hour.at = 123.0, before - 3
    with with_clock(path, before) as connection, connection.transaction():
        connection.execute("INSERT INTO budgets VALUES ('b', 5, ?)", (json.dumps(bucket.dump()),))

    with with_clock(path, 20.0) as connection, connection.snapshot():
        ((version, state),) = connection.execute("SELECT version, state FROM budgets")

    bucket.shift(-before)
    assert Bucket.load(json.loads(state), ()) == bucket
    assert version != 5


@pytest.mark.parametrize("now", [100_000.0, 99_996.0, 200_000.0])
def test_without_a_visible_reboot_no_time_is_moved(path: Path, now: float) -> None:
    with with_clock(path, 100_000.0) as connection:
        Worker(connection, "a").renew()

    with with_clock(path, now) as connection, connection.snapshot():
        assert connection.execute("SELECT lease_until FROM workers") == [(100_000.0 + LEASE,)]


# --- processes ---


def run(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Run Python code that counts in a journal."""
    command = [sys.executable, "-c", dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


COUNTING = """
    import sys
    from pathlib import Path
    from springest_async.journal import sqlite
    sqlite._CHANGES_PER_CHECKPOINT = 3
    connection = sqlite.SQLiteEngine(Path(sys.argv[1])).connect(create=True)
    for _ in range(int(sys.argv[2])):
        with connection.transaction():
            ((count,),) = connection.execute("SELECT value FROM meta WHERE key = 'count'") or [("0",)]
            connection.execute("DELETE FROM meta WHERE key = 'count'")
            connection.execute("INSERT INTO meta VALUES ('count', ?)", (str(int(count) + 1),))
    connection.close()
"""


def test_processes_that_commit_at_once_lose_nothing(path: Path) -> None:
    """They also make the journal at once, and copy the log into the file all the time."""
    processes = [run(COUNTING, path, 60) for _ in range(3)]
    for process in processes:
        process.communicate()

    assert [process.returncode for process in processes] == [0, 0, 0]
    with closing(SQLiteEngine(path).connect(create=True)) as connection, connection.snapshot():
        assert connection.execute("SELECT value FROM meta WHERE key = 'count'") == [("180",)]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from springest_async.journal.sqlite import SQLiteEngine
    connection = SQLiteEngine(Path(sys.argv[1])).connect(create=True)
    with connection.transaction():
        connection.execute("INSERT INTO meta VALUES ('kept', '')")
    with connection.transaction():
        connection.execute("INSERT INTO meta VALUES ('undone', '')")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_within_a_transaction_blocks_nobody(path: Path) -> None:
    run(KILLED, path).communicate()

    with closing(SQLiteEngine(path).connect(create=True)) as connection, connection.transaction():
        assert connection.execute("SELECT key FROM meta WHERE key <> 'clock'") == [("kept",)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.usefixtures("_impatient")
def test_a_forked_process_that_ends_releases_no_lock(path: Path) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        with one.transaction():
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            one.execute(ONCE, ("kept", ""))
            with pytest.raises(JournalUnavailable), other.transaction():
                pass

        with other.transaction():
            assert other.execute("SELECT count(*) FROM meta WHERE key = 'kept'") == [(1,)]
