"""Why rows are not stored, in the words that people need."""

import re

_OURS = re.compile(r"^POST \S+ (rejected the certificate \(\d+\): )?")


def plain_reason(reason: str) -> str:
    """Return a reason without what stands in front of the server's words: which request it was."""
    return _OURS.sub("", reason)
