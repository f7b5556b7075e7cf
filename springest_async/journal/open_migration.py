"""`OpenMigration`: the rows of one manifest, as one worker of a journal claims, identifies and counts them."""

import asyncio
import hashlib
import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, Self

from springest_async.errors import ManifestError
from springest_async.journal import certificates, changed_files, erasure, loading, manifest_rows, migrations
from springest_async.journal.certificates import ClaimLost
from springest_async.journal.engine import Connection
from springest_async.journal.erasure import Forgotten
from springest_async.journal.journal import Claim, Journal
from springest_async.journal.loading import ManifestRow
from springest_async.journal.migrations import Source
from springest_async.journal.records import (
    ColumnTitles,
    Entry,
    FileHash,
    KnownCertificate,
    Loaded,
    Reason,
    State,
    Worker,
)
from springest_async.random_names import random_name
from springest_async.source_file import open_regular, why_unreadable

Identified = tuple[KnownCertificate, Claim | None]
"""A certificate, and the claim on it, if this worker is to send it."""


class OpenMigration:
    """A migration, as one worker sees it.

    Attributes:
        journal: the journal.
        id: its key.
        source: the manifest on this machine.
    """

    def __init__(self, journal: Journal, id: int, source: Source) -> None:  # noqa: A002 (it is one)
        self.journal = journal
        self.id = id
        self.source = source

    def __repr__(self) -> str:
        return f"<OpenMigration {self.id} in {self.journal.where}>"

    @classmethod
    async def find(cls, journal: Journal, source: Source) -> Self | None:
        """Return the migration that a manifest belongs to, if it was loaded before."""
        migration = await journal.run(partial(migrations.find, source=source))
        return None if migration is None else cls(journal, migration, source)

    @classmethod
    async def of(cls, journal: Journal, migration: int) -> Self:
        """Return a migration by its key, as it was loaded last; its files may not be on this machine.

        Raises:
            JournalError: the journal cannot be read, or the migration was erased from it.
        """
        source = await journal.run(lambda connection: migrations.source_of(connection, migration, journal.machine))
        return cls(journal, migration, source)

    @classmethod
    async def look_up(cls, journal: Journal, manifest: Path) -> list[Self]:
        """Return the migrations of a manifest, one for each host; see `migrations.look_up`.

        Raises:
            ManifestError: the file is there and cannot be read, or it is the journal.
        """
        if journal.is_in(manifest):
            raise ManifestError(manifest, "is the journal, not a manifest")
        path, sha256 = await asyncio.to_thread(_identify, manifest)
        found = await journal.run(partial(migrations.look_up, sha256=sha256, machine=journal.machine, path=path))
        folder = manifest.parent.absolute()
        return [
            cls(
                journal,
                migration,
                Source(origin=origin, sha256=sha256 or b"", path=path, folder=folder, machine=journal.machine),
            )
            for migration, origin in found
        ]

    @classmethod
    async def load(
        cls,
        journal: Journal,
        source: Source,
        lines: Iterable[ManifestRow],
        *,
        faulty: int,
        columns: ColumnTitles,
    ) -> tuple[Self, Loaded]:
        """Load a manifest that has passed the preflight; see `loading.load`.

        It has a connection of its own, so that uploads go on meanwhile.

        Raises:
            ManifestError: a row cannot be read; nothing of the manifest is loaded then.
            JournalError: the journal cannot be written.
        """

        def load() -> Loaded:
            connection = journal.connect()
            try:
                return loading.load(connection, source, lines, journal.worker, faulty=faulty, columns=columns)
            finally:
                connection.close()

        await journal.work()
        loaded = await asyncio.to_thread(load)
        await journal.work(loaded.migration)
        return cls(journal, loaded.migration, source), loaded

    async def claim(self, limit: int) -> list[Entry]:
        """Claim the first rows that wait for anybody, at most `limit`, and return them."""
        await self.journal.work()
        claim = random_name()

        def job(connection: Connection) -> list[Entry]:
            self.journal.prepare_to_claim(connection)
            return manifest_rows.claim_rows(
                connection, self.id, self.source, worker=self.journal.worker, claim=claim, limit=limit
            )

        return await self.journal.run(job, undo=self._drop(claim))

    def _drop(self, claim: str) -> Callable[[Connection], object]:
        return partial(certificates.drop, claim=claim, worker=self.journal.worker)

    async def identify(self, entry: Entry, size: int, modified_ns: int, sha256: bytes) -> Identified:
        """Record the certificate of a row, and return it with the claim on it, if it is to be sent.

        See `manifest_rows.identify`.

        Raises:
            ClaimLost: another worker has the row now.
        """
        (found,) = await self.identify_all([(entry, FileHash(size, modified_ns, sha256))])
        if found is None:
            raise ClaimLost
        return found

    async def identify_all(self, rows: Sequence[tuple[Entry, FileHash]]) -> list[Identified | None]:
        """Record the certificates of several rows in one job, as `identify`; None is a row that another worker has."""

        def job(connection: Connection) -> list[KnownCertificate | None]:
            return [self._identify(connection, entry, file) for entry, file in rows]

        found = await self.journal.run(job)
        return [
            None if known is None else (known, self._claim_on(known, entry))
            for known, (entry, _) in zip(found, rows, strict=True)
        ]

    def _identify(self, connection: Connection, entry: Entry, file: FileHash) -> KnownCertificate | None:
        try:
            return manifest_rows.identify(
                connection,
                entry,
                self.source,
                worker=self.journal.worker,
                size=file.size,
                modified_ns=file.modified_ns,
                sha256=file.sha256,
            )
        except ClaimLost:  # nothing was changed
            return None

    def _claim_on(self, known: KnownCertificate, entry: Entry) -> Claim | None:
        name = manifest_rows.claim_of(entry)
        is_ours = known.state is State.WAITING and known.claim == name
        return Claim(self.journal, known.id, name) if is_ours else None

    def release(self, entry: Entry) -> None:
        """Release the claim of a row, or the one that it has on its certificate."""
        self.journal.note(partial(manifest_rows.release, entry=entry, worker=self.journal.worker))

    async def unreadable(self, entry: Entry, reason: str) -> State:
        """Record that a row's file cannot be read here; return FAILED, or WAITING if another worker may read it.

        If it is cancelled, it is recorded all the same.
        """
        host = platform.node()

        def job(connection: Connection) -> State:
            return manifest_rows.unreadable(connection, entry, self.id, self.journal.machine, host, reason)

        return await self.journal.run(job, undo=job)

    async def has_unfinished(self, hopeless: Collection[int] = ()) -> bool:
        """Return whether there is anything to wait for; rows that no living worker can read fail.

        See `manifest_rows.has_unfinished`.
        """

        def job(connection: Connection) -> bool:
            certificates.take_over(connection)
            manifest_rows.fail_unreadable(connection, self.id)
            return manifest_rows.has_unfinished(connection, self.id, self.source, hopeless=hopeless)

        return await self.journal.run(job)

    async def has_other_workers(self) -> bool:
        """Return whether other workers work on the migration now."""
        return await self.journal.run(
            lambda connection: migrations.has_other_workers(connection, self.id, self.journal.worker)
        )

    async def recheck_files(self, limit: int, *, after: int) -> list[Entry]:
        """Claim at most `limit` rows that another worker has sent with a file that is not the one here.

        See `changed_files.claim_changed_files`.
        """
        await self.journal.work()
        claim = random_name()

        def check() -> list[Entry]:
            connection = self.journal.connect()
            try:
                with connection.transaction():
                    self.journal.prepare_to_claim(connection)
                return changed_files.claim_changed_files(
                    connection, self.id, self.source, worker=self.journal.worker, claim=claim, limit=limit, after=after
                )
            finally:
                connection.close()

        checking = asyncio.ensure_future(asyncio.to_thread(check))
        try:
            return await asyncio.shield(checking)
        except asyncio.CancelledError:
            # The thread goes on, and may claim rows until it ends.
            checking.add_done_callback(lambda _: self.journal.note(self._drop(claim)))
            raise

    async def claim_doubt(self, hopeless: Collection[int]) -> tuple[Entry, KnownCertificate] | None:
        """Return a certificate in doubt for this worker to settle, and its row; see `manifest_rows.claim_doubt`."""
        await self.journal.work()
        claim = random_name()

        def job(connection: Connection) -> tuple[Entry, KnownCertificate] | None:
            self.journal.prepare_to_claim(connection)
            return manifest_rows.claim_doubt(
                connection, self.id, self.source, claim=claim, worker=self.journal.worker, hopeless=hopeless
            )

        return await self.journal.run(job, undo=self._drop(claim))

    async def counts(self) -> Counter[State]:
        """Count the rows by state."""
        return await self.journal.run(partial(manifest_rows.counts, migration=self.id))

    async def reasons(self, limit: int) -> tuple[list[Reason], int]:
        """Return the most frequent reasons of rejected and failed rows, at most `limit`, and how many there are."""
        return await self.journal.run(partial(manifest_rows.reasons, migration=self.id, limit=limit))

    async def entries(self, *states: State, after: int = 0, limit: int = 500) -> list[Entry]:
        """Return the next rows in these states (default: all) after a row number, in the manifest's order."""
        return await self.journal.run(
            lambda connection: manifest_rows.entries(
                connection, self.id, self.source, states or tuple(State), after=after, limit=limit
            )
        )

    async def orphans(self) -> list[Entry]:
        """Return the certificates in doubt at this host that no manifest names."""
        return await self.journal.run(partial(manifest_rows.orphans, source=self.source))

    async def workers(self) -> tuple[Worker, ...]:
        """Return the other workers that work on the migration now."""
        return await self.journal.run(partial(migrations.workers, migration=self.id, without=self.journal.worker))

    async def hosts(self) -> tuple[str, ...]:
        """Return the machines on which other workers work on the migration now, each once for each of its workers."""
        return tuple(worker.host for worker in await self.workers())

    async def is_current(self) -> bool:
        """Return whether the rows of this manifest are still those that were loaded from it, as it was read."""
        return await self.journal.run(partial(migrations.is_current, migration=self.id, source=self.source))

    async def note_budget(self, budget: str) -> None:
        """Record the budget that this run uses, for those who watch it."""
        await self.journal.run(partial(migrations.set_budget, migration=self.id, budget=budget))

    async def was_answered(self) -> bool:
        """Return whether Springest has ever taken or rejected a POST with the key of the latest run."""
        return await self.journal.was_answered(await self.journal.run(partial(migrations.budget_of, migration=self.id)))

    async def pause(self) -> bool:
        """Pause it, so that no worker sends anything of it until `resume`; return False if it is paused already.

        Workers notice within seconds, finish what they are sending, and wait.
        """
        return await self.journal.run(partial(migrations.set_paused, migration=self.id, at=datetime.now(UTC)))

    async def resume(self) -> bool:
        """Resume it after `pause`; return False if it is not paused."""
        return await self.journal.run(partial(migrations.set_paused, migration=self.id, at=None))

    async def paused_at(self) -> datetime | None:
        """Return since when it is paused (UTC), or None."""
        return await self.journal.run(partial(migrations.paused_at, migration=self.id))

    async def resolve(
        self,
        numbers: Collection[int] | None,
        state: Literal[State.STORED, State.WAITING],
        *,
        requests: Mapping[int, str] | None = None,
    ) -> int:
        """Record a person's word on rows in doubt, and return how many rows were changed.

        Args:
            numbers: their rows in the manifest; None for all, and for the certificates at this host that no manifest
                names.
            state: STORED, or WAITING when it is not stored and is to be sent again. By its number, a rejected row can
                be sent again too: Springest may accept it now.
            requests: the request ids of the POSTs that the person has looked up, by row; None for the last ones.

        Raises:
            ConfigurationError: one of the rows is not in doubt, was sent again since the POST that was looked up, or
                Springest is being asked about it just now; nothing is changed then.
        """

        def job(connection: Connection) -> int:
            certificates.take_over(connection)
            return manifest_rows.resolve(connection, self.id, self.source, numbers, state, requests=requests or {})

        return await self.journal.run(job)

    async def send_missing_again(self, missing: Sequence[tuple[int, str]]) -> int:
        """Put stored certificates that Springest certainly does not have back to waiting, in one transaction.

        Return how many were changed; see `certificates.send_missing_again`.
        """
        return len(await self.journal.run(partial(certificates.send_missing_again, missing=missing)))

    async def forget(self) -> Forgotten:
        """Erase what identifies people in the migration and its certificates; see `erasure.forget_migration`."""
        return await self.journal.erase(partial(erasure.forget_migration, migration=self.id))


def _identify(manifest: Path) -> tuple[Path, bytes | None]:
    """Return the real path of a manifest and the SHA-256 of its bytes, which is None when there is no such file."""
    path = manifest.resolve()
    try:
        with open_regular(manifest) as stream:
            return path, hashlib.file_digest(stream, "sha256").digest()
    except FileNotFoundError:
        return path, None
    except OSError as error:
        raise ManifestError(manifest, why_unreadable(error)) from None
