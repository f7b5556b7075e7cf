"""What the columns of a manifest are called: by us, by other systems in four languages, and by ``--map``.

A title is compared without its case, accents, dashes, underscores, spaces, dots and parentheses, and only as a whole:
"Valid until" is never found in "Valid until further notice". A title that may mean two things ("Date", "Name", "ID",
"Code") is not taken; `Columns.possible` has such titles for a message that asks. Two titles that mean the same are an
error, unless one of them is our own name. What the cells say is not known here.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Self

from attrs import frozen

COLUMNS = ("file", "certification_id", "email", "valid_from", "valid_until", "conversion_id")
"""The columns whose values are sent."""

KNOWN = (*COLUMNS, "user", "certification")
"""Beside them: a person by id, external id or name, and a certification by name or code."""

ERROR = "error"
"""The column of reasons in a manifest of failed rows, as `report` writes it; it is not sent."""

INSTEAD = {"user": "email", "certification": "certification_id"}
"""The columns with names of people and certifications, and those of their addresses and ids.

Beside the latter they are not needed, so that it does not matter which title means them.
"""

# Titles that can mean one thing only, in English, Dutch, German and French. Those of _PERHAPS are taken where no other
# title has that meaning, and those of _ASK never: in a list of certificates they may as well mean something else.
_TITLES = {
    "file": """
        file, file name, file path, PDF, PDF file, PDF file name, certificate file, certificate file name
        bestand, bestandsnaam, bestandnaam, naam bestand, pad naar bestand, PDF-bestand, certificaatbestand
        Datei, Dateiname, Dateipfad, PDF-Datei, Zertifikatsdatei, Name der Datei
        fichier, nom de fichier, nom du fichier, chemin du fichier, fichier PDF, fichier du certificat
        """,
    "certification_id": """
        certification id, id certification, id of certification
        certificering id, certificerings id, id certificering, id van certificering
        Zertifizierungs-ID, Zertifizierung ID, ID der Zertifizierung
        id de certification, id de la certification, identifiant de certification, identifiant de la certification
        """,
    "email": """
        email, email address, mail address, user email, user email address, recipient email, recipient email address
        employee email, employee email address, learner email, participant email, student email, work email
        emailadres, mailadres, emailadres medewerker, emailadres deelnemer, emailadres gebruiker, emailadres werk
        email medewerker, email deelnemer, email gebruiker, zakelijk emailadres, email werk
        E-Mail-Adresse, Mailadresse, E-Mail Mitarbeiter, E-Mail des Mitarbeiters, E-Mail Teilnehmer, E-Mail dienstlich
        adresse email, adresse mail, courriel, adresse courriel, adresse de courriel, adresse électronique
        adresse de messagerie, email du salarié, email du participant, email professionnel
        """,
    "valid_from": """
        valid from, valid from date, valid since, valid as of, start of validity, validity start, issue date
        date issued, date of issue, issued at, issued on, issuance date, date obtained, obtained on, date achieved
        achieved on, achieved at, award date, date awarded, awarded on, awarded at, certification date
        geldig vanaf, geldig van, geldig per, geldig sinds, geldigheid vanaf, begin geldigheid, begindatum geldigheid
        ingangsdatum geldigheid, datum behaald, behaald op, behaaldatum, datum van behalen
        datum afgifte, datum van afgifte, afgiftedatum, afgegeven op, uitgiftedatum, datum uitgifte, uitgegeven op
        certificaatdatum, datum certificaat, diplomadatum, datum diploma, datum verkregen, verkregen op
        gültig ab, gueltig ab, gültig von, gueltig von, gültig seit, gueltig seit, Gültigkeit ab, Gültigkeitsbeginn
        Beginn der Gültigkeit, ausgestellt am, Ausstellungsdatum, Datum der Ausstellung, erworben am, Erwerbsdatum
        erlangt am, Zertifizierungsdatum, Zertifikatsdatum
        valable à partir du, valable à partir de, valable à compter du, valable du, valable depuis, valide à partir du
        valide à partir de, valide à compter du, valide du, valide depuis, début de validité, début de la validité
        date de début de validité, date d'émission, émis le, date de délivrance, délivré le, date d'obtention, obtenu le
        """,
    "valid_until": """
        valid until, valid until date, valid till, valid to, valid to date, valid through, valid thru, end of validity
        validity end, expires, expires at, expires on, expire, expire date, expiry, expiry date, expiration
        expiration date, date expires, date of expiry, date of expiration, expired on, expired at
        geldig tot, geldig t/m, geldig t.e.m., geldig tot en met, datum geldig tot, geldigheid tot, einde geldigheid
        einddatum geldigheid, vervaldatum, vervalt op, verloopdatum, verloopt op, verloopt, vervalt, expiratiedatum
        gültig bis, gueltig bis, gültig bis einschließlich, gültig bis zum, Gültigkeit bis, Gültigkeitsende
        Ende der Gültigkeit, Ablaufdatum, läuft ab am, Verfallsdatum, Verfalldatum, verfällt am
        valable jusqu'au, valable jusqu'à, valable jusque, valide jusqu'au, valide jusqu'à, valide jusque, expire le
        date d'expiration, fin de validité, fin de la validité, date de fin de validité, date d'échéance
        """,
    "conversion_id": """
        conversion id, booking id
        conversie id, boeking id, boekings id
        Konversions-ID, Buchungs-ID
        id de conversion, id de réservation
        """,
    "user": """
        user, user id, user code, user number, external id, external user id, user external id, employee id
        employee number, employee no, employee code, personnel number, personnel id, staff id, staff number, learner id
        participant id, student id, student number, recipient id, person id
        gebruiker, gebruiker id, gebruikers id, gebruikersnummer, gebruikerscode, medewerker id, medewerkersnummer
        medewerkernummer, medewerkercode, personeelsnummer, personeels id, personeelsnr, deelnemer id, deelnemersnummer
        deelnemernummer, relatienummer, extern id, externe id, cursist id, cursistnummer
        Benutzer, Benutzer-ID, Benutzernummer, Mitarbeiter-ID, Mitarbeiternummer, Personalnummer, Personal-Nr
        Teilnehmer-ID, Teilnehmernummer, externe ID
        utilisateur, id utilisateur, id de l'utilisateur, identifiant utilisateur, matricule, numéro de matricule
        numéro de salarié, id salarié, id externe, identifiant externe, id participant
        """,
    "certification": """
        certification, certification name, certification code, certification title, name of certification
        certificate definition, certificate definition code, certificate definition name, badge template
        badge template id, badge template name
        certificering, certificering naam, certificeringsnaam, certificeringscode, naam certificering
        code certificering, naam van certificering
        Zertifizierung, Name der Zertifizierung, Zertifizierungsname, Zertifizierungscode
        nom de certification, nom de la certification, code de certification, code de la certification
        intitulé de la certification
        """,
}
_PERHAPS = {
    "file": """
        document, document name, attachment, path, documentnaam, bijlage
        Dokument, Dokumentname, Anhang, nom du document, pièce jointe
        """,
    "email": "mail",
    "valid_from": """
        issued, obtained, achieved, awarded, received, received on, date received, completed on, completed at
        completion date, date completed, date of completion
        behaald, afgegeven, afgerond op, datum afgerond, afrondingsdatum, voltooid op, datum voltooid, ontvangen op
        ausgestellt, erhalten am, abgeschlossen am, Abschlussdatum, absolviert am, bestanden am
        obtenu, délivré, terminé le, achevé le, réussi le, date de réussite
        """,
    "valid_until": "Ablauf, échéance",
    "user": """
        full name, user name, user full name, recipient, recipient name, employee, employee name, learner, learner name
        participant, participant name, student, student name, person, login
        volledige naam, gebruikersnaam, medewerker, naam medewerker, medewerkernaam, deelnemer, naam deelnemer
        deelnemernaam, cursist, naam cursist
        vollständiger Name, Benutzername, Mitarbeiter, Name des Mitarbeiters, Teilnehmer, Name des Teilnehmers
        nom complet, nom d'utilisateur, salarié, nom du salarié, participant, nom du participant, nom et prénom
        prénom et nom
        """,
    "certification": """
        certificate name, certificate title, certificate type, badge, badge name, credential, credential name, course
        course name, course title, course code, training, training name, training code, qualification
        certificaatnaam, naam certificaat, certificaattype, soort certificaat, diploma, naam diploma, opleiding
        opleidingsnaam, naam opleiding, opleidingscode, cursus, cursusnaam, naam cursus, cursuscode, kwalificatie
        Zertifikatsname, Name des Zertifikats, Kurs, Kursname, Kurstitel, Kurscode, Schulung, Qualifikation
        nom du certificat, intitulé du certificat, formation, nom de la formation, intitulé de la formation
        code formation, cours, nom du cours, diplôme
        """,
}
_ASK = {
    "file": """
        certificate, document id, name, url, link, certificaat, naam, pad, Zertifikat, Name, Pfad, certificat, nom
        chemin, lien
        """,
    "certification_id": """
        id, certificate id, certificate number, certificate no, certification number, certification no, course id
        certificaat id, certificaatnummer, certificaatnr, certificering nummer, certificeringsnummer, cursus id
        opleiding id, Zertifikat-ID, Zertifikats-ID, Zertifikatsnummer, Zertifizierungsnummer, Kurs-ID, id certificat
        id du certificat, numéro de certificat, numéro du certificat, numéro de certification, n° certification
        n° de certification, n° certificat, id formation
        """,
    "email": "private email, privé email, private E-Mail, email privé, contact, address, adres, Adresse",
    "valid_from": """
        date, from, start, start date, begin date, created, created at, created on, year, validity, course date
        exam date, effective date, effective from
        datum, van, vanaf, ingangsdatum, datum ingang, begindatum, startdatum, geldigheid, geldigheidsdatum
        cursusdatum, examendatum, jaar
        von, ab, Beginn, Startdatum, Gültigkeit, Kursdatum, Prüfungsdatum, le, du, de, début, date de début, validité
        date de formation
        """,
    "valid_until": """
        date, until, till, to, end, end date, due date, renewal date, validity, valid, datum, tot, t/m, einde, einddatum
        geldigheid, geldigheidsdatum, verlengen voor, bis, Ende, Enddatum, Gültigkeit, au, jusqu'au, fin, date de fin
        validité
        """,
    "conversion_id": "booking, booking number, boeking, boekingsnummer, Buchung, Buchungsnummer, numéro de réservation",
    "user": "id, code, name, number, naam, nummer, Nummer, nom, numéro, identifiant, reference, referentie",
    "certification": """
        certificate, certificate code, name, title, code, type, certificaat, naam, titel, soort, Zertifikat, Titel, Typ
        certificat, nom, titre, intitulé
        """,
}

_FIRST_NAME = """
    first name, given name, forename, recipient first name, issued to first name, voornaam, roepnaam, Vorname, prénom
    """
_MIDDLE_NAME = "middle name, tussenvoegsel, tussenvoegsels, voorvoegsel, voorvoegsels, infix"
_LAST_NAME = """
    last name, surname, family name, recipient last name, issued to last name, achternaam, familienaam, Nachname
    Familienname, nom de famille
    """

_PLACE = re.compile(r"\{([^{}]*)\}")
_MAX_LISTED_CHARS = 500
_NEAR = 0.8  # of 1, for the same title
_MOST_COMPARED = 500  # titles, each of which may take a millisecond


class ColumnsError(ValueError):
    """The titles do not tell which column is which.

    Attributes:
        reason: what is wrong and what to do, for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def folded(title: str) -> str:
    """Return what of a title is compared: its letters and digits, without case and accents."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", title).casefold()))


def titles_in(text: str) -> frozenset[str]:
    """Return the titles of a list with commas or line ends between them, each `folded`."""
    return frozenset(folded(title) for title in re.split(r"[,\n]", text) if folded(title))


def listed(names: Iterable[str]) -> str:
    """Return names as a list for a message, with invisible characters escaped, and shortened."""
    text = ", ".join(name if name.isprintable() else repr(name) for name in names) or "none"
    return text if len(text) <= _MAX_LISTED_CHARS else text[:_MAX_LISTED_CHARS] + "…"


FIRST_NAME, MIDDLE_NAME, LAST_NAME = map(titles_in, (_FIRST_NAME, _MIDDLE_NAME, _LAST_NAME))
"""The `folded` titles of the parts of a person's name."""

