"""Little archives: certificates that a real PDF library made, and the manifest beside them."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fpdf import FPDF

from springest_async.bulk import COLUMNS


def certificate(text: str) -> bytes:
    """Make a PDF of one page that says `text`."""
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("helvetica", size=24)
    pdf.cell(text=text)
    return bytes(pdf.output())


def archive(
    folder: Path,
    count: int,
    *,
    changes: Mapping[int, Mapping[str, str]] | None = None,
    columns: Sequence[str] = COLUMNS,
    delimiter: str = ",",
) -> Path:
    """Make `count` certificates and a manifest of them; `changes` are other cells by number, which begins with 1."""
    manifest = folder / "certificates.csv"
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", delimiter=delimiter)
        writer.writeheader()
        for number in range(1, count + 1):
            file = folder / f"{number}.pdf"
            file.write_bytes(certificate(f"No. {number}"))
            row = {
                "file": file.name,
                "certification_id": "1",
                "email": f"employee{number}@example.org",
                "valid_from": "2026-01-31",
            }
            writer.writerow(row | dict((changes or {}).get(number, {})))
    return manifest


def hashes(folder: Path) -> list[str]:
    """Return the SHA-256 of each PDF in a folder, sorted."""
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.pdf"))
