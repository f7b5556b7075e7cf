"""A terminal that the command writes to: nothing that servers, manifests and file systems say does anything to it."""

import asyncio
import csv
import fcntl
import io
import os
import pty
import re
import shlex
import termios
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from springest_async.bulk import COLUMNS
from springest_async.manifest.formulas import unescape
from tests.pdfs import archive
from tests.waiting import A_WHILE

from .command import environment, in_a_terminal, springest, springest_sandbox, start

# Clears the screen, resets the terminal, sets its title, and the like; feigns lines; and turns what follows around.
DOES = (
    "\x1b[2J\x1bc\x1b]0;owned\x07\x9b2J\x7f\x08\x0b"
    "\rfeigned\nfeigned\x85feigned\u2028feigned\u2029feigned\u202edeigned\u2066\u200e\u200f\u061c"
)

# What rich writes of its own: colours and a hidden cursor, and what it needs to write a line of its bar anew.
_COLOUR = re.compile(r"\x1b\[([0-9;]*m|\?25[lh])")
_ANEW = re.compile(r"\r?\x1b\[(1A|2K)")


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    """Start a Springest whose every word is hostile: one row is rejected, one in doubt, the rest are stored."""

    async def post(request: web.Request) -> web.Response:
        form = await request.post()
        assert isinstance(form["file"], web.FileField)
        form["file"].file.close()
        match form["email"]:
            case "employee1@example.org":
                return web.json_response({"errors": {"email": [f"is{DOES}"]}}, status=400)
            case "employee2@example.org":
                return web.Response(status=500, text=DOES)
        return web.json_response({"id": 1}, status=201)

    async def certificates(_: web.Request) -> web.Response:
        user = {"email": f"a{DOES}", "external_id": f"b{DOES}"}
        certificate = {"id": 1, "certification_id": 9, "name": f"c{DOES}", "status": f"=d{DOES}", "user": user}
        return web.json_response([certificate | {"valid_from": "2026-01-31", "description": DOES}])

    async def certifications(_: web.Request) -> web.Response:
        names = {1: f"a{DOES}", 2: f"=b{DOES}"}
        return web.json_response(
            [
                {"id": key, "name": name, "description": DOES, "requires_valid_until": key == 2}
                for key, name in names.items()
            ]
        )

    app = web.Application()
    app.router.add_post("/users/certificates.json", post)
    app.router.add_get("/users/certificates.json", certificates)
    app.router.add_get("/certifications.json", certifications)
    async with TestServer(app) as running:
        yield str(running.make_url("/")).rstrip("/")


def assert_harmless(shown: str) -> list[str]:
    """See that only rich moves the cursor; give the lines."""
    text = _ANEW.sub("\n", _COLOUR.sub("", shown))
    lines = re.sub("\r+\n", "\n", text).split("\n")  # a terminal adds carriage returns
    assert [line for line in lines if not line.isprintable()] == []
    return lines


def hostile_archive(folder: Path, count: int, changes: dict[int, dict[str, str]]) -> Path:
    """Make an archive whose folder, manifest, files and columns are called what a terminal would do, or rich."""
    folder = folder / f"{DOES}["  # "[/x]" ends what rich never began
    folder.mkdir()
    plain = archive(folder, count, columns=(*COLUMNS, f"naam{DOES}"), changes=changes)
    return plain.rename(folder / f"x]{DOES}.csv")


async def test_an_upload_does_nothing_to_the_terminal(tmp_path: Path, origin: str) -> None:
    manifest = hostile_archive(tmp_path, 4, changes={3: {"file": f"3{DOES}.pdf"}, 4: {f"naam{DOES}": DOES}})
    (manifest.parent / "3.pdf").rename(manifest.parent / f"3{DOES}.pdf")
    (manifest.parent / "4.pdf").write_bytes(b"\n" + (manifest.parent / "4.pdf").read_bytes())

    code, shown = await in_a_terminal("upload", manifest, env=environment(origin))

    lines = assert_harmless(shown)
    assert code == 3
    assert [line for line in lines if "row 1: these columns will not be sent: " in line]
    assert [line for line in lines if line.startswith("Not stored: 1 row.")]

    code, shown = await in_a_terminal("status", manifest, env=environment(None))
    assert_harmless(shown)
    assert (code, "employee2@ex" in shown) == (3, True)

    resolved = await springest("resolve", manifest, "--all", "--stored")
    assert resolved.code == 0
    code, shown = await in_a_terminal("status", manifest, "--watch", env=environment(None))
    assert (code, "3 stored, 1 rejected" in assert_harmless(shown)) == (1, True)

    code, shown = await in_a_terminal("resolve", manifest, "--row", "99", "--stored", env=environment(None))
    assert_harmless(shown)
    assert code == 2


