"""Servers that the client had no hand in: a Rails application, nginx, haproxy and PostgreSQL, all on loopback.

They are Debian's programs, so a machine may lack them; :func:`require` says what a test then does. The same goes for
the browser of the tests.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest

SKIP_NOTHING = "SPRINGEST_TESTS_SKIP_NOTHING"

AXE = Path(__file__).parents[3] / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
"""axe-core, which finds what is hard to use with a screen reader or a keyboard: ``make axe`` installs it."""


@attrs.frozen
class Requirement:
    """What a server is made of: programs, a Ruby library, and the Debian packages that bring them; or a file."""

    packages: str
    programs: tuple[str, ...]
    ruby_library: str | None = None
    file: Path | None = None


REQUIREMENTS = {
    "rails": Requirement("ruby-railties puma", ("ruby", "puma"), ruby_library="action_controller/railtie"),
    "nginx": Requirement("nginx", ("nginx",)),
    "haproxy": Requirement("haproxy", ("haproxy",)),
    "openssl": Requirement("openssl", ("openssl",)),
    "faketime": Requirement("faketime", ("faketime",)),
    "postgresql": Requirement("postgresql", ("initdb", "postgres", "pg_basebackup")),
    "chromium": Requirement("chromium", ("chromium",)),
    "axe": Requirement("chromium", ("chromium",), file=AXE),
}


def find(program: str) -> str | None:
    """Return where ``program`` is: on the path, or where Debian keeps servers, which is not on everyone's path.

    Those of PostgreSQL are of the newest version here; what Debian puts on the path asks which cluster is meant.
    """
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    newest = str(versions[-1]) if versions else os.devnull
    return shutil.which(program, path=newest) or shutil.which(program) or shutil.which(program, path="/usr/sbin")


@functools.cache
def missing(name: str) -> str | None:
    """Return what this machine lacks of the server of this name in `REQUIREMENTS`, and how to get it, or None."""
    requirement = REQUIREMENTS[name]
    cure = f"on Debian: apt-get install {requirement.packages}"
    for program in requirement.programs:
        if find(program) is None:
            return f"{program} is not on the path ({cure})"
    if requirement.file is not None and not requirement.file.exists():
        return f"{requirement.file} is missing (make {name}, which needs npm)"
    if requirement.ruby_library is None or _ruby_has(requirement.ruby_library):
        return None
    return f"ruby cannot load {requirement.ruby_library} ({cure})"


def require(name: str) -> None:
    """Skip the test that is running when the server ``name`` cannot be had on this machine.

    With ``SPRINGEST_TESTS_SKIP_NOTHING=1`` in the environment the test fails instead: a build server sets
    it, so that no test is passed over there unnoticed.
    """
    reason = missing(name)
    if reason is None:
        return
    if os.environ.get(SKIP_NOTHING) == "1":
        pytest.fail(f"{reason}, and {SKIP_NOTHING}=1 lets no test be skipped", pytrace=False)
    pytest.skip(reason)


def _ruby_has(library: str) -> bool:
    command = ["ruby", "-e", "require ARGV.first", library]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
