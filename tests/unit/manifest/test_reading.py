"""Manifests that need to be told how to read them: columns, people, certifications and files of other systems."""

from datetime import date
from pathlib import Path

import pytest

from springest_async.errors import ConfigurationError, Fault, InvalidUpload, ManifestError
from springest_async.manifest.certifications import Certifications
from springest_async.manifest.manifest import Manifest, Row
from springest_async.manifest.reading import Reading
from springest_async.manifest.users import Users
from springest_async.records import Certification

OWN_PAIR = "User ID,Certification ID,Valid from,Valid until,Filename\n2417,7,2019-12-31,2024-12-31,First_Aid_2417.pdf\n"
PEOPLE = "ID,External ID,Name,Email\n2417,E-1,Jan Jansen,jan@example.org\n2418,E-2,Zoë Vos,zoe@example.org\n"
LISTED = Certifications.of(
    [
        Certification(id=7, name="First Aid", description=None, requires_valid_until=False),
        Certification(id=8, name="BHV", description=None, requires_valid_until=True),
    ]
)


def written(folder: Path, text: str, name: str = "certificates.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def users(folder: Path) -> Users:
    return Users.open(written(folder, PEOPLE, "users.csv"))


def rows(manifest: Manifest) -> list[Row]:
    return list(manifest)


def test_springests_own_pair_is_read_with_its_users(tmp_path: Path) -> None:
    manifest = Manifest.open(written(tmp_path, OWN_PAIR), Reading(users=users(tmp_path)))

    (upload,) = map(manifest.upload, manifest)

    assert (upload.email, upload.certification_id, upload.file) == (
        "jan@example.org",
        7,
        tmp_path / "First_Aid_2417.pdf",
    )
    assert (upload.valid_from, upload.valid_until) == (date(2019, 12, 31), date(2024, 12, 31))


def test_ids_of_users_need_a_list_of_users(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.open(written(tmp_path, OWN_PAIR))

    assert "row 1 has “User ID” and no email addresses" in caught.value.reason
    assert "--users FILE" in caught.value.reason


def test_an_unknown_user_is_a_fault(tmp_path: Path) -> None:
    manifest = Manifest.open(written(tmp_path, OWN_PAIR.replace("2417,", "99,")), Reading(users=users(tmp_path)))

    (row,) = rows(manifest)
    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)

    assert [fault.field for fault in caught.value.faults] == ["user"]


def test_an_address_in_the_row_counts_more_than_its_user(tmp_path: Path) -> None:
    text = "file,certification_id,email,user id,valid_from\n1.pdf,7,max@example.org,9999,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(users=users(tmp_path)))

    assert [manifest.fields(row).email for row in manifest] == ["max@example.org"]


@pytest.mark.parametrize(("email", "is_right"), [("Jan@Example.org", True), ("zoe@example.org", False)])
def test_an_address_of_another_person_is_a_fault(tmp_path: Path, email: str, is_right: bool) -> None:
    text = f"file,certification_id,email,user id,valid_from\n1.pdf,7,{email},2417,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(users=users(tmp_path)))

    (row,) = rows(manifest)
    if is_right:
        assert manifest.checked_fields(row).email == email
        return
    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)
    reason = (
        "'2417' has another address in users.csv than 'zoe@example.org' of the column “email”: correct one of the two,"
        " or empty one of the cells"
    )
    assert caught.value.faults == (Fault("user", reason),)


@pytest.mark.parametrize("name", ["", "First aid", "No certification is called this", "8"])
def test_an_id_may_have_any_other_name_beside_it(tmp_path: Path, name: str) -> None:
    """The name may be that of a course, and a number that of anything."""
    text = f"file,certification_id,email,course name,valid_from\n1.pdf,7,jan@example.org,{name},2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certifications=LISTED))

    assert [manifest.checked_fields(row).certification_id for row in manifest] == [7]


def test_the_name_of_another_certification_is_a_fault(tmp_path: Path) -> None:
    text = "file,certification_id,email,course name,valid_from\n1.pdf,7,jan@example.org,bhv,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certifications=LISTED))

    (row,) = rows(manifest)
    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)
    reason = (
        "'bhv' is not the certification 7 of the column “certification_id”: correct the name or the id, or empty one of"
        " them"
    )
    assert caught.value.faults == (Fault("certification", reason),)


@pytest.mark.parametrize("cell", ["BHV", "8"])
def test_a_certification_may_be_named(tmp_path: Path, cell: str) -> None:
    text = f"file,certification,email,valid_from\n1.pdf,{cell},jan@example.org,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certifications=LISTED))

    assert [manifest.fields(row).certification_id for row in manifest] == [8]