NAME = titles_in("name, naam, nom")
"""The `folded` titles of a whole name, or beside a first name of the last name."""

EMAIL = titles_in(_TITLES["email"])
"""The `folded` titles of a column of e-mail addresses."""

USER_IDS = titles_in(_TITLES["user"])
"""The `folded` titles of a column of ids of people."""

USER_NAMES = titles_in(_PERHAPS["user"])
"""The `folded` titles of a column of whole names of people, or of what they log in with."""

_LEVELS = tuple({name: titles_in(level.get(name, "")) for name in KNOWN} for level in (_TITLES, _PERHAPS))
_QUESTIONS = {name: titles_in(text) for name, text in _ASK.items()}


@frozen
class Pattern:
    """A text with cells put in, such as ``{Recipient Email}.pdf``.

    Attributes:
        text: the text, with the title of a column in each pair of braces.
        names: the name of each of these columns, in their order.
    """

    text: str
    names: tuple[str, ...]
    _pieces: tuple[str, ...]

    def fill(self, cells: Mapping[str, str]) -> str:
        """Return the text for a row; an empty one if all its cells are empty.

        Args:
            cells: the row, by the names of its columns.
        """
        values = [cells[name].strip() for name in self.names]
        if not any(values):
            return ""
        return "".join(piece + value for piece, value in zip(self._pieces, (*values, ""), strict=True))

    def __str__(self) -> str:
        return self.text


