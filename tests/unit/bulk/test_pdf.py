"""What is a PDF, by its ends."""

import base64
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from hypothesis import given
from hypothesis import strategies as st

from springest_async.bulk import Kind, check_pdf
from tests.checks import PDF
from tests.pipes import becomes_a_pipe, swap_after_a_look, without_waiting

NOT_FOUND = "there is no such file"
NO_NAME = "is not a valid file name"
NO_VERSION = "is not a PDF: behind %PDF- there is no version, such as 1.7"
NO_PDF = "is not a PDF: there is no %PDF- in its first 1024 bytes"
ZIP = "is a zip file, not a PDF (Word and Excel files are zip files too: save them as PDF)"
BASE64 = "is base64 text, not a PDF: decode it first"
CUT_OFF = "may be cut off: the end of the PDF is missing"
MORE_AT_THE_END = "has other content after the end of the PDF (%%EOF)"
MORE_AT_THE_START = "has other content before the PDF (%PDF-)"
KINDS = {
    CUT_OFF: Kind.CUT_OFF,
    MORE_AT_THE_END: Kind.OTHER_CONTENT,
    MORE_AT_THE_START: Kind.OTHER_CONTENT,
    NOT_FOUND: Kind.NO_FILE,
}


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("jan.pdf", content)
    return stream.getvalue()


def findings_of(folder: Path, content: bytes) -> list[tuple[Kind, str]]:
    path = folder / "jan.pdf"
    path.write_bytes(content)
    return list(check_pdf(path))


@pytest.mark.parametrize(
    "content",
    [
        PDF,
        PDF + b"\r\n\0\n ",
        b"%PDF-1.7\nstartxref\n0\n%%EOF",
        b"%PDF-1.7\nstartxref\n0\n%%EOF\n" + b"1 0 obj\n" * 9000 + b"startxref\n9\n%%EOF\n",  # saved again, appended
        PDF[:-6] + b" " * 6000 + b"%%EOF\n",
    ],
    ids=["a library's", "padded", "shortest", "with an update", "end marks far apart"],
)
def test_a_good_pdf_has_no_findings(tmp_path: Path, content: bytes) -> None:
    assert findings_of(tmp_path, content) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is an empty file"),
        (b"\n", "contains only blanks"),
        (b"\xef\xbb\xbf\0\0 \r\n\t\f" * 900, "contains only blanks"),
        (b"Dear Jan,\n", NO_PDF),
        (b"\x89PNG\r\n\x1a\n", NO_PDF),
        (b" " * 1020 + PDF, NO_PDF),
        (PDF[5:], NO_PDF),
        (b"%PDF-\n" + PDF[9:], NO_VERSION),
        (b"%PDF-X.4" + PDF[8:], NO_VERSION),
        (base64.b64encode(PDF), BASE64),
        (base64.b64encode(PDF)[:600], BASE64),
        (base64.encodebytes(PDF), BASE64),
        (base64.encodebytes(PDF).replace(b"\n", b"\r\n"), BASE64),
        (b"\xef\xbb\xbf\n" + base64.b64encode(PDF), BASE64),
        (b"data:application/pdf;base64," + base64.b64encode(PDF), BASE64),
        (b"data:;base64,\n" + base64.encodebytes(PDF), BASE64),
        (base64.b64encode(b"\n" + PDF), BASE64),
        (b"<!DOCTYPE html><title>Log in</title>", "is an HTML page, not a PDF"),
        (b"\r\n<HTML><body>%PDF-1.7</body>", "is an HTML page, not a PDF"),
        (b"<!doctype\nhtml>", "is an HTML page, not a PDF"),
        (zipped(b"<document/>"), ZIP),
        (zipped(PDF), ZIP),
    ],
    ids=[
        "empty",
        "a newline",
        "nothing but blanks",
        "text",
        "picture",
        "header too late",
        "no header",
        "no version",
        "a version that is no number",
        "base64",
        "base64 cut off",
        "base64 in lines",
        "base64 in CRLF lines",
        "base64 behind a BOM",
        "data URL",
        "data URL in lines",
        "base64 of a PDF that begins with a newline",
        "HTML",
        "HTML that speaks of PDF",
        "HTML with a newline in its doctype",
        "zip",
        "zip with a PDF in it as it is",
    ],
)
def test_what_is_no_pdf_is_a_fault_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    assert findings_of(tmp_path, content) == [(Kind.NO_PDF, reason)]


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (b"\xef\xbb\xbf" + PDF, [MORE_AT_THE_START]),
        (b"HTTP/1.1 200 OK\r\n\r\n" + PDF, [MORE_AT_THE_START]),
        (b" " * 1019 + PDF, [MORE_AT_THE_START]),
        (PDF + b"<html>", [MORE_AT_THE_END]),
        (PDF + b"\0" * 100 + b"x", [MORE_AT_THE_END]),
        (PDF[: len(PDF) // 2], [CUT_OFF]),
        (PDF.replace(b"%%EOF", b""), [CUT_OFF]),
        (PDF.replace(b"startxref", b""), [CUT_OFF]),
        (PDF + b"x" * 20_000, [CUT_OFF]),
        (b"\n" + PDF + b"x", [MORE_AT_THE_START, MORE_AT_THE_END]),
        (b"\n%PDF-1.7\n", [MORE_AT_THE_START, CUT_OFF]),
    ],
    ids=[
        "BOM before it",
        "HTTP headers before it",
        "header at the last possible place",
        "HTML behind it",
        "a letter behind it",
        "half of it",
        "no end mark",
        "no startxref",
        "much behind it",
        "both ends",
        "header only",
    ],
)
def test_what_pdf_readers_accept_is_a_warning(tmp_path: Path, content: bytes, reasons: list[str]) -> None:
    assert findings_of(tmp_path, content) == [(KINDS[reason], reason) for reason in reasons]


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    assert list(check_pdf(tmp_path / "none.pdf")) == [(Kind.NO_FILE, NOT_FOUND)]


