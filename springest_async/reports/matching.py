"""Match the rows of a manifest with what Springest lists: which listed certificate is of which row, and which of none.

A listed certificate stands for one certificate of the journal: first the one that has its id, then one of the same
person, certification and dates that is stored, then one that may be, then a row that was not sent. What is left over is
a row with other dates, doubled, or not ours.

All of it happens in a temporary database, so that a million rows need no memory. Nothing is asked here.
"""

import enum
from collections import Counter
from collections.abc import Generator, Sequence
from datetime import UTC, date, datetime, time, timedelta

from attrs import frozen

from springest_async.api.settlement import CERTAINLY_EARLIER
from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.journal.certificates import microseconds
from springest_async.journal.comparison import ComparedRow, KnownLooks
from springest_async.journal.records import State
from springest_async.reports.springest_lists import person_of

# `before` has the certificates that were stored when Springest was asked, their last POST, and whether that is so long
# ago that the server does nothing more with it.
#
# `items` are the certificates of the rows; a row without one has a negative key. The one with the lowest `claims` gets
# what is listed. One that is missing has as `listed` what may be it, if that was seen. It was `looked_for` if Springest
# was asked for it by person. `others` are the certificates of other manifests, and of rows that are gone.
# `put_back` has the ids of certificates that waited again, because Springest did not list those ids any more.
TABLES = (
    "CREATE TABLE before (certificate INTEGER PRIMARY KEY, attempt TEXT, settled INTEGER)",
    """
    CREATE TABLE items (
        key INTEGER PRIMARY KEY,
        number INTEGER,
        rows INTEGER NOT NULL DEFAULT 1,
        file TEXT,
        certification INTEGER,
        email TEXT,
        person BLOB,
        valid_from TEXT,
        valid_until TEXT,
        looks BLOB,
        state TEXT,
        claims INTEGER,
        springest_id INTEGER,
        attempt TEXT,
        sent_at INTEGER,
        budget TEXT,
        confirmed INTEGER,
        listed INTEGER,
        kind TEXT,
        why TEXT NOT NULL DEFAULT '',
        certain INTEGER NOT NULL DEFAULT 0,
        looked_for INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE TABLE others (key INTEGER PRIMARY KEY, springest_id INTEGER, looks BLOB, claims INTEGER)",
    "CREATE TABLE put_back (springest_id INTEGER PRIMARY KEY, certificate INTEGER)",
)
"""What makes the tables of such a database, beside those of `springest_lists`."""

_INDEXES = (
    "CREATE INDEX items_looks ON items (looks)",
    "CREATE INDEX items_id ON items (springest_id)",
    "CREATE INDEX others_id ON others (springest_id)",
    "CREATE INDEX others_looks ON others (looks)",
    "CREATE INDEX listed_looks ON listed (looks)",
    "CREATE INDEX listed_person ON listed (person, certification)",
)

_AT_ONCE = 1000  # rows that are in memory together

_CLAIMS = {
    State.STORED: 0,
    State.IN_DOUBT: 1,
    State.SENDING: 1,
    State.WAITING: 2,
    State.FAILED: 3,
    State.REJECTED: 4,
}


class Kind(enum.Enum):
    """What the comparison of a row, or of a listed certificate, has shown."""

    SHOWN = "stored and shown"
    NOT_SHOWN = "stored, not shown"  # Springest does not show its certification
    MARKED_NOT_SHOWN = "marked stored, not shown"  # by a person; Springest has not confirmed it
    MISSING = "missing"  # stored, and not listed though its certification is shown
    MARKED_MISSING = "marked stored, missing"  # by a person, too
    OTHER_DATES = "other dates"
    OTHER_PERSON = "other person"  # or certification; it has the id of ours
    DOUBLED = "doubled"  # more are listed than were sent
    NOT_OURS = "not ours"  # listed, and the journal does not know it
    NOT_EXPECTED = "shown, not stored"
    IN_DOUBT = "in doubt"  # and not listed
    SENDING = "being sent"  # listed already or not
    NOT_STORED = "not stored"
    NOT_COMPARED = "not compared"

    @property
    def is_difference(self) -> bool:
        """Whether Springest and the journal do not agree."""
        return self not in _NO_DIFFERENCES


_NO_DIFFERENCES = (
    Kind.SHOWN,
    Kind.NOT_SHOWN,
    Kind.MARKED_NOT_SHOWN,
    Kind.IN_DOUBT,
    Kind.SENDING,
    Kind.NOT_STORED,
    Kind.NOT_COMPARED,
)


class Why(enum.Enum):
    """Why stored rows could not be compared."""

    INCOMPLETE = "what may be in a list that was not read whole"
    OTHER_KEY = "what was sent with another API key, as far as Springest may not list it to this one"
    UNKNOWN = "what Springest may not show yet, because it does not say whether it shows the certification"
    NAMELESS = "what may be one of the listed certificates that do not say whose they are"
    RECENT = "what was stored while Springest was asked: run the same command again"


class Doubt(enum.Enum):
    """Why it is not certain that missing rows are not stored."""

    OTHER_KEY = "what was sent with another API key, because Springest may list less to this one"
    NO_ID = "what has no id of Springest's in the journal, because Springest may list it under another address"
    BY_PERSON = (
        "what Springest was asked for by person only, because it may list it under another address: only the lists of"
        " the certifications show that"
    )
    NONE_LISTED = (
        "what is of a certification of which Springest lists none that it has confirmed, because it may not list them"
        " to this key any more"
    )
    MAY_BE_LISTED = "what may be a listed certificate that belongs to no row"
    UNCLEAR = "what Springest gave no clear answer about when it was asked for the person"
    SETTLING = "what Springest has confirmed in the last minutes: compare once more later"


@frozen(kw_only=True)
class Listed:
    """A certificate as Springest lists it; dates are as in 2026-12-31."""

    id: int
    certification_id: int
    email: str | None
    valid_from: str
    valid_until: str | None


@frozen(kw_only=True)
class Finding:
    """What was found of a row, or of a listed certificate that belongs to no row.

    Attributes:
        kind: what was found.
        row: its row in the manifest, the first one if several rows have the same certificate; None for no row.
        rows: how many rows that are.
        file: the cell of the manifest, as written.
        state: of the row in the journal; None for no row.
        certification_id: of the row, or as listed for no row, as are the next three.
        email: of the employee; None if it is not listed.
        valid_from: the first day (2026-12-31).
        valid_until: the last day, or None.
        springest_id: the id that Springest gave when it stored the row, if it is known.
        listed: the certificate that Springest lists, if it lists one; of a missing row what may be it, if it was seen.
        certain: whether a missing row is certainly not stored, as far as the lists show.
    """

    kind: Kind
    row: int | None
    rows: int
    file: str
    state: State | None
    certification_id: int
    email: str | None
    valid_from: str
    valid_until: str | None
    springest_id: int | None
    listed: Listed | None
    certain: bool = False


@frozen
class Missing:
    """A certificate that is certainly missing, as far as the lists show; see `ComparedRow` for its fields."""

    key: int
    springest_id: int
    email: str
    person: bytes
    certification: int
    looks: bytes
    sent_at: int


# --- what is compared ---


def add_rows(database: TemporaryDatabase, rows: Sequence[ComparedRow]) -> None:
    """Add rows of the manifest to what is compared."""
    database.change(
        "INSERT INTO items (key, number, file, certification, email, person, valid_from, valid_until, looks, state,"
        " claims, springest_id, attempt, sent_at, budget, confirmed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET rows = rows + 1, number = min(number, excluded.number)",
        [
            (
                row.certificate or -row.id,
                row.number,
                row.file,
                row.certification_id,
                row.email,
                person_of(row.email),
                row.valid_from,
                row.valid_until,
                row.looks,
                row.state.value,
                _CLAIMS[row.state],
                row.springest_id,
                row.attempt,
                row.sent_at,
                row.budget,
                row.confirmed,
            )
            for row in rows
        ],
    )


def add_known(database: TemporaryDatabase, known: Sequence[KnownLooks]) -> None:
    """Add certificates that the journal knows, those of the rows included."""
    lines = [(one.id, one.springest_id, one.looks, _CLAIMS[one.state]) for one in known]
    database.change("INSERT OR IGNORE INTO others VALUES (?, ?, ?, ?)", lines)


def add_put_back(database: TemporaryDatabase, ids: Sequence[tuple[int, int]]) -> None:
    """Add certificates that were put back to waiting, each with an id that it had."""
    lines = [(springest_id, certificate) for certificate, springest_id in ids]
    database.change("INSERT OR IGNORE INTO put_back VALUES (?, ?)", lines)


# --- matching ---


def match(database: TemporaryDatabase, since: date, *, by_person: bool, budget: str | None) -> None:
    """Match all rows with all that is listed; this blocks.

    Args:
        database: with all rows, all that the journal knows, and all that is listed.
        since: what was created before this day is not asked for, so it is nobody's concern.
        by_person: whether the lists are of people, not of certifications.
        budget: the name of the budget of the key to which Springest lists them, if the journal has it.
    """
    for statement in ("DELETE FROM others WHERE key IN (SELECT key FROM items)", *_INDEXES):
        database.change(statement)
    _match_by_id(database)
    _match_by_looks(database)
    _compare_matched(database)
    _match_other_dates(database)
    _name_what_is_left(database, since)
    _judge_unmatched(database, by_person=by_person, budget=budget)
    _doubt_missing(database, by_person=by_person, budget=budget)


def _match_by_id(database: TemporaryDatabase) -> None:
    # Two certificates with one id: the listed one stands for the first of them.
    database.change(
        "UPDATE items SET listed = springest_id WHERE state = 'stored' AND springest_id IN (SELECT id FROM listed)"
        " AND NOT EXISTS (SELECT 1 FROM items AS o WHERE o.springest_id = items.springest_id AND o.state = 'stored'"
        " AND o.key < items.key)"
    )
    database.change(
        "UPDATE listed SET owner = 'id' WHERE id IN (SELECT listed FROM items WHERE listed IS NOT NULL)"
        " OR id IN (SELECT springest_id FROM others WHERE springest_id IS NOT NULL)"
    )


def _match_by_looks(database: TemporaryDatabase) -> None:
    """Match each listed certificate whose id nobody has with the first row that looks the same, one to each."""
    # Both are looked up by an index of `free`: without one, each row would look at all that is listed.
    database.change(
        "CREATE TABLE free (looks BLOB, place INTEGER, id INTEGER, PRIMARY KEY (looks, place)) WITHOUT ROWID"
    )
    database.change("CREATE TABLE pairs (listed INTEGER PRIMARY KEY, key INTEGER)")
    database.change(
        "INSERT INTO free SELECT looks, row_number() OVER (PARTITION BY looks ORDER BY id), id FROM listed"
        " WHERE owner IS NULL AND looks IS NOT NULL"
    )
    database.change(
        "WITH claimants AS (SELECT key, looks, row_number() OVER (PARTITION BY"
        " looks ORDER BY claims, has_id, key IS NULL, key) AS place FROM"
        " (SELECT key, looks, claims, springest_id IS NOT NULL AS has_id FROM items"
        "  WHERE listed IS NULL AND looks IN (SELECT looks FROM free)"
        "  UNION ALL SELECT NULL, looks, claims, springest_id IS NOT NULL FROM others"
        "  WHERE looks IN (SELECT looks FROM free)"
        "  AND (springest_id IS NULL OR springest_id NOT IN (SELECT id FROM listed))))"
        " INSERT INTO pairs SELECT free.id, claimants.key FROM claimants CROSS JOIN free"
        " ON free.looks = claimants.looks AND free.place = claimants.place"
    )
    database.change("UPDATE items SET listed = pairs.listed FROM pairs WHERE pairs.key = items.key")
    database.change("UPDATE listed SET owner = 'looks' WHERE id IN (SELECT listed FROM pairs)")


_KIND_OF_MATCHED = (
    "kind = CASE WHEN state = 'sending' THEN ? WHEN state <> 'stored' THEN ?"
    " WHEN l.certification <> items.certification OR l.person <> items.person THEN ?"
    " WHEN l.valid_from <> items.valid_from OR l.valid_until IS NOT items.valid_until THEN ? ELSE ? END"
    " FROM listed AS l WHERE l.id = items.listed"
)
_KINDS_OF_MATCHED = (
    Kind.SENDING.value,
    Kind.NOT_EXPECTED.value,
    Kind.OTHER_PERSON.value,
    Kind.OTHER_DATES.value,
    Kind.SHOWN.value,
)


def _compare_matched(database: TemporaryDatabase) -> None:
    database.change(f"UPDATE items SET {_KIND_OF_MATCHED}", [_KINDS_OF_MATCHED])  # noqa: S608
    database.change(
        "UPDATE listed SET owner = ? WHERE owner IS NULL AND (looks IN (SELECT looks FROM items WHERE state = 'stored')"
        " OR looks IN (SELECT looks FROM others WHERE claims = 0) OR id IN (SELECT p.springest_id FROM put_back AS p"
        " WHERE p.certificate IN (SELECT key FROM items WHERE state = 'stored')))",
        [(Kind.DOUBLED.value,)],
    )


def _match_other_dates(database: TemporaryDatabase) -> None:
    """Find unmatched rows under other dates, among what may have been created by their POST."""
    last: int | None = None
    while True:
        candidates = list(
            database.select(
                "SELECT key, person, certification, valid_from, sent_at FROM items WHERE listed IS NULL"
                " AND state = 'stored' AND (? IS NULL OR key > ?) AND EXISTS (SELECT 1 FROM listed AS l WHERE"
                " l.person = items.person AND l.certification = items.certification AND l.owner IS NULL)"
                " ORDER BY key LIMIT ?",
                *(last, last, _AT_ONCE),
            )
        )
        for key, *fields in candidates:
            _take_other_dates(database, key, *fields)
        if not candidates:
            return
        last = candidates[-1][0]


def _take_other_dates(
    database: TemporaryDatabase, key: int, person: bytes, certification: int, valid_from: str, sent_at: int | None
) -> None:
    earliest = (sent_at or 0) - CERTAINLY_EARLIER // timedelta(microseconds=1)
    found = database.select(
        "SELECT id FROM listed WHERE person = ? AND certification = ? AND owner IS NULL"
        " AND (created IS NULL OR created >= ?) ORDER BY valid_from <> ?, id LIMIT 1",
        *(person, certification, earliest, valid_from),
    )
    for (listed,) in list(found):
        database.change("UPDATE listed SET owner = 'dates' WHERE id = ?", [(listed,)])
        database.change("UPDATE items SET listed = ?, kind = ? WHERE key = ?", [(listed, Kind.OTHER_DATES.value, key)])


def _name_what_is_left(database: TemporaryDatabase, since: date) -> None:
    begins = microseconds(datetime.combine(since, time(), UTC))
    database.change(
        "UPDATE listed SET owner = CASE WHEN person IS NULL THEN 'nameless' ELSE ? END WHERE owner IS NULL"
        " AND certification IN (SELECT id FROM certifications) AND (created IS NULL OR created >= ?)",
        [(Kind.NOT_OURS.value, begins)],
    )


_BEFORE = "EXISTS (SELECT 1 FROM before AS b WHERE b.certificate = items.key AND b.attempt = items.attempt{})"
_CONFIRMED = "EXISTS (SELECT 1 FROM certifications AS c WHERE c.id = items.certification AND c.confirmed)"
_UNCLAIMED = "owner NOT IN ('id', 'looks')"


def _judge_unmatched(database: TemporaryDatabase, *, by_person: bool, budget: str | None) -> None:
    database.change(
        "UPDATE certifications SET confirmed = 1 WHERE id IN (SELECT certification FROM listed WHERE owner = 'id')"
    )
    complete = (
        "EXISTS (SELECT 1 FROM people AS p WHERE p.person = items.person AND p.complete)"
        if by_person
        else "EXISTS (SELECT 1 FROM certifications AS c WHERE c.id = items.certification AND c.complete)"
    )
    shown = "(SELECT c.shown FROM certifications AS c WHERE c.id = items.certification)"
    nameless = "items.certification IN (SELECT certification FROM listed WHERE owner = 'nameless')"
    database.change(
        f"UPDATE items SET why = CASE WHEN budget IS NOT ? AND NOT {_CONFIRMED} THEN ? WHEN {shown} = 0 THEN ''"  # noqa: S608
        f" WHEN NOT {complete} THEN ? WHEN {shown} IS NULL THEN ? WHEN {nameless} THEN ?"
        f" WHEN NOT {_BEFORE.format('')} THEN ? ELSE '' END"
        " WHERE state = 'stored' AND listed IS NULL",
        [(budget, *(why.name for why in (Why.OTHER_KEY, Why.INCOMPLETE, Why.UNKNOWN, Why.NAMELESS, Why.RECENT)))],
    )
    database.change(
        "UPDATE items SET kind = CASE WHEN state = 'in doubt' THEN ? WHEN state = 'sending' THEN ?"  # noqa: S608
        " WHEN state <> 'stored' THEN ? WHEN why <> '' THEN ?"
        f" WHEN {shown} = 0 THEN CASE WHEN confirmed THEN ? ELSE ? END WHEN confirmed THEN ? ELSE ? END"
        " WHERE listed IS NULL",
        [
            tuple(
                kind.value
                for kind in (
                    Kind.IN_DOUBT,
                    Kind.SENDING,
                    Kind.NOT_STORED,
                    Kind.NOT_COMPARED,
                    Kind.NOT_SHOWN,
                    Kind.MARKED_NOT_SHOWN,
                    Kind.MISSING,
                    Kind.MARKED_MISSING,
                )
            )
        ],
    )


def _doubt_missing(database: TemporaryDatabase, *, by_person: bool, budget: str | None) -> None:
    """Find out of which missing rows it is certain that they are not stored, and why it is not of the others.

    Nothing is certain of lists by person: a person may have got another address, under which nobody has looked.
    """
    database.change(f"CREATE INDEX listed_unclaimed ON listed (certification, valid_from) WHERE {_UNCLAIMED}")
    # It may be any certificate of the same person and certification that is not known by its id to be another one, and,
    # because a person may have got another address, any that belongs to no row and begins on the same day: whenever it
    # was created, because the clock that sent the row may have been ahead.
    may_be_listed = (
        "(EXISTS (SELECT 1 FROM listed AS l WHERE l.person = items.person AND l.certification = items.certification"  # noqa: S608
        " AND (l.owner <> 'id' OR l.id = items.springest_id)) OR EXISTS (SELECT 1 FROM listed"
        f" WHERE {_UNCLAIMED} AND certification = items.certification AND valid_from = items.valid_from))"
    )
    database.change(
        "UPDATE items SET why = CASE WHEN budget IS NOT ? THEN ? WHEN springest_id IS NULL THEN ? WHEN ? THEN ?"  # noqa: S608
        f" WHEN NOT {_CONFIRMED} THEN ? WHEN {may_be_listed} THEN ?"
        f" WHEN NOT {_BEFORE.format(' AND b.settled')} THEN ? ELSE '' END WHERE kind = ?",
        [
            (
                budget,
                *(Doubt.OTHER_KEY.name, Doubt.NO_ID.name, by_person, Doubt.BY_PERSON.name, Doubt.NONE_LISTED.name),
                *(Doubt.MAY_BE_LISTED.name, Doubt.SETTLING.name),
                Kind.MISSING.value,
            )
        ],
    )
    database.change("UPDATE items SET certain = 1 WHERE kind = ? AND why = ''", [(Kind.MISSING.value,)])


# --- looking for what is missing ---


def to_look_for(database: TemporaryDatabase, most: int) -> list[Missing]:
    """Return the next certificates that are certainly missing, and that nobody has looked for yet."""
    lines = database.select(
        "SELECT key, springest_id, email, person, certification, looks, sent_at FROM items"
        " WHERE certain AND NOT looked_for ORDER BY key LIMIT ?",
        most,
    )
    return [Missing(*line) for line in lines]


def note_search(database: TemporaryDatabase, key: int, listed: int | None, doubt: Doubt | None) -> None:
    """Note what Springest has answered about a missing certificate.

    Args:
        database: has what it lists.
        key: the key of the certificate.
        listed: the id of what Springest lists: the certificate itself, or with a doubt what may be it.
        doubt: why it is not certain that it is not stored, if it is not that it was found.
    """
    certain = listed is None and doubt is None
    database.change(
        "UPDATE items SET looked_for = 1, certain = ?, listed = ?, why = ? WHERE key = ?",
        [(certain, listed, doubt.name if doubt else "", key)],
    )
    if listed is not None and doubt is None:
        database.change(f"UPDATE items SET {_KIND_OF_MATCHED} AND items.key = ?", [(*_KINDS_OF_MATCHED, key)])  # noqa: S608


def not_found(database: TemporaryDatabase) -> list[tuple[int, str]]:
    """Return the certificates that were looked for and certainly are not there, each with its last POST."""
    return list(database.select("SELECT key, attempt FROM items WHERE certain AND looked_for ORDER BY key"))


# --- what was found ---


def counts(database: TemporaryDatabase) -> Counter[Kind]:
    """Count the rows, and the listed certificates of no row, by what was found."""
    found: Counter[Kind] = Counter()
    for kind, rows in database.select("SELECT kind, sum(rows) FROM items GROUP BY kind"):
        found[Kind(kind)] = rows
    for kind in (Kind.DOUBLED, Kind.NOT_OURS):
        ((found[kind],),) = database.select("SELECT count(*) FROM listed WHERE owner = ?", kind.value)
    return found


def certifications(database: TemporaryDatabase, kind: Kind) -> Counter[int]:
    """Count the rows of one kind by certification."""
    lines = database.select(
        "SELECT certification, sum(rows) FROM items WHERE kind = ? GROUP BY certification", kind.value
    )
    return Counter(dict(lines))


def states(database: TemporaryDatabase, kind: Kind) -> Counter[State]:
    """Count the rows of one kind by their state in the journal."""
    lines = database.select("SELECT state, sum(rows) FROM items WHERE kind = ? GROUP BY state", kind.value)
    return Counter({State(state): rows for state, rows in lines})


def reasons(database: TemporaryDatabase) -> dict[Why, int]:
    """Count the rows that could not be compared, by why."""
    lines = database.select("SELECT why, sum(rows) FROM items WHERE kind = ? GROUP BY why", Kind.NOT_COMPARED.value)
    return {Why[why]: rows for why, rows in lines}


def doubts(database: TemporaryDatabase) -> dict[Doubt, int]:
    """Count the missing rows of which it is not certain that they are not stored, by why."""
    lines = database.select(
        "SELECT why, sum(rows) FROM items WHERE kind = ? AND NOT certain GROUP BY why", Kind.MISSING.value
    )
    return {Doubt[why]: rows for why, rows in lines}


_FIRST = (  # of the stored rows that a listed certificate stands for once more
    "(SELECT i.{} FROM items AS i WHERE i.state = 'stored' AND (i.looks = l.looks"
    " OR i.key IN (SELECT p.certificate FROM put_back AS p WHERE p.springest_id = l.id)) ORDER BY i.number LIMIT 1)"
)
_LISTED = "l.id, l.certification, l.email, l.valid_from, l.valid_until"


def findings(database: TemporaryDatabase, *kinds: Kind) -> Generator[Finding, None, None]:
    """Yield what was found, of these kinds: first the rows of the manifest, then the listed certificates of no row."""
    marks = ", ".join("?" * len(kinds))
    values = [kind.value for kind in kinds]
    yield from _rows(database, f"i.kind IN ({marks})", *values)
    for kind, row, file, *rest in database.select(
        f"SELECT l.owner, {_FIRST.format('number')}, {_FIRST.format('file')}, {_LISTED}"  # noqa: S608
        f" FROM listed AS l WHERE l.owner IN ({marks}) ORDER BY l.id",
        *values,
    ):
        listed = _listed(*rest)
        yield Finding(
            kind=Kind(kind),
            row=row,
            rows=0 if row is None else 1,
            file=file or "",
            state=None if row is None else State.STORED,
            certification_id=listed.certification_id,
            email=listed.email,
            valid_from=listed.valid_from,
            valid_until=listed.valid_until,
            springest_id=None,
            listed=listed,
        )


def found_after_all(database: TemporaryDatabase) -> Generator[Finding, None, None]:
    """Yield the rows that seemed missing, and of which that is not certain since somebody has looked for them."""
    return _rows(database, "i.looked_for AND NOT i.certain")


def _rows(database: TemporaryDatabase, condition: str, *values: object) -> Generator[Finding, None, None]:
    for line in database.select(
        "SELECT i.kind, i.number, i.rows, i.file, i.state, i.certification, i.email, i.valid_from, i.valid_until,"  # noqa: S608
        f" i.springest_id, i.certain, {_LISTED} FROM items AS i LEFT JOIN listed AS l ON l.id = i.listed"
        f" WHERE {condition} ORDER BY i.number",
        *values,
    ):
        kind, row, rows, file, state, certification, email, valid_from, valid_until, springest_id, certain, *rest = line
        yield Finding(
            kind=Kind(kind),
            row=row,
            rows=rows,
            file=file,
            state=State(state),
            certification_id=certification,
            email=email,
            valid_from=valid_from,
            valid_until=valid_until,
            springest_id=springest_id,
            listed=None if rest[0] is None else _listed(*rest),
            certain=bool(certain),
        )


def _listed(key: int, certification: int, email: str | None, valid_from: str, valid_until: str | None) -> Listed:
    return Listed(id=key, certification_id=certification, email=email, valid_from=valid_from, valid_until=valid_until)
