"""Manifests: loaded, edited, renamed, split and copied; their rows are claimed, and none is lost or sent twice."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest
from attrs import evolve

from springest_async.errors import JournalError
from springest_async.journal import changed_files, erasure, file_hashes, loading, manifest_rows, migrations
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.loading import ManifestRow
from springest_async.journal.migrations import Source
from springest_async.journal.records import Entry, KnownCertificate, Loaded, State
from springest_async.journal.repeats import SeenDigests
from springest_async.journal.sqlite import SQLiteConnection

from .model import LEASE, Clock, Fields, Worker, opened, row, rows, source

DAYS = 86_400 * 10**9


class Runner(Worker):
    """A worker that works on manifests of one machine."""

    def load(self, manifest: Source, lines: list[ManifestRow]) -> Loaded:
        """Load a manifest, and work on it from now on."""
        loaded = loading.load(self.connection, manifest, lines, self.name, faulty=0, columns=())
        self.renew(migration=loaded.migration)
        return loaded

    def renew(self, lease: float = LEASE, migration: int | None = None) -> None:
        """Extend its lease."""
        super().renew(lease, migration)

    def take(self, migration: int, manifest: Source, limit: int = 100, claim: str = "") -> list[Entry]:
        """Claim rows."""
        with self.connection.transaction():
            return manifest_rows.claim_rows(
                self.connection, migration, manifest, worker=self.name, claim=claim or self.name, limit=limit
            )

    def identify(self, entry: Entry, manifest: Source) -> KnownCertificate:
        """Read the file of a row."""
        content, status = entry.path.read_bytes(), entry.path.stat()
        with self.connection.transaction():
            return manifest_rows.identify(
                self.connection,
                entry,
                manifest,
                worker=self.name,
                size=status.st_size,
                modified_ns=status.st_mtime_ns,
                sha256=hashlib.sha256(content).digest(),
            )

    def work(self, migration: int, manifest: Source, state: State = State.STORED) -> list[str]:
        """Take each row that waits, and send it if it is to be sent; return the files that were sent."""
        sent = []
        for entry in self.take(migration, manifest):
            known = self.identify(entry, manifest)
            if known.state is State.WAITING and known.claim == manifest_rows.claim_of(entry):
                self.end(self.begin(known.id, manifest_rows.claim_of(entry)), state, known.id)
                sent.append(entry.file)
        return sent

    def counts(self, migration: int) -> Counter[State]:
        """Count the rows by state."""
        with self.connection.snapshot():
            return manifest_rows.counts(self.connection, migration)

    def unreadable(self, entry: Entry, migration: int, machine: str) -> State:
        """Say that a machine cannot read a row's file."""
        with self.connection.transaction():
            return manifest_rows.unreadable(
                self.connection, entry, migration, machine, f"host of {machine}", "no such file"
            )


@pytest.fixture
def runner(connection: SQLiteConnection) -> Runner:
    worker = Runner(connection, "a")
    worker.renew()
    return worker


