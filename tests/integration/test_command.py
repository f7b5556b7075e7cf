"""The command ``springest`` as a user has it: a process of its own, against a sandbox on loopback."""

import asyncio
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import stamina
import xlsxwriter
from aiohttp import web
from aiohttp.test_utils import TestServer

from springest_async import Journal
from springest_async.bulk import Manifest, load_manifest
from springest_async.journal.place import OLD_APPLICATION_ID
from springest_async.sandbox import Sandbox, SandboxCertification
from tests.pdfs import archive, hashes
from tests.waiting import A_WHILE, until

from .command import (
    KEY,
    Ran,
    assert_no_key_in,
    csvs,
    end,
    environment,
    in_a_terminal,
    journal_path,
    names,
    noted,
    outcomes,
    rows_of,
    springest,
    springest_sandbox,
    start,
    start_without_privileges,
    table_of,
    write_rows,
)

Answer = Callable[[web.Request, str], Awaitable[web.Response]]  # a request and its e-mail address to its answer


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Serve POSTs: each body is read whole, and then answered as the test says."""

    async def post(request: web.Request) -> web.Response:
        form = await request.post()
        assert isinstance(form["file"], web.FileField)
        form["file"].file.close()
        return await answer(request, str(form["email"]))

    app = web.Application()
    app.router.add_post("/users/certificates.json", post)
    async with TestServer(app, handler_cancellation=True) as running:
        yield str(running.make_url("/")).rstrip("/")


def created() -> web.Response:
    return web.json_response({"id": 1}, status=201)


# --- upload ---


async def test_an_archive_is_stored_byte_for_byte(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 12)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=12))
    assert sorted(post.sha256 for post in sandbox.audit if post.sha256) == hashes(tmp_path)
    assert {post.verdict for post in sandbox.audit} == {"stored"}
    assert "12 certificates" in ran.out
    assert re.search(r"^12 to send to http://127\.0\.0\.1:\d+\.$", ran.err, re.MULTILINE)
    assert ran.err.count(" a minute this takes ") == 1
    assert csvs(tmp_path) == ["certificates.csv"]


async def test_all_faults_of_a_manifest_are_told_and_nothing_is_sent(tmp_path: Path) -> None:
    manifest = archive(
        tmp_path,
        6,
        changes={
            1: {"email": "jan"},
            2: {"file": "none.pdf"},
            3: {"certification_id": "99"},
            4: {"certification_id": "2"},
            5: {"file": "6.pdf", "email": "employee6@example.org"},
        },
    )
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=(sandbox_origin := sandbox.origin))

    assert (ran.code, ran.out) == (2, "")
    assert sandbox.audit == ()
    lines = ran.err.splitlines()
    assert [line.strip() for line in lines if line.startswith("    row ")] == [
        "row 4, certification_id: 99 does not exist: springest certifications lists the 2 that do",
        "row 2, email: 'jan' is not an e-mail address: An email address must have an @-sign.",
        f"row 3, file: there is no such file: 'none.pdf' in {tmp_path}",
        "row 7, file: is the same certificate as in row 6",
        "row 5, valid_until: is missing, but “Forklift driver” requires it",
    ]
    assert f"Plan for {sandbox_origin}:\n          6  rows\n          5  with faults, so not sent\n" in ran.err
    assert lines[-1].startswith("5 faults in 5 rows. Nothing was sent. Correct the rows")
    assert lines[-1].endswith(f"springest check {manifest} --findings FILE.csv")
    assert csvs(tmp_path) == ["certificates.csv"]


async def test_a_row_that_cannot_be_read_hides_no_faults_before_it(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2, changes={1: {"email": "jan"}})
    with manifest.open("ab") as stream:
        stream.write(b'"never closed')
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert (ran.code, ran.out, sandbox.audit) == (2, "", ())
    assert f'{manifest}: row 4 is not valid CSV: a quote (") in it is never closed' in ran.err
    assert "row 2, email: 'jan' is not an e-mail address" in ran.err


async def test_dates_as_excel_rewrites_them_are_asked_about_and_stored(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2, changes={1: {"valid_from": "05/06/2026"}, 2: {"valid_from": "07/08/2026"}})
    async with springest_sandbox() as sandbox:
        asked = await springest("upload", manifest, origin=sandbox.origin)
        ran = await springest("upload", manifest, "--dates", "dmy", origin=sandbox.origin)

    assert (asked.code, ran.code) == (2, 0)
    assert asked.err.splitlines()[3].strip() == (
        "row 2, valid_from: '05/06/2026' can be read in two ways, and no other date of this column shows which: use"
        " --dates dmy (the day first) or --dates mdy"
    )
    assert sorted(post.fields["valid_from"] for post in sandbox.audit) == ["2026-06-05", "2026-08-07"]


async def test_a_warning_keeps_nothing_from_being_stored(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    pdf = tmp_path / "1.pdf"
    pdf.write_bytes(b"\n" + pdf.read_bytes())
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=1))
    assert "row 2, file: has other content before the PDF (%PDF-)\n" in ran.err
    assert [post.sha256 for post in sandbox.audit] == hashes(tmp_path)


async def test_a_manifest_without_rows_is_nothing_to_do(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 0)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert (ran.code, ran.out, ran.err.splitlines()[1:]) == (0, "", [f"{manifest} has no rows: nothing to do."])


async def test_names_of_certifications_without_a_list_are_one_error(tmp_path: Path) -> None:
    """Nothing is sent while nobody knows which certification is meant."""
    manifest = archive(tmp_path, 4)
    manifest.write_text(manifest.read_text().replace("certification_id", "certification").replace(",1,", ",BHV,"))
    async with springest_sandbox() as sandbox:
        without = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        wrong = await springest("upload", manifest, "--certification", "Firstaid", origin=sandbox.origin)
        assert not sandbox.audit
        origin = sandbox.origin
    with stamina.set_testing(True, attempts=2):  # without its waits
        unreachable = await springest("upload", manifest, origin=origin)

    assert "'BHV' is not an id, and there is no list of certifications to look it up: set SPRINGEST_C" in without.err
    assert "--certification Firstaid: 'Firstaid' is no certification in the list of Springest" in wrong.err
    assert "Springest cannot be reached" in unreachable.err
    assert [without.code, wrong.code] == [2, 2]
    assert not [ran for ran in (without, wrong, unreachable) if "Faults" in ran.err]


async def test_rejected_rows_can_be_mended_and_uploaded_again(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 4, changes={2: {"certification_id": "99"}, 3: {"certification_id": "2"}})
    async with springest_sandbox() as sandbox:
        # Without the other key nobody can know before the POST.
        first = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        failed = tmp_path / "certificates.failed.csv"

        assert (first.code, table_of(first.out)) == (1, outcomes(stored=2, rejected=2))
        assert "SPRINGEST_CERTIFICATIONS_API_KEY is not set, so springest does not check whether" in first.err
        way_out = f"correct the rows there, then: springest upload {failed}\n"
        assert f"Not stored: 2 rows. The reasons are in {failed}: {way_out}" in first.err
        errors = {row["file"]: row["error"] for row in rows_of(failed)}
        assert errors.keys() == {"2.pdf", "3.pdf"}
        assert "certification_id: does not exist" in errors["2.pdf"]
        assert "valid_until: can't be blank" in errors["3.pdf"]

        text = failed.read_text().replace(",99,", ",1,").replace("2026-01-31,,", "2026-01-31,2031-01-31,")
        failed.write_text(text)
        second = await springest("upload", failed, origin=sandbox.origin)

    assert (second.code, table_of(second.out)) == (0, outcomes(stored=2))
    assert failed.stat().st_mode & 0o777 == 0o600
    stored = [post.sha256 for post in sandbox.audit if post.verdict == "stored" and post.sha256]
    assert sorted(stored) == hashes(tmp_path)
    assert csvs(tmp_path) == ["certificates.csv", "certificates.failed.csv"]


async def test_a_row_in_doubt_is_kept_apart_and_told_without_the_key(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)

    async def answer(request: web.Request, email: str) -> web.Response:
        # As Rails' error pages for developers do, it shows the address with the key.
        return web.Response(status=500, text=f"oops: {request.rel_url}") if email.startswith("employee2") else created()

    async with server(answer) as origin:
        ran = await springest("upload", manifest, origin=origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
    told = await springest("status", manifest)

    assert (ran.code, table_of(ran.out)) == (3, outcomes(stored=2, in_doubt=1))
    assert "In doubt: 1 row that Springest may have stored. Run the same command again to ask it;" in ran.err
    assert (told.code, table_of(told.out)) == (3, outcomes(stored=2, in_doubt=1))
    assert "\n3    2.pdf  employee2@example.org  " in told.out
    assert "Springest could not be asked" in told.out
    assert b"oops" in journal_path().read_bytes()
    assert_no_key_in(journal_path().read_bytes())
    assert csvs(tmp_path) == ["certificates.csv"]


async def test_a_refused_key_ends_the_run_at_once(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 12)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_API_KEY="wr0ng-key")

    assert (ran.code, table_of(ran.out)) == (4, outcomes(waiting=12))
    assert "Stopped early" in ran.err
    assert "401" in ran.err
    assert "wr0ng-key" not in ran.out + ran.err
    assert sandbox.summary().posts <= 8


async def test_a_refused_certifications_key_ends_before_any_post(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=KEY)

    assert (ran.code, ran.out, sandbox.audit) == (4, "", ())
    assert re.search(r"GET http://127\.0\.0\.1:\d+/certifications\.json answered 403", ran.err)


async def test_nothing_but_loopback_is_spoken_to_without_tls(tmp_path: Path) -> None:
    ran = await springest("upload", archive(tmp_path, 1), origin="http://api.springest.nl")

    assert (ran.code, ran.out) == (2, "")
    assert "use https://api.springest.nl" in ran.err


async def test_a_manifest_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"

    ran = await springest("upload", path, origin="http://127.0.0.1:9")

    assert ran == Ran(2, "", f"springest: {path}: there is no such file: check its name and folder\n")


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        ("upload", "SPRINGEST_API_KEY", None),
        ("certificates", "SPRINGEST_API_KEY", " \n"),
        ("certifications", "SPRINGEST_CERTIFICATIONS_API_KEY", None),
    ],
    ids=["upload", "certificates, blank", "certifications"],
)
async def test_a_missing_key_is_told_by_its_name(
    tmp_path: Path, command: str, variable: str, value: str | None
) -> None:
    arguments = [archive(tmp_path, 1)] if command == "upload" else []

    ran = await springest(command, *arguments, origin="http://127.0.0.1:9", **{variable: value})

    assert (ran.code, ran.out) == (2, "")
    assert f"set {variable} to the API key" in ran.err


async def test_a_reader_who_goes_away_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """`springest upload … | true` has stored what it has stored, and tells a script so."""
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        reading, writing = os.pipe()
        os.close(reading)
        process = await start("upload", manifest, env=environment(sandbox.origin), stdout=writing)
        os.close(writing)
        ran = await end(process)

    assert sandbox.summary().stored == 2
    assert ran.code == 0


@pytest.mark.parametrize("lines", [0, 2], ids=["true", "head -2"])
@pytest.mark.parametrize("streams", [("stdout", "stderr"), ("stderr",)], ids=["both", "stderr"])
@pytest.mark.parametrize("code", [0, 3])
async def test_a_pipe_that_its_reader_closes_early_loses_no_row(
    tmp_path: Path, streams: tuple[str, ...], lines: int, code: int
) -> None:
    """`springest upload … 2>&1 | head -2`; and it ends as it would have ended without the pipe."""
    manifest = archive(tmp_path, 10)
    closed, stored = asyncio.Event(), []

    async def answer(_: web.Request, email: str) -> web.Response:
        await closed.wait()
        if code == 3 and email.startswith("employee2@"):
            return web.Response(status=500)
        stored.append(email)
        return created()

    async with server(answer) as origin:
        reading, writing = os.pipe()
        env = environment(origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        process = await start("upload", manifest, env=env, **dict.fromkeys(streams, writing))
        os.close(writing)
        with open(reading, "rb") as pipe:  # noqa: ASYNC230, PTH123 # a descriptor, read in a thread
            for _ in range(lines):
                assert await asyncio.to_thread(pipe.readline)
        closed.set()
        ran = await end(process)

    assert len(stored) == len(set(stored)) == (10 if code == 0 else 9)
    assert ran.code == code
    assert noted(manifest) == outcomes(stored=len(stored), in_doubt=10 - len(stored))
    assert csvs(tmp_path) == ["certificates.csv"]


# --- the journal ---


async def test_the_journal_may_be_elsewhere(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    journal = elsewhere / "our journal.db"
    async with springest_sandbox() as sandbox:
        runs = [await springest("upload", manifest, "--journal", journal, origin=sandbox.origin) for _ in range(2)]
    told = await springest("status", manifest, "--journal", journal)
    none = await springest("status", manifest)

    assert [(ran.code, table_of(ran.out)) for ran in runs] == [(0, outcomes(stored=2))] * 2
    assert sorted(post.sha256 or "" for post in sandbox.audit) == hashes(tmp_path)
    assert (told.code, table_of(told.out)) == (0, outcomes(stored=2))
    assert none == Ran(2, "", f"springest: {journal_path()}: there is no journal yet: springest upload makes it\n")
    assert names(elsewhere) == ["our journal.db"]
    assert names(journal_path().parent.parent) == []
    assert csvs(tmp_path) == ["certificates.csv"]


async def test_a_manifest_is_no_journal(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    before = manifest.read_bytes()
    async with springest_sandbox() as sandbox:
        told = await springest("status", manifest, "--journal", manifest)
        ran = await springest("upload", manifest, "--journal", manifest, origin=sandbox.origin)

    words = (
        f"springest: {manifest}: is not a journal of springest: move it away, or name another place with --journal or"
        " SPRINGEST_JOURNAL\n"
    )
    assert told == ran == Ran(2, "", words)
    assert manifest.read_bytes() == before
    assert sandbox.audit == ()
    assert set(names(tmp_path, "*")) == {"1.pdf", "certificates.csv"}


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entry (id)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])


def scribbled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 5000 + content[5100:])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_bytes(b"Dear diary,\n" * 100), "is not a journal of springest: move it away"),
        (foreign, "is not a journal of springest: move it away"),
        (newer, "was made by another version of springest"),
        (torn, "is damaged. Keep it: only this file says which certificates are stored. A backup"),
        (scribbled, "is damaged. Keep it: only this file says which certificates are stored. A backup"),
    ],
    ids=["a text", "another program's", "a newer version's", "torn", "scribbled on"],
)
async def test_what_is_no_sound_journal_is_told_and_left_as_it_is(
    tmp_path: Path, harm: Callable[[Path], object], words: str
) -> None:
    manifest = archive(tmp_path, 3)
    journal = journal_path()
    async with springest_sandbox() as sandbox:
        if harm is foreign:
            journal.parent.mkdir()
        else:
            async with Journal(journal) as sound:
                await load_manifest(sound, Manifest.open(manifest), sandbox.origin)
        harm(journal)
        before = journal.read_bytes()
        ran = await asyncio.gather(
            springest("upload", manifest, origin=sandbox.origin),
            springest("status", manifest),
            springest("resolve", manifest, "--all", "--send-again"),
            springest("journal", "info"),
            springest("journal", "forget", manifest),
        )

    for each in ran:
        assert (each.code, each.out) == (2, "")
        assert each.err.startswith(f"springest: {journal}: {words}")
        assert each.err.count("\n") == 1
    assert journal.read_bytes() == before
    assert sandbox.audit == ()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("1.pdf/x.sqlite3", "its folder cannot be created, because there is a file of that name"),
        ("folder", "is a folder: name a file in it with --journal or SPRINGEST_JOURNAL"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
async def test_where_there_can_be_no_journal_nothing_is_sent(
    tmp_path: Path, place: str, words: str, by_variable: bool
) -> None:
    manifest = archive(tmp_path, 1)
    (tmp_path / "folder").mkdir()
    journal = tmp_path / place
    option, variable = ((), str(journal)) if by_variable else (("--journal", journal), None)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, *option, origin=sandbox.origin, SPRINGEST_JOURNAL=variable)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"springest: {journal}: {words}")
    assert sandbox.audit == ()


async def test_without_a_state_folder_it_is_under_the_home(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    home = tmp_path / "home"
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, XDG_STATE_HOME=None, HOME=str(home))

    assert ran.code == 0
    assert (home / ".local" / "state" / "springest" / "journal.sqlite3").is_file()


async def test_without_a_home_the_ways_out_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = archive(tmp_path, 1)
    monkeypatch.setattr("springest_async.journal.place.user_state_path", lambda *_, **__: Path("~/.local/state"))
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)
        named = await springest("upload", manifest, "--journal", tmp_path / "j.sqlite3", origin=sandbox.origin)

    words = "name a file with --journal or SPRINGEST_JOURNAL, or set HOME"
    assert ran == Ran(2, "", f"springest: there is no folder where the journal can be kept: {words}\n")
    assert (named.code, len(sandbox.audit)) == (0, 1)


async def test_a_state_folder_that_cannot_be_written(tmp_path: Path, state: Path) -> None:
    manifest = archive(tmp_path, 1)
    os.chmod(state, 0o500)  # noqa: PTH101
    async with springest_sandbox() as sandbox:
        ran = await end(await start_without_privileges("upload", manifest, origin=sandbox.origin))

    assert (ran.code, ran.out, sandbox.audit) == (2, "", ())
    assert "cannot be written: check the permissions" in ran.err


async def test_a_journal_that_does_not_last_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = archive(tmp_path, 1)
    monkeypatch.setattr("springest_async.journal.place.file_system", lambda *_: "overlay")
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert ran.code == 0
    assert f"Warning: {journal_path()}: this journal goes away with the container" in ran.err


@pytest.mark.parametrize(
    "url",
    ["postgresql://anna:t0psecret@db.example/x", "postgres://db.example/x?sslmode=require&password=t0psecret"],
)
@pytest.mark.parametrize("command", ["upload", "status", "resolve", "info", "forget", "trust"])
async def test_a_password_is_refused_in_an_argument(tmp_path: Path, command: str, url: str) -> None:
    manifest = archive(tmp_path, 1)
    arguments: dict[str, list[str | Path]] = {
        "resolve": ["resolve", manifest, "--all", "--stored"],
        "info": ["journal", "info"],
        "forget": ["journal", "forget", manifest],
        "trust": ["journal", "trust"],
    }
    given = arguments.get(command, [command, manifest])
    ran = await springest(*given, "--journal", url, origin="http://127.0.0.1:9")

    assert (ran.code, ran.out) == (2, "")
    assert "put it into SPRINGEST_JOURNAL, PGPASSFILE or a service file" in ran.err
    assert "t0psecret" not in ran.err


async def test_a_password_in_the_environment_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql://anna:t0psecret@127.0.0.1:9/x"
    ran = await springest("upload", archive(tmp_path, 1), origin="http://127.0.0.1:9", SPRINGEST_JOURNAL=url)

    assert (ran.code, ran.out) == (2, "")
    assert "127.0.0.1" in ran.err
    assert "t0psecret" not in ran.err


# --- journals of an earlier form ---


def old_journal(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {OLD_APPLICATION_ID}")
        connection.execute("CREATE TABLE entry (id)")
    return path


@pytest.mark.parametrize("name", ["certificates.csv", "certificates.failed.csv", "latest.csv"])
async def test_an_old_journal_beside_the_manifest_is_told(tmp_path: Path, name: str) -> None:
    manifest = archive(tmp_path, 2)
    old = old_journal(tmp_path / "certificates.journal")
    given = tmp_path / name
    if name == "certificates.failed.csv":
        manifest.rename(given)
    elif name == "latest.csv":
        given.symlink_to(manifest)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", given, origin=sandbox.origin)

    assert (ran.code, ran.out, sandbox.audit) == (2, "", ())
    assert ran.err.startswith(f"springest: {old}: was made by an early version of springest")
    assert not journal_path().exists()


async def test_an_old_journal_as_an_argument_is_told(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    old = old_journal(tmp_path / "our.db")
    before = old.read_bytes()
    async with springest_sandbox() as sandbox:
        ran = [
            await springest("upload", manifest, "--journal", old, origin=sandbox.origin),
            await springest("status", manifest, "--journal", old),
            await springest("status", old),
            await springest("resolve", old, "--all", "--stored"),
        ]

    assert [(each.code, each.out) for each in ran] == [(2, "")] * 4
    assert all(f"{old}: was made by an early version of springest" in each.err for each in ran)
    assert sandbox.audit == ()
    assert old.read_bytes() == before


# --- one journal, many manifests ---


def renamed(manifest: Path) -> list[Path]:
    return [Path(shutil.copy(manifest, manifest.with_name("certificates (2).csv")))]


def split(manifest: Path) -> list[Path]:
    header, *lines = manifest.read_text().splitlines()
    parts = [manifest.with_name(f"part{number}.csv") for number in (1, 2)]
    for part, some in zip(parts, (lines[:2], lines[2:]), strict=True):
        part.write_text("\n".join([header, *some, ""]))
    return parts


def linked(manifest: Path) -> list[Path]:
    link = manifest.with_name("latest.csv")
    link.symlink_to(manifest)
    return [link]


def copied(manifest: Path) -> list[Path]:
    return [Path(shutil.copytree(manifest.parent, manifest.parent.with_name("copy"))) / manifest.name]


def sorted_anew(manifest: Path) -> list[Path]:
    header, *lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([header, *reversed(lines), ""]))
    return [manifest]


@pytest.mark.parametrize("change", [renamed, split, linked, copied, sorted_anew], ids=lambda change: change.__name__)
async def test_another_manifest_stores_nothing_twice(tmp_path: Path, change: Callable[[Path], list[Path]]) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    manifest = archive(folder, 4)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        before = hashes(folder)
        again = [await springest("upload", each, origin=sandbox.origin) for each in change(manifest)]

    assert sorted(post.sha256 or "" for post in sandbox.audit) == before
    assert [ran.code for ran in again] == [0] * len(again)
    assert sum(table_of(ran.out)["stored"] for ran in again) == 4
    assert all(re.search(r"^Nothing was sent: [24] stored before$", ran.out, re.MULTILINE) for ran in again)


async def test_a_renamed_archive_stores_nothing_twice(tmp_path: Path) -> None:
    """Other names of PDFs and of the manifest, in another folder: only the content is the same."""
    manifest = archive(tmp_path, 3)
    other = tmp_path / "other"
    other.mkdir()
    for number in (1, 2, 3):
        (other / f"scan {number}.pdf").write_bytes((tmp_path / f"{number}.pdf").read_bytes())
    (other / "scans.csv").write_text(re.sub(r"^(\d)\.pdf", r"scan \1.pdf", manifest.read_text(), flags=re.MULTILINE))
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        again = await springest("upload", other / "scans.csv", origin=sandbox.origin)

    assert (again.code, table_of(again.out)) == (0, outcomes(stored=3))
    assert "Nothing was sent: 3 stored before\n" in again.out
    assert len(sandbox.audit) == 3


# --- status, resolve and the journal itself ---


async def test_status_lists_all_migrations(tmp_path: Path) -> None:
    folders = [tmp_path / "2024", tmp_path / "2025"]
    for folder in folders:
        folder.mkdir()
    manifests = [archive(folders[0], 2), archive(folders[1], 3, changes={3: {"certification_id": "99"}})]
    manifests[1] = manifests[1].rename(folders[1] / "later.csv")
    async with springest_sandbox() as sandbox:
        for manifest in manifests:
            await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        origin = sandbox.origin
        told = await springest("status")

    assert (told.code, told.err) == (0, "")
    first, second = [line for line in told.out.splitlines() if ".csv" in line]
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.search(rf"later\.csv +{origin} +done +2 of 3 +1 rejected +{at}", first)
    assert re.search(rf"certificates\.csv +{origin} +done +2 of 2 +{at}", second)


async def test_status_of_nothing_makes_no_journal(tmp_path: Path, state: Path) -> None:
    manifest = archive(tmp_path, 1)
    told = [
        await springest("status"),
        await springest("status", manifest),
        await springest("resolve", manifest, "--all", "--stored"),
        await springest("journal", "info"),
        await springest("journal", "forget", manifest),
    ]

    words = f"springest: {journal_path()}: there is no journal yet: springest upload makes it\n"
    assert told == [Ran(2, "", words)] * 5
    assert names(state, "*") == []


@pytest.mark.parametrize("change", ["moved", "renamed", "edited", "gone"])
async def test_status_finds_a_manifest_that_has_changed(tmp_path: Path, change: str) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        match change:
            case "moved":
                (tmp_path / "elsewhere").mkdir()
                manifest = manifest.rename(tmp_path / "elsewhere" / "x.csv")
            case "renamed":
                manifest = manifest.rename(tmp_path / "x.csv")
            case "edited":
                manifest.write_text(manifest.read_text() + "\n")
            case "gone":
                manifest.unlink()
        told = await springest("status", manifest)

    assert (told.code, table_of(told.out), told.err) == (0, outcomes(stored=2), "")


async def test_status_of_an_unknown_manifest_is_told(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
    told = await springest("status", tmp_path / "other.csv")

    assert (told.code, told.out) == (2, "")
    assert f"{tmp_path / 'other.csv'}: nothing of this manifest is in the journal {journal_path()}" in told.err


async def test_a_manifest_of_two_hosts_needs_the_host(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)
    async with springest_sandbox() as one, springest_sandbox() as two:
        for sandbox in (one, two):
            assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        told = [await springest("status", manifest, origin=origin) for origin in (None, one.origin, two.origin)]

    assert [each.code for each in told] == [2, 0, 0]
    assert "set SPRINGEST_HOST to the one that you mean" in told[0].err
    assert len(one.audit) == len(two.audit) == 2  # each host has its own certificates


async def test_the_journal_shows_where_it_is_and_what_it_holds(tmp_path: Path) -> None:
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", archive(tmp_path, 3), origin=sandbox.origin)).code == 0
    told = await springest("journal", "info")

    assert (told.code, told.err) == (0, "")
    for words in (rf"{re.escape(str(journal_path()))}", "SQLite", r"\d+\.\d MB|\d+ kB"):
        assert re.search(words, told.out)
    assert re.search(r"certificates +3\n", told.out)
    assert re.search(r"migrations +1\n", told.out)
    assert re.search(r"oldest sent \(UTC\) +\d{4}-\d\d-\d\d", told.out)


async def test_forgetting_keeps_what_prevents_a_second_send(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        forgot = await springest("journal", "forget", manifest)
        content = b"".join(path.read_bytes() for path in journal_path().parent.iterdir())
        gone = await springest("status", manifest)
        again = await springest("upload", manifest, origin=sandbox.origin)

    assert (forgot.code, forgot.err) == (0, "")
    assert forgot.out.startswith("Erased from 3 certificates and 1 migration what identifies people.")
    assert not {found for found in (b"employee", b".pdf", b"certificates.csv") if found in content}
    assert gone.code == 2
    assert (again.code, table_of(again.out)) == (0, outcomes(stored=3))
    assert "Nothing was sent: 3 stored before\n" in again.out
    assert len(sandbox.audit) == 3


async def test_what_is_not_finished_is_not_forgotten(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 2)

    async def answer(_: web.Request, email: str) -> web.Response:
        return web.Response(status=500) if email.startswith("employee2") else created()

    async with server(answer) as origin:
        await springest("upload", manifest, origin=origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
    ran = [
        await springest("journal", "forget", manifest),
        await springest("journal", "forget", "--email", "Employee2@example.org"),
        await springest("journal", "forget", "--older-than", "0d"),
    ]

    assert [each.code for each in ran] == [2, 2, 1]
    assert "1 row waits or is in doubt in certificates.csv: finish it first" in ran[0].err
    assert "Nothing was erased." in ran[0].err
    assert "Nothing was erased." in ran[1].err
    assert "Kept: certificates.csv, because rows of it wait or are in doubt." in ran[2].out
    assert noted(manifest) == outcomes(stored=1, in_doubt=1)


async def test_one_person_is_forgotten(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        forgot = await springest("journal", "forget", "--email", "EMPLOYEE2@example.org")
        content = b"".join(path.read_bytes() for path in journal_path().parent.iterdir())
        again = await springest("upload", manifest, origin=sandbox.origin)

    assert (forgot.code, forgot.out[:25]) == (0, "Erased from 1 certificate")
    assert b"employee2@" not in content
    assert b"employee3@" in content
    assert again.code == 0
    assert len(sandbox.audit) == 3


@pytest.mark.parametrize("options", [[], ["x.csv", "--older-than", "1y"], ["--older-than", "a year"]], ids=" ".join)
async def test_forgetting_needs_one_thing_to_forget(options: list[str]) -> None:
    ran = await springest("journal", "forget", *options)

    assert (ran.code, ran.out) == (2, "")
    assert "--older-than" in ran.err


async def test_a_file_needs_no_trust(tmp_path: Path) -> None:
    ran = await springest("journal", "trust", "--journal", tmp_path / "j.sqlite3")

    assert (ran.code, ran.out) == (2, "")
    assert "only a journal in PostgreSQL can be on another server than before" in ran.err
    assert names(tmp_path, "*") == []


@pytest.mark.soak
async def test_the_demo_leaves_nothing_in_the_journal_of_the_user(tmp_path: Path, state: Path) -> None:
    process = await start("demo", env=environment(None, TMPDIR=str(tmp_path), HOME=str(tmp_path / "home")))
    ran = await end(process, within=150)

    assert ran.code == 0, ran.out + ran.err
    assert table_of(ran.out)["stored"] == 45
    assert " NO " not in ran.out
    assert names(tmp_path, "*") == []
    assert names(state, "*") == []


# --- lists, interrupted ---


async def test_ctrl_c_during_a_list_is_no_traceback() -> None:
    asked = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/users/certificates.json", never)
    async with TestServer(app, handler_cancellation=True) as running:
        process = await start("certificates", env=environment(str(running.make_url("/"))))
        await asyncio.wait_for(asked.wait(), A_WHILE)
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert (ran.code, ran.out) == (130, "")


async def test_a_wrong_key_costs_one_post(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 20)
    async with springest_sandbox() as sandbox:
        env = {"SPRINGEST_API_KEY": "another-key", "SPRINGEST_CERTIFICATIONS_API_KEY": None}
        ran = await springest("upload", manifest, origin=sandbox.origin, **env)

    assert (ran.code, table_of(ran.out)) == (4, outcomes(waiting=20))
    assert ran.err.endswith("Waiting: 20 rows. Set the right key, then run the same command again to continue.\n")
    assert ": 1 POST tried," in ran.out
    assert len(sandbox.audit) == 1


async def test_the_reasons_of_rejected_rows_are_shown(tmp_path: Path) -> None:
    """As the server said them, the most frequent ones first."""
    wrong: dict[int, dict[str, str]] = {2: {"certification_id": "99"}, 3: {"certification_id": "99"}}
    manifest = archive(tmp_path, 6, changes=wrong | {4: {"certification_id": "2"}})
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)

    assert (ran.code, table_of(ran.out)) == (1, outcomes(stored=3, rejected=3))
    reasons = re.findall(r"^(\d rows?) rejected: (.+)$", ran.err, re.MULTILINE)
    assert [rows for rows, _ in reasons] == ["2 rows", "1 row"]
    assert not any("POST" in words for _, words in reasons)


# --- upload, in a terminal ---


async def test_in_a_terminal_a_display_tells_how_far_it_is(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 10)

    shown = bytearray()

    def read() -> str:
        # What colours and moves is not looked at; the last character may be there in part.
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="ignore"))

    async def answer(_: web.Request, email: str) -> web.Response:
        if email.startswith("employee10@"):
            await until(lambda: re.search(r"━ 9 of 10, 90 %\s+9 stored, 1 being sent\s", read()) is not None)
            await until(lambda: re.search(r"Sending: row 11 \(\d s, 10\.pdf\)\s", read()) is not None)
        return created()

    async with server(answer) as origin:
        env = environment(origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        code, _ = await in_a_terminal("upload", manifest, env=env, shown=shown)

    assert code == 0
    assert re.search(r"━ 10 of 10, 100 %\s+10 stored\s", read())
    assert table_of(read()) == outcomes(stored=10)


# --- lists ---

CERTIFICATIONS = (
    SandboxCertification(id=1, name="First aid", description="twee\nregels; [bold]"),
    SandboxCertification(id=2, name="Vorkheftruck: “Zoë”", requires_valid_until=True),
)


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Return a sandbox that lists three certificates of three employees."""
    manifest = archive(tmp_path, 3, changes={3: {"certification_id": "2", "valid_until": "2031-01-31"}})
    async with springest_sandbox(certifications=CERTIFICATIONS) as sandbox:
        assert (await springest("upload", manifest, origin=sandbox.origin)).code == 0
        yield sandbox


