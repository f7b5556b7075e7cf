"""Folders in memory for tests of files and journals: waiting for a disk would take most of their time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_MEMORY = "/dev/shm"  # noqa: S108 # each test makes a folder of its own there


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Make a folder in memory, where there is room for one, for a test that needs many of them."""
    there = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 500_000_000
    with TemporaryDirectory(prefix="springest-", dir=_MEMORY if there else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return an empty folder in memory, where there is room for one."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """Return such a folder for all tests of a module."""
    with folder_in_memory() as folder:
        yield folder
