"""Where a migration stands, as a text file for Prometheus (node_exporter's textfile collector reads such files).

No metric has a label for a row, a person or a certificate's file: however many rows there are, the file has the same
few lines. Their labels tell any two runs apart, also of manifests with the same name, and stay the same for good.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from attrs import frozen
from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from springest_async.bulk.report import Report
from springest_async.errors import ConfigurationError
from springest_async.journal.records import State
from springest_async.journal.status import Activity, MigrationStatus
from springest_async.reports.addresses import without_addresses
from springest_async.reports.status_json import state_as_json
from springest_async.reports.summary_json import StoppedBy


@frozen(kw_only=True, eq=False)  # the registry needs a hash
class RunMetrics(Collector):
    """The metrics of one run.

    Attributes:
        file: the name of the file that they are written to: each upload has one of its own, also if it never begins.
        manifest: the name of the manifest's file.
        status: where the migration stands; None if the run ended before the manifest was loaded.
        run: what the run has done, if it began.
        exit_code: of the command, when it has ended.
        stopped_by: the option that has stopped it, if one has.
    """

    file: str
    manifest: str
    status: MigrationStatus | None = None
    run: Report | None = None
    exit_code: int | None = None
    stopped_by: StoppedBy | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        if (status := self.status) is not None:
            yield from self._of_status(status)
        if (run := self.run) is not None:
            for name, words, value in (
                ("posts", "POSTs that this run has sent.", run.posts),
                ("refusals", "POSTs of this run that were refused without a reason.", run.refusals),
                ("stored", "Rows that this run has stored or found stored.", run.stored),
                ("outages", "Outages of this run that are over.", run.outages),
                ("outage_seconds", "How long the outages of this run lasted, in all.", run.outage_seconds),
            ):
                yield self._counter(f"springest_run_{name}", words, value)
        if self.exit_code is not None:
            yield self._gauge(
                "springest_run_exit_code", "The exit code of the last run; absent while it runs.", self.exit_code
            )
            yield self._labelled(
                "springest_run_stopped",
                "1 for the option that has stopped the last run, 0 for the others; absent while it runs.",
                "by",
                {option: int(option == self.stopped_by) for option in get_args(StoppedBy)},
            )

    def _of_status(self, status: MigrationStatus) -> Iterable[Metric]:
        states = {state_as_json(state): status.counts[state] for state in State}
        yield self._labelled("springest_rows", "Rows of the manifest by state.", "state", states)
        activities = {name.replace(" ", "_"): int(name == status.activity) for name in get_args(Activity)}
        yield self._labelled(
            "springest_activity", "1 for what the migration is doing, 0 for the others.", "activity", activities
        )
        yield self._gauge(
            "springest_rows_faulty",
            "Rows of the manifest that were left out because of their faults.",
            status.faulty,
        )
        outage = 0.0 if status.trouble is None else status.trouble.seconds
        pace = status.pace
        for name, words, value in (
            ("springest_workers", "Runs that work on the migration now.", len(status.workers)),
            ("springest_outage_seconds", "For how long no run has reached Springest; 0 without an outage.", outage),
            ("springest_seconds_left", "Seconds in which all rows that wait can have left.", status.seconds_left),
            ("springest_limit_posts_per_minute", "How many POSTs the limit allows in any minute.", pace.posts),
            ("springest_limit_tokens_free", "How many POSTs may leave at once now.", pace.free),
            ("springest_limit_next_post_seconds", "Seconds until the next POST may leave.", pace.next_in),
            ("springest_posts_last_minute", "POSTs that left in the last minute.", pace.last_minute),
            (
                "springest_moved_timestamp_seconds",
                "When a row last changed its state or a run was last heard of (Unix time).",
                status.moved_at.timestamp(),
            ),
            ("springest_status_timestamp_seconds", "When these numbers were read (Unix time).", status.at.timestamp()),
        ):
            yield self._gauge(name, words, value)

    def _gauge(self, name: str, words: str, value: float) -> Metric:
        names, values = self._labels()
        family = GaugeMetricFamily(name, words, labels=names)
        family.add_metric(values, value)
        return family

    def _labelled(self, name: str, words: str, label: str, values: dict[str, int]) -> Metric:
        names, labels = self._labels()
        family = GaugeMetricFamily(name, words, labels=[*names, label])
        for each, value in values.items():
            family.add_metric([*labels, each], value)
        return family

    def _counter(self, name: str, words: str, value: float) -> Metric:
        names, values = self._labels()
        family = CounterMetricFamily(name, words, labels=names)
        family.add_metric(values, value)
        return family

    def _labels(self) -> tuple[list[str], list[str]]:
        """Return the names and the values of the labels that all metrics of this run have."""
        labels = {"file": self.file, "manifest": self.manifest}
        if self.status is not None:
            labels |= {"host": self.status.origin, "migration": str(self.status.id)}
        return [*labels], [without_addresses(value) for value in labels.values()]


def check_metrics_file(path: Path) -> None:
    """Check that metrics can be written to a file, before a run that takes long.

    Raises:
        ConfigurationError: it is not named as such files are, so that nothing else is overwritten, or has no folder.
    """
    if path.suffix != ".prom":
        raise ConfigurationError(
            f"--metrics {path}: name it {path.stem}.prom, because Prometheus reads only files with such names"
        )
    if not path.parent.is_dir():
        raise ConfigurationError(f"--metrics {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigurationError(f"--metrics {path}: this is a folder: name a file")


def write_metrics(path: Path, metrics: RunMetrics) -> None:
    """Write metrics to a file, in one step, so that no reader ever sees half of it.

    Raises:
        OSError: it cannot be written.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    write_to_textfile(str(path), registry)