async def test_certificates_are_listed_in_each_format(filled: Sandbox) -> None:
    table, plain, spreadsheet = await asyncio.gather(
        springest("certificates", origin=filled.origin),
        springest("certificates", "--format", "json", origin=filled.origin),
        springest("certificates", "--format", "csv", origin=filled.origin),
    )

    employees = {f"employee{number}@example.org" for number in (1, 2, 3)}
    assert [(ran.code, ran.err) for ran in (table, plain, spreadsheet)] == [(0, "")] * 3
    assert all(employee in table.out for employee in employees)
    records = json.loads(plain.out)
    assert {record["user"]["email"] for record in records} == employees
    assert {record["valid_until"] for record in records} == {None, "2031-01-31"}
    rows = list(csv.DictReader(io.StringIO(spreadsheet.out, newline="")))
    assert {row["user_email"] for row in rows} == employees
    assert [row["id"] for row in rows] == [str(record["id"]) for record in records]


async def test_certificates_can_be_chosen(filled: Sandbox) -> None:
    one, two, none = await asyncio.gather(
        springest("certificates", "--email", "employee2@example.org", "--format", "json", origin=filled.origin),
        springest("certificates", "--certification-id", "2", "--format", "json", origin=filled.origin),
        springest("certificates", "--created-from", "2999-12-31", "--format", "json", origin=filled.origin),
    )

    assert [record["user"]["email"] for record in json.loads(one.out)] == ["employee2@example.org"]
    assert [record["user"]["email"] for record in json.loads(two.out)] == ["employee3@example.org"]
    assert json.loads(none.out) == []


