"""A check of a manifest whose files are in a ZIP archive."""

from pathlib import Path

import pytest

from springest_async.bulk import Kind, Manifest, check_manifest
from springest_async.errors import ManifestError
from springest_async.manifest.reading import Reading
from tests.checks import HEADER, PDF
from tests.zips import raw_zip, zip_of


def manifest_of(folder: Path, *files: str, fix_names: bool = False) -> Manifest:
    """Open a manifest of these files in ``certs.zip``."""
    path = folder / "certificates.csv"
    lines = [f"{file},7,employee{number}@example.org,2026-01-31" for number, file in enumerate(files)]
    path.write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return Manifest.open(path, Reading(files=folder / "certs.zip", fix_names=fix_names))


def told(manifest: Manifest) -> list[tuple[Kind, int, str]]:
    return [(found.kind, found.row, found.reason) for found in check_manifest(manifest) if found is not None]


def test_files_of_an_archive_are_checked(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "certs.zip", {"2025/1.pdf": PDF, "2025/2.pdf": b"<html>", "3.pdf": b""})

    assert told(manifest_of(tmp_path, "2025/1.pdf", "2025/2.pdf", "3.pdf", "2025\\1.pdf", "4.pdf")) == [
        (Kind.NO_PDF, 3, "is an HTML page, not a PDF"),
        (Kind.NO_PDF, 4, "is an empty file"),
        (Kind.NO_FILE, 5, r"there is no such file: '2025\1.pdf' (there is '2025/1.pdf': correct the name)"),
        (Kind.NO_FILE, 6, f"there is no such file: '4.pdf' in {path}"),
    ]


def test_names_in_an_archive_are_fixed_when_asked(tmp_path: Path) -> None:
    zip_of(tmp_path / "certs.zip", {"certificates/Zoë.PDF": PDF, "certificates/jan.pdf": PDF + b" "})

    manifest = manifest_of(tmp_path, "zoë", "JAN.pdf", fix_names=True)

    assert Kind.NO_FILE not in {kind for kind, _, _ in told(manifest)}
    assert [manifest.upload(row).file.name for row in manifest] == ["Zoë.PDF", "jan.pdf"]


def test_an_archive_with_a_password_is_a_fault_of_each_row(tmp_path: Path) -> None:
    raw_zip(tmp_path / "certs.zip", {b"1.pdf": PDF, b"2.pdf": PDF}, flags=1)

    reason = "is protected by a password in the archive: unpack it, and name the folder"
    assert told(manifest_of(tmp_path, "1.pdf", "2.pdf")) == [(Kind.UNREADABLE, row, reason) for row in (2, 3)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"Rar!\x1a\x07\x01\x00", "is a RAR archive, not a ZIP: unpack it, and name the folder"),
        (b"file,email", "is neither a folder nor a ZIP archive"),
        (b"PK\x03\x04 and no more", "is damaged or incomplete: copy or download it again"),
    ],
)
def test_what_is_no_archive_is_said_before_the_rows(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "certs.zip").write_bytes(content)

    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, "1.pdf")

    assert (caught.value.manifest, caught.value.reason) == (tmp_path / "certs.zip", reason)


def test_an_archive_may_be_gone_when_all_is_stored(tmp_path: Path) -> None:
    assert told(manifest_of(tmp_path, "1.pdf")) == [
        (Kind.NO_FILE, 2, f"there is no such file: '1.pdf' in {tmp_path / 'certs.zip'}")
    ]
