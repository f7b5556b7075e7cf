"""Manifests as spreadsheets write them, and broken ones."""

import hashlib
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from springest_async.bulk import COLUMNS, Manifest, Reading, Row
from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.manifest.dates import DateOrder
from springest_async.manifest.manifest import Fields
from springest_async.records import CertificateUpload
from tests.bulk_runs import csv_table_of, manifest_of
from tests.pipes import becomes_a_pipe, swap_after_a_look, without_waiting

HEADER = "file,certification_id,email,valid_from,valid_until,conversion_id\n"
JAN = "jan.pdf,7,jan@example.org,2026-01-31,2031-01-31,5\n"
SAY_WHICH = '(check the names of the columns, or say which they are, as in --map {}="…")'
NO_COLUMNS = f"row 1 lacks file, certification_id, email, valid_from {SAY_WHICH.format('file')}; it has none"
JANS_CELLS = {
    "file": "jan.pdf",
    "certification_id": "7",
    "email": "jan@example.org",
    "valid_from": "2026-01-31",
    "valid_until": "2031-01-31",
    "conversion_id": "5",
    "": "",
}


def numbers(manifest: Manifest) -> list[int]:
    return [row.number for row in manifest]


def the_upload(manifest: Manifest) -> CertificateUpload:
    (row,) = manifest
    return manifest.upload(row)


def the_faults(manifest: Manifest) -> tuple[Fault, ...]:
    (row,) = manifest
    with pytest.raises(InvalidUpload) as caught:
        manifest.upload(row)
    return caught.value.faults


# --- the header ---


@pytest.mark.parametrize(("delimiter", "bom", "line_end"), [(",", False, "\n"), (";", True, "\r\n"), (",", True, "\r")])
def test_what_spreadsheets_write_is_read(tmp_path: Path, delimiter: str, bom: bool, line_end: str) -> None:
    text = (HEADER + JAN).replace(",", delimiter).replace("\n", line_end)

    manifest = manifest_of(tmp_path, (b"\xef\xbb\xbf" if bom else b"") + text.encode())

    assert (manifest.path, manifest.columns) == (tmp_path / "certificates.csv", COLUMNS)
    assert (csv_table_of(manifest).separator, csv_table_of(manifest).bom) == (delimiter, bom)
    assert list(manifest) == [Row(2, JANS_CELLS)]


@pytest.mark.parametrize(("delimiter", "other"), [(",", ";"), (";", ",")])
def test_what_is_quoted_separates_nothing(tmp_path: Path, delimiter: str, other: str) -> None:
    """A column may be called “name; first name; …”."""
    note = f'"a\n{other * 9}"'
    text = HEADER.replace("\n", f",{note}\n") + JAN.replace("\n", f",{note}\n")

    manifest = manifest_of(tmp_path, text.replace(",", delimiter).replace(delimiter * 9, other * 9))

    assert (csv_table_of(manifest).separator, manifest.columns) == (delimiter, (*COLUMNS, f"a\n{other * 9}"))
    quoted_first = f"{note}{delimiter}" + HEADER.replace(",", delimiter) + JAN.replace(",", delimiter)
    assert manifest_of(tmp_path, quoted_first).columns == (f"a\n{other * 9}", *COLUMNS)


def test_columns_may_stand_in_any_order_and_case(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, " EMAIL ,File,Valid_From,CERTIFICATION_ID\njan@example.org,jan.pdf,2026-01-31,7\n")

    assert manifest.columns == ("email", "file", "valid_from", "certification_id")
    assert the_upload(manifest) == CertificateUpload(
        file=tmp_path / "jan.pdf", certification_id=7, email="jan@example.org", valid_from=date(2026, 1, 31)
    )


def test_unknown_columns_are_kept(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER.replace("\n", ",Naam\n") + JAN.replace("\n", ",Jan Jansen\n"))

    assert manifest.columns == (*COLUMNS, "naam")
    assert list(manifest) == [Row(2, JANS_CELLS | {"naam": "Jan Jansen"})]
    assert manifest.unused == ("Naam",)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (
            "file,email,naam,certification_id\n",
            f"row 1 lacks valid_from {SAY_WHICH.format('valid_from')}; it has file, email, naam, certification_id",
        ),
        ("", "is empty: it must have a row for each certificate, below the names of the columns"),
        (
            HEADER.replace("conversion_id", "Email"),
            "row 1: columns 3 and 6 have the same title, “email”: rename or delete the others",
        ),
    ],
    ids=["columns missing", "empty file", "a column twice"],
)
def test_a_bad_header_is_reported(tmp_path: Path, header: str, reason: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, header)

    assert (caught.value.manifest, caught.value.reason) == (tmp_path / "certificates.csv", reason)


