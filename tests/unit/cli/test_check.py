"""What ``springest check`` prints, and which exit code it has; without a network."""

import io
import json
import re
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from springest_async.cli.check import CheckOptions, check
from springest_async.cli.exit_codes import Exit
from springest_async.cli.reading import ReadingOptions
from springest_async.errors import ConfigurationError, ManifestError
from tests.pdfs import certificate

HEADER = "file,certification_id,email,valid_from,valid_until\n"
AMSTERDAM = timezone(timedelta(hours=1))

AS_IT_IS = ReadingOptions()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("API_KEY", "CERTIFICATIONS_API_KEY", "HOST"):
        monkeypatch.delenv(f"SPRINGEST_{name}", raising=False)
    monkeypatch.setenv("SPRINGEST_JOURNAL", str(tmp_path / "state" / "journal.sqlite3"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (folder := tmp_path / "archive").mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.pdf").write_bytes(certificate(name))
    return folder


async def checked(manifest: Path, **options: Any) -> tuple[Exit, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = await check(
        manifest, ReadingOptions(), CheckOptions(**options), Console(file=out, width=200), Console(file=err)
    )
    return code, out.getvalue(), err.getvalue()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write(folder: Path, *rows: str) -> Path:
    (path := folder / "certificates.csv").write_text(HEADER + "\n".join(rows))
    return path


async def test_a_good_manifest_needs_no_key_and_makes_no_journal(archive: Path, tmp_path: Path) -> None:
    code, out, err = await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,2027-01-31"))
    assert code == Exit.STORED
    assert out.startswith(f"{archive / 'certificates.csv'} is read as CSV in UTF-8, separated by “,”")
    assert "certificates.csv: nothing to correct.\n" in out
    assert "Not checked: whether the certifications exist, and which of them require valid_until" in out
    assert f"Nothing was sent. To send the rows: springest upload {archive / 'certificates.csv'}" in out
    assert err == ""
    assert names(tmp_path) == ["archive"]


async def test_faults_have_exit_code_2_and_a_way_out(archive: Path) -> None:
    code, out, _ = await checked(
        write(archive, "c.pdf,7,jan@example.org,2026-01-31,", "a.pdf,7,an@example.org,2026-01-31,")
    )
    assert code == Exit.USAGE
    assert "1 fault in 1 row." in out
    assert "row 2, file: there is no such file: 'c.pdf'" in out
    assert "--skip-faulty" in out


@pytest.mark.parametrize(("strict", "code"), [(False, Exit.STORED), (True, Exit.USAGE)])
async def test_warnings_are_faults_if_asked_for(archive: Path, strict: bool, code: Exit) -> None:
    manifest = write(archive, "a.pdf,7,jan@example.org,2026-01-31,2025-01-31")
    assert (await checked(manifest, strict=strict))[0] == code


async def test_findings_are_written_as_the_manifest_is(archive: Path) -> None:
    manifest = write(archive, "c.pdf,7,jan,2026-01-31,")
    code, _, err = await checked(manifest, findings=archive / "findings.csv")
    assert code == Exit.USAGE
    assert err == f"All findings are in {archive / 'findings.csv'}.\n"
    lines = (archive / "findings.csv").read_text("utf-8-sig").splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["2", "email", "fault", "email"],
        ["2", "file", "fault", "no-file"],
    ]


async def test_another_file_is_refused_before_the_check(archive: Path) -> None:
    manifest = write(archive, "c.pdf,7,jan,2026-01-31,")
    with pytest.raises(ConfigurationError, match="something else"):
        await checked(manifest, findings=manifest)


async def test_json_is_one_document(archive: Path) -> None:
    manifest = write(archive, "a.pdf,7,jan@example.org,2026-01-31,", "c.pdf,7,an@example.org,2026-01-31,")
    code, out, _ = await checked(manifest, form="json")
    document = json.loads(out)
    assert code == Exit.USAGE
    assert (document["faults"], document["warnings"], document["notes"]) == (1, 0, 0)
    assert document["findings"][0]["kind"] == "no-file"
    names = ("rows", "to_send", "stored_before", "listed", "faulty")
    assert [document["plan"][name] for name in names] == [2, 1, 0, None, 1]
    assert document["plan"]["certifications"][0]["rows"] == 1


async def test_what_was_found_before_a_broken_row_is_shown(archive: Path) -> None:
    manifest = write(archive, "c.pdf,7,jan,2026-01-31,", f'a.pdf,7,"{"a" * 200_000}",2026-01-31,')
    out = io.StringIO()
    with pytest.raises(ManifestError):
        await check(
            manifest, ReadingOptions(), CheckOptions(), Console(file=out, width=200), Console(file=io.StringIO())
        )
    assert "row 2, email: 'jan' is not an e-mail address" in out.getvalue()


async def test_a_broken_row_does_not_mean_nothing_to_correct(archive: Path) -> None:
    manifest = write(archive, f'a.pdf,7,"{"a" * 200_000}",2026-01-31,')
    out, err = io.StringIO(), io.StringIO()
    options = CheckOptions(findings=archive / "findings.csv")
    with pytest.raises(ManifestError):
        await check(manifest, ReadingOptions(), options, Console(file=out, width=200), Console(file=err))
    assert ("nothing to correct" in out.getvalue(), err.getvalue()) == (False, "")
    assert "findings.csv" not in names(archive)


async def test_lists_cannot_be_asked_for_without_a_key(archive: Path) -> None:
    with pytest.raises(ConfigurationError, match="set SPRINGEST_API_KEY"):
        await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,"), skip_listed=True)


async def test_a_journal_that_cannot_be_read_is_told(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (broken := tmp_path / "broken.sqlite3").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("SPRINGEST_JOURNAL", str(broken))
    code, out, _ = await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,"))
    assert code == Exit.STORED
    assert "Not checked: which rows were stored before: the journal cannot be read" in out


async def test_a_journal_that_is_named_must_exist_to_be_asked(archive: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "typing-error.sqlite3")
    code, out, _ = await checked(write(archive, "a.pdf,7,jan@example.org,2026-01-31,"), journal=where)
    assert code == Exit.STORED
    assert f"Not checked: which rows were stored before: there is no journal in {where}." in out
    assert names(tmp_path) == ["archive"]


async def test_printed_command_has_the_options_of_the_check(archive: Path) -> None:
    (manifest := archive / "certificates.csv").write_text(
        "Bewijs,certification,mail,valid_from\na,7,jan@example.org,01/02/2026\n"
    )
    reading = ReadingOptions(dates="dmy", columns=("file={Bewijs}.pdf",), files=archive, fix_names=True)
    out = io.StringIO()
    await check(manifest, reading, CheckOptions(), Console(file=out, width=200), Console(file=io.StringIO()))
    command = f"springest upload {manifest} --files {archive} --dates dmy --map 'file={{Bewijs}}.pdf' --fix-names\n"
    assert command in out.getvalue()


async def test_a_list_beside_the_manifest_names_certifications(archive: Path) -> None:
    (archive / "certifications.csv").write_text("ID,Name,Requires valid until\n7,VCA Basis,true\n")
    manifest = write(archive, "a.pdf,7,jan@example.org,2026-01-31,", "b.pdf,7,jan@example.org,2026-01-31,2027-01-31")
    _, out, _ = await checked(manifest)
    assert "row 2, valid_until: is missing, but “VCA Basis” requires it" in out
    assert re.search(r"7 +│ VCA Basis │ 1 +│ required", out)


async def test_names_of_certifications_are_counted_without_a_list(archive: Path) -> None:
    """They are no faults: only an upload has to know which ids are meant."""
    manifest = write(archive, "a.pdf,VCA,jan@example.org,2026-01-31,", "b.pdf,BHV,jan@example.org,2026-01-31,")
    manifest.write_text(manifest.read_text().replace("certification_id", "certification"))

    code, out, _ = await checked(manifest)

    assert code == Exit.STORED
    assert re.search(r"\? +│ BHV +│ 1 +│", out)
    assert "2  to send" in out
    assert out.count("Not checked: which certifications are meant by their names") == 1
    assert "set SPRINGEST_CERTIFICATIONS_API_KEY" in out
    _, as_json, _ = await checked(manifest, form="json")
    assert [found["id"] for found in json.loads(as_json)["plan"]["certifications"]] == [None, None]
    with pytest.raises(ConfigurationError, match="--skip-listed needs to know which certifications"):
        await checked(manifest, skip_listed=True)


async def test_an_unreadable_list_of_certifications_may_not_matter(archive: Path) -> None:
    """Another file may have this name; only a manifest that names certifications needs it."""
    (archive / "certifications.csv").write_text("naam;code\nVCA;1\n")
    manifest = write(archive, "a.pdf,7,jan@example.org,2026-01-31,")
    assert (await checked(manifest))[0] == Exit.STORED

    manifest.write_text(manifest.read_text().replace("certification_id", "certification"))
    with pytest.raises(ManifestError, match="ID"):
        await checked(manifest)


async def test_a_manifest_without_rows_has_nothing_to_send(archive: Path) -> None:
    code, out, _ = await checked(write(archive))
    assert code == Exit.STORED
    assert out.endswith("There are no rows, so there is nothing to send.\n")
