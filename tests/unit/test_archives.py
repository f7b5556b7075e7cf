"""Files in ZIP archives: found by name, read in pieces, and refused in plain words when they cannot be sent."""

import hashlib
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, FileIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from springest_async import archives
from springest_async.archives import Index, Member
from springest_async.errors import UnusableFile
from springest_async.source_file import (
    PIECE,
    FileReader,
    SourceFile,
    check_folder,
    exists,
    is_folder,
    names_in,
    open_source,
)
from tests.descriptors import open_files
from tests.zips import raw_zip, zip_of

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "LZMA": zipfile.ZIP_LZMA,
}

METHOD = st.sampled_from(list(METHODS.values()))


def content(size: int, seed: int = 1) -> bytes:
    """Make bytes that are packed to about half of their size."""
    return b"%PDF-1.7\n" + random.Random(seed).randbytes(size // 2).hex().encode()[: size - 9]


def read(path: Path) -> bytes:
    with open_source(path) as stream:
        return stream.read()


def fault(path: Path) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the caller looks at its words)
        read(path)
    return str(caught.value.strerror)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("size", [10, PIECE, PIECE + 1])
def test_a_member_is_read_as_it_was_packed(tmp_path: Path, size: int, method: int) -> None:
    path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(size)}, method) / "jan.pdf"

    assert read(path) == content(size)
    with open_source(path) as stream:
        assert hashlib.file_digest(stream, "sha256").digest() == hashlib.sha256(content(size)).digest()
    reader = FileReader.open(path)
    pieces = [reader.beginning]
    while reader.left:
        pieces.append(reader.read())
    assert b"".join(pieces) == content(size)
    assert max(map(len, pieces)) <= PIECE
    assert reader.source == SourceFile.look(path)


def test_nothing_stays_open(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(2 * PIECE)})
    before = open_files()

    SourceFile.look(archive / "jan.pdf")
    FileReader.open(archive / "jan.pdf").close()
    fault(archive / "jane.pdf")
    list(names_in(archive))
    is_folder(archive / "2025")

    assert before == open_files()


def test_a_member_lies_where_its_name_says(tmp_path: Path) -> None:
    """Also when a file is called like an archive, and a folder too."""
    folder = tmp_path / "2025.zip"
    folder.mkdir()
    archive = zip_of(folder / "certs.zip", {"a/b/jan.pdf": b"1", "a/jan.pdf": b"2", "jan.pdf": b"3"})

    assert [read(archive / name) for name in ("a/b/jan.pdf", "a/jan.pdf", "jan.pdf")] == [b"1", b"2", b"3"]
    assert fault(archive / "b/jan.pdf") == "there is no such file in the archive"
    assert fault(archive / "a") == "there is no such file in the archive"
    assert fault(folder / "jan.pdf") == "No such file or directory"


def test_a_time_never_looks_like_a_checksum() -> None:
    """Times are compared to 2 s: no two checksums may be as near as that, and none near the time of a file."""
    entries = [archives.Entry("x", b"x", 0, 0, crc, 1, 1, 0) for crc in (0, 1, 2, 2**31, 2**32 - 2, 2**32 - 1)]
    found = [SourceFile.listed(Path("x"), entry).modified_ns for entry in entries]

    assert min(after - before for before, after in pairwise(found)) > 2_000_000_000
    assert all(-(2**63) <= stamp < -200_000_000 * 10**9 for stamp in found)


def test_another_content_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "certs.zip"
    source = SourceFile.look(zip_of(path, {"jan.pdf": content(100)}) / "jan.pdf")
    zip_of(path, {"ann.pdf": content(500), "jan.pdf": content(100)}, zipfile.ZIP_STORED)

    assert SourceFile.look(path / "jan.pdf") == source
    zip_of(path, {"jan.pdf": content(100, seed=2)})
    assert SourceFile.look(path / "jan.pdf") != source


def rewritten(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replaced(path: Path) -> None:
    other = path.with_name("other.zip")
    other.write_bytes(path.read_bytes())
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [rewritten, replaced, Path.unlink])
def test_an_archive_that_changes_is_noticed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    archive = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(PIECE + 1)})
    reader = FileReader.open(archive / "jan.pdf")
    with open_source(archive / "jan.pdf") as stream:
        source = SourceFile.of(archive / "jan.pdf", stream)
        assert source.is_still(stream)
        change(archive)
        assert not source.is_still(stream)

    with pytest.raises(UnusableFile, match="changed while it was being read"):
        reader.read()


