"""The exit codes of ``springest``, which scripts rely on."""

import enum


class Exit(enum.IntEnum):
    """The exit codes of all commands."""

    STORED = 0  # every row is stored
    NOT_ALL = 1  # some rows were rejected or failed, or a list could not be read
    USAGE = 2  # faults of usage, manifest or journal: nothing was sent
    IN_DOUBT = 3  # some rows are in doubt
    KEY_REFUSED = 4  # the key was refused (401, 403)
    STOPPED = 5  # stopped as asked (--until, --max-duration, --max-failures); the same command continues
    DIFFERENT = 6  # an audit or a comparison with Springest's lists found that something is not as it should be
    INTERRUPTED = 130  # stopped; the same command continues
