"""What is said of the rows of a manifest that were left out because of their faults: no other view counts them."""

from springest_async.reports.numbers import count


def left_out(rows: int, check: str = "springest check") -> str:
    """Return a sentence for people, without a full stop, which would be pasted into a shell with the command.

    Args:
        rows: how many there are, at least one.
        check: the command that lists their faults.
    """
    have, were = ("has", "was") if rows == 1 else ("have", "were")
    return f"{count(rows, 'row')} of the manifest {have} faults and {were} left out (--skip-faulty): see {check}"
