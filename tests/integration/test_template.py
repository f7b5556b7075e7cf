"""``springest template`` as a user has it: from a folder of PDFs to stored certificates, and no file is overwritten."""

import csv
import hashlib
import sys
import zipfile
from pathlib import Path

import openpyxl
import pytest

from tests.conftest import pdf_of

from .command import names, springest, springest_sandbox

USUAL = "{certification_id}_{email}_{valid_from}.pdf"


def folder_of(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names, start=1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pdf_of(f"No. {number}"))
    return folder


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream, delimiter=";"))


async def test_names_become_stored_certificates(tmp_path: Path) -> None:
    folder_of(tmp_path, "1_zoë@example.org_31-01-2026.pdf", "2025/1_an@example.org_05-06-2025.pdf")
    made = await springest("template", tmp_path, "--pattern", USUAL)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", tmp_path / "certificates.csv", origin=sandbox.origin)

    assert (made.code, ran.code) == (0, 0)
    assert sorted((post.fields["email"], post.fields["valid_from"]) for post in sandbox.audit) == [
        ("an@example.org", "2025-06-05"),
        ("zoë@example.org", "2026-01-31"),
    ]


async def test_names_in_a_zip_become_stored_certificates(tmp_path: Path) -> None:
    content = pdf_of("of An")
    with zipfile.ZipFile(tmp_path / "moodle.zip", "w") as archive:
        archive.writestr("VCA/1_an@example.org_2025-06-05.pdf", content)
    output = tmp_path / "moodle.xlsx"
    made = await springest("template", tmp_path / "moodle.zip", "--pattern", USUAL, "--output", output)
    async with springest_sandbox() as sandbox:
        ran = await springest("upload", output, "--files", tmp_path / "moodle.zip", origin=sandbox.origin)

    assert (made.code, ran.code) == (0, 0)
    assert [(post.fields["email"], post.sha256) for post in sandbox.audit] == [
        ("an@example.org", hashlib.sha256(content).hexdigest())
    ]


async def test_a_dutch_or_german_excel_opens_it_right(tmp_path: Path) -> None:
    folder_of(tmp_path, "1_zoë@example.org_2026-01-31.pdf", "a, b.pdf")
    await springest("template", tmp_path, "--pattern", USUAL)
    made = (tmp_path / "certificates.csv").read_bytes()

    assert made.startswith(b"\xef\xbb\xbffile;certification_id;email;valid_from;valid_until\r\n")
    assert b'"a, b.pdf";"";"";"";""\r\n' in made


async def test_a_workbook_keeps_leading_zeros(tmp_path: Path) -> None:
    folder_of(tmp_path, "00017 2026-01-31.pdf")
    ran = await springest("template", tmp_path, "--pattern", "{user_id} {valid_from}", "--output", tmp_path / "a.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx").active

    assert ran.code == 0
    assert sheet is not None
    assert list(sheet.iter_rows(values_only=True)) == [
        ("file", "certification_id", "User ID", "valid_from", "valid_until"),
        ("00017 2026-01-31.pdf", None, "00017", "2026-01-31", None),
    ]


async def test_a_workbook_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, "a.pdf")
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    monkeypatch.delitem(sys.modules, "springest_async.manifest.xlsx_rows", raising=False)
    ran = await springest("template", tmp_path, "--output", tmp_path / "a.xlsx")

    assert (ran.code, names(tmp_path)) == (2, ["a.pdf"])
    assert "a workbook needs the extra “xlsx”" in ran.err


async def test_an_empty_manifest_has_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = await springest("template")

    assert ran.code == 0
    assert rows(tmp_path / "certificates.csv") == [
        ["file", "certification_id", "email", "valid_from", "valid_until"],
        ["jan-jansen.pdf", "1", "jan.jansen@example.org", "2026-01-31", "2031-01-31"],
    ]


async def test_what_is_not_known_is_told(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"scan{number}.pdf" for number in range(5)), "1_an@example.org_05-06-2026.pdf")
    (tmp_path / "notes.txt").touch()
    two_ways = "'05/06/2026' can be read in two ways: use --dates dmy (the day first) or --dates mdy"
    ran = await springest("template", tmp_path, "--pattern", USUAL)

    assert ran.code == 0
    assert ran.err.splitlines() == [
        f"{tmp_path}/certificates.csv: 6 rows, one for each PDF.",
        "Filled in from the names: certification_id (5 empty), email (5 empty).",
        "Empty, because no name says it: valid_from, valid_until.",
        f"Names that do not fit {USUAL}: 5. Their rows have the file alone.",
        *(f"  scan{number}.pdf: there is no number where {{certification_id}} should be" for number in range(3)),
        "  … and 2 more",
        "Cells left empty, because the name does not say them for certain: 1.",
        f"  1_an@example.org_05-06-2026.pdf, valid_from: {two_ways}",
        "Left out, because they do not end in .pdf: 1 file (notes.txt).",
        f"Fill in what is empty (valid_until, where it is required), then: springest check {tmp_path}/certificates.csv",
    ]


async def test_a_manifest_elsewhere_needs_the_folder(tmp_path: Path) -> None:
    archive = folder_of(tmp_path / "my diplomas", "1_an@example.org_2026-06-05.pdf")
    output = tmp_path / "made.csv"
    ran = await springest("template", archive, "--pattern", USUAL, "--output", output)

    assert rows(output)[1][0] == "1_an@example.org_2026-06-05.pdf"
    assert f"springest check {output} --files '{archive}'" in ran.err


async def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.pdf")
    await springest("template", tmp_path)

    assert (tmp_path / "certificates.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["file", "link to nothing"])
async def test_no_file_is_overwritten(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, "a.pdf")
    output = tmp_path / "certificates.csv"
    if name == "file":
        output.write_text("mine")
    else:
        output.symlink_to(tmp_path / "nothing")
    ran = await springest("template", tmp_path)

    assert ran.code == 2
    assert ran.err == f"springest: {output} exists already: name another file with --output\n"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}", "--pattern", "certificate"], "--pattern certificate: it has no placeholder"),
        (["--pattern", "{email}"], "a pattern needs the folder of the PDFs"),
        (["{folder}/nothing"], "nothing: there is no such folder: check its name"),
        (["{folder}/empty"], "there is no PDF in"),
        (["{folder}", "--output", "{folder}/nowhere/made.csv"], "cannot be written: there is no such folder"),
        (["{folder}", "--output", "{folder}/made.ods"], "let its name end in .csv or .xlsx"),
    ],
)
async def test_what_cannot_be_made_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    folder_of(tmp_path, "a.pdf")
    (tmp_path / "empty").mkdir()
    ran = await springest("template", *(text.replace("{folder}", str(tmp_path)) for text in arguments))

    assert ran.code == 2
    assert words in ran.err
    assert not (tmp_path / "certificates.csv").exists()
