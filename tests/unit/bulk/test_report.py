"""The result of a run: the totals, and a manifest of the rows that need correcting."""

import csv
import io
import os
import re
import resource
from collections import Counter
from contextlib import closing
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import attrs
import openpyxl
import pytest
import xlwt
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from springest_async import CertificateUpload, Certification, ConfigurationError, Journal, Receipt
from springest_async.bulk import (
    COLUMNS,
    LeftOut,
    Manifest,
    OpenMigration,
    Report,
    RowDone,
    RowSettling,
    RowStep,
    RunRecorder,
    State,
    load_manifest,
    write_failed,
)
from springest_async.bulk.failed_rows import write_failed_of_journal
from springest_async.bulk.rows import RowSet
from springest_async.errors import Fault, InvalidUpload, ManifestError
from springest_async.journal.records import Reason
from springest_async.manifest.csv_rows import CsvForm
from springest_async.manifest.reading import Reading
from springest_async.manifest.users import Users
from springest_async.upload import UploadStep
from tests.bulk_runs import NOW, ORIGIN, csv_table_of, found, loaded, manifest_of, rows_of, settle

HEADER = "Naam,file,certification_id,email,valid_from\n"
ROWS = 'Jan,1.pdf,7,jan@example.org,31-01-2026\n"Piet; ""de"", jr",2.pdf,8,piet@example.org,2026-02-01\n'
REASON = "rejected the certificate (400):\nno,  never; “never”"
STORED, REJECTED, FAILED, IN_DOUBT, WAITING = (
    State.STORED,
    State.REJECTED,
    State.FAILED,
    State.IN_DOUBT,
    State.WAITING,
)


def archive_of(folder: Path, text: str = HEADER + ROWS, name: str = "archive.csv") -> Manifest:
    return manifest_of(folder, text, name)


async def run(manifest: Manifest, *states: State, reason: str = REASON) -> Path | None:
    """Bring a manifest's rows to these states, in order, and write the failed ones."""
    async with loaded(manifest) as migration:
        await settle(migration, *states, reason=reason)
        return await write_failed(migration, manifest)


async def left_over(manifest: Manifest, *states: State, reason: str = REASON) -> Path:
    path = await run(manifest, *states, reason=reason)
    assert path is not None
    return path


def table(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter=delimiter))


def failed_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".failed" in path.name)


# --- the totals ---


async def test_totals_are_of_all_runs_and_posts_of_this_run(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path)
    async with loaded(manifest) as migration:
        await settle(migration, STORED)  # in an earlier run
        (second,) = await migration.entries(WAITING)
        recorder = RunRecorder()
        kinds: tuple[Literal["waiting", "sending", "refused", "unsent"], ...] = (
            *("waiting", "sending", "refused"),
            *("waiting", "sending", "unsent"),
            *("waiting", "sending"),
        )
        for number, kind in enumerate(kinds):
            recorder(RowStep(second, UploadStep(kind, number, NOW)))
        recorder(RowSettling(second))
        receipt = Receipt(id=1, upload=second.upload(), attempts=3, sent_at=NOW, answered_at=NOW)
        recorder(RowDone(second, STORED, receipt=receipt))
        before = await recorder.report(migration)
        await settle(migration, STORED)
        after = await recorder.report(migration)

    assert before == Report(counts=Counter({STORED: 1, WAITING: 1}), posts=3, refusals=1, stored=1)
    assert after == Report(counts=Counter({STORED: 2}), posts=3, refusals=1, stored=1)
    assert (after.rows, after.count(STORED), after.count(FAILED, WAITING)) == (2, 2, 0)


async def test_rows_stored_before_are_counted_apart(tmp_path: Path) -> None:
    """Some are found when the manifest is loaded, others when their file has been read."""
    manifest = archive_of(tmp_path)
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        migration, known = await load_manifest(journal, manifest, ORIGIN)
        jan, piet = await migration.entries()
        recorder = RunRecorder(attrs.evolve(known, known=5))
        recorder(RowDone(jan, STORED, stored_before=True))
        recorder(RowDone(piet, STORED))
        recorder(RowDone(attrs.evolve(piet, id=-1, number=None), STORED))  # a certificate of no row
        recorder(RowDone(jan, REJECTED))
        report = await recorder.report(migration)

    assert (report.stored, report.stored_before) == (1, 6)


