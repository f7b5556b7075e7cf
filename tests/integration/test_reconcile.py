"""The command ``springest reconcile`` against a sandbox whose lists were changed behind its back."""

import asyncio
import csv
import io
import json
import os
import pty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from springest_async import Springest
from springest_async.bulk import State
from springest_async.cli.exit_codes import Exit
from springest_async.reports.matching import Kind
from springest_async.reports.reconcile import Reconciliation
from springest_async.sandbox import Sandbox
from springest_async.sandbox.certificates import SandboxCertificate, SandboxCertification
from tests.bulk_runs import loaded, rows_of, settle
from tests.pdfs import archive

from .command import (
    KEY,
    Ran,
    connected,
    end,
    environment,
    let_minutes_pass,
    noted,
    outcomes,
    posts,
    springest,
    springest_sandbox,
    start,
)
from .raw_server import Exchange, raw_server
from .servers.postgresql import Database

ROWS = 8
ONCE = {"SPRINGEST_CERTIFICATIONS_API_KEY": None}  # so that a certification that is not shown is no fault


@asynccontextmanager
async def uploaded(
    folder: Path, changes: dict[int, dict[str, str]] | None = None
) -> AsyncIterator[tuple[Sandbox, Path]]:
    """Upload a little archive to a sandbox, some minutes ago."""
    manifest = archive(folder, ROWS, changes=changes)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin, **ONCE)).code == Exit.STORED
        let_minutes_pass()
        yield sandbox, manifest


def change(sandbox: Sandbox, number: int, **changes: Any) -> None:
    """Change what the sandbox has stored of an employee."""
    index, one = found(sandbox, number)
    sandbox._certificates[index] = attrs.evolve(one, **changes)


def found(sandbox: Sandbox, number: int) -> tuple[int, SandboxCertificate]:
    email = f"employee{number}@example.org"
    return next((i, one) for i, one in enumerate(sandbox._certificates) if one.email == email)


def remove(sandbox: Sandbox, number: int) -> None:
    """Let the sandbox list a certificate no more; its number is not given to another one."""
    change(sandbox, number, certification_id=3, email="removed@example.org")


def kinds(ran: Ran) -> dict[str, str]:
    """Return the kind of each row, by the email address, from CSV."""
    return {line["email"] + line["row"]: line["kind"] for line in csv.DictReader(io.StringIO(ran.out))}


async def test_all_rows_are_stored_and_shown(tmp_path: Path) -> None:
    async with uploaded(tmp_path) as (sandbox, manifest):
        ran = await springest("reconcile", manifest, origin=sandbox.origin)

    assert ran.code == Exit.STORED
    assert ran.out.splitlines()[-1] == "No difference: each of 8 rows is stored, and Springest shows it."
    assert "is asked for its lists of certificates: about 2 requests (of 4 000 an hour)." in ran.err


async def test_each_difference_is_found(tmp_path: Path) -> None:
    async with uploaded(tmp_path, {7: {"certification_id": "3"}}) as (sandbox, manifest):
        remove(sandbox, 1)
        change(sandbox, 2, valid_until=found(sandbox, 2)[1].valid_from)
        change(sandbox, 3, email="new@example.org")
        _, fourth = found(sandbox, 4)
        sandbox._certificates += [attrs.evolve(fourth, id=100), attrs.evolve(fourth, id=101, email="hand@example.org")]
        ran = await springest("reconcile", manifest, "--format", "csv", origin=sandbox.origin)
        shown = await springest("reconcile", manifest, origin=sandbox.origin)
        told = await springest("reconcile", manifest, "--format", "json", origin=sandbox.origin)

    assert (ran.code, shown.code, told.code) == (Exit.DIFFERENT, Exit.DIFFERENT, Exit.DIFFERENT)
    expected = {
        "missing": ["employee1@example.org2"],
        "other dates": ["employee2@example.org3"],
        "other person": ["employee3@example.org4"],
        "stored and shown": [f"employee{n}@example.org{n + 1}" for n in (5, 6, 8)],
        "stored, not shown": ["employee7@example.org8"],
        "doubled": ["employee4@example.org5"],
        "not ours": ["hand@example.org"],
    }
    assert kinds(ran) == {row: kind for kind, rows in expected.items() for row in rows}
    for words in (
        "\nmissing               1\n",
        "5 differences.",
        "100",
        "101",
        "from 2026-01-31",
        "certification 3: 1 row",
    ):
        assert words in shown.out
    document = json.loads(told.out)
    assert (document["differences"], document["whole"], document["counts"]["shown"]) == (5, False, 4)
    assert {one["kind"]: one["row"] for one in document["findings"]} == {
        "missing": 2,
        "other_dates": 3,
        "other_person": 4,
        "not_shown": 8,
        "doubled": 5,
        "not_ours": None,
    }
    assert "@" not in told.out
    assert ".pdf" not in told.out


