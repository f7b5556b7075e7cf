"""Uploading from a ZIP archive, by the command and over real sockets, whatever becomes of archive and process."""

import csv
import hashlib
import os
import random
import shutil
import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from springest_async import CertificateUpload, Springest
from springest_async.bulk import COLUMNS
from springest_async.sandbox import Sandbox
from tests.pdfs import certificate
from tests.waiting import until
from tests.zips import zip_of

from .command import (
    HeldSandbox,
    end,
    environment,
    let_leases_end,
    names,
    outcomes,
    posts,
    springest,
    springest_sandbox,
    start,
    stored,
    table_of,
)


def large_pdf(text: str, size: int) -> bytes:
    """Make a PDF with so many bytes more in it, which cannot be packed."""
    head, body = certificate(text).split(b"\n", 1)
    return head + b"\n%" + random.Random(text).randbytes(size).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" + body


def manifest_of(
    folder: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED, prefix: str = ""
) -> Path:
    """Write an archive, and a manifest beside it that names all of its files, after a prefix."""
    zip_of(folder / "certs.zip", members, method)
    path = folder / "certificates.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for number, name in enumerate(members, start=1):
            writer.writerow([f"{prefix}{name}", "1", f"employee{number}@example.org", "2026-01-31", "", ""])
    return path


def upload(manifest: Path) -> tuple[str | Path, ...]:
    """Return the command that uploads a manifest whose files are in the archive beside it."""
    return "upload", manifest, "--files", manifest.with_name("certs.zip")


def members(count: int) -> dict[str, bytes]:
    return {f"2025/Zoë {number}.pdf": certificate(f"No. {number}") for number in range(1, count + 1)}


def hashes(contents: Mapping[str, bytes]) -> list[str]:
    return sorted(hashlib.sha256(content).hexdigest() for content in contents.values())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("prefix", ["", "certs.zip/"], ids=["--files", "in the names"])
async def test_an_archive_is_uploaded_byte_for_byte(tmp_path: Path, method: int, prefix: str) -> None:
    contents = members(20) | {"large.pdf": large_pdf("large", 3_000_000), "1 MiB.pdf": large_pdf("MiB", 1_048_576)}
    manifest = manifest_of(tmp_path, contents, method, prefix)
    command = ("upload", manifest) if prefix else upload(manifest)
    async with springest_sandbox() as sandbox:
        ran = await springest(*command, origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=22)), ran.err
    assert stored(sandbox) == hashes(contents)
    sent = {post.fields["email"]: (post.filename, post.size) for post in sandbox.audit}
    assert sent["employee1@example.org"] == ("Zoe 1.pdf", len(contents["2025/Zoë 1.pdf"]))
    assert sent["employee21@example.org"] == ("large.pdf", len(contents["large.pdf"]))
    assert names(tmp_path) == ["certificates.csv", "certs.zip"]


async def test_a_killed_run_from_an_archive_goes_on(tmp_path: Path) -> None:
    contents = members(12)
    manifest = manifest_of(tmp_path, contents)
    async with HeldSandbox() as sandbox:
        process = await start(*upload(manifest), env=environment(sandbox.origin))
        await until(lambda: sandbox.held == 8)
        process.kill()
        await process.communicate()
        let_leases_end()
        sandbox.go_on.set()
        ran = await springest(*upload(manifest), origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=12)), ran.err
    assert stored(sandbox) == hashes(contents)


async def test_an_archive_may_be_packed_again_during_a_run(tmp_path: Path) -> None:
    contents = members(20)
    manifest = manifest_of(tmp_path, contents)
    async with HeldSandbox() as sandbox:
        process = await start(*upload(manifest), env=environment(sandbox.origin))
        await until(lambda: sandbox.held == 8)
        zip_of(tmp_path / "new.zip", {"ann.pdf": certificate("Ann")} | contents, zipfile.ZIP_STORED)
        (tmp_path / "new.zip").rename(tmp_path / "certs.zip")
        sandbox.go_on.set()
        ran = await end(process)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=20)), ran.err
    assert stored(sandbox) == hashes(contents)


async def upload_again(manifest: Path, sandbox: Sandbox) -> None:
    before = len(sandbox.audit)
    ran = await springest(*upload(manifest), origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=5)), ran.err
    assert len(sandbox.audit) == before


