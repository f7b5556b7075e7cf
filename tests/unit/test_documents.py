"""The documents are true where a test can see it: each line of SECURITY.md names tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
