"""What a program imports before it does anything; how long that takes is in `benchmarks.start`."""

import subprocess
import sys
from pathlib import Path

import pytest

import springest_async
from benchmarks import start


def imported_by(program: str) -> set[str]:
    """Return the names of the modules that a new process has after the program."""
    script = f"{program}\nimport sys\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_a_public_name_is_imported_when_it_is_used() -> None:
    assert not imported_by("import springest_async") & {"aiohttp", "attr", "typing", "springest_async.errors"}
    assert "springest_async.errors" in imported_by("import springest_async\nspringest_async.Rejected")


def test_all_public_names_are_listed_and_found() -> None:
    assert set(springest_async.__all__) <= set(dir(springest_async))
    for name in springest_async.__all__:
        assert getattr(springest_async, name) is not None


def test_a_missing_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'springest_async' has no attribute 'Spring'"):
        springest_async.Spring  # type: ignore[attr-defined] # noqa: B018


def test_a_client_imports_what_it_needs() -> None:
    modules = imported_by("from springest_async import Springest\nSpringest(api_key='a key')")

    assert not modules & {
        "springest_async.journal.journal",  # without a journal
        "sqlite3",
        "platformdirs",
        "email_validator",  # before a certificate
        "stamina",  # before a list
        "html.entities",  # before a refusal
        "aiolimiter",  # with the default burst
        "importlib.metadata",
        "springest_async.api.rails_xml",  # with JSON
        "defusedxml",
        "xml.etree",
        "cattrs",
    }


def test_the_help_imports_neither_aiohttp_nor_cyclopts() -> None:
    modules = imported_by("from springest_async.cli import run\nrun(['--help'])")

    assert not modules & {"aiohttp", "asyncio", "attr", "cyclopts", "rich.markdown", "springest_async.errors"}


def test_the_help_of_a_command_imports_no_aiohttp() -> None:
    modules = imported_by("from springest_async.cli import run\nrun(['upload', '--help'])")

    assert not modules & {"aiohttp", "asyncio", "springest_async.errors"}


@pytest.mark.parametrize("name", start.PROGRAMS)
def test_a_program_of_the_benchmark_runs(name: str, tmp_path: Path) -> None:
    assert start.run(start.PROGRAMS[name], tmp_path) > 0
