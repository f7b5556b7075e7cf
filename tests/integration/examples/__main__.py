"""Write what the commands of docs/manifests.md print now into the page."""

import asyncio
import os
import tempfile
from pathlib import Path

from .page import PAGE, sandbox, sections


async def _made() -> list[str]:
    lines: list[str] = []
    for section in sections():
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as state:
            os.environ["XDG_STATE_HOME"] = state
            async with sandbox() as server:
                lines += await section.made_again(Path(folder), server)
    return lines


def main() -> None:
    """Write the page."""
    lines = asyncio.run(_made())
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
