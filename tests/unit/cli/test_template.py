"""What ``springest template`` writes is what a manifest reads, whatever the names of the files are."""

import io
from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from springest_async.cli.template import _write_csv
from springest_async.manifest.manifest import Manifest
from springest_async.manifest.template import Template
from tests.folders import module_folder

__all__ = ["module_folder"]

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=20)


@given(files=st.lists(NAMES.map("{}.pdf".format), min_size=1, max_size=5))
def test_each_name_is_read_as_it_is(files: list[str], module_folder: Path) -> None:
    made = Template.of(files, None)
    stream = io.BytesIO()
    _write_csv(stream, (made.columns, *made.rows))
    path = module_folder / "certificates.csv"
    path.write_bytes(stream.getvalue())

    assert [str(PurePosixPath(row.cells["file"].strip())) for row in Manifest.open(path)] == [
        str(PurePosixPath(file)) for file in files
    ]
