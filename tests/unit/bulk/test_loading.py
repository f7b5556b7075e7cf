"""Loading a manifest into a journal: whatever it is called and wherever it lies."""

import os
import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from springest_async import Journal, ManifestError
from springest_async.bulk import Manifest, Reading, State, load_manifest, source_of
from springest_async.bulk.loading import rows_of
from springest_async.bulk.rows import RowSet
from springest_async.journal.loading import ManifestRow
from springest_async.journal.status_reader import StatusReader
from springest_async.manifest.dates import DateOrder
from tests.bulk_runs import ORIGIN, manifest_of, settle
from tests.bulk_runs import rows_of as archive_of

HEADER = "naam,file,certification_id,email,valid_from,valid_until,conversion_id\n"


def test_rows_are_what_the_cells_say(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + "Jan,a/jan.pdf,7,Jan@Example.org,31-01-2026,2031-01-31,5\n\n,b.pdf,8,")

    rows = rows_of(manifest)

    jan = next(rows)
    assert isinstance(jan, ManifestRow)
    assert (jan.number, jan.file, jan.email, jan.extra) == (2, "a/jan.pdf", "Jan@Example.org", {"naam": "Jan"})
    assert (str(jan.valid_from), str(jan.valid_until)) == ("2026-01-31", "2031-01-31")
    assert (jan.certification_id, jan.conversion_id) == (7, 5)
    with pytest.raises(ManifestError, match=re.escape("row 4: email: is missing; valid_from: is missing")):
        next(rows)


def test_a_link_is_the_same_manifest_with_files_of_its_own(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.csv").symlink_to(manifest.path)

    there = source_of(manifest, ORIGIN, "a machine")
    here = source_of(Manifest.open(elsewhere / "link.csv"), ORIGIN, "a machine")

    assert (here.sha256, here.path) == (there.sha256, there.path)
    assert (there.folder, here.folder) == (tmp_path, elsewhere)


def test_a_relative_path_stays_right_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive_of(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    source = source_of(Manifest.open(Path("certificates.csv")), ORIGIN, "a machine")

    assert source.folder == tmp_path
    assert source.path == Path(os.path.realpath(tmp_path / "certificates.csv"))


async def test_a_faulty_row_loads_nothing(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path, 3, changes={3: {"certification_id": "seven"}})
    async with Journal(tmp_path / "journal") as journal:
        with pytest.raises(ManifestError, match="row 4: certification_id: must be a whole number"):
            await load_manifest(journal, manifest, ORIGIN)

        assert (await journal.info()).migrations == 0


async def test_a_manifest_saved_meanwhile_loads_nothing(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path, 3)
    manifest.path.write_text(manifest.path.read_text() + "\n")
    async with Journal(tmp_path / "journal") as journal:
        with pytest.raises(ManifestError, match="was changed while springest was reading it"):
            await load_manifest(journal, manifest, ORIGIN)

        assert (await journal.info()).migrations == 0


@pytest.mark.parametrize("way", ["renamed", "copied", "linked", "moved with its files"])
async def test_the_name_of_a_manifest_decides_nothing(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    manifest = archive_of(folder, 3)
    other = folder / "certificates (2).csv"
    async with Journal(tmp_path / "journal") as journal:
        migration, first = await load_manifest(journal, manifest, ORIGIN)
        await settle(migration, State.STORED, State.STORED)
        match way:
            case "renamed":
                manifest.path.rename(other)
            case "copied":
                shutil.copyfile(manifest.path, other)
            case "linked":
                other.symlink_to(manifest.path)
            case _:
                folder.rename(tmp_path / "elsewhere")
                other = tmp_path / "elsewhere" / manifest.path.name

        again, second = await load_manifest(journal, Manifest.open(other), ORIGIN)

        assert (first.rows, first.new, second.rows, second.new, second.changed) == (3, 3, 3, 0, 0)
        assert again.id == migration.id
        assert await again.counts() == {State.STORED: 2, State.WAITING: 1}
        assert [entry.path.parent for entry in await again.claim(10)] == [other.parent]


async def test_a_split_manifest_says_what_was_stored_before(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path, 4)
    async with Journal(tmp_path / "journal") as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN)
        await settle(migration, State.STORED, State.REJECTED, State.STORED)
        header, *lines = manifest.path.read_text().splitlines(keepends=True)
        half = manifest_of(tmp_path, "".join([header, *lines[1:]]), "second half.csv")

        part, loaded = await load_manifest(journal, half, ORIGIN)

        assert part.id != migration.id
        assert (loaded.rows, loaded.new, loaded.known) == (3, 3, 1)
        assert await part.counts() == {State.REJECTED: 1, State.STORED: 1, State.WAITING: 1}


async def test_another_host_has_certificates_of_its_own(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path, 2)
    async with Journal(tmp_path / "journal") as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN)
        await settle(migration, State.STORED, State.STORED)

        other, loaded = await load_manifest(journal, manifest, "https://api.springest.be")

        assert (loaded.new, loaded.known) == (2, 0)
        assert await other.counts() == {State.WAITING: 2}


async def test_what_the_user_says_of_dates_counts_in_a_second_load(tmp_path: Path) -> None:
    """The first word was wrong, and nothing has been sent yet."""
    manifest = archive_of(tmp_path, 1, {1: {"valid_from": "05/06/2026"}})
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        found = []
        orders: tuple[DateOrder, ...] = ("dmy", "mdy")
        for order in orders:
            migration, _ = await load_manifest(journal, Manifest.open(manifest.path, Reading(dates=order)), ORIGIN)
            found.append([entry.valid_from for entry in await migration.entries()])

    assert found == [[date(2026, 6, 5)], [date(2026, 5, 6)]]


async def test_a_run_sees_that_another_reading_has_replaced_its_rows(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path, 1, {1: {"valid_from": "05/06/2026"}})
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        first, _ = await load_manifest(journal, Manifest.open(manifest.path, Reading(dates="dmy")), ORIGIN)
        before = await first.is_current()
        second, _ = await load_manifest(journal, Manifest.open(manifest.path, Reading(dates="mdy")), ORIGIN)

        assert (before, await first.is_current(), await second.is_current()) == (True, False, True)


async def test_rows_left_out_with_faults_are_counted(tmp_path: Path) -> None:
    """Those that Springest lists already are no faults, and the manifest without faults has none left out."""
    manifest = archive_of(tmp_path, 5)
    faulty, listed = RowSet(), RowSet()
    faulty.add(2)
    faulty.add(3)
    listed.add(6)
    found = []
    async with Journal(tmp_path / "journal") as journal, StatusReader(journal) as reader:
        for left_out in ({"faulty": faulty, "listed": listed}, {"listed": listed}, {"faulty": faulty}, {}):
            migration, loaded = await load_manifest(journal, manifest, ORIGIN, **left_out)
            status = await reader.status(migration.id)
            found.append((migration.id, loaded.rows, status.rows, status.faulty))

    assert found == [(1, 2, 2, 2), (1, 4, 4, 0), (1, 3, 3, 2), (1, 5, 5, 0)]