@frozen
class Columns:
    """The columns of a manifest, understood. Make it with `of`.

    Attributes:
        titles: as the file has them.
        names: of the same columns: a known one (`KNOWN`), else the title in lower case, or "column 3" without one; no
            name occurs twice.
        patterns: known columns that are put together from others.
    """

    titles: tuple[str, ...]
    names: tuple[str, ...]
    patterns: Mapping[str, Pattern]

    @classmethod
    def of(cls, titles: Sequence[str], mapping: Mapping[str, str] = MappingProxyType({})) -> Self:
        """Find out what each column is.

        Args:
            titles: the cells of the header.
            mapping: what the user has said: for a known column a title, a pattern, or an empty text if none has it.

        Raises:
            ColumnsError: two columns have the same meaning, or the mapping does not fit.
        """
        titles = tuple(title.strip() for title in titles)
        claims = _Claims(titles)
        for name, value in mapping.items():
            if name not in KNOWN:
                raise ColumnsError(f"--map {name}=…: there is no such column; the known ones are {', '.join(KNOWN)}")
            claims.claim_mapped(name, value)
        for name in COLUMNS:
            if name not in mapping:
                claims.claim(name)
        for name, instead in INSTEAD.items():
            if name not in mapping:
                claims.claim(name, needed=instead not in claims)
        names = tuple(claims.names())
        patterns = {name: _pattern(name, text, titles, names) for name, text in claims.patterns.items()}
        named = "user" in mapping or {"user", "email"} & claims.keys()
        if not named and (text := full_name(titles)):
            patterns["user"] = _pattern("user", text, titles, names)
        return cls(titles, names, patterns)

    def __contains__(self, name: str) -> bool:
        return name in self.patterns or name in self.names

    def title(self, name: str) -> str:
        """Return how the file calls a column, on one line for messages; its own name if the file has none."""
        if name in self.patterns:
            return self.patterns[name].text
        return (name in self.names and _on_one_line(self.titles[self.names.index(name)])) or name

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """The name and the title of each column that the file has."""
        return tuple(zip(self.names, self.titles, strict=True))

    @property
    def understood(self) -> tuple[tuple[str, str], ...]:
        """The known columns that the file has, each with its title or pattern."""
        return tuple((name, self.title(name)) for name in KNOWN if name in self)

    @property
    def unused(self) -> tuple[str, ...]:
        """The titles of the columns that are not known, and not part of a pattern; "column 3" for one without."""
        used = {*KNOWN, ERROR, *(name for pattern in self.patterns.values() for name in pattern.names)}
        columns = zip(self.titles, self.names, strict=True)
        return tuple(_on_one_line(title) or name for title, name in columns if name not in used)

    def meaning(self, name: str) -> tuple[str, ...]:
        """Return the titles that mean a known column, whether they are taken for it or not."""
        return tuple(
            _on_one_line(title)
            for title, used in zip(self.titles, self.names, strict=True)
            if name == used
            or _with_underscores(title) == name
            or any(folded(title) in level[name] for level in _LEVELS)
        )

    def possible(self, name: str) -> tuple[str, ...]:
        """Return the titles that may mean a known column, and are not taken for it unless the user says so."""
        meant = _QUESTIONS[name]
        free = (title for title, used in zip(self.titles, self.names, strict=True) if used not in KNOWN)
        return tuple(_on_one_line(title) for title in free if folded(title) in meant)

    def nearly(self, name: str) -> tuple[str, ...]:
        """Return the unused titles that may mean a known column, or are written almost like one that does."""
        possible, meant = self.possible(name), [title for level in _LEVELS for title in level[name]]
        meant.append(folded(name))

        def is_near(title: str) -> bool:
            return title in possible or bool(difflib.get_close_matches(folded(title), meant, n=1, cutoff=_NEAR))

        return tuple(title for title in self.unused[:_MOST_COMPARED] if is_near(title))


