"""The options that say how a manifest is to be read."""

import shlex
from pathlib import Path

import pytest

from springest_async.cli.reading import ReadingOptions
from springest_async.errors import ConfigurationError


def test_a_column_is_mapped_or_left_out(tmp_path: Path) -> None:
    options = ReadingOptions(columns=("email=E-mail adres", 'file = {Name} "a=b".pdf', "conversion_id="))

    reading = options.reading(tmp_path / "certificates.csv")

    assert reading.columns == {"email": "E-mail adres", "file": '{Name} "a=b".pdf', "conversion_id": ""}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (("E-mail adres",), "--map E-mail adres: write a column of ours and one of yours"),
        (("=E-mail",), "--map =E-mail: write a column of ours and one of yours"),
        (("email=a", "email=b"), "--map email is there twice"),
    ],
)
def test_a_wrong_mapping_is_refused(tmp_path: Path, columns: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        ReadingOptions(columns=columns).reading(tmp_path / "certificates.csv")


def test_a_list_beside_the_manifest_names_certifications(tmp_path: Path) -> None:
    manifest = tmp_path / "certificates.csv"
    assert ReadingOptions().reading(manifest).certifications is None
    (tmp_path / "certifications.csv").write_text("ID,Name\n7,EHBO\n", encoding="utf-8")

    beside = ReadingOptions().reading(manifest).certifications

    assert beside is not None
    assert (beside.is_complete, beside.id_of("EHBO")) == (False, 7)


def test_the_options_can_be_printed_for_a_shell() -> None:
    options = ReadingOptions(
        files=Path("my pdfs.zip"), dates="dmy", columns=("email=E-mail adres", "file={Naam}.pdf"), fix_names=True
    )

    words = shlex.split(options.arguments())

    assert words == [
        *("--files", "my pdfs.zip", "--dates", "dmy", "--map", "email=E-mail adres", "--map", "file={Naam}.pdf"),
        "--fix-names",
    ]
    assert ReadingOptions().arguments() == ""