def test_unknown_columns_may_have_the_same_title(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, f"naam,naam,{HEADER}Jan,Jansen,{JAN}")

    assert [{*row.cells.values()} >= {"Jan", "Jansen"} for row in manifest] == [True]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"\x1b[31mfile\tname,email\n", r"'\x1b[31mfile\tname', email"),
        (b'"file\nname"\n', r"'file\nname'"),
        (b"x" * 1000, "x" * 500 + "…"),
    ],
    ids=["tabs and escapes", "a newline", "a long name"],
)
def test_invisible_letters_in_a_header_are_shown(tmp_path: Path, header: bytes, found: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, header)

    assert caught.value.reason.partition("; ")[2] == f"it has {found}"


def test_more_columns_than_a_spreadsheet_has_are_refused(tmp_path: Path) -> None:
    """Each row would take time and memory for all of them."""
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, HEADER.replace("\n", "," * 100_000 + "\n") + JAN)

    assert caught.value.reason == "row 1 has 100006 columns; the maximum is 16384"


def test_a_million_columns_are_refused_before_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "certificates.csv"
    path.write_text(HEADER.strip() + "," * 1_000_000)

    with memory_below(4 * 1024 * 1024), pytest.raises(ManifestError) as caught:
        Manifest.open(path)

    assert caught.value.reason == TOO_LONG.replace("row 3", "row 1")


def test_as_many_columns_as_a_spreadsheet_has_are_taken(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER.replace("\n", "," * (16_384 - 6) + "\n") + JAN)

    assert (len(manifest.columns), the_upload(manifest).conversion_id) == (16_384, 5)


def test_columns_without_a_name_may_be_many(tmp_path: Path) -> None:
    """Spreadsheets write them when there was something to the right of the table."""
    manifest = manifest_of(tmp_path, HEADER.replace("\n", ",,\n") + JAN.replace("\n", ",,\n"))

    assert the_upload(manifest) == the_upload(manifest_of(tmp_path, HEADER + JAN))


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.open(tmp_path)

    assert caught.value.reason.startswith("is a folder: name the spreadsheet in it")


def test_a_missing_manifest_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.open(tmp_path / "none.csv")

    assert str(caught.value) == f"{tmp_path / 'none.csv'}: there is no such file: check its name and folder"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK], ids=["pipe", "socket"])
def test_other_kinds_of_files_are_reported_and_not_waited_for(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "certificates.csv"
    os.mknod(path, kind | 0o600)
    (tmp_path / "checked").mkdir()
    manifest = manifest_of(tmp_path / "checked", HEADER + JAN)
    manifest.path.unlink()
    manifest.path.symlink_to(path)

    with pytest.raises(ManifestError) as caught:
        without_waiting(path, lambda: Manifest.open(path))
    assert str(caught.value) == f"{path}: is not a regular file"
    with pytest.raises(ManifestError, match="is not a regular file"):  # it became one after the check
        without_waiting(path, lambda: numbers(manifest))


def test_a_pipe_that_replaces_the_manifest_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN)
    swap_after_a_look(monkeypatch, manifest.path, becomes_a_pipe)

    with pytest.raises(ManifestError, match="is not a regular file"):
        without_waiting(manifest.path, lambda: numbers(manifest))


def test_a_device_without_an_end_is_reported() -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.open(Path("/dev/zero"))

    assert str(caught.value) == "/dev/zero: is not a regular file"


def test_a_link_to_itself_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to("loop.csv")

    with pytest.raises(ManifestError, match="is a link that leads in a circle"):
        Manifest.open(tmp_path / "loop.csv")


@pytest.mark.parametrize("name", ["manifest\0.csv", "manifest\ud800.csv"])
def test_an_invalid_file_name_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.open(tmp_path / name)

    assert (caught.value.manifest, caught.value.reason) == (tmp_path / name, "is not a valid file name")


def test_a_manifest_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    """Reading the start of a process's memory fails as a broken disk does."""
    manifest = manifest_of(tmp_path, HEADER + JAN)
    manifest.path.unlink()
    manifest.path.symlink_to("/proc/self/mem")

    with pytest.raises(ManifestError, match="Input/output error"):
        Manifest.open(manifest.path)
    with pytest.raises(ManifestError, match="Input/output error"):
        numbers(manifest)


# --- the rows ---


def test_empty_rows_are_passed_over_and_numbered(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + "\n" + JAN + ",,,,,\n  , ,,,,\n" + JAN)

    assert numbers(manifest) == [3, 6]


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert numbers(manifest_of(tmp_path, HEADER)) == []
    assert numbers(manifest_of(tmp_path, HEADER.rstrip("\n"))) == []


def test_a_quoted_newline_stays_in_its_cell_and_makes_no_row(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER.replace("\n", ",note\n") + 'a.pdf,7,,,,,"one\r\ntwo, ""three"""\n' + JAN)

    first, second = manifest

    assert first.cells["note"] == 'one\r\ntwo, "three"'
    assert (second.number, second.cells["file"]) == (3, "jan.pdf")