@pytest.fixture
def other(tmp_path: Path, connection: SQLiteConnection) -> Iterator[Runner]:
    """Make a worker with a connection of its own."""
    with closing(opened(tmp_path / "journal.sqlite3")) as second:
        worker = Runner(second, "b")
        worker.renew()
        yield worker


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Make a folder with 2.pdf to 9.pdf, all different."""
    return fill(tmp_path / "archive")


def fill(folder: Path, mark: str = "") -> Path:
    folder.mkdir()
    for number in range(2, 10):
        (folder / f"{number}.pdf").write_bytes(f"%PDF {number}{mark}".encode())
    return folder


# --- loading ---


def test_a_new_manifest(runner: Runner, archive: Path) -> None:
    loaded = runner.load(source(archive), rows(3))

    assert loaded == Loaded(migration=1, rows=3, new=3, known=0, changed=0, changed_rows=())
    assert runner.counts(1) == {State.WAITING: 3}


def test_the_same_again_changes_nothing(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(3))
    assert runner.work(1, source(archive)) == ["2.pdf", "3.pdf", "4.pdf"]

    loaded = runner.load(source(archive), rows(3))

    assert (loaded.migration, loaded.rows, loaded.new) == (1, 3, 0)
    assert runner.counts(1) == {State.STORED: 3}
    assert runner.work(1, source(archive)) == []


def test_what_a_row_says_comes_back(runner: Runner, archive: Path) -> None:
    line = evolve(row(2, conversion_id=4), extra={"department": "Ümlaut\0\ud800"})
    runner.load(source(archive), [line])

    (entry,) = runner.take(1, source(archive))

    assert (entry.number, entry.file, entry.path) == (2, "2.pdf", archive / "2.pdf")
    assert (entry.email, entry.valid_from, entry.valid_until) == (line.email, line.valid_from, line.valid_until)
    assert (entry.certification_id, entry.conversion_id, entry.extra) == (7, 4, line.extra)


CHANGES: list[tuple[str, Callable[[list[ManifestRow]], list[ManifestRow]], list[str]]] = [
    ("sorted", lambda lines: [evolve(line, number=10 - line.number) for line in reversed(lines)], []),
    ("extended", lambda lines: [*lines, row(6)], ["6.pdf"]),
    ("shortened", lambda lines: lines[:2], []),
    ("another address", lambda lines: [evolve(lines[0], email="new@example.org"), *lines[1:]], ["2.pdf"]),
]


@pytest.mark.parametrize(("change", "sent"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_an_edited_manifest_sends_only_what_is_new(
    change: Callable[[list[ManifestRow]], list[ManifestRow]], sent: list[str], runner: Runner, archive: Path
) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    edited = source(archive, b"edited")

    loaded = runner.load(edited, change(rows(4)))

    assert loaded.migration == 1
    assert loaded.new == len(sent)
    assert runner.counts(1)[State.WAITING] == len(sent)
    assert runner.work(1, edited) == sent
    assert runner.counts(1) == {State.STORED: loaded.rows}
    assert runner.connection.execute("SELECT DISTINCT load FROM manifest_rows") == [(2,)]
    assert runner.connection.execute("SELECT id FROM loads") == [(2,)]


def test_an_edited_address_of_a_sent_file_is_told(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))

    loaded = runner.load(source(archive, b"edited"), rows(4, email="new@example.org"))

    assert (loaded.changed, loaded.changed_rows) == (4, (2, 3, 4, 5))


@pytest.mark.parametrize("parts", [[slice(0, 4)], [slice(0, 2), slice(2, 4)]], ids=["renamed", "split"])
def test_another_name_sends_nothing_again(parts: list[slice], runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))

    for number, part in enumerate(parts):
        manifest = source(archive, b"part %d" % number, name=f"part {number}.csv")
        lines = [evolve(line, number=place) for place, line in enumerate(rows(4)[part], start=2)]
        loaded = runner.load(manifest, lines)

        assert loaded.migration != 1
        assert loaded.known == loaded.new == len(lines)
        assert runner.counts(loaded.migration) == {State.STORED: len(lines)}  # without reading a file


def test_a_copied_archive_sends_nothing_again(runner: Runner, archive: Path, tmp_path: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    copy = source(fill(tmp_path / "copy"), b"other bytes")

    loaded = runner.load(copy, rows(4))

    assert loaded.known == 0  # until the files are read
    assert runner.work(loaded.migration, copy) == []
    assert runner.counts(loaded.migration) == {State.STORED: 4}


def test_other_files_beside_the_same_manifest_are_sent(runner: Runner, archive: Path, tmp_path: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    copy = source(fill(tmp_path / "copy", mark=" of another year"))
    (copy.folder / "5.pdf").unlink()

    loaded = runner.load(copy, rows(4))

    assert (loaded.migration, loaded.new) == (1, 0)
    assert runner.work(1, copy) == ["2.pdf", "3.pdf", "4.pdf"]
    assert runner.connection.execute("SELECT count(*) FROM certificates") == [(7,)]


def test_a_manifest_through_a_link_is_the_same(runner: Runner, archive: Path, tmp_path: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    (tmp_path / "link").symlink_to(archive)

    loaded = runner.load(source(tmp_path / "link"), rows(4))

    assert (loaded.migration, loaded.new, runner.counts(1)) == (1, 0, {State.STORED: 4})


def test_another_host_is_another_migration(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))

    elsewhere = evolve(source(archive), origin="https://other.example")
    loaded = runner.load(elsewhere, rows(4))

    assert (loaded.migration, loaded.known) == (2, 0)
    assert len(runner.work(2, elsewhere)) == 4


def test_a_changed_file_waits_again(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    (archive / "3.pdf").write_bytes(b"%PDF another")

    runner.load(source(archive), rows(4))

    assert runner.counts(1) == {State.STORED: 3, State.WAITING: 1}
    (entry,) = runner.take(1, source(archive), claim="x")
    assert (entry.file, entry.changed) == ("3.pdf", True)


@pytest.mark.parametrize(("later", "waits"), [(1, 0), (3, 1)])
def test_times_are_compared_to_two_seconds(later: int, waits: int, runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    at = (archive / "3.pdf").stat().st_mtime_ns + later * 10**9
    os.utime(archive / "3.pdf", ns=(at, at))

    runner.load(source(archive), rows(4))

    assert runner.counts(1)[State.WAITING] == waits
    assert runner.work(1, source(archive)) == []


def test_a_file_that_is_gone_stays_stored(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive))
    (archive / "3.pdf").unlink()

    runner.load(source(archive), rows(4))

    assert runner.counts(1) == {State.STORED: 4}


@pytest.mark.parametrize("state", [State.REJECTED, State.IN_DOUBT])
def test_what_was_refused_or_is_in_doubt_stays_so(state: State, runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(4))
    runner.work(1, source(archive), state)

    runner.load(source(archive), rows(4))
    runner.load(source(archive, b"edited"), rows(5))
    loaded = runner.load(source(archive, b"renamed", name="other.csv"), rows(4))

    assert runner.counts(1) == {state: 4, State.WAITING: 1}
    assert runner.counts(loaded.migration) == {state: 4}


@pytest.mark.parametrize("content", [b"manifest", b"edited"])
def test_failed_rows_wait_again(content: bytes, runner: Runner, archive: Path) -> None:
    manifest, again = (source(archive, each, machine="machine of a") for each in (b"manifest", content))
    runner.load(manifest, rows(2))
    first, second = runner.take(1, manifest)
    runner.unreadable(first, 1, "machine of a")
    known = runner.identify(second, manifest)
    runner.release(known.id, State.FAILED, "too often", claim=manifest_rows.claim_of(second))
    assert runner.counts(1) == {State.FAILED: 2}

    runner.load(again, rows(2))

    assert runner.counts(1) == {State.WAITING: 2}
    assert runner.work(1, again) == ["2.pdf", "3.pdf"]


def test_copies_of_a_row_have_one_certificate(runner: Runner, archive: Path) -> None:
    lines = [row(number, "2.pdf", email="jo@example.org") for number in (2, 3, 4)]
    runner.load(source(archive), lines)

    assert runner.work(1, source(archive)) == ["2.pdf"]
    assert runner.counts(1) == {State.STORED: 3}

    runner.load(source(archive, b"one copy less"), lines[:2])
    assert runner.counts(1) == {State.STORED: 2}


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
@pytest.mark.parametrize("wrong", [False, True], ids=["found", "all seem to have come before"])
def test_copies_are_numbered_in_their_order(
    batch: int, wrong: bool, runner: Runner, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_BATCH", batch)
    if wrong:
        monkeypatch.setattr(SeenDigests, "add", lambda *_: True)
    names = ["2.pdf", "3.pdf", "2.pdf", "2.pdf", "4.pdf", "3.pdf", "2.pdf"]
    lines = [row(number, name, email="jo@example.org") for number, name in enumerate(names, start=2)]
    runner.load(source(archive, b"another", name="another.csv"), lines)

    loaded = runner.load(source(archive), lines)

    copies = runner.connection.execute("SELECT file, copy FROM manifest_rows WHERE load = 2 ORDER BY number")
    assert copies == list(zip(names, [1, 1, 2, 3, 1, 2, 4], strict=True))
    assert loaded.rows == 7


def test_a_load_sends_few_statements_to_the_database(
    runner: Runner, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [row(number, f"{number}.pdf") for number in range(2, 5002)]
    executed = Mock(side_effect=runner.connection.execute)
    monkeypatch.setattr(runner.connection, "execute", executed)

    loading.load(runner.connection, source(archive), lines, "a", faulty=0, columns=())

    assert executed.call_count < 30


def test_a_row_gets_the_end_of_an_upload_under_way(runner: Runner, archive: Path, a: Worker) -> None:
    runner.load(source(archive), rows(1))
    content = hashlib.sha256((archive / "2.pdf").read_bytes()).digest()
    _, attempt = a.send(Fields(email="person2@example.org", valid_until=None), content)

    assert runner.work(1, source(archive)) == []
    assert runner.counts(1) == {State.SENDING: 1}
    a.end(attempt, State.STORED, 5)

    assert runner.counts(1) == {State.STORED: 1}


# --- loads that end early, or meet ---


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_BATCH", 2)


@pytest.mark.usefixtures("_small_batches")
def test_what_a_killed_process_has_loaded_is_removed(
    runner: Runner, other: Runner, archive: Path, clock: Clock
) -> None:
    def killed() -> Iterator[ManifestRow]:
        yield from rows(3)
        raise SystemExit

    with pytest.raises(SystemExit):
        loading.load(other.connection, source(archive), killed(), "b", faulty=0, columns=())
    assert runner.connection.execute("SELECT count(*) FROM manifest_rows") == [(2,)]
    runner.load(source(archive, b"x", name="x.csv"), rows(1))  # the other one may still be loading
    assert runner.connection.execute("SELECT count(*) FROM manifest_rows") == [(3,)]

    clock.now += LEASE + 1
    runner.renew()
    runner.load(source(archive, b"x", name="x.csv"), rows(1))

    assert runner.connection.execute("SELECT count(*) FROM manifest_rows") == [(1,)]


@pytest.mark.usefixtures("_small_batches")
def test_a_loader_that_seemed_dead_loads_no_half(runner: Runner, other: Runner, archive: Path, clock: Clock) -> None:
    """Its first rows were removed while it slept: the migration would lack them."""

    def sleeping() -> Iterator[ManifestRow]:
        yield from rows(4)
        clock.now += LEASE + 1
        runner.renew()
        runner.load(source(archive, b"x", name="x.csv"), rows(1))
        other.renew()
        yield from rows(6)[4:]

    with pytest.raises(JournalError, match="asleep"):
        loading.load(other.connection, source(archive), sleeping(), "b", faulty=0, columns=())

    assert runner.connection.execute("SELECT count(*) FROM manifest_rows") == [(1,)]
    assert runner.connection.execute("SELECT count(*) FROM migrations") == [(1,)]


def test_two_that_load_a_new_manifest_at_once_share_it(runner: Runner, other: Runner, archive: Path) -> None:
    def meanwhile() -> Iterator[ManifestRow]:
        yield from rows(2)
        other.load(source(archive), rows(3))
        other.work(1, source(archive))
        yield from rows(3)[2:]

    loaded = loading.load(runner.connection, source(archive), meanwhile(), "a", faulty=0, columns=())

    assert (loaded.migration, loaded.rows) == (1, 3)
    assert runner.connection.execute("SELECT id FROM migrations") == [(1,)]
    assert runner.counts(1) == {State.STORED: 3}
    assert runner.connection.execute("SELECT count(*) FROM manifest_rows") == [(3,)]


def test_of_two_editions_at_once_the_last_one_counts(runner: Runner, other: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(2))

    def meanwhile() -> Iterator[ManifestRow]:
        yield from rows(4)
        other.load(source(archive, b"edition 2"), rows(3))
        other.work(1, source(archive, b"edition 2"))

    loaded = loading.load(runner.connection, source(archive, b"edition 3"), meanwhile(), "a", faulty=0, columns=())

    assert (loaded.migration, loaded.new) == (1, 1)
    assert runner.counts(1) == {State.STORED: 3, State.WAITING: 1}
    assert runner.connection.execute("SELECT count(*) FROM manifest_rows") == [(4,)]


def test_an_edition_beats_one_that_is_looked_at_again(
    runner: Runner, other: Runner, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the older edition are gone then, and must not be the ones that count."""
    runner.load(source(archive), rows(2))
    forget = changed_files.forget_changed_files

    def slow(*arguments: object) -> int:
        monkeypatch.setattr(changed_files, "forget_changed_files", forget)
        other.load(source(archive, b"edition 2"), rows(3))
        return 0

    monkeypatch.setattr(changed_files, "forget_changed_files", slow)
    loaded = runner.load(source(archive), rows(2))

    assert (loaded.migration, loaded.rows) == (1, 2)
    assert runner.counts(1) == {State.WAITING: 2}


