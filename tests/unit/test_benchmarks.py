"""The benchmarks with few uploads: they run, and they show what the documents say."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import journal
from benchmarks.__main__ import run
from benchmarks.limit import ELASTIC, REFUSALS, SERVERS, SPACED, WAYS, Row, Way, measure, measure_ways
from benchmarks.limit_clients import CLIENTS

NAIVE, EVENLY, SLEEPING, FROM_THE_SEND, OURS = CLIENTS
DOCS = Path(__file__).parents[2] / "docs" / "limiter.md"


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.client: row for row in measure(uploads=200, seed=1)}


def test_every_client_meets_every_server(rows: dict[str, Row]) -> None:
    assert list(rows) == list(CLIENTS)
    assert all(list(row.runs) == list(SERVERS) for row in rows.values())


@pytest.mark.parametrize("server", SERVERS)
def test_no_server_refuses_a_post_whose_token_rested(rows: dict[str, Row], server: str) -> None:
    run = rows[OURS].runs[server]

    assert run.refused == 0
    assert run.most == 30


def test_tokens_that_rest_cost_little_time(rows: dict[str, Row]) -> None:
    # The last minute of 200 is not full, so that the last POST leaves later in it than in the ideal.
    assert all(run.seconds / rows[OURS].ideal < 1.1 for run in rows[OURS].runs.values())


def test_a_bucket_that_refills_sends_nearly_twice_the_limit(rows: dict[str, Row]) -> None:
    assert rows[NAIVE].most > 50
    assert rows[NAIVE].runs["sliding window"].refused > 0


def test_sleeping_between_two_posts_takes_long(rows: dict[str, Row]) -> None:
    assert rows[SLEEPING].most <= 30
    assert all(run.seconds / rows[SLEEPING].ideal > 1.3 for run in rows[SLEEPING].runs.values())


def test_spacing_and_counting_from_the_send_exceed_the_limit(rows: dict[str, Row]) -> None:
    assert rows[EVENLY].most > 30
    assert rows[FROM_THE_SEND].most > 30


@pytest.fixture(scope="module")
def ways() -> dict[str, Way]:
    return {way.name: way for way in measure_ways(uploads=200, seed=1)}


@pytest.mark.parametrize("name", WAYS)
def test_no_row_fails_for_speed_at_any_server(ways: dict[str, Way], name: str) -> None:
    runs = ways[name].runs

    assert runs.keys() == REFUSALS.keys()
    assert [run.failed for run in runs.values()] == [0, 0]
    assert max(run.most for run in runs.values()) <= 30
    assert all((run.refused > 0) == (name in (ELASTIC, SPACED)) for run in runs.values())


def test_beside_another_client_no_row_fails() -> None:
    ways = measure_ways(uploads=200, seed=1, others=10)

    assert [way.name for way in ways] == [name for name in WAYS if name != ELASTIC]
    assert all(run.refused > 0 for way in ways for run in way.runs.values())
    assert all(run.failed == 0 for way in ways for run in way.runs.values())


def test_the_seed_decides_the_numbers() -> None:
    assert measure(uploads=60, seed=1) == measure(uploads=60, seed=1) != measure(uploads=60, seed=2)
    once, again, otherwise = (measure_ways(uploads=60, seed=seed, others=10) for seed in (1, 1, 2))
    assert once == again != otherwise


def test_too_few_uploads_have_no_ideal() -> None:
    with pytest.raises(ValueError, match="more than 30"):
        measure(uploads=30, seed=1)


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    """Run the benchmark of the limiter, and return the lines of each table."""
    assert run(["limit", "--virtual", *options]) == 0
    return tables_in(capsys.readouterr().out)


def tables_in(text: str) -> list[list[str]]:
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("| |") and "time / ideal" in block]


def first_cells(table: list[str]) -> list[str]:
    return [line.split(" | ")[0].removeprefix("| ") for line in table[2:]]


def test_the_benchmark_prints_the_tables_of_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    tables = printed(capsys, "--uploads", "60", "--seed", "1")

    assert [first_cells(table) for table in tables] == [
        list(CLIENTS),
        list(WAYS),
        [name for name in WAYS if name != ELASTIC],
    ]
    in_docs = tables_in(DOCS.read_text())
    assert [(table[:2], first_cells(table)) for table in in_docs] == [
        (table[:2], first_cells(table)) for table in tables
    ]


@pytest.mark.soak
def test_the_docs_show_the_numbers_that_the_benchmark_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables_in(DOCS.read_text()) == printed(capsys)


def test_help_lists_the_benchmarks() -> None:
    listed = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=True)

    assert '\nlimit        How many POSTs are refused for each way of keeping "30 a minute"' in listed.stdout


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["limitter"]) == 2
    assert "no benchmark 'limitter'" in capsys.readouterr().err


def test_too_few_uploads_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(["limit", "--uploads", "30"])
    assert "more than 30" in capsys.readouterr().err


async def test_a_journal_is_measured_from_the_load_to_the_upload(tmp_path: Path) -> None:
    timings = await journal.measure(rows=50, folder=tmp_path, where=tmp_path / "journal")

    assert {"first load", "load, sorted the other way round", "load, all files renamed"} <= timings.seconds.keys()
    assert min(timings.seconds.values()) > 0
