"""A real PostgreSQL cluster of a test's own, in a temporary folder: stopped, killed, started again, followed, promoted.

It has one role that is no superuser, `ROLE`, as a journal has in production. Its fsync stays on, because the journal
refuses a server without it.
"""

import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import attrs
import psycopg

from tests.waiting import A_WHILE

from . import find
from .process import ServerStartError

ROLE = "springest"
"""The role that owns the databases of tests."""

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SECONDS_BETWEEN_LOOKS = 0.02

# A long path of a socket is refused by the kernel, so the folder is not where TMPDIR may point.
_SHORT_FOLDER = "/tmp"  # noqa: S108 # the folder in it has a random name and is its owner's alone

_SETTINGS = {
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "max_wal_size": "128MB",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "16MB",
    "wal_keep_size": "64MB",
    "wal_retrieve_retry_interval": "50ms",
}

_ACCESS = """\
local all         all              trust
local replication all              trust
host  all         all 127.0.0.1/32 scram-sha-256
"""


@attrs.frozen
class Database:
    """An empty database of `ROLE`."""

    cluster: "Cluster"
    name: str

    @property
    def url(self) -> str:
        """The address over TCP, with the password."""
        return f"postgresql://{ROLE}:{self.cluster.password}@127.0.0.1:{self.cluster.port}/{self.name}"

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser; return its rows."""
        return self.cluster.execute(sql, database=self.name)


@attrs.define(eq=False)
class Cluster:
    """A server that runs, or has been stopped or killed and can be started again.

    Attributes:
        folder: holds the data, the log and the Unix socket.
        port: where it listens on 127.0.0.1; also part of the name of the Unix socket.
        password: that of `ROLE`; over the Unix socket nobody needs one.
    """

    folder: Path
    port: int
    password: str = attrs.field(factory=lambda: secrets.token_urlsafe(12), repr=False)
    _process: subprocess.Popen[bytes] | None = attrs.field(default=None, repr=False)

    @property
    def data(self) -> Path:
        """The folder of the data."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """All that the server and its tools have said."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start it and wait until it answers, also when it must first recover from a crash.

        Raises:
            ServerStartError: it ended, or did not answer in time; the message ends with its log.
        """
        command = (find("postgres") or "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder)
        with _options_of_a_child(self) as options:
            self._process = subprocess.Popen(command, **options)
        until = time.monotonic() + A_WHILE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise ServerStartError(f"PostgreSQL does not start; its log:\n{self.log.read_text()}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop it as `pg_ctl stop` does, and wait until it has ended; do nothing when it does not run."""
        if self._process is not None:
            self._process.send_signal(_SIGNALS[mode])
            self._process.wait(A_WHILE)
            self._process = None

    def kill(self) -> None:
        """Kill all its processes at once, as a machine does that crashes; do nothing when it does not run."""
        if self._process is None or self._process.poll() is not None:
            self._process = None
            return
        with ExitStack() as stack:
            self._process.send_signal(signal.SIGSTOP)  # one that stands still starts no more children
            handles = []
            for pid in (self._process.pid, *_children(self._process.pid)):
                with suppress(ProcessLookupError):
                    handles.append(os.pidfd_open(pid))
                    stack.callback(os.close, handles[-1])
            for handle in handles:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            for handle in handles:
                select.select([handle], [], [], A_WHILE)
            self._process.wait(A_WHILE)
        self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let none of its processes run for as long as the block lasts: the kernel answers for it, and it does not."""
        assert self._process is not None
        pids = [self._process.pid]
        self._process.send_signal(signal.SIGSTOP)  # one that stands still starts no more children
        pids += _children(self._process.pid)
        for pid in pids[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the superuser over the Unix socket, which commits each statement."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True, connect_timeout=10
        )

    def execute(self, sql: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser; return its rows."""
        with closing(self.connect(database)) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def configure(self, **settings: str) -> None:
        """Change settings for as long as the data exists; some hold only after the next start."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Make an empty database of `ROLE`, and drop it at the end."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} OWNER {ROLE}")
        try:
            yield Database(self, name)
        finally:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def standby(self, *, synchronous: bool = False) -> Iterator["Cluster"]:
        """Make and start a second server that follows this one; with `synchronous`, a commit waits for it.

        It has the databases, roles and passwords of this one, in a folder and on a port of its own.
        """
        with _new_cluster() as standby:
            standby.password = self.password
            source = f"host={self.folder} port={self.port} user=postgres application_name=standby"
            _run(standby, "pg_basebackup", "-D", str(standby.data), "-d", source, "-R", "-X", "stream", "-c", "fast")
            standby.start()
            self._wait_for("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
            if synchronous:
                self.configure(synchronous_standby_names="standby")
                self._wait_for("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
            try:
                yield standby
            finally:
                if synchronous and self._process is not None:
                    self.configure(synchronous_standby_names="")

    def promote(self) -> None:
        """Let a standby become a server of its own, and wait until it takes writes."""
        self.execute("SELECT pg_promote()")
        self._wait_for("SELECT 1 WHERE NOT pg_is_in_recovery()")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _wait_for(self, sql: str) -> None:
        until = time.monotonic() + A_WHILE
        while not any(value for row in self.execute(sql) for value in row):
            if time.monotonic() > until:
                raise TimeoutError(f"{sql}; the log:\n{self.log.read_text()}")
            time.sleep(_SECONDS_BETWEEN_LOOKS)


@contextmanager
def postgresql_cluster(**settings: str) -> Iterator[Cluster]:
    """Make a cluster and start it; `settings` are lines of its configuration, such as ``fsync="off"``.

    Raises:
        ServerStartError: it does not start; the message ends with its log.
    """
    with _new_cluster() as cluster:
        _run(
            cluster, "initdb", "-D", str(cluster.data), "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
            "--auth=trust",
        )  # fmt: skip
        lines = [f"{name} = '{value}'\n" for name, value in (_SETTINGS | settings).items()]
        with (cluster.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.writelines(lines)
        (cluster.data / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
        cluster.start()
        cluster.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{cluster.password}'")
        yield cluster


@contextmanager
def _new_cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="springest-pg-", dir=_SHORT_FOLDER))
    with socket.socket() as place:
        # A socket that is bound and does not listen keeps the port free for this cluster, also while it is stopped.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        cluster = Cluster(folder, place.getsockname()[1])
        try:
            if os.geteuid() == 0:
                os.chown(folder, *_unprivileged_user())
            yield cluster
        finally:
            cluster.stop("immediate")  # which leaves no shared memory behind
            shutil.rmtree(folder)


def _run(cluster: Cluster, program: str, *arguments: str) -> None:
    with _options_of_a_child(cluster) as options:
        done = subprocess.run((find(program) or program, *arguments), **options, check=False, timeout=A_WHILE)
    if done.returncode:
        raise ServerStartError(f"{program} ended with status {done.returncode}; its log:\n{cluster.log.read_text()}")


@contextmanager
def _options_of_a_child(cluster: Cluster) -> Iterator[dict[str, Any]]:
    with cluster.log.open("ab") as sink:
        options: dict[str, Any] = {
            "cwd": cluster.folder,
            "env": {**os.environ, "LC_ALL": "C", "TZ": "UTC"},
            "stdin": subprocess.DEVNULL,
            "stdout": sink,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,  # Ctrl-C is for the tests
        }
        if os.geteuid() == 0:  # as which PostgreSQL refuses to run
            user, group = _unprivileged_user()
            options |= {"user": user, "group": group, "extra_groups": []}
        yield options


def _unprivileged_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise ServerStartError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