class _Claims:
    """Which known column each title is taken for."""

    def __init__(self, titles: tuple[str, ...]) -> None:
        self._titles = titles
        self._folded = tuple(map(folded, titles))
        self._claimed: dict[int, str] = {}  # position of a title → known column
        self.patterns: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def keys(self) -> frozenset[str]:
        return frozenset((*self._claimed.values(), *self.patterns))

    def claim_mapped(self, name: str, value: str) -> None:
        """Take what the user has said.

        Raises:
            ColumnsError: there is no such title, or there are several.
        """
        if not (value := value.strip()):
            return
        is_pattern = ("{" in value or "}" in value) and value not in self._titles
        position = None if is_pattern else _position(self._titles, value)
        if position is None and not is_pattern:
            raise ColumnsError(f"--map {name}=…: {_no_title(value, self._titles)}")
        if position is None or position in self._claimed:
            self.patterns[name] = value if position is None else f"{{{self._titles[position]}}}"
        else:
            self._claimed[position] = name

    def claim(self, name: str, *, needed: bool = True) -> None:
        """Take the title that means a column, if there is one.

        Raises:
            ColumnsError: several do, and the column is needed.
        """
        for meant in self._found(name):
            free = [position for position in meant if position not in self._claimed]
            if len(free) == 1:
                self._claimed[free[0]] = name
            elif free and needed:
                raise ColumnsError(self._several(name, free))
            if free:
                return

    def _found(self, name: str) -> Iterator[list[int]]:
        """Yield the positions of the titles that mean a column, from the surest to the least sure ones."""
        for ours in (str.lower, _with_underscores):
            yield [position for position, title in enumerate(self._titles) if ours(title) == name]
        for level in _LEVELS:
            yield [position for position, title in enumerate(self._folded) if title in level[name]]

    def _several(self, name: str, positions: Sequence[int]) -> str:
        titles = [_on_one_line(self._titles[position]) for position in positions]
        if len({title.lower() for title in titles}) < len(titles):
            numbers = " and ".join(str(position + 1) for position in positions)
            return f"columns {numbers} have the same title, “{titles[0]}”: rename or delete the others"
        each = " and ".join(f"“{title}”" for title in titles)
        return f"{each} can each be {name}: choose one with --map {name}={_quoted(titles[0])}"

    def names(self) -> Iterator[str]:
        """Yield a name for each column, all different."""
        taken = {*KNOWN, ""}
        for position, title in enumerate(self._titles):
            if (name := self._claimed.get(position)) is None:
                name = title.lower() or f"column {position + 1}"
                while name in taken:
                    name = f"{name} (column {position + 1})"
                taken.add(name)
            yield name