def test_a_member_that_changed_since_its_check_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "certs.zip"
    source = SourceFile.look(zip_of(path, {"jan.pdf": content(100)}) / "jan.pdf")
    zip_of(path, {"jan.pdf": content(100, seed=2)})

    with pytest.raises(UnusableFile, match="changed between its check and its sending"):
        FileReader.open(path / "jan.pdf", source)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_damaged_member_is_refused(tmp_path: Path, method: int) -> None:
    path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(10_000)}, method)
    damaged = bytearray(path.read_bytes())
    for place in range(200, 3000):
        damaged[place] ^= 0x55
    path.write_bytes(damaged)

    assert fault(path / "jan.pdf").startswith("is damaged in the archive: copy or download")
    with pytest.raises(UnusableFile, match="is damaged in the archive"):
        FileReader.open(path / "jan.pdf")


def test_a_member_shorter_than_listed_is_damaged(tmp_path: Path) -> None:
    for method in METHODS.values():
        path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(10_000)}, method)
        longer = bytearray(path.read_bytes())
        at = longer.index(b"PK\x01\x02") + 24
        longer[at : at + 4] = struct.pack("<L", 10_001)
        path.write_bytes(longer)

        assert fault(path / "jan.pdf").startswith("is damaged in the archive")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_member_that_leads_beyond_the_end_is_damaged(tmp_path: Path, method: int) -> None:
    path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(300)}, method)
    damaged = bytearray(path.read_bytes())
    damaged[28:30] = b"\xff\xff"  # the length of the fields in front of the content
    path.write_bytes(damaged)

    assert fault(path / "jan.pdf").startswith("is damaged in the archive")


@pytest.mark.parametrize("keep", [0, 1, 10, 21, 60, 300, -1, -30])
def test_an_incomplete_archive_is_refused(tmp_path: Path, keep: int) -> None:
    path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(1000)})
    path.write_bytes(path.read_bytes()[:keep])

    told = fault(path / "jan.pdf")
    assert told in ("its archive is damaged or incomplete: copy or download it again", "Not a directory")
    assert (told == "Not a directory") == (keep in (0, 1))


@pytest.mark.parametrize(
    ("flags", "method", "reason"),
    [
        (1, 0, "is protected by a password in the archive: unpack it, and name the folder"),
        (1, 99, "is protected by a password in the archive: unpack it, and name the folder"),
        (0, 9, "is packed with Deflate64 in the archive: make a usual ZIP (Deflate), or unpack it and name the folder"),
        (
            0,
            77,
            "is packed with method 77 in the archive: make a usual ZIP (Deflate), or unpack it and name the folder",
        ),
    ],
)
def test_what_cannot_be_unpacked_is_refused(tmp_path: Path, flags: int, method: int, reason: str) -> None:
    path = raw_zip(tmp_path / "certs.zip", {b"jan.pdf": b"%PDF-1.7"}, flags=flags, method=method)

    assert fault(path / "jan.pdf") == reason


def test_a_dictionary_that_takes_much_memory_is_refused(tmp_path: Path) -> None:
    head = b"\x09\x04\x05\0\x5d" + struct.pack("<L", 2**30)
    path = raw_zip(tmp_path / "certs.zip", {b"jan.pdf": head + b"x" * 100}, method=14)

    assert fault(path / "jan.pdf").startswith("is packed with LZMA and a dictionary of 1024 MiB in the archive")


def test_a_bomb_costs_nothing(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "bomb.zip", {"jan.pdf": b"\0" * 20_000_000})
    huge = zip_of(tmp_path / "huge.zip", {"jan.pdf": b"x"})
    listed = bytearray(huge.read_bytes())
    at = listed.index(b"PK\x01\x02") + 24
    listed[at : at + 4] = struct.pack("<L", 2**32 - 2)
    huge.write_bytes(listed)

    assert fault(bomb / "jan.pdf").startswith("unpacks to more than 100 times its size")
    assert fault(huge / "jan.pdf").startswith(
        "is too large to be read from an archive: it has 4095 MiB, and at most 512"
    )


