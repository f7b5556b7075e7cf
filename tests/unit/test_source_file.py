"""Files that are to be sent: what is none is refused without waiting for it."""

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from springest_async.errors import UnusableFile
from springest_async.source_file import inspect_file, open_regular
from tests.descriptors import open_files
from tests.pipes import becomes_a_pipe, swap_after_a_look
from tests.waiting import A_WHILE


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(int).result()  # its thread is running before any test counts open files
        yield executor


async def test_a_directory_is_refused(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(UnusableFile) as caught:
        await inspect_file(tmp_path, executor)

    assert (caught.value.file, caught.value.reason) == (tmp_path, "is a folder")


async def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")

    with pytest.raises(UnusableFile, match="is not a regular file"):
        async with asyncio.timeout(A_WHILE):
            await inspect_file(tmp_path / "pipe.pdf", executor)


async def test_a_device_is_refused(executor: ThreadPoolExecutor) -> None:
    with pytest.raises(UnusableFile, match="is not a regular file"):
        await inspect_file(Path("/dev/zero"), executor)


async def test_a_socket_is_refused(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    path = tmp_path / "s.pdf"
    os.mknod(path, stat.S_IFSOCK | 0o600)

    with pytest.raises(UnusableFile):
        await inspect_file(path, executor)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.pdf", "there is no such file"),
        ("jan.pdf/x", "there is no such folder"),
        ("x" * 300, "its name is too long"),
        ("loop.pdf", "is a link that leads in a circle"),
        ("empty.pdf", "is empty"),
    ],
)
async def test_what_cannot_be_sent_is_refused_with_the_reason(
    name: str, reason: str, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    (tmp_path / "jan.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "empty.pdf").touch()
    (tmp_path / "loop.pdf").symlink_to("loop.pdf")

    with pytest.raises(UnusableFile) as caught:
        await inspect_file(tmp_path / name, executor)

    assert caught.value.reason == reason
    assert caught.value.__cause__ is None


async def test_a_name_that_no_file_can_have_is_refused_too(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    with pytest.raises(UnusableFile):
        await inspect_file(tmp_path / "a\x00b.pdf", executor)


async def test_a_link_to_a_file_is_looked_through(pdf: Path, tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    link = tmp_path / "link.pdf"
    link.symlink_to(pdf)

    source = await inspect_file(link, executor)

    assert source.path == link
    with open_regular(link) as stream:
        assert source.is_still(stream)


async def test_a_file_can_be_checked_in_the_default_executor(pdf: Path, executor: ThreadPoolExecutor) -> None:
    assert await inspect_file(pdf, None) == await inspect_file(pdf, executor)


def socket_at(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize(
    ("swap", "reason"),
    [
        (becomes_a_pipe, "is not a regular file"),
        (lambda path: path.unlink() or path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.unlink() or path.mkdir(), "Is a directory"),
        (socket_at, "No such device or address"),
    ],
    ids=["pipe", "device", "folder", "socket"],
)
def test_what_replaces_a_file_before_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], Any], reason: str
) -> None:
    path = tmp_path / "certificate.pdf"
    path.write_bytes(b"%PDF-1.7")
    swap_after_a_look(monkeypatch, path, swap)
    before = open_files()

    with pytest.raises(OSError, match=reason) as caught:
        open_regular(path)

    assert caught.value.strerror == reason
    assert before == open_files()