async def test_certifications_are_listed_in_each_format_with_their_key() -> None:
    async with springest_sandbox(certifications=CERTIFICATIONS) as sandbox:
        table, plain, spreadsheet, named = await asyncio.gather(
            *(
                springest("certifications", *options, origin=sandbox.origin, SPRINGEST_API_KEY=None)
                for options in ([], ["--format", "json"], ["--format=csv"], ["--name", "First aid", "--format", "csv"])
            )
        )

    assert [(ran.code, ran.err) for ran in (table, plain, spreadsheet, named)] == [(0, "")] * 4
    assert "Vorkheftruck: “Zoë”" in table.out
    assert "[bold]" in table.out
    assert json.loads(plain.out) == [
        {"id": 1, "name": "First aid", "description": "twee\nregels; [bold]", "requires_valid_until": False},
        {"id": 2, "name": "Vorkheftruck: “Zoë”", "description": None, "requires_valid_until": True},
    ]
    assert list(csv.reader(io.StringIO(spreadsheet.out, newline="")))[2] == ["2", "Vorkheftruck: “Zoë”", "", "True"]
    assert [row["id"] for row in csv.DictReader(io.StringIO(named.out, newline=""))] == ["1"]


@pytest.mark.parametrize("form", ["json", "csv", "table"])
async def test_a_reader_who_has_seen_enough_is_no_error(form: str) -> None:
    """As `| head -1` is. What is listed is more than a pipe holds."""
    certifications = [SandboxCertification(id=number, name="n" * 100) for number in range(1, 2001)]
    async with springest_sandbox(certifications=certifications) as sandbox:
        reading, writing = os.pipe()
        process = await start("certifications", "--format", form, env=environment(sandbox.origin), stdout=writing)
        os.close(writing)
        await asyncio.to_thread(os.read, reading, 10)
        os.close(reading)
        ran = await end(process)

    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("form", ["json", "table"])
