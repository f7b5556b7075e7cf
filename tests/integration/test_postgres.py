"""A journal's engine on a real PostgreSQL: what is durable, who waits, which server it is, and what errors say."""

# ruff: noqa: PT012 # a transaction raises when its block ends

import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from springest_async import Journal
from springest_async.errors import AnotherServer, JournalError, JournalMissing, JournalUnavailable
from springest_async.journal import schema
from springest_async.journal.postgres import PostgresEngine
from springest_async.journal.postgres_connection import PostgresConnection
from springest_async.journal.status_reader import StatusReader

from .servers.postgresql import Cluster, Database, postgresql_cluster

pytestmark = pytest.mark.postgresql


@contextmanager
def opened(url: str, *, create: bool = True) -> Iterator[PostgresConnection]:
    with closing(PostgresEngine(url).connect(create=create)) as connection:
        yield connection


@pytest.fixture
def connection(database: Database) -> Iterator[PostgresConnection]:
    with opened(database.url) as connection:
        yield connection


def put(connection: PostgresConnection, key: str, value: str = "") -> None:
    connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value))


def keys(database: Database) -> set[str]:
    return {key for (key,) in database.execute("SELECT key FROM meta")} - {"version", "system", "timeline"}


def everything_shown(error: BaseException) -> str:
    """Return all that a log or a debugger would show of an error and of what it leads to."""
    shown, left = "", [error]
    while left:
        each = left.pop()
        shown += f"{each} {each!r} {vars(each)}"
        left += [other for other in (each.__cause__, each.__context__) if other is not None]
    return shown + "".join(traceback.format_exception(error))


# --- making and opening


def test_a_journal_is_made_when_asked(database: Database) -> None:
    with pytest.raises(JournalMissing), opened(database.url, create=False):
        pytest.fail("There is none")
    with opened(database.url):
        pass
    with opened(database.url, create=False) as connection, connection.snapshot():
        assert connection.execute("SELECT count(*) FROM certificates") == [(0,)]
        ((version,),) = connection.execute("SELECT value FROM meta WHERE key = 'version'")
        assert version == str(schema.VERSION)


def test_many_may_make_a_journal_at_once(database: Database) -> None:
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            with opened(database.url):
                pass
        except BaseException as error:  # noqa: BLE001 # whatever it is
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_a_journal_of_another_version_is_refused(database: Database, connection: PostgresConnection) -> None:
    database.execute("UPDATE meta SET value = '99' WHERE key = 'version'")

    with pytest.raises(JournalError, match=r"another version of springest \(its format is 99,"), opened(database.url):
        pytest.fail("It opened")


@pytest.mark.parametrize("columns", ["key text, value text", "id integer"])
def test_a_database_of_another_program_is_left_alone(database: Database, columns: str) -> None:
    database.execute(f"CREATE TABLE meta ({columns})")
    database.execute("GRANT ALL ON meta TO PUBLIC")

    with pytest.raises(JournalError, match="another program"), opened(database.url):
        pytest.fail("It opened")

    assert database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]


def test_half_of_a_journal_is_never_made(database: Database) -> None:
    database.execute("CREATE TABLE file_hashes (place integer)")

    with pytest.raises(JournalError, match="tables of another program"), opened(database.url):
        pytest.fail("It opened")

    assert database.execute("SELECT to_regclass('meta')") == [(None,)]


def test_two_schemas_of_a_database_are_two_journals(database: Database) -> None:
    database.execute("CREATE SCHEMA other AUTHORIZATION springest")
    other_url = f"{database.url}?options=-csearch_path%3Dother"
    with opened(database.url) as one, opened(other_url) as other, one.transaction(), other.transaction():
        put(one, "one")
        put(other, "other")

    assert keys(database) == {"one"}
    assert database.execute("SELECT key FROM other.meta WHERE key IN ('one', 'other')") == [("other",)]


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_loses_commits_is_refused(database: Database, setting: str) -> None:
    database.cluster.configure(**{setting: "off"})
    try:
        wait_for_setting(database, setting, "off")
        with pytest.raises(JournalError, match=f"{setting} = off"):
            PostgresEngine(database.url).connect(create=True)
    finally:
        database.cluster.configure(**{setting: "on"})
        wait_for_setting(database, setting, "on")


def wait_for_setting(database: Database, setting: str, value: str) -> None:
    while database.execute(f"SHOW {setting}") != [(value,)]:
        time.sleep(0.01)


def test_an_old_server_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", 120022)

    with pytest.raises(JournalError, match="PostgreSQL 12 is too old: 13 or newer"), opened(database.url):
        pytest.fail("It opened")


