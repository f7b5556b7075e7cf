"""The examples of docs/manifests.md: their files, as other systems make them, and the certificates that they mean.

What a system exports is described in the documentation of each; the people are invented.
"""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import xlwt
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from .example import Example, Stored, content, write_pdfs, write_text


def _zip(path: Path, *files: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file, (2025, 6, 1, 12, 0, 0)), content(file))


def _workbook(path: Path, sheets: Mapping[str, Iterable[Sequence[object]]], form: str = "dd-mm-yyyy") -> None:
    workbook = Workbook()
    assert workbook.active is not None
    workbook.remove(workbook.active)
    for title, rows in sheets.items():
        sheet: Worksheet = workbook.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for cells in sheet.iter_rows():
            for cell in cells:
                if isinstance(cell.value, date):
                    cell.number_format = form
    workbook.save(path)


# --- our own columns ---


def _plain(folder: Path) -> None:
    write_pdfs(folder, "jan.pdf", "zoë.pdf")
    write_text(
        folder / "certificates.csv",
        """
file,certification_id,email,valid_from,valid_until
jan.pdf,7,jan@example.org,2025-05-31,
zoë.pdf,12,zoe@example.org,2025-06-05,2035-06-05
""",
    )


_PLAIN = (
    Stored("jan.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("zoë.pdf", 12, "zoe@example.org", "2025-06-05", "2035-06-05"),
)


def _dutch(folder: Path) -> None:
    write_pdfs(folder, "diplomas/jan.pdf", "diplomas/zoë.pdf")
    _workbook(
        folder / "diplomas.xlsx",
        {
            "Diploma's": [
                ["Behaalde diploma's 2025"],
                [],
                ["Bestand", "Naam", "E-mailadres", "Certificering", "Behaald op", "Geldig tot"],
                ["jan.pdf", "Jan Jansen", "jan@example.org", "First aid", date(2025, 5, 31), None],
                ["zoë.pdf", "Zoë de Vries", "zoe@example.org", "VCA Basic", date(2025, 6, 5), date(2035, 6, 5)],
            ],
            "Toelichting": [["Vragen? Bel HR."]],
        },
    )


_DUTCH = tuple(
    Stored(f"diplomas/{one.file}", one.certification_id, one.email, one.valid_from, one.valid_until) for one in _PLAIN
)


def _sheets(folder: Path) -> None:
    write_pdfs(folder, "jan.pdf", "zoë.pdf")
    workbook = xlwt.Workbook()
    day = xlwt.easyxf(num_format_str="dd.mm.yyyy")
    titles = ["Datei", "E-Mail-Adresse", "Zertifizierung", "gültig ab"]
    row_of = {
        "2024": ["zoë.pdf", "zoe@example.org", "First aid", date(2024, 6, 5)],
        "2025": ["jan.pdf", "jan@example.org", "First aid", date(2025, 5, 31)],
    }
    for title, row in row_of.items():
        sheet = workbook.add_sheet(title)
        for column, cell in enumerate(titles):
            sheet.write(0, column, cell)
        for column, value in enumerate(row):
            sheet.write(1, column, value, *([day] if isinstance(value, date) else []))
    workbook.save(str(folder / "zertifikate.xls"))


_SHEETS = (Stored("jan.pdf", 7, "jan@example.org", "2025-05-31"),)


# --- Springest's own pair ---


def _springest(folder: Path) -> None:
    write_pdfs(folder, "First_Aid_2417_2019-12-31.pdf", "First_Aid_2418_2020-03-01.pdf", "VCA_2418_2029-05-01.pdf")
    write_text(
        folder / "certificates.csv",
        """
User ID,Certification ID,Valid from,Valid until,Filename
2417,7,2018-12-31,2019-12-31,First_Aid_2417_2019-12-31.pdf
2418,7,2019-03-01,2020-03-01,First_Aid_2418_2020-03-01.pdf
2418,12,2019-05-01,2029-05-01,VCA_2418_2029-05-01.pdf
""",
    )
    write_text(
        folder / "certifications.csv",
        """
ID,Name,Requires valid until
7,First aid,false
12,VCA Basic,true
""",
    )
    write_text(
        folder / "users.csv",
        """
id,first_name,last_name,email_address
2417,Jan,Jansen,jan@example.org
2418,Zoë,de Vries,zoe@example.org
""",
    )


_SPRINGEST = (
    Stored("First_Aid_2417_2019-12-31.pdf", 7, "jan@example.org", "2018-12-31", "2019-12-31"),
    Stored("First_Aid_2418_2020-03-01.pdf", 7, "zoe@example.org", "2019-03-01", "2020-03-01"),
    Stored("VCA_2418_2029-05-01.pdf", 12, "zoe@example.org", "2019-05-01", "2029-05-01"),
)


# --- other systems ---


def _plusport(folder: Path) -> None:
    _zip(folder / "certificates.zip", "00041_FA.pdf", "00042_VCA.pdf")
    _workbook(
        folder / "certificates.xlsx",
        {
            "Certificates": [
                ["File Name", "User Code", "Certificate Definition Code", "Date Obtained", "Date Expires"],
                ["00041_FA.pdf", "00041", "FA", date(2025, 5, 31), None],
                ["00042_VCA.pdf", "00042", "VCA", "05-06-2025", "05-06-2035"],
            ]
        },
    )
    write_text(folder / "certifications.csv", "ID;Name;Code\r\n7;First aid;FA\r\n12;VCA Basic;VCA\r\n")
    write_text(
        folder / "users.csv",
        "User Code;Full name;Email\r\n00041;Jan Jansen;jan@example.org\r\n00042;Zoë de Vries;zoe@example.org\r\n",
    )


_PLUSPORT = (
    Stored("00041_FA.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("00042_VCA.pdf", 12, "zoe@example.org", "2025-06-05", "2035-06-05"),
)


def _credly(folder: Path) -> None:
    write_pdfs(folder, "badges/jan@example.org.pdf", "badges/zoe@example.org.pdf")
    write_text(
        folder / "issued.csv",
        """
Badge Template ID,Recipient Email,Issued to First Name,Issued to Last Name,Issued at
3b1f0c9e-8a5d-4d0e-9a44-6f2f7a0c1d11,jan@example.org,Jan,Jansen,05/31/17
3b1f0c9e-8a5d-4d0e-9a44-6f2f7a0c1d11,zoe@example.org,Zoë,de Vries,06/05/17
""",
    )


_CREDLY = (
    Stored("badges/jan@example.org.pdf", 7, "jan@example.org", "2017-05-31"),
    Stored("badges/zoe@example.org.pdf", 7, "zoe@example.org", "2017-06-05"),
)


def _credly_api(folder: Path) -> None:
    write_pdfs(folder, "badges/a81.pdf", "badges/c07.pdf")
    write_text(
        folder / "issued.csv",
        """
id,badge_template_name,recipient_email,issued_at,expires_at
a81,First aid,jan@example.org,2014-04-01 09:41:00 -0500,
c07,VCA Basic,zoe@example.org,2014-06-05 14:03:27 -0500,2024-06-05 14:03:27 -0500
""",
    )


_CREDLY_API = (
    Stored("badges/a81.pdf", 7, "jan@example.org", "2014-04-01"),
    Stored("badges/c07.pdf", 12, "zoe@example.org", "2014-06-05", "2024-06-05"),
)


def _accredible(folder: Path) -> None:
    write_pdfs(folder, "Jan Jansen.pdf", "Zoë de Vries.pdf")
    _workbook(
        folder / "recipients.xlsx",
        {
            "Sheet1": [
                ["Recipient Name", "Recipient Email", "Issued on"],
                ["Jan Jansen", "jan@example.org", "5/31/17"],
                ["Zoë de Vries", "zoe@example.org", "6/5/17"],
            ]
        },
    )


_ACCREDIBLE = (
    Stored("Jan Jansen.pdf", 7, "jan@example.org", "2017-05-31"),
    Stored("Zoë de Vries.pdf", 7, "zoe@example.org", "2017-06-05"),
)


def _moodle(folder: Path) -> None:
    _zip(folder / "certificates.zip", "Jan Jansen_3K9dUw.pdf", "Zoë de Vries_77hQpA.pdf")
    write_text(
        folder / "issues.csv",
        """
Full name,Email address,Received,Expires,Code
Jan Jansen,jan@example.org,"Saturday, 31 May 2025, 9:41 AM",Never,3K9dUw
Zoë de Vries,zoe@example.org,"Thursday, 5 June 2025, 2:03 PM","Tuesday, 5 June 2035, 2:03 PM",77hQpA
""",
    )


_MOODLE = (
    Stored("Jan Jansen_3K9dUw.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("Zoë de Vries_77hQpA.pdf", 7, "zoe@example.org", "2025-06-05", "2035-06-05"),
)


def _moodle_alike(folder: Path) -> None:
    _zip(folder / "certificates.zip", "Jan Jansen/certificate.pdf", "Zoë de Vries/certificate.pdf")
    write_text(
        folder / "issues.csv",
        """
Full name,Email address,Received,Expires,Code
Jan Jansen,jan@example.org,31 May 2025,Never,3K9dUw
Zoë de Vries,zoe@example.org,5 June 2025,Never,77hQpA
""",
    )


_MOODLE_ALIKE = (
    Stored("Jan Jansen/certificate.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("Zoë de Vries/certificate.pdf", 7, "zoe@example.org", "2025-06-05"),
)


def _netdimensions(folder: Path) -> None:
    write_pdfs(folder, "jjansen_FA01.pdf", "zdevries_VCA01.pdf")
    write_text(
        folder / "records.csv",
        """
USERID,CERTIFICATION_CODE,DATE_ACHIEVED,EXPIRE_DATE
jjansen,FA01,31-MAY-2025,
zdevries,VCA01,05-JUN-2025,05-JUN-2035
""",
    )
    write_text(folder / "certifications.csv", "ID,Name,Code\n7,First aid,FA01\n12,VCA Basic,VCA01\n")
    _netdimensions_users(folder)


def _netdimensions_users(folder: Path) -> None:
    write_text(folder / "users.csv", "USERID,EMAIL\njjansen,jan@example.org\nzdevries,zoe@example.org\n")


_NETDIMENSIONS = (
    Stored("jjansen_FA01.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("zdevries_VCA01.pdf", 12, "zoe@example.org", "2025-06-05", "2035-06-05"),
)


def _netdimensions_title(folder: Path) -> None:
    write_pdfs(folder, "jjansen.pdf", "zdevries.pdf")
    write_text(
        folder / "records.csv",
        """
USERID,CERTIFICATION_TITLE,DATE_ACHIEVED,EXPIRE_DATE
jjansen,First aid,31-MAY-2025,
zdevries,VCA Basic,05-JUN-2025,05-JUN-2035
""",
    )
    _netdimensions_users(folder)


_NETDIMENSIONS_TITLE = (
    Stored("jjansen.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("zdevries.pdf", 12, "zoe@example.org", "2025-06-05", "2035-06-05"),
)


def _learnlinq(folder: Path) -> None:
    """Write an export that went through Excel, which has made 41 of 0041: tabs, and letters in Windows-1252."""
    write_pdfs(folder, "41.pdf", "42.pdf")
    write_text(
        folder / "export.txt",
        """
User ID\tTitle\tDate\tFile
41\tCafé safety\t31/05/2025\t41.pdf
42\tCafé safety\t05/06/2025\t42.pdf
""".replace("\n", "\r\n").lstrip("\r\n"),
        "cp1252",
    )
    write_text(folder / "users.csv", "ID;E-mail\r\n0041;jan@example.org\r\n0042;zoe@example.org\r\n")


_LEARNLINQ = (
    Stored("41.pdf", 15, "jan@example.org", "2025-05-31"),
    Stored("42.pdf", 15, "zoe@example.org", "2025-06-05"),
)


def _coachview(folder: Path) -> None:
    write_pdfs(folder, "jansen.pdf", "de vries.pdf")
    write_text(
        folder / "certificaten.csv",
        """
Persoonsnummer;Opleidingscode;Datum behaald;Geldig t/m;Bestandsnaam
41;012;31/05/2025;31/05/2035;jansen.pdf
42;012;05/06/2025;05/06/2035;de vries.pdf
""".replace("\n", "\r\n").lstrip("\r\n"),
        "utf-8-sig",
    )
    write_text(folder / "certifications.csv", "ID;Name;Code\r\n12;VCA Basic;012\r\n")
    write_text(
        folder / "personen.csv",
        "Nummer;Achternaam;E-mailadres\r\n0041;Jansen;jan@example.org\r\n0042;de Vries;zoe@example.org\r\n",
    )


_COACHVIEW = (
    Stored("jansen.pdf", 12, "jan@example.org", "2025-05-31", "2035-05-31"),
    Stored("de vries.pdf", 12, "zoe@example.org", "2025-06-05", "2035-06-05"),
)


def _enabley(folder: Path) -> None:
    _zip(folder / "export.zip", "41-First aid.pdf", "42-First aid.pdf")
    _workbook(
        folder / "export.xlsx",
        {
            "Report": [
                ["User ID", "Course Title", "Completion date", "Expiration date"],
                [41, "First aid", "31/05/2025", "31/05/2026"],
                [42, "First aid", "05/06/2025", "05/06/2026"],
            ]
        },
    )
    _workbook(
        folder / "users.xlsx",
        {"Users": [["User ID", "Email"], ["0041", "jan@example.org"], ["0042", "zoe@example.org"]]},
    )


_ENABLEY = (
    Stored("41-First aid.pdf", 7, "jan@example.org", "2025-05-31", "2026-05-31"),
    Stored("42-First aid.pdf", 7, "zoe@example.org", "2025-06-05", "2026-06-05"),
)


# --- what people have to decide, or to mend ---


def _slashes(folder: Path) -> None:
    write_pdfs(folder, "jan.pdf", "zoë.pdf")
    write_text(
        folder / "certificates.csv",
        """
file;certification_id;email;valid_from
jan.pdf;7;jan@example.org;05/06/2025
zoë.pdf;7;zoe@example.org;11/06/2025
""",
    )


_SLASHES = (
    Stored("jan.pdf", 7, "jan@example.org", "2025-06-05"),
    Stored("zoë.pdf", 7, "zoe@example.org", "2025-06-11"),
)


def _names(folder: Path) -> None:
    write_pdfs(folder, "2025/jan.pdf", "2025/zoë.PDF")
    write_text(
        folder / "certificates.csv",
        """
file,certification_id,email,valid_from
2025\\Jan,7,jan@example.org,2025-05-31
2025\\Zoë.pdf,7,zoe@example.org,2025-06-05
""",
    )


_NAMES = (
    Stored("2025/jan.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("2025/zoë.PDF", 7, "zoe@example.org", "2025-06-05"),
)


def _template(folder: Path) -> None:
    write_pdfs(
        folder,
        "diplomas/7_jan@example.org_31-05-2025.pdf",
        "diplomas/7_zoe@example.org_05-06-2025.pdf",
        "diplomas/scan0001.pdf",
    )


_TEMPLATE = (
    Stored("diplomas/7_jan@example.org_31-05-2025.pdf", 7, "jan@example.org", "2025-05-31"),
    Stored("diplomas/7_zoe@example.org_05-06-2025.pdf", 7, "zoe@example.org", "2025-06-05"),
)


def _faulty(folder: Path) -> None:
    write_pdfs(folder, "jan.pdf", "zoë.pdf")
    (folder / "an.pdf").write_text("<html><body>404 Not found</body></html>\n")
    write_text(
        folder / "certificates.csv",
        """
file,certification_id,email,valid_from,valid_until
jan.pdf,7,jan@example.org,2025-05-31,
zoë.pdf,12,zoe@example.org,2025-06-05,
an.pdf,7,an@example.org,2025-02-31,
ans.pdf,99,ans,2025-06-05,
""",
    )


_FAULTY = (Stored("jan.pdf", 7, "jan@example.org", "2025-05-31"),)


EXAMPLES: Mapping[str, Example] = {
    "plain": Example(_plain, _PLAIN),
    "dutch": Example(_dutch, _DUTCH),
    "sheets": Example(_sheets, _SHEETS),
    "springest": Example(_springest, _SPRINGEST),
    "slashes": Example(_slashes, _SLASHES),
    "names": Example(_names, _NAMES),
    "template": Example(_template, _TEMPLATE),
    "faulty": Example(_faulty, _FAULTY),
    "plusport": Example(_plusport, _PLUSPORT),
    "credly": Example(_credly, _CREDLY),
    "credly_api": Example(_credly_api, _CREDLY_API),
    "accredible": Example(_accredible, _ACCREDIBLE),
    "moodle": Example(_moodle, _MOODLE),
    "moodle_alike": Example(_moodle_alike, _MOODLE_ALIKE),
    "netdimensions": Example(_netdimensions, _NETDIMENSIONS),
    "netdimensions_title": Example(_netdimensions_title, _NETDIMENSIONS_TITLE),
    "learnlinq": Example(_learnlinq, _LEARNLINQ),
    "coachview": Example(_coachview, _COACHVIEW),
    "enabley": Example(_enabley, _ENABLEY),
}