def test_a_name_without_a_list_is_a_fault_that_names_the_way_out(tmp_path: Path) -> None:
    text = "file,certification,email,valid_from\n1.pdf,BHV,jan@example.org,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text))

    (row,) = rows(manifest)
    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)

    (fault,) = caught.value.faults
    assert fault.field == "certification"
    assert "SPRINGEST_CERTIFICATIONS_API_KEY" in fault.reason
    assert "certifications.csv" in fault.reason


def test_a_name_in_a_column_of_ids_is_looked_up(tmp_path: Path) -> None:
    text = (
        "file,certification_id,email,valid_from\n1.pdf,7,a@example.org,2026-01-31\n2.pdf,{},b@example.org,2026-01-31\n"
    )
    manifest = Manifest.open(written(tmp_path, text.format("bhv")), Reading(certifications=LISTED))
    of_ids = Manifest.open(written(tmp_path, text.format("8"), "ids.csv"), Reading(certifications=LISTED))

    assert [manifest.fields(row).certification_id for row in manifest] == [7, 8]
    assert manifest.reading_digest  # which names are meant depends on the list
    assert not of_ids.reading_digest


def test_a_name_in_a_column_of_ids_needs_a_list(tmp_path: Path) -> None:
    text = "file,certification_id,email,valid_from\n1.pdf,bhv,jan@example.org,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text)).with_unlisted()

    (row,) = rows(manifest)
    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)
    assert caught.value.faults == (Fault("certification_id", "must be a whole number such as 7, not 'bhv'"),)


@pytest.mark.parametrize(
    ("named", "certifications", "reason"),
    [
        (
            "Firstaid",
            LISTED,
            "'Firstaid' is no certification in the list of Springest (the nearest is “First Aid”, with the id 7):",
        ),
        ("9", LISTED, "'9' does not exist: springest certifications lists the 2 that do"),
        ("First Aid", None, "there is no list of certifications to look it up: set SPRINGEST_CERTIFICATIONS_API_KEY,"),
    ],
)
def test_a_wrong_certification_of_all_rows_is_one_error(
    tmp_path: Path, named: str, certifications: Certifications | None, reason: str
) -> None:
    text = "file,email,valid_from\n1.pdf,jan@example.org,2026-01-31\n"
    reading = Reading(certification=named, certifications=certifications)
    manifest = Manifest.open(written(tmp_path, text), reading)

    with pytest.raises(ConfigurationError) as caught:
        manifest.check_certification()

    assert str(caught.value).startswith(f"--certification {named}: {reason}")
    assert manifest.understood == ("CSV in UTF-8, separated by “,”",)


@pytest.mark.parametrize("named", ["8", "BHV"])
def test_one_certification_may_be_that_of_all_rows(tmp_path: Path, named: str) -> None:
    text = "file,email,valid_from\n1.pdf,jan@example.org,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certification=named, certifications=LISTED))

    assert [manifest.fields(row).certification_id for row in manifest] == [8]


def test_columns_may_be_named_by_the_user(tmp_path: Path) -> None:
    text = "Document,Soort,Contact,Datum\n1.pdf,7,jan@example.org,31-12-2025\n"
    columns = {"file": "Document", "certification_id": "Soort", "email": "Contact", "valid_from": "Datum"}

    manifest = Manifest.open(written(tmp_path, text), Reading(columns=columns))

    assert [manifest.fields(row).email for row in manifest] == ["jan@example.org"]


def test_the_name_of_a_file_may_be_made_of_cells(tmp_path: Path) -> None:
    text = "Recipient Name,Recipient Email,Issued on\nJan,jan@example.org,2026-01-31\n"
    reading = Reading(columns={"file": "{Recipient Email}/{Recipient Name}.pdf"}, certification="7")

    manifest = Manifest.open(written(tmp_path, text), reading)

    assert [manifest.upload(row).file for row in manifest] == [tmp_path / "jan@example.org" / "Jan.pdf"]


def test_the_files_may_be_elsewhere(tmp_path: Path) -> None:
    text = "file,certification_id,email,valid_from\n1.pdf,7,jan@example.org,2026-01-31\n"

    manifest = Manifest.open(written(tmp_path, text), Reading(files=tmp_path / "pdfs"))

    assert [manifest.upload(row).file for row in manifest] == [tmp_path / "pdfs" / "1.pdf"]