def test_a_folder_is_a_fault(tmp_path: Path) -> None:
    assert list(check_pdf(tmp_path)) == [(Kind.UNREADABLE, "is a folder")]


def test_a_pipe_is_a_fault_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "jan.pdf")

    assert list(check_pdf(tmp_path / "jan.pdf")) == [(Kind.UNREADABLE, "is not a regular file")]


def test_a_name_with_a_nul_is_a_fault(tmp_path: Path) -> None:
    assert list(check_pdf(tmp_path / "j\0n.pdf")) == [(Kind.UNREADABLE, NO_NAME)]


def test_a_pipe_that_is_put_in_a_files_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jan.pdf"
    path.write_bytes(PDF)
    swap_after_a_look(monkeypatch, path, becomes_a_pipe)

    assert without_waiting(path, lambda: list(check_pdf(path))) == [(Kind.UNREADABLE, "is not a regular file")]


def test_a_file_that_cannot_be_read_is_a_fault() -> None:
    """Reading the start of a process's memory fails as a broken disk does."""
    assert list(check_pdf(Path("/proc/self/mem"))) == [(Kind.UNREADABLE, "cannot be read (Input/output error)")]


def test_a_link_stands_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "jan.pdf").write_bytes(PDF)
    (tmp_path / "link.pdf").symlink_to("jan.pdf")

    assert list(check_pdf(tmp_path / "link.pdf")) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is a folder"),
        ("..", "is a folder"),
        ("/", "is a folder"),
        ("/dev/zero", "is not a regular file"),
        ("jan.pdf/jan.pdf", "there is no such folder"),
        ("x" * 256, "its name is too long"),
        ("x/" * 60_000, "its name is too long"),
        ("~/jan.pdf", NOT_FOUND),
        ("jan\n.pdf", NOT_FOUND),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_a_name_without_a_file_is_a_fault(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "jan.pdf").write_bytes(PDF)

    assert list(check_pdf(tmp_path / name)) == [(KINDS.get(reason, Kind.UNREADABLE), reason)]


def test_a_file_that_shrinks_during_its_check_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jan.pdf"

    def meddled(meddle: Callable[[Path], object]) -> list[tuple[Kind, str]]:
        path.write_bytes(PDF + b" " * 20_000)
        with monkeypatch.context() as patch:
            swap_after_a_look(patch, path, meddle)
            return list(check_pdf(path))

    assert meddled(Path.unlink) == [(Kind.NO_FILE, NOT_FOUND)]
    assert meddled(lambda path: os.truncate(path, 100)) == [(Kind.CUT_OFF, CUT_OFF)]
    assert meddled(lambda path: os.truncate(path, 0)) == [(Kind.NO_PDF, "is an empty file")]


def test_only_the_two_ends_of_a_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.pdf"
    with path.open("wb") as stream:
        stream.write(b"%PDF-1.7\n")
        stream.seek(1024**3)
        stream.write(b"startxref\n9\n%%EOF\n")
    pieces: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            pieces.append(len(piece))
            return piece

    monkeypatch.setattr("springest_async.bulk.pdf.open_source", Counted)

    assert list(check_pdf(path)) == []
    assert (len(pieces), max(pieces)) == (2, 8 * 1024)