def test_workers_go_on_while_an_edition_is_loaded(runner: Runner, other: Runner, archive: Path, a: Worker) -> None:
    """Each certificate is sent once, whichever rows name it."""
    manifest, edited = source(archive), source(archive, b"edited")
    runner.load(manifest, rows(6))
    sending, reading, waiting = runner.take(1, manifest, 3)
    known = runner.identify(sending, manifest)
    attempt = runner.begin(known.id, manifest_rows.claim_of(sending))
    third = Runner(runner.connection, "third")
    third.renew()
    third.load(edited, rows(7))

    with pytest.raises(ClaimLost):
        runner.identify(reading, manifest)
    assert other.work(1, edited) == [f"{number}.pdf" for number in range(3, 9)]
    runner.end(attempt, State.STORED, 1)

    assert other.counts(1) == {State.STORED: 7}
    assert waiting.file == "4.pdf"


# --- claims ---


def test_rows_are_claimed_in_order_and_up_to_a_limit(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), list(reversed(rows(5))))

    first = runner.take(1, source(archive), 2, "x")
    second = runner.take(1, source(archive), 5, "y")

    assert [entry.number for entry in first] == [2, 3]
    assert [entry.number for entry in second] == [4, 5, 6]
    assert runner.take(1, source(archive), 5, "z") == []


