"""The version: one place, which needs no metadata of an installed package."""

import subprocess
import sys
from importlib.metadata import version

import springest_async

WITHOUT_METADATA = """
import importlib.metadata as metadata
found = metadata.distribution

def distribution(name):
    if name.replace("_", "-") == "springest-async":
        raise metadata.PackageNotFoundError(name)
    return found(name)

metadata.distribution = distribution
import springest_async
springest_async.Springest(api_key="a key")
print(springest_async.__version__)
"""


def test_the_package_imports_without_its_metadata() -> None:
    """As in a frozen program, or in a bundle that leaves the metadata out."""
    ran = subprocess.run([sys.executable, "-c", WITHOUT_METADATA], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == springest_async.__version__


def test_the_installed_version_is_that_of_the_package() -> None:
    assert version("springest-async") == springest_async.__version__