def test_a_database_that_is_not_utf_8_is_refused(database: Database) -> None:
    name = f"{database.name}_latin"
    database.execute(f"CREATE DATABASE {name} OWNER springest ENCODING LATIN1 TEMPLATE template0")
    try:
        with pytest.raises(JournalError, match="LATIN1: make one with UTF8"):
            PostgresEngine(f"{database.url}_latin").connect(create=True)
    finally:
        database.execute(f"DROP DATABASE {name}")


# --- transactions


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database, connection: PostgresConnection) -> None:
    with connection.transaction():
        put(connection, "kept")
    with pytest.raises(ZeroDivisionError), connection.transaction():
        put(connection, "undone")
        _ = 1 / 0

    assert keys(database) == {"kept"}


def test_an_error_in_a_transaction_undoes_it(database: Database, connection: PostgresConnection) -> None:
    with pytest.raises(JournalError), connection.transaction():
        put(connection, "undone")
        put(connection, "undone")
    with pytest.raises(JournalError, match="earlier error"), connection.transaction():
        put(connection, "undone")
        with pytest.raises(JournalError):
            put(connection, "undone")
    with connection.transaction():
        put(connection, "kept")

    assert keys(database) == {"kept"}


def test_transactions_run_one_after_another(database: Database) -> None:
    def count() -> None:
        with opened(database.url) as connection:
            for _ in range(50):
                with connection.transaction():
                    ((value,),) = connection.execute("SELECT value FROM meta WHERE key = 'count'")
                    connection.execute("UPDATE meta SET value = ? WHERE key = 'count'", (str(int(value) + 1),))

    with opened(database.url) as connection, connection.transaction():
        put(connection, "count", "0")
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert database.execute("SELECT value FROM meta WHERE key = 'count'") == [("200",)]


def test_a_snapshot_is_consistent_and_waits_for_nobody(database: Database, connection: PostgresConnection) -> None:
    with opened(database.url) as other, connection.snapshot():
        count = connection.execute("SELECT count(*) FROM meta")
        with other.transaction():
            put(other, "later")
            assert connection.execute("SELECT count(*) FROM meta") == count
        assert connection.execute("SELECT count(*) FROM meta") == count
        with pytest.raises(JournalUnavailable, match="cannot be written now"):
            put(connection, "never")