async def test_the_states_add_up_to_the_rows(tmp_path: Path) -> None:
    rows = "".join(f"{n}.pdf,1,e{n}@example.org,2026-01-31\n" for n in range(15))
    manifest = archive_of(tmp_path, f"file,certification_id,email,valid_from\n{rows}")
    states = [STORED] * 5 + [REJECTED] * 4 + [FAILED] * 3 + [IN_DOUBT] * 2 + [WAITING]
    await run(manifest, *states)

    async with found(manifest) as migration:
        report = await RunRecorder().report(migration)

    assert report == Report(counts=Counter(states))
    assert report.rows == 15
    assert [report.count(state) for state in (STORED, REJECTED, FAILED, IN_DOUBT, WAITING)] == [5, 4, 3, 2, 1]


async def test_rows_still_sending_after_a_run_count_as_in_doubt(tmp_path: Path) -> None:
    async with loaded(archive_of(tmp_path)) as migration:
        await settle(migration, State.SENDING)
        report = await RunRecorder().report(migration)

    assert report.counts == Counter({IN_DOUBT: 1, WAITING: 1})
    assert (report.rows, report.count(IN_DOUBT), report.count(State.SENDING)) == (2, 1, 0)


def test_a_report_does_not_change_the_counts_it_is_given() -> None:
    counts = Counter({State.SENDING: 1, IN_DOUBT: 2})

    assert Report(counts=counts).count(IN_DOUBT) == 3
    assert counts == {State.SENDING: 1, IN_DOUBT: 2}


# --- the rows that need mending ---


@pytest.mark.parametrize("state", [REJECTED, FAILED])
async def test_rows_not_stored_are_written_with_the_reason(tmp_path: Path, state: State) -> None:
    path = await left_over(archive_of(tmp_path), STORED, state)

    assert path == tmp_path / "archive.failed.csv"
    assert table(path) == [
        ["Naam", "file", "certification_id", "email", "valid_from", "error"],
        [
            'Piet; "de", jr',
            "2.pdf",
            "8",
            "piet@example.org",
            "2026-02-01",
            "rejected the certificate (400): no, never; “never”",
        ],
    ]


@pytest.mark.parametrize("states", [(STORED, STORED), (WAITING, WAITING), (STORED, WAITING), (IN_DOUBT, IN_DOUBT)])
async def test_what_is_stored_waiting_or_in_doubt_needs_no_mending(tmp_path: Path, states: tuple[State, State]) -> None:
    """Uploading what is in doubt as it is might store it twice, so it must not be among those that are safe."""
    assert await run(archive_of(tmp_path), *states) is None

    assert failed_files(tmp_path) == []


async def test_only_what_the_manifest_names_is_written_down(tmp_path: Path) -> None:
    await left_over(archive_of(tmp_path), REJECTED, REJECTED)

    path = await left_over(archive_of(tmp_path, HEADER + ROWS.splitlines(keepends=True)[0]))

    assert path == tmp_path / "archive.failed-2.csv"
    assert [row[1] for row in table(path)] == ["file", "1.pdf"]


async def test_the_failed_rows_are_a_manifest_of_the_same_certificates(tmp_path: Path) -> None:
    columns = ",".join(reversed(COLUMNS))
    text = f"{columns}\n3,31.12.2027,1-2-2026,Jan@Example.org,7,sub/één.pdf\n,,2026-02-01,piet@example.org,8,2.pdf\n"
    manifest = archive_of(tmp_path, text)

    again = Manifest.open(await left_over(manifest, REJECTED, FAILED))

    assert again.columns == (*manifest.columns, "error")
    assert [again.fields(row) for row in again] == [manifest.fields(row) for row in manifest]
    assert [again.upload(row) for row in again] == [manifest.upload(row) for row in manifest]


def of_journal(migration: OpenMigration, manifest: Manifest) -> Path:
    """Write the failed rows by what the journal knows alone, in the form of the manifest."""
    path = manifest.path.with_name("of the journal.csv")
    with closing(migration.journal.connect()) as connection, connection.snapshot(), path.open("wb") as stream:
        write_failed_of_journal(connection, migration.id, stream, CsvForm.beside(manifest.table), lambda: None)
    return path


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["without a mark", "BOM"])
@pytest.mark.parametrize("separator", [",", ";", "|"])
async def test_the_journal_alone_makes_the_same_file(tmp_path: Path, separator: str, bom: bytes) -> None:
    text = "Naam,E-mail,Certification ID,Bestand,,valid_from,Team\n=Jan,jan@example.org,7,1.pdf,x,31-01-2026,\n"
    sep = f"sep={separator}\n" if separator == "|" else ""
    (path := tmp_path / "archive.csv").write_bytes(bom + (sep + text.replace(",", separator)).encode())
    manifest = Manifest.open(path)
    async with loaded(manifest) as migration:
        await settle(migration, REJECTED, reason=REASON)
        beside = await write_failed(migration, manifest)
        alone = of_journal(migration, manifest)

    assert beside is not None
    assert alone.read_bytes() == beside.read_bytes()
    assert b"Naam" in alone.read_bytes()


