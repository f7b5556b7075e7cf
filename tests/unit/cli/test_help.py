"""The help, which is printed without importing the commands."""

from typing import get_args, get_type_hints

from springest_async.cli import app
from springest_async.cli.help import COMMANDS
from springest_async.sandbox.windows import Counting


def test_the_help_names_all_commands() -> None:
    assert sorted(COMMANDS) == sorted(name for name in app.app if not name.startswith("-"))


def test_the_choices_of_a_window_are_those_of_the_sandbox() -> None:
    assert get_args(get_type_hints(app.sandbox)["window"]) == get_args(Counting)
