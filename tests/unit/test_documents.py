"""The documents are true where a test can see it: each line of SECURITY.md names tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def answers() -> list[list[str]]:
    """Return the cells of each line with a threat."""
    lines = [line for line in SECURITY.splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("| threat")
    ]


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("cells", answers(), ids=lambda cells: cells[0])
def test_each_threat_has_an_answer_and_tests_that_exist(cells: list[str]) -> None:
    _threat, _answer, held_by = cells
    named = re.findall(r"\[`(\w+)`\]\((tests/[\w/]+\.py)\)", held_by)

    assert named
    assert [name for name, path in named if name not in names_in(path)] == []


def test_there_are_threats() -> None:
    assert len(answers()) > 15


def definitions_in(path: Path) -> set[str]:
    """Return the names of a module's classes and functions, and of its methods as in ``Limiter.post``."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds):
            inner = node.body if isinstance(node, ast.ClassDef) else []
            found |= {node.name, *(f"{node.name}.{one.name}" for one in inner if isinstance(one, kinds))}
    return found


def places() -> list[tuple[str, str]]:
    """Return each file that docs/architecture.md names, with the function or class in it, or an empty text."""
    return re.findall(r"`([\w/]+\.py|[\w/]+/)(?::([\w.]+))?`", ARCHITECTURE)


@pytest.mark.parametrize(("module", "name"), sorted(set(places())))
def test_each_place_in_the_architecture_page_exists(module: str, name: str) -> None:
    path = ROOT / module if module.startswith("tests/") else ROOT / "springest_async" / module

    assert path.exists()
    assert not name or name in definitions_in(path)


def test_the_architecture_page_names_the_whole_path() -> None:
    assert len(places()) > 20