async def test_an_archive_that_moves_or_grows_sends_nothing_again(tmp_path: Path) -> None:
    contents = members(5)
    manifest = manifest_of(tmp_path, contents)
    async with springest_sandbox() as sandbox:
        await springest(*upload(manifest), origin=sandbox.origin)

        os.utime(tmp_path / "certs.zip", ns=(1, 1))
        await upload_again(manifest, sandbox)
        zip_of(tmp_path / "certs.zip", {"ann.pdf": certificate("Ann")} | contents, zipfile.ZIP_STORED)
        await upload_again(manifest, sandbox)
        moved = tmp_path / "another folder"
        moved.mkdir()
        for name in ("certificates.csv", "certs.zip"):
            shutil.copyfile(tmp_path / name, moved / name)
        await upload_again(moved / "certificates.csv", sandbox)
        (moved / "certs.zip").rename(moved / "x")
        with zipfile.ZipFile(moved / "x") as archive:
            archive.extractall(moved / "certs.zip")
        await upload_again(moved / "certificates.csv", sandbox)
        shutil.rmtree(moved / "certs.zip")
        await upload_again(moved / "certificates.csv", sandbox)

    assert stored(sandbox) == hashes(contents)


async def test_an_archive_on_another_machine_is_not_even_read(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = members(5)
    manifest = manifest_of(tmp_path, contents)
    async with springest_sandbox() as sandbox:
        await springest(*upload(manifest), origin=sandbox.origin)

        other = tmp_path / "other"
        shutil.copytree(state, other / "state")
        for name in ("certificates.csv", "certs.zip"):
            shutil.copyfile(tmp_path / name, other / name)  # with another time
        monkeypatch.setattr("springest_async.archives.Member.read", None)
        ran = await springest(
            *upload(other / "certificates.csv"), origin=sandbox.origin, XDG_STATE_HOME=str(other / "state")
        )

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=5)), ran.err
    assert stored(sandbox) == hashes(contents)


async def test_a_member_that_changed_is_a_new_certificate(tmp_path: Path) -> None:
    contents = members(3)
    manifest = manifest_of(tmp_path, contents)
    async with springest_sandbox() as sandbox:
        await springest(*upload(manifest), origin=sandbox.origin)
        changed = contents | {"2025/Zoë 2.pdf": certificate("No. X")}
        zip_of(tmp_path / "certs.zip", changed)
        ran = await springest(*upload(manifest), origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=3)), ran.err
    assert [post.fields["email"] for post in posts(sandbox, "stored")[3:]] == ["employee2@example.org"]


@pytest.mark.parametrize("size", [0, 3_000_000], ids=["small", "large"])
async def test_a_service_uploads_from_an_archive_once(tmp_path: Path, size: int) -> None:
    content = large_pdf("Jan", size)
    jan = CertificateUpload(
        file=zip_of(tmp_path / "certs.zip", {"jan.pdf": content}) / "jan.pdf",
        certification_id=1,
        email="jan@example.org",
        valid_from=date(2026, 1, 31),
    )
    async with (
        springest_sandbox() as sandbox,
        Springest(api_key=sandbox.api_key, host=sandbox.origin, journal=tmp_path / "x.sqlite3") as client,
    ):
        receipt, again = await client.upload(jan), await client.upload(jan)

    assert (again.id, again.stored_before) == (receipt.id, True)
    assert stored(sandbox) == [hashlib.sha256(content).hexdigest()]


async def test_what_is_wrong_in_an_archive_is_found_before_sending(tmp_path: Path) -> None:
    contents = {"1.pdf": certificate("1"), "2.pdf": large_pdf("2", 100_000), "3.docx": b"PK\x03\x04 a document"}
    manifest = manifest_of(tmp_path, contents)
    damaged = bytearray((tmp_path / "certs.zip").read_bytes())
    damaged[50_000] ^= 1
    (tmp_path / "certs.zip").write_bytes(damaged)
    with manifest.open("a", encoding="utf-8") as stream:
        stream.write("1,1,employee4@example.org,2026-01-31,,\n")
    async with springest_sandbox() as sandbox:
        ran = await springest(*upload(manifest), origin=sandbox.origin)

    assert ran.code == 2
    assert sandbox.audit == ()
    assert "is damaged in the archive: copy or download the archive again" in ran.err
    assert "is a zip file, not a PDF" in ran.err
    assert "there is '1.pdf'" in ran.err