def test_line_ends_may_be_mixed(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER.strip() + "\r\n" + JAN + JAN.strip() + "\r" + JAN.strip() + "\r\n" + JAN)

    assert [row.cells for row in manifest] == [JANS_CELLS] * 4
    assert numbers(manifest) == [2, 3, 4, 5]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_separator_is_that_of_the_header(tmp_path: Path, line_end: str) -> None:
    manifest = manifest_of(tmp_path, (HEADER + JAN.replace("jan", ";" * 9)).replace("\n", line_end))

    assert (csv_table_of(manifest).separator, manifest.columns, numbers(manifest)) == (",", COLUMNS, [2])


def test_the_rows_can_be_read_again(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN + JAN)

    assert numbers(manifest) == numbers(manifest) == [2, 3]


def test_cells_that_a_short_row_lacks_are_empty(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + "jan.pdf,7,jan@example.org,2026-01-31\n")

    assert list(manifest) == [Row(2, JANS_CELLS | {"valid_until": "", "conversion_id": ""})]
    assert the_upload(manifest).valid_until is None


def test_required_cells_that_a_short_row_lacks_are_faults(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + "jan.pdf,7\n")

    assert the_faults(manifest) == (Fault("email", "is missing"), Fault("valid_from", "is missing"))


def test_more_cells_than_columns_are_a_fault(tmp_path: Path) -> None:
    """An unquoted delimiter in a cell moves all cells behind it, so such a row means something else than it says."""
    manifest = manifest_of(tmp_path, HEADER + JAN.replace("\n", ",rest,over\n"))

    assert the_faults(manifest) == (Fault("", "has more cells than there are columns: 'restover'"),)


def test_empty_cells_beyond_the_columns_are_no_fault(tmp_path: Path) -> None:
    assert the_upload(manifest_of(tmp_path, HEADER + JAN.replace("\n", ",,\n"))).conversion_id == 5


def test_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN.replace("jan.pdf", "2026/jan.pdf"))

    assert the_upload(manifest).file == tmp_path / "2026" / "jan.pdf"


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN.replace("jan.pdf", "/srv/jan.pdf"))

    assert the_upload(manifest).file == Path("/srv/jan.pdf")


def test_spaces_around_a_cell_mean_nothing(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + " jan.pdf ,7 , jan@example.org,2026-01-31 , 2031-01-31, 5\n")

    assert the_upload(manifest) == CertificateUpload(
        file=tmp_path / "jan.pdf",
        certification_id=7,
        email="jan@example.org",
        valid_from=date(2026, 1, 31),
        valid_until=date(2031, 1, 31),
        conversion_id=5,
    )


def dated(tmp_path: Path, *dates: tuple[str, str], order: DateOrder | None = None) -> Manifest:
    """Return a manifest with a row for each pair of dates."""
    rows = "".join(f"{n}.pdf,7,jan@example.org,{begin},{end},\n" for n, (begin, end) in enumerate(dates, start=2))
    path = tmp_path / "certificates.csv"
    path.write_text(HEADER + rows)
    return Manifest.open(path, Reading(dates=order))


def dates_of(manifest: Manifest) -> list[tuple[date, date | None]]:
    return [(fields.valid_from, fields.valid_until) for fields in map(manifest.fields, manifest)]


@pytest.mark.parametrize("cell", ["2026-03-04", "04-03-2026", "4.3.2026 00:00", "4 mrt 2026", "2026/03/04"])
def test_both_dates_may_have_any_form(tmp_path: Path, cell: str) -> None:
    assert dates_of(dated(tmp_path, (cell, cell))) == [(date(2026, 3, 4), date(2026, 3, 4))]


@pytest.mark.parametrize("cell", ["Never", "nooit", "", " "])
def test_an_end_may_be_never(tmp_path: Path, cell: str) -> None:
    assert dates_of(dated(tmp_path, ("2026-03-04", cell))) == [(date(2026, 3, 4), None)]


def test_a_beginning_is_a_date(tmp_path: Path) -> None:
    (fault,) = the_faults(dated(tmp_path, ("never", "")))

    assert fault == Fault("valid_from", "must be a date such as 2026-12-31 or 31-12-2026, not 'never'")


@pytest.mark.parametrize("proof", ["31/01/2026", "13/12/2026 10:00"])
def test_slashes_are_read_as_their_column_shows(tmp_path: Path, proof: str) -> None:
    manifest = dated(tmp_path, ("03/04/2026", "2031-01-01"), (proof, "2031-01-01"))

    assert dates_of(manifest)[0] == (date(2026, 4, 3), date(2031, 1, 1))