async def test_a_file_of_the_journal_alone_needs_no_options(tmp_path: Path) -> None:
    """What options have explained or added is in columns that explain themselves."""
    text = "Nr,Werk,Email,Datum,Tot,Code\n1,jan@example.org,other@example.org,2026-01-31,2027-01-31,7\n"
    (path := tmp_path / "archive.csv").write_text(text)
    columns = {"file": "{Nr}.pdf", "email": "Werk", "valid_from": "Datum", "valid_until": "{Tot}"}
    manifest = Manifest.open(path, Reading(columns=columns, certification="7"))
    async with loaded(manifest) as migration:
        await settle(migration, REJECTED, reason="no")
        again = Manifest.open(of_journal(migration, manifest))

    assert again.layout.titles == (
        *("Nr", "email", "Email (manifest)", "valid_from", "Tot", "Code"),
        *("file", "certification_id", "valid_until", "error"),
    )
    assert [again.upload(row) for row in again] == [manifest.upload(row) for row in manifest]


LISTED = [Certification(id=7, name="First aid"), Certification(id=8, name="Forklift")]
PEOPLE_LIST = "ID,Voornaam,Achternaam,Email\n41,Jan,Jansen,jan@example.org\n42,Piet,Boer,piet@example.org\n"


@pytest.mark.parametrize(
    ("columns", "cells", "corrected", "sent"),
    [
        ("email,Opleiding", "jan@example.org,First aid", ("First aid", "Forklift"), (8, "jan@example.org")),
        ("email,Soort", "jan@example.org,First aid", ("First aid", "Forklift"), (8, "jan@example.org")),
        ("email,Opleiding", "jan@example.org,First aid", ("First aid", "Nothing"), None),
        ("email,Opleiding,certification_id", "jan@example.org,First aid,7", ("First aid", "Forklift"), None),
        ("Personeelsnummer,certification_id", "41,7", ("41", "42"), (7, "piet@example.org")),
        ("Personeelsnummer,certification_id", "41,7", ("41", "43"), None),
        ("Wie,certification_id", "Jan Jansen,7", ("Jan Jansen", "Piet Boer"), (7, "piet@example.org")),
        ("Voornaam,Achternaam,certification_id", "Jan,Jansen,7", ("Jan,Jansen", "Piet,Boer"), (7, "piet@example.org")),
        ("email,Personeelsnummer,certification_id", "jan@example.org,41,7", (",41,", ",42,"), None),
    ],
)
async def test_a_name_corrected_in_it_is_sent_or_refused(
    tmp_path: Path, columns: str, cells: str, corrected: tuple[str, str], sent: tuple[int, str] | None
) -> None:
    """No id or address that only a program reads wins over the name."""
    (people := tmp_path / "people.csv").write_text(PEOPLE_LIST)
    users = Users.open(people)
    columns_mapped = {"certification": "Soort", "user": "Wie"}
    mapped = {name: title for name, title in columns_mapped.items() if title in columns.split(",")}
    (path := tmp_path / "archive.csv").write_text(f"file,{columns},valid_from\n1.pdf,{cells},2026-01-31\n")
    manifest = Manifest.open(path, Reading(columns=mapped, users=users)).with_listed(LISTED)
    async with loaded(manifest) as migration:
        await settle(migration, REJECTED, reason="no")
        failed = of_journal(migration, manifest)

    def read() -> list[CertificateUpload]:
        again = Manifest.open(failed, Reading(users=users)).with_listed(LISTED)
        return [again.upload(row) for row in again]

    assert read() == [manifest.upload(row) for row in manifest]
    text = failed.read_text()
    failed.write_text(text.replace(*corrected))
    assert failed.read_text() != text
    if sent is None:
        with pytest.raises(InvalidUpload):
            read()
    else:
        assert [(upload.certification_id, upload.email) for upload in read()] == [sent]


