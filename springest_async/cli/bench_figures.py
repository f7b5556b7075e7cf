"""The figures of ``springest bench``, and what they say about what bounds it. Nothing is measured here."""

import math
from collections.abc import Mapping, Sequence

from attrs import frozen

_SATURATED = 0.8  # of a processor's time: what uses more of one has none to spare


@frozen(kw_only=True)
class Figures:
    """What was measured in one run; all times are in seconds.

    Attributes:
        seconds: from the first claim to the last outcome.
        uploads: how many there were to make.
        size: bytes of each file.
        concurrency: how many uploads were in flight at once.
        stored: how many are stored.
        posts: how many POSTs were sent.
        refusals: how many of them were refused without a reason.
        most_in_any_minute: the most POSTs in any 60 s, as the server counted; as they left if it does not tell.
        latencies: from the first byte of each POST to its answer, sorted.
        sending: from the first byte to the last, of all POSTs together.
        answering: from the last byte to the answer, of all POSTs together.
        client_cpu: of a processor, by this process.
        server_cpu: of a processor, by the server; None if it does not tell.
        limit: for how long uploads waited for the limit.
        disk: for how long the journal waited for its disk.
    """

    seconds: float
    uploads: int
    size: int
    concurrency: int
    stored: int
    posts: int
    refusals: int
    most_in_any_minute: int
    latencies: Sequence[float]
    sending: float
    answering: float
    client_cpu: float
    server_cpu: float | None
    limit: float
    disk: float

    def lines(self) -> Mapping[str, str]:
        """Return the figures for people, by what they are."""
        rate = self.stored / self.seconds
        quantiles = " / ".join(f"{percentile(self.latencies, percent) * 1000:.1f}" for percent in (50, 95, 99))
        counted = "as they left" if self.server_cpu is None else "as the server counted"
        figures = {
            "uploads stored": f"{self.stored} of {self.uploads}, in {self.seconds:.1f} s",
            "uploads a second": f"{rate:.4g}, {readable(rate * self.size)}/s",
            "ms from the first byte to the answer, p50 / p95 / p99": quantiles,
            "POSTs refused without a reason": f"{self.refusals} of {self.posts}",
            "most POSTs in any 60 s": f"{self.most_in_any_minute}, {counted}",
            "ms of a processor for each upload, client": self._each(self.client_cpu),
        }
        if self.server_cpu is not None:
            figures["ms of a processor for each upload, server"] = self._each(self.server_cpu)
        return figures

    def _each(self, cpu: float) -> str:
        return f"{cpu / self.posts * 1000:.2f}" if self.posts else "-"

    def bound(self) -> str:
        """Return what bounds the run, and by what that is seen, as one line for people.

        A process that has used up a processor bounds the run, because everything waits for it; else whatever was busy
        or was waited for the most.
        """
        client, server = self.client_cpu / self.seconds, (self.server_cpu or 0.0) / self.seconds
        in_flight = self.seconds * min(self.concurrency, self.uploads)
        answers, network = self.answering / in_flight, self.sending / in_flight
        limit, disk = self.limit / self.seconds, self.disk / self.seconds
        by_processor = {
            f"the client, which used {client:.0%} of a processor": client,
            f"the server, which used {server:.0%} of a processor": server,
        }
        if max(client, server) >= _SATURATED:
            return max(by_processor, key=by_processor.__getitem__)
        by_waiting = {
            f"the limit, for which uploads waited {limit:.0%} of the time": limit,
            f"the server, for whose answers uploads waited {answers:.0%} of their time": answers,
            f"the network, to which uploads were sent {network:.0%} of their time": network,
            f"the disk, for which the journal waited {disk:.0%} of the time": disk,
        }
        shares = by_waiting | by_processor
        return max(shares, key=shares.__getitem__)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of `values` do not exceed; NaN when there are none.

    `values` must be sorted.
    """
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)] if values else math.nan


def readable(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
