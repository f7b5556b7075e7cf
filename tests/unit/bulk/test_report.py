"""What a run leaves over: the totals, and manifests that can be uploaded again."""

import csv
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from springest_async import ConfigurationError, InDoubt, Receipt, Rejected, SpringestError
from springest_async.bulk import Manifest, Report, RowDone, RowStep, RunRecorder, State
from springest_async.delivery import UploadStep

HEADER = "Naam,file,certification_id,email,valid_from\n"
ROWS = 'Jan,1.pdf,7,jan@example.org,31-01-2026\n"Piet; ""de"", jr",2.pdf,8,piet@example.org,2026-02-01\n'
WHERE = "POST https://springest.example/users/certificates.json"
NOW = datetime(2026, 1, 31, tzinfo=UTC)
REJECTED = Rejected(WHERE, 400, "no,\nnever; “never”")
DOUBT = InDoubt(WHERE, "no answer", "piet@example.org", 8, NOW)
NOT_SENT = "not sent: the run was interrupted"


def manifest_of(folder: Path, text: str = HEADER + ROWS, name: str = "archive.csv") -> Manifest:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return Manifest.open(path)


def run(manifest: Manifest, *ends: tuple[State, SpringestError | None]) -> Report:
    """Tell the ends of a manifest's rows, in order."""
    with RunRecorder(manifest) as recorder:
        for row, (state, error) in zip(manifest, ends, strict=True):
            recorder(RowDone(row, state, error=error))
    return recorder.report()


def table(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter=delimiter))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_totals_are_counted(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    row, other = manifest
    kinds: tuple[Literal["waiting", "sending", "refused"], ...] = ("waiting", "sending", "refused", "sending")
    with RunRecorder(manifest) as recorder:
        for kind in kinds:
            recorder(RowStep(row, UploadStep(kind, 1)))
        assert recorder.report() == Report(counts={}, posts=2, refusals=1)
        receipt = Receipt(id=1, upload=manifest.upload(row), attempts=2, sent_at=NOW, answered_at=NOW)
        recorder(RowDone(row, State.STORED, receipt=receipt))
        recorder(RowDone(other, State.STORED, receipt=receipt))
    report = recorder.report()

    assert report == Report(counts={State.STORED: 2}, posts=2, refusals=1)
    assert (report.rows, report.count(State.STORED), report.count(State.FAILED, State.WAITING)) == (2, 2, 0)
    assert names(tmp_path) == ["archive.csv"]


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        (
            State.REJECTED,
            REJECTED,
            f"{WHERE} rejected the certificate (400): no, never; “never”",
        ),
        (State.FAILED, ConfigurationError("the file is gone"), "the file is gone"),
        (State.WAITING, ConfigurationError("the key was refused"), "the key was refused"),
        (State.WAITING, None, NOT_SENT),
    ],
    ids=["rejected", "failed", "waiting for a person", "waiting"],
)
def test_rows_that_are_not_stored_are_written_down_with_the_reason(
    tmp_path: Path, state: State, error: SpringestError | None, words: str
) -> None:
    manifest = manifest_of(tmp_path)

    report = run(manifest, (State.STORED, None), (state, error))

    path = tmp_path / "archive.failed.csv"
    assert report.left_over == {"failed": path}
    assert table(path) == [
        ["naam", "file", "certification_id", "email", "valid_from", "error"],
        ['Piet; "de", jr', "2.pdf", "8", "piet@example.org", "2026-02-01", words],
    ]


def test_a_run_in_which_nothing_happened_leaves_nothing_over(tmp_path: Path) -> None:
    """The manifest itself is what is to be uploaded again."""
    report = run(manifest_of(tmp_path), (State.WAITING, None), (State.WAITING, ConfigurationError("wrong key")))

    assert report == Report(counts={State.WAITING: 2}, posts=0, refusals=0)
    assert names(tmp_path) == ["archive.csv"]


def test_rows_in_doubt_are_kept_apart(tmp_path: Path) -> None:
    """Uploading them again may store a certificate twice, so they must not be among those that are safe."""
    report = run(manifest_of(tmp_path), (State.REJECTED, REJECTED), (State.IN_DOUBT, DOUBT))

    assert report.left_over == {
        "failed": tmp_path / "archive.failed.csv",
        "in-doubt": tmp_path / "archive.in-doubt.csv",
    }
    assert [row[1] for row in table(report.left_over["failed"])] == ["file", "1.pdf"]
    assert [row[1] for row in table(report.left_over["in-doubt"])] == ["file", "2.pdf"]
    assert table(report.left_over["in-doubt"])[1][-1] == str(DOUBT)


def test_what_is_left_over_is_a_manifest_for_the_same_certificates(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)

    again = Manifest.open(run(manifest, (State.WAITING, None), (State.FAILED, REJECTED)).left_over["failed"])

    assert again.columns == (*manifest.columns, "error")
    assert [again.upload(row) for row in again] == [manifest.upload(row) for row in manifest]