# A title, its cell, and the known column that has to be named with --map, if its title does not say it.
Column = tuple[str, str, str]
PDFS: list[list[Column]] = [[("Bestand", "1.pdf", "")], [("Scan", "1.pdf", "file")]]
DATES: list[list[Column]] = [[("valid_from", "31-01-2026", "")], [("Datum", "31-01-2026", "valid_from")]]
CERTIFICATION: list[list[Column]] = [
    [("Certification ID", "7", "")],
    [("Nr", "7", "certification_id")],
    [("Opleiding", "First aid", "")],
    [("Soort", "first AID", "certification")],
    [("Opleiding", "First aid", ""), ("Certification ID", "7", "")],
    [("Opleiding", "Day 1", ""), ("Certification ID", "7", "")],
]
PERSON: list[list[Column]] = [
    [("E-mail", "jan@example.org", "")],
    [("Werk", "jan@example.org", "email"), ("Email", "other@example.org", "-")],
    [("Personeelsnummer", "41", "")],
    [("Wie", "Jansen, Jan", "user")],
    [("Voornaam", "Jan", ""), ("Achternaam", "Jansen", "")],
    [("Personeelsnummer", "41", ""), ("E-mail", "jan@example.org", "")],
    [("Medewerker", "Jan", ""), ("E-mail", "new@example.org", "")],
]
OTHERS: list[Column] = [("Team", "A", ""), ("Date", "x", ""), ("Cursus", "Day 1", ""), ("", "y", "")]


@settings(max_examples=150)
@given(data=st.data())
async def test_any_manifest_is_read_again_with_its_lists(module_folder: Path, data: st.DataObject) -> None:
    """With its lists of people and certifications, and without the other options; the names in it are the same."""
    kinds = [data.draw(st.sampled_from(kind)) for kind in (PDFS, DATES, CERTIFICATION, PERSON)]
    others = data.draw(st.lists(st.sampled_from(OTHERS), unique=True))
    columns = data.draw(st.permutations([*(column for kind in kinds for column in kind), *others]))
    mapped = {name: title for title, _, name in columns if name.strip("-")}
    certification = data.draw(st.sampled_from(["", "8"]))
    with TemporaryDirectory(dir=module_folder) as folder:
        (people := Path(folder, "people.csv")).write_text(PEOPLE_LIST)
        lines = zip(*((title, cell) for title, cell, _ in columns), strict=True)
        (path := Path(folder, "archive.csv")).write_text("".join(f"{';'.join(line)}\n" for line in lines))
        users = Users.open(people)
        reading = Reading(columns=mapped, users=users, certification=certification)
        try:
            manifest = Manifest.open(path, reading).with_listed(LISTED)
        except ManifestError:  # several titles mean the same
            reject()
        async with loaded(manifest) as migration:
            await settle(migration, REJECTED, reason="no")
            failed = of_journal(migration, manifest)
        again = Manifest.open(failed, Reading(users=users)).with_listed(LISTED)

        assert [again.upload(row) for row in again] == [manifest.upload(row) for row in manifest]
        names = {"First aid", "first AID", "Day 1", "41", "Jansen, Jan", "Jan"}
        assert names.intersection(cell for _, cell, _ in columns) <= set(table(failed, ";")[1])


@pytest.mark.parametrize("columns", [{}, {"certification": "Opleiding"}], ids=["not mapped", "mapped"])
async def test_the_title_of_an_overruled_name_says_so(tmp_path: Path, columns: dict[str, str]) -> None:
    (path := tmp_path / "archive.csv").write_text(
        "file,email,Opleiding,valid_from\n1.pdf,jan@example.org,First aid,2026-01-31\n"
    )
    manifest = Manifest.open(path, Reading(certification="8", columns=columns)).with_listed(LISTED)
    async with loaded(manifest) as migration:
        await settle(migration, REJECTED, reason="no")
        again = Manifest.open(of_journal(migration, manifest)).with_listed(LISTED)

    titles = ("file", "email", "Opleiding (manifest)", "valid_from", "certification_id", "error")
    assert again.layout.titles == titles
    assert [again.upload(row).certification_id for row in again] == [8]


async def test_the_reason_is_what_the_server_said(tmp_path: Path) -> None:
    reason = "POST https://api.springest.nl/users/certificates.json rejected the certificate (400): email: is not known"
    path = await left_over(archive_of(tmp_path), REJECTED, reason=reason)

    assert [line[-1] for line in table(path)] == ["error", "email: is not known"]