def test_a_claim_that_runs_again_returns_the_same_rows(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(5))

    assert runner.take(1, source(archive), 2, "x") == runner.take(1, source(archive), 2, "x")


def test_rows_of_a_dead_worker_are_claimed(runner: Runner, other: Runner, archive: Path, clock: Clock) -> None:
    runner.load(source(archive), rows(2))
    entry, _ = runner.take(1, source(archive))
    clock.now += LEASE + 1
    other.renew(migration=1)

    assert len(other.take(1, source(archive))) == 2
    with pytest.raises(ClaimLost):
        runner.identify(entry, source(archive))


def test_released_rows_are_claimed_by_others(runner: Runner, other: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(2))
    entries = runner.take(1, source(archive))
    runner.identify(entries[1], source(archive))
    with runner.connection.transaction():
        for entry in entries:
            manifest_rows.release(runner.connection, entry, "a")

    assert other.work(1, source(archive)) == ["2.pdf", "3.pdf"]


def test_an_identification_that_runs_again_is_the_same(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(1))
    (entry,) = runner.take(1, source(archive))

    first = runner.identify(entry, source(archive))

    assert first.claim == manifest_rows.claim_of(entry)
    assert runner.identify(entry, source(archive)) == first


def test_a_lost_row_claims_no_certificate(runner: Runner, archive: Path) -> None:
    """The row is no longer in the manifest, so nobody wants it to be sent."""
    runner.load(source(archive), rows(2))
    entry, _ = runner.take(1, source(archive))
    runner.load(source(archive, b"edited"), rows(2)[1:])

    with pytest.raises(ClaimLost):
        runner.identify(entry, source(archive))

    assert runner.connection.execute("SELECT count(*) FROM certificates") == [(0,)]