async def test_rows_that_are_not_stored_are_not_all(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2, changes={2: {"certification_id": "99"}})
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin, **ONCE)
        ran = await springest("reconcile", manifest, origin=sandbox.origin)

    assert ran.code == Exit.NOT_ALL
    assert ran.out.splitlines()[-2:] == [
        f"Not stored (1): 1 rejected. See springest status {manifest}",
        "No difference was found, but not everything is proved: 1 row not stored.",
    ]


async def test_what_is_missing_is_sent_again_once(tmp_path: Path) -> None:
    async with uploaded(tmp_path) as (sandbox, manifest):
        remove(sandbox, 1)
        remove(sandbox, 5)
        ran = await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin)
        assert noted(manifest) == outcomes(stored=6, waiting=2)
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == Exit.STORED
        after = await springest("reconcile", manifest, origin=sandbox.origin)
        audited = await springest("audit", manifest, origin=sandbox.origin)

    assert ran.code == Exit.DIFFERENT
    assert f"Waiting again: 2 certificates. To send them: springest upload {manifest}" in ran.err
    assert (after.code, len(posts(sandbox, "stored"))) == (Exit.STORED, ROWS + 2)
    assert audited.code == Exit.STORED
    assert "2 certificates were sent again (springest reconcile --repair)" in audited.out


async def test_what_is_there_twice_after_a_repair_is_doubled(tmp_path: Path) -> None:
    """Somebody brings back what was deleted, when it has been sent again."""
    async with uploaded(tmp_path) as (sandbox, manifest):
        _, deleted = found(sandbox, 1)
        remove(sandbox, 1)
        await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin)
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == Exit.STORED
        index, _ = next((i, one) for i, one in enumerate(sandbox._certificates) if one.id == deleted.id)
        sandbox._certificates[index] = deleted
        ran = await springest("reconcile", manifest, "--format", "csv", origin=sandbox.origin)
        reported = await springest("report", manifest)

    lines = list(csv.DictReader(io.StringIO(ran.out)))
    doubled = [line for line in lines if line["email"] == deleted.email]
    assert ran.code == Exit.DIFFERENT
    assert [(line["kind"], line["row"]) for line in doubled] == [("stored and shown", "2"), ("doubled", "2")]
    assert doubled[1]["listed_id"] == str(deleted.id)
    assert "1 certificate was sent again (springest reconcile --repair)" in reported.out


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"certification_id": 2}, "(other person): employee1@example.org, certification 2"),
        ({"certification_id": 2, "valid_from": date(2026, 2, 1)}, "certification 2, from 2026-02-01"),
    ],
)
async def test_what_was_moved_is_named_and_never_repaired(tmp_path: Path, changes: dict[str, Any], seen: str) -> None:
    """The lists of the manifest's certifications do not have it, but that of the person does."""
    async with uploaded(tmp_path) as (sandbox, manifest):
        change(sandbox, 1, **changes)
        commands = [("reconcile", manifest), *[("reconcile", manifest, "--repair", "--yes")] * 2]
        ran = [await springest(*arguments, origin=sandbox.origin) for arguments in commands]
        listed = await springest("reconcile", manifest, "--format", "csv", origin=sandbox.origin)
        key = found(sandbox, 1)[1].id

    assert [each.code for each in (*ran, listed)] == [Exit.DIFFERENT] * 4
    assert noted(manifest) == outcomes(stored=ROWS)
    for each in ran:
        assert "Missing in the lists: 1 certificate. Springest is asked for each once more: 1 request" in each.err
        assert "Other person (1): Springest lists these, by their ids, for another person or certification." in each.out
        assert "missing" not in each.out
        assert "--repair" not in each.out
    assert f"  row 2: id {key} is there " in ran[2].err
    assert seen in ran[2].err
    assert "Nothing is certainly missing, so nothing is sent again." in ran[2].err
    assert kinds(listed)["employee1@example.org2"] == "other person"


async def test_what_may_be_the_missing_one_is_named(tmp_path: Path) -> None:
    """Somebody has entered a certificate of the same person anew, which was created long ago as Springest tells it."""
    async with uploaded(tmp_path) as (sandbox, manifest):
        _, one = found(sandbox, 1)
        change(sandbox, 1, id=100, created_at=datetime(2020, 1, 1, tzinfo=UTC))
        ran = await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin)

    assert (ran.code, noted(manifest)) == (Exit.DIFFERENT, outcomes(stored=ROWS))
    assert f"  row 2: id {one.id} may now be id 100" in ran.err
    assert "  may be, at Springest\n" in ran.out
    assert "Nothing is sent again, because it is not certain that they are missing." in ran.out