async def test_errors_of_an_earlier_run_are_replaced(tmp_path: Path) -> None:
    first = await left_over(archive_of(tmp_path), REJECTED, STORED, reason="an old reason")
    manifest = Manifest.open(first)
    async with Journal(tmp_path / "another journal") as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN)
        (entry,) = await settle(migration, FAILED, reason="a new reason")
        assert entry.extra["error"] == "an old reason"
        path = await write_failed(migration, manifest)

    assert path == tmp_path / "archive.failed-2.csv"
    assert table(path) == [
        ["Naam", "file", "certification_id", "email", "valid_from", "error"],
        ["Jan", "1.pdf", "7", "jan@example.org", "2026-01-31", "a new reason"],
    ]


async def test_cells_under_columns_without_a_name_are_kept(tmp_path: Path) -> None:
    header = "file,certification_id,email,valid_from,,\n"
    manifest = archive_of(tmp_path, f"{header}1.pdf,7,jan@example.org,2026-01-31,a,b\n")

    (row,) = table(await left_over(manifest, FAILED, reason="no"))[1:]

    assert row == ["1.pdf", "7", "jan@example.org", "2026-01-31", "a", "b", "no"]


async def test_what_is_left_over_of_another_separator_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "archive.csv").write_text(
        "sep=|\n" + HEADER.replace(",", "|") + "Jan|1.pdf|7|jan@example.org|2026-01-31\n"
    )

    again = Manifest.open(await left_over(Manifest.open(tmp_path / "archive.csv"), REJECTED, reason="no"))

    assert [row.cells["naam"] for row in again] == ["Jan"]


async def test_what_is_left_over_is_read_as_excel_saves_it(tmp_path: Path) -> None:
    """A Dutch Excel that has read a CSV with commas writes semicolons and a byte order mark."""
    manifest = archive_of(tmp_path, HEADER + "=Zoë,1.pdf,7,zoe@example.org,2026-01-31\n")
    path = await left_over(manifest, REJECTED, reason="no, never")
    rows = table(path)
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(rows)

    again = Manifest.open(path)

    assert [again.upload(row) for row in again] == [manifest.upload(row) for row in manifest]
    assert [row.cells["naam"] for row in again] == ["=Zoë"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
async def test_what_is_left_over_of_another_encoding_is_marked_utf_8(tmp_path: Path, encoding: str) -> None:
    """Excel reads UTF-8 for certain only where a mark says so."""
    (tmp_path / "archive.csv").write_text(HEADER + "Zoë,1.pdf,7,zoe@example.org,2026-01-31\n", encoding=encoding)

    path = await left_over(Manifest.open(tmp_path / "archive.csv"), REJECTED, reason="no")

    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    (row,) = Manifest.open(path)
    assert row.cells["naam"] == "Zoë"


@pytest.mark.parametrize(("delimiter", "bom"), [(",", b"\xef\xbb\xbf"), (";", b"")], ids=["BOM", "semicolon"])
async def test_what_is_left_over_is_written_as_the_manifest_was(tmp_path: Path, delimiter: str, bom: bytes) -> None:
    cells = ["Zoë", "1.pdf", "7", "zoe@example.org", "2026-01-31"]
    text = HEADER.replace(",", delimiter) + delimiter.join(cells) + "\n"
    (tmp_path / "archive.csv").write_bytes(bom + text.encode())
    manifest = Manifest.open(tmp_path / "archive.csv")

    path = await left_over(manifest, REJECTED, reason="no")

    lines = [[*manifest.layout.titles, "error"], [*cells, "no"]]
    assert path.read_bytes() == bom + "".join(f"{delimiter.join(line)}\r\n" for line in lines).encode()
    again = Manifest.open(path)
    assert (csv_table_of(again).separator, csv_table_of(again).bom) == (delimiter, bool(bom))


async def test_half_a_character_from_the_server_is_written(tmp_path: Path) -> None:
    """JSON can say half a surrogate pair, which no encoding can."""
    path = await left_over(archive_of(tmp_path), STORED, REJECTED, reason="bad \ud800 word")

    assert table(path)[1][-1] == "bad \\ud800 word"


async def test_more_rows_than_one_page_are_all_written(tmp_path: Path) -> None:
    rows = "".join(f"{n}.pdf,1,e{n}@example.org,2026-01-31\n" for n in range(1201))
    manifest = archive_of(tmp_path, f"file,certification_id,email,valid_from\n{rows}")

    path = await left_over(manifest, *[FAILED] * 1200)

    assert [cells[0] for cells in table(path)[1:]] == [f"{n}.pdf" for n in range(1200)]


# --- what a spreadsheet would run ---


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+31 6", "'+31 6"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("＝1", "'＝1"),  # noqa: RUF001 # in full width, as Japanese spreadsheets take it
        ("'=1", "''=1"),
        ("\t=1", "'\t'=1"),
        ("\rx", "'\rx"),
        (" =1", "' =1"),
        ('"=1', "'\"=1"),
        ("x,=1;=2\t=3\n=4\r=5", "x,'=1;'=2\t'=3\n'=4\r'=5"),  # whatever a spreadsheet takes for the separator
        ("'s-Hertogenbosch", "'s-Hertogenbosch"),
        ("1-2=3", "1-2=3"),
    ],
)
async def test_no_cell_is_run_and_each_is_read_as_it_was(tmp_path: Path, cell: str, written: str) -> None:
    delimiter = ";" if "," in cell else ","
    path = tmp_path / "archive.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["=naam", "file", "certification_id", "email", "valid_from"])
        writer.writerow([cell, "1.pdf", "7", "jan@example.org", "2026-01-31"])

    failed = await left_over(Manifest.open(path), REJECTED, reason=f"=no; {cell}")

    header, row = table(failed, delimiter)
    assert (header[0], row[0]) == ("'=naam", written)
    assert row[-1].startswith("'=no;")
    again = Manifest.open(failed)
    assert again.columns[0] == "=naam"
    assert [read.cells["=naam"] for read in again] == [cell]


