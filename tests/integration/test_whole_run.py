"""One migration, as its owner lives through it: watched, cut off, killed, paused, answered, reported and proved.

Two machines share a journal in PostgreSQL, in a minute of some seconds: the same arithmetic. Whenever nothing moves,
each view of it shows the same numbers.
"""

import asyncio
import csv
import json
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
import pytest
from playwright.async_api import Browser, Page, expect

from tests.conftest import pdf_of
from tests.pdfs import hashes
from tests.waiting import A_WHILE, until

from .browser import axe_violations
from .command import CERTIFICATIONS_KEY, KEY, Ran, assert_no_key_in, end, environment, kill_at_end, rows_of
from .sandbox_process import SandboxProcess, sandbox_process
from .scaled import MACHINE
from .servers.postgresql import Database
from .terminals import Terminal, opened_terminal
from .views import (
    Numbers,
    agreed,
    numbers_in_json,
    numbers_in_log,
    numbers_in_metrics,
    numbers_in_page,
    numbers_in_report,
    numbers_in_terminal,
    status_of,
    status_until,
)

pytestmark = [pytest.mark.postgresql, pytest.mark.axe]

PERIOD = 2.0
"""The minute, in seconds."""

SHOWN, NOT_SHOWN = "1", "3"

_WIDTH = 100
"""Of the terminals, in cells."""

_TO_SETTLE = f"SELECT email, reason FROM certificates WHERE state = 'in doubt' AND certification_id = {SHOWN}"  # noqa: S608
"""Those in doubt that a run settles by itself, also while it is paused."""

# With that key, a check says beforehand which certifications are not shown.
_WITHOUT_LIST = {"SPRINGEST_CERTIFICATIONS_API_KEY": None}


@attrs.frozen(kw_only=True)
class Archive:
    """An archive of which some rows are rejected, and some stay in doubt.

    Attributes:
        rows: how many.
        rejected: the distance from one of them to the next.
        in_doubt: the distance from one of them to the next.
    """

    rows: int
    rejected: int
    in_doubt: int

    def is_rejected(self, number: int) -> bool:
        return number % self.rejected == 0

    def is_in_doubt(self, number: int) -> bool:
        return number % self.in_doubt == 1 and not self.is_rejected(number)

    def count(self, kind: Callable[[int], bool]) -> int:
        return sum(map(kind, range(1, self.rows + 1)))

    @property
    def strangers(self) -> list[str]:
        return [person(number) for number in range(1, self.rows + 1) if self.is_rejected(number)]

    def make(self, folder: Path) -> Path:
        folder.mkdir()
        manifest = folder / "certificates.csv"
        with manifest.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("file", "certification_id", "email", "valid_from"))
            for number in range(1, self.rows + 1):
                (folder / f"{number}.pdf").write_bytes(pdf_of(f"No. {number}"))
                certification = NOT_SHOWN if self.is_in_doubt(number) else SHOWN
                writer.writerow((f"{number}.pdf", certification, person(number), "2026-01-31"))
        return manifest


def person(number: int) -> str:
    return f"employee{number}@example.org"


@attrs.define
class Running:
    """A command that runs in a terminal."""

    process: asyncio.subprocess.Process
    terminal: Terminal

    @property
    def said(self) -> str:
        """What stands on its terminal, and what has left it at the top."""
        return "\n".join(self.terminal.screen.shown)

    async def saying(self, words: str) -> None:
        """Wait until it has said something."""
        await until(lambda: words in self.said or self.process.returncode is not None)
        assert words in self.said, self.said

    async def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        code = await self.terminal.end(self.process)
        assert_no_key_in(self.said)
        return code

    async def numbers(self) -> Numbers:
        """Return the numbers of the migration that stand on the terminal."""
        return numbers_in_terminal(self.terminal.screen.shown)


