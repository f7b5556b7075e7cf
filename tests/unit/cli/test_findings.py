"""What a check shows of its findings: groups, the first rows, advice, JSON, and a CSV with all of them."""

import csv
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from rich.console import Console

from springest_async.bulk.findings import Finding, FindingLog, Kind, Severity
from springest_async.cli import findings
from springest_async.cli.findings import as_json, check_findings_file, show_findings, summary, write_findings
from springest_async.errors import ConfigurationError


@pytest.fixture
def log() -> Iterator[FindingLog]:
    with FindingLog() as log:
        yield log


def shown(log: FindingLog, written_to: Path | None = None) -> list[str]:
    out = io.StringIO()
    show_findings(log, Console(file=out, width=80), written_to=written_to)
    return out.getvalue().splitlines()


def missing(row: int) -> Finding:
    return Finding(Kind.NO_FILE, row, "file", f"there is no such file: {row}.pdf")


def test_everything_but_a_note_has_advice() -> None:
    assert {kind for kind in Kind if kind.severity is not Severity.NOTE} <= findings._ADVICE.keys()


def test_most_serious_kinds_come_first(log: FindingLog) -> None:
    for finding in (
        Finding(Kind.TITLE_ROWS, 1, "", "the names of the columns are in row 3"),
        Finding(Kind.YEAR, 4, "valid_from", "is in the year 0025: is that meant?"),
        Finding(Kind.EMAIL, 9, "email", "'jan' is not an e-mail address"),
        missing(5),
        missing(6),
    ):
        log.add(finding)
    lines = shown(log)
    assert [line for line in lines if not line.startswith("    ")] == [
        "Faults (these rows cannot be sent):",
        "  Files that do not exist: 2",
        "  Email addresses that are invalid: 1",
        "Warnings (these rows can be sent, but may not be what you mean):",
        "  Years that can hardly be meant: 1",
        "Notes:",
        "  Rows above the names of the columns: 1",
    ]
    assert lines[2] == "    row 5, file: there is no such file: 5.pdf"
    assert lines[4].startswith("    Put the PDFs where the manifest says")
    assert lines[-1] == "    row 1: the names of the columns are in row 3"


def test_twenty_thousand_of_a_kind_are_three_lines(log: FindingLog) -> None:
    for row in range(2, 20_002):
        log.add(missing(row))
    lines = shown(log)
    assert lines[1:6] == [
        "  Files that do not exist: 20 000",
        *(f"    row {row}, file: there is no such file: {row}.pdf" for row in (2, 3, 4)),
        "    … and 19 997 more: --findings FILE.csv lists all",
    ]
    assert "    … and 19 997 more in faults.csv" in shown(log, Path("faults.csv"))


def test_a_few_of_a_kind_are_all_shown(log: FindingLog) -> None:
    for row in range(2, 7):
        log.add(missing(row))
    assert not any("more" in line for line in shown(log))


def test_a_wrong_folder_is_one_fault(log: FindingLog) -> None:
    for row in range(2, 302):
        log.add(missing(row))
    log.add(Finding(Kind.WRONG_FOLDER, 2, "file", "none of the files of 300 rows is in /pdfs"))
    assert shown(log)[1:] == [
        "  No file was found: the folder of the files may be another one",
        "    row 2, file: none of the files of 300 rows is in /pdfs",
        "    If the PDFs are elsewhere, name their folder or ZIP: --files FOLDER.",
    ]
    assert summary(log) == "1 fault in 300 rows"


def test_columns_are_called_as_in_the_manifest(log: FindingLog) -> None:
    log.add(missing(2))
    out = io.StringIO()
    show_findings(log, Console(file=out, width=80), title={"file": "Bestand"}.__getitem__)
    assert "row 2, Bestand: there is no such file" in out.getvalue()


def test_control_characters_never_reach_the_terminal(log: FindingLog) -> None:
    log.add(Finding(Kind.CELL, 2, "", "has more cells than there are columns: \x1b[2J\u202e"))
    assert not any("\x1b" in line or "\u202e" in line for line in shown(log))


def test_summary_counts_what_was_found(log: FindingLog) -> None:
    assert summary(log) == "nothing to correct"
    log.add(Finding(Kind.YEAR, 4, "valid_from", "is in the year 0025"))
    assert summary(log) == "1 warning"
    for finding in (missing(4), missing(5), Finding(Kind.EMAIL, 5, "email", "is not an e-mail address")):
        log.add(finding)
    assert summary(log) == "3 faults in 2 rows, 1 warning"


def test_json_has_counts_and_the_first_rows(log: FindingLog) -> None:
    for row in range(2, 20):
        log.add(missing(row))
    (group,) = json.loads(json.dumps(as_json(log)))
    first = group.pop("first")
    heading = "files that do not exist"
    assert group == {"kind": "no-file", "severity": "fault", "heading": heading, "count": 18}
    assert first[0] == {"row": 2, "column": "file", "reason": "there is no such file: 2.pdf"}


def test_csv_has_all_by_row_and_no_formulas(log: FindingLog, tmp_path: Path) -> None:
    log.add(missing(4000))
    log.add(Finding(Kind.CELL, 3, "=1+1", "=HYPERLINK(1)\nis no file"))
    path = tmp_path / "findings.csv"
    write_findings(log, path, separator=";")
    assert path.read_bytes().startswith(b"\xef\xbb\xbfrow;column;severity;kind;reason")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        _, *rows = csv.reader(stream, delimiter=";")
    assert rows == [
        ["3", "'=1+1", "fault", "cell", "'=HYPERLINK(1)\nis no file"],
        ["4000", "file", "fault", "no-file", "there is no such file: 4000.pdf"],
    ]
    assert os.name != "posix" or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_csv_names_columns_as_the_manifest_does(log: FindingLog, tmp_path: Path) -> None:
    log.add(missing(2))
    write_findings(log, path := tmp_path / "findings.csv", title={"file": "Bestand"}.__getitem__)
    assert "2,Bestand,fault,no-file," in path.read_text("utf-8-sig")


def test_csv_of_the_last_check_is_replaced(log: FindingLog, tmp_path: Path) -> None:
    log.add(missing(2))
    write_findings(log, path := tmp_path / "findings.csv")
    before = path.read_bytes()
    log.add(missing(3))
    write_findings(log, path, separator=";")
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"file;certification_id;email;valid_from\n", b"", b"\xff\xfe\0"])
def test_no_other_file_is_overwritten(log: FindingLog, tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "certificates.csv").write_bytes(content)
    with pytest.raises(ConfigurationError, match="exists, and has something else: name a new one"):
        write_findings(log, path)
    assert path.read_bytes() == content


def test_folders_and_missing_folders_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="something else"):
        check_findings_file(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        check_findings_file(tmp_path / "gone" / "findings.csv")
    with pytest.raises(ConfigurationError, match=r"are written as a CSV: name it findings\.csv"):
        check_findings_file(tmp_path / "findings.XLSX")
    check_findings_file(tmp_path / "findings.csv")
    assert list(tmp_path.iterdir()) == []


def test_no_half_file_is_left_on_a_full_disk(log: FindingLog, tmp_path: Path) -> None:
    log.add(missing(2))
    full = OSError(28, "No space left on device")
    with (
        patch("springest_async.cli.findings._cells", side_effect=full),
        pytest.raises(ConfigurationError, match="No space left on device"),
    ):
        write_findings(log, tmp_path / "findings.csv")
    assert list(tmp_path.iterdir()) == []
