"""The sandbox's record of what arrived and what happened to it, to compare with a client's.

There is a `Post` for every certificate POST, and a `Summary` of many. Neither can contain the API key: a post has the
fields that Springest knows, and never the address. Nothing is written to disk.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

import attrs
from attrs import field, frozen

Verdict = Literal["stored", "too fast", "invalid", "unauthorized", "forbidden", "broken off", "failed"]


def _read_only(fields: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(fields))


@frozen(kw_only=True)
class Post:
    """One ``POST /users/certificates``, and the answer to it.

    Attributes:
        arrived_at: the time (UTC) when the headers of the request had arrived.
        seconds: the same moment, in seconds since the sandbox was made, by the monotonic clock.
        verdict: what happened to it; ``stored`` whatever the answer was, ``failed`` when it was not stored although
            the client did nothing wrong.
        status: the status of the answer; None when there was none, because the client had gone or the connection was
            dropped on purpose.
        words: why it was refused, or what went wrong, in English.
        certificate_id: the id of the stored certificate, or None.
        fields: the fields of the form, as text.
        filename: from the file part, as are the next two; None when no file was read. A POST that is refused for its
            key or its speed is not read.
        content_type: the content type of the file part.
        size: the size of the file in bytes.
        sha256: the SHA-256 of the file in hex.
        request_id: the client's ``X-Request-Id``, as Rails takes it, or one that the sandbox made.
    """

    arrived_at: datetime
    seconds: float
    verdict: Verdict
    status: int | None
    words: str = ""
    certificate_id: int | None = None
    fields: Mapping[str, str] = field(factory=dict, converter=_read_only)
    filename: str | None = None
    content_type: str | None = None
    size: int | None = None
    sha256: str | None = None
    request_id: str = ""


@frozen(kw_only=True)
class Summary:
    """How many POSTs arrived, what happened to them, and whether the limit was kept.

    ``posts = stored + refused_for_speed + invalid + refused_for_key + broken_off + failed``.

    Attributes:
        posts: all POSTs.
        stored: those that were stored, whatever the answer was.
        refused_for_speed: those that were over the limit.
        invalid: those with a fault.
        refused_for_key: those that were answered 401 or 403.
        broken_off: those whose client closed the connection within the body, or sent no byte of it for too long.
        failed: those that met a `Mishap` before they were stored.
        most_in_any_period: the most POSTs with a valid key, whatever happened to them, within any `period`.
        period: the period of the limit in seconds.
    """

    posts: int
    stored: int
    refused_for_speed: int
    invalid: int
    refused_for_key: int
    broken_off: int
    failed: int
    most_in_any_period: int
    period: float


def summarize(posts: Sequence[Post], period: float) -> Summary:
    """Return the summary of `posts`, which must be in order of arrival; `period` is in seconds."""
    verdicts = Counter(post.verdict for post in posts)
    counted = (post.seconds for post in posts if post.verdict not in ("unauthorized", "forbidden"))
    return Summary(
        posts=len(posts),
        stored=verdicts["stored"],
        refused_for_speed=verdicts["too fast"],
        invalid=verdicts["invalid"],
        refused_for_key=verdicts["unauthorized"] + verdicts["forbidden"],
        broken_off=verdicts["broken off"],
        failed=verdicts["failed"],
        most_in_any_period=most_in_any(counted, period),
        period=period,
    )


def most_in_any(times: Iterable[float], period: float) -> int:
    """Return the largest number of `times` within any half-open window ``[start, start + period)``.

    0 when there are none. `times` (seconds) must not decrease; `period` is in seconds. One pass: O(n).
    """
    most = 0
    window: deque[float] = deque()
    for time in times:
        window.append(time)
        while time - window[0] >= period:
            window.popleft()
        most = max(most, len(window))
    return most


def as_json(record: Post | Summary) -> dict[str, Any]:
    """Return the record as a dict that `json.dumps` can write; times of day in ISO 8601."""
    return attrs.asdict(record, value_serializer=_plain)


def _plain(_record: object, _attribute: object, value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value
