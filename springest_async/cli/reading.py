"""The options that say how a manifest is to be read, which several commands share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from springest_async.manifest.certifications import Certifications
    from springest_async.manifest.reading import Reading

CERTIFICATIONS = "certifications.csv"
"""The name of Springest's own list of certifications, which may lie beside a manifest."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a manifest is to be read.

    Attributes:
        files: The folder or the ZIP with the PDFs, or a folder in a ZIP (`certs.zip/2025`); by default the folder of
            the manifest.
        sheet: The sheet of a workbook that has several.
        dates: What dates such as 05/06/2026 begin with: the day (`dmy`) or the month (`mdy`). Not needed where some day
            over 12 in the same column shows it.
        columns: Which column is which, where its name does not show it: `--map email="E-mail adres"`; or what to make
            a cell of: `--map file="{Name}.pdf"`; or that no column is: `--map conversion_id=`. May be repeated.
        users: A spreadsheet of the users, with an id, external id or name and the email address, where the manifest has
            no addresses.
        certification: The certification of all rows: its id or its exact name.
        fix_names: Take the file that is meant where its name is written otherwise (upper case, accents, no `.pdf` …),
            if there is exactly one.
    """

    files: Path | None = None
    sheet: str | None = None
    dates: Annotated[Literal["dmy", "mdy"] | None, Parameter(negative="")] = None
    columns: Annotated[tuple[str, ...], Parameter(name="--map", negative="", show_default=False)] = ()
    users: Path | None = None
    certification: Annotated[str, Parameter(show_default=False)] = ""
    fix_names: Annotated[bool, Parameter(negative="", show_default=False)] = False

    def arguments(self) -> str:
        """Return the same options as they are written in a shell, with a space before each, to print a command."""
        from springest_async.cli.console import argument

        values = {
            "--files": self.files,
            "--sheet": self.sheet,
            "--dates": self.dates,
            "--users": self.users,
            "--certification": self.certification,
        }
        named = [(name, str(value)) for name, value in values.items() if value]
        named += [("--map", column) for column in self.columns]
        words = [word for option in named for word in option] + ["--fix-names"] * self.fix_names
        return "".join(f" {argument(word)}" for word in words)

    def reading(self, manifest: Path, *, beside: bool = True) -> "Reading":
        """Return how to read a manifest. This reads the list of users, so run it in a thread.

        Args:
            manifest: the manifest.
            beside: whether a list of certifications that lies beside it is read.

        Raises:
            ConfigurationError: an option is invalid.
            ManifestError: the list of users or of certifications cannot be read.
        """
        from springest_async.manifest.reading import Reading
        from springest_async.manifest.users import Users

        return Reading(
            dates=self.dates,
            sheet=self.sheet,
            columns=_mapping(self.columns),
            files=self.files,
            fix_names=self.fix_names,
            users=None if self.users is None else Users.open(self.users),
            certification=self.certification.strip(),
            certifications=_certifications_beside(manifest) if beside else None,
        )


def _mapping(options: tuple[str, ...]) -> dict[str, str]:
    from springest_async.errors import ConfigurationError

    mapping: dict[str, str] = {}
    for option in options:
        name, equals, title = (part.strip() for part in option.partition("="))
        if not (name and equals):
            raise ConfigurationError(
                f'--map {option}: write a column of ours and one of yours, as in email="E-mail adres"'
            )
        if name in mapping:
            raise ConfigurationError(f"--map {name} is there twice")
        mapping[name] = title
    return mapping


def _certifications_beside(manifest: Path) -> "Certifications | None":
    """Return which certifications are meant by names and codes, if a list of them lies beside the manifest."""
    from springest_async.manifest.certifications import Certifications

    path = manifest.with_name(CERTIFICATIONS)
    return Certifications.open(path) if path != manifest and path.exists() else None
