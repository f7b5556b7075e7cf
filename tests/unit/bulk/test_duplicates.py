"""Rows that repeat another one: the same certificate, or the same PDF for another person."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from springest_async.bulk import Finding, Kind, Totals, check_manifest
from springest_async.bulk.duplicates import quick_digest
from springest_async.journal.repeats import SeenDigests
from tests.checks import PDF, findings, manifest_with
from tests.pdfs import certificate
from tests.pipes import becomes_a_pipe, swap_after_a_look, without_waiting

NOT_FOUND = "there is no such file"
TWO_PDFS = "is another PDF for the person, certification and dates of row 2: are both meant?"
NO_NAME = "is not a valid file name"


def test_the_same_file_with_the_same_fields_is_one_certificate(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "ok.pdf,*", "ok.pdf,*,2031-01-31", "ok.pdf,1,JAN@Example.org,2026-01-31")

    assert findings(manifest) == [Finding(Kind.TWICE, 4, "file", "is the same certificate as in row 2")]


def test_copies_of_a_file_with_equal_fields_are_one_certificate(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf", "c.pdf"):
        (tmp_path / name).write_bytes(PDF)
    manifest = manifest_with(tmp_path, "a.pdf,*", "b.pdf,*", "./c.pdf,*")

    assert findings(manifest) == [
        Finding(Kind.TWICE, 3, "file", "is the same certificate as in row 2"),
        Finding(Kind.TWICE, 4, "file", "is the same certificate as in row 2"),
    ]


def test_the_same_file_with_other_fields_is_another_certificate(tmp_path: Path) -> None:
    manifest = manifest_with(
        tmp_path,
        "ok.pdf,1,jan@example.org,2026-01-31,2031-01-31",
        "ok.pdf,2,jan@example.org,2026-01-31,2031-01-31",
        "ok.pdf,1,jan@example.org,2026-02-01,2031-01-31",
        "ok.pdf,1,jan@example.org,2026-01-31,2032-01-31",
        "ok.pdf,1,jan@example.org,2026-01-31,2031-01-31,2",
    )

    assert [finding for finding in findings(manifest) if finding.kind is not Kind.CONVERSION] == []


def test_the_pdf_of_another_person_is_a_warning(tmp_path: Path) -> None:
    """A spreadsheet that was filled down gives each person the certificate of the first."""
    manifest = manifest_with(
        tmp_path,
        "ok.pdf,1,jan@example.org,2026-01-31",
        "ok.pdf,1,piet@example.org,2026-01-31",
        "ok.pdf,2,JAN@example.org,2026-01-31",
        "ok.pdf,1,anna@example.org,2026-01-31",
    )

    reason = "is the same PDF as in row 2, which is for another person"
    assert findings(manifest) == [Finding(Kind.SHARED_PDF, row, "file", reason) for row in (3, 5)]


def test_a_file_named_long_before_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("springest_async.bulk.duplicates._NAMES_KEPT", 1)
    (tmp_path / "other.pdf").write_bytes(certificate("First aid: Piet Pietersen"))
    manifest = manifest_with(
        tmp_path, "ok.pdf,*,,", "other.pdf,1,piet@example.org,2026-01-31,,", "ok.pdf,1,anna@example.org,2026-01-31,,"
    )

    reason = "is the same PDF as in row 2, which is for another person"
    assert findings(manifest) == [Finding(Kind.SHARED_PDF, 4, "file", reason)]


def test_a_copy_of_the_pdf_of_another_person_is_a_warning(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf", "c.pdf"):
        (tmp_path / name).write_bytes(PDF[:-6] + b" " * 40_000 + b"%%EOF\n")
    manifest = manifest_with(tmp_path, *(f"{name}.pdf,1,{name}@example.org,2026-01-31" for name in "abc"))

    reason = "is the same PDF as in row 2, which is for another person"
    assert [finding for finding in findings(manifest) if finding.kind is Kind.SHARED_PDF] == [
        Finding(Kind.SHARED_PDF, row, "file", reason) for row in (3, 4)
    ]


def test_pdfs_that_differ_in_the_middle_are_two(tmp_path: Path) -> None:
    """The name of the person stands there, in as many bytes."""
    for name in ("a.pdf", "b.pdf"):
        (tmp_path / name).write_bytes(PDF + b" " * 20_000 + name.encode() + b" " * 20_000 + PDF)
    manifest = manifest_with(tmp_path, *(f"{name}.pdf,1,{name}@example.org,2026-01-31" for name in "ab"))

    assert findings(manifest) == []


@pytest.mark.parametrize("changed", [0, -1], ids=["size", "end"])
def test_files_with_other_ends_are_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: int
) -> None:
    for name in ("a.pdf", "b.pdf"):
        filling = b" " * (20_000 + (name == "b.pdf") * (changed == 0))
        (tmp_path / name).write_bytes(PDF + filling + PDF + (b"\n" if name == "a.pdf" or changed == 0 else b"\r"))
    manifest = manifest_with(tmp_path, *(f"{name}.pdf,1,{name}@example.org,2026-01-31" for name in "ab"))

    def refuse(*_: object) -> None:
        raise AssertionError("it need not be read")

    monkeypatch.setattr("hashlib.file_digest", refuse)

    assert findings(manifest) == []


def test_the_halves_of_a_digest_are_independent() -> None:
    """Else different files are suspected, and each suspicion costs another look at all rows."""
    numbers = random.Random(14)
    digests = [quick_digest(numbers.getrandbits(60), numbers.getrandbits(60)) for _ in range(40_000)]
    seen = SeenDigests()

    assert not any(map(seen.add, digests))


def test_two_pdfs_for_one_certificate_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "other.pdf").write_bytes(certificate("First aid: Jan Jansen, again"))
    manifest = manifest_with(tmp_path, "ok.pdf,*", "other.pdf,*", "other.pdf,*,2031-01-31", "ok.pdf,*")

    assert findings(manifest) == [
        Finding(Kind.TWO_PDFS, 3, "file", TWO_PDFS),
        Finding(Kind.TWICE, 5, "file", "is the same certificate as in row 2"),
    ]


def test_a_row_that_comes_twice_is_counted_once(tmp_path: Path) -> None:
    manifest, totals = manifest_with(tmp_path, "ok.pdf,*", "ok.pdf,*", "none.pdf,*"), Totals()

    list(check_manifest(manifest, totals=totals))

    assert totals == Totals(rows=3, to_send=totals.to_send, size=len(PDF), certifications=Counter({1: 1}))
    assert list(totals.to_send) == [2]


def test_files_with_another_last_byte_are_two_certificates(tmp_path: Path) -> None:
    """Certificates that are made from one template share their fonts and logo, which stand in front."""
    template = PDF + b"%" * 128 * 1024 + b"\nstartxref\n0\n%%EOF"
    (tmp_path / "a.pdf").write_bytes(template + b"\n")
    (tmp_path / "b.pdf").write_bytes(template + b"\r")
    manifest = manifest_with(tmp_path, "a.pdf,*", "b.pdf,*")

    assert findings(manifest) == [Finding(Kind.TWO_PDFS, 3, "file", TWO_PDFS)]


def test_a_file_is_checked_anew_in_each_check(tmp_path: Path) -> None:
    """A service that lives for months checks a manifest, has it mended, and checks it again."""
    (tmp_path / "other.pdf").write_bytes(PDF)
    manifest = manifest_with(tmp_path, "ok.pdf,*", "other.pdf,*")
    assert findings(manifest) == [Finding(Kind.TWICE, 3, "file", "is the same certificate as in row 2")]

    (tmp_path / "other.pdf").write_bytes(certificate("First aid: Piet Pietersen"))

    assert findings(manifest) == [Finding(Kind.TWO_PDFS, 3, "file", TWO_PDFS)]


def test_two_rows_with_the_same_missing_file_are_both_reported(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "none.pdf,*", "none.pdf,*")

    assert findings(manifest) == [
        Finding(Kind.NO_FILE, row, "file", f"{NOT_FOUND}: 'none.pdf' in {tmp_path}") for row in (2, 3)
    ]


def test_two_rows_with_the_same_invalid_name_are_both_reported(tmp_path: Path) -> None:
    manifest = manifest_with(tmp_path, "j\0n.pdf,*", "j\0n.pdf,*")

    reason = f"{NO_NAME}: 'j\\x00n.pdf'"
    assert findings(manifest) == [
        Finding(Kind.UNREADABLE, 2, "file", reason),
        Finding(Kind.UNREADABLE, 3, "file", reason),
    ]


def test_two_rows_with_a_link_to_itself_are_both_reported(tmp_path: Path) -> None:
    (tmp_path / "loop.pdf").symlink_to("loop.pdf")
    manifest = manifest_with(tmp_path, "loop.pdf,*", "loop.pdf,*")

    reason = "is a link that leads in a circle"
    assert findings(manifest) == [
        Finding(Kind.UNREADABLE, 2, "file", reason),
        Finding(Kind.UNREADABLE, 3, "file", reason),
    ]


def test_two_rows_with_the_same_pipe_are_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.pdf"
    os.mkfifo(pipe)
    manifest = manifest_with(tmp_path, "pipe.pdf,*", "pipe.pdf,*")

    assert without_waiting(pipe, lambda: findings(manifest)) == [
        Finding(Kind.UNREADABLE, 2, "file", "is not a regular file"),
        Finding(Kind.UNREADABLE, 3, "file", "is not a regular file"),
    ]


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_pipe_that_replaces_a_duplicate_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """The file is checked for each of its rows, and once more when they are compared."""
    manifest = manifest_with(tmp_path, "a.pdf,*", "a.pdf,*")
    path = tmp_path / "a.pdf"
    path.write_bytes(PDF)
    swap_after_a_look(monkeypatch, path, becomes_a_pipe, looks)

    found = [Finding(Kind.UNREADABLE, row, "file", "is not a regular file") for row in range(looks + 1, 4)]
    assert without_waiting(path, lambda: findings(manifest)) == found


@pytest.mark.parametrize("name", ["j\na\rn.pdf", "🎓 漢 é.pdf", "-rf", "\u202efdp.naj", "x" * 251 + ".pdf", "'\"\\"])
def test_any_name_that_a_file_has_will_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PDF)
    quoted = name.replace('"', '""')
    manifest = manifest_with(
        tmp_path, *(f'"{start}{quoted}",*' for start in ("", f"../{tmp_path.name}/", f"{tmp_path}/"))
    )

    same = "is the same certificate as in row 2"
    assert findings(manifest) == [Finding(Kind.TWICE, 3, "file", same), Finding(Kind.TWICE, 4, "file", same)]


def test_a_check_can_be_stopped_while_files_are_compared(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.pdf").write_bytes(PDF)
    manifest = manifest_with(tmp_path, "ok.pdf,*,,", *(f"{n}.pdf,1,{n}@example.org,2026-01-31,," for n in range(3)))
    assert [found is None for found in check_manifest(manifest)].count(True) > 4