@pytest.mark.parametrize("email", ["+jan@example.org", "'-jan@example.org"])
async def test_without_errors_our_apostrophe_is_not_sent_in_an_email(tmp_path: Path, email: str) -> None:
    """Without the column of reasons we cannot know that the apostrophe is ours."""
    header, row = "file,certification_id,email,valid_from\n", f"1.pdf,7,{email},2026-01-31\n"
    failed = await left_over(archive_of(tmp_path, header + row), REJECTED, reason="no")
    assert [again.upload(each).email for again in [Manifest.open(failed)] for each in again] == [email]

    mended = archive_of(tmp_path, "".join(f"{','.join(cells[:-1])}\n" for cells in table(failed)), "mended.csv")

    (mended_row,) = mended
    assert mended_row.cells["email"] == f"'{email}"
    with pytest.raises(InvalidUpload) as caught:
        mended.upload(mended_row)
    words = "begins with an apostrophe that springest added: put the column “error” back, or remove the apostrophe"
    assert caught.value.faults == (Fault("email", words),)


def test_an_apostrophe_in_other_manifests_belongs_to_the_cell(tmp_path: Path) -> None:
    header = "file,certification_id,email,valid_from,'=naam\n"
    (row,) = archive_of(tmp_path, f"{header}'=1.pdf,7,jan@example.org,2026-01-31,'=x\n")

    assert (row.cells["file"], row.cells["'=naam"]) == ("'=1.pdf", "'=x")


HEADER_OF_CELLS = ["note", "file", "certification_id", "email", "valid_from"]
# Begins of formulas and separators among letters, and any text.
CELLS = st.text("=+-@＝＋－＠'\" \t\r\n,;\0ab", max_size=12) | st.text(max_size=12)  # noqa: RUF001 # full width


@settings(max_examples=50)
@given(file=CELLS, email=CELLS, note=CELLS, reason=CELLS, delimiter=st.sampled_from(",;"))
async def test_any_cells_are_read_back_and_none_is_run(
    module_folder: Path, file: str, email: str, note: str, reason: str, delimiter: str
) -> None:
    with TemporaryDirectory(dir=module_folder) as folder:
        path = module_folder / folder / "archive.csv"
        row = [note, f"{file}x", "7", f"{email}x", "2026-01-31"]
        row = [cell.replace("\0", "") for cell in row]  # the preflight refuses them, and no database can store them
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter).writerows([HEADER_OF_CELLS, row])
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        manifest = Manifest.open(path)
        try:
            fields = [manifest.fields(line) for line in manifest]
        except ManifestError:  # a cell of several lines looks as if a quote had joined rows
            reject()

        failed = await left_over(manifest, REJECTED, reason=reason)
        again = Manifest.open(failed)

        assert [again.fields(line) for line in again] == fields
        assert [line.cells["note"] for line in again] == [row[0]]
        written = failed.read_bytes().decode()
        parts = re.split("[,;\t\r\n]", written)
        assert not [part for part in parts if re.match('["\\s\0-\x1f]*[=+@＝＋－＠-]', part)]  # noqa: RUF001
        async with loaded(again) as migration:
            assert [entry.extra.get("note", "") for entry in await migration.entries()] == [row[0]]


