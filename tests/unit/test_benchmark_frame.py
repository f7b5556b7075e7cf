"""What all benchmarks share: turns, tables, pictures, the page, and the guard. Nothing is timed."""

import json
import subprocess
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks import page
from benchmarks.report import Table, in_turns, medians, parser, publish

DOCS = Path(__file__).parents[2] / "docs"
TABLE = Table(
    key="sizes",
    title="Uploads",
    unit="uploads/s",
    columns=["50 KB", "5 MB"],
    rows={"ours": [1234.5, 87.65], "theirs": [0.5, None]},
    notes=["One.", "Two."],
)
MARKDOWN = """\
**Uploads** (uploads/s)

| | 50 KB | 5 MB |
|---|---:|---:|
| ours | 1\N{NO-BREAK SPACE}234 | 87.7 |
| theirs | 0.50 | – |

One. Two."""


def bounded(floors: dict[tuple[str, str], float], ceilings: dict[tuple[str, str], float]) -> Table:
    return Table(
        key="bounds",
        title="Bounds",
        unit="ms",
        columns=["a", "b"],
        rows={"ours": [10.0, None]},
        floors=floors,
        ceilings=ceilings,
    )


def published(name: str, tables: list[Table], *options: str) -> int:
    return publish(name, tables, parser(name, "What it measures.\n\nMore.").parse_args(options))


def test_each_way_has_its_turn_and_the_first_round_is_left_out() -> None:
    turns: list[str] = []

    def way(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    results = in_turns({name: lambda name=name: way(name) for name in "abc"}, 2)  # type: ignore[misc]

    assert turns == [*"abc", *"bca", *"cab"]
    assert results == {"a": [6, 8], "b": [4, 9], "c": [5, 7]}


def test_a_median_is_of_one_way() -> None:
    assert medians({"a": [1, 9, 2], "b": [4, 6]}) == {"a": 2, "b": 5}


def test_a_table_is_markdown_with_as_many_digits_as_matter() -> None:
    assert TABLE.markdown() == MARKDOWN


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (0.00123, "0.0012"), (1.0, "1"), (1.234, "1.23"), (99.96, "100.0"), (1_000_000.4, "1 000 000")],
)
def test_numbers_keep_what_tells_something(number: float, text: str) -> None:
    table = Table(key="x", title="x", unit="x", columns=["a"], rows={"ours": [number]})

    assert f"| ours | {text} |" in table.markdown().replace("\N{NO-BREAK SPACE}", " ")


def test_a_number_within_its_bounds_passes_the_guard(capsys: pytest.CaptureFixture[str]) -> None:
    table = bounded(floors={("ours", "a"): 10.0}, ceilings={("ours", "a"): 10.0})

    assert published("upload", [table], "--quick") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("floors", "ceilings"), [({("ours", "a"): 10.5}, {}), ({}, {("ours", "a"): 9.5})])
def test_a_number_out_of_its_bounds_fails_the_guard(
    floors: dict[tuple[str, str], float], ceilings: dict[tuple[str, str], float], capsys: pytest.CaptureFixture[str]
) -> None:
    table = bounded(floors, ceilings)

    assert published("upload", [table], "--quick") == 1
    assert "upload: bounds, ours, a: 10 ms is " in capsys.readouterr().err
    assert published("upload", [table]) == 0  # only the guard looks


def test_what_was_not_measured_passes_the_guard() -> None:
    assert bounded({("ours", "b"): 1.0}, {("ours", "b"): 1.0}).broken() == []


def test_a_bound_of_a_row_that_there_is_not_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        bounded({("theirs", "a"): 1.0}, {}).broken()


@pytest.mark.parametrize("picture", ["bars", "lines"])
def test_a_picture_shows_each_row_and_loads_nothing(picture: Literal["bars", "lines"]) -> None:
    table = Table(
        key="sizes", title="Uploads", unit="ms", columns=["a"], rows={"ours": [1.0], "theirs": [2.0]}, picture=picture
    )
    drawn = table.svg()

    texts = {element.text for element in ElementTree.fromstring(drawn).iter() if element.text}  # noqa: S314
    assert {"ours", "theirs", "a", "Uploads (ms)"} <= texts
    assert "<script" not in drawn
    assert "href=" not in drawn


def test_output_writes_numbers_pictures_and_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "upload-gone.svg").touch()
    written = folder.with_suffix(".md")
    written.write_text(f"By hand.\n\n{page.MARK}\nold")

    assert published("upload", [TABLE], "--output", str(folder)) == 0

    assert sorted(path.name for path in folder.iterdir()) == ["upload-sizes.svg", "upload.json"]
    found = json.loads((folder / "upload.json").read_text())
    assert found["tables"][0]["rows"] == {"ours": [1234.5, 87.65], "theirs": [0.5, None]}
    assert found["about"] == "What it measures."
    assert capsys.readouterr().out == MARKDOWN + "\n"
    text = written.read_text()
    assert text.startswith(f"By hand.\n\n{page.MARK}\n\n## ")
    assert MARKDOWN in text
    assert "![Uploads](found/upload-sizes.svg)" in text
    assert "old" not in text


def test_the_page_shows_what_lies_beside_it() -> None:
    folder = DOCS / "benchmarks"
    _, _, below = (DOCS / "benchmarks.md").read_text(encoding="utf-8").partition(page.MARK)

    assert below.strip() == page.render(folder).strip()
    assert {path.name for path in folder.glob("*.svg")} == {
        line.rpartition("/")[2].rstrip(")") for line in below.splitlines() if line.startswith("![")
    }


@pytest.mark.parametrize(("failures", "code", "runs"), [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 3)])
def test_what_is_out_of_bounds_is_measured_again(
    failures: int, code: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        names.append(arguments[3])
        return subprocess.CompletedProcess(
            arguments, int(arguments[3] == "journal" and names.count("journal") <= failures)
        )

    monkeypatch.setattr(subprocess, "run", run)

    assert command.run(["--quick"]) == code
    assert names.count("journal") == runs
    assert names.count("upload") == 1


def test_all_benchmarks_run_alone_and_the_worst_code_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[2:])
        return subprocess.CompletedProcess(command, int("journal" in command))

    monkeypatch.setattr(subprocess, "run", run)

    assert command.run(["--output", "x"]) == 1
    assert commands == [["benchmarks", name, "--output", "x"] for name in command.find()]
    assert "upload" in command.find()
    assert not {"report", "sink", "peers", "page", "tables"} & command.find().keys()
