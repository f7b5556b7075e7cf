"""The preflight with real files: what is told, of which row and column, and what is not even opened."""

import base64
import hashlib
import os
import threading
import unicodedata
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from springest_async import Journal
from springest_async.bulk import (
    Finding,
    Kind,
    KnownFiles,
    Manifest,
    OpenMigration,
    State,
    Totals,
    check_manifest,
    load_manifest,
    source_of,
)
from springest_async.errors import ConfigurationError, InvalidUpload, ManifestError
from springest_async.manifest.reading import Reading
from springest_async.records import Certification
from tests.bulk_runs import ORIGIN, loaded, manifest_of, settle
from tests.checks import HEADER, PDF, findings, manifest_with

NOT_FOUND = "there is no such file"
NO_PDF = "is not a PDF: there is no %PDF- in its first 1024 bytes"
DATE = "must be a date such as 2026-12-31 or 31-12-2026"
BASE64 = "is base64 text, not a PDF: decode it first"
MORE_AT_THE_START = "has other content before the PDF (%PDF-)"
FIRST_AID = Certification(id=1, name="First aid")
FORKLIFT = Certification(id=2, name="Forklift driver", requires_valid_until=True)
CERTIFICATIONS = (FIRST_AID, FORKLIFT)


# --- a manifest ---


def test_a_good_manifest_has_no_findings_and_a_none_for_each_row(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,*", "ok.pdf,1,jan@example.org,2026-02-28")

    assert list(check_manifest(manifest.with_listed(CERTIFICATIONS))) == [None, None]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("jan\u200b.pdf", r": 'jan\u200b.pdf'"),
        ("\ufeffjan.pdf", r": '\ufeffjan.pdf'"),
        ("a\x9b31m.pdf", r": 'a\x9b31m.pdf'"),
        ("\u202e" * 10_000, ": '" + r"\u202e" * 16 + "\\u2…02e" + r"\u202e" * 16 + "'"),
        ("Zoë/Chloé.pdf", ": 'Zoë/Chloé.pdf'"),
    ],
)
def test_invisible_letters_in_a_missing_name_are_shown(tmp_path: Path, name: str, found: str) -> None:
    manifest = manifest_with(tmp_path, f"{name},*")
    long = Finding(Kind.UNREADABLE, 2, "file", f"its name is too long{found}")
    missing = Finding(Kind.NO_FILE, 2, "file", f"{NOT_FOUND}{found} in {tmp_path}")

    assert findings(manifest) == [long if len(name) > 255 else missing]