def test_slashes_may_begin_with_the_month(tmp_path: Path) -> None:
    manifest = dated(tmp_path, ("3/4/2026", "1/1/2031"), ("1/31/26", "12/31/2031"))

    assert dates_of(manifest) == [
        (date(2026, 3, 4), date(2031, 1, 1)),
        (date(2026, 1, 31), date(2031, 12, 31)),
    ]


def test_slashes_that_nothing_explains_are_faults(tmp_path: Path) -> None:
    """The other column explains nothing: it may come from another system."""
    manifest = dated(tmp_path, ("03/04/2026", "31/01/2031"))

    assert the_faults(manifest) == (
        Fault(
            "valid_from",
            "'03/04/2026' can be read in two ways, and no other date of this column shows which: use --dates dmy (the"
            " day first) or --dates mdy",
        ),
    )


def test_slashes_that_contradict_each_other_are_faults(tmp_path: Path) -> None:
    manifest = dated(tmp_path, ("31/01/2026", ""), ("01/31/2026", ""), ("03/04/2026", ""))

    for row in manifest:
        with pytest.raises(InvalidUpload) as caught:
            manifest.fields(row)
        (fault,) = caught.value.faults
        assert fault.reason == (
            f"{row.cells['valid_from']!r} can be read in two ways, because this column has both (31/01/2026 in row 2"
            " and 01/31/2026 in row 3): correct one of them"
        )


@pytest.mark.parametrize(("order", "month"), [("dmy", 4), ("mdy", 3)])
def test_slashes_are_read_as_the_user_says(tmp_path: Path, order: DateOrder, month: int) -> None:
    manifest = dated(tmp_path, ("03/04/2026", "31/01/2031"), order=order)

    assert manifest.reading.dates == order
    if order == "dmy":
        assert dates_of(manifest) == [(date(2026, month, 3), date(2031, 1, 31))]
    else:
        assert the_faults(manifest) == (Fault("valid_until", "there is no month 31 (--dates mdy was given)"),)


@pytest.mark.parametrize("cell", ["5-6-2026", "05.06.2026"])
@pytest.mark.parametrize(
    ("order", "beside"), [(None, ", beside 12/31/2026 in row 2"), ("mdy", ", beside 12/31/2026 in row 2")]
)
def test_a_date_that_excel_may_have_swapped_is_a_fault(
    tmp_path: Path, cell: str, order: DateOrder | None, beside: str
) -> None:
    """A Dutch Excel takes 5/6/2026 (6 May) for its own date, 5 June, and leaves 12/31/2026 as it is."""
    _, row = (manifest := dated(tmp_path, ("12/31/2026", ""), (cell, ""), order=order))

    with pytest.raises(InvalidUpload) as caught:
        manifest.fields(row)
    reason = f"{cell!r} may begin with the month{beside}: write it as in 2026-12-31"
    assert caught.value.faults == (Fault("valid_from", reason),)


@pytest.mark.parametrize(("wrong", "cell"), [("01-15-2026", "03-04-2026"), ("01.15.2026", "03.04.2026")])
def test_a_column_may_begin_with_the_month_before_dashes(tmp_path: Path, wrong: str, cell: str) -> None:
    """The first row is a fault, and without it the other one would be sent as of 3 April."""
    first, row, same = (manifest := dated(tmp_path, (wrong, ""), (cell, ""), ("04-04-2026", "")))

    with pytest.raises(InvalidUpload, match="begins with the month: write it as in 2026-12-31"):
        manifest.fields(first)
    with pytest.raises(InvalidUpload) as caught:
        manifest.fields(row)
    reason = f"{cell!r} may begin with the month, beside {wrong} in row 2: write it as in 2026-12-31"
    assert caught.value.faults == (Fault("valid_from", reason),)
    assert manifest.fields(same).valid_from == date(2026, 4, 4)


def test_dashes_beside_slashes_of_the_same_order_are_read(tmp_path: Path) -> None:
    manifest = dated(tmp_path, ("31/12/2026", ""), ("5-6-2026", ""))

    assert [begin for begin, _ in dates_of(manifest)] == [date(2026, 12, 31), date(2026, 6, 5)]


def test_the_digest_depends_on_what_the_user_says(tmp_path: Path) -> None:
    manifest = dated(tmp_path, ("05/06/2026", ""))
    day, month = (Manifest.open(manifest.path, Reading(dates=order)) for order in ("dmy", "mdy"))

    assert manifest.sha256 == day.sha256 == month.sha256 == manifest.table.sha256
    assert manifest.reading_digest == b""
    assert len({manifest.reading_digest, day.reading_digest, month.reading_digest}) == 3


