"""The tables of a journal, once for both databases.

Times on the journal's clock are in seconds (`real`); times for people are microseconds since 1970 in UTC (`integer`).
Digests are of `springest_async.journal.identity`. A key is never here: a budget's name is a digest of host and key.
"""

import attrs

from springest_async.journal.engine import Dialect

VERSION = 7
"""The version of the statements below: increase it with each change of them."""

# One certificate is unique in a journal. `claim` is who may send it next, and `attempt` its last POST. What identifies
# a person is empty after `forget`; the identity stays, so that the certificate is never sent again.
#
# A worker's `trouble` is what keeps it from sending, and `again_at` when it tries again.
#
# A row is of one load of a manifest; a migration's `load` says which one counts. It has the state of its certificate,
# or waits or fails by itself before it has one. `copy` numbers rows with the same file and fields.
#
# A migration's `budget` is that of its last run. While `paused_at` is set, no worker sends anything of it. It was
# loaded for the first time at `begun_at`: its certificates may have been sent long before, for other manifests, if they
# were in the journal then. The last one of those was `last_before`, which tells more than any clock. `faulty` rows of
# its manifest were left out of its load because of their faults. `columns` are those of the manifest, as JSON: the name
# and the title of each.
#
# The key of a migration that was erased must not mean another one to a worker that was asleep, so it is a lasting one.
#
# An attempt is a POST, and the token that it took: under way while `counted_until` is known, then resting until
# `back_at`. A POST that never left has a `back_at` of 0. Its `id` begins with the time, and is the `X-Request-Id` that
# was sent; `server_request_id` is the one that came back. It left at `sent_at` by the clock of its machine, and at
# `sent` on the journal's clock. `allowed` is how many POSTs a period were agreed when it left
# (null: the usual number). Where `springest reconcile --repair` found that what it
# stored is not at Springest any more, `missing` is the id that it had there (0 if that is not known).
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL){by_key};

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    machine TEXT NOT NULL,
    host TEXT NOT NULL,
    migration {integer},
    trouble TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    trouble_since {real},
    again_at {real},
    heartbeat_at {integer} NOT NULL,
    lease_until {real} NOT NULL
);

CREATE TABLE budgets (
    name TEXT PRIMARY KEY,
    version {integer} NOT NULL,
    state TEXT NOT NULL
){by_key};

CREATE TABLE certificates (
    id {key},
    identity {blob} NOT NULL UNIQUE,
    lookalike {blob},
    origin TEXT NOT NULL,
    certification_id {integer},
    email TEXT,
    valid_from TEXT,
    valid_until TEXT,
    conversion_id {integer},
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    springest_id {integer},
    claim TEXT,
    worker TEXT,
    attempt TEXT,
    attempts {integer} NOT NULL DEFAULT 0,
    sent_at {integer},
    answered_at {integer},
    given_up_at {integer},
    given_up {real}
);
CREATE INDEX certificates_lookalike ON certificates (lookalike) WHERE lookalike IS NOT NULL;
CREATE INDEX certificates_doubt ON certificates (origin) WHERE state = 'in doubt';
CREATE INDEX certificates_worker ON certificates (worker) WHERE worker IS NOT NULL;

CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    certificate {integer} NOT NULL,
    budget TEXT NOT NULL,
    worker TEXT NOT NULL,
    counted_until {real},
    back_at {real} NOT NULL,
    sent_at {integer} NOT NULL,
    sent {real},
    written_at {integer},
    answered_at {integer},
    outcome TEXT,
    status {integer},
    server_date TEXT NOT NULL DEFAULT '',
    words TEXT NOT NULL DEFAULT '',
    server_request_id TEXT NOT NULL DEFAULT '',
    missing {integer},
    allowed {integer}
);
CREATE INDEX attempts_token ON attempts (budget, back_at);
CREATE INDEX attempts_certificate ON attempts (certificate);
CREATE INDEX attempts_running ON attempts (worker) WHERE outcome IS NULL;

CREATE TABLE settlers (lookalike {blob} PRIMARY KEY, worker TEXT NOT NULL, claim TEXT NOT NULL){by_key};

CREATE TABLE migrations (
    id {lasting_key},
    origin TEXT NOT NULL,
    manifest {blob} NOT NULL,
    reading {blob} NOT NULL,
    machine TEXT NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    load {integer} NOT NULL,
    faulty {integer} NOT NULL,
    columns TEXT NOT NULL,
    budget TEXT NOT NULL DEFAULT '',
    paused_at {integer},
    begun_at {integer} NOT NULL,
    last_before {integer} NOT NULL,
    loaded_at {integer} NOT NULL,
    moved_at {integer} NOT NULL
);
CREATE INDEX migrations_manifest ON migrations (manifest);

CREATE TABLE loads (id {lasting_key}, worker TEXT NOT NULL);

CREATE TABLE manifest_rows (
    id {key},
    load {integer} NOT NULL,
    number {integer} NOT NULL,
    file TEXT NOT NULL,
    copy {integer} NOT NULL,
    fields {blob} NOT NULL,
    lookalike {blob} NOT NULL,
    certification_id {integer} NOT NULL,
    email TEXT NOT NULL,
    valid_from TEXT NOT NULL,
    valid_until TEXT,
    conversion_id {integer},
    extra TEXT,
    state TEXT NOT NULL DEFAULT 'waiting',
    reason TEXT NOT NULL DEFAULT '',
    certificate {integer},
    size {integer},
    modified_ns {integer},
    claim TEXT,
    worker TEXT
);
CREATE INDEX rows_turn ON manifest_rows (load, state, number);
CREATE INDEX rows_fields ON manifest_rows (fields);
CREATE INDEX rows_certificate ON manifest_rows (certificate) WHERE certificate IS NOT NULL;
CREATE INDEX rows_worker ON manifest_rows (worker) WHERE worker IS NOT NULL;

CREATE TABLE unreadable_files (
    manifest_row {integer} NOT NULL,
    machine TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (manifest_row, machine)
){by_key};

CREATE TABLE file_hashes (
    place {blob} PRIMARY KEY,
    size {integer} NOT NULL,
    modified_ns {integer} NOT NULL,
    sha256 {blob} NOT NULL
){by_key};
"""


def statements(dialect: Dialect) -> list[str]:
    """Return the statements that make an empty journal of this version."""
    words = attrs.asdict(dialect)
    return [statement.strip() for statement in _TABLES.format(**words).split(";") if statement.strip()]
