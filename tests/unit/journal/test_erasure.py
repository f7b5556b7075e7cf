"""What identifies people is erased, and nothing is sent again for that."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from springest_async.bulk import Manifest, OpenMigration, State, load_manifest
from springest_async.errors import ConfigurationError
from springest_async.journal import erasure
from springest_async.journal.engine import Connection
from springest_async.journal.erasure import Forgotten
from springest_async.journal.journal import Journal
from tests.bulk_runs import ORIGIN, journal_of, manifest_of, settle

HEADER = "file,certification_id,email,valid_from,note\n"


def manifest_at(folder: Path, *people: str, name: str = "certificates.csv") -> Manifest:
    lines = [f"{person}.pdf,7,{person}@example.org,2026-01-31,secret of {person}\n" for person in people]
    for path, person in ((folder / f"{person}.pdf", person) for person in people):
        if not path.exists():  # else it has changed
            path.write_text(person)
    return manifest_of(folder, "".join([HEADER, *lines]), name)


async def stored(manifest: Manifest, *states: State) -> None:
    """Load a manifest, and bring its rows to these states."""
    async with Journal(journal_of(manifest)) as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN)
        await settle(migration, *states, reason="reason of anna")


async def forget(manifest: Manifest, job: Callable[[Connection], Forgotten] | None = None) -> Forgotten:
    """Forget a manifest, or do the job."""
    async with Journal(journal_of(manifest)) as journal:
        (migration,) = await OpenMigration.look_up(journal, manifest.path)
        return await (migration.forget() if job is None else journal.erase(job))


def content(manifest: Manifest) -> bytes:
    return b"".join(path.read_bytes() for path in manifest.path.parent.glob(f"{journal_of(manifest).name}*"))


async def test_nothing_that_identifies_people_is_left(tmp_path: Path) -> None:
    manifest = manifest_at(tmp_path, "anna", "bert")
    await stored(manifest, State.STORED, State.REJECTED)
    assert b"secret of anna" in content(manifest)

    assert await forget(manifest) == Forgotten(migrations=1, certificates=2)
    assert not [word for word in (b"anna", b"bert", b"secret", b"certificates.csv") if word in content(manifest)]


async def test_what_was_erased_meanwhile_is_said_so(tmp_path: Path) -> None:
    manifest = manifest_at(tmp_path, "anna")
    await stored(manifest, State.STORED)
    async with Journal(journal_of(manifest)) as journal:
        (migration,) = await OpenMigration.look_up(journal, manifest.path)
        await migration.forget()

        with pytest.raises(ConfigurationError, match="erased already"):
            await migration.forget()


async def test_what_another_manifest_names_stays(tmp_path: Path) -> None:
    both = manifest_at(tmp_path, "anna", "bert")
    await stored(both, State.STORED, State.STORED)
    one = manifest_at(tmp_path, "bert", name="one.csv")
    async with Journal(journal_of(both)) as journal:
        await load_manifest(journal, one, ORIGIN)

    assert await forget(both) == Forgotten(migrations=1, certificates=1)
    assert b"anna" not in content(one)
    assert b"bert@" in content(one)


@pytest.mark.parametrize("state", [State.WAITING, State.SENDING, State.IN_DOUBT])
async def test_what_is_not_finished_is_refused(tmp_path: Path, state: State) -> None:
    manifest = manifest_at(tmp_path, "anna", "bert")
    await stored(manifest, State.STORED, state)
    before = content(manifest)

    with pytest.raises(ConfigurationError, match=r"Nothing was erased\.$"):
        await forget(manifest)
    with pytest.raises(ConfigurationError, match=r"Nothing was erased\.$"):
        await forget(manifest, partial(erasure.forget_email, email="bert@example.org"))
    assert before.count(b"bert@") <= content(manifest).count(b"bert@")


async def test_old_migrations_are_forgotten_and_others_kept(tmp_path: Path) -> None:
    finished, doubtful = manifest_at(tmp_path, "anna"), manifest_at(tmp_path, "bert", name="doubtful.csv")
    await stored(finished, State.STORED)
    await stored(doubtful, State.IN_DOUBT)

    past, future = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
    assert await forget(finished, partial(erasure.forget_older, before=past)) == Forgotten()
    forgotten = await forget(finished, partial(erasure.forget_older, before=future))
    assert forgotten == Forgotten(migrations=1, certificates=1, kept=("doubtful.csv",))
    assert b"bert@" in content(doubtful)


@pytest.mark.parametrize("spelling", ["zoë@example.org", "ZOË@Example.org", "zoe\u0308@example.org"])
async def test_a_person_is_found_however_the_address_is_spelt(tmp_path: Path, spelling: str) -> None:
    manifest = manifest_at(tmp_path, "anna", "zoë")
    await stored(manifest, State.STORED, State.STORED)

    assert await forget(manifest, partial(erasure.forget_email, email=spelling)) == Forgotten(certificates=1)
    assert "zoë@".encode() not in content(manifest)
    assert b"anna@" in content(manifest)
    async with Journal(journal_of(manifest)) as journal:
        (migration,) = await OpenMigration.look_up(journal, manifest.path)
        assert await migration.counts() == {State.STORED: 1}


async def test_the_information_counts_what_is_there(tmp_path: Path) -> None:
    manifest = manifest_at(tmp_path, "anna", "bert")
    await stored(manifest, State.STORED, State.STORED)
    await forget(manifest)
    async with Journal(journal_of(manifest)) as journal:
        info = await journal.info()

    assert (info.certificates, info.migrations) == (2, 0)
    assert info.size > 0
    assert info.oldest is not None
