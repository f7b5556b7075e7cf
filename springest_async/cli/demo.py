"""``springest demo``: a sandbox, 45 real PDFs, one migration as a user would do it, and what the server has counted.

The PDFs are made with fpdf2 (the extra "demo"). The migration is the real ``springest upload`` in a process of its own.
"""

import asyncio
import csv
import hashlib
import os
import random
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path

from fpdf import FPDF
from PIL import Image
from rich.console import Console
from rich.table import Table

from springest_async.bulk import COLUMNS
from springest_async.cli.console import say
from springest_async.cli.exit_codes import Exit
from springest_async.sandbox import Sandbox

_CERTIFICATES = 45
_FIRST_NAMES = ("Zoë", "René", "Søren", "Jürgen", "Chloé", "Íñigo", "Anaïs", "Björk", "Çelik")
_LAST_NAMES = ("de Vries", "van 't Hof", "Müller", "O'Brien", "Łukasiewicz")


async def demo(out: Console) -> Exit:
    """Upload 45 certificates to a sandbox and check each byte; the limit makes it take a little over a minute."""
    with tempfile.TemporaryDirectory(prefix="springest-demo-") as folder:
        async with Sandbox() as sandbox:
            say(
                out, f"1. A sandbox: a local Springest at {sandbox.origin} that accepts 30 POSTs a minute", style="bold"
            )
            manifest = await asyncio.to_thread(_archive, Path(folder))
            sizes = [path.stat().st_size for path in manifest.parent.glob("*.pdf")]
            archive = f"{len(sizes)} PDFs of {min(sizes) / 1000:.0f} kB to {max(sizes) / 1e6:.0f} MB"
            say(out, f"2. An archive: {archive}, and {manifest.name} beside them", style="bold")
            say(out, f"3. The migration: springest upload {manifest.name}", style="bold")
            code = await _upload(manifest, sandbox)
            say(out, "4. What the server received", style="bold")
            return _audit(Path(folder), sandbox, code, out)


async def _upload(manifest: Path, sandbox: Sandbox) -> int:
    environment = os.environ | {
        "SPRINGEST_HOST": sandbox.origin,
        "SPRINGEST_API_KEY": sandbox.api_key,
        "SPRINGEST_CERTIFICATIONS_API_KEY": sandbox.certifications_api_key,
        # The user's own journal is for certificates that matter.
        "SPRINGEST_JOURNAL": str(manifest.parent / "journal.sqlite3"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "springest_async.cli", "upload", manifest, env=environment
    )
    return await process.wait()


def _audit(folder: Path, sandbox: Sandbox, code: int, out: Console) -> Exit:
    sent: Counter[str | None] = Counter(hashlib.sha256(pdf.read_bytes()).hexdigest() for pdf in folder.glob("*.pdf"))
    stored = Counter(post.sha256 for post in sandbox.audit if post.verdict == "stored")
    summary = sandbox.summary()
    seconds = sandbox.audit[-1].seconds - sandbox.audit[0].seconds if sandbox.audit else 0.0
    checks = {
        "stored byte for byte": (str((sent & stored).total()), sent == stored),
        "refused": (str(summary.posts - summary.stored), summary.posts == summary.stored),
        "most in any 60 s": (str(summary.most_in_any_period), summary.most_in_any_period <= 30),
        "seconds from the first to the last POST": (f"{seconds:.1f}", code == Exit.STORED),
    }
    table = Table("what", "how many", "as promised")
    for name, (value, kept) in checks.items():
        table.add_row(name, value, "yes" if kept else "NO")
    out.print(table)
    return Exit.STORED if all(kept for _, kept in checks.values()) else Exit.NOT_ALL


def _archive(folder: Path) -> Path:
    """Make the PDFs and a manifest as a Dutch Excel writes it: with a BOM, ``;`` and Dutch dates."""
    manifest = folder / "certificates.csv"
    with manifest.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, delimiter=";")
        writer.writeheader()
        for number in range(_CERTIFICATES):
            name = f"{_FIRST_NAMES[number % len(_FIRST_NAMES)]} {_LAST_NAMES[number // len(_FIRST_NAMES)]}"
            file = folder / f"{number + 1:02} {name}.pdf"
            # The first is a full-size scan of about 8 MB; the others have a seal, and about 50 kB.
            picture = _noise(2000, 1360) if number == 0 else _noise(120, 120)
            _certificate(file, name, date(2026, 1 + number % 12, 15), picture)
            forklift = number % 3 == 0
            writer.writerow(
                {
                    "file": file.name,
                    "certification_id": 2 if forklift else 1,
                    "email": f"employee{number + 1}@example.org",
                    "valid_from": f"15-{1 + number % 12:02}-2026",
                    "valid_until": f"15-{1 + number % 12:02}-2031" if forklift else "",
                }
            )
    return manifest


def _certificate(file: Path, name: str, day: date, picture: Image.Image) -> None:
    pdf = FPDF(orientation="landscape", format="A4")
    pdf.add_page()
    pdf.set_line_width(1.5)
    pdf.rect(10, 10, 277, 190)
    # PDF's built-in fonts have Western European letters only.
    printable = name.encode("cp1252", "replace").decode("cp1252")
    for size, text, gap in ((36, "Certificate", 50), (16, "awarded to", 20), (28, printable, 20), (14, f"{day}", 20)):
        pdf.set_font("helvetica", size=size)
        pdf.cell(w=0, h=gap, text=text, align="C", new_x="LMARGIN", new_y="NEXT")
    pdf.image(picture, x=128, y=140, h=40)
    pdf.output(str(file))


def _noise(width: int, height: int) -> Image.Image:
    """Return a picture that cannot be compressed, like a noisy scan."""
    return Image.frombytes("RGB", (width, height), random.Random(2026).randbytes(width * height * 3))
