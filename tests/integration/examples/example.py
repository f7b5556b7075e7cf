"""`Example`: the files of an example, and the Springest that its commands speak to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from springest_async.sandbox import Sandbox, SandboxCertification
from tests.conftest import pdf_of
from tests.integration.command import springest_sandbox

__all__ = ["CERTIFICATIONS", "Example", "Stored", "content", "write_pdfs", "write_text"]

CERTIFICATIONS = (
    SandboxCertification(id=7, name="First aid"),
    SandboxCertification(id=12, name="VCA Basic", requires_valid_until=True),
    SandboxCertification(id=15, name="Café safety"),
)
"""Those of the Springest in most examples."""


@frozen
class Stored:
    """A certificate that the sandbox has to have stored: its fields, and where its PDF is in the example."""

    file: str
    certification_id: int
    email: str
    valid_from: str
    valid_until: str = ""


def _unhurried() -> Sandbox:
    return springest_sandbox(limit=1000, certifications=CERTIFICATIONS)


@frozen
class Example:
    """An example.

    Attributes:
        make: writes its files into an empty folder.
        stored: the certificates that its commands store, in any order.
        sandbox: makes the Springest; by default one with a limit that no example reaches.
        refused: how many POSTs are not stored.
        variables: changes of the environment of its commands; None takes a variable away.
    """

    make: Callable[[Path], None]
    stored: Sequence[Stored] = ()
    sandbox: Callable[[], Sandbox] = _unhurried
    refused: int = 0
    variables: Mapping[str, str | None] = field(factory=dict)


def content(file: str) -> bytes:
    """Return the PDF of an example that has this path: of each path another one, the same in every run."""
    return pdf_of(file.encode("ascii", "replace").decode())


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a file without the empty lines with which its text begins."""
    path.write_bytes(text.lstrip("\n").encode(encoding))


def write_pdfs(folder: Path, *files: str) -> None:
    """Write PDFs, each with the `content` of its path."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content(file))
