"""What the tests of bulk/ share: folders in memory, and virtual time."""

import pytest

from tests.folders import module_folder, tmp_path
from tests.virtual import Clock, run_at_once

__all__ = ["module_folder", "tmp_path"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Make journals and files work in virtual time, and return the clock of the journals."""
    return run_at_once(monkeypatch)
