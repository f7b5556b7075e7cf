"""Which file of an archive was meant, where it has none of the name that a manifest has."""

import unicodedata
from pathlib import Path

import pytest

from springest_async.manifest.file_names import FileNames
from tests.zips import raw_zip, zip_of


@pytest.mark.parametrize(
    ("member", "cell"),
    [
        ("2025/Jan de Vries.pdf", "2025\\Jan de Vries.pdf"),
        ("2025/jan.pdf", '"2025/jan.pdf"'),
        ("2025/jan.PDF", "2025/JAN.pdf"),
        ("2025/jan.pdf", "2025/jan"),
        (unicodedata.normalize("NFD", "2025/Zoë.pdf"), "2025/Zoë.pdf"),
        ("D'Hondt.pdf", "D\u2019Hondt.pdf"),
        ("jan.pdf", " jan.pdf "),
        ("certificates/jan.pdf", "jan.pdf"),
        ("jan.pdf", "C:\\Users\\hr\\pdfs\\jan.pdf"),
        ("jan.pdf", '"\\\\server\\pdfs\\Jan.pdf"'),
        ("certificates/jan.pdf", "D:/pdfs/jan"),
        ("certificates/2025/Jan.pdf", "2025\\jan.pdf"),
    ],
)
def test_a_member_is_found_as_a_file_in_a_folder_is(member: str, cell: str, tmp_path: Path) -> None:
    beside = "certificates/ann.pdf" if member.startswith("certificates/") else "ann.pdf"
    names = FileNames(zip_of(tmp_path / "certs.zip", {member: b"1", beside: b"2"}))

    assert names.meant(cell) == member


@pytest.mark.parametrize("code_page", ["cp850", "cp1252"])
def test_a_name_in_the_code_page_of_a_country_is_found(tmp_path: Path, code_page: str) -> None:
    """`zipfile`, `unzip` and we read it in cp437, the only one that ZIP knows beside UTF-8."""
    path = raw_zip(tmp_path / "certs.zip", {"CHLOË Søren.pdf".encode(code_page): b"1", b"ann.pdf": b"2"})
    names = FileNames(path)

    meant = names.meant("CHLOË Søren.pdf")

    assert meant == "CHLOË Søren.pdf".encode(code_page).decode("cp437")
    assert (path / meant).name in names.explain("CHLOË Søren.pdf")


def test_two_members_that_fit_are_not_chosen_between(tmp_path: Path) -> None:
    names = FileNames(zip_of(tmp_path / "certs.zip", {"Jan.pdf": b"1", "JAN.pdf": b"2"}))

    assert names.meant("jan.pdf") is None


def test_the_name_of_an_archive_and_the_nearest_are_told(tmp_path: Path) -> None:
    names = FileNames(zip_of(tmp_path / "certs.zip", {"jan de vries.pdf": b"1", "ann.pdf": b"2"}))

    told = names.explain("jan de vris.pdf")

    assert told == f"'jan de vris.pdf' in {tmp_path / 'certs.zip'} (the nearest name is 'jan de vries.pdf')"


def test_the_only_folder_of_an_archive_is_named(tmp_path: Path) -> None:
    names = FileNames(zip_of(tmp_path / "certs.zip", {"pdfs/jan.pdf": b"1", "pdfs/ann.pdf": b"2"}))

    folder = tmp_path / "certs.zip" / "pdfs"
    assert names.explain("jan.pdf") == (
        f"'jan.pdf' (there is 'pdfs/jan.pdf': name the folder in the ZIP with --files {folder})"
    )
    assert names.explain(r"C:\jan.pdf") == r"'C:\jan.pdf' (there is 'pdfs/jan.pdf': correct the name)"
    assert names.explain("pdfs\\jan.pdf") == r"'pdfs\jan.pdf' (there is 'pdfs/jan.pdf': correct the name)"
    assert names.explain("pdfs/JAN.pdf") == "'pdfs/JAN.pdf' (there is 'pdfs/jan.pdf': correct the name)"
