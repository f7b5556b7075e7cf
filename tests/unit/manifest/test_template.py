"""A manifest from the names of files: rows for all PDFs, and what is not certain stays empty."""

import os
import zipfile
from pathlib import Path

import pytest

from springest_async.errors import ManifestError
from springest_async.manifest.dates import DateOrder
from springest_async.manifest.name_pattern import NamePattern
from springest_async.manifest.template import Folder, Template

USUAL = NamePattern.of("{certification_id}_{email}_{valid_from}")


def made(*files: str, pattern: NamePattern | None = USUAL, dates: DateOrder | None = None) -> Template:
    return Template.of(files, pattern, dates)


def test_a_row_has_what_the_name_says() -> None:
    found = made("7_jan@example.org_2026-01-31.pdf")

    assert found.columns == ["file", "certification_id", "email", "valid_from", "valid_until"]
    assert found.rows == [["7_jan@example.org_2026-01-31.pdf", "7", "jan@example.org", "2026-01-31", ""]]
    assert (found.misfits, found.unclear, found.empty) == ([], [], {"valid_until": 1})


def test_a_name_that_does_not_fit_is_a_row_with_the_file() -> None:
    found = made("scan0001.pdf", "7_jan@example.org_2026-01-31.pdf")

    assert found.rows[0] == ["scan0001.pdf", "", "", "", ""]
    assert found.misfits == [("scan0001.pdf", "there is no number where {certification_id} should be")]


def test_without_a_pattern_only_the_files_are_known() -> None:
    assert made("b/1.pdf", pattern=None).rows == [["b/1.pdf", "", "", "", ""]]


@pytest.mark.parametrize(
    ("pattern", "columns"),
    [
        ("{certification}_{user_id}", ["file", "certification", "User ID", "valid_from", "valid_until"]),
        (
            "{voornaam}_{achternaam}",
            ["file", "certification_id", "voornaam", "achternaam", "valid_from", "valid_until"],
        ),
        ("{user}_{email}", ["file", "certification_id", "user", "email", "valid_from", "valid_until"]),
        (
            "{name}_{conversion_id}",
            ["file", "certification_id", "email", "valid_from", "valid_until", "name", "conversion_id"],
        ),
    ],
)
def test_the_columns_are_those_of_the_pattern(pattern: str, columns: list[str]) -> None:
    assert made(pattern=NamePattern.of(pattern)).columns == columns


def test_a_day_over_12_shows_the_order_of_all_dates() -> None:
    files = ("1_a@example.org_05-06-2026.pdf", "1_a@example.org_31-12-2025.pdf")

    assert [row[3] for row in made(*files).rows] == ["2026-06-05", "2025-12-31"]


@pytest.mark.parametrize(
    ("dates", "expected"),
    [(None, ["", "2025-12-31", "2025-12-31"]), ("dmy", ["2026-06-05", "2025-12-31", ""])],
)
def test_dates_that_contradict_are_not_guessed(dates: DateOrder | None, expected: list[str]) -> None:
    files = (
        "1_a@example.org_05-06-2026.pdf",
        "1_a@example.org_31-12-2025.pdf",
        "1_a@example.org_12-31-2025.pdf",
    )
    found = made(*files, dates=dates)

    assert [row[3] for row in found.rows] == expected
    assert len(found.unclear) == 1


def test_a_date_that_nothing_shows_names_the_way_out() -> None:
    found = made("1_a@example.org_05-06-2026.pdf")

    assert found.unclear == [
        (
            "1_a@example.org_05-06-2026.pdf",
            "valid_from",
            "'05/06/2026' can be read in two ways: use --dates dmy (the day first) or --dates mdy",
        )
    ]


@pytest.mark.parametrize(
    ("file", "cell"),
    [("=1+1.pdf", "./=1+1.pdf"), ("-a/b.pdf", "./-a/b.pdf"), (" a.pdf", "./ a.pdf"), ("a, =b.pdf", "./a, =b.pdf")],
)
def test_a_spreadsheet_runs_no_name_as_a_formula(file: str, cell: str) -> None:
    assert made(file, pattern=None).rows[0][0] == cell


def test_a_part_that_looks_like_a_formula_stays_empty() -> None:
    found = made("7 =HYPERLINK(1).pdf", pattern=NamePattern.of("{certification_id} {user}"))

    assert found.rows[0][2] == ""
    assert found.unclear == [("7 =HYPERLINK(1).pdf", "user", "a spreadsheet would run “=HYPERLINK(1)” as a formula")]


# --- the folder ---


def test_a_folder_is_listed_with_its_subfolders(tmp_path: Path) -> None:
    for name in ("b.pdf", "a.PDF", "2025/jan/c.pdf", "notes.txt", ".hidden.pdf", "__MACOSX/._b.pdf", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert Folder.list(tmp_path) == Folder(["2025/jan/c.pdf", "a.PDF", "b.pdf"], ["notes.txt"], [])


def test_a_zip_is_listed_as_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "certs.zip", "w") as archive:
        for name in ("b.pdf", "2025/jan/c.pdf", "2025/notes.txt", "__MACOSX/._b.pdf", "empty/"):
            archive.writestr(name, "x")

    assert Folder.list(tmp_path / "certs.zip") == Folder(["2025/jan/c.pdf", "b.pdf"], ["2025/notes.txt"], [])


def test_a_zip_without_files_is_an_error(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "certs.zip", "w").close()

    with pytest.raises(ManifestError, match="has no files"):
        Folder.list(tmp_path / "certs.zip")


def test_links_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    (tmp_path / "circle").symlink_to(tmp_path)

    assert Folder.list(tmp_path).pdfs == ["a.pdf"]


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"Ren\xe9.pdf")).touch()

    assert Folder.list(tmp_path) == Folder([], [], ["Ren\udce9.pdf"])


@pytest.mark.parametrize("name", ["missing", "a.pdf"])
def test_a_folder_that_is_none_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.pdf").touch()

    with pytest.raises(ManifestError):
        Folder.list(tmp_path / name)


def test_many_names_become_rows() -> None:
    files = [f"{number % 40 + 1}_employee{number}@example.org_2026-01-31.pdf" for number in range(5_000)]
    found = made(*files)

    assert (len(found.rows), found.misfits) == (5_000, [])