def _position(titles: Sequence[str], wanted: str) -> int | None:
    """Return the position of a title, as it is written or as it is compared; None if there is none.

    Raises:
        ColumnsError: several titles are the same, or are compared as the same.
    """
    for same in (str, str.lower, folded):
        found = [position for position, title in enumerate(titles) if same(title) == same(wanted) != ""]
        if len(found) > 1:
            several = ", ".join(f"“{titles[position]}” (column {position + 1})" for position in found)
            raise ColumnsError(f"“{wanted}” can mean {several}: rename the other columns")
        if found:
            return found[0]
    return None


def _no_title(wanted: str, titles: Iterable[str]) -> str:
    titles = [_on_one_line(title) for title in titles if title]
    near = difflib.get_close_matches(wanted.casefold(), [title.casefold() for title in titles], n=1)
    meant = next((f" (is “{title}” meant?)" for title in titles if [title.casefold()] == near), "")
    return f"there is no column “{wanted}”{meant}; the file has {listed(titles)}"


def _pattern(column: str, text: str, titles: Sequence[str], names: Sequence[str]) -> Pattern:
    """Return the pattern of a column; in its braces stand titles, or the names of known columns.

    Raises:
        ColumnsError: a brace or a title is wrong.
    """
    pieces = _PLACE.split(text)
    if any(brace in piece for piece in pieces[::2] for brace in "{}"):
        raise ColumnsError(f"--map {column}=…: a brace in “{text}” has no partner, as in {{{titles[0]}}}.pdf")
    found = []
    for wanted in pieces[1::2]:
        if (position := _position(titles, wanted.strip())) is not None:
            found.append(names[position])
        elif wanted.strip() in names:
            found.append(wanted.strip())
        else:
            raise ColumnsError(f"--map {column}=…: {_no_title(wanted, titles)}")
    return Pattern(text, tuple(found), tuple(pieces[::2]))


def full_name(titles: Sequence[str]) -> str:
    """Return the pattern of people's whole names, if they stand in several columns of which each is clear; else ""."""
    first, middle, last, name = (
        [title for title in titles if folded(title) in meant] for meant in (FIRST_NAME, MIDDLE_NAME, LAST_NAME, NAME)
    )
    if not len(first) == len(last or name) == 1 or len(middle) > 1:
        return ""
    return " ".join(f"{{{title}}}" for title in (*first, *middle, *(last or name)))


def _on_one_line(title: str) -> str:
    return " ".join(title.split())


def _with_underscores(title: str) -> str:
    return re.sub(r"[\s_-]+", "_", title.lower())


def _quoted(title: str) -> str:
    return f'"{title}"' if '"' not in title else f"'{title}'"