def test_a_zip_in_a_zip_is_not_searched(tmp_path: Path) -> None:
    inner = BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("jan.pdf", b"%PDF-1.7")
    path = zip_of(tmp_path / "certs.zip", {"2025/inner.zip": inner.getvalue()})

    told = "is in '2025/inner.zip' inside the archive: unpack that first, ZIPs in ZIPs are not read"
    assert fault(path / "2025/inner.zip/jan.pdf") == told


def test_two_members_of_one_name_are_a_fault(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "certs.zip", {b"jan.pdf": b"1", b"./jan.pdf": b"2"})

    assert fault(path / "jan.pdf").startswith("there are 2 files of this name in the archive")


NAMES: list[tuple[bytes, int, str]] = [
    ("Zoë.pdf".encode("cp437"), 0, "Zoë.pdf"),
    ("Zoë.pdf".encode(), 0x800, "Zoë.pdf"),
    ("Zoë.pdf".encode(), 0, "Zoë.pdf"),  # a Mac
    (b"2025\\jan.pdf", 0, "2025/jan.pdf"),
    (b"./2025//jan.pdf", 0, "2025/jan.pdf"),
    (b"/2025/jan.pdf", 0, "2025/jan.pdf"),
]


@pytest.mark.parametrize(("raw", "flags", "name"), NAMES)
def test_names_are_read_as_programs_write_them(tmp_path: Path, raw: bytes, flags: int, name: str) -> None:
    assert read(raw_zip(tmp_path / "certs.zip", {raw: b"1"}, flags=flags) / name) == b"1"


def test_a_name_in_unicode_beside_the_old_one_is_taken(tmp_path: Path) -> None:
    """Info-ZIP and WinZip write the name in the code page of the machine, and in UTF-8 beside it."""
    raw, better = b"S\x9bren.pdf", "Søren.pdf".encode()
    field = struct.pack("<2HBL", 0x7075, 5 + len(better), 1, zlib.crc32(raw)) + better
    stale = struct.pack("<2HBL", 0x7075, 5 + len(better), 1, 1) + better
    path = raw_zip(
        tmp_path / "certs.zip", {raw: b"1", b"S\x9bren2.pdf": b"2"}, extra={raw: field, b"S\x9bren2.pdf": stale}
    )

    assert set(names_in(path)) == {"Søren.pdf", "S¢ren2.pdf"}
    assert read(path / "Søren.pdf") == b"1"


def test_what_no_manifest_can_name_is_left_out(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "certs.zip",
        {"2025/": b"", "2025/jan.pdf": b"1", "__MACOSX/2025/._jan.pdf": b"x", "../jan.pdf": b"x", "empty/": b""},
    )

    assert list(names_in(path)) == ["2025"]
    assert list(names_in(path / "2025")) == ["jan.pdf"]
    assert fault(path / "../jan.pdf") == "there is no such file in the archive"


def test_a_name_with_a_nul_is_left_out(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "certs.zip", {b"jan.pdf\0.exe": b"1", b"ann.pdf": b"2"})

    assert list(names_in(path)) == ["ann.pdf"]
    assert fault(path / "jan.pdf") == "there is no such file in the archive"


def test_folders_of_an_archive_are_known(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "certs.zip", {"2025/01/jan.pdf": b"1"})

    assert [is_folder(path / name) for name in ("2025", "2025/01", "2025/02", "2025/01/jan.pdf")] == [
        True,
        True,
        False,
        False,
    ]
    assert [exists(path / name) for name in ("2025", "2025/01/jan.pdf", "2025/02")] == [True, True, False]
    assert sorted(names_in(path / "2025")) == ["01"]