def test_the_errors_of_an_earlier_run_make_place_for_the_new_ones(tmp_path: Path) -> None:
    first = run(manifest_of(tmp_path), (State.WAITING, None), (State.FAILED, REJECTED))

    second = run(Manifest.open(first.left_over["failed"]), (State.FAILED, DOUBT), (State.STORED, None))

    path = tmp_path / "archive.failed-2.csv"
    assert second.left_over == {"failed": path}
    assert table(path) == [
        ["naam", "file", "certification_id", "email", "valid_from", "error"],
        ["Jan", "1.pdf", "7", "jan@example.org", "31-01-2026", str(DOUBT)],
    ]


def test_cells_under_columns_without_a_name_are_kept(tmp_path: Path) -> None:
    header = "file,certification_id,email,valid_from,,\n"
    manifest = manifest_of(tmp_path, f"{header}1.pdf,7,jan@example.org,2026-01-31,a,b\n")

    (row,) = table(run(manifest, (State.FAILED, ConfigurationError("no"))).left_over["failed"])[1:]

    assert row == ["1.pdf", "7", "jan@example.org", "2026-01-31", "a", "b", "no"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["no BOM", "BOM"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_what_is_left_over_is_written_as_the_manifest_was(tmp_path: Path, delimiter: str, bom: bytes) -> None:
    header = HEADER.replace(",", delimiter)
    (tmp_path / "archive.csv").write_bytes(bom + header.encode() + b"Zo\xc3\xab" + delimiter.encode() * 4 + b"\n")
    manifest = Manifest.open(tmp_path / "archive.csv")

    path = run(manifest, (State.FAILED, REJECTED)).left_over["failed"]

    text = bom + delimiter.join([*manifest.columns, "error"]).encode() + b"\r\nZo\xc3\xab"
    assert path.read_bytes().startswith(text)
    again = Manifest.open(path)
    assert (again.delimiter, again.bom) == (delimiter, bool(bom))


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    ends = (State.REJECTED, REJECTED), (State.IN_DOUBT, DOUBT)

    left_over = [run(manifest, *ends).left_over for _ in range(3)]

    assert [paths["failed"].name for paths in left_over] == [
        "archive.failed.csv",
        "archive.failed-2.csv",
        "archive.failed-3.csv",
    ]
    assert len({path.read_bytes() for paths in left_over for path in paths.values()}) == 2
    assert len(names(tmp_path)) == 7


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    (tmp_path / "archive.failed.csv").symlink_to(tmp_path / "precious.csv")

    report = run(manifest, (State.STORED, None), (State.FAILED, REJECTED))

    assert report.left_over == {"failed": tmp_path / "archive.failed-2.csv"}
    assert not (tmp_path / "precious.csv").exists()


@pytest.mark.parametrize(
    ("name", "failed"), [("archive", "archive.failed.csv"), ("a.b.txt", "a.b.failed.txt"), ("x.CSV", "x.failed.CSV")]
)
def test_the_name_is_the_manifests_own(tmp_path: Path, name: str, failed: str) -> None:
    report = run(manifest_of(tmp_path, name=name), (State.STORED, None), (State.FAILED, REJECTED))

    assert report.left_over == {"failed": tmp_path / failed}


def test_only_the_owner_can_read_what_is_left_over(tmp_path: Path) -> None:
    """It holds personal data, whatever the umask is."""
    before = os.umask(0)
    try:
        report = run(manifest_of(tmp_path), (State.REJECTED, REJECTED), (State.IN_DOUBT, DOUBT))
    finally:
        os.umask(before)

    assert [path.stat().st_mode & 0o777 for path in report.left_over.values()] == [0o600, 0o600]


@pytest.mark.parametrize("state", [State.REJECTED, State.FAILED, State.IN_DOUBT])
def test_a_row_is_on_disk_as_soon_as_its_end_is_known(tmp_path: Path, state: State) -> None:
    """A run takes weeks, and may end with a power cut."""
    manifest = manifest_of(tmp_path)
    with RunRecorder(manifest) as recorder:
        recorder(RowDone(next(iter(manifest)), state, error=REJECTED))
        (path,) = recorder.report().left_over.values()

        assert len(table(path)) == 2


def test_a_folder_that_cannot_be_written_in_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    manifest = manifest_of(tmp_path)
    monkeypatch.setattr("os.access", access)

    with pytest.raises(ConfigurationError) as caught, RunRecorder(manifest):
        raise AssertionError("the run must not begin")

    assert str(caught.value) == (
        f"cannot write in {tmp_path}: rows that are not stored are written down beside the manifest"
    )
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]


def test_an_error_inside_the_run_goes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunRecorder(manifest_of(tmp_path)):
        raise ZeroDivisionError


def test_half_a_character_from_the_server_is_written_down_all_the_same(tmp_path: Path) -> None:
    """JSON can say half a surrogate pair, which no encoding can."""
    manifest = manifest_of(tmp_path)
    row = next(iter(manifest))
    with RunRecorder(manifest) as recorder:
        recorder(RowDone(row, State.REJECTED, error=Rejected("POST /", 400, "bad \ud800 word")))

    assert "bad " in recorder.report().left_over["failed"].read_text(encoding="utf-8")
