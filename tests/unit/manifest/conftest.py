"""What the tests of manifest/ share: folders in memory."""

from tests.folders import module_folder, tmp_path

__all__ = ["module_folder", "tmp_path"]