def test_a_name_that_is_written_otherwise_is_taken_when_asked(tmp_path: Path) -> None:
    text = "file,certification_id,email,valid_from\nPDFS\\Jan,7,jan@example.org,2026-01-31\n"
    path = written(tmp_path, text)
    (tmp_path / "pdfs").mkdir()
    (tmp_path / "pdfs" / "jan.pdf").write_bytes(b"%PDF-1.4")

    as_it_is, fixed = (Manifest.open(path, Reading(fix_names=fix)) for fix in (False, True))

    assert [as_it_is.upload(row).file for row in as_it_is] == [tmp_path / "PDFS\\Jan"]
    assert [fixed.upload(row).file for row in fixed] == [tmp_path / "pdfs" / "jan.pdf"]


def test_what_the_user_says_has_a_digest(tmp_path: Path) -> None:
    path = written(tmp_path, "file,certification,email,valid_from\n1.pdf,7,jan@example.org,2026-01-31\n")
    readings = [
        Reading(),
        Reading(users=users(tmp_path)),
        Reading(certification="7"),
        Reading(certifications=LISTED),
        Reading(columns={"user": "email", "email": "file", "file": "email"}),
        Reading(dates="mdy"),
    ]

    digests = [Manifest.open(path, reading).reading_digest for reading in readings]

    assert digests[0] == b""
    assert len(set(digests)) == len(readings)


def test_where_the_files_are_does_not_make_another_manifest(tmp_path: Path) -> None:
    path = written(tmp_path, "file,certification_id,email,valid_from\n1.pdf,7,jan@example.org,2026-01-31\n")
    reading = Reading(files=tmp_path / "pdfs", fix_names=True, certifications=LISTED)

    assert Manifest.open(path, reading).reading_digest == b""


def test_an_apostrophe_of_a_lost_column_is_left_out_of_a_name(tmp_path: Path) -> None:
    """The column “error”, which says that the apostrophes are ours, was deleted."""
    text = "file,certification_id,email,valid_from\n'-1.pdf,7,jan@example.org,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text))

    found = []
    for name in ("-1.pdf", "'-1.pdf"):
        found += [manifest.fields(row).file for row in manifest]
        (tmp_path / name).touch()
    found += [manifest.fields(row).file for row in manifest]

    assert found == ["'-1.pdf", "-1.pdf", "'-1.pdf"]


def test_the_name_of_a_column_is_as_the_file_has_it(tmp_path: Path) -> None:
    text = "Bestandsnaam;Certificering ID;E-mailadres;Geldig vanaf\n1.pdf;7;jan@;31-12-2025\n"
    manifest = Manifest.open(written(tmp_path, text))

    (row,) = rows(manifest)
    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)

    (fault,) = caught.value.faults
    assert isinstance(fault, Fault)
    assert manifest.layout.title(fault.field) == "E-mailadres"


def test_a_date_may_be_made_of_other_columns(tmp_path: Path) -> None:
    text = "file,certification_id,email,day,month\n1.pdf,7,jan@example.org,5,12\n2.pdf,7,jan@example.org,31,12\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(columns={"valid_from": "{day}/{month}/2026"}))

    assert [manifest.fields(row).valid_from for row in manifest] == [date(2026, 12, 5), date(2026, 12, 31)]


def test_one_column_may_be_both_dates(tmp_path: Path) -> None:
    text = "file,certification_id,email,day\n1.pdf,7,jan@example.org,31/12/2026\n"
    both = Reading(columns={"valid_from": "day", "valid_until": "day"})

    manifest = Manifest.open(written(tmp_path, text), both)
    (fields,) = map(manifest.fields, manifest)

    assert fields.valid_from == fields.valid_until == date(2026, 12, 31)


def test_one_certification_for_all_needs_no_column(tmp_path: Path) -> None:
    text = "file,course code,course name,email,valid_from\n1.pdf,B,BHV,jan@example.org,2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certification="8"))

    assert [manifest.fields(row).certification_id for row in manifest] == [8]


def test_names_of_a_file_are_known_beside_listed_ones(tmp_path: Path) -> None:
    beside = Certifications.open(written(tmp_path, "ID,Name\n7,EHBO\n", "certifications.csv"))
    text = "file,certification,email,valid_from\n" + "".join(
        f"{name}.pdf,{name},jan@example.org,2026-01-31\n" for name in ("EHBO", "First Aid", "BHV")
    )
    manifest = Manifest.open(written(tmp_path, text), Reading(certifications=beside)).with_listed(LISTED)

    assert [manifest.fields(row).certification_id for row in manifest] == [7, 7, 8]