def test_the_rows_are_not_read_twice_without_such_slashes(tmp_path: Path) -> None:
    manifest = dated(tmp_path, ("2026/03/04", "31-01-2031"))
    rows = list(manifest)
    manifest.path.unlink()

    assert manifest.fields(rows[0]).valid_from == date(2026, 3, 4)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("2026-02-29", "there is no 29 February 2026"),
        ("31-04-2026", "there is no 31 April 2026"),
        ("00.01.2026", "there is no 0 January 2026"),
        ("4-3-26", None),
        ("20260304", None),
        ("\u0662\u0660\u0662\u0666-03-04", None),  # digits to Python, but not to Springest
        ("46085", "(Excel's number of a day: format the column as dates)"),
    ],
)
def test_an_invalid_date_is_a_fault(tmp_path: Path, cell: str, reason: str | None) -> None:
    begins, ends = the_faults(dated(tmp_path, (cell, cell)))

    assert (begins.field, ends.field) == ("valid_from", "valid_until")
    assert begins.reason == ends.reason.removesuffix(" (leave it empty if there is no end)")
    expected = f"must be a date such as 2026-12-31 or 31-12-2026, not {cell!r}"
    if reason is None:
        assert begins.reason == expected
    else:
        assert begins.reason in (reason, f"{expected} {reason}")


@pytest.mark.parametrize("cell", ["seven", "7.5", "-7", "0x7", "7 7", "\u0667", "1" * 19])
def test_an_id_that_is_no_number_is_a_fault(tmp_path: Path, cell: str) -> None:
    manifest = manifest_of(tmp_path, HEADER + f"jan.pdf,{cell},jan@example.org,2026-01-31,,{cell}\n")

    assert the_faults(manifest) == (
        Fault("certification_id", f"must be a whole number such as 7, not {cell!r}"),
        Fault("conversion_id", f"must be a whole number such as 7, not {cell!r}"),
    )


@pytest.mark.parametrize("letter", ["1", "0", "x", "@", "\u202e", "é"])
def test_the_faults_of_long_cells_are_short(tmp_path: Path, letter: str) -> None:
    """People read them in a terminal."""
    cell = letter * 20_000
    manifest = manifest_of(tmp_path, HEADER + f"jan.pdf,{cell},{cell},{cell},{cell},{cell},{cell}\n")

    faults = the_faults(manifest)

    assert sorted(fault.field for fault in faults) == sorted(["", *COLUMNS[1:]])
    assert max(len(fault.reason) for fault in faults) < 500
    assert all(f"{letter!r}"[1:-1] * 5 in fault.reason for fault in faults)


def test_an_id_of_nought_is_a_fault(tmp_path: Path) -> None:
    """A cell that says something is never left out in silence."""
    manifest = manifest_of(tmp_path, HEADER + "jan.pdf,0,jan@example.org,2026-01-31,,0\n")

    assert the_faults(manifest) == (
        Fault("certification_id", "must be a whole number such as 7, not '0'"),
        Fault("conversion_id", "must be a whole number such as 7, not '0'"),
    )


def test_all_faults_of_a_row_are_reported_together(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + ",x,jan,yesterday,tomorrow,y,z\n")

    assert sorted(fault.field for fault in the_faults(manifest)) == sorted(["", *COLUMNS])


# --- the fields without the address's check, for a journal ---


def test_fields_are_what_the_cells_mean(tmp_path: Path) -> None:
    line = " jan.pdf ,007, Jan@example.org,31-1-2026,2031-01-31,5\n"
    manifest = manifest_of(tmp_path, HEADER + line + "jan.pdf,7,no address,2026-01-31,,\n")

    first, second = (manifest.fields(row) for row in manifest)

    assert first == Fields("jan.pdf", 7, "Jan@example.org", date(2026, 1, 31), date(2031, 1, 31), 5)
    assert second == Fields("jan.pdf", 7, "no address", date(2026, 1, 31), None, None)


@pytest.mark.parametrize(
    "line",
    [
        ",7,jan@example.org,2026-01-31,,",
        "jan.pdf,,jan@example.org,2026-01-31,,",
        "jan.pdf,0,jan@example.org,2026-01-31,,",
        "jan.pdf,x,jan@example.org,2026-01-31,,",
        "jan.pdf,7,,2026-01-31,,",
        "jan.pdf,7,jan@example.org,,,",
        "jan.pdf,7,jan@example.org,03/01/2026,,",
        "jan.pdf,7,jan@example.org,2026-01-31,x,",
        "jan.pdf,7,jan@example.org,2026-01-31,,x",
        "jan.pdf,7,jan@example.org,2026-01-31,,0",
        "jan.pdf,7,jan@example.org,2026-01-31,,,x",
    ],
)
def test_wrong_fields_are_reported_as_by_the_upload(tmp_path: Path, line: str) -> None:
    manifest = manifest_of(tmp_path, HEADER + line + "\n")
    (row,) = manifest

    with pytest.raises(InvalidUpload) as caught:
        manifest.fields(row)

    assert caught.value.faults == the_faults(manifest)


# --- how a file is written ---