def test_where_files_can_be_is_checked(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "certs.zip", {"2025/jan.pdf": b"1"})
    (tmp_path / "certs.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    (tmp_path / "certs.csv").write_text("file,email")

    for place in (tmp_path, path, path / "2025"):
        check_folder(place)
    for name, reason in (
        ("certs.rar", "is a RAR archive, not a ZIP: unpack it, and name the folder"),
        ("certs.csv", "is neither a folder nor a ZIP archive"),
        ("certs", "No such file or directory"),
        ("certs.zip/2024", "there is no such folder in the archive"),
        ("certs.zip/2025/jan.pdf", "is in an archive: unpack that first, ZIPs in ZIPs are not read"),
        ("certs.csv/2025", "Not a directory"),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 (below)
            check_folder(tmp_path / name)
        assert caught.value.strerror == reason


def test_bytes_before_an_archive_and_a_comment_do_not_matter(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(1000)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK from " * 1000
    path.write_bytes(b"a program that unpacks it" * 1000 + path.read_bytes())

    assert read(path / "jan.pdf") == content(1000)


def test_an_archive_with_large_numbers_is_read(tmp_path: Path) -> None:
    """More than 65 535 members need the form ZIP64."""
    path = tmp_path / "certs.zip"
    zip_of(path, {f"{number % 100}/{number}.pdf": b"%d" % number for number in range(70_000)}, zipfile.ZIP_STORED)

    assert [read(path / f"{number % 100}/{number}.pdf") for number in (0, 65_535, 69_999)] == [b"0", b"65535", b"69999"]
    assert len(list(names_in(path / "7"))) == 700


def test_an_archive_beyond_4_gib_is_read(tmp_path: Path) -> None:
    """Most of it is a hole, which takes no room on the disk."""
    path = tmp_path / "certs.zip"
    with path.open("wb") as stream:
        stream.truncate(5 * 2**30)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("jan.pdf", content(1000))

    assert read(path / "jan.pdf") == content(1000)


def test_sizes_of_64_bits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "certs.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("jan.pdf", "w", force_zip64=True) as stream:
        stream.write(content(1000))
    listed = bytearray(path.read_bytes())
    at = listed.index(b"PK\x01\x02")
    size = struct.pack("<2Q", 1000, 1000)
    entry = listed[at : at + 46] + b"jan.pdf" + struct.pack("<2H", 1, 16) + size
    entry[20:28], entry[30:32] = b"\xff" * 8, struct.pack("<H", 20)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), at, 0)
    path.write_bytes(bytes(listed[:at]) + bytes(entry) + end)

    assert read(path / "jan.pdf") == content(1000)


def test_a_list_is_read_once_by_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "certs.zip", {f"{number}.pdf": content(5000, number) for number in range(50)})
    readings = []
    really_read = Index.read

    def count(stream: FileIO) -> Index:
        readings.append(stream)
        return really_read(stream)

    monkeypatch.setattr(Index, "read", count)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: read(path / f"{number % 50}.pdf"), range(400)))

    assert found == [content(5000, number % 50) for number in range(400)]
    assert len(readings) == 1


def test_an_archive_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "certs.zip", {"jan.pdf": b"1"})
    assert read(path / "jan.pdf") == b"1"
    zip_of(path, {"jan.pdf": b"1", "ann.pdf": b"2"})

    assert read(path / "ann.pdf") == b"2"


@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_never_more_than_a_fault(data: st.DataObject, tmp_path: Path) -> None:
    """Whatever is changed in an archive: a member is read as it was packed, or refused."""
    packed = bytearray(zip_of(tmp_path / "certs.zip", {"jan.pdf": content(300)}, data.draw(METHOD)).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=3)):
        replacement = data.draw(st.sampled_from([b"\xff", b"\xff" * 2, b"\xff" * 4, b"\xff" * 8, b"", b"\0"]))
        packed[place : place + (len(replacement) or 4)] = replacement
    path = tmp_path / "certs.zip"
    path.write_bytes(packed)

    try:
        found = read(path / "jan.pdf")
    except OSError as error:
        assert error.strerror  # noqa: PT017 (it may also be read)
    else:
        assert found == content(300)


def test_going_back_in_a_member_begins_anew(tmp_path: Path) -> None:
    for method in METHODS.values():
        path = zip_of(tmp_path / "certs.zip", {"jan.pdf": content(100_000)}, method) / "jan.pdf"
        with open_source(path) as stream:
            assert isinstance(stream, Member)
            assert stream.read(10) == content(100_000)[:10]
            stream.seek(99_990)
            assert (stream.read(100), stream.read(100)) == (content(100_000)[-10:], b"")
            stream.seek(5)
            assert stream.read(5) == content(100_000)[5:10]
