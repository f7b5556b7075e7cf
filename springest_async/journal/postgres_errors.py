"""What errors of PostgreSQL mean to a journal, in words for people.

An error of psycopg holds its connection, and that the password: none is ever the cause or context of another.
"""

import psycopg

from springest_async.errors import JournalError, JournalUnavailable
from springest_async.journal.postgres_address import Address

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING = {
    "25006": "the database cannot be written now: it is a standby, or closed for writing",
    "25P03": "the server closed the connection, because nothing was done in a transaction",
    "25P04": "the server closed the connection, because a transaction took too long",
    "40001": "the transaction was undone, because of another one",
    "40P01": "the transaction was undone, because it and another one waited for each other",
    "53200": "the server has no memory left",
    "53300": "the server has no connection left: raise max_connections, or let fewer processes connect",
    "55P03": "another program has had the journal locked for 30 s",
    "57014": "the server cancelled a statement, because it took too long or somebody asked for it",
    "57P01": "the server is stopping",
    "57P02": "the server has crashed, and starts again",
    "57P03": "the server is starting or stopping",
    "57P05": "the server closed the connection, because nothing was done",
}
_LASTING = {
    "25P02": "a transaction was undone because of an earlier error in it",
    "42501": "the user of the database lacks a right",
    "42P01": "a table of the journal is missing",
    "42P07": "the schema has tables of another program: make a database, or a schema, for the journal alone",
    "53100": "the disk of the server is full",
    "58030": "the server cannot read or write its disk",
    "XX001": "the database is damaged",
    "XX002": "the database is damaged",
}

# Before a connection is made, there is only the server's text. One that is not English counts as a passing error.
_AT_CONNECTING = {
    "password authentication failed": "the user or the password is wrong",
    "no password supplied": "a password is needed: put it into a file that PGPASSFILE names, or into SPRINGEST_JOURNAL",
    "authentication failed": "the server does not accept this user",
    "no pg_hba.conf entry": "the server does not accept this user from this machine (its pg_hba.conf)",
    'role "': "the server does not accept this user",
    'database "': "there is no such database: make it with createdb",
    "permission denied": "the user may not use this database",
    "certificate": "the server's certificate is not trusted",
    "definition of service": "there is no such service in the service file",
}


def connect_error(error: psycopg.Error, address: Address) -> JournalError:
    """Return what to raise instead of an error of `psycopg.connect`."""
    words = address.scrubbed(str(error))
    for text, reason in _AT_CONNECTING.items():
        if text in words:
            return JournalError(address.where, f"{reason} ({words})")
    return JournalUnavailable(address.where, f"the server cannot be reached ({words})")


def statement_error(error: psycopg.Error, address: Address, *, closed: bool) -> JournalError:
    """Return what to raise instead of an error of a statement; `closed`: the connection is gone."""
    code = error.sqlstate or ""
    words = address.scrubbed(error.diag.message_primary or str(error))
    if code in _PASSING:
        return JournalUnavailable(address.where, f"{_PASSING[code]} ({words})")
    if closed or code.startswith("08"):
        return JournalUnavailable(address.where, f"the connection to the server is lost ({words})")
    return JournalError(address.where, f"{_LASTING.get(code, 'cannot be used as a journal')} ({words})")
