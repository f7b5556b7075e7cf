"""Certifications by name, code or id, from Springest's list and from a file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from springest_async.errors import ManifestError
from springest_async.manifest.certifications import Certifications, NoCertificationError
from springest_async.records import Certification, shown

LISTED = [
    Certification(id=7, name="First Aid", requires_valid_until=True),
    Certification(id=8, name="Forklift"),
    Certification(id=12, name="Fire Safety 2024"),
]
SPRINGESTS = "ID,Name,Requires valid until\n7,First Aid,true\n8,Forklift,false\n"
CODES = "ID;Code;Name\n7;0012;BHV\n8;VCA-1;Heftruck\n9;1.234;\n"


def file_of(folder: Path, text: str) -> Certifications:
    (folder / "certifications.csv").write_text(text, "utf-8")
    return Certifications.open(folder / "certifications.csv")


def refusal(certifications: Certifications, cell: str) -> str:
    with pytest.raises(NoCertificationError) as caught:
        certifications.id_of(cell)
    return caught.value.reason


def unreadable(folder: Path, text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        file_of(folder, text)
    return caught.value.reason


@pytest.mark.parametrize("cell", ["First Aid", "first aid", " FIRST  AID ", "7", "7.0", "007"])
def test_a_certification_is_found_by_name_or_id(cell: str) -> None:
    assert Certifications.of(LISTED).id_of(cell) == 7


def test_a_list_of_springest_is_complete() -> None:
    certifications = Certifications.of(iter(LISTED))
    assert certifications.is_complete
    assert len(certifications) == 3
    assert list(certifications) == LISTED
    assert certifications.get(8) == LISTED[1]
    assert certifications.get(9) is None


def test_what_is_not_listed_is_refused() -> None:
    certifications = Certifications.of(LISTED)
    assert refusal(certifications, "99") == "'99' does not exist: springest certifications lists the 3 that do"
    assert refusal(certifications, "Fork lift") == (
        "'Fork lift' is no certification in the list of Springest (the nearest is “Forklift”, with the id 8):"
        " correct it, or put the id into a column certification_id; if all rows are of one certification, name it with"
        " --certification"
    )
    assert "nearest" not in refusal(certifications, "Fire Safety 2025")


@pytest.mark.parametrize("cell", ["", " ", "#N/A", "n/a", "-", "0", "nan"])
def test_a_cell_without_a_value_is_no_certification(cell: str) -> None:
    for name in ("#N/A", "-", "0"):
        with pytest.raises(NoCertificationError):
            Certifications.of([Certification(id=1, name=name)]).id_of(cell)


def test_names_without_a_list_are_counted_only() -> None:
    certifications = Certifications.unlisted()

    numbers = [certifications.id_of(cell) for cell in ("BHV", "VCA", " bhv", "7", "07")]

    assert numbers == [-1, -2, -1, 7, 7]
    assert certifications.get(-2) == Certification(id=-2, name="VCA")
    assert certifications.get(7) is None
    assert not certifications.is_complete
    assert "#N/A" in refusal(certifications, "#N/A")


def test_springests_own_file_is_read(tmp_path: Path) -> None:
    certifications = file_of(tmp_path, SPRINGESTS)
    assert list(certifications) == LISTED[:2]
    assert not certifications.is_complete
    assert certifications.id_of("forklift") == 8
    assert "is no certification in certifications.csv" in refusal(certifications, "12")


def test_what_this_command_lists_is_read(tmp_path: Path) -> None:
    text = "id,name,description,requires_valid_until\n7,First Aid,,True\n8,Forklift,Not for trucks,False\n"
    assert list(file_of(tmp_path, text)) == LISTED[:2]


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("BHV", 7),
        ("0012", 7),
        ("012", 7),
        ("12", 7),
        ("vca-1", 8),
        ("Heftruck", 8),
        ("1234", 9),
        ("1.234", 9),
        ("9", 9),
    ],
)
def test_a_certification_is_found_by_code(tmp_path: Path, cell: str, number: int) -> None:
    assert file_of(tmp_path, CODES).id_of(cell) == number


def test_a_file_adds_names_to_the_list_of_springest(tmp_path: Path) -> None:
    certifications = file_of(tmp_path, CODES).with_listed(LISTED)
    assert certifications.is_complete
    assert list(certifications) == LISTED
    assert certifications.id_of("BHV") == certifications.id_of("First Aid") == certifications.id_of("0012") == 7
    assert certifications.id_of("1.234") == 9  # which Springest does not list
    assert certifications.get(9) is None
    assert "in certifications.csv or the list of Springest" in refusal(certifications, "Yoga")


def test_a_code_that_is_also_an_id_is_not_guessed(tmp_path: Path) -> None:
    certifications = file_of(tmp_path, CODES).with_listed(LISTED)
    assert refusal(certifications, "12") == (
        "'12' can be several certifications (7, “First Aid”, 12, “Fire Safety 2024”):"
        " put the id of the right one into a column certification_id"
    )


def test_one_name_of_several_certifications_is_refused(tmp_path: Path) -> None:
    five = Certifications.of(Certification(id=number, name="BHV") for number in range(1, 6))
    assert "(1, “BHV”, 2, “BHV”, 3, “BHV” and others)" in refusal(five, "bhv")
    other = file_of(tmp_path, "ID,Name\n8,First Aid\n").with_listed(LISTED)
    assert "(7, “First Aid”, 8, “Forklift”)" in refusal(other, "First Aid")


def test_one_certification_may_have_several_names(tmp_path: Path) -> None:
    certifications = file_of(tmp_path, "ID,Name,Requires valid until\n7,BHV,\n7,First Aid,ja\n")
    assert certifications.id_of("BHV") == certifications.id_of("First Aid") == 7
    assert len(certifications) == 1
    assert [known.requires_valid_until for known in certifications] == [True]


def test_a_workbook_of_certifications_is_read(tmp_path: Path) -> None:
    workbook = Workbook()
    for cells in (["Certificeringen"], ["Certificering", "ID", "Einddatum verplicht"], ["BHV", 7, True]):
        workbook.active.append(cells)
    workbook.save(tmp_path / "list.xlsx")
    assert list(Certifications.open(tmp_path / "list.xlsx")) == [
        Certification(id=7, name="BHV", requires_valid_until=True)
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty: it must have the columns ID and Name"),
        ("Name\nBHV\n", "row 1 lacks a column “ID”; it has Name"),
        ("List\nID,Type\n7,x\n", "row 2 lacks a column “Name” or “Code”; it has ID, Type"),
        ("ID,Name,Certification ID\n", "row 1: “ID” and “Certification ID” can each be the id: rename the others"),
        ("ID,Name\nseven,BHV\n", "row 2: ID must be a whole number such as 7, not 'seven'"),
        ("ID,Name\n\n,BHV\n", "row 3: ID must be a whole number such as 7, not ''"),
        ("ID,Name\n0,BHV\n", "row 2: ID must be a whole number such as 7, not '0'"),
        (
            "ID,Name,Requires valid until\n7,BHV,perhaps\n",
            "row 2: Requires valid until must be yes or no, not 'perhaps'",
        ),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert unreadable(tmp_path, text) == reason


def test_the_digest_is_of_what_names_mean(tmp_path: Path) -> None:
    digest = Certifications.of(LISTED).digest
    assert Certifications.of(reversed(LISTED)).digest == digest
    assert Certifications.of(LISTED[:2]).digest == file_of(tmp_path, SPRINGESTS).digest != digest
    assert file_of(tmp_path, SPRINGESTS.replace("Forklift", "Yoga")).digest != Certifications.of(LISTED[:2]).digest


@given(st.text())
def test_any_cell_is_a_certification_or_refused(cell: str) -> None:
    certifications = Certifications.of(LISTED)
    try:
        assert certifications.get(certifications.id_of(cell)) in LISTED
    except NoCertificationError as error:
        assert error.reason.startswith(shown(cell))  # noqa: PT017 # either is right
