"""The temporary database of a check."""

import re

import pytest

from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.errors import ConfigurationError


def test_database_lasts_as_long_as_its_block() -> None:
    database = TemporaryDatabase("CREATE TABLE rows (number INTEGER PRIMARY KEY)")
    for _ in range(2):
        with database:
            assert database.change("INSERT INTO rows VALUES (?)", [(2,), (3,)]) == 2
            assert list(database.select("SELECT number FROM rows WHERE number > ?", 2)) == [(3,)]


def test_full_disk_is_said_in_words() -> None:
    with TemporaryDatabase("CREATE TABLE texts (text TEXT)") as database:
        assert list(database.select("PRAGMA max_page_count = 4")) == [(4,)]
        with pytest.raises(ConfigurationError, match=re.escape("is full): free some space there, or set TMPDIR")):
            database.change("INSERT INTO texts VALUES (?)", [("a" * 100_000,)])