# --- the file ---


async def test_nothing_is_ever_overwritten_and_nothing_written_twice(tmp_path: Path) -> None:
    manifest = archive_of(tmp_path)
    first, second = tmp_path / "archive.failed.csv", tmp_path / "archive.failed-2.csv"
    assert await left_over(manifest, REJECTED, FAILED) == first
    async with found(manifest) as migration:
        assert await write_failed(migration, manifest) == first
        first.write_text("somebody is at it")

        assert [await write_failed(migration, manifest) for _ in range(2)] == [second, second]

    assert first.read_text() == "somebody is at it"
    assert failed_files(tmp_path) == [second.name, first.name]


async def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "archive.failed.csv").symlink_to(tmp_path / "precious.csv")

    assert await left_over(archive_of(tmp_path), STORED, FAILED) == tmp_path / "archive.failed-2.csv"
    assert not (tmp_path / "precious.csv").exists()


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("archive", "archive.failed.csv"),
        ("a.b.txt", "a.b.failed.txt"),
        ("x.CSV", "x.failed.CSV"),
        ("x.failed.csv", "x.failed-2.csv"),
        ("x.failed-7.csv", "x.failed.csv"),
    ],
)
async def test_the_name_is_that_of_the_manifest(tmp_path: Path, name: str, failed: str) -> None:
    manifest = archive_of(tmp_path, name=name)

    path = await left_over(manifest, STORED, FAILED)

    assert path == tmp_path / failed


async def test_only_the_owner_can_read_what_is_left_over(tmp_path: Path) -> None:
    """It contains personal data, whatever the umask is."""
    before = os.umask(0)
    try:
        path = await left_over(archive_of(tmp_path), REJECTED, FAILED)
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_folder_that_cannot_be_written_in_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = archive_of(tmp_path)
    await left_over(manifest, REJECTED, FAILED)

    really_open = os.open

    def refuse(path: object, *rest: int) -> int:
        if str(path).endswith(".part"):
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(str(path), *rest)

    async with found(manifest) as migration:
        monkeypatch.setattr("springest_async.manifest.new_file.os.open", refuse)
        with pytest.raises(ConfigurationError) as caught:
            await write_failed(migration, manifest)

    assert str(caught.value) == f"the failed rows cannot be written beside {manifest.path}: Permission denied"


async def test_on_a_full_disk_no_half_of_it_is_left(tmp_path: Path) -> None:
    """An incomplete file would look like all failed rows. A limit on file sizes stands for a full disk."""
    manifest = archive_of(tmp_path)
    (await left_over(manifest, REJECTED, FAILED)).unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with found(manifest) as migration:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(ConfigurationError, match=r"cannot be written beside .*: File too large"):
                await write_failed(migration, manifest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

        assert failed_files(tmp_path) == []
        assert await write_failed(migration, manifest) == tmp_path / "archive.failed.csv"


# --- rows that were left out, and other formats ---


def left_out(**reasons: str) -> LeftOut:
    """Return rows, such as ``row_3``, that were left out for these reasons."""
    by_row = {int(name.removeprefix("row_")): reason for name, reason in reasons.items()}
    rows = RowSet()
    for row in by_row:
        rows.add(row)
    return LeftOut(rows, lambda row: by_row.get(row, ""))


async def test_rows_left_out_stand_among_the_others(tmp_path: Path) -> None:
    rows = "".join(f"Jan,{n}.pdf,7,e{n}@example.org,{n}/01/2026\n" for n in range(2, 7))
    manifest = archive_of(tmp_path, HEADER + rows.replace("5/01", "31/31").replace("6/01", "16/01"))
    out = left_out(row_2="no such user", row_5="there is no month 31")
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN, faulty=out.rows)
        await settle(migration, STORED, REJECTED, FAILED, reason="said the server")
        failed = await write_failed(migration, manifest, out)

    assert failed is not None
    assert [line[1:] for line in table(failed)[1:]] == [
        ["2.pdf", "7", "e2@example.org", "2026-01-02", "no such user"],
        ["4.pdf", "7", "e4@example.org", "2026-01-04", "said the server"],
        ["5.pdf", "7", "e5@example.org", "31/31/2026", "there is no month 31"],
        ["6.pdf", "7", "e6@example.org", "2026-01-16", "said the server"],
    ]


