"""The command ``springest``: the only part that prints, and that handles terminals, signals and exit codes."""

import sys
from collections.abc import Sequence

__all__ = ["main", "run"]


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run a command, and return its exit code."""
    try:
        from springest_async.cli.console import guard_streams  # noqa: PLC0415 # it needs the extra "cli", as do these

        if list(arguments) in ([], ["--help"], ["-h"]):
            from springest_async.cli.help import show_help  # noqa: PLC0415

            return guard_streams(show_help)
        from springest_async.cli.app import run_command  # noqa: PLC0415
        from springest_async.cli.json_log import logged_as_json, wants_json_log  # noqa: PLC0415

        if wants_json_log(arguments):
            return logged_as_json(lambda: guard_streams(lambda: run_command(arguments)))
        return guard_streams(lambda: run_command(arguments))
    except ModuleNotFoundError as error:
        if error.name not in ("cyclopts", "prometheus_client", "rich"):
            raise
        print("springest needs the extra “cli”: pip install 'springest-async[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