async def test_a_new_address_at_springest_is_never_repaired(tmp_path: Path) -> None:
    """Few people are asked for one by one, and the server still takes the address that the manifest has.

    So the lists of both people miss what is there under the new address, and only those of the certifications have it.
    """
    people = ("an@example.org", "piet@example.org")
    cells = {n: {"certification_id": str((n + 1) // 2), "email": people[n % 2]} for n in range(1, 23)}
    manifest = archive(tmp_path, 22, changes=cells)
    offered = tuple(
        SandboxCertification(id=n, name=f"No. {n}", description=None, requires_valid_until=False, verified=True)
        for n in range(1, 12)
    )
    async with springest_sandbox(certifications=offered) as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == Exit.STORED
        let_minutes_pass()
        for index, one in enumerate(sandbox._certificates):
            if one.email == people[0]:
                sandbox._certificates[index] = attrs.evolve(one, email="an.new@example.org")
        shown = await springest("reconcile", manifest, origin=sandbox.origin)
        told = await springest("reconcile", manifest, "--format", "json", origin=sandbox.origin)
        repaired = await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin)
        await springest("upload", manifest, origin=sandbox.origin)

    assert (shown.code, told.code, repaired.code) == (Exit.DIFFERENT,) * 3
    assert noted(manifest) == outcomes(stored=22)
    assert len(sandbox._certificates) == 22
    assert "Asked by person" in shown.out
    assert "Not certainly missing: what Springest was asked for by person only" in shown.out
    assert "Or send them again" not in shown.out
    document = json.loads(told.out)
    assert (document["by_person"], document["counts"]["missing"]) == (True, 11)
    assert not any(one["certainly_missing"] for one in document["findings"])
    assert "Other person (11)" in repaired.out
    assert "Nothing is certainly missing, so nothing is sent again." in repaired.err


async def test_another_key_sends_nothing_again(tmp_path: Path) -> None:
    """It may be that of a sister company, to whose key Springest lists nothing of this one."""
    async with uploaded(tmp_path) as (sandbox, manifest):
        sandbox._certificates.clear()
        with connected() as connection, connection.transaction():
            connection.execute("UPDATE attempts SET budget = 'that of another key'")
        ran = await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin)
        shown = await springest("reconcile", manifest, origin=sandbox.origin)
        assert noted(manifest) == outcomes(stored=ROWS)

    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert f"{manifest} was uploaded with another API key" in ran.err
    assert shown.code == Exit.NOT_ALL
    assert "Not compared: what was sent with another API key" in shown.out
    assert "missing" not in shown.out


async def test_an_empty_list_sends_nothing_again(tmp_path: Path) -> None:
    """The certification is shown, and none of the certificates is: that is not chance, but the key, or a mistake."""
    async with uploaded(tmp_path) as (sandbox, manifest):
        sandbox._certificates.clear()
        ran = await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin)

    assert (ran.code, noted(manifest)) == (Exit.DIFFERENT, outcomes(stored=ROWS))
    assert "Not certainly missing: what is of a certification of which Springest lists none" in ran.out
    assert "Nothing is certainly missing, so nothing is sent again." in ran.err


@pytest.mark.postgresql
async def test_a_journal_in_postgresql_is_compared_and_repaired(tmp_path: Path, database: Database) -> None:
    manifest = archive(tmp_path, ROWS)
    journal = {"SPRINGEST_JOURNAL": database.url}
    async with springest_sandbox() as sandbox:
        ran = [await springest("upload", manifest, origin=sandbox.origin, **journal)]
        database.execute("UPDATE certificates SET answered_at = answered_at - 200000000")
        remove(sandbox, 1)
        ran.append(await springest("reconcile", manifest, "--repair", "--yes", origin=sandbox.origin, **journal))
        ran.append(await springest("upload", manifest, origin=sandbox.origin, **journal))
        ran.append(await springest("reconcile", manifest, origin=sandbox.origin, **journal))
        ran.append(await springest("audit", manifest, **journal))

    assert [each.code for each in ran] == [Exit.STORED, Exit.DIFFERENT, *[Exit.STORED] * 3]
    assert "Waiting again: 1 certificate." in ran[1].err
    assert "1 certificate was sent again (springest reconcile --repair)" in ran[4].out


@pytest.mark.parametrize("arguments", [["--repair"], ["--yes"]])
async def test_without_a_terminal_a_repair_needs_a_word(tmp_path: Path, arguments: list[str]) -> None:
    async with uploaded(tmp_path) as (sandbox, manifest):
        remove(sandbox, 1)
        ran = await springest("reconcile", manifest, *arguments, origin=sandbox.origin)

    assert (ran.code, noted(manifest)) == (Exit.USAGE, outcomes(stored=ROWS))