async def test_a_date_that_was_refused_is_not_read_again(tmp_path: Path) -> None:
    """Other rows showed that it may be the fifth of June or the sixth of May, and these rows are stored."""
    rows = "Jan,1.pdf,7,jan@example.org,5-6-2026\nPiet,2.pdf,7,piet@example.org,12/31/2026\n"
    manifest = archive_of(tmp_path, HEADER + rows)
    out = left_out(row_2="valid_from: may begin with the month")
    async with Journal(tmp_path / "journal.sqlite3") as journal:
        migration, _ = await load_manifest(journal, manifest, ORIGIN, faulty=out.rows)
        await settle(migration, STORED)
        failed = await write_failed(migration, manifest, out)

    assert failed is not None
    again = Manifest.open(failed)
    (row,) = again
    assert row.cells["valid_from"] == "5-6-2026 ?"
    with pytest.raises(InvalidUpload, match="must be a date"):
        again.fields(row)


async def test_what_the_check_said_of_a_file_is_the_reason(tmp_path: Path) -> None:
    """The row was loaded, because another machine may have its file."""
    manifest = archive_of(tmp_path)
    out = LeftOut(RowSet(), lambda row: "file: there is no such file: '1.pdf'" if row == 2 else "")
    async with loaded(manifest) as migration:
        await settle(migration, FAILED, FAILED, reason="No such file or directory")
        failed = await write_failed(migration, manifest, out)

    assert failed is not None
    assert [line[-1] for line in table(failed)[1:]] == [
        "file: there is no such file: '1.pdf'",
        "No such file or directory",
    ]


TITLES = ("Naam", "File", "Certification ID", "E-mail", "Valid from")
PEOPLE = [
    ("Jan", "1.pdf", 7, "jan@example.org", date(2026, 1, 31)),
    ("'=Piet", "2.pdf", 7, "piet@example.org", date(2026, 2, 1)),
]


def workbook_of(folder: Path, name: str) -> Path:
    """Make a workbook with two rows, as a person would."""
    if name.endswith(".xlsx"):
        book = openpyxl.Workbook()
        for line in (TITLES, *PEOPLE):
            book.active.append(line)
    else:
        book = xlwt.Workbook()
        sheet = book.add_sheet("Blad1")
        day = xlwt.easyxf(num_format_str="DD-MM-YYYY")
        for number, line in enumerate((TITLES, *PEOPLE)):
            for column, cell in enumerate(line):
                sheet.write(number, column, cell, day if isinstance(cell, date) else xlwt.Style.default_style)
    book.save(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["archive.xlsx", "archive.xls"])
async def test_rows_of_a_workbook_come_back_as_one(tmp_path: Path, name: str) -> None:
    manifest = Manifest.open(workbook_of(tmp_path, name))

    failed = await left_over(manifest, REJECTED, REJECTED, reason="=no")

    assert failed == tmp_path / "archive.failed.xlsx"
    again = Manifest.open(failed)
    assert again.layout.titles == (*TITLES, "error")
    assert [again.fields(row) for row in again] == [manifest.fields(row) for row in manifest]
    assert [(row.cells["naam"], row.cells["error"]) for row in again] == [("Jan", "=no"), ("'=Piet", "=no")]
    assert failed.stat().st_mode & 0o777 == 0o600
    async with found(manifest) as migration:
        assert await write_failed(migration, manifest) == failed


async def test_the_most_frequent_reasons_come_first(tmp_path: Path) -> None:
    """The address and the file of a row make no reason of their own."""
    manifest = rows_of(tmp_path, 9)
    async with loaded(manifest) as migration:
        for number in range(1, 5):
            await settle(migration, State.REJECTED, reason=f"employee{number}@example.org is unknown")
        for number in (5, 6):
            await settle(migration, State.FAILED, reason=f"/archive/{number}.pdf: changed")
        await settle(migration, State.REJECTED, State.STORED, reason="no certification")

        assert await migration.reasons(2) == (
            [Reason(State.REJECTED, "… is unknown", 4), Reason(State.FAILED, "/archive/…: changed", 2)],
            3,
        )
        assert (await migration.reasons(5))[0][-1] == Reason(State.REJECTED, "no certification", 1)