async def test_a_reader_who_never_came_is_no_error(form: str) -> None:
    async with springest_sandbox() as sandbox:
        reading, writing = os.pipe()
        os.close(reading)
        process = await start("certifications", "--format", form, env=environment(sandbox.origin), stdout=writing)
        os.close(writing)
        ran = await end(process)

    assert (ran.code, ran.err) == (0, "")


# --- a terminal that knows no UTF-8 ---


async def test_data_for_programs_is_utf_8_whatever_the_terminal_is(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    async with springest_sandbox(certifications=[SandboxCertification(id=1, name="René €")]) as sandbox:
        uploaded = await springest("upload", manifest, origin=sandbox.origin, PYTHONIOENCODING="ascii")
        spreadsheet, plain, table = await asyncio.gather(
            *(
                springest("certificates", "--format", form, origin=sandbox.origin, PYTHONIOENCODING="ascii")
                for form in ("csv", "json", "table")
            )
        )

    assert uploaded.code == 0
    assert re.search(r"\nstored +1\n", uploaded.out)
    assert [(ran.code, ran.err) for ran in (spreadsheet, plain, table)] == [(0, "")] * 3
    assert [row["name"] for row in csv.DictReader(io.StringIO(spreadsheet.out, newline=""))] == ["René €"]
    assert "René €" in plain.out
    assert "Ren? ?" in table.out


async def test_half_a_character_from_the_server_is_no_traceback() -> None:
    """JSON can say half a surrogate pair, which no encoding can."""

    async def page(_: web.Request) -> web.Response:
        text = '[{"id": 1, "name": "Ren\\ud800", "description": null, "requires_valid_until": false}]'
        return web.Response(text=text, content_type="application/json")

    app = web.Application()
    app.router.add_get("/certifications.json", page)
    async with TestServer(app) as running:
        for form in ("csv", "json", "table"):
            ran = await springest("certifications", "--format", form, origin=str(running.make_url("/")))
            assert (ran.code, ran.err) == (0, ""), form
            assert "Ren\ufffd" in ran.out


@pytest.mark.parametrize("arguments", [["--help"], ["upload", "--help"], ["certificates", "--help"]], ids=" ".join)
async def test_help_can_be_read_in_ascii(arguments: list[str]) -> None:
    ran = await springest(*arguments, PYTHONIOENCODING="ascii")

    assert (ran.code, ran.err) == (0, "")
    assert "Usage" in ran.out


# --- help and usage ---


@pytest.mark.parametrize(
    "command",
    [
        *("upload", "status", "report", "resolve", "certificates", "certifications", "sandbox", "demo", "bench"),
        *("journal info", "journal forget", "journal trust"),
    ],
)
async def test_the_help_of_each_command_has_an_example(command: str) -> None:
    ran = await springest(*command.split(), "--help")

    assert (ran.code, ran.err) == (0, "")
    assert re.search(rf"(Example:|•) springest {command}\b", ran.out)


async def test_the_help_explains_itself() -> None:
    ran = await springest("--help")

    assert (ran.code, ran.err) == (0, "")
    for words in (
        "SPRINGEST_API_KEY",
        "SPRINGEST_CERTIFICATIONS_API_KEY",
        "SPRINGEST_HOST",
        "springest upload certificates.csv",
        "springest status certificates.csv",
        "SPRINGEST_JOURNAL",
        "3 some rows in doubt",
        "5 stopped as asked",
        "130 interrupted",
    ):
        assert words in " ".join(ran.out.split())


async def test_the_help_of_check_is_enough_for_a_newcomer() -> None:
    shown = " ".join((await springest("check", "--help")).out.split())
    for words in (
        "SPRINGEST_HOST",
        "nl (the default)",
        "certs.zip/2025",
        "'springest-async[cli,xlsx]'",
        "certifications.csv",
    ):
        assert words in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["upload"],
        ["upload", "--api-key", "x", "a.csv"],
        ["certificates", "--format", "xlsx"],
        ["certificates", "--created-from", "yesterday"],
        ["frobnicate"],
        ["resolve", "a.csv", "--row", "two", "--stored"],
        ["resolve", "a.csv", "--no-stored", "--all"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_told_on_stderr(arguments: list[str]) -> None:
    ran = await springest(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.strip()


# --- sandbox ---


async def test_the_sandbox_serves_until_ctrl_c_and_tells_what_came_in(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    process = await start("sandbox", "--port", "0", "--limit", "7", "--window", "fixed", env=environment(None))
    assert process.stdout is not None
    exports: dict[str, str | None] = {}
    async with asyncio.timeout(A_WHILE):
        while len(exports) < 3:
            line = (await process.stdout.readline()).decode()
            assert line, "it ended before it told how to use it"
            if found := re.fullmatch(r"export (\w+)=(.+)\n", line):
                exports[found[1]] = found[2]
    assert exports.keys() == {"SPRINGEST_HOST", "SPRINGEST_API_KEY", "SPRINGEST_CERTIFICATIONS_API_KEY"}

    uploaded = await springest("upload", manifest, **exports)
    listed = await springest("certificates", "--format", "json", **exports)
    process.send_signal(signal.SIGINT)
    ran = await end(process)

    assert (uploaded.code, len(json.loads(listed.out))) == (0, 3)
    assert ran.code == 0
    assert ran.out.endswith("3 POSTs, 3 stored, 0 refused (0 for speed), at most 3 in any 60 s\n")


@pytest.mark.parametrize("option", [["--port", "70000"], ["--limit", "0"]], ids=" ".join)
async def test_a_sandbox_that_cannot_be_is_wrong_usage(option: list[str]) -> None:
    ran = await springest("sandbox", *option)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.strip()


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = await springest("sandbox", "--port", port)

    assert (ran.code, ran.out) == (2, "")
    assert port in ran.err


# --- rows that are left out, and manifests of other forms ---


async def test_one_missing_pdf_holds_back_nothing_else(tmp_path: Path) -> None:
    changes = {2: {"file": "none.pdf"}, 3: {"email": "jan"}}
    manifest = archive(tmp_path, 4, changes=changes)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", manifest, "--skip-faulty", origin=sandbox.origin)
        again = await springest("upload", manifest, "--skip-faulty", origin=sandbox.origin)
        status = await springest("status", manifest, origin=sandbox.origin)
        report = await springest("report", manifest, origin=sandbox.origin)
        compared = await springest("reconcile", manifest, origin=sandbox.origin)

    assert (ran.code, again.code) == (1, 1)
    assert (status.code, report.code, compared.code) == (1, 1, 1)
    for shown in (status, report, compared):
        assert "\n1 row of the manifest has faults and was left out (--skip-faulty): see springest check" in shown.out
    assert "          2  with faults, so not sent\n          2  to send" in ran.err
    assert "Left out: 1 row with faults\n" in ran.out
    assert "Also tried, because only their files are at fault: 1 row.\n3 to send to" in ran.err
    assert sorted(post.fields["email"] for post in sandbox.audit) == ["employee1@example.org", "employee4@example.org"]
    failed = rows_of(tmp_path / "certificates.failed.csv")
    assert [row["email"] for row in failed] == ["employee2@example.org", "jan"]
    assert failed[0]["error"].startswith("file: there is no such file: 'none.pdf'")
    assert failed[1]["error"].startswith("email: 'jan' is not an e-mail address")
    assert csvs(tmp_path) == ["certificates.csv", "certificates.failed.csv"]


async def test_what_springest_lists_is_left_out_when_asked(tmp_path: Path) -> None:
    """Somebody has entered two of the certificates by hand, with another journal or none."""
    manifest = archive(tmp_path, 4)
    async with springest_sandbox() as sandbox:
        by_hand = write_rows(tmp_path / "by hand.csv", rows_of(manifest)[:2])
        first = await springest("upload", by_hand, "--journal", tmp_path / "other.sqlite3", origin=sandbox.origin)
        ran = await springest("upload", manifest, "--skip-listed", origin=sandbox.origin)

    assert (first.code, ran.code) == (0, 0)
    assert [post.fields["email"] for post in sandbox.audit] == [f"employee{n}@example.org" for n in (1, 2, 3, 4)]


async def test_the_same_manifest_is_read_with_other_options(tmp_path: Path) -> None:
    """What was sent is not sent again, and `status` finds it by its bytes wherever it lies."""
    manifest = archive(tmp_path, 2, changes={2: {"valid_from": "05/06/2026"}})
    async with springest_sandbox() as sandbox:
        first = await springest("upload", manifest, "--dates", "dmy", origin=sandbox.origin)
        again = await springest("upload", manifest, "--dates", "mdy", "--yes", origin=sandbox.origin)
        moved = manifest.rename(tmp_path / "renamed.csv")
        status = await springest("status", moved, origin=sandbox.origin)

    assert (first.code, again.code, status.code) == (0, 0, 0)
    dates = sorted((post.fields["email"], post.fields["valid_from"]) for post in sandbox.audit)
    assert dates == [
        ("employee1@example.org", "2026-01-31"),
        ("employee2@example.org", "2026-05-06"),
        ("employee2@example.org", "2026-06-05"),
    ]


async def test_printed_command_reads_the_failed_rows(tmp_path: Path) -> None:
    """With the options that their manifest needed, and its names of columns."""
    archive(tmp_path, 2)
    rows = [
        ("Bewijs", "Adres", "certification_id", "valid_from"),
        ("1", "employee1@example.org", "1", "31-01-2026"),
        ("2", "jan", "1", "31-01-2026"),
    ]
    with xlsxwriter.Workbook(manifest := tmp_path / "lijst 2026.xlsx") as workbook:
        workbook.add_worksheet("Uitleg").write(0, 0, "Lees dit")
        sheet = workbook.add_worksheet("Alle rijen")
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    options = ["--map", "file={Bewijs}.pdf", "--map", "email=Adres", "--journal", str(tmp_path / "other.sqlite3")]
    async with springest_sandbox() as sandbox:
        sheet_option = ("--sheet", "Alle rijen")
        ran = await springest("upload", manifest, *sheet_option, "--skip-faulty", *options, origin=sandbox.origin)
        printed = shlex.split(ran.err.rpartition("then: ")[2])
        again = await springest(*printed[1:], origin=sandbox.origin)

    assert (ran.code, len(sandbox.audit)) == (1, 1)
    assert printed == ["springest", "upload", str(tmp_path / "lijst 2026.failed.xlsx"), *options]
    assert again.code == 2
    assert "row 2, Adres: 'jan' is not an e-mail address" in again.err