def test_who_waits_too_long_for_the_lock_is_told(
    database: Database, connection: PostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[PostgresConnection.__module__]
    monkeypatch.setattr(module, "_BEGIN", getattr(module, "_BEGIN").replace("'30s'", "'50ms'"))  # noqa: B009
    with opened(database.url) as other, other.transaction():
        with pytest.raises(JournalUnavailable, match="locked for 30 s"), connection.transaction():
            pytest.fail("It has the lock")
        put(other, "kept")

    assert keys(database) == {"kept"}


def test_who_stops_in_a_transaction_blocks_nobody_for_long(
    database: Database, connection: PostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[PostgresConnection.__module__]
    monkeypatch.setattr(module, "_BEGIN", getattr(module, "_BEGIN").replace("'15s'", "'50ms'"))  # noqa: B009
    with (
        opened(database.url) as other,
        pytest.raises(JournalUnavailable, match="nothing was done in a transaction"),
        connection.transaction(),
    ):
        put(connection, "undone")
        with other.transaction():
            put(other, "kept")
        put(connection, "undone too")

    assert keys(database) == {"kept"}


@pytest.mark.parametrize(("before", "within"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
def test_commits_are_durable_whatever_is_configured(database: Database, before: str, within: str) -> None:
    database.execute(f"ALTER ROLE springest IN DATABASE {database.name} SET synchronous_commit = {before}")

    with opened(database.url) as connection, connection.transaction():
        assert connection.execute("SHOW synchronous_commit") == [(within,)]


def test_values_come_back_as_they_were(connection: PostgresConnection) -> None:
    values = ("zoë 'quoted' \\ \n", 2**62, 1 / 3, bytes(range(256)), None)

    with connection.transaction():
        connection.execute(
            "CREATE TEMP TABLE values_of_all_kinds (a TEXT, b BIGINT, c DOUBLE PRECISION, d BYTEA, e TEXT)"
        )
        insert = "INSERT INTO values_of_all_kinds (a, b, c, d, e) VALUES (?, ?, ?, ?, ?)"
        connection.execute(insert, values)
        connection.executemany(insert, [values] * 2)
        connection.executemany(f"{insert} ON CONFLICT DO NOTHING", [values] * 2)

        assert connection.execute("SELECT * FROM values_of_all_kinds") == [values] * 5
        ((total, kind),) = connection.execute("SELECT sum(b - ?), min(a) FROM values_of_all_kinds", (2**62 - 7,))
        assert (total, type(total), kind) == (35, int, values[0])


def test_a_million_rows_need_no_memory_of_their_own(connection: PostgresConnection) -> None:
    """Rows are read in pieces: what comes after a failure is never asked for."""
    asked = 0

    def rows() -> Iterator[tuple[int, str]]:
        nonlocal asked
        for number in range(1_000_000):
            asked += 1
            yield (number, "not a number" if number == 10_000 else "7")

    with pytest.raises(JournalError, match="invalid input syntax"), connection.transaction():
        connection.execute("CREATE TEMP TABLE numbers (a BIGINT, b BIGINT)")
        connection.executemany("INSERT INTO numbers (a, b) VALUES (?, ?)", rows())
    assert 10_000 < asked <= 20_000


def test_the_planner_knows_how_many_rows_were_copied(connection: PostgresConnection) -> None:
    """Believed to be empty, a table is looked through once for each row of another."""
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE numbers (a BIGINT)")
        connection.executemany("INSERT INTO numbers (a) VALUES (?)", ((number,) for number in range(1_000)))

        assert connection.execute("SELECT reltuples FROM pg_class WHERE oid = 'numbers'::regclass") == [(1_000,)]


def test_what_is_erased_is_erased_outside_a_transaction(connection: PostgresConnection) -> None:
    with connection.transaction():
        connection.execute("DELETE FROM certificates")
    connection.check_space()

    connection.erase()


@pytest.mark.parametrize("pooled", [False, True])
def test_statements_are_not_prepared_behind_a_pooler(
    database: Database, monkeypatch: pytest.MonkeyPatch, pooled: bool
) -> None:
    """A pooler says another number than the process that it leads to."""
    if pooled:
        monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 0)

    with opened(database.url) as connection:
        for _ in range(5):
            with connection.transaction():
                connection.execute("SELECT value FROM meta WHERE key = ?", ("version",))
        with connection.snapshot():
            prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements")

    assert (prepared == [(0,)]) is pooled


# --- time


def test_the_clock_is_the_servers(database: Database) -> None:
    engine = PostgresEngine(database.url)
    assert 0 <= engine.clock() < 1e6
    with closing(engine.connect(create=True)) as connection, connection.transaction():
        ((before,),) = database.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        now = connection.now()
        ((after,),) = database.execute("SELECT extract(epoch FROM clock_timestamp())::float8")

    assert before - 60 < now < after
    assert now <= engine.clock()


def test_the_wait_for_the_lock_is_no_time_gained(database: Database, connection: PostgresConnection) -> None:
    times: list[float] = []

    def wait_and_read() -> None:
        with connection.transaction():
            times.append(connection.now())
            times.extend(database.execute("SELECT extract(epoch FROM clock_timestamp())::float8")[0])

    waiting = threading.Thread(target=wait_and_read)
    with opened(database.url) as other, other.transaction():
        waiting.start()
        while database.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
            time.sleep(0.01)
        time.sleep(0.1)
    waiting.join()

    now, after = times
    assert now < after


def test_time_within_a_transaction_passes(connection: PostgresConnection) -> None:
    with connection.transaction():
        one = connection.now()
        time.sleep(0.01)
        assert connection.now() >= one + 0.01


# --- servers that come and go


def test_a_server_that_restarts_is_waited_for(database: Database, connection: PostgresConnection) -> None:
    database.cluster.stop()
    try:
        with pytest.raises(JournalUnavailable), connection.transaction():
            pytest.fail("There is no server")
        with pytest.raises(JournalUnavailable, match="cannot be reached"):
            PostgresEngine(database.url).connect(create=False)
    finally:
        database.cluster.start()

    with opened(database.url, create=False) as again, again.transaction():
        put(again, "kept")
    assert keys(database) == {"kept"}


def test_a_commit_survives_the_death_of_the_server(database: Database, connection: PostgresConnection) -> None:
    with connection.transaction():
        put(connection, "kept")
    with pytest.raises(JournalUnavailable), connection.transaction():
        put(connection, "undone")
        database.cluster.kill()
        put(connection, "undone too")
    database.cluster.start()

    assert keys(database) == {"kept"}


@pytest.mark.parametrize("within", [False, True])
def test_a_backend_that_is_ended_is_unavailable(database: Database, within: bool) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'springest'"
    with opened(database.url) as connection:
        if not within:
            database.execute(end)
        with pytest.raises(JournalUnavailable), connection.transaction():
            put(connection, "undone")
            database.execute(end)
            put(connection, "undone too")
        with pytest.raises(JournalUnavailable), connection.snapshot():
            pytest.fail("There is no connection")

    assert keys(database) == set()


def test_a_standby_is_no_place_for_a_journal(database: Database, connection: PostgresConnection) -> None:
    with database.cluster.standby() as standby, pytest.raises(JournalUnavailable, match="is a standby"):
        PostgresEngine(url_on(standby, database)).connect(create=True)


def url_on(cluster: Cluster, database: Database) -> str:
    return database.url.replace(f":{database.cluster.port}/", f":{cluster.port}/")


def test_a_promoted_standby_is_another_server(database: Database, connection: PostgresConnection) -> None:
    with connection.transaction():
        put(connection, "kept")
    with database.cluster.standby(synchronous=True) as standby:
        with connection.transaction():
            put(connection, "followed")
        standby.promote()
        engine = PostgresEngine(url_on(standby, database))
        for create in (False, True):
            with pytest.raises(AnotherServer, match="springest journal trust"):
                engine.connect(create=create)

        with engine.trust() as trusted:
            put(trusted, "trusted")

        with closing(engine.connect(create=False)) as again, again.transaction():
            assert again.execute("SELECT count(*) FROM meta WHERE key IN ('kept', 'followed', 'trusted')") == [(3,)]


def test_trust_that_fails_is_none(database: Database, connection: PostgresConnection) -> None:
    database.execute("UPDATE meta SET value = '7' WHERE key = 'system'")
    engine = PostgresEngine(database.url)
    with pytest.raises(ZeroDivisionError), engine.trust():
        _ = 1 / 0

    with pytest.raises(AnotherServer):
        engine.connect(create=False)


def test_each_transaction_looks_which_server_it_is_on(connection: PostgresConnection) -> None:
    """Behind pgbouncer a connection stays while the server behind it changes."""
    assert connection._identity is not None
    connection._identity = type(connection._identity)(connection._identity.system, "00000009")

    with pytest.raises(AnotherServer), connection.transaction():
        pytest.fail("It began")


def test_a_commit_that_no_standby_confirmed_does_not_count() -> None:
    with postgresql_cluster() as cluster, cluster.database() as database, opened(database.url) as connection:
        cluster.configure(synchronous_standby_names="nobody")
        wait_for_setting(database, "synchronous_standby_names", "nobody")
        try:
            cancelling = threading.Thread(target=cancel_what_waits, args=(database,))
            cancelling.start()
            with pytest.raises(JournalUnavailable, match="not confirmed a commit"), connection.transaction():
                put(connection, "here only")
            cancelling.join()
        finally:
            cluster.configure(synchronous_standby_names="")
        with connection.transaction():
            put(connection, "kept")


def cancel_what_waits(database: Database) -> None:
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    while not database.execute(cancel):
        time.sleep(0.01)


# --- words


@pytest.mark.parametrize(
    ("old", "new", "kind", "words"),
    [
        ("springest:", "springest:wrong", JournalError, "the user or the password is wrong"),
        ("springest:", "nobody:", JournalError, "the user or the password is wrong"),
        ("/test_", "/nowhere_", JournalError, "no such database: make it with createdb"),
        ("127.0.0.1", "no-such-host.invalid", JournalUnavailable, "cannot be reached"),
        ("127.0.0.1:", "127.0.0.1:1,127.0.0.1:", None, ""),
    ],
)
def test_a_connection_that_fails_says_why(
    database: Database, old: str, new: str, kind: type[JournalError] | None, words: str
) -> None:
    url = database.url.replace(old, new, 1)
    if kind is None:
        with opened(url):
            return
    with pytest.raises(JournalError, match=re.escape(words)) as caught:
        PostgresEngine(url).connect(create=True)

    assert type(caught.value) is kind
    assert database.cluster.password not in everything_shown(caught.value)


def test_a_right_that_is_missing_is_named(database: Database) -> None:
    database.execute("ALTER DATABASE " + database.name + " OWNER TO postgres")

    with pytest.raises(JournalError, match=r"lacks a right \(permission denied for schema public\)") as caught:
        PostgresEngine(database.url).connect(create=True)

    assert database.cluster.password not in everything_shown(caught.value)


def test_errors_of_statements_lead_to_no_password(database: Database, connection: PostgresConnection) -> None:
    with pytest.raises(JournalError) as wrong, connection.transaction():
        connection.execute("SELECT nothing")
    with pytest.raises(JournalError) as quoted, connection.transaction():
        connection.execute("SELECT ?::bigint", (database.cluster.password,))
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'springest'")
    with pytest.raises(JournalUnavailable) as gone, connection.transaction():
        pytest.fail("There is no connection")

    for caught in (wrong, quoted, gone):
        assert database.cluster.password not in everything_shown(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert database.cluster.password not in f"{connection!r} {PostgresEngine(database.url)!r}"


def test_who_has_no_psycopg_is_told_how_to_get_it() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from springest_async.journal.postgres import PostgresEngine\n"
        "PostgresEngine('postgresql://jan:secret@db/journal')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert "pip install 'springest-async[postgres]'" in done.stderr


# --- connections that are kept ---


async def test_a_lost_connection_spoils_no_look_at_the_status(database: Database) -> None:
    """A server, a pooler or a firewall ends what nobody uses for a while."""
    async with Journal(database.url) as journal, StatusReader(journal) as reader:
        assert await reader.all() == []
        database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        assert await reader.all() == []
