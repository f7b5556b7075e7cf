"""The page that shows what the benchmarks found: DIR.md beside the folder DIR of ``--output``.

Its beginning is written by hand. All that stands below `MARK` is made again from the JSON files in the folder.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tables import Table

__all__ = ["MARK", "rewrite"]

MARK = "<!-- What follows is written by `python -m benchmarks --output docs/benchmarks`. -->"


def rewrite(folder: Path) -> None:
    """Write the page of a folder anew below its mark; a folder without a page has none."""
    page = folder.with_suffix(".md")
    if page.exists():
        by_hand, _, _ = page.read_text(encoding="utf-8").partition(MARK)
        page.write_text(f"{by_hand}{MARK}\n\n{render(folder)}", encoding="utf-8")


def render(folder: Path) -> str:
    """Return what the JSON files in a folder say, in Markdown."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    machines: dict[str, list[str]] = {}
    for one in found:
        machines.setdefault("; ".join(one["machine"].values()), []).append(one["benchmark"])
    blocks = ["## What they found"]
    blocks += [f"{', '.join(names)}: {machine}." for machine, names in machines.items()]
    for one in found:
        blocks += _benchmark(one, folder.name)
    return "\n\n".join(blocks) + "\n"


def _benchmark(found: dict[str, Any], folder: str) -> Iterator[str]:
    name = found["benchmark"]
    yield f"### {name}"
    yield f"{found['about']} `{found['command']}`, {found['day']}."
    for table in [Table(**values) for values in found["tables"]]:
        yield table.markdown()
        if table.picture:
            yield f"![{table.title}]({folder}/{name}-{table.key}.svg)"
