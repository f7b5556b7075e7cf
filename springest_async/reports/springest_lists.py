"""Ask Springest for its lists of certificates, in few requests, and keep them in a temporary database.

It asks for the certificates of each certification that were created since the first POST, or for those of each person
where that takes much fewer requests. Whether a list was read whole is known by its length only: what is not in a list
that may be incomplete is not missing. Nothing is compared here.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from contextlib import aclosing, closing
from datetime import UTC, date, timedelta
from email.utils import parsedate_to_datetime

from attrs import define, field

from springest_async.bulk.listed import listed_looks
from springest_async.bulk.temporary import TemporaryDatabase
from springest_async.client import PAGE_SIZE, Springest
from springest_async.errors import ConfigurationError, Forbidden, NoAnswer, NotAuthorized, NotSent, SpringestError
from springest_async.journal.certificates import microseconds
from springest_async.journal.comparison import FirstPosts
from springest_async.journal.identity import folded
from springest_async.records import Certificate

# A certification's `sent` is how many of the rows were sent. It is `shown` (1) if Springest lists it or certificates of
# it, it is not (0), or that is unknown. It is `confirmed` if certificates are listed that the journal knows by their
# ids. `reading` tells the records of one reading of a list from those of another.
TABLES = (
    "CREATE TABLE people (person BLOB PRIMARY KEY, email TEXT, complete INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    """
    CREATE TABLE certifications (
        id INTEGER PRIMARY KEY,
        sent INTEGER NOT NULL DEFAULT 0,
        total INTEGER,
        complete INTEGER NOT NULL DEFAULT 0,
        shown INTEGER,
        confirmed INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE listed (
        id INTEGER PRIMARY KEY,
        reading INTEGER,
        looks BLOB,
        person BLOB,
        certification INTEGER,
        email TEXT,
        valid_from TEXT,
        valid_until TEXT,
        created INTEGER,
        owner TEXT
    )
    """,
)
"""What makes the tables of such a database."""

_FEW_PAGES = 10  # so few requests show all certificates of a certification, not only those of the manifest's people
_FEW_PEOPLE = 400  # so many requests may leave at once
_READINGS = 3  # of a list that changes while it is read
_MANY = 10_000  # certificates beside those that are expected; a list with more never ends
_MOST_CERTIFICATIONS = 10_000  # a longer list never ends
_SHOWN = 5  # certifications that are named in a sentence
_BEFORE = timedelta(days=2)  # the server's day may begin earlier than ours, and the clocks may differ


def person_of(email: str) -> bytes:
    """Return a 16-byte digest of a person, the same for all forms of the address."""
    return hashlib.blake2b(folded(email).encode(errors="surrogatepass"), digest_size=16).digest()


def created_from(posts: FirstPosts) -> date | None:
    """Return the day from which on certificates of these POSTs may be created, or None if nothing was sent.

    The clock of a machine may have been days ahead, so what servers said is asked, too.
    """
    if posts.sent_at is None:
        return None
    times = [posts.sent_at]
    for text in posts.server_dates:
        try:
            found = parsedate_to_datetime(text)
        except ValueError:
            continue
        times.append(found if found.tzinfo else found.replace(tzinfo=UTC))
    first = min(times).astimezone(UTC).date()
    return first - _BEFORE if first > date.min + _BEFORE else date.min


class SpringestLists:
    """What Springest lists of the certifications, or of the people, that a database names.

    Args:
        database: has the `TABLES`, with people and certifications.
        springest: an open client.
        since: the first day of creation to list.

    Attributes:
        asked: how many requests have been made so far.
        by_person: whether only certificates of the people of the manifest are asked for.
        unavailable: what could not be asked, in sentences without a full stop.
    """

    def __init__(self, database: TemporaryDatabase, springest: Springest, since: date) -> None:
        self.asked = 0
        self.by_person = False
        self.unavailable: list[str] = []
        self._database = database
        self._springest = springest
        self._since = since
        self._reading = 0
        self._failed: dict[str, _Failed] = {}  # by why

    # --- how many requests ---

    async def count_requests(self, *, may_ask_by_person: bool) -> int:
        """Return how many requests `fetch` needs at least, and decide what to ask for.

        Args:
            may_ask_by_person: whether the lists of the manifest's people are enough, if they take fewer requests.

        Raises:
            SpringestError: as `Springest.certificates`.
        """
        ((people,),) = self._database.select("SELECT count(*) FROM people")
        ((certifications, pages),) = self._database.select(
            "SELECT count(*), coalesce(sum(max(1, (sent + ?) / ?)), 0) FROM certifications", PAGE_SIZE - 1, PAGE_SIZE
        )
        if may_ask_by_person and people <= _FEW_PEOPLE:
            if certifications > max(people, _FEW_PAGES):
                self.by_person = True
                return int(people) + 1
            pages = await self._count_pages()
            self.by_person = pages > _FEW_PAGES and people < pages
        return int(people if self.by_person else pages) + 1  # and the list of certifications

    async def _count_pages(self) -> int:
        """Return how many requests all certifications take; a list of unknown length counts as one."""
        pages = 0
        for certification in self._certifications():
            pages += max(1, math.ceil((await self._count(certification) or 0) / PAGE_SIZE))
        return pages

    async def _count(self, certification: int) -> int | None:
        self.asked += 1
        try:
            total = await self._springest.count_certificates(certification_id=certification, created_from=self._since)
        except (NotAuthorized, Forbidden, NotSent, NoAnswer):
            raise
        except SpringestError:  # which `fetch` says
            return None
        self._database.change("UPDATE certifications SET total = ? WHERE id = ?", [(total, certification)])
        return total

    def _certifications(self) -> list[int]:
        return [key for (key,) in self._database.select("SELECT id FROM certifications ORDER BY id")]

    # --- asking ---

    async def fetch(self) -> None:
        """Fetch the lists, as fast as the limit of all requests in an hour allows.

        A list that cannot be had is one that is not complete; see `unavailable`.

        Raises:
            NotAuthorized, Forbidden: the key is refused.
        """
        if self.by_person:
            await self._fetch_people()
        else:
            await self._fetch_certifications()
        await self._look_which_are_shown()
        for reason, lists in self._failed.items():
            more = f" and {lists.count - len(lists.names)} more" if lists.count > len(lists.names) else ""
            self.unavailable.append(f"what Springest lists of {', '.join(lists.names)}{more} ({reason})")

    def _fail(self, reason: str, name: str) -> None:
        lists = self._failed.setdefault(reason, _Failed())
        lists.count += 1
        if len(lists.names) < _SHOWN:
            lists.names.append(name)

    async def _fetch_certifications(self) -> None:
        for certification in self._certifications():
            query = {"certification_id": certification}
            complete, strange = await self._read_whole(f"certification {certification}", query)
            self._database.change(
                "UPDATE certifications SET complete = ? WHERE id = ?", [(bool(complete), certification)]
            )
            if complete is None:
                return
            if complete and strange and await self._lists_are_all_the_same():
                self._database.change("UPDATE certifications SET complete = 1")  # the server ignores the filter
                return

    async def _lists_are_all_the_same(self) -> bool:
        """Return whether the lists of all certifications have the same length, as where the server ignores which."""
        uncounted = list(self._database.select("SELECT id FROM certifications WHERE total IS NULL"))
        for (certification,) in uncounted:
            await self._count(certification)
        query = "SELECT count(DISTINCT total), sum(total IS NULL) FROM certifications"
        ((lengths, unknown),) = self._database.select(query)
        return (lengths, unknown) == (1, 0)

    async def _fetch_people(self) -> None:
        people = closing(self._database.select("SELECT person, email FROM people ORDER BY person"))
        number = 0
        with people as lines:
            for person, email in lines:
                number += 1
                complete, strange = await self._read_whole(f"person {number} of the manifest", {"email": email})
                self._database.change("UPDATE people SET complete = ? WHERE person = ?", [(bool(complete), person)])
                if complete is None:
                    return
                if strange:
                    break
            else:
                return
        # The server lists other people as well: asking for each of them would take for ever.
        self.by_person = False
        await self._fetch_certifications()

    async def _read_whole(self, name: str, query: Mapping[str, object]) -> tuple[bool | None, bool]:
        """Read a list, and again if it has changed meanwhile.

        Return whether that was all of it (None: nobody can be asked any more), and whether it has what was not asked
        for.
        """
        try:
            for _ in range(_READINGS):
                total, read, strange = await self._read(query)
                if total is None:
                    self._fail("nobody knows how long the list is", name)
                    return False, strange
                if read >= total:
                    return True, strange
        except (NotAuthorized, Forbidden):
            raise
        except SpringestError as error:
            is_gone = isinstance(error, NotSent | NoAnswer)
            self._fail(str(error), f"{name} and of all that come after it" if is_gone else name)
            return (None if is_gone else False), False
        self._fail("the list has other certificates at each reading", name)
        return False, strange

    async def _read(self, query: Mapping[str, object]) -> tuple[int | None, int, bool]:
        """Read a list; return how long it was at the beginning, and how many different certificates it had.

        A list that has many more never ends, and its length is not known.
        """
        self._reading += 1
        first: int | None = None
        read, strange, pages = 0, False, 0
        lists = self._springest.certificate_pages(**query, created_from=self._since)  # type: ignore[arg-type] # either
        async with aclosing(lists):
            async for page in lists:
                self.asked += 1
                pages += 1
                if pages == 1:
                    first = page.total
                read += self._write(page.records)
                strange = strange or any(_is_strange(one, query) for one in page.records)
                if read > 2 * max(first or 0, self._expected()) + _MANY:
                    first = None
                    break
        certification = query.get("certification_id")
        self._database.change("UPDATE certifications SET total = ? WHERE id = ?", [(first, certification)])
        return first, read, strange

    def _expected(self) -> int:
        ((rows,),) = self._database.select("SELECT coalesce(sum(sent), 0) FROM certifications")
        return int(rows)

    def keep(self, certificate: Certificate) -> None:
        """Keep a certificate that Springest lists, and that was found otherwise than in these lists."""
        self._reading += 1
        self._write([certificate])

    def _write(self, certificates: Iterable[Certificate]) -> int:
        """Keep listed certificates; return how many of them this reading did not have yet."""
        return self._database.change(
            "INSERT INTO listed (id, reading, looks, person, certification, email, valid_from, valid_until, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET reading = excluded.reading,"
            " looks = excluded.looks, person = excluded.person, certification = excluded.certification,"
            " email = excluded.email, valid_from = excluded.valid_from, valid_until = excluded.valid_until,"
            " created = excluded.created WHERE reading <> excluded.reading",
            [self._line(certificate) for certificate in certificates],
        )

    def _line(self, certificate: Certificate) -> tuple[object, ...]:
        user = certificate.user
        return (
            certificate.id,
            self._reading,
            listed_looks(certificate, self._springest.origin),
            user and person_of(user.email),
            certificate.certification_id,
            user and user.email,
            certificate.valid_from.isoformat(),
            certificate.valid_until and certificate.valid_until.isoformat(),
            microseconds(certificate.created_at),
        )

    # --- which certifications are shown ---

    async def _look_which_are_shown(self) -> None:
        """Find out which certifications Springest shows; it shows no certificates of those that it has not verified."""
        self._database.change("UPDATE certifications SET shown = 1 WHERE id IN (SELECT certification FROM listed)")
        unknown = {key for (key,) in self._database.select("SELECT id FROM certifications WHERE shown IS NULL")}
        if not unknown:
            return
        try:
            try:
                shown = await self._shown(unknown)
            except ConfigurationError:  # there is no key for it
                shown = await self._with_certificates(unknown)
        except SpringestError as error:
            self.unavailable.append(f"whether Springest shows the certifications ({error})")
            return
        self._database.change(
            "UPDATE certifications SET shown = ? WHERE id = ?", [(key in shown, key) for key in unknown]
        )

    async def _shown(self, wanted: set[int]) -> set[int]:
        """Return which of these certifications Springest lists."""
        found: set[int] = set()
        count = 0
        lists = self._springest.certifications()
        async with aclosing(lists):
            async for certification in lists:
                self.asked += count % PAGE_SIZE == 0
                count += 1
                if certification.id in wanted:
                    found.add(certification.id)
                if count >= _MOST_CERTIFICATIONS or found == wanted:
                    break
        return found

    async def _with_certificates(self, wanted: set[int]) -> set[int]:
        """Return of which of these certifications Springest lists certificates, whenever they were created."""
        found: set[int] = set()
        for certification in sorted(wanted):
            lists = self._springest.certificate_pages(certification_id=certification)
            async with aclosing(lists):
                async for page in lists:
                    self.asked += 1
                    if any(one.certification_id == certification for one in page.records):
                        found.add(certification)
                    break
        return found


@define
class _Failed:
    """The lists that could not be read whole for one reason; the first of them have names."""

    count: int = 0
    names: list[str] = field(factory=list)


def _is_strange(certificate: Certificate, query: Mapping[str, object]) -> bool:
    """Return whether a listed certificate was not asked for."""
    if query.get("certification_id") not in (None, certificate.certification_id):
        return True
    email = query.get("email")
    return email is not None and certificate.user is not None and folded(certificate.user.email) != folded(str(email))