@pytest.mark.parametrize(("there", "named"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_file_with_other_unicode_accents_is_reported(
    tmp_path: Path, there: Literal["NFC", "NFD"], named: Literal["NFC", "NFD"]
) -> None:
    """An archive that was zipped on a Mac may have them, beside a spreadsheet from elsewhere."""
    name = "2026/Zoë Çelik.pdf"
    path = tmp_path / unicodedata.normalize(there, name)
    path.parent.mkdir()
    path.write_bytes(PDF)

    manifest = manifest_with(tmp_path, f"{unicodedata.normalize(named, name)},*")

    hint = "(one exists whose accents are encoded differently, as on a Mac: rename it, or use --fix-names)"
    reason = f"{NOT_FOUND}: '{unicodedata.normalize(named, name)}' {hint}"
    assert findings(manifest) == [Finding(Kind.NO_FILE, 2, "file", reason)]


@pytest.mark.parametrize(
    ("there", "named", "hint"),
    [
        ("scans/jan.pdf", r"scans\jan.pdf", "there is 'scans/jan.pdf': correct the name"),
        ("scans/jan.pdf", "Scans/JAN.PDF", "there is 'scans/jan.pdf': correct the name"),
        ("scans/jan.pdf", "scans/jan", "there is 'scans/jan.pdf': correct the name"),
        ("scans/jan.pdf", '"""scans/jan.pdf"""', "there is 'scans/jan.pdf': correct the name"),
        ("O'Brien.pdf", "O\u2019Brien.pdf", """there is "O'Brien.pdf": correct the name"""),
        ("jan.pdf ", "jan.pdf", "there is 'jan.pdf ': correct the name"),
        ("jansen.pdf", "janssen.pdf", "the nearest name is 'jansen.pdf'"),
    ],
)
def test_what_may_have_been_meant_is_told(tmp_path: Path, there: str, named: str, hint: str) -> None:
    manifest = manifest_with(tmp_path, f"{named},*")
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(PDF)

    ((_, column, reason),) = [(finding.row, finding.column, finding.reason) for finding in findings(manifest)]
    assert column == "file"
    assert reason.startswith(f"{NOT_FOUND}: ")
    assert reason.endswith(f"({hint})")


def test_which_file_is_taken_is_told_with_its_folder(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "2024\\JAN,*", f"{unicodedata.normalize('NFC', 'zoë')}.pdf,*")
    (tmp_path / "2024").mkdir()
    (tmp_path / "2024" / "jan.pdf").write_bytes(PDF)
    there = unicodedata.normalize("NFD", "zoë.pdf")
    (tmp_path / there).write_bytes(PDF + b" ")

    found = findings(Manifest.open(manifest.path, Reading(fix_names=True)))

    assert [finding.reason for finding in found if finding.kind is Kind.FIXED_NAME] == [
        r"'2024\JAN': '2024/jan.pdf' is taken",
        f"'zoë.pdf': '{there}' is taken (accents encoded differently)",
    ]


def test_nothing_is_told_where_two_may_have_been_meant(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "JAN.PDF,*")
    for name in ("jan.pdf", "Jan.pdf"):
        (tmp_path / name).write_bytes(PDF)

    assert findings(manifest) == [
        Finding(Kind.NO_FILE, 2, "file", f"{NOT_FOUND}: 'JAN.PDF' in {tmp_path} (the nearest name is 'Jan.pdf')")
    ]


def test_a_wrong_folder_is_told_once(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, *(f"{number}.pdf,*" for number in range(4000)))

    reason = f"none of the files of 4000 rows is in {tmp_path}: is this the right folder?"
    assert [finding for finding in findings(manifest) if finding.kind is not Kind.NO_FILE] == [
        Finding(Kind.WRONG_FOLDER, 2, "file", reason)
    ]


def test_a_mistake_in_all_names_is_no_wrong_folder(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, *(f"{number},*" for number in range(20)))
    for number in range(20):
        (tmp_path / f"{number}.pdf").write_bytes(PDF)

    assert findings(manifest) == [
        Finding(
            Kind.NO_FILE,
            number + 2,
            "file",
            f"{NOT_FOUND}: '{number}' (there is '{number}.pdf': correct the name)",
        )
        for number in range(20)
    ]


def test_a_conversion_is_a_warning_once(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,*", *(f"ok.pdf,1,jan@example.org,2026-0{n}-01,,{n}" for n in (2, 3)))

    reason = "is in 2 of the rows: Springest may set these participations to done (“Afgerond”), as its own page does"
    assert findings(manifest) == [Finding(Kind.CONVERSION, 3, "conversion_id", reason)]


def test_the_folder_of_a_name_is_no_file(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "Anna,*")
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna.pdf").write_bytes(PDF)

    assert findings(manifest) == [
        Finding(Kind.NO_FILE, 2, "file", f"{NOT_FOUND}: 'Anna' (there is 'anna.pdf': correct the name)")
    ]


def test_the_certificate_of_another_number_is_not_the_nearest(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "first aid 0003.pdf,*")
    (tmp_path / "first aid 0002.pdf").write_bytes(PDF)

    assert findings(manifest) == [Finding(Kind.NO_FILE, 2, "file", f"{NOT_FOUND}: 'first aid 0003.pdf' in {tmp_path}")]


def test_never_is_no_end_for_a_certification_that_requires_one(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,2,jan@example.org,2026-01-31,Never")

    assert findings(manifest.with_listed(CERTIFICATIONS)) == [
        Finding(Kind.END_REQUIRED, 2, "valid_until", "is missing, but “Forklift driver” requires it")
    ]


def test_an_end_may_be_meant_for_ever(tmp_path: Path) -> None:
    assert findings(manifest_with(tmp_path, "ok.pdf,1,jan@example.org,2026-01-31,31-12-9999")) == []


def test_one_file_shows_that_the_folder_is_right(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, *(f"{number}.pdf,*" for number in range(20)), "ok.pdf,*", "none.pdf,*")

    assert [finding.row for finding in findings(manifest)] == [*range(2, 22), 23]


def test_an_id_of_thousands_of_noughts_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, f"ok.pdf,{'0' * 5000}1,jan@example.org,2026-01-31")

    assert [(finding.row, finding.column) for finding in findings(manifest.with_listed(CERTIFICATIONS))] == [
        (2, "certification_id")
    ]


def test_a_warning_is_reported_as_one(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "old.pdf,*")
    (tmp_path / "old.pdf").write_bytes(b"\n" + PDF)

    assert findings(manifest) == [Finding(Kind.OTHER_CONTENT, 2, "file", MORE_AT_THE_START)]


def test_columns_that_mean_nothing_are_named_once(tmp_path: Path) -> None:
    """One of them may be a column whose name was mistyped, and whose cells would be left out in silence."""
    path = tmp_path / "manifest.csv"
    header = HEADER.replace("valid_until", "valid_untill").replace("\n", ",Naam,,error,a\x1bb\n")
    path.write_text(header + "ok.pdf,1,jan@example.org,2026-01-31,2031-01-31,,Jan\n")
    (tmp_path / "ok.pdf").write_bytes(PDF)

    assert findings(Manifest.open(path)) == [
        Finding(
            Kind.UNUSED_COLUMN,
            1,
            "",
            "these columns are unknown and will not be sent (check their spelling): valid_untill",
        ),
        Finding(Kind.OTHER_COLUMN, 1, "", r"these columns will not be sent: Naam, column 8, 'a\x1bb'"),
    ]


def test_an_unknown_column_is_a_note_where_none_is_missing(tmp_path: Path) -> None:
    """Most sheets have columns of people's names and remarks."""
    path = tmp_path / "manifest.csv"
    path.write_text(
        HEADER.replace("\n", ",Naam,Datum,booking\n") + "ok.pdf,1,jan@example.org,2026-01-31,2031-01-31,,Jan,,\n"
    )
    (tmp_path / "ok.pdf").write_bytes(PDF)

    note = Finding(Kind.OTHER_COLUMN, 1, "", "these columns will not be sent: Naam, Datum, booking")
    assert findings(Manifest.open(path)) == [note]


def test_a_great_many_columns_that_mean_nothing_are_a_short_line(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER.replace("\n", ",n".join(map(str, range(9000))) + "\n"))

    assert [finding.kind for finding in findings(manifest)] == [Kind.UNUSED_COLUMN, Kind.OTHER_COLUMN]
    assert all(len(finding.reason) < 600 for finding in findings(manifest))


def test_an_unknown_certification_is_a_fault(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,99,jan@example.org,2026-01-31")

    assert findings(manifest.with_listed(CERTIFICATIONS)) == [
        Finding(
            Kind.CERTIFICATION, 2, "certification_id", "99 does not exist: springest certifications lists the 2 that do"
        )
    ]


def test_names_of_certifications_without_a_list(tmp_path: Path) -> None:
    """A check without a list counts their rows; what would send them ends at the first one."""
    manifest = manifest_with(tmp_path, "ok.pdf,BHV,jan@example.org,2026-01-31", "zoë.pdf,7,jan@example.org,2026-01-31")
    (tmp_path / "zoë.pdf").write_bytes(PDF + b" ")
    manifest.path.write_text(manifest.path.read_text().replace("certification_id", "certification"))
    manifest = Manifest.open(manifest.path)
    totals = Totals()

    assert not [finding for finding in check_manifest(manifest.with_unlisted(), totals=totals) if finding is not None]
    assert totals.certifications == {-1: 1, 7: 1}
    with pytest.raises(ConfigurationError, match=r"row 2, certification: 'BHV' is not an id, and there is no list"):
        findings(manifest)


def test_a_missing_but_required_valid_until_is_a_fault(tmp_path: Path) -> None:
    manifest = manifest_with(
        tmp_path, "ok.pdf,2,jan@example.org,2026-01-31", "ok.pdf,2,jan@example.org,2026-01-31,2031-01-31"
    )

    assert findings(manifest.with_listed(CERTIFICATIONS)) == [
        Finding(Kind.END_REQUIRED, 2, "valid_until", "is missing, but “Forklift driver” requires it")
    ]


def test_without_certifications_what_needs_them_is_left_out(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,99,jan@example.org,2026-01-31", "ok.pdf,2,jan@example.org,2026-01-31")

    assert findings(manifest) == []


def test_an_end_before_the_beginning_is_a_warning(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,*,2026-01-30", "ok.pdf,2,jan@example.org,2026-01-31,2026-01-31")

    assert findings(manifest) == [Finding(Kind.ORDER, 2, "valid_until", f"is before valid_from ({date(2026, 1, 31)})")]


def test_what_may_have_been_misunderstood_is_a_warning(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,1,jan@example.org,2026-01-31,", "zoë.pdf,2,jan@example.org,2026-01-31")
    (tmp_path / "zoë.pdf").write_bytes(PDF)
    manifest.path.write_bytes(f"Certificates\n{manifest.path.read_text()}".encode("cp1252"))

    assert findings(Manifest.open(manifest.path)) == [
        Finding(Kind.TITLE_ROWS, 1, "", "the names of the columns are in row 2: what is above them is left out"),
        Finding(
            Kind.ENCODING,
            4,
            "file",
            "the manifest is not in UTF-8, and was read as Windows-1252: 'zoë.pdf' (if that is wrong, save it as “CSV"
            " UTF-8”)",
        ),
    ]


def test_a_guessed_encoding_of_a_title_is_a_warning(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,1,jan@example.org,2026-01-31,")
    header, rest = manifest.path.read_text().split("\n", 1)
    manifest.path.write_bytes(f"{header},gültig\n{rest}".encode("cp1252"))

    found = [finding for finding in findings(Manifest.open(manifest.path)) if finding.kind is Kind.ENCODING]
    assert [(finding.row, "'gültig'" in finding.reason) for finding in found] == [(1, True)]


@pytest.mark.parametrize(
    ("year", "told"), [("0025", True), ("1939", True), ("1940", False), ("2099", False), ("2205", True)]
)
def test_a_year_that_cannot_be_meant_is_a_warning(tmp_path: Path, year: str, told: bool) -> None:
    manifest = manifest_with(tmp_path, f"ok.pdf,1,jan@example.org,{year}-01-31")

    warning = Finding(Kind.YEAR, 2, "valid_from", f"is in the year {year}: is that meant?")
    assert findings(manifest) == [warning] * told


def test_opposite_orders_of_dates_are_a_warning(tmp_path: Path) -> None:
    """Each column shows its order, so nothing is guessed; but one program would not write both."""
    manifest = manifest_with(
        tmp_path, "ok.pdf,1,jan@example.org,05/06/2026,", "ok.pdf,2,jan@example.org,13/06/2026,06/14/2027"
    )

    reason = "06/14/2027 has its day and month in the other order than 13/06/2026 (valid_from, row 3)"
    assert findings(manifest) == [Finding(Kind.DATE_ORDER, 3, "valid_until", f"{reason}: check both columns")]


@pytest.mark.parametrize(
    ("begin", "end"), [("13/06/2026", "14/06/2027"), ("13/06/2026", ""), ("5-6-2026", "2027-06-05")]
)
def test_dates_in_one_order_are_good(tmp_path: Path, begin: str, end: str) -> None:
    assert findings(manifest_with(tmp_path, f"ok.pdf,1,jan@example.org,{begin},{end}")) == []


def test_all_faults_of_all_rows_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "text.pdf").write_bytes(base64.b64encode(PDF))
    manifest = manifest_with(
        tmp_path,
        "none.pdf,1,jan,31-02-2026",
        "ok.pdf,*",
        "",
        ",1,jan@example.org,2026-01-31,yesterday",
        "text.pdf,2,jan@example.org,2026-01-31",
        "ok.pdf,*",
    )

    assert findings(manifest.with_listed(CERTIFICATIONS)) == [
        Finding(Kind.EMAIL, 2, "email", "'jan' is not an e-mail address: An email address must have an @-sign."),
        Finding(Kind.DATE, 2, "valid_from", "there is no 31 February 2026"),
        Finding(Kind.NO_FILE, 2, "file", f"{NOT_FOUND}: 'none.pdf' in {tmp_path}"),
        Finding(Kind.CELL, 5, "file", "is missing"),
        Finding(Kind.DATE, 5, "valid_until", f"{DATE}, not 'yesterday' (leave it empty if there is no end)"),
        Finding(Kind.NO_PDF, 6, "file", BASE64),
        Finding(Kind.END_REQUIRED, 6, "valid_until", "is missing, but “Forklift driver” requires it"),
        Finding(Kind.TWICE, 7, "file", "is the same certificate as in row 3"),
    ]


def test_a_bad_email_hides_no_unknown_certification(tmp_path: Path) -> None:
    """All faults of a row can be corrected at once."""
    manifest = manifest_with(tmp_path, "ok.pdf,99,jan,2026-01-31", "ok.pdf,2,jan,2026-01-31")

    assert {(finding.row, finding.column) for finding in findings(manifest.with_listed(CERTIFICATIONS))} == {
        (2, "email"),
        (2, "certification_id"),
        (3, "email"),
        (3, "valid_until"),
    }


def test_a_row_of_invalid_csv_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="row 3 is not valid CSV"):
        findings(manifest_with(tmp_path, "none.pdf,*", '"ok.pdf,*'))


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (Finding(Kind.CELL, 7, "email", "is missing"), "row 7, email: is missing"),
        (
            Finding(Kind.OTHER_CONTENT, 7, "file", MORE_AT_THE_START),
            "row 7, file: has other content before the PDF (%PDF-)",
        ),
        (
            Finding(Kind.CELL, 7, "", "has more cells than there are columns: 'x'"),
            "row 7: has more cells than there are columns: 'x'",
        ),
    ],
)
def test_a_finding_reads_as_a_line(finding: Finding, text: str) -> None:
    assert str(finding) == text


# --- what a journal knows ---


def known_findings(
    manifest: Manifest, journal: Journal, origin: str = ORIGIN, totals: Totals | None = None
) -> list[Finding]:
    with KnownFiles(journal, source_of(manifest, origin, journal.machine)) as known:
        return [finding for finding in check_manifest(manifest, known, origin, totals) if finding is not None]


async def brought_to(migration: OpenMigration, *outcomes: State) -> Journal:
    """Bring the first rows to these ends, and return the journal when it says so."""
    await settle(migration, *outcomes)
    await migration.counts()
    return migration.journal


@pytest.mark.parametrize("outcome", [State.STORED, State.REJECTED, State.IN_DOUBT])
async def test_a_file_that_will_not_be_sent_again_may_be_gone(tmp_path: Path, outcome: State) -> None:
    manifest = manifest_with(tmp_path, "a.pdf,*", "none.pdf,*")
    (tmp_path / "a.pdf").write_bytes(PDF)
    async with loaded(manifest) as migration:
        journal = await brought_to(migration, outcome)
        (tmp_path / "a.pdf").unlink()

        assert known_findings(manifest, journal) == [
            Finding(Kind.NO_FILE, 3, "file", f"{NOT_FOUND}: 'none.pdf' in {tmp_path}")
        ]
        assert len(known_findings(manifest, journal, "https://api.springest.be")) == 2


async def test_a_new_row_with_a_stored_pdf_of_another_is_told(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,*,,", "ok.pdf,1,piet@example.org,2026-01-31,,")
    async with loaded(manifest) as migration:
        journal = await brought_to(migration, State.STORED)

        reason = "is the same PDF as in row 2, which is for another person"
        assert known_findings(manifest, journal) == [Finding(Kind.SHARED_PDF, 3, "file", reason)]


async def test_a_check_counts_what_there_is_to_send(tmp_path: Path) -> None:
    manifest = manifest_with(
        tmp_path,
        "ok.pdf,*",
        "ok.pdf,2,jan@example.org,2026-01-31",
        "ok.pdf,1,jan@example.org,2025-01-31",
        "ok.pdf,2,jan@example.org,2025-01-31",
        "none.pdf,*",
        "ok.pdf,1,jan,2025-01-31",
    )
    totals = Totals()
    async with loaded(manifest) as migration:
        journal = await brought_to(migration, State.STORED, State.REJECTED)
        known_findings(manifest, journal, totals=totals)

    assert (totals.rows, totals.known) == (6, {State.STORED: 1, State.REJECTED: 1})
    assert (list(totals.to_send), totals.size, totals.certifications) == ([4, 5], 2 * len(PDF), {1: 1, 2: 1})


@pytest.mark.parametrize("outcome", [State.WAITING, State.FAILED])
async def test_a_file_that_will_be_sent_again_is_checked(tmp_path: Path, outcome: State) -> None:
    manifest = manifest_with(tmp_path, "a.pdf,*")
    (tmp_path / "a.pdf").write_bytes(PDF)
    async with loaded(manifest) as migration:
        journal = await brought_to(migration, outcome)
        (tmp_path / "a.pdf").unlink()

        assert known_findings(manifest, journal) == [
            Finding(Kind.NO_FILE, 2, "file", f"{NOT_FOUND}: 'a.pdf' in {tmp_path}")
        ]


async def test_a_stored_file_that_was_replaced_is_checked(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "a.pdf,*")
    (tmp_path / "a.pdf").write_bytes(PDF)
    async with loaded(manifest) as migration:
        journal = await brought_to(migration, State.STORED)
        (tmp_path / "a.pdf").write_bytes(b"Dear Jan,")

        assert known_findings(manifest, journal) == [Finding(Kind.NO_PDF, 2, "file", NO_PDF)]


async def test_a_stored_file_is_not_opened_for_another_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_with(tmp_path, "a.pdf,*")
    (tmp_path / "a.pdf").write_bytes(PDF)
    copy = manifest_of(tmp_path, manifest.path.read_text() + "\n", "a copy.csv")
    async with loaded(manifest) as migration:
        journal = await brought_to(migration, State.STORED)

        def refuse(_: Path) -> None:
            raise AssertionError("it need not be opened")

        monkeypatch.setattr("springest_async.bulk.pdf.open_source", refuse)

        assert known_findings(copy, journal) == []


async def test_a_whole_file_is_read_once_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(PDF)
    manifest = manifest_with(tmp_path, "a.pdf,*", "b.pdf,*")
    same = [Finding(Kind.TWICE, 3, "file", "is the same certificate as in row 2")]
    async with Journal(tmp_path / "journal") as journal:
        assert known_findings(manifest, journal) == same

        def refuse(*_: object) -> None:
            raise AssertionError("it is known")

        with KnownFiles(journal, source_of(manifest, ORIGIN, journal.machine)) as known:
            monkeypatch.setattr("hashlib.file_digest", refuse)
            assert [finding for finding in check_manifest(manifest, known, ORIGIN) if finding] == same


async def test_hashes_are_remembered_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit for each file would take longer than reading it."""
    for number in range(150):
        (tmp_path / f"{number}.pdf").write_bytes(PDF + b"%d" % number)
    manifest = manifest_with(tmp_path, *(f"{number}.pdf,*" for number in range(150)), "7.pdf,*")
    remember = Mock(side_effect=KnownFiles.remember_hashes)
    async with Journal(tmp_path / "journal") as journal:
        with KnownFiles(journal, source_of(manifest, ORIGIN, journal.machine)) as known:
            monkeypatch.setattr(KnownFiles, "remember_hashes", lambda self, files: remember(self, list(files)))
            found = [finding for finding in check_manifest(manifest, known, ORIGIN) if finding]
            assert [finding.reason for finding in found if finding.is_fault] == ["is the same certificate as in row 9"]
            assert remember.call_count == 3
            status = (tmp_path / "140.pdf").stat()
            sha256 = hashlib.sha256(PDF + b"140").digest()
            assert known.known_hash(tmp_path / "140.pdf", status.st_size, status.st_mtime_ns) == sha256


def test_whole_files_are_read_at_once_on_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(PDF)
    together, file_digest = threading.Barrier(2, timeout=60), hashlib.file_digest

    def both(*arguments: Any) -> Any:
        together.wait()
        return file_digest(*arguments)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(hashlib, "file_digest", both)

    found = findings(manifest_with(tmp_path, "a.pdf,*", "b.pdf,*"))

    assert found == [Finding(Kind.TWICE, 3, "file", "is the same certificate as in row 2")]


def test_a_check_that_is_given_up_leaves_no_thread(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, *(["ok.pdf,*"] * 5))

    with closing(check_manifest(manifest)) as checking:
        assert any(checking)

    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("springest-hash")] == []


async def test_a_preflight_loads_nothing(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,*")
    async with Journal(tmp_path / "journal") as journal:
        known_findings(manifest, journal)

        assert (await journal.info()).migrations == 0
        assert (await load_manifest(journal, manifest, ORIGIN))[1].new == 1


# --- whatever the bytes are ---

NAMES = ("ok.pdf", "..", "/", "pipe.pdf", "loop.pdf", "j\0n.pdf", "x" * 256, "ok.pdf/x", '"a\nb"', "🎓.pdf", '"')


@st.composite
def hostile_manifests(draw: st.DrawFn) -> bytes:
    """Write a manifest that names odd files, in any encoding, with some bytes in it replaced."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=5))
    rows = [f"{name},1,jan@example.org,2026-01-31{draw(st.sampled_from(['', ',', ',,,x']))}" for name in names]
    ends = draw(st.sampled_from(["\n", "\r\n", "\r", "\0"]))
    text = ends.join([HEADER.strip(), *rows])
    content = text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])), errors="replace")
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.binary(max_size=40)) + content[at + draw(st.integers(0, 40)) :]


@settings(max_examples=100)
@given(content=st.binary(max_size=400) | hostile_manifests())
@example(content=HEADER.encode() + b"," * 200_000)
@example(content=HEADER.encode() * 2 + b"\xff")
def test_any_bytes_raise_only_our_own_errors(module_folder: Path, content: bytes) -> None:
    folder = module_folder
    if not (folder / "ok.pdf").exists():
        (folder / "ok.pdf").write_bytes(PDF)
        (folder / "loop.pdf").symlink_to("loop.pdf")
        os.mkfifo(folder / "pipe.pdf")
    path = folder / "manifest.csv"
    path.write_bytes(content)

    with suppress(ManifestError):
        manifest = Manifest.open(path)
        for row in manifest:
            for read in (manifest.upload, manifest.fields):
                with suppress(InvalidUpload):
                    read(row)
        rows = sum(1 for _ in manifest)
        assert list(check_manifest(manifest.with_listed(CERTIFICATIONS))).count(None) >= rows
