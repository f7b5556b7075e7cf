"""The Rails application of ``springest.ru`` on Puma, as an async context manager.

It answers as a Springest does whose code nobody of this project wrote: Rails parses the form and renders
the answers, and the limit is counted on the server's own clock. Springest's pages are told in the
application itself.
"""

import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import attrs

from . import process

APPLICATION = Path(__file__).with_name("springest.ru")

# Keys with characters that mean something in a query: who forgets to encode them is not authorized.
KEY = "posts+a/key&of=tests"
CERTIFICATIONS_KEY = "lists+another/key%of=tests"


@attrs.frozen(kw_only=True)
class Post:
    """One POST to ``/users/certificates`` as it reached Rails.

    ``arrived`` is in seconds on the server's monotonic clock. ``verdict`` is ``"stored"``, ``"rejected"``
    (validation), ``"too fast"``, ``"not authorized"`` (no key, or one that may not post) or ``"malformed"``
    (Rails could not read the form). What describes the file is None when no file came through.
    """

    arrived: float
    path: str
    key_is_valid: bool
    too_fast: bool
    verdict: str
    status: int | None = None
    content_length: int | None = None
    content_type: str | None = None
    fields: dict[str, str] = attrs.field(factory=dict)
    filename: str | None = None
    file_type: str | None = None
    part_headers: str | None = None
    size: int | None = None
    sha256: str | None = None
    id: int | None = None


@attrs.frozen
class Audit:
    """All that was posted, in the order of arrival.

    ``most_in_any_period`` is the server's own count: the most POSTs with a valid key in any ``period``
    seconds, whatever became of them.
    """

    limit: int
    period: float
    most_in_any_period: int
    posts: tuple[Post, ...]

    def verdicts(self) -> list[str]:
        """Return the verdict on each POST."""
        return [post.verdict for post in self.posts]


@attrs.frozen
class RailsServer:
    """A Springest on loopback: where it is, its two keys, and what it has seen."""

    origin: str
    key: str = attrs.field(default=KEY, repr=False)
    certifications_key: str = attrs.field(default=CERTIFICATIONS_KEY, repr=False)

    async def audit(self) -> Audit:
        """Ask the server what it has received until now."""
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.get(f"{self.origin}/__audit") as response,
        ):
            answer: dict[str, Any] = await response.json()
        posts = tuple(Post(**post) for post in answer.pop("posts"))
        return Audit(**answer, posts=posts)


@asynccontextmanager
async def rails_server(
    *,
    limit: int = 30,
    period: float = 60.0,
    count_refusals: bool = True,
    shape: Collection[str] = (),
    now: datetime | None = None,
) -> AsyncIterator[RailsServer]:
    """Start a Springest that lets ``limit`` POSTs through in any ``period`` seconds.

    ``count_refusals`` says whether a POST that is refused for speed counts in the window too. ``shape``
    names the undocumented shapes in which it answers, and ``now`` (with a time zone) a time at which its
    ``created_at`` stands still: ``springest.ru`` tells of both. Raises :class:`~.process.ServerStartError`,
    with Puma's log, when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="springest-rails-") as name:
        environment = {
            "API_KEY": KEY,
            "CERTIFICATIONS_API_KEY": CERTIFICATIONS_KEY,
            "LIMIT": str(limit),
            "PERIOD": str(period),
            "COUNT_REFUSALS": "1" if count_refusals else "0",
            "SHAPE": ",".join(shape),
            "NOW": now.isoformat() if now else "",
            "RAILS_ENV": "production",
            "LANG": "C.UTF-8",
            "TMPDIR": name,  # where Rack keeps the uploads that it parses: they go when the folder goes
        }
        # One process with eight threads; no configuration file; port 0, so that the port is surely free.
        options = ("--config=-", "--environment=production", "--workers=0", "--threads=8:8")
        command = ("puma", *options, "--bind=tcp://127.0.0.1:0", str(APPLICATION))
        async with process.running(command, folder=Path(name), environment=environment) as server:
            async with process.starting(server):
                origin = await server.saying("Listening on ")
                await server.answering(f"{origin}/__audit")
            yield RailsServer(origin)
