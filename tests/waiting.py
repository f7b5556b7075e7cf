"""How tests wait: for what is to happen, however long a busy machine takes, and not for a time that should do."""

import asyncio
from collections.abc import Callable

__all__ = ["A_WHILE", "heard", "until"]

A_WHILE = 60.0
"""Seconds within which all that is waited for comes, also where many processes share a core: what hangs must fail."""


async def until(condition: Callable[[], bool], *, within: float = A_WHILE) -> None:
    """Wait for what tells nobody that it has happened, because it does in another process or in the kernel."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 # see above
            await asyncio.sleep(0.02)


async def heard(*, within: float = 0.05) -> None:
    """Let both ends of the connections within this process hear what was said on them.

    Loopback delivers within the time (seconds); and if all of it goes by in one turn of the loop, because another
    process had the core, there are still the turns that reading and answering take.
    """
    await asyncio.sleep(within)
    for _ in range(60):
        await asyncio.sleep(0)
