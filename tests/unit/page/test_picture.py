"""What the page gets of a journal: one snapshot, of which each viewer is sent what has changed."""

import json
from pathlib import Path
from typing import Any

from springest_async import Journal
from springest_async.bulk import OpenMigration, State, load_manifest
from springest_async.journal.status_reader import StatusReader
from springest_async.page.picture import Picture, read_picture
from tests.bulk_runs import ORIGIN, rows_of, settle

REJECTED = "POST https://api.springest.nl/users/certificates.json rejected the certificate (400): "


async def _picture(journal: Journal) -> Picture:
    async with StatusReader(journal) as reader:
        return await reader.read(read_picture)


async def _load(journal: Journal, folder: Path, rows: int) -> OpenMigration:
    folder.mkdir()  # noqa: ASYNC240 # a test may
    migration, _ = await load_manifest(journal, rows_of(folder, rows), ORIGIN)
    return migration


def _news(picture: Picture, known: dict[int, str]) -> dict[str, Any]:
    news: dict[str, Any] = json.loads(picture.since(known))
    return news


async def test_a_viewer_is_sent_only_what_has_changed(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        first = await _load(journal, tmp_path / "first", 2)
        second = await _load(journal, tmp_path / "second", 1)
        await journal.run(lambda connection: connection.execute("UPDATE migrations SET moved_at = id"))
        known: dict[int, str] = {}
        all_ = _news(await _picture(journal), known)
        nothing = _news(await _picture(journal), known)
        await first.pause()
        one = _news(await _picture(journal), known)
        await journal.run(lambda connection: connection.execute("DELETE FROM migrations"))
        gone = _news(await _picture(journal), known)

    assert all_["order"] == [second.id, first.id]
    assert [migration["rows"] for migration in all_["migrations"]] == [1, 2]
    assert (nothing["order"], nothing["migrations"]) == (all_["order"], [])
    assert [migration["migration"] for migration in one["migrations"]] == [first.id]
    assert (gone["order"], gone["migrations"], known) == ([], [], {})


async def test_reasons_and_words_have_no_addresses(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        migration = await _load(journal, tmp_path / "a", 12)
        for number in range(10):
            await settle(
                migration, State.REJECTED, reason=f"{REJECTED}no user other{number}@example.org of kind {number}"
            )
        await settle(migration, State.FAILED, reason="not readable")
        await journal.run(lambda _: None)  # after all that was noted
        news = _news(await _picture(journal), {})

    (shown,) = news["migrations"]
    assert "kind 3" in shown["reasons"][3]["words"]
    assert all(reason["words"].startswith("no user") for reason in shown["reasons"])
    assert "@" not in json.dumps(shown)
    assert len(shown["reasons"]) == 8
    assert shown["more_reasons"] == 3
    assert {reason["state"] for reason in shown["reasons"]} <= {"rejected", "failed"}


async def test_certificates_that_no_manifest_names_are_counted(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        migration = await _load(journal, tmp_path / "a", 2)
        await settle(migration, State.IN_DOUBT)
        await journal.run(lambda connection: connection.execute("UPDATE manifest_rows SET certificate = NULL"))
        picture = await _picture(journal)

    assert picture.orphans == 1


async def test_what_is_known_of_doubts_has_a_version(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        migration = await _load(journal, tmp_path / "a", 3)
        seen = []

        async def see() -> None:
            await journal.run(lambda _: None)  # after all that was noted
            (shown,) = _news(await _picture(journal), {})["migrations"]
            seen.append((shown["counts"]["in_doubt"], shown["settling"], shown["doubts"]))

        await settle(migration, State.IN_DOUBT, State.IN_DOUBT)
        await see()
        await migration.resolve([2], State.WAITING)
        await settle(migration, State.IN_DOUBT)  # the same row, another POST
        await see()
        claimed = await migration.claim_doubt(())
        assert claimed is not None
        await see()
        await journal.settled(claimed[1], State.IN_DOUBT, reason="Springest does not list it")
        await see()
        await see()

    assert [(rows, asked) for rows, asked, _ in seen] == [(2, 0), (2, 0), (2, 1), (2, 0), (2, 0)]
    versions = [version for *_, version in seen]
    assert len(set(versions)) == 4
    assert versions[3] == versions[4]
