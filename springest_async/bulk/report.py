"""The totals of a bulk run."""

from collections import Counter

from attrs import field, frozen

from springest_async.bulk.events import BulkEvent, OutageOver, RowDone, RowStep
from springest_async.journal.open_migration import OpenMigration
from springest_async.journal.records import Loaded, State


def _settled(counts: Counter[State]) -> Counter[State]:
    counts = Counter(counts)
    counts[State.IN_DOUBT] += counts.pop(State.SENDING, 0)
    return counts


@frozen(kw_only=True)
class Report:
    """The totals of a manifest: ``rows = stored + rejected + failed + in doubt + waiting``.

    Attributes:
        counts: the rows by state, over all runs and workers. Rows that are still "sending" count as in doubt.
        posts: how many POSTs this run has sent; one that found no connection is none.
        refusals: how many of these were refused without a reason.
        stored: how many rows this run has stored or found at Springest.
        stored_before: how many rows needed no POST, because another manifest or an upload had stored their certificate.
        outages: how often Springest could not be reached for a while.
        outage_seconds: for how long, all together.
        last_outage: the last of them.
    """

    counts: Counter[State] = field(converter=_settled)
    posts: int = 0
    refusals: int = 0
    stored: int = 0
    stored_before: int = 0
    outages: int = 0
    outage_seconds: float = 0.0
    last_outage: OutageOver | None = None

    @property
    def rows(self) -> int:
        """The number of rows of the manifest."""
        return self.counts.total()

    def count(self, *states: State) -> int:
        """Return how many rows are in any of these states."""
        return sum(self.counts[state] for state in states)


class RunRecorder:
    """A listener that counts the POSTs of a run, and the rows that it stored.

    Usage::

        migration, loaded = await load_manifest(journal, manifest, springest.origin)
        recorder = RunRecorder(loaded)
        await UploadQueue(springest, migration, recorder).run()
        report = await recorder.report(migration)

    Args:
        loaded: the result of loading the manifest for this run, if it was.
    """

    def __init__(self, loaded: Loaded | None = None) -> None:
        self._posts = 0
        self._refusals = 0
        self._stored = 0
        self._stored_before = loaded.known if loaded else 0
        self._outages = 0
        self._outage_seconds = 0.0
        self._last_outage: OutageOver | None = None

    def __call__(self, event: BulkEvent) -> None:
        """Count an event."""
        match event:
            case RowStep():
                self._posts += event.step.kind == "sending"
                self._posts -= event.step.kind == "unsent" and not event.step.connected
                self._refusals += event.step.kind == "refused"
            case RowDone(state=State.STORED) if event.row.number is not None:
                self._stored_before += event.stored_before
                self._stored += not event.stored_before
            case OutageOver():
                self._outages += 1
                self._outage_seconds += event.seconds
                self._last_outage = event

    async def report(self, migration: OpenMigration) -> Report:
        """Return the totals.

        Raises:
            JournalError: when the journal cannot be read.
        """
        return self.with_counts(await migration.counts())

    def with_counts(self, counts: Counter[State]) -> Report:
        """Return the totals; `counts` has the rows of the migration by state."""
        return Report(
            counts=counts,
            posts=self._posts,
            refusals=self._refusals,
            stored=self._stored,
            stored_before=self._stored_before,
            outages=self._outages,
            outage_seconds=self._outage_seconds,
            last_outage=self._last_outage,
        )