# --- what can be seen in it ---


def document(*objects: bytes, trailer: bytes = b"") -> bytes:
    """Make a PDF of these objects, of which the first is the catalog."""
    numbered = b"".join(b"%d 0 obj %s endobj\n" % (number, each) for number, each in enumerate(objects, start=1))
    return b"%PDF-1.7\n" + numbered + b"trailer <</Root 1 0 R" + trailer + b">>\nstartxref\n9\n%%EOF\n"


def stream(content: bytes, dictionary: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (dictionary, len(content), content)


def one_page(content: bytes, dictionary: bytes = b"") -> bytes:
    pages = b"<</Type /Pages /Kids [3 0 R] /Count 1>>"
    page = b"<</Type /Page /Parent 2 0 R /Contents 4 0 R>>"
    return document(b"<</Type /Catalog /Pages 2 0 R>>", pages, page, stream(content, dictionary))


def library_made(*texts: str) -> bytes:
    return bytes(pages_of(*texts).output())


def encrypted(password: str, method: EncryptionMethod) -> bytes:
    pdf = pages_of("Jan")
    pdf.set_encryption(owner_password="owner", user_password=password, encryption_method=method)
    return bytes(pdf.output())


def pages_of(*texts: str) -> FPDF:
    pdf = FPDF()
    for text in texts:
        pdf.add_page()
        pdf.set_font("helvetica", size=24)
        if text:
            pdf.cell(text=text)
    return pdf


FLATE = b"/Filter /FlateDecode "
NO_PAGES = document(b"<</Type /Catalog /Pages 2 0 R>>", b"<</Type /Pages /Kids [] /Count 0>>")
PACKED = zlib.compress(b"1 0 2 40 <</Type /Catalog /Pages 2 0 R>>      <</Type/Pages/Kids[]/Count 0>>")
NO_PAGES_PACKED = document(stream(PACKED, b"/Type /ObjStm /N 2 /First 9 " + FLATE))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (library_made(""), "has only empty pages"),
        (library_made("", ""), "has only empty pages"),
        (one_page(b""), "has only empty pages"),
        (one_page(b"q 0 0 99 99 re W n Q"), "has only empty pages"),
        (one_page(b"BT /F1 11 Tf [( ) -3 (  )] TJ ( ) Tj ET"), "has only empty pages"),
        (
            one_page(base64.a85encode(zlib.compress(b"q Q")) + b"~>", b"/Filter [/ASCII85Decode /Fl] "),
            "has only empty pages",
        ),
        (NO_PAGES, "has no pages"),
        (NO_PAGES_PACKED, "has no pages"),
    ],
    ids=["a library's", "two", "nothing", "a clip", "blanks", "packed twice", "no pages", "no pages, packed"],
)
def test_a_pdf_without_anything_on_it_is_a_warning(tmp_path: Path, content: bytes, reason: str) -> None:
    assert findings_of(tmp_path, content) == [(Kind.NO_PAGES, reason)]


@pytest.mark.parametrize(
    "content",
    [
        library_made("", "Jan"),
        one_page(b"BT (Jan) Tj ET"),
        one_page(b"BT [(J) -3 (an)] TJ ET"),
        one_page(b"BT <004A> Tj ET"),
        one_page(b"0 0 99 99 re f"),
        one_page(b"BT (Jan)' ET"),
        one_page(b"/Im1 Do", b"/Subtype /Image "),
        one_page(b"q Q", b"/Filter /LZWDecode "),
        one_page(b"no zlib", FLATE),
        one_page(zlib.compress(b" " * 1_000_000), FLATE),
        one_page(b" " * 3_000),
        one_page(base64.a85encode(b" " * 300) + b"~>", b"/Filter /A85 "),
        one_page(b"").replace(b"/Contents", b"/Annots [5 0 R] /Contents"),
    ],
    ids=[
        "one of two",
        "text",
        "kerned",
        "hex",
        "path",
        "quote",
        "picture",
        "LZW",
        "damaged",
        "large",
        "long",
        "text in base 85",
        "a form",
    ],
)
def test_a_pdf_with_something_on_it_is_good(tmp_path: Path, content: bytes) -> None:
    assert findings_of(tmp_path, content) == []


METHODS = [EncryptionMethod.RC4, EncryptionMethod.AES_128]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("filling", [0, 40_000])
def test_a_pdf_that_asks_for_a_password_is_a_warning(tmp_path: Path, method: EncryptionMethod, filling: int) -> None:
    content = encrypted("secret", method)
    content = content[:9] + b"\n" * filling + content[9:]

    assert findings_of(tmp_path, content) == [(Kind.PASSWORD, "asks for a password")]


