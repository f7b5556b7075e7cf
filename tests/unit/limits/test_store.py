"""The bucket in a file: what it keeps, for which user, what it forgets, and its errors when the file fails."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.errors import ConfigurationError
from springest_async.limits.bucket import Bucket, RateLimit
from springest_async.limits.store import FileStore, default_path

RATE = RateLimit(30, 60.0)
HOUR = 3600.0
CLOCK = "springest_async.limits.store.time.monotonic"


class Clock:
    """The machine's clock, which a boot sets back to zero."""

    def __init__(self) -> None:
        self.time = 100_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(CLOCK, clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "springest" / "limits.sqlite3"


Open = Callable[..., FileStore]


@pytest.fixture
def open_store(path: Path) -> Open:
    """Return a maker of stores of one file, by their budget."""

    def open_store(budget: str = "a budget") -> FileStore:
        return FileStore(path, budget)

    return open_store


def take(store: FileStore, name: str = "one", *, answered: bool = True) -> None:
    """Make a POST that is answered at once, or one of a process that is killed."""
    with store.change() as bucket:
        now = store.now()
        bucket.take(RATE, now, name=name, holder="holder", count_window=120.0)
        if answered:
            bucket.end(RATE, now, name=name, counted_until=now)


def out(store: FileStore) -> int:
    """How many tokens are out."""
    bucket = store.read()
    bucket.settle(store.now())
    return bucket.tokens_out


def slow_down(store: FileStore) -> None:
    with store.change() as bucket:
        bucket.slow_down(RATE, 0, None)


# --- what it keeps, and for whom ---


def test_a_new_file_holds_a_full_bucket(open_store: Open) -> None:
    assert open_store().read() == Bucket()


def test_what_one_keeps_another_finds(open_store: Open) -> None:
    one, other = open_store(), open_store()
    take(one)
    slow_down(one)

    assert other.read() == one.read()
    assert out(other) == 1
    assert other.read().slow


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="elsewhere open files are not listed")
def test_no_file_stays_open(open_store: Open, path: Path) -> None:
    store = open_store()
    take(store)
    store.read()

    assert [link for link in Path("/proc/self/fd").iterdir() if str(path.parent) in os.path.realpath(link)] == []


def test_each_budget_has_a_bucket_of_its_own(open_store: Open) -> None:
    one, other = open_store("one"), open_store("other")
    take(one)

    assert (out(one), out(other)) == (1, 0)


def test_a_change_that_fails_is_not_kept(open_store: Open) -> None:
    store = open_store()

    def fail() -> None:
        with store.change() as bucket:
            bucket.slow = True
            raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        fail()
    assert not store.read().slow
    take(store)  # nothing is left open


