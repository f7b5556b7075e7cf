"""The options of ``springest upload`` that say what machines are told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What machines are told.

    Attributes:
        log_format: With `json`, each line on stderr is a JSON object: an event, a message, or at the end the summary.
        metrics: A file for Prometheus, such as `springest.prom`, written every 15 seconds and at the end.
        on_finish: A command to run at the end, with the summary as JSON on its stdin.
        on_trouble: A command to run when a person is needed: after ten minutes without Springest, for the first row in
            doubt, and if the key is refused.
        ping: An address that gets the summary as JSON at the beginning, each minute and at the end. Rather put it into
            `SPRINGEST_PING`: the list of processes shows arguments.
    """

    # `run` has looked for it before anything else, so that all faults are logged so.
    log_format: Annotated[Literal["text", "json"], Parameter(show_default=False)] = "text"
    metrics: Path | None = None
    on_finish: str | None = None
    on_trouble: str | None = None
    ping: str | None = field(default=None, repr=False)  # it has a token in it
