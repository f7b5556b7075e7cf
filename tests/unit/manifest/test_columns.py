"""What the titles of a manifest mean, in four languages and of other systems, and what they are not taken for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from springest_async.manifest import columns as module
from springest_async.manifest.columns import COLUMNS, KNOWN, Columns, ColumnsError, folded


def understood(titles: str, **mapping: str) -> dict[str, str]:
    return dict(Columns.of(titles.split(","), mapping).understood)


def refusal(titles: str, **mapping: str) -> str:
    with pytest.raises(ColumnsError) as caught:
        Columns.of(titles.split(","), mapping)
    return caught.value.reason


@pytest.mark.parametrize(
    ("system", "titles", "names"),
    [
        ("this library", ",".join(COLUMNS), ",".join(COLUMNS)),
        (
            "Springest",
            "User ID,Certification ID,Valid from,Valid until,Filename",
            "user,certification_id,valid_from,valid_until,file",
        ),
        (
            "Plusport",
            "File Name,User Code,Certificate Definition Code,Date Obtained,Date Expires",
            "file,user,certification,valid_from,valid_until",
        ),
        (
            "Credly",
            "Badge Template ID,Recipient Email,Issued to First Name,Issued to Last Name,Issued at,Expires at",
            "certification,email,issued to first name,issued to last name,valid_from,valid_until",
        ),
        ("Accredible", "Recipient Name,Recipient Email,Issued on", "user,email,valid_from"),
        ("Moodle", "Full name,Email address,Received,Expires,Code", "user,email,valid_from,valid_until,code"),
        (
            "NetDimensions",
            "USERID,CERTIFICATION_CODE,DATE_ACHIEVED,EXPIRE_DATE",
            "user,certification,valid_from,valid_until",
        ),
        (
            "Coachview",
            "Relatienummer,Opleidingscode,Datum behaald,Geldig t/m",
            "user,certification,valid_from,valid_until",
        ),
        ("enabley", "userId,courseName,completionDate,expiryDate", "user,certification,valid_from,valid_until"),
        (
            "German",
            "Datei,Zertifizierungs-ID,E-Mail-Adresse,gültig ab,gültig bis,Buchungs-ID",
            "file,certification_id,email,valid_from,valid_until,conversion_id",
        ),
        (
            "French",
            "Nom du fichier,ID de certification,Adresse e-mail,Valable à partir du,Valable jusqu\u2019au",
            "file,certification_id,email,valid_from,valid_until",
        ),
        ("Dutch", "Bestand,E-mailadres,Geldig vanaf,Geldig tot en met", "file,email,valid_from,valid_until"),
        ("older Springest", "email_address,booking_id", "email,conversion_id"),
    ],
)
def test_titles_of_other_systems_are_known(system: str, titles: str, names: str) -> None:
    columns = Columns.of(titles.split(","))
    assert columns.names == tuple(names.split(",")), system
    assert columns.titles == tuple(titles.split(","))


@pytest.mark.parametrize(
    "title",
    [
        "Gültig bis",
        "GÜLTIG BIS",
        "Gu\u0308ltig bis",
        "gueltig bis",
        "Gultig_bis",
        " gültig\xa0bis: ",
        "gültig\nbis",
        "Valid until",
        "valid-until",
        "VALID.UNTIL",
        "validUntil",
        "(Valid until)",
        "Valid until*",
        "Valide jusqu'au",
        "Valide jusqu\u2019au",
    ],
)
def test_a_title_is_known_however_it_is_written(title: str) -> None:
    columns = Columns.of(["x", title])
    assert columns.names == ("x", "valid_until")
    assert columns.titles[1] == title.strip()
    assert columns.title("valid_until") == " ".join(title.split())


@pytest.mark.parametrize(
    "title",
    [
        "Date",
        "Datum",
        "Name",
        "Naam",
        "ID",
        "Code",
        "Number",
        "Certificate",
        "Certificaat",
        "Certificate ID",
        "Certificate number",
        "From",
        "Until",
        "Start date",
        "Einddatum",
        "Date of birth",
        "Created at",
        "Manager e-mail",
        "Private email",
        "Booking number",
        "Valid",
        "Valid until further notice",
        "Not valid until",
        "URL",
        "",
    ],
)
def test_a_title_with_several_meanings_is_not_taken(title: str) -> None:
    columns = Columns.of([title, "Expires"])
    assert columns.understood == (("valid_until", "Expires"),)
    assert columns.names[0] == (title.lower() or "column 1")


def test_a_title_that_may_be_meant_is_offered() -> None:
    columns = Columns.of(["Naam", "Datum", "Expires", "Bestand"])
    assert {name: columns.possible(name) for name in KNOWN if columns.possible(name)} == {
        "file": ("Naam",),
        "valid_from": ("Datum",),
        "valid_until": ("Datum",),
        "user": ("Naam",),
        "certification": ("Naam",),
    }


def test_no_title_stands_for_two_columns() -> None:
    meanings = {name: module._LEVELS[0][name] | module._LEVELS[1].get(name, frozenset()) for name in KNOWN}
    for one, other in itertools.combinations(KNOWN, 2):
        assert not meanings[one] & meanings[other]
    for name, asked in module._QUESTIONS.items():
        assert not asked & frozenset().union(*meanings.values()), name


def test_every_name_of_ours_is_a_title() -> None:
    for name in KNOWN:
        for title in (name, name.upper(), name.replace("_", " ").title()):
            assert understood(title) == {name: title}


def test_our_own_name_wins_over_a_synonym() -> None:
    assert understood("E-mail,Email") == {"email": "Email"}
    assert understood("Expires,Valid until") == {"valid_until": "Valid until"}
    assert understood("Valid-until,valid_until") == {"valid_until": "valid_until"}


def test_an_unsure_title_gives_way_to_a_sure_one() -> None:
    assert understood("Received,Issued on") == {"valid_from": "Issued on"}
    assert understood("Document,Bestandsnaam") == {"file": "Bestandsnaam"}
    assert understood("Full name,Employee number") == {"user": "Employee number"}


def test_two_titles_of_one_column_are_refused() -> None:
    reason = refusal("Expires,Expiry date")
    assert reason == '“Expires” and “Expiry date” can each be valid_until: choose one with --map valid_until="Expires"'
    assert understood("Expires,Expiry date", valid_until="Expiry date") == {"valid_until": "Expiry date"}
    assert refusal("Received,Completion date").startswith("“Received” and “Completion date” can each be valid_from")


def test_the_same_title_twice_is_refused() -> None:
    assert refusal("a,Email,email") == "columns 2 and 3 have the same title, “Email”: rename or delete the others"


def test_titles_that_are_not_needed_may_be_double() -> None:
    columns = Columns.of(["User ID", "External ID", "Email"])
    assert columns.names == ("user id", "external id", "email")
    assert refusal("User ID,External ID").startswith("“User ID” and “External ID” can each be user")
    assert understood("certification_id,Course code,Course name") == {"certification_id": "certification_id"}


def test_unknown_columns_have_different_names() -> None:
    columns = Columns.of(["Notes", "notes ", "", "", "error", "file", "FILE"], {"file": "file"})
    assert columns.names == (
        "notes",
        "notes (column 2)",
        "column 3",
        "column 4",
        "error",
        "file",
        "file (column 7)",
    )
    assert columns.unused == ("Notes", "notes", "column 3", "column 4", "FILE")


def test_a_name_made_up_for_a_column_is_no_other_title() -> None:
    columns = Columns.of(["", "column 1", "notes (column 5)", "notes", "notes"])
    assert len(set(columns.names)) == 5


def test_a_mapped_title_is_taken_before_all_others() -> None:
    columns = Columns.of(["email", "E-mail werk", "Datum"], {"email": "e-mail werk", "valid_from": "Datum"})
    assert columns.names == ("email (column 1)", "email", "valid_from")
    assert columns.understood == (("email", "E-mail werk"), ("valid_from", "Datum"))
    assert columns.unused == ("email",)


def test_a_mapped_title_must_be_in_the_file() -> None:
    assert refusal("Naam,E-mail adres", email="E-mailadress") == (
        "--map email=…: there is no column “E-mailadress” (is “E-mail adres” meant?); the file has Naam, E-mail adres"
    )


def test_a_title_that_is_written_exactly_is_mapped() -> None:
    assert understood("code,Code,CODE", user="Code") == {"user": "Code"}
    assert "“c-o-d-e” can mean “code” (column 1), “Code” (column 2)" in refusal("code,Code", user="c-o-d-e")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("valid_untill", "valid_until"),
        ("Einddatum", "valid_until"),
        ("Geldig todt", "valid_until"),
        ("conversionid2", "conversion_id"),
        ("Booking", "conversion_id"),
        ("Naam", None),
        ("Opmerkingen", None),
        ("Afdeling", None),
    ],
)
def test_a_title_that_may_be_mistyped_is_known(title: str, name: str | None) -> None:
    columns = Columns.of(["file", title])
    assert [known for known in ("valid_until", "conversion_id") if columns.nearly(known)] == [name] * bool(name)


def test_only_known_columns_are_mapped() -> None:
    reason = refusal("a", mail="a")
    assert reason.startswith("--map mail=…: there is no such column; the known ones are file, certification_id, email")


def test_an_empty_mapping_leaves_a_column_out() -> None:
    columns = Columns.of(["file", "Booking ID"], {"conversion_id": ""})
    assert columns.understood == (("file", "file"),)
    assert columns.unused == ("Booking ID",)


def test_one_title_may_be_mapped_twice() -> None:
    columns = Columns.of(["Login"], {"email": "login", "user": "Login"})
    assert columns.names == ("email",)
    assert columns.patterns["user"].fill({"email": " a@b.nl "}) == "a@b.nl"


def test_a_pattern_is_filled_with_cells() -> None:
    columns = Columns.of(["Recipient Email", "Nr.", "error"], {"file": "pdf/{Recipient Email}-{ nr }.pdf"})
    pattern = columns.patterns["file"]
    assert pattern.fill({"email": " a@b.nl ", "nr.": "7", "error": ""}) == "pdf/a@b.nl-7.pdf"
    assert pattern.fill({"email": "a@b.nl", "nr.": " ", "error": ""}) == "pdf/a@b.nl-.pdf"
    assert pattern.fill({"email": " ", "nr.": "", "error": ""}) == ""
    assert columns.understood == (("file", "pdf/{Recipient Email}-{ nr }.pdf"), ("email", "Recipient Email"))
    assert columns.title("file") == str(pattern) == "pdf/{Recipient Email}-{ nr }.pdf"
    assert columns.unused == ()


def test_a_pattern_may_use_the_names_of_known_columns() -> None:
    columns = Columns.of(["Recipient Email"], {"file": "{email}.pdf"})
    assert columns.patterns["file"].fill({"email": "a@b.nl"}) == "a@b.nl.pdf"
    displaced = Columns.of(["email", "Mail"], {"file": "{email}.pdf", "email": "Mail"})
    assert displaced.patterns["file"].names == ("email (column 1)",)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{Naam", "a brace in “{Naam” has no partner, as in {Naam}.pdf"),
        ("Naam}", "a brace in “Naam}” has no partner, as in {Naam}.pdf"),
        ("{Name}.pdf", "there is no column “Name” (is “Naam” meant?); the file has Naam"),
        ("{}.pdf", "there is no column “”; the file has Naam"),
        ("{valid_from}.pdf", "there is no column “valid_from”; the file has Naam"),
        ("{file}", "there is no column “file”; the file has Naam"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, reason: str) -> None:
    assert refusal("Naam", file=pattern) == f"--map file=…: {reason}"


def test_a_title_with_braces_is_a_title() -> None:
    assert understood("{id},x", user="{id}") == {"user": "{id}"}


def test_parts_of_a_name_are_put_together() -> None:
    columns = Columns.of(["Achternaam", "Tussenvoegsel", "Voornaam", "Cursus"])
    assert columns.understood == (("user", "{Voornaam} {Tussenvoegsel} {Achternaam}"), ("certification", "Cursus"))
    assert columns.unused == ()
    assert "user" in columns
    assert "user" not in Columns.of(["Voornaam", "Achternaam", "E-mail"])
    assert "user" not in Columns.of(["Voornaam", "Roepnaam", "Achternaam"])
    assert "user" not in Columns.of(["Voornaam"])
    assert "user" not in Columns.of(["Voornaam", "Voornaam", "Achternaam"])
    assert "user" not in Columns.of(["Naam", "Cursus"])
    assert understood("Naam,Voornaam") == {"user": "{Voornaam} {Naam}"}
    assert understood("Nom,Prénom,Nom de famille") == {"user": "{Prénom} {Nom de famille}"}
    assert "user" in Columns.of(["Voornaam", "Achternaam", "E-mail"], {"email": ""})
    assert "user" not in Columns.of(["Voornaam", "Achternaam"], {"user": ""})
    assert understood("First name,Last name,Employee number") == {"user": "Employee number"}


@given(st.lists(st.text(max_size=12) | st.sampled_from([*KNOWN, "error", "E-mail", "column 2", "notes (column 2)"])))
def test_names_are_always_different(titles: list[str]) -> None:
    try:
        columns = Columns.of(titles)
    except ColumnsError:
        return
    assert len(set(columns.names)) == len(columns.names) == len(titles)
    assert "" not in columns.names
    for name, title in columns.understood:
        assert name in KNOWN
        assert title


@given(st.text(max_size=20))
def test_folding_twice_changes_nothing(title: str) -> None:
    assert folded(folded(title)) == folded(title)