def test_only_one_changes_it_at_a_time(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.limits.store._BUSY_TIMEOUT", 0.05)
    one, other = open_store(), open_store()
    other.read()

    with one.change() as bucket:
        bucket.slow = True
        with pytest.raises(ConfigurationError, match="locked"):
            slow_down(other)
        assert not other.read().slow  # reading waits for no lock
    assert other.read().slow


def test_what_was_not_changed_is_not_written(open_store: Open, path: Path) -> None:
    store = open_store()
    take(store)
    with closing(sqlite3.connect(path)) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        with store.change():
            pass
        assert other.execute("PRAGMA data_version").fetchone() == before
        take(store, "another")
        assert other.execute("PRAGMA data_version").fetchone() != before


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_file_is_for_this_user_only(open_store: Open, path: Path) -> None:
    store = open_store()
    take(store)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_power_cut_loses_nothing(open_store: Open) -> None:
    store = open_store()

    with store._open("IMMEDIATE") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_nothing_is_made_before_it_is_needed(open_store: Open, path: Path) -> None:
    store = open_store()

    assert repr(store) == f"<FileStore {path}>"
    assert not path.parent.exists()


def test_the_default_is_in_the_state_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    if sys.platform == "linux":
        assert default_path() == tmp_path / "springest" / "limits.sqlite3"
    assert default_path().name == "limits.sqlite3"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere other variables tell the folder")
@pytest.mark.parametrize("platform", ["raises", "answers"])
def test_a_user_without_a_home_gets_an_error(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """As in a container that was started for a number and not for a name."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises the KeyError that it raises for a stranger
    if platform == "answers":  # as platformdirs did once
        monkeypatch.setattr(
            "springest_async.limits.store.user_state_path", lambda *_, **__: Path("~/.local/state/springest")
        )

    with pytest.raises(ConfigurationError) as caught:
        default_path()

    assert str(caught.value) == "there is no folder where the limit can be kept: set HOME or XDG_STATE_HOME"


FORK = """
import os, sys
from pathlib import Path
from typing import Any
from springest_async.limits.store import FileStore

def slow_down(store):
    with store.change() as bucket:
        bucket.since_silence += 1

store = FileStore(Path(sys.argv[1]), "a budget")
slow_down(store)
child = os.fork()
slow_down(store)
if child == 0:
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
slow_down(store)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_was_forked_has_a_connection_of_its_own(open_store: Open, path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", FORK, str(path)], check=True)

    assert open_store().read().since_silence == 4


# --- time ---


def test_tokens_come_back_as_time_passes(open_store: Open, clock: Clock) -> None:
    store = open_store()
    take(store)
    clock.time += 60.0
    assert out(store) == 1
    clock.time += 0.2
    assert out(store) == 0


@pytest.mark.parametrize("step", [-HOUR, HOUR, -1e9, 1e9])
def test_a_step_of_the_wall_clock_changes_nothing(
    open_store: Open, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    take(store)
    before = store.read()
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + step)

    assert store.read() == open_store().read() == before
    assert 59.0 < store.read().seconds_until(RATE, store.now(), posts=30, burst=30) < 60.2


@pytest.mark.parametrize("uptime", [0.0, 10.0, 60.0])
def test_after_a_boot_what_was_left_is_counted_from_it(open_store: Open, clock: Clock, uptime: float) -> None:
    store = open_store()
    take(store)
    clock.time += 20.0
    slow_down(store)  # with 40.1 s to go
    clock.time = uptime

    assert out(store) == (uptime < 40.1)
    assert store.read().slow
    take(store, "another")
    assert out(store) == 1 + (uptime < 40.1)
    clock.time = max(uptime, 40.1)
    assert out(store) == 1


def test_after_an_unseen_boot_no_more_time_is_left_than_was(open_store: Open, clock: Clock) -> None:
    store = open_store()
    clock.time = 30.0
    take(store)
    clock.time = 31.0  # of the next boot: the machine was off in between

    assert out(store) == 1
    clock.time = 30.0 + 60.2
    assert out(store) == 0


def test_a_clock_that_is_a_little_behind_means_no_boot(open_store: Open, clock: Clock) -> None:
    store = open_store()
    take(store)
    clock.time -= 1.0

    assert store.read().seconds_until(RATE, clock.time, posts=30, burst=30) == pytest.approx(61.1)


def test_a_boot_ends_what_killed_processes_held(open_store: Open, clock: Clock) -> None:
    store = open_store()
    take(store, answered=False)
    with store.change() as bucket:
        assert bucket.hold(RATE, store.now(), holder="killed") == 0
        bucket.ask(RATE, store.now(), holder="another", bulk=False)
    clock.time = 120.0 + 60.1 + 12.0 + 0.1

    bucket = store.read()
    bucket.settle(store.now())
    assert (bucket.tokens_out, bucket.queue, bucket.probe) == (0, [], None)


# --- what it forgets ---


def test_a_budget_unused_for_an_hour_is_forgotten(open_store: Open, clock: Clock) -> None:
    store = open_store()
    take(store)
    slow_down(store)
    clock.time += HOUR
    assert store.read().slow
    clock.time += 1.0
    assert store.read() == Bucket()

    take(store)
    assert not store.read().slow


def test_a_budget_that_holds_a_post_back_is_not_forgotten(open_store: Open, clock: Clock) -> None:
    store = open_store()
    take(store)
    with store.change() as bucket:
        bucket.slow_down(RATE, 0, 2 * HOUR)
    clock.time += 2 * HOUR - 1.0
    assert store.read().slow
    clock.time += 2.0
    assert not store.read().slow


def test_the_file_stays_small(open_store: Open, path: Path, clock: Clock) -> None:
    for number in range(10):
        take(open_store(f"budget {number}"))
    clock.time += HOUR + 1.0
    take(open_store("another"))

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM budgets").fetchall() == [("another",)]


# --- a file that cannot be used ---


def refused(store: FileStore, words: str) -> None:
    """Both ways of using it say what is wrong, and where."""
    for use in (store.read, lambda: slow_down(store)):
        with pytest.raises(ConfigurationError, match=words) as caught:
            use()
        assert str(store.path) in str(caught.value)


def test_a_file_of_another_program_is_left_alone(open_store: Open, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    before = path.read_bytes()

    refused(open_store(), "another program")
    assert path.read_bytes() == before


def test_a_file_of_another_version_is_left_alone(open_store: Open, path: Path) -> None:
    store = open_store()
    take(store)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")
    before = path.read_bytes()

    refused(open_store(), "another version of springest_async: use one version on this machine")
    assert path.read_bytes() == before


@pytest.mark.parametrize("damaged", [b"no database", b"SQLite format 3\0" + bytes(5000)], ids=["text", "nothing in it"])
def test_a_damaged_file_is_left_alone(open_store: Open, path: Path, damaged: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(damaged)

    refused(open_store(), "damaged; remove it, and wait a minute")
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("column", ["name", "state", "written_at", "checksum"])
def test_a_row_that_does_not_fit_its_checksum_is_damaged(open_store: Open, path: Path, column: str) -> None:
    """Also the name: the budget would have a full bucket."""
    store = open_store()
    take(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE budgets SET {column} = {column} || '7'")  # noqa: S608 # of the list

    refused(open_store(), "damaged; remove it, and wait a minute")


def test_a_row_that_is_not_text_is_not_repeated_in_the_error(open_store: Open, path: Path) -> None:
    store = open_store()
    take(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE budgets SET state = CAST(state || x'ff' AS TEXT)")

    refused(store, r"limits\.sqlite3: it is damaged; remove it, and wait a minute before you go on$")


def test_a_pipe_is_refused_at_once(open_store: Open, path: Path) -> None:
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    refused(open_store(), "is not a file; remove")


@pytest.fixture(scope="module")
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a budget whose tokens are all out, and whose server wants silences."""
    path = tmp_path_factory.mktemp("store") / "limits.sqlite3"
    with pytest.MonkeyPatch.context() as patched:
        store = FileStore(path, "a budget")
        patched.setattr(CLOCK, Clock())
        for number in range(30):
            take(store, str(number), answered=number % 2 == 0)
        slow_down(store)
    return path.read_bytes()


@given(data=st.data())
def test_after_any_damage_the_next_post_is_counted(
    tmp_path_factory: pytest.TempPathFactory, nothing_left: bytes, data: st.DataObject
) -> None:
    """Or the file is refused; and no POST waits for ever."""
    path = tmp_path_factory.mktemp("store") / "limits.sqlite3"
    content = bytearray(nothing_left)
    used = [at for at in range(len(content)) if content[at]]
    numbers = [slice(*number.span()) for number in re.finditer(rb"\d+\.\d+", content)]
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            at = data.draw(st.sampled_from(used))
            content[at : at + 1] = data.draw(st.binary(max_size=2))
        else:
            number = data.draw(st.sampled_from(numbers))
            digits = data.draw(st.sampled_from([b"0", b"-9e9", b"9e9", b"9e99"]))
            content[number] = digits.ljust(number.stop - number.start)
    path.write_bytes(content)

    store, other = FileStore(path, "a budget"), FileStore(path, "a budget")
    with pytest.MonkeyPatch.context() as patched, suppress(ConfigurationError):
        patched.setattr(CLOCK, Clock())
        bucket, began = store.read(), store.now()
        now = began
        while wait := bucket.ask(RATE, now, holder="me", bulk=False):
            now += wait
            assert now - began < 5 * HOUR
        take(store, "mine")
        assert out(other) > 0


def test_a_missing_table_is_reported(open_store: Open, path: Path) -> None:
    store = open_store()
    take(store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE budgets")

    refused(store, "no such table")


def test_a_second_store_in_a_process_leaves_the_first_its_place(open_store: Open, path: Path) -> None:
    """Closing a file by another way than SQLite's releases all of a process's locks on it."""
    first = open_store()
    take(first, "1")
    open_store("another budget").read()
    code = "import sys; from pathlib import Path; from springest_async.limits.store import FileStore"
    code += "; store = FileStore(Path(sys.argv[1]), 'a budget'); print(store.read().tokens_out)"
    seen = []
    for name in ("2", "3"):
        seen.append(subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True).stdout)
        take(first, name)
    seen.append(subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True).stdout)

    assert [int(count) for count in seen] == [1, 2, 3]


def test_a_file_that_was_removed_is_made_anew(open_store: Open, path: Path) -> None:
    one, other = open_store(), open_store()
    take(one)
    take(other, "another")
    for file in path.parent.iterdir():
        file.unlink()
    assert out(one) == 0
    take(other)

    assert out(one) == 1


def test_a_folder_that_cannot_be_made_is_reported(open_store: Open, path: Path) -> None:
    path.parent.parent.write_text("a file where the folder should be")

    refused(open_store(), "File exists|Not a directory")


def test_a_path_that_is_a_folder_is_reported(open_store: Open, path: Path) -> None:
    path.mkdir(parents=True)

    refused(open_store(), "it is not a file; remove it")


def on_each_connection(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Have each connection begin with a statement."""
    connect = sqlite3.connect

    def connected(path: Path, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        connection.execute(statement)
        return connection

    monkeypatch.setattr("springest_async.limits.store.sqlite3.connect", connected)


def test_a_file_that_cannot_be_written_is_reported(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    take(store)
    on_each_connection(monkeypatch, "PRAGMA query_only = 1")

    with pytest.raises(ConfigurationError, match="you need permission to write"):
        take(store)


def test_a_full_disk_is_reported_and_loses_nothing(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    take(store)
    on_each_connection(monkeypatch, "PRAGMA max_page_count = 1")  # no less than it has

    def fill() -> None:
        with store.change() as bucket:
            for number in range(1000):
                bucket.take(RATE, store.now(), name=f"post {number}", holder="holder", count_window=0.0)

    with pytest.raises(ConfigurationError, match="the disk is full"):
        fill()
    assert out(store) == 1