async def test_faults_do_nothing_to_the_terminal(tmp_path: Path, origin: str) -> None:
    manifest = hostile_archive(
        tmp_path,
        5,
        changes={
            1: {"file": f"1{DOES}.pdf"},
            2: {"email": f"jan{DOES}"},
            3: {"valid_from": DOES},
            4: {"certification_id": f"7{DOES}"},
            5: {"certification_id": "2"},
        },
    )

    code, shown = await in_a_terminal("upload", manifest, env=environment(origin))

    lines = assert_harmless(shown)
    assert code == 2
    for row in (2, 3, 4, 5, 6):
        assert [line for line in lines if line.startswith(f"    row {row}, ")], row
    assert [line for line in lines if "Nothing was sent." in line]


@pytest.mark.parametrize("form", ["table", "csv", "json"])
@pytest.mark.parametrize("command", ["certificates", "certifications"])
async def test_a_list_does_nothing_to_the_terminal(origin: str, command: str, form: str) -> None:
    code, shown = await in_a_terminal(command, "--format", form, env=environment(origin))

    lines = assert_harmless(shown)
    assert (code, "owned" in shown) == (0, True)
    if form == "csv":
        (row, *_) = list(csv.reader(lines[1:]))
        assert not [cell for cell in row if cell.startswith("=")]


async def test_a_program_gets_each_word_as_it_is(origin: str) -> None:
    ran = await springest("certifications", "--format", "csv", origin=origin)

    rows = list(csv.DictReader(io.StringIO(ran.out, newline="")))
    assert [unescape(row["name"]) for row in rows] == [f"a{DOES}", f"=b{DOES}"]
    assert [row["name"][:2] for row in rows] == ["a\x1b", "'="]


def assert_begins_no_line(shown: str) -> None:
    """See that an error was shown, and that nothing that it quotes begins a line of it."""
    first, *others, end = assert_harmless(shown)
    assert first.startswith("springest: ")
    assert [line for line in others if not line.startswith("  ")] == []
    assert end == ""


@pytest.mark.parametrize("host", [f"http://x{DOES}.nl", f"https://x.nl/{DOES}?{DOES}"])
async def test_a_hostile_host_begins_no_line(tmp_path: Path, host: str) -> None:
    code, shown = await in_a_terminal("upload", archive(tmp_path, 1), env=environment(host))

    assert_begins_no_line(shown)
    assert code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [f"upload{DOES}"],
        ["upload", "a", f"b{DOES}"],
        ["upload", f"none{DOES}.csv"],
        ["status", "a.csv", f"--x{DOES}"],
        ["certificates", "--format", f"x{DOES}"],
    ],
    ids=lambda arguments: ascii(shlex.join(arguments))[:24],
)
async def test_hostile_arguments_begin_no_line(arguments: list[str]) -> None:
    code, shown = await in_a_terminal(*arguments, env=environment("http://127.0.0.1:9"))

    assert_begins_no_line(shown)
    assert code == 2


async def answered(question: str, keys: str, *arguments: str | Path, env: dict[str, str]) -> int:
    """Run the command in a process and a terminal of its own, press keys at a question, and return the exit code."""
    terminal, inside = pty.openpty()

    def take_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(inside, termios.TIOCSCTTY, 0)

    streams = dict.fromkeys(("stdin", "stdout", "stderr"), inside)
    process = await start(*arguments, env=env | {"TERM": "xterm"}, preexec_fn=take_the_terminal, **streams)
    os.close(inside)
    shown, loop, asked = bytearray(), asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        with suppress(OSError):  # how Linux reports the end
            shown.extend(os.read(terminal, 65536))
        if question.encode() in shown:
            asked.set()

    loop.add_reader(terminal, read)
    try:
        async with asyncio.timeout(A_WHILE):
            await asked.wait()
            os.write(terminal, keys.encode())
            return await process.wait()
    finally:
        loop.remove_reader(terminal)
        os.close(terminal)


def warned(folder: Path) -> Path:
    """Make an archive of which a check warns."""
    manifest = archive(folder, 1)
    (folder / "1.pdf").write_bytes(b"\n" + (folder / "1.pdf").read_bytes())
    return manifest


@pytest.mark.parametrize(("keys", "code", "sent"), [("\n", 0, 1), ("\x03", 130, 0)], ids=["Enter", "Ctrl-C"])
async def test_warnings_wait_for_second_thoughts(tmp_path: Path, keys: str, code: int, sent: int) -> None:
    manifest = warned(tmp_path)
    async with springest_sandbox() as sandbox:
        ended = await answered("Enter begins at once", keys, "upload", manifest, env=environment(sandbox.origin))

    assert (ended, len(sandbox.audit)) == (code, sent)


async def test_with_yes_nothing_waits(tmp_path: Path) -> None:
    manifest = warned(tmp_path)
    async with springest_sandbox() as sandbox:
        ended, shown = await in_a_terminal("upload", manifest, "--yes", env=environment(sandbox.origin))

    assert (ended, len(sandbox.audit)) == (0, 1)
    assert "Starting in" not in shown