def test_how_it_is_understood_is_told(tmp_path: Path) -> None:
    text = "Bestand;E-mailadres;Geldig vanaf;Naam\n1.pdf;a@example.org;5/6/2026;A\n2.pdf;b@example.org;31/12/2025;B\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certification="7"))

    assert manifest.understood == (
        "CSV in UTF-8, separated by “;”; file is “Bestand”, email is “E-mailadres”, valid_from is “Geldig vanaf”",
        "certification is 7 for all rows",
        "Geldig vanaf: the day comes first in dates with slashes, as 31/12/2025 in row 3 shows",
    )


@pytest.mark.parametrize(
    ("titles", "unused"),
    [
        ("Certification ID,x", "; the column “Certification ID” is not used"),
        ("certification_id,Cursus", "; the columns “certification_id” and “Cursus” are not used"),
        ("x,y", ""),
    ],
)
def test_a_column_beside_one_certification_is_told(tmp_path: Path, titles: str, unused: str) -> None:
    text = f"file,email,valid_from,{titles}\n1.pdf,jan@example.org,2026-01-31,2,8\n"
    manifest = Manifest.open(written(tmp_path, text), Reading(certification="first aid", certifications=LISTED))

    assert manifest.understood == (
        "CSV in UTF-8, separated by “,”",
        f"certification is 7, “First Aid”, for all rows{unused}",
    )
    counted = Manifest.open(manifest.path, Reading(certification="First aid")).with_unlisted()
    assert counted.understood[1] == f"certification is “First aid” for all rows{unused}"
    assert not {"Cursus", "certification_id", "Certification ID"}.intersection(manifest.unused)


def test_the_lists_that_are_used_are_told(tmp_path: Path) -> None:
    text = "file,user,certification,valid_from\n1.pdf,Jan Jansen,EHBO,2026-01-31\n"
    people = Users.open(written(tmp_path, "Nr;Naam;E-mail\n41;Jan Jansen;jan@example.org\n", "medewerkers.csv"))
    beside = Certifications.open(written(tmp_path, "ID,Name\n7,EHBO\n", "certifications.csv"))
    manifest = Manifest.open(written(tmp_path, text), Reading(users=people, certifications=beside))

    assert manifest.with_listed(LISTED).understood[1:] == (
        "medewerkers.csv: 1 person, found by “Naam”; the address is “E-mail”; not used: “Nr”",
        "certifications.csv, beside the manifest, says which certifications are meant by names and codes",
    )


def test_nothing_is_told_of_dates_that_can_be_read_in_one_way(tmp_path: Path) -> None:
    text = "file,certification_id,email,valid_from\n1.pdf,7,jan@example.org,31-12-2025\n"

    assert Manifest.open(written(tmp_path, text)).understood == ("CSV in UTF-8, separated by “,”",)


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("email", "#N/A", "is the error of a formula (#N/A): correct the formula, or write the value itself"),
        ("valid_until", "#WERT!", "is the error of a formula (#WERT!): correct the formula, or write the value itself"),
        (
            "valid_until",
            "n.v.t.",
            "must be a date such as 2026-12-31 or 31-12-2026, not 'n.v.t.' (leave it empty if there is no end)",
        ),
    ],
)
def test_what_a_spreadsheet_left_in_a_cell_is_said(tmp_path: Path, column: str, cell: str, reason: str) -> None:
    cells = {"email": "jan@example.org", "valid_until": ""} | {column: cell}
    text = f"file,certification_id,valid_from,{','.join(cells)}\n1.pdf,7,2026-01-31,{','.join(cells.values())}\n"
    manifest = Manifest.open(written(tmp_path, text))
    (row,) = manifest

    with pytest.raises(InvalidUpload) as caught:
        manifest.checked_fields(row)

    assert caught.value.faults == (Fault(column, reason),)


@pytest.mark.parametrize("cell", ["7.0", "7,0", " 7.0"])
def test_a_whole_number_may_have_a_decimal_point(tmp_path: Path, cell: str) -> None:
    text = f"file;certification_id;email;valid_from\n1.pdf;{cell};jan@example.org;2026-01-31\n"
    manifest = Manifest.open(written(tmp_path, text))

    assert [manifest.fields(row).certification_id for row in manifest] == [7]


def test_a_file_of_the_very_name_is_taken_before_any_other(tmp_path: Path) -> None:
    rows = "'a.pdf,7,jan@example.org,2026-01-31\na.pdf,7,zoe@example.org,2026-01-31\n"
    text = f"file,certification_id,email,valid_from\n{rows}"
    for name in ("'a.pdf", "a.pdf"):
        (tmp_path / name).write_bytes(b"%PDF-1.4")
    manifest = Manifest.open(written(tmp_path, text), Reading(fix_names=True))

    assert [manifest.upload(row).file.name for row in manifest] == ["'a.pdf", "a.pdf"]
