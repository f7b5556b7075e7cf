"""Run a benchmark: ``python -m benchmarks NAME [OPTION...]``; without a name, list them.

A benchmark is a module of this package with a function ``main(arguments)``; the list shows the first line of its
docstring.
"""

import importlib
import pkgutil
import sys
from types import ModuleType

import benchmarks


def find() -> dict[str, ModuleType]:
    """Return the benchmarks by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names if not name.startswith("_")}
    return {name: module for name, module in modules.items() if hasattr(module, "main")}


def run(arguments: list[str]) -> int:
    """Run the benchmark named by the first argument, with the other arguments, and return the exit code."""
    found = find()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m benchmarks NAME [--help] [OPTION...]\n")
        for name, module in found.items():
            print(f"{name:12} {(module.__doc__ or '').partition(chr(10))[0]}")
        return 0
    name, *options = arguments
    if name not in found:
        print(f"there is no benchmark {name!r}: {', '.join(found)}", file=sys.stderr)
        return 2
    found[name].main(options)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
