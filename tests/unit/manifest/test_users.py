"""The list of people: found by id, external id or name, also after a spreadsheet has changed their ids."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from springest_async.errors import ManifestError
from springest_async.manifest.ids import Ids
from springest_async.manifest.users import NoUserError, Users
from springest_async.records import shown

PEOPLE = """ID;External ID;Name;Email
12;0045;Jan Jansen;jan@example.org
13;0046;"Vries, Piet de";piet@example.org
14;A-7;Zoë Bakker;zoe@example.org
15;;Jan Jansen;jan.jansen@example.org
16;0050;Kees Nomail;
17;0051;Wrong Mail;kees@example
18;n/a;#N/A;nobody@example.org
"""


def users_of(folder: Path, text: str) -> Users:
    (folder / "users.csv").write_text(text, "utf-8")
    return Users.open(folder / "users.csv")


@pytest.fixture
def people(tmp_path: Path) -> Users:
    return users_of(tmp_path, PEOPLE)


def refusal(users: Users, cell: str) -> str:
    with pytest.raises(NoUserError) as caught:
        users.email_of(cell)
    return caught.value.reason


def unreadable(folder: Path, text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        users_of(folder, text)
    return caught.value.reason


@pytest.mark.parametrize(
    ("cell", "email"),
    [
        ("12", "jan@example.org"),
        (" 12 ", "jan@example.org"),
        ("012", "jan@example.org"),
        ("12.0", "jan@example.org"),
        ("0045", "jan@example.org"),
        ("45", "jan@example.org"),
        ("45,0", "jan@example.org"),
        ("a-7", "zoe@example.org"),
        ("Zoë Bakker", "zoe@example.org"),
        ("ZOE\u0308  BAKKER", "zoe@example.org"),
        ("Bakker, Zoë", "zoe@example.org"),
        ("Piet de Vries", "piet@example.org"),
        ("Vries, Piet de", "piet@example.org"),
        ("de Vries, Piet", "piet@example.org"),
        ("Vries, de, Piet", "piet@example.org"),
        ("Jan@Example.org", "jan@example.org"),
    ],
)
def test_a_person_is_found(people: Users, cell: str, email: str) -> None:
    assert people.email_of(cell) == email


def test_a_list_tells_what_it_was_understood_as(people: Users) -> None:
    assert people.email_title == "Email"
    assert people.titles == ("ID", "External ID", "Name")
    assert people.unused == ()
    assert len(people) == 7
    assert len(people.sha256) == 32


def test_two_people_of_one_name_are_not_guessed(people: Users) -> None:
    assert refusal(people, "Jansen, Jan") == (
        "'Jansen, Jan' can be several people of users.csv (jan@example.org in row 2, jan.jansen@example.org in row 5):"
        " write the e-mail address of the right one instead"
    )


def test_an_id_that_lost_zeros_is_not_guessed(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id,email\n12,a@example.org\n0012,b@example.org\n")
    assert users.email_of("0012") == "b@example.org"
    assert "(a@example.org in row 2, b@example.org in row 3)" in refusal(users, "12")
    assert "(a@example.org in row 2, b@example.org in row 3)" in refusal(users, "012")


def test_an_id_with_separators_is_found_once(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id;email\n1234;a@example.org\n0001235;b@example.org\n1.236;c@example.org\n")
    for cell in ("1234", "1,234", "1.234", "1 234", "1234.0", "01234"):
        assert users.email_of(cell) == "a@example.org"
    assert users.email_of("1,235") == users.email_of("1235") == "b@example.org"
    assert users.email_of("1236") == users.email_of("1.236") == "c@example.org"


def test_an_id_with_decimals_may_be_the_plain_one(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id;email\n12;a@example.org\n12.0;b@example.org\n1.236;c@example.org\n")
    assert "can be several people" in refusal(users, "12.0")
    assert users.email_of("1,236") == "c@example.org"


def test_a_shortened_number_is_nobodys(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id;email\n1,23457E+11;a@example.org\n1E5;b@example.org\n")
    assert "a spreadsheet has shortened" in refusal(users, "1,23457E+11")
    assert users.email_of("1e5") == "b@example.org"


def test_an_id_of_one_and_external_id_of_another(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id,external_id,email\n1,2,a@example.org\n2,3,b@example.org\n")
    assert users.email_of("1") == "a@example.org"
    assert "can be several people" in refusal(users, "2")


def test_a_person_twice_in_the_list_is_one_person(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id,email\n1,A@example.org\n1,a@example.org\n1, a@example.org \n")
    assert users.email_of("1") == "A@example.org"


def test_an_address_that_is_another_ones_login(tmp_path: Path) -> None:
    users = users_of(tmp_path, "id,login,email\n1,b@example.org,a@example.org\n2,,b@example.org\n3,,\n4,,n/a\n")
    assert users.email_of("1") == "a@example.org"
    assert users.email_of("2") == "b@example.org"
    assert "can be several people" in refusal(users, "b@example.org")
    assert "has no e-mail address in row 4" in refusal(users, "3")
    assert "has no e-mail address in row 5" in refusal(users, "4")
    assert len(users) == 4


def test_an_address_may_be_missing_or_wrong(people: Users) -> None:
    assert refusal(people, "16") == "'16' has no e-mail address in row 6 of users.csv"
    assert refusal(people, "0051").startswith("row 7 of users.csv: 'kees@example' is not an e-mail address")


def test_a_person_without_address_is_another_one(tmp_path: Path) -> None:
    users = users_of(tmp_path, "name,email\nJan Jansen,a@example.org\nJan Jansen,\n")
    assert "(a@example.org in row 2, without one in row 3)" in refusal(users, "Jan Jansen")


@pytest.mark.parametrize("cell", ["99", "n/a", "#N/A", "0", "", "Smit"])
def test_who_is_not_in_the_list(people: Users, cell: str) -> None:
    assert refusal(people, cell) == f"{cell!r} is not in users.csv: correct it, or add this person there"


def test_the_nearest_name_is_shown(people: Users) -> None:
    assert "(the nearest is 'zoë bakker', in row 4)" in refusal(people, "Bakker, Zoe")
    assert "nearest" not in refusal(people, "0047")


def test_a_shortened_number_is_told_as_such(people: Users) -> None:
    reason = "'1.23457E+11' is a number that a spreadsheet has shortened: write the whole number, as text"
    assert refusal(people, "1.23457E+11") == reason


@pytest.mark.parametrize(
    ("titles", "row"),
    [
        ("Voornaam,Tussenvoegsel,Achternaam,E-mail", "Jan,de,Vries,jan@example.org"),
        ("Achternaam,E-mailadres,Roepnaam,Voorvoegsel", "Vries,jan@example.org,Jan,de"),
        ("Naam,Voornaam,Tussenvoegsels,Email address", "Vries,Jan,de,jan@example.org"),
        ("Nom,Prénom,Courriel", "de Vries,Jan,jan@example.org"),
        ("Name,Vorname,E-Mail-Adresse", "de Vries,Jan,jan@example.org"),
        ("Nom,Courriel", "Jan de Vries,jan@example.org"),
        ("Naam medewerker,E-mail", '"Vries, Jan de",jan@example.org'),
        ("First name,Given name,Surname,email,E-mail", "Johannes,Jan,de Vries,jan@example.org,home@example.org"),
    ],
)
def test_names_may_stand_in_several_columns(tmp_path: Path, titles: str, row: str) -> None:
    users = users_of(tmp_path, f"{titles}\n{row}\n")
    assert users.email_of("Jan de Vries") == users.email_of("de Vries, Jan") == "jan@example.org"


def test_half_a_name_is_nobody(tmp_path: Path) -> None:
    users = users_of(tmp_path, "Voornaam,Achternaam,Email\nJan,,a@example.org\n,Jansen,b@example.org\n")
    assert "is not in" in refusal(users, "Jan")
    assert "is not in" in refusal(users, "Jansen")


def test_a_workbook_with_a_title_row_is_read(tmp_path: Path) -> None:
    workbook = Workbook()
    workbook.active.title = "Uitleg"
    workbook.active.append(["Alle medewerkers"])
    sheet = workbook.create_sheet("Mensen")
    for cells in (["Medewerkers 2026"], [], ["Personeelsnummer", "E-mailadres"], [45, "jan@example.org"]):
        sheet.append(cells)
    workbook.save(tmp_path / "users.xlsx")
    users = Users.open(tmp_path / "users.xlsx")
    assert users.email_of("0045") == users.email_of("45") == "jan@example.org"


def test_two_lists_in_one_workbook_are_refused(tmp_path: Path) -> None:
    workbook = Workbook()
    for sheet in (workbook.active, workbook.create_sheet("Oud")):
        sheet.append(["ID", "Email"])
    workbook.save(tmp_path / "users.xlsx")
    with pytest.raises(ManifestError, match=r"more than one place: .* “Oud” .* Hide or delete the other sheets"):
        Users.open(tmp_path / "users.xlsx")
    assert len(Users.open(tmp_path / "users.xlsx", sheet="Oud")) == 0


def test_springests_list_of_employees_is_read(tmp_path: Path) -> None:
    users = users_of(tmp_path, "first_name,last_name,email_address,external_id\nJan,Jansen,jan@example.org,E1\n")
    assert users.email_of("e1") == users.email_of("Jan Jansen") == "jan@example.org"


def test_a_list_without_the_columns_is_refused(tmp_path: Path) -> None:
    assert unreadable(tmp_path, "") == "is empty: it must have a column of e-mail addresses, and one of ids or names"
    assert unreadable(tmp_path, "People\nid,phone\n1,2\n") == (
        "row 2 lacks a column of e-mail addresses (such as “Email”); it has id, phone"
    )
    assert unreadable(tmp_path, "email,phone\na@example.org,2\n") == (
        "row 1 lacks a column of ids or names (such as “ID”, “External ID” or “Name”); it has email, phone"
    )
    assert unreadable(tmp_path, "id,E-mail,E-mail werk\n") == (
        "row 1: “E-mail” and “E-mail werk” can each be the e-mail address: rename the others"
    )


def test_a_list_that_is_no_csv_is_refused(tmp_path: Path) -> None:
    assert unreadable(tmp_path, 'id,email\n1,"a@example.org\n').startswith("row 2 is not valid CSV")
    assert unreadable(tmp_path, 'id,email,"name\n').startswith("row 1 is not valid CSV")
    assert unreadable(tmp_path, 'id,phone\n1,2;"a" b\n') == (
        "row 1 lacks a column of e-mail addresses (such as “Email”); it has id, phone"
    )


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file"):
        Users.open(tmp_path / "users.csv")


@given(st.text())
def test_any_cell_is_a_person_or_refused(cell: str) -> None:
    ids = Ids()
    for key in ("7", "jan"):
        ids.add(key, 0)
    users = Users(Path("users.csv"), "email", ("id",), (), b"", ["a@example.org"], [2], ids)
    try:
        assert users.email_of(cell) == "a@example.org"
    except NoUserError as error:
        assert error.reason.startswith(shown(cell)[:100])  # noqa: PT017 # either is right