# --- files that cannot be read ---


def test_what_the_only_machine_cannot_read_fails(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(2))
    entry, _ = runner.take(1, source(archive))

    assert runner.unreadable(entry, 1, "machine of a") is State.FAILED
    assert runner.counts(1) == {State.FAILED: 1, State.WAITING: 1}


def test_what_one_machine_cannot_read_another_tries(runner: Runner, other: Runner, archive: Path) -> None:
    here, there = source(archive, machine="machine of a"), source(archive, machine="machine of b")
    runner.load(here, rows(1))
    other.renew(migration=1)
    (entry,) = runner.take(1, here)

    assert runner.unreadable(entry, 1, "machine of a") is State.WAITING
    with runner.connection.snapshot():
        (shown,) = manifest_rows.entries(runner.connection, 1, here, [State.WAITING], after=0, limit=9)
    assert shown.reason == "not readable on host of machine of a: no such file"
    assert runner.take(1, here, claim="again") == []

    (entry,) = other.take(1, there)
    assert other.unreadable(entry, 1, "machine of b") is State.FAILED


def test_what_no_living_worker_can_read_fails(runner: Runner, other: Runner, archive: Path) -> None:
    here = source(archive, machine="machine of a")
    runner.load(here, rows(1))
    other.renew(migration=1)
    (entry,) = runner.take(1, here)
    runner.unreadable(entry, 1, "machine of a")
    with runner.connection.transaction():
        manifest_rows.fail_unreadable(runner.connection, 1)
    assert runner.counts(1) == {State.WAITING: 1}
    other.leave()

    with runner.connection.transaction():
        manifest_rows.fail_unreadable(runner.connection, 1)

    assert runner.counts(1) == {State.FAILED: 1}


