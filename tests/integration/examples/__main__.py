"""Write what the commands of the pages print now into them; with names of pages, only into those."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.integration.command import kill_what_is_left

from .page import PAGES, Page


async def _made(page: Page) -> list[str]:
    lines: list[str] = []
    for section in page.sections():
        if section.example is None:
            lines += section.lines
            continue
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as state:
            os.environ["XDG_STATE_HOME"] = state
            try:
                async with section.example.sandbox() as server:
                    lines += await section.made_again(Path(folder), server)
            finally:
                await kill_what_is_left()
    return lines


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        if page.path.name in sys.argv[1:] or not sys.argv[1:]:
            lines = asyncio.run(_made(page))
            page.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
