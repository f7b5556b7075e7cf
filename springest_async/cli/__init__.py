"""The command ``springest``: the only part that prints, and that handles terminals, signals and exit codes."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    try:
        from springest_async.cli.app import run  # noqa: PLC0415 # its dependencies are in the extra "cli"
    except ModuleNotFoundError as error:
        if error.name not in ("cyclopts", "rich"):
            raise
        print("springest needs the extra “cli”: pip install 'springest-async[cli]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:])
