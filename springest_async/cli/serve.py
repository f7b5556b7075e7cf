"""``springest status --serve``: the status page of a journal, until Ctrl-C."""

import asyncio
import os
import stat
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from attrs import frozen
from rich.console import Console

from springest_async.cli import environment
from springest_async.cli.console import argument, say
from springest_async.cli.signals import interrupts
from springest_async.errors import ConfigurationError
from springest_async.page import StatusPage
from springest_async.page.access import SHORTEST_PASSWORD

_LARGEST_PASSWORD_FILE = 10_000  # bytes; a larger file is another one


@frozen(kw_only=True)
class ServeOptions:
    """Where the page is served.

    Attributes:
        port: 0 for any free one.
        bind: the address for other machines, or None for this one alone.
        password_file: contains the password that `bind` needs.
    """

    port: int = 0
    bind: str | None = None
    password_file: Path | None = None


async def serve(option: str | None, options: ServeOptions, out: Console) -> None:
    """Serve the page until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        option: the place of the journal as the user gave it, or None.
        options: where the page is served.
        out: where to print its address.

    Raises:
        ConfigurationError: the options do not fit together, the password is missing or too short, or the socket cannot
            be opened.
        JournalError: there is no journal, or it cannot be opened.
    """
    password = await asyncio.to_thread(_password_for, options)
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(environment.existing_journal(option))
        try:
            page = StatusPage(journal, port=options.port, host=options.bind or "127.0.0.1", password=password)
            await stack.enter_async_context(page)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"the status page cannot be served at {options.bind or '127.0.0.1'}, port {options.port}: {reason}"
            ) from error
        is_open = options.password_file is not None and await asyncio.to_thread(
            _is_open_to_others, options.password_file
        )
        say(out, f"The status page of {journal.where}: {page.url}")
        if password is None:
            say(out, "It is for this machine alone, and everyone who has the address may use it. Stop it with Ctrl-C.")
        else:
            say(out, "The browser asks for a name, which may be any, and for the password. Stop the page with Ctrl-C.")
            say(
                out,
                "Warning: this is plain HTTP, so others in the network can read the page and the password. On a network"
                " that you do not trust, leave out --bind, and open a tunnel on the other machine:"
                " ssh -L 8080:127.0.0.1:PORT THIS-MACHINE",
                style="yellow",
            )
        if options.password_file is not None and is_open:
            say(
                out,
                f"Warning: others on this machine can read the password in {options.password_file}. Let only you read"
                f" it: chmod 600 {argument(options.password_file)}",
                style="yellow",
            )
        with interrupts(stopped.set):
            await stopped.wait()


def _is_open_to_others(path: Path) -> bool:
    with suppress(OSError):  # it may be gone by now
        return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    return False


def _password_for(options: ServeOptions) -> str | None:
    if options.bind is None:
        if options.password_file is not None:
            raise ConfigurationError(
                "--password-file goes with --bind ADDRESS; without it, only this machine sees the page"
            )
        return None
    if options.password_file is None:
        raise ConfigurationError(
            "--bind shows the page to other machines, so it needs a password: put one into a file that only you can"
            " read, and name it with --password-file FILE"
        )
    path = options.password_file
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_PASSWORD_FILE + 1)
        password = content.decode().strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: the password cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        password = ""
    if len(content) > _LARGEST_PASSWORD_FILE or len(password.splitlines()) > 1 or len(password) < SHORTEST_PASSWORD:
        raise ConfigurationError(
            f"{path}: expected one line with a password of at least {SHORTEST_PASSWORD} characters, because nothing"
            " keeps programs from trying short ones"
        )
    return password
