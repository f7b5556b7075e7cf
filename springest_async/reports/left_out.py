"""What is said of the rows of a manifest that were left out because of their faults: no other view counts them."""


def left_out(rows: int, check: str = "springest check") -> str:
    """Return a sentence for people, without a full stop, which would be pasted into a shell with the command.

    Args:
        rows: how many there are, at least one.
        check: the command that lists their faults.
    """
    number = f"{rows:,}".replace(",", " ")
    subject = (
        "1 row of the manifest has faults and was"
        if rows == 1
        else f"{number} rows of the manifest have faults and were"
    )
    return f"{subject} left out (--skip-faulty): see {check}"
