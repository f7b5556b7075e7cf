"""The options of ``springest upload`` that say when it is to stop by itself, as they are written; see `stops`."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StopOptions:
    """When an upload is to stop by itself.

    Attributes:
        until: Stop at this time of the day (`07:00`, by the clock of this machine). The uploads in progress are
            finished, and the exit code is 5: the same command continues.
        max_duration: Stop so long after the start: `8h`, `90m`, `30s`, `1h30m`.
        max_failures: Stop when so many rows were rejected or have failed in this run: something is probably wrong with
            all of them.
    """

    until: Annotated[str | None, Parameter(negative="")] = None
    max_duration: Annotated[str | None, Parameter(negative="")] = None
    max_failures: Annotated[int | None, Parameter(negative="")] = None