ZOE = HEADER + JAN.replace("jan.pdf", "zoë.pdf")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (ZOE.encode(), "utf-8"),
        (b"\xef\xbb\xbf" * 2 + ZOE.encode(), "utf-8"),
        (ZOE.encode("utf-16"), "utf-16-le"),
        (ZOE.encode("utf-16-le"), "utf-16-le"),
        (b"\xfe\xff" + ZOE.encode("utf-16-be"), "utf-16-be"),
        (ZOE.encode("utf-16-be"), "utf-16-be"),
        (ZOE.encode("cp1252"), "cp1252"),
    ],
    ids=["UTF-8", "two byte order marks", "UTF-16", "unmarked", "big-endian", "unmarked big-endian", "Windows-1252"],
)
@pytest.mark.parametrize("before", [0, 3000])  # a file is decoded in pieces of 64 KiB
def test_a_manifest_may_be_in_any_common_encoding(tmp_path: Path, content: bytes, encoding: str, before: int) -> None:
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    ascii_rows = (JAN * before).encode("utf-8" if encoding == "utf-8" else encoding)
    line_at = len(content) - len(text.splitlines(keepends=True)[-1].encode(encoding))
    manifest = manifest_of(tmp_path, content[:line_at] + ascii_rows + content[line_at:])

    *_, last = manifest
    assert csv_table_of(manifest).encoding == encoding
    assert manifest.columns == COLUMNS
    assert last == Row(before + 2, JANS_CELLS | {"file": "zoë.pdf"})


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_first_line_may_name_the_separator(tmp_path: Path, separator: str, line_end: str) -> None:
    """Excel does not show that line, so it has no number."""
    text = f"sep={separator}\n" + (HEADER + JAN).replace(",", separator)

    manifest = manifest_of(tmp_path, text.replace("\n", line_end).encode("utf-16"))

    assert (csv_table_of(manifest).separator, manifest.header_row) == (separator, 1)
    assert list(manifest) == [Row(2, JANS_CELLS)]


@pytest.mark.parametrize(
    ("title", "rows"), [("Certificates, all of 2026; and more\n", 1), ("\n\n", 2), ('"Two\nlines"\n\n', 2)], ids=str
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_title_may_stand_above_the_columns(tmp_path: Path, title: str, rows: int, separator: str) -> None:
    manifest = manifest_of(tmp_path, title + (HEADER + JAN).replace(",", separator))

    assert (csv_table_of(manifest).separator, manifest.columns, manifest.header_row) == (separator, COLUMNS, rows + 1)
    assert list(manifest) == [Row(rows + 2, JANS_CELLS)]


def test_a_row_of_data_is_no_title(tmp_path: Path) -> None:
    """A sheet that was sorted together with the names of its columns."""
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, JAN + HEADER + JAN)

    assert caught.value.reason == "row 1 stands above the names of the columns, and is no title: put it below them"


def test_the_row_that_comes_nearest_to_the_columns_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, "Certificates 2026\n" + HEADER.replace("email", "whom") + JAN)

    names = HEADER.strip().replace("email", "whom").replace(",", ", ")
    assert caught.value.reason == f"row 2 lacks email {SAY_WHICH.format('email')}; it has {names}"


def test_quotes_below_a_title_are_no_obstacle(tmp_path: Path) -> None:
    header = ";".join(f'"{name}"' for name in COLUMNS)

    assert manifest_of(tmp_path, f"Certificates, issued in 2026, by HR\n{header}\n").columns == COLUMNS


def test_the_columns_are_not_looked_for_far_below(tmp_path: Path) -> None:
    assert manifest_of(tmp_path, "title\n" * 9 + HEADER).header_row == 10
    with pytest.raises(ManifestError) as caught:
        manifest_of(tmp_path, "title\n" * 10 + HEADER)

    assert caught.value.reason == NO_COLUMNS.removesuffix("none") + "title"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ((HEADER + JAN).encode("utf-8-sig") + b"\xff", "row 3: the file is not in UTF-8"),
        ((HEADER + JAN).encode("utf-16")[:-1], "after row 0: the file is not in UTF-16"),
    ],
    ids=["damaged UTF-8", "half of UTF-16"],
)
def test_what_is_no_csv_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ManifestError) as caught:
        list(manifest_of(tmp_path, content))

    assert caught.value.reason == f"{reason} (in Excel, save it as “CSV UTF-8”)"


@pytest.mark.parametrize("before", [0, 7, 1000, 5000])  # a file is decoded in pieces of 64 KiB
@pytest.mark.parametrize("other", ["zoë".encode(), b"\x81"], ids=["UTF-8 elsewhere", "no letter of Windows"])
def test_a_row_that_is_damaged_is_reported_by_its_number(tmp_path: Path, before: int, other: bytes) -> None:
    content = (HEADER + JAN * before).encode() + JAN.replace("jan", "josé").encode("cp1252") + JAN.encode()
    rows = iter(manifest_of(tmp_path, content + other + b".pdf,7,jan@example.org,2026-01-31,,\n"))

    assert [next(rows).number for _ in range(before)] == list(range(2, before + 2))
    with pytest.raises(ManifestError) as caught:
        next(rows)
    assert caught.value.manifest == tmp_path / "certificates.csv"
    assert caught.value.reason == f"row {before + 2}: the file is not in UTF-8 (in Excel, save it as “CSV UTF-8”)"


