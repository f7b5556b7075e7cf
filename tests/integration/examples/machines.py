"""The examples of docs/machines.md: an upload of one person, so that nothing depends on who is first."""

from collections.abc import Mapping
from pathlib import Path

from .example import Example, Stored, write_pdfs, write_text


def _make(folder: Path) -> None:
    write_pdfs(folder, "jan.pdf")
    write_text(
        folder / "certificates.csv",
        """
file,certification_id,email,valid_from
jan.pdf,7,jan@example.org,2025-05-31
""",
    )


_STORED = [Stored("jan.pdf", 7, "jan@example.org", "2025-05-31")]

EXAMPLES: Mapping[str, Example] = {
    "log": Example(_make, _STORED),
    "metrics": Example(_make, _STORED),
}