@pytest.mark.parametrize("method", METHODS)
def test_a_pdf_that_cannot_be_changed_is_good(tmp_path: Path, method: EncryptionMethod) -> None:
    """Only its owner needs a password; everybody can read it."""
    assert findings_of(tmp_path, encrypted("", method)) == []


@pytest.mark.parametrize("password", ["", "secret"])
def test_a_pdf_with_newer_encryption_may_ask(tmp_path: Path, password: str) -> None:
    found = [(Kind.PASSWORD, "is encrypted, and may ask for a password")]
    assert findings_of(tmp_path, encrypted(password, EncryptionMethod.AES_256)) == found


# What qpdf writes for the owner's password "o" and no other one. Revision 2 has keys of 40 bits.
REVISION_2 = (
    b"<</Filter /Standard /V 1 /R 2 /P -12 /Length 40"
    b" /O <d8a81f2f756b03f0e776376607dc67c098531ac3e51f6e5cf0fc1473b1ce0975>"
    b" /U <fe8d72c0a4dec42790424af21a3d4333b0b1d1305a36ebb3572b964880786d34>>>"
)
REVISION_2_ID = b"/Encrypt 2 0 R /ID [<ecd640fcb84e8ee74a724f9067410e44> <00>]"


@pytest.mark.parametrize(("user", "asks"), [(b"fe8d", False), (b"fe8e", True)])
def test_a_pdf_of_the_oldest_encryption_is_tried(tmp_path: Path, user: bytes, asks: bool) -> None:
    content = document(b"<</Type /Catalog>>", REVISION_2.replace(b"fe8d", user), trailer=REVISION_2_ID)

    assert findings_of(tmp_path, content) == [(Kind.PASSWORD, "asks for a password")] * asks


@pytest.mark.parametrize(
    ("change", "to"),
    [(b"/Standard", b"/Adobe.PubSec"), (b"/R 2", b"/R 7"), (b"/O <d8", b"/O <"), (b"2 0 R", b"9 0 R")],
    ids=["certificates", "a newer revision", "a short string", "elsewhere"],
)
def test_a_pdf_that_cannot_be_tried_may_ask(tmp_path: Path, change: bytes, to: bytes) -> None:
    content = document(b"<</Type /Catalog>>", REVISION_2, trailer=REVISION_2_ID).replace(change, to)

    assert findings_of(tmp_path, content) == [(Kind.PASSWORD, "is encrypted, and may ask for a password")]


PASSWORDS = encrypted("", EncryptionMethod.RC4), encrypted("secret", EncryptionMethod.AES_128), NO_PAGES_PACKED


@given(content=st.sampled_from(PASSWORDS), at=st.floats(0, 1), patch=st.binary(max_size=20), gone=st.integers(0, 20))
def test_a_damaged_pdf_is_looked_at_all_the_same(
    module_folder: Path, content: bytes, at: float, patch: bytes, gone: int
) -> None:
    place = int(at * len(content))

    assert len(findings_of(module_folder, content[:place] + patch + content[place + gone :])) <= 3


def test_the_metadata_of_an_encryption_are_none(tmp_path: Path) -> None:
    content = document(b"<</Type /Catalog /EncryptMetadata true>>", trailer=b"/EncryptMetadata false")

    assert findings_of(tmp_path, content) == []


@pytest.mark.parametrize("size", [300, 50_000])
def test_a_pdf_that_refers_beyond_its_end_is_cut_off(tmp_path: Path, size: int) -> None:
    content = b"%PDF-1.7\n" + b"\n" * size + b"startxref\n90000\n%%EOF\n"

    reason = f"may be cut off: it refers to its byte 90000, and has {len(content)}"
    assert findings_of(tmp_path, content) == [(Kind.CUT_OFF, reason)]


@pytest.mark.parametrize(("length", "is_cut_off"), [(90_000, True), (100, False)])
def test_a_linearized_pdf_shows_how_long_it_was(tmp_path: Path, length: int, is_cut_off: bool) -> None:
    """One that is longer was changed, and what was changed is appended."""
    content = b"%%PDF-1.7\n1 0 obj <</Linearized 1 /L %d /H [9 9]>> endobj\nstartxref\n0\n%%%%EOF\n" % length
    content += b"\n" * 2_000 + b"startxref\n9\n%%EOF\n"

    reason = f"may be cut off: it says that it has 90000 bytes, and has {len(content)}"
    assert findings_of(tmp_path, content) == [(Kind.CUT_OFF, reason)] * is_cut_off
