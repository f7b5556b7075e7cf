"""The benchmarks, run small: that they run, and that what they show is so."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import journal
from benchmarks.__main__ import run
from benchmarks.limiter import CLIENTS, SERVERS, Row, measure

NAIVE, SPACED, FROM_THE_SEND, OURS = CLIENTS


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
    # Of 200 the last minute is not full, so that the last one leaves later within it than in the ideal.
    assert all(run.seconds / rows[OURS].ideal < 1.1 for run in rows[OURS].runs.values())


def test_a_bucket_that_refills_sends_nearly_twice_the_limit(rows: dict[str, Row]) -> None:
    assert rows[NAIVE].most > 50
    assert rows[NAIVE].runs["sliding window"].refused > 0


def test_neither_spacing_nor_counting_from_the_send_survives_the_network(rows: dict[str, Row]) -> None:
    assert rows[SPACED].most > 30
    assert rows[FROM_THE_SEND].most > 30


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    assert measure(uploads=60, seed=1) == measure(uploads=60, seed=1) != measure(uploads=60, seed=2)


def test_there_is_no_ideal_for_fewer_uploads_than_one_minute_takes() -> None:
    with pytest.raises(ValueError, match="more than 30"):
        measure(uploads=30, seed=1)


def test_a_benchmark_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["limiter", "--uploads", "60", "--seed", "1"]) == 0

    header, rule, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("| client | fixed window |")
    assert rule == "|---|---|---|---|---|---|---|"
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(CLIENTS)


def test_without_a_name_the_benchmarks_are_listed() -> None:
    listed = subprocess.run([sys.executable, "-m", "benchmarks"], capture_output=True, text=True, check=True)

    assert '\nlimiter      How many POSTs each way of keeping "30 a minute"' in listed.stdout


def test_a_name_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["limitter"]) == 2
    assert "no benchmark 'limitter'" in capsys.readouterr().err


def test_too_few_uploads_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(["limiter", "--uploads", "30"])
    assert "more than 30" in capsys.readouterr().err


def test_a_journal_is_measured_from_the_load_to_the_upload(tmp_path: Path) -> None:
    timings = journal.measure(rows=50, folder=tmp_path)

    assert {"first load", "load, sorted the other way round", "load, all files renamed"} <= timings.seconds.keys()
    assert min(timings.seconds.values()) > 0