@attrs.frozen
class Machine:
    """A machine with a name, a state folder and a copy of the archive of its own."""

    name: str
    manifest: Path
    origin: str
    journal: str

    @asynccontextmanager
    async def running(self, *arguments: str | Path) -> AsyncIterator[Running]:
        """Run a command in a terminal, and kill it at the end, if it runs then."""
        async with opened_terminal(_WIDTH) as terminal:
            process = await self._start(arguments, **_WITHOUT_LIST, **terminal.variables, options=terminal.streams)
            os.close(terminal.inside)
            kill_at_end(process)
            try:
                yield Running(process, terminal)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def run(self, *arguments: str | Path) -> Ran:
        """Run a command to its end, without a terminal."""
        process = await self._start(arguments, options={"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE})
        kill_at_end(process)
        return await end(process)

    async def _start(
        self, arguments: Iterable[str | Path], *, options: dict[str, Any], **variables: str | None
    ) -> asyncio.subprocess.Process:
        own = {"XDG_STATE_HOME": str(self.manifest.parent.with_name(f"{self.name}-state")), MACHINE: self.name}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.scaled", str(PERIOD), *arguments),
            env=environment(self.origin, SPRINGEST_JOURNAL=self.journal, **own, **variables),
            **options,
        )


async def opened(serving: Running, browser: Browser) -> Page:
    """Open the status page at the address that the command prints."""
    await serving.saying("Stop it with Ctrl-C")
    found = re.search(r"http://127\.0\.0\.1:\S+", serving.said)
    assert found is not None
    page = await browser.new_page()
    await page.goto(found[0])
    return page


@attrs.define
class Life:
    """A migration that runs on two machines, and what its owner sees of it."""

    archive: Archive
    anna: Machine
    bert: Machine
    sandbox: SandboxProcess
    database: Database
    stack: AsyncExitStack
    browser: Browser
    page: Page = attrs.field(init=False)
    first: Running = attrs.field(init=False)
    second: Running = attrs.field(init=False)
    watching: Running = attrs.field(init=False)
    total: Numbers = attrs.field(init=False)
    answered: int = 0

    @property
    def metrics(self) -> Path:
        return self.anna.manifest.with_name("run.prom")

    @property
    def summary(self) -> Path:
        return self.anna.manifest.with_name("ended.json")

    async def begins(self) -> None:
        machine_options = ("--metrics", self.metrics, "--on-finish", f"cat >'{self.summary}'")
        self.first = await self._running(self.anna, "upload", self.anna.manifest, *machine_options)
        self.second = await self._running(self.bert, "upload", self.bert.manifest)
        await self.first.saying("to send to")
        self.page = await opened(await self._running(self.anna, "status", "--serve"), self.browser)
        self.watching = await self._running(self.bert, "status", self.bert.manifest, "--watch")
        await until(lambda: self._workers() == 2)  # one that never reached the server would give up

    async def goes_through_an_outage(self) -> None:
        await self.sandbox.go_away()
        await self.seen(lambda status: status["activity"] == "outage")
        await expect(self.page.get_by_text("Cannot send", exact=True)).to_be_visible(timeout=A_WHILE * 1000)
        await self.sandbox.come_back()
        await self.seen(lambda status: status["activity"] == "running")

    async def loses_a_machine(self) -> None:
        """Kill the one, pause what the other does on the page, and start the one again, which waits too."""
        os.kill(self.second.process.pid, signal.SIGKILL)
        await self.page.get_by_role("button", name="Pause").click()
        await self.second.process.wait()
        await self.first.saying("nothing more is sent until")
        await self.seen(lambda status: [worker["machine"] for worker in status["workers"]] == ["anna"])
        self.second = await self._running(self.bert, "upload", self.bert.manifest, "--log-format", "json")
        await self.second.saying('"event": "paused"')

    async def is_answered(self) -> None:
        """Answer for the rows in doubt on the page while nothing moves, and let it go on."""
        await self.seen(lambda status: status["activity"] == "paused" and not status["counts"]["sending"])
        try:
            await until(lambda: not self.database.execute(_TO_SETTLE))
        except TimeoutError:
            raise AssertionError(f"nobody settles {self.database.execute(_TO_SETTLE)}") from None
        paused = await self.numbers(upload=self.first.numbers)
        assert paused["waiting"] > 0

        known = await self._stored_people()
        buttons = await self.page.get_by_role("button", name=re.compile("^Springest has it: row")).all()
        rows = [(await button.get_attribute("aria-label") or "").partition(": ")[2] for button in buttons]
        has = [row for row in rows if person(int(re.sub(r"\D", "", row.partition(" of ")[0])) - 1) in known]
        for row in rows:
            await self._answer(f"{'Springest has it' if row in has else 'Send again'}: {row}")
        changed = {"stored": len(has), "waiting": len(rows) - len(has), "in_doubt": -len(rows)}
        expected = {state: number + changed.get(state, 0) for state, number in paused.items()}
        await self.seen(lambda status: numbers_in_json(status) == expected)
        assert await self.numbers(upload=self.first.numbers) == expected
        self.answered = len(has)
        await self.page.get_by_role("button", name="Resume").click()

    async def _answer(self, name: str) -> None:
        """Press a button as a person does, who has looked at Springest, and confirm it."""
        button = self.page.get_by_role("button", name=name, exact=True)
        await button.click()
        await self.page.get_by_role("button", name=re.compile("^Yes, ")).click()
        await expect(button).to_have_count(0, timeout=A_WHILE * 1000)

    async def _stored_people(self) -> set[str]:
        """Return whose certificates the server has stored."""
        answer = await self.page.request.get(f"{self.sandbox.origin}/__audit")
        return {post["fields"]["email"] for post in (await answer.json())["posts"] if post["verdict"] == "stored"}

    async def ends(self) -> None:
        """Let it come to its end, where the other rows in doubt are answered for on the page."""
        await self.seen(lambda status: status["activity"] == "in_doubt", within=10 * A_WHILE)
        for each in (self.first, self.second):
            assert await each.ended() == 3, each.said
        ended = await self.numbers(upload=self.first.numbers)
        assert ended["in_doubt"] == self.archive.count(self.archive.is_in_doubt) - self.answered
        assert ended == numbers_in_log(self.second.said)
        assert ended == numbers_in_json(json.loads(self.summary.read_text())["status"])
        assert ended == numbers_in_metrics(self.metrics.read_text())
        assert await self.watching.ended() == 3  # only a person can go on

        await self.page.get_by_role("button", name="Springest has them").click()
        await self.page.get_by_role("button", name="Yes, Springest has them").click()
        await self.seen(lambda status: status["activity"] == "done")
        rejected = self.archive.count(self.archive.is_rejected)
        nothing = dict.fromkeys(("failed", "in_doubt", "waiting", "sending"), 0)
        self.total = {"stored": self.archive.rows - rejected, "rejected": rejected, **nothing}
        self.watching = await self._running(self.bert, "status", self.bert.manifest, "--watch")
        assert await self.watching.ended() == 1
        assert await self.numbers() == self.total
        assert await axe_violations(self.page) == []

    async def is_reported(self) -> None:
        """Write its report, and see that what has been seen of it is in there."""
        table, html = (self.anna.manifest.with_name(name) for name in ("result.csv", "report.html"))
        ran = await self.anna.run("report", self.anna.manifest, "--csv", table, "--html", html)
        assert ran.code == 1, ran.err
        outcomes = Counter(row["outcome"] for row in rows_of(table))
        assert outcomes == {state: rows for state, rows in self.total.items() if rows}
        page = await self.browser.new_page()
        await page.goto(html.as_uri())
        assert await numbers_in_report(page) == self.total
        assert await axe_violations(page) == []

    async def is_proved(self) -> None:
        """Compare it with what Springest lists, and audit it."""
        ran = await self.anna.run("reconcile", self.anna.manifest, "--format", "json")
        counts = json.loads(ran.out)["counts"]
        marked = self.archive.count(self.archive.is_in_doubt)
        expected = {"shown": self.total["stored"] - marked, "marked_not_shown": marked}
        assert {name: rows for name, rows in counts.items() if rows} == {
            **expected,
            "not_stored": self.total["rejected"],
        }, ran.err
        ran = await self.anna.run("audit", self.anna.manifest, "--format", "json")
        audit = json.loads(ran.out)
        assert (ran.code, audit["verdict"], audit["refused"], audit["doubles"]) == (0, "kept", 0, 0), ran.out
        assert audit["by_our_clock"]["posts"] <= audit["limit"] == 30

    async def is_done(self, share: float) -> None:
        """Wait until so much of it is done, of 1."""
        await self.seen(lambda status: status["done"] > share * self.archive.rows, within=5 * A_WHILE)

    async def seen(self, condition: Callable[[dict[str, Any]], bool], *, within: float = A_WHILE) -> None:
        """Wait until ``springest status`` says so (seconds)."""
        await status_until(condition, self.anna.manifest, self.anna.journal, within=within)

    async def numbers(self, **others: Callable[[], Awaitable[Numbers]]) -> Numbers:
        """Return the numbers that all views show, where nothing moves; and other views, by name."""
        views = {"page": lambda: numbers_in_page(self.page), "terminal": self.watching.numbers}
        return await agreed({"json": self._json, **views, **others})

    async def _json(self) -> Numbers:
        return numbers_in_json(await status_of(self.anna.manifest, self.anna.journal))

    async def _running(self, machine: Machine, *arguments: str | Path) -> Running:
        return await self.stack.enter_async_context(machine.running(*arguments))

    def _workers(self) -> int:
        """Return how many workers have had an answer."""
        sql = "SELECT count(DISTINCT worker) FROM attempts WHERE answered_at IS NOT NULL"
        ((workers,),) = self.database.execute(sql)
        return int(workers)


async def live_through(archive: Archive, folder: Path, database: Database, browser: Browser) -> None:
    here = archive.make(folder / "anna")
    there = Path(shutil.copytree(here.parent, folder / "bert")) / here.name
    async with (
        sandbox_process(
            api_key=KEY,
            certifications_api_key=CERTIFICATIONS_KEY,
            period=PERIOD,
            body_timeout=PERIOD,
            strangers=archive.strangers,
            silent=(int(NOT_SHOWN),),
        ) as sandbox,
        AsyncExitStack() as stack,
    ):
        anna = Machine("anna", here, sandbox.origin, database.url)
        bert = Machine("bert", there, sandbox.origin, database.url)
        # The status is read in this process, which may be the first to find that a machine is dead.
        stack.enter_context(patch("springest_async.journal.certificates.SERVER_IDLE_SECONDS", PERIOD))
        life = Life(archive, anna, bert, sandbox, database, stack, browser)
        await life.begins()
        await life.is_done(0.1)
        await life.goes_through_an_outage()
        await life.is_done(0.3)
        await life.loses_a_machine()
        await life.is_answered()
        await life.ends()
        await life.is_reported()
        await life.is_proved()

    posts = Counter(post.sha256 for post in sandbox.audit if post.verdict == "stored")
    assert set(posts.values()) == {1}  # none is stored twice
    rejected = {post.sha256 for post in sandbox.audit if post.verdict == "invalid"}
    assert sorted([*posts, *rejected], key=str) == hashes(here.parent)  # none is lost
    summary = sandbox.summary()
    assert summary.refused_for_speed == 0
    assert summary.most_in_any_period <= 30


async def test_a_small_migration_is_lived_through(tmp_path: Path, database: Database, browser: Browser) -> None:
    await live_through(Archive(rows=120, rejected=40, in_doubt=12), tmp_path, database, browser)


@pytest.mark.soak
async def test_a_migration_of_3000_rows_is_lived_through(tmp_path: Path, database: Database, browser: Browser) -> None:
    await live_through(Archive(rows=3000, rejected=97, in_doubt=100), tmp_path, database, browser)
