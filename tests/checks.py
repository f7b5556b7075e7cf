"""Manifests of a few rows, and what a check finds in them."""

from pathlib import Path

from springest_async.bulk import Finding, Manifest, check_manifest
from tests.bulk_runs import manifest_of
from tests.pdfs import certificate

HEADER = "file,certification_id,email,valid_from,valid_until,conversion_id\n"

PDF = certificate("First aid: Jan Jansen")


def manifest_with(folder: Path, *rows: str) -> Manifest:
    """Write a manifest of rows in which ``ok`` is a good file and ``*`` the usual fields."""
    (folder / "ok.pdf").write_bytes(PDF)
    lines = [row.replace("*", "1,jan@example.org,2026-01-31") for row in rows]
    return manifest_of(folder, HEADER + "".join(f"{line}\n" for line in lines))


def findings(manifest: Manifest) -> list[Finding]:
    return [finding for finding in check_manifest(manifest) if finding is not None]
