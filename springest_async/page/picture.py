"""`Picture`: what the page shows of a journal at one moment, as JSON; made of one snapshot, so its numbers agree."""

import json
import time
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from springest_async.journal import manifest_rows, status
from springest_async.journal.engine import Connection
from springest_async.journal.reasons import plain_reason
from springest_async.journal.status import MigrationStatus, MinutePosts
from springest_async.limits.bucket import PERIOD_SECONDS
from springest_async.reports.addresses import without_addresses
from springest_async.reports.manifest_names import names_of
from springest_async.reports.status_json import as_json, state_as_json, time_as_json

_MINUTES = 60  # of POSTs
_REASONS = 8


@frozen(kw_only=True)
class Picture:
    """What the page shows.

    Attributes:
        at: when the journal was read (UTC).
        migrations: each as a JSON object, by its key, the one that moved last first.
        orphans: how many certificates in doubt are no longer in any manifest.
        trouble: why the journal cannot be read; what is here was so before then.
    """

    at: datetime | None = None
    migrations: Mapping[int, str] = field(factory=dict)
    orphans: int = 0
    trouble: str = ""

    def since(self, known: MutableMapping[int, str]) -> str:
        """Return one JSON object with what a viewer does not know yet, and record in `known` that it does."""
        changed = [text for key, text in self.migrations.items() if known.get(key) != text]
        known.clear()
        known.update(self.migrations)
        head = json.dumps(
            {
                "at": time_as_json(self.at),
                "trouble": self.trouble,
                "orphans": self.orphans,
                "order": list(self.migrations),
            }
        )
        return f'{head[:-1]}, "migrations": [{", ".join(changed)}]}}'


def read_picture(connection: Connection) -> Picture:
    """Return what the page shows; within a snapshot.

    Raises:
        JournalError: the journal cannot be read.
    """
    at = datetime.now(UTC)
    posts: dict[str, list[MinutePosts]] = {}  # by budget, which migrations share
    migrations = {}
    found = status.read_all(connection)
    names = names_of(found)
    for each in found:
        budget = status.budget_of(connection, each.id)
        if budget not in posts:
            posts[budget] = status.read_minutes(connection, budget, _MINUTES) if budget else []
        reasons, kinds = manifest_rows.reasons(connection, each.id, _REASONS)
        shown = _shown(each) | {
            "name": names[each.id],
            "minutes": _minutes(posts[budget], each.pace.posts),
            "reasons": [
                {
                    "state": state_as_json(one.state),
                    "words": without_addresses(plain_reason(one.words)),
                    "rows": one.rows,
                }
                for one in reasons
            ],
            "more_reasons": max(0, kinds - _REASONS),
            "doubts": each.doubts.version,
        }
        migrations[each.id] = json.dumps(shown)
    return Picture(at=at, migrations=migrations, orphans=len(manifest_rows.all_orphans(connection)))


def _shown(migration: MigrationStatus) -> dict[str, Any]:
    shown = as_json(migration)
    del shown["at"], shown["done_at"]  # which change with each read: the picture says when it was made
    return shown | {"path": migration.path}


def _minutes(posts: list[MinutePosts], limit: int) -> dict[str, Any] | None:
    """Return the POSTs of the last hour, minute for minute, and the limit to which they kept; None if there are none.

    That limit is the largest of the hour: today's may be smaller, and would seem to have been broken.

    Args:
        posts: the POSTs.
        limit: how many a minute are allowed now.
    """
    if not posts:
        return None
    begin = (int(time.time() / PERIOD_SECONDS) - _MINUTES + 1) * PERIOD_SECONDS
    found = {round((each.at.timestamp() - begin) / PERIOD_SECONDS): each for each in posts}
    minutes = [found.get(number) for number in range(_MINUTES)]
    return {
        "begin": begin,
        "seconds": PERIOD_SECONDS,
        "limit": max(limit, *(each.allowed for each in posts)),
        "posts": [each.posts if each else 0 for each in minutes],
        "stored": [each.stored if each else 0 for each in minutes],
        "refused": [each.refused if each else 0 for each in minutes],
    }