def test_a_worker_that_slept_works_on_no_other_manifest(runner: Runner, other: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(2)[:1])
    runner.work(1, source(archive))
    with runner.connection.transaction():
        runner.connection.execute("DELETE FROM workers")
        erasure.forget_migration(runner.connection, 1)
    other.load(source(archive, b"another", name="another.csv"), rows(3))

    with pytest.raises(JournalError, match="was erased from it meanwhile"):
        runner.take(1, source(archive))


# --- what is known of files ---


def test_a_hash_is_known_for_one_size_time_and_machine(connection: SQLiteConnection, archive: Path) -> None:
    path = archive / "2.pdf"
    with connection.transaction():
        file_hashes.remember_hash(connection, "m", path, 1, 2, b"1" * 32)
        file_hashes.remember_hash(connection, "m", path, 1, 3, b"2" * 32)

        assert file_hashes.known_hash(connection, "m", archive / "x" / ".." / "2.pdf", 1, 3) == b"2" * 32
        assert file_hashes.known_hash(connection, "m", path, 1, 2) is None
        assert file_hashes.known_hash(connection, "m", path, 2, 3) is None
        assert file_hashes.known_hash(connection, "other", path, 1, 3) is None


@pytest.mark.parametrize("years", [-369, 600, 28_000])  # from 1970: the first time of NTFS, a mistake, its last
def test_a_file_may_have_a_time_of_more_than_64_bits(years: int, connection: SQLiteConnection, archive: Path) -> None:
    modified_ns = years * 31_556_952 * 10**9
    with connection.transaction():
        file_hashes.remember_hash(connection, "m", archive / "2.pdf", 1, modified_ns, b"1" * 32)

        assert file_hashes.known_hash(connection, "m", archive / "2.pdf", 1, modified_ns) == b"1" * 32
        assert file_hashes.known_hash(connection, "m", archive / "2.pdf", 1, modified_ns + 1) is None


def test_a_row_whose_file_has_an_odd_time_stays_stored(runner: Runner, archive: Path) -> None:
    os.utime(archive / "2.pdf", (10_413_792_000, 10_413_792_000))  # 2300, which ext4 can hold and 64 bits cannot
    runner.load(source(archive), rows(2)[:1])
    runner.work(1, source(archive))

    runner.load(source(archive), rows(2)[:1])

    assert runner.counts(1) == {State.STORED: 1}


@pytest.mark.parametrize("name", ["list.csv", "renamed.csv"])
def test_a_settled_row_need_not_be_checked(name: str, runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(2)[:1])
    runner.work(1, source(archive))
    manifest = source(archive, name.encode(), name=name)
    connection = runner.connection

    with connection.snapshot():
        migration = migrations.find(connection, manifest)
        assert loading.settled_state(connection, manifest, migration, row(2), "2.pdf") is State.STORED
        assert loading.settled_state(connection, manifest, migration, row(3), "3.pdf") is None
        (archive / "2.pdf").write_bytes(b"another")
        assert loading.settled_state(connection, manifest, migration, row(2), "2.pdf") is None


# --- doubts ---


def test_doubts_without_a_manifest_are_found(runner: Runner, archive: Path) -> None:
    runner.load(source(archive), rows(2))
    runner.work(1, source(archive), State.IN_DOUBT)
    runner.load(source(archive, b"edited"), rows(1))

    with runner.connection.snapshot():
        (orphan,) = manifest_rows.orphans(runner.connection, source(archive))

    assert (orphan.number, orphan.email, orphan.state) == (None, "person3@example.org", State.IN_DOUBT)
