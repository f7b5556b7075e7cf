"""``springest audit``: what it prints for people and for scripts, and its exit code."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from springest_async.bulk import State
from springest_async.cli.audit import audit
from springest_async.cli.exit_codes import Exit
from springest_async.errors import ConfigurationError
from tests.bulk_runs import journal_of, loaded, rows_of, settle


def console(out: io.StringIO, width: int = 100) -> Console:
    return Console(file=out, width=width, force_terminal=True, color_system=None)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


async def twice(folder: Path, ids: int) -> tuple[Path, str]:
    """Store two certificates under each of so many ids; return the manifest and its journal."""
    manifest = rows_of(folder, 2 * ids)
    async with loaded(manifest) as migration:
        for number in range(ids):
            await settle(migration, State.STORED, State.STORED, springest_id=100 + number)
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE attempts SET back_at = 1, status = 201")
        )
    return manifest.path, str(journal_of(manifest))


async def test_what_is_stored_twice_is_listed(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await twice(tmp_path, 23)

    assert await audit(manifest, journal, "table", console(out)) is Exit.DIFFERENT
    shown = out.getvalue()
    assert "23 certificates may be stored twice: look them up at Springest." in shown
    assert "Rows 2, 3: Springest gave the same id, 100, to several certificates.\n" in shown
    assert shown.count("Springest gave the same id") == 20
    assert shown.endswith("… and 3 more.\n")
    assert "No answer had a Date, so the server's clock is not known." in shown


async def test_the_id_of_what_was_missing_is_told(tmp_path: Path, out: io.StringIO) -> None:
    manifest = rows_of(tmp_path, 1)
    async with loaded(manifest) as migration:
        await settle(migration, State.STORED, springest_id=17)
        missing = await migration.journal.run(
            lambda connection: connection.execute("SELECT id, attempt FROM certificates")
        )
        await migration.send_missing_again(missing)
        await settle(migration, State.STORED, springest_id=18)

    assert await audit(manifest.path, str(journal_of(manifest)), "table", console(out, 400)) is Exit.STORED
    assert "│ sent again, because Springest did not list it │ 1 " in out.getvalue()
    assert "Row 2 sent again: Springest's id was 17, and is 18. The X-Request-Id of the POSTs: " in out.getvalue()


async def test_as_json_it_is_one_object(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await twice(tmp_path, 1)

    assert await audit(manifest, journal, "json", console(out)) is Exit.DIFFERENT
    found = json.loads(out.getvalue())
    assert (found["doubles"], found["posts"], found["by_server_clock"]) == (1, 2, None)
    assert found["first_doubles"][0]["springest_id"] == 100


async def test_nothing_sent_is_one_line(tmp_path: Path, out: io.StringIO) -> None:
    manifest = rows_of(tmp_path, 1)
    async with loaded(manifest):
        pass

    assert await audit(manifest.path, str(journal_of(manifest)), "table", console(out)) is Exit.STORED
    assert out.getvalue() == "Nothing was sent, so there is nothing to audit.\n"


async def test_a_narrow_terminal_shows_every_number(tmp_path: Path, out: io.StringIO) -> None:
    manifest, journal = await twice(tmp_path, 1)
    await audit(manifest, journal, "table", console(out, 40))

    lines = [line.split("│") for line in out.getvalue().splitlines() if line.count("│") == 3]
    assert max(len(line) for line in out.getvalue().splitlines() if "│" in line) <= 40
    assert "…" not in "".join(cell for line in lines for cell in line)


async def test_an_unknown_manifest_is_said(tmp_path: Path, out: io.StringIO) -> None:
    _, journal = await twice(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="nothing of this manifest is in the journal"):
        await audit(tmp_path / "other.csv", journal, "table", console(out))