# --- what is no CSV ---


NEVER_CLOSED = 'a quote (") in it is never closed: delete it, or write it twice within quotes around the cell'
BEHIND = 'there is text behind the quote (") that ends a cell: write quotes within a cell twice'
TOO_LONG = "row 3 is not valid CSV: it is longer than 131072 characters (is a closing quote missing?)"


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ('"jan.pdf,7,jan@example.org,2026-01-31,,\n' + JAN, f"row 3 is not valid CSV: {NEVER_CLOSED}"),
        ('"jan".pdf,7,jan@example.org,2026-01-31,,\n', f"row 3 is not valid CSV: {BEHIND}"),
        ('"jan.pdf,7,jan@example.org,2026-01-31,,\n' + JAN * 4000, TOO_LONG),
        ("x" * 131_072 + ",7,,,,\n", TOO_LONG),
        ("," * 131_072 + "\n", TOO_LONG),
        ('"\n",' * 131_072 + "\n", TOO_LONG),
    ],
    ids=[
        "quote never closed",
        "quote closed too early",
        "quote never closed in a long manifest",
        "endless cell",
        "endless cells",
        "endless cells of many lines",
    ],
)
def test_a_row_of_invalid_csv_is_reported(tmp_path: Path, rest: str, reason: str) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN + rest)

    with pytest.raises(ManifestError) as caught:
        numbers(manifest)

    assert caught.value.reason == reason


def test_a_row_of_just_the_greatest_length_is_read(tmp_path: Path) -> None:
    line = JAN.replace("\n", ',"').ljust(131_070, "é") + '"\n'
    manifest = manifest_of(tmp_path, HEADER.replace("\n", ",note\n") + line * 3)

    assert numbers(manifest) == [2, 3, 4]


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.mark.parametrize("start", ["a title of more than a line", HEADER], ids=["as its header", "as a row"])
def test_a_line_of_a_hundred_megabytes_is_not_read_whole(tmp_path: Path, start: str) -> None:
    path = tmp_path / "certificates.csv"
    with path.open("w") as stream:
        stream.write(start)
        stream.truncate(100 * 1024 * 1024)  # the rest are NULs

    with memory_below(4 * 1024 * 1024), pytest.raises(ManifestError, match="it is longer than 131072 characters"):
        numbers(Manifest.open(path))


def test_long_cells_where_a_date_should_stand_are_not_remembered(tmp_path: Path) -> None:
    line = "jan.pdf,7,jan@example.org,{n}" + "x" * 50_000 + ",{n}" + "y" * 50_000 + "\n"
    manifest = manifest_of(tmp_path, HEADER + "".join(line.format(n=n) for n in range(100)))

    with memory_below(4 * 1024 * 1024):
        for row in manifest:
            with pytest.raises(InvalidUpload):
                manifest.upload(row)


def test_a_nul_is_kept_in_its_cell(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN.replace("jan.pdf", "j\0n.pdf"))

    assert the_upload(manifest).file == tmp_path / "j\0n.pdf"


def test_a_manifest_that_disappears_is_reported(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN)
    manifest.path.unlink()

    with pytest.raises(ManifestError, match="there is no such file"):
        numbers(manifest)


# --- what somebody saves meanwhile ---


def in_place(path: Path, content: str) -> None:
    path.write_text(content, newline="")


def anew(path: Path, content: str) -> None:
    other = path.with_name("other")
    other.write_text(content, newline="")
    other.replace(path)


@pytest.mark.parametrize("count", [200, 3000], ids=["one piece", "three pieces"])
@pytest.mark.parametrize(
    "content",
    [HEADER + JAN * 4000, HEADER + JAN * 100, HEADER, "", HEADER.replace("\n", ",a\n") + JAN * 200, "\xff" * 200_000],
    ids=["rows added", "rows taken away", "no rows", "emptied", "a column added", "something else"],
)
def test_a_manifest_changed_in_place_ends_before_new_rows(tmp_path: Path, content: str, count: int) -> None:
    """Rows of the piece that was read before are still as they were."""
    manifest = manifest_of(tmp_path, HEADER + JAN * count)
    rows = iter(manifest)
    found = [next(rows) for _ in range(3)]

    in_place(manifest.path, content)

    with pytest.raises(ManifestError) as caught:
        found.extend(rows)
    last = found[-1].number
    assert found == [Row(number, JANS_CELLS) for number in range(2, last + 1)]
    assert last <= 1500
    assert str(caught.value).endswith(
        f": was changed while springest was reading it (before row {last + 1}): run the same command again"
    )