@pytest.mark.parametrize(("answer", "waiting"), [(b"y\n", 1), (b"\n", 0), (b"no\n", 0), (b"\x04", 0), (b"\x03", 0)])
async def test_a_person_is_asked_before_a_repair(tmp_path: Path, answer: bytes, waiting: int) -> None:
    """Enter, Ctrl-D and Ctrl-C change nothing."""
    async with uploaded(tmp_path) as (sandbox, manifest):
        remove(sandbox, 1)
        terminal, inside = pty.openpty()
        env = environment(sandbox.origin, TERM="xterm-256color", COLUMNS="100")
        process = await start(
            "reconcile",
            manifest,
            "--repair",
            env=env,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        shown = await until(terminal, "once more? [y/N]")
        if answer == b"\x03":
            process.send_signal(2)
        else:
            os.write(terminal, answer)
        rest = asyncio.create_task(until(terminal, None))
        ran = await end(process)
        shown += await rest
        os.close(terminal)

    assert ran.code == (Exit.INTERRUPTED if answer == b"\x03" else Exit.DIFFERENT), shown
    assert noted(manifest) == outcomes(stored=ROWS - waiting, waiting=waiting)


async def until(terminal: int, words: str | None) -> str:
    """Read what a terminal shows until it has shown these words, or until its end."""
    shown = bytearray()

    def read() -> None:
        while words is None or words not in " ".join(shown.decode(errors="replace").split()):
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # how Linux reports the end
                return
            shown.extend(piece)

    await asyncio.to_thread(read)
    return shown.decode(errors="replace")


async def test_another_host_is_not_compared(tmp_path: Path) -> None:
    async with uploaded(tmp_path) as (_, manifest):
        ran = await springest("reconcile", manifest, origin="http://127.0.0.1:9")

    assert ran.code == Exit.USAGE
    assert "not to http://127.0.0.1:9: set SPRINGEST_HOST to http://127.0.0.1:" in ran.err


async def test_a_refused_key_has_its_own_code(tmp_path: Path) -> None:
    async with uploaded(tmp_path) as (sandbox, manifest):
        ran = await springest("reconcile", manifest, origin=sandbox.origin, SPRINGEST_API_KEY="another")

    assert ran.code == Exit.KEY_REFUSED


async def test_a_changed_manifest_is_not_wholly_compared(tmp_path: Path) -> None:
    async with uploaded(tmp_path) as (sandbox, manifest):
        with manifest.open("a") as stream:
            stream.write("1.pdf,1,more@example.org,2026-01-31,,\n")
        ran = await springest("reconcile", manifest, origin=sandbox.origin)

    assert ran.code == Exit.NOT_ALL
    assert "Not compared: what has changed in the manifest since it was uploaded last." in ran.out


async def test_nothing_sent_is_nothing_to_compare(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
        with connected() as connection, connection.transaction():
            connection.execute("UPDATE manifest_rows SET certificate = NULL, state = 'waiting'")
        ran = await springest("reconcile", manifest, origin=sandbox.origin)

    assert ran.code == Exit.NOT_ALL
    assert "Nothing was sent yet, so there is nothing to compare." in ran.out
    assert ran.err == ""


async def test_ids_may_be_texts_and_filters_ignored(tmp_path: Path) -> None:
    """As far as anybody knows, a server may list so."""
    manifest = rows_of(tmp_path, 3)

    async def lists(exchange: Exchange) -> None:
        shown = [{"id": "8", "name": "First aid"}, {"id": "1", "name": "Forklift driver"}]
        fields = {"certification_id": "1", "valid_from": "2026-01-31", "created_at": datetime.now(UTC).isoformat()}
        listed = [
            {"id": "17", "user": {"email": "Employee1@example.org"}} | fields,
            {"id": "18", "user": {"email": "employee2@example.org"}} | fields,
            {"id": "19", "user": {"email": "somebody@example.org"}} | fields | {"certification_id": "8"},
        ]
        name, records = ("certificates", listed) if "/users/" in exchange.line else ("certifications", shown)
        await exchange.answer(200, json.dumps({"meta": {"results": str(len(records))}, name: records}).encode())

    async with raw_server(lists) as server, loaded(manifest, server.origin) as migration:
        await settle(migration, *[State.STORED] * 3, springest_id=17)
        await migration.journal.run(
            lambda connection: connection.execute("UPDATE certificates SET springest_id = NULL WHERE id > 1")
        )
        async with (
            Springest(api_key=KEY, host=server.origin, journal=migration.journal) as springest,
            Reconciliation(migration, springest) as comparison,
        ):
            await comparison.read_rows()
            await comparison.count_requests()
            await comparison.fetch()
            kinds = [found.kind for found in comparison.findings()]

    assert kinds == [Kind.SHOWN, Kind.SHOWN, Kind.MISSING]
    assert comparison.not_compared == []
