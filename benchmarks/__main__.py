"""Run benchmarks: ``python -m benchmarks NAME [OPTION...]`` runs one, and without a name all, each in its own process.

A benchmark is a module of this package with a function ``main(arguments)`` that returns the exit code; the list of
``--help`` shows the first line of its docstring.
"""

import ast
import importlib
import subprocess
import sys
from pathlib import Path


def find() -> dict[str, str]:
    """Return the first line of each benchmark's docstring, by name; nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").partition("\n")[0]
    return found


def run(arguments: list[str]) -> int:
    """Run the benchmark named by the first argument with the other arguments, or all, and return the exit code."""
    found = find()
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: python -m benchmarks [NAME] [--quick] [--output DIR] [OPTION...]\n")
        for name, line in found.items():
            print(f"{name:12} {line}")
        return 0
    if not arguments or arguments[0].startswith("-"):
        return _run_all(list(found), arguments)
    name, *options = arguments
    if name not in found:
        print(f"there is no benchmark {name!r}: {', '.join(found)}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"benchmarks.{name}").main(options)
    return code


# A number out of its bounds is measured again: a busy moment can put it there, a fault does so each time.
_TRIES = 3


def _run_all(names: list[str], options: list[str]) -> int:
    """Run the benchmarks one after the other, and return the worst exit code."""
    codes = []
    for name in names:
        print(f"\n## {name}\n", flush=True)
        for _ in range(_TRIES if "--quick" in options else 1):
            done = subprocess.run([sys.executable, "-m", "benchmarks", name, *options], check=False)  # noqa: S603
            if done.returncode == 0:
                break
        codes.append(done.returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
