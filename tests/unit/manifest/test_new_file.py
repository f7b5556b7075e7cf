"""New files: whole or not at all, never over another one, and the owner's alone."""

import errno
import os
import stat
from pathlib import Path

import pytest

from springest_async.manifest.new_file import new_file


def test_a_new_file_gets_the_first_free_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with new_file(tmp_path) as file:
        file.stream.write(b"new")
        assert file.publish([tmp_path / "a", tmp_path / "b", tmp_path / "c"]) == tmp_path / "b"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old", "b": b"new"}


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with new_file(tmp_path) as file:
        path = file.publish([tmp_path / "a"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_left_of_a_file_without_a_name(tmp_path: Path) -> None:
    with new_file(tmp_path) as file:
        file.stream.write(b"half")
    with pytest.raises(ZeroDivisionError), new_file(tmp_path) as file:
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_no_name_is_free(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileExistsError), new_file(tmp_path) as file:
        file.publish([tmp_path / "a"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("taken", [False, True])
def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    def link(_hidden: Path, _path: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    if taken:
        (tmp_path / "a").write_bytes(b"old")
    with new_file(tmp_path) as file:
        file.stream.write(b"new")
        path = file.publish([tmp_path / "a", tmp_path / "b"])
    assert (path.name, path.read_bytes()) == ("b" if taken else "a", b"new")
    assert not taken or (tmp_path / "a").read_bytes() == b"old"


def test_it_is_compared_with_another_file(tmp_path: Path) -> None:
    (tmp_path / "same").write_bytes(b"new")
    (tmp_path / "other").write_bytes(b"old")
    with new_file(tmp_path) as file:
        file.stream.write(b"new")
        assert file.equals(tmp_path / "same")
        assert not file.equals(tmp_path / "other")
        assert not file.equals(tmp_path / "none")
