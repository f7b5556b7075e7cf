"""When the POSTs of a journal left and were answered, to measure how long they took."""

from attrs import frozen

from springest_async.journal.engine import Connection


@frozen
class PostTimes:
    """A POST of a row; all times are in seconds since 1970.

    Attributes:
        row: the key of the row, as in `Entry.id`.
        written_at: when its last byte was given to the connection, if it was.
        answered_at: when its answer came, if one did.
    """

    row: int
    written_at: float | None
    answered_at: float | None


def read_post_times(connection: Connection) -> list[PostTimes]:
    """Return the times of all POSTs whose rows a manifest names, in the order in which they left."""
    lines = connection.execute(
        "SELECT r.id, a.written_at, a.answered_at FROM attempts AS a"
        " JOIN manifest_rows AS r ON r.certificate = a.certificate ORDER BY a.sent_at",
    )
    return [PostTimes(row, _seconds(written_at), _seconds(answered_at)) for row, written_at, answered_at in lines]


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
