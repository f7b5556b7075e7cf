"""The file of metrics, as its page says."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from springest_async import ConfigurationError
from springest_async.bulk import Report
from springest_async.journal.status import MigrationStatus
from springest_async.reports.metrics import RunMetrics, check_metrics_file, write_metrics
from tests.machine_docs import METRICS
from tests.statuses import status_of


def written(path: Path, metrics: RunMetrics) -> dict[str, tuple[str, str]]:
    """Write metrics, and return the type and the help of each."""
    write_metrics(path, metrics)
    families = text_string_to_metric_families(path.read_text())
    return {
        f"{family.name}{'_total' * (family.type == 'counter')}": (family.type, family.documentation)
        for family in families
    }


def value(path: Path, name: str, **labels: str) -> float:
    (found,) = (
        sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
    return found


def test_all_metrics_are_as_the_page_says(tmp_path: Path) -> None:
    status = status_of(stored=3)
    metrics = RunMetrics(file="x.prom", manifest="x.csv", status=status, run=Report(counts=status.counts), exit_code=0)

    assert written(tmp_path / "x.prom", metrics) == METRICS


def test_the_numbers_are_those_of_the_status(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    status = status_of(stored=3, waiting=2, in_doubt=1)
    write_metrics(
        path, RunMetrics(file="x.prom", manifest="x.csv", status=status, run=Report(counts=status.counts, posts=7))
    )

    assert value(path, "springest_rows", state="stored", host=status.origin, manifest="x.csv") == 3
    assert value(path, "springest_rows", state="in_doubt") == 1
    assert value(path, "springest_activity", activity="stopped") == 1
    assert value(path, "springest_run_posts_total") == 7
    assert "springest_run_exit_code" not in path.read_text()


def test_a_run_that_never_began_has_an_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"

    found = written(path, RunMetrics(file="x.prom", manifest="x.csv", exit_code=2))
    assert found.keys() == {"springest_run_exit_code", "springest_run_stopped"}
    assert value(path, "springest_run_exit_code") == 2
    assert value(path, "springest_run_stopped", by="until") == 0


def test_manifests_with_the_same_name_make_no_double_series(tmp_path: Path) -> None:
    """The collector of node_exporter refuses all files if two of them have the same metric with the same labels."""

    def labels(year: str, status: MigrationStatus | None) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        path = tmp_path / f"{year}.prom"
        run = None if status is None else Report(counts=status.counts)
        write_metrics(
            path, RunMetrics(file=path.name, manifest="certificates.csv", status=status, run=run, exit_code=0)
        )
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in text_string_to_metric_families(path.read_text())
            for sample in family.samples
        }

    begun = [labels(year, status_of({"id": number}, waiting=1)) for year, number in (("2024", 1), ("2025", 2))]
    never_begun = [labels(year, None) for year in ("2024", "2025")]
    assert not begun[0] & begun[1]
    assert not never_begun[0] & never_begun[1]
    for name, found in begun[1]:
        assert {("file", "2025.prom"), ("migration", "2"), ("host", "https://api.springest.nl")} <= found, name


def test_labels_have_no_addresses(tmp_path: Path) -> None:
    write_metrics(tmp_path / "x.prom", RunMetrics(file="jan@x.nl.prom", manifest="jan@x.nl.csv", exit_code=0))

    assert "@" not in (tmp_path / "x.prom").read_text()


def test_a_million_rows_need_no_more_lines(tmp_path: Path) -> None:
    lines = []
    for rows in (1, 1_000_000):
        write_metrics(tmp_path / "x.prom", RunMetrics(file="x.prom", manifest="x.csv", status=status_of(waiting=rows)))
        lines.append((tmp_path / "x.prom").read_text().count("\n"))

    assert lines[0] == lines[1]


def test_nothing_is_left_beside_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "x.prom").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_metrics(tmp_path / "x.prom", RunMetrics(file="x.prom", manifest="x.csv", exit_code=0))
    assert [path.name for path in tmp_path.iterdir()] == ["x.prom"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("certificates.csv", "name it certificates.prom"),
        ("nowhere/x.prom", "there is no folder"),
        ("folder.prom", "this is a folder"),
    ],
)
def test_a_file_that_cannot_be_one_is_refused_early(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder.prom").mkdir()

    with pytest.raises(ConfigurationError, match=words):
        check_metrics_file(tmp_path / name)
