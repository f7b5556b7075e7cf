"""What arrived and what became of it: the sandbox's own account, to hold against a client's.

A `Post` for every certificate POST, a `Summary` of many. The API key has no place in either: a post holds the
fields that Springest knows, never the address. It judges nothing, and keeps nothing on disk.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

import attrs
from attrs import field, frozen

__all__ = ["Post", "Summary", "Verdict", "as_json", "most_in_any", "summarize"]

Verdict = Literal["stored", "too fast", "invalid", "unauthorized", "forbidden", "broken off", "failed"]


def _read_only(fields: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(fields))


@frozen(kw_only=True)
class Post:
    """One ``POST /users/certificates`` as it arrived, and what it was answered.

    `arrived_at` is the wall clock (UTC) and `seconds` the monotonic clock since the sandbox was made, both
    taken when the request's headers had come. `fields` are the form's fields, as text. `filename`,
    `content_type`, `size` (bytes) and `sha256` (hex) tell of the file part, and are None when none was read:
    a POST that is refused for its key or for its speed is not read at all. `certificate_id` is the id of the
    certificate that it became, or None: ``stored`` has one, whatever was answered. `status` is None when
    no answer was sent: the client had gone, or the connection was dropped on purpose. ``failed`` is a POST
    that was not stored through no fault of the client's. `words` says in English why it was refused, or what
    went wrong.
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

    @property
    def key_was_valid(self) -> bool:
        """Whether the POST carried the right key, and so counted for the limit."""
        return self.verdict not in ("unauthorized", "forbidden")


@frozen(kw_only=True)
class Summary:
    """How many POSTs came, what became of them, and whether the limit was kept.

    ``posts = stored + refused_for_speed + invalid + refused_for_key + broken_off + failed``. `stored`
    counts what was stored without a good answer too. `refused_for_key` counts 401 and 403; `broken_off` the
    POSTs whose client went away within the body; `failed` those that met a `Mishap` before they were stored.
    `most_in_any_period` is the largest number of POSTs with a valid key, whatever became of them, that arrived
    within any `period` seconds.
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
    """Return the summary of `posts`, which stand in order of arrival; `period` is in seconds."""
    verdicts = Counter(post.verdict for post in posts)
    return Summary(
        posts=len(posts),
        stored=verdicts["stored"],
        refused_for_speed=verdicts["too fast"],
        invalid=verdicts["invalid"],
        refused_for_key=verdicts["unauthorized"] + verdicts["forbidden"],
        broken_off=verdicts["broken off"],
        failed=verdicts["failed"],
        most_in_any_period=most_in_any((post.seconds for post in posts if post.key_was_valid), period),
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