def test_a_manifest_cut_off_between_two_pieces_is_reported(tmp_path: Path) -> None:
    """A file is read in pieces of 64 KiB; here a row ends where one ends, so the file is asked for the next row."""
    line = "jan.pdf,7,jan@example.org,2026-01-31,".ljust(63, "x") + "\n"
    header = HEADER.strip().removesuffix(",conversion_id").ljust(63) + "\n"
    manifest = manifest_of(tmp_path, header + line * 2000)
    rows = iter(manifest)
    assert [next(rows).number for _ in range(1023)][-1] == 1024

    in_place(manifest.path, "")

    with pytest.raises(ManifestError, match="was changed while springest was reading it"):
        next(rows)


@pytest.mark.parametrize("shift", range(0, 130, 7))
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_rows_are_the_same_wherever_a_piece_ends(tmp_path: Path, shift: int, line_end: str) -> None:
    """Cells of several lines, and line ends of two characters, are cut in all ways."""
    line = JAN.replace("\n", f',"a{line_end}{line_end}é\u2028,b"{line_end}')
    content = HEADER.strip() + f",note{'x' * shift}{line_end}" + line * 2500

    cells = [row.cells for row in manifest_of(tmp_path, content)]

    assert len(cells) == 2500
    note = f"a{line_end}{line_end}é\u2028,b"
    assert all(cell == JANS_CELLS | {f"note{'x' * shift}": note} for cell in cells)


def test_a_manifest_is_asked_for_once_a_piece_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN * 10_000)
    fstat = Mock(side_effect=os.fstat)
    monkeypatch.setattr(os, "fstat", fstat)

    assert len(numbers(manifest)) == 10_000
    assert fstat.call_count < 15  # of 480 KB


def test_a_change_before_the_run_is_reported_before_any_row(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN)

    anew(manifest.path, HEADER + JAN)

    with pytest.raises(ManifestError, match="was changed while springest was reading it"):
        numbers(manifest)


def test_the_hash_is_of_all_bytes_of_the_file(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + (HEADER + JAN * 5000).encode()

    assert manifest_of(tmp_path, content).table.sha256 == hashlib.sha256(content).digest()


@pytest.mark.parametrize("save", [in_place, anew])
def test_no_hash_of_a_manifest_changed_since_it_was_opened(tmp_path: Path, save: Callable[[Path, str], None]) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN)

    save(manifest.path, HEADER + JAN * 2)

    with pytest.raises(ManifestError, match="was changed while springest was reading it"):
        _ = manifest.table.sha256


def test_no_hash_of_a_manifest_that_is_gone(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, HEADER + JAN)
    manifest.path.unlink()

    with pytest.raises(ManifestError, match="there is no such file"):
        _ = manifest.table.sha256


def test_a_manifest_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    """Most programs save so; the open file stays unchanged."""
    manifest = manifest_of(tmp_path, HEADER + JAN * 400)
    rows = iter(manifest)
    next(rows)

    anew(manifest.path, HEADER)

    assert [row.number for row in rows] == list(range(3, 402))


def test_a_long_manifest_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    rows = 30_000
    manifest = manifest_of(tmp_path, HEADER + "jan.pdf,7,jan@example.org,2026-01-31\n" * rows)
    with memory_below(2 * 1024 * 1024):
        count = sum(1 for _ in manifest)

    assert count == rows


CELLS = st.text("jan@.exmplo0123456789-/\\ \0\u202eéß漢🎓\"'\n\r,;", max_size=24)
ROWS = st.lists(st.lists(CELLS, max_size=8), max_size=4)


@st.composite
def manifests(draw: st.DrawFn) -> bytes:
    """Bytes of any kind, mostly behind a good header, so that the rows are reached."""
    delimiter = draw(st.sampled_from([",", ";"]))
    start = draw(st.sampled_from(["", HEADER, "\ufeff" + HEADER])).replace(",", delimiter).encode()
    lines = draw(ROWS)
    rest = "\n".join(delimiter.join(cells) for cells in lines).encode()
    return start + draw(st.sampled_from([rest, draw(st.binary(max_size=200))]))


@given(content=manifests())
@example(content=HEADER.encode() + b"a,1,\xff@b.c,2026-01-01")
@example(content=HEADER.encode() + "a,1,a@\u202e.xn--a,2026-01-01".encode())
def test_any_bytes_are_rows_or_a_manifest_error(module_folder: Path, content: bytes) -> None:
    path = module_folder / "arbitrary.csv"
    path.write_bytes(content)
    with suppress(ManifestError):
        manifest = Manifest.open(path)
        for row in manifest:
            with suppress(InvalidUpload):
                assert manifest.upload(row).email == row.cells["email"].strip()
