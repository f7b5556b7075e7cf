"""``springest sandbox``: a local Springest to develop against, until Ctrl-C."""

import asyncio
from contextlib import AsyncExitStack

from rich.console import Console

from springest_async.cli.console import say
from springest_async.cli.signals import interrupts
from springest_async.errors import ConfigurationError
from springest_async.sandbox import Sandbox
from springest_async.sandbox.windows import Counting


async def serve(*, port: int, limit: int, window: Counting, out: Console) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP, then print a summary."""
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        try:
            sandbox = await stack.enter_async_context(Sandbox(port=port, limit=limit, window=window))
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigurationError(f"the sandbox cannot start: {error}") from error
        for line in (
            f"A local Springest, {limit} POSTs a minute ({window} window). Stop it with Ctrl-C. To use it:",
            "",
            f"export SPRINGEST_HOST={sandbox.origin}",
            f"export SPRINGEST_API_KEY={sandbox.api_key}",
            f"export SPRINGEST_CERTIFICATIONS_API_KEY={sandbox.certifications_api_key}",
            "",
            f"All requests so far: {sandbox.origin}/__audit",
        ):
            say(out, line)
        with interrupts(stopped.set):
            await stopped.wait()
        summary = sandbox.summary()
        refused = summary.posts - summary.stored
        say(
            out,
            f"{summary.posts} POSTs, {summary.stored} stored, {refused} refused"
            f" ({summary.refused_for_speed} for speed),"
            f" at most {summary.most_in_any_period} in any {summary.period:g} s",
        )
