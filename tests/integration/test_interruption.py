"""Uploads that are interrupted, killed and started again, as a user does it: real processes, a real sandbox.

What is marked soak takes real minutes, because the command has no shorter ones: the limit's, and the two that Springest
gets before what was killed while it was sent, and is not listed, counts as not stored.
"""

import asyncio
import json
import os
import platform
import re
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from springest_async.sandbox import Mishap, Post, Sandbox
from tests.pdfs import archive, certificate, hashes
from tests.waiting import until

from .command import (
    HeldSandbox,
    Ran,
    answer_and_interrupt_twice,
    assert_no_key_in,
    certificate_of,
    connected,
    end,
    environment,
    journal_path,
    let_leases_end,
    names,
    noted,
    outcomes,
    posts,
    row_of,
    rows_of,
    springest,
    springest_sandbox,
    start,
    start_attentive,
    stored,
    table_of,
    until_said,
    verdicts,
    write_rows,
)

IN_FLIGHT = 8  # how many the command sends at once
AT_ONCE = 20.0
"""Seconds, of which most are the machine's, not ours: far less than a minute of the limit or the time for an answer."""
NOT_VERIFIED = "3"  # a certification of the sandbox, of which it lists nothing


def status_of(ran: Ran) -> tuple[int, dict[str, int]]:
    return ran.code, table_of(ran.out)


async def upload_and_hold(
    manifest: Path, sandbox: HeldSandbox, *options: str | Path, start: Callable[..., Awaitable[Process]] = start
) -> Process:
    """Upload until as many certificates are stored and unanswered as the command sends at once."""
    process = await start("upload", manifest, *options, env=environment(sandbox.origin))
    await until(lambda: sandbox.held == IN_FLIGHT)
    return process


async def upload(manifest: Path, sandbox: Sandbox, *, within: float) -> Ran:
    return await end(await start("upload", manifest, env=environment(sandbox.origin)), within=within)


async def kill(process: Process) -> None:
    process.kill()
    await process.communicate()


async def interrupt_twice(process: Process) -> Ran:
    process.send_signal(signal.SIGINT)
    await until_said(process, "Stopping")
    process.send_signal(signal.SIGINT)
    return await end(process, within=AT_ONCE)


# --- interrupted, and started again ---


async def test_ctrl_c_in_a_wait_for_the_limit_ends_the_run(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 33)
    async with springest_sandbox() as sandbox:
        process = await start("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.summary().stored == 30)
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGINT)
        first = await end(process, within=AT_ONCE)

        assert (first.code, table_of(first.out)) == (130, outcomes(stored=30, waiting=3))
        assert "Waiting: 3 rows. Run the same command again to continue.\n" in first.err
        assert names(tmp_path) == ["certificates.csv"]

        process = await start("upload", manifest, env=environment(sandbox.origin))
        line = await until_said(process, "At 30")
        assert re.match(r"At 30 certificates a minute this takes about [3-6]\d s: done ", line)
        line = await until_said(process, "30 stored before")
        assert re.fullmatch(r"30 stored before, 3 to send to http://127\.0\.0\.1:\d+\.\n", line)
        await asyncio.sleep(0.5)  # long enough for what would not wait
        await kill(process)

    assert verdicts(sandbox) == {"stored": 30}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_uploads_in_progress_at_an_interruption_finish(tmp_path: Path, number: signal.Signals) -> None:
    manifest = archive(tmp_path, 13)
    async with HeldSandbox() as sandbox:
        process = await upload_and_hold(manifest, sandbox)
        process.send_signal(number)
        await until_said(process, "Stopping")
        sandbox.go_on.set()
        first = await end(process)
        second = await springest("upload", manifest, origin=sandbox.origin)
        third = await springest("upload", manifest, origin=sandbox.origin)

    assert (first.code, table_of(first.out)) == (130, outcomes(stored=9, waiting=4))
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=13))
    assert "\n9 stored before, 4 to send to http://" in second.err
    assert "9 stored before\n" in second.out
    assert re.search(r"^4 certificates stored in \d s: 4 POSTs tried, 0 of them refused", second.out, re.MULTILINE)
    assert (third.code, table_of(third.out)) == (0, outcomes(stored=13))
    assert "\n13 stored before, nothing to send to http://" in third.err
    assert "Nothing was sent: 13 stored before\n" in third.out
    assert "stored in" not in third.out
    assert stored(sandbox) == hashes(tmp_path)
    assert names(tmp_path, "*.csv") == ["certificates.csv"]


@pytest.mark.parametrize("give_up", [interrupt_twice, kill], ids=["Ctrl-C twice", "kill -9"])
async def test_what_was_given_up_is_found_at_springest_by_the_next_run(
    tmp_path: Path, give_up: Callable[[Process], Awaitable[Ran | None]]
) -> None:
    manifest = archive(tmp_path, 13)
    async with HeldSandbox() as sandbox:
        process = await upload_and_hold(manifest, sandbox)
        ran = await give_up(process)
        if ran is None:
            sending = await springest("status", manifest)
            assert status_of(sending) == (0, outcomes(stored=1, waiting=4) | {"being sent": 8})
            let_leases_end()
        told = await springest("status", manifest)
        sandbox.go_on.set()
        second = await springest("upload", manifest, origin=sandbox.origin)

    if ran is None:
        assert process.returncode == -signal.SIGKILL
        assert told.out.count("interrupted while it was being sent") == IN_FLIGHT
    else:
        assert (ran.code, table_of(ran.out)) == (130, outcomes(stored=1, in_doubt=8, waiting=4))
        assert "In doubt: 8 rows that Springest may have stored. Run the same command again to ask it;" in ran.err
        assert "Waiting: 4 rows." in ran.err
        assert told.out.count("cancelled before the answer came") == IN_FLIGHT
    assert (told.code, table_of(told.out), told.err) == (3, outcomes(stored=1, in_doubt=8, waiting=4), "")
    assert "is uploading" not in told.out
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=13))
    assert "\n1 stored before, 8 in doubt, 4 to send to http://" in second.err
    assert "12 certificates stored in" in second.out
    assert ": 4 POSTs tried," in second.out
    assert stored(sandbox) == hashes(tmp_path)


@pytest.mark.parametrize("more", [0, 1], ids=["Ctrl-C twice", "Ctrl-C three times"])
async def test_answers_wait_for_a_journal_that_is_locked(tmp_path: Path, more: int) -> None:
    manifest = archive(tmp_path, 1 + IN_FLIGHT)
    async with HeldSandbox() as sandbox:
        process = await upload_and_hold(manifest, sandbox, "--log-format", "json")
        with connected() as journal, journal.transaction():  # of another process
            await answer_and_interrupt_twice(sandbox, process, known=1 + IN_FLIGHT)
            if more:
                process.send_signal(signal.SIGINT)
                ran = await end(process)
        if not more:
            ran = await end(process)
        told = await springest("status", manifest)

    *_, last = map(json.loads, ran.err.splitlines())
    assert (last["event"], last["exit_code"]) == ("end", ran.code)
    if more:
        assert (ran.code, ran.out) == (130, "")
        assert "so what was being sent is in doubt." in last["error"]
        assert table_of(told.out) == outcomes(stored=1) | {"being sent": IN_FLIGHT}
    else:
        assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=1 + IN_FLIGHT))
        assert status_of(told) == (0, outcomes(stored=1 + IN_FLIGHT))


async def test_the_manifest_may_change_between_two_runs(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 13)
    async with HeldSandbox() as sandbox:
        process = await upload_and_hold(manifest, sandbox)
        process.send_signal(signal.SIGINT)
        await until_said(process, "Stopping")
        sandbox.go_on.set()
        assert (await end(process)).code == 130

        rows = rows_of(manifest)
        done = certificate_of(posts(sandbox, "stored")[0])
        gone = certificate_of(posts(sandbox, "stored")[1])
        expected = hashes(tmp_path)
        for row in rows:
            if row["file"] == done:
                (tmp_path / done).rename(tmp_path / "renamed.pdf")
                row["file"] = "renamed.pdf"
        (tmp_path / gone).unlink()  # people move away what is uploaded
        (tmp_path / "new.pdf").write_bytes(certificate("new"))
        rows.append(rows[0] | {"file": "new.pdf", "email": "new@example.org"})
        write_rows(manifest, reversed(rows))
        second = await springest("upload", manifest, origin=sandbox.origin)

    # One that was renamed is known by its content, at its turn.
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=14))
    assert "\n8 stored before, 6 to send to http://" in second.err
    assert "5 certificates stored in" in second.out or "6 certificates stored in" in second.out
    assert ": 5 POSTs tried," in second.out
    assert noted(manifest) == outcomes(stored=14)
    assert stored(sandbox) == sorted({*expected, *hashes(tmp_path)})


async def test_a_changed_file_is_a_new_certificate_and_reported(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        await springest("upload", manifest, origin=sandbox.origin)
        before = hashes(tmp_path)
        (tmp_path / "2.pdf").write_bytes(certificate("No. 2, signed"))
        os.utime(tmp_path / "3.pdf")  # touched, and the same
        rows = rows_of(manifest)
        rows[0]["valid_until"] = "2031-01-31"
        write_rows(manifest, rows)
        second = await springest("upload", manifest, origin=sandbox.origin)
        third = await springest("upload", manifest, origin=sandbox.origin)

    assert (second.code, table_of(second.out)) == (0, outcomes(stored=3))
    assert "row 3: the file has changed since it was uploaded: it is a new certificate\n" in second.err
    assert "Changed since they were uploaded, so uploaded as new certificates: rows 2.\n" in second.err
    assert "row 4" not in second.err
    assert ": 2 POSTs tried," in second.out
    assert (third.code, table_of(third.out)) == (0, outcomes(stored=3))
    said = third.err.replace(str(manifest), "")
    assert not re.search("changed|its file", said, re.IGNORECASE)
    assert stored(sandbox) == sorted([*before, *hashes_of(posts(sandbox, "stored")[3:])])
    assert {row_of(post) for post in posts(sandbox, "stored")[3:]} == {2, 3}


def hashes_of(of: Sequence[Post]) -> list[str]:
    return [post.sha256 for post in of if post.sha256]


async def test_mended_rows_store_nothing_twice(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 5, changes={2: {"certification_id": "99"}, 3: {"certification_id": "2"}})
    async with springest_sandbox() as sandbox:
        # Without the other key nobody can know before the POST.
        first = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        failed = tmp_path / "certificates.failed.csv"
        rows = rows_of(failed)
        rows[0]["certification_id"] = "1"
        rows[1]["valid_until"] = "2031-01-31"
        # One that is stored, by mistake.
        write_rows(failed, [*rows, rows_of(manifest)[0] | {"error": ""}])
        second = await springest("upload", failed, origin=sandbox.origin)
        third = await springest("upload", failed, origin=sandbox.origin)

    assert (first.code, table_of(first.out)) == (1, outcomes(stored=3, rejected=2))
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=3))
    assert ": 2 POSTs tried," in second.out
    assert (third.code, table_of(third.out)) == (0, outcomes(stored=3))
    assert "Nothing was sent: 3 stored before\n" in third.out
    assert noted(failed) == outcomes(stored=3)
    assert stored(sandbox) == hashes(tmp_path)
    assert names(tmp_path) == ["certificates.csv", "certificates.failed.csv"]


async def test_ctrl_c_while_a_manifest_is_loaded_leaves_nothing(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 1)
    row = rows_of(manifest)[0]
    many = [row | {"email": f"employee{number}@example.org"} for number in range(30_000)]
    write_rows(manifest, many)
    async with springest_sandbox() as sandbox:
        process = await start(
            "upload", manifest, env=environment(sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        )
        await until(lambda: journal_path().exists())
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGINT)
        ran = await end(process)
        write_rows(manifest, [row])
        second = await springest("upload", manifest, origin=sandbox.origin)

    assert ran.code == 130
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=1))
    assert noted(manifest) == outcomes(stored=1)


# --- in doubt ---


async def test_a_certificate_stored_without_an_answer_is_found(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 4)
    mishaps = iter([Mishap.DROP_AFTER_STORING, None, Mishap.ERROR_AFTER_STORING]).__next__
    async with springest_sandbox(mishap=mishaps) as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin)

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=4))
    assert "In doubt" not in ran.err
    assert noted(manifest) == outcomes(stored=4)
    assert stored(sandbox) == hashes(tmp_path)
    assert len(sandbox.audit) == 4


@pytest.fixture
async def doubtful(tmp_path: Path) -> AsyncIterator[tuple[Sandbox, Path, int, int]]:
    """Return a sandbox that got four certificates; the one of a row it has stored, that of another row it has not.

    Nobody can tell which: it lists nothing of that certification.
    """
    manifest = archive(tmp_path, 4, changes={number: {"certification_id": NOT_VERIFIED} for number in range(1, 5)})
    mishaps = iter([Mishap.DROP_AFTER_STORING, Mishap.DROP_BEFORE_STORING]).__next__
    async with springest_sandbox(mishap=mishaps) as sandbox:
        ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        there = next(row_of(post) for post in sandbox.audit if post.words == "dropped after storing")
        lost = next(row_of(post) for post in sandbox.audit if post.words == "dropped before storing")
        assert (ran.code, table_of(ran.out)) == (3, outcomes(stored=2, in_doubt=2))
        assert (
            "In doubt: 2 rows that Springest may have stored. Run the same command again to ask it;"
            f" springest status {manifest} lists them.\n"
        ) in ran.err
        yield sandbox, manifest, there, lost


async def test_what_nobody_can_tell_is_listed_and_decided_by_a_person(
    tmp_path: Path, doubtful: tuple[Sandbox, Path, int, int]
) -> None:
    sandbox, manifest, there, lost = doubtful
    told = await springest("status", manifest)
    again = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)

    assert (told.code, table_of(told.out), told.err) == (3, outcomes(stored=2, in_doubt=2), "")
    whole = " ".join(told.out.split())
    for row in sorted((there, lost)):
        shown = rf"{row} {row - 1}\.pdf employee{row - 1}@example\.org 3 2026-01-31 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d "
        assert re.search(shown, whole), whole
    assert "Springest does not list it" in whole
    # Asked again, in vain; and not sent.
    assert (again.code, table_of(again.out)) == (3, outcomes(stored=2, in_doubt=2))
    assert "\n2 stored before, 2 in doubt, nothing to send to http://" in again.err
    assert len(sandbox.audit) == 4

    decided = await springest("resolve", manifest, "--row", str(there), "--stored")
    half = await springest("status", manifest)
    assert decided == Ran(0, "1 row marked as stored.\n", "")
    assert status_of(half) == (3, outcomes(stored=3, in_doubt=1))

    decided = await springest("resolve", manifest, "--all", "--send-again")
    waiting = await springest("status", manifest)
    last = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
    told = await springest("status", manifest)
    assert decided == Ran(0, "1 row put back to waiting for the next springest upload.\n", "")
    assert status_of(waiting) == (0, outcomes(stored=3, waiting=1))
    assert (last.code, table_of(last.out)) == (0, outcomes(stored=4))
    assert (told.code, table_of(told.out)) == (0, outcomes(stored=4))
    assert "In doubt" not in told.out
    assert list(map(row_of, sandbox.audit[4:])) == [lost]
    assert stored(sandbox) == hashes(tmp_path)


async def test_a_decision_that_is_none_changes_nothing(
    tmp_path: Path, doubtful: tuple[Sandbox, Path, int, int]
) -> None:
    _, manifest, there, lost = doubtful
    certain = min({2, 3, 4, 5} - {there, lost})
    which = "springest: give the rows: --row N (may be repeated), or --all\n"
    what = "springest: give either --stored or --send-again\n"
    cases: list[tuple[list[str], str]] = [
        (["--stored"], which),
        (["--row", str(there), "--all", "--stored"], which),
        (["--row", str(there)], what),
        (["--all", "--stored", "--send-again"], what),
        (
            ["--row", str(there), "--row", str(certain), "--row", "99", "--stored"],
            f"springest: not in doubt: row {certain}, 99 of the manifest. Nothing was changed.\n",
        ),
    ]
    ran = [await springest("resolve", manifest, *options) for options, _ in cases]
    told = await springest("status", manifest)
    mistyped = await springest("resolve", tmp_path / "certificate.csv", "--all", "--stored")

    assert ran == [Ran(2, "", words) for _, words in cases]
    assert status_of(told) == (3, outcomes(stored=2, in_doubt=2))
    assert mistyped.code == 2
    assert f"{tmp_path / 'certificate.csv'}: nothing of this manifest is in the journal" in mistyped.err


async def test_a_doubt_whose_row_left_the_manifest_is_kept(
    tmp_path: Path, doubtful: tuple[Sandbox, Path, int, int]
) -> None:
    sandbox, manifest, there, lost = doubtful
    write_rows(
        manifest, [row for row in rows_of(manifest) if row["file"] not in (f"{there - 1}.pdf", f"{lost - 1}.pdf")]
    )
    ran = await springest("upload", manifest, origin=sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
    told = await springest("status", manifest)
    decided = await springest("resolve", manifest, "--all", "--stored")
    after = await springest("status", manifest)

    assert table_of(ran.out) == outcomes(stored=2)
    assert (
        "In doubt: 2 certificates of earlier runs that are no longer in a manifest:"
        f" springest status {manifest} lists them.\n"
    ) in ran.err
    assert (ran.code, told.code) == (0, 3)
    assert told.out.count("\ngone ") == 2
    assert decided == Ran(0, "2 rows marked as stored.\n", "")
    assert status_of(after) == (0, outcomes(stored=2))


# --- two at once ---


async def test_a_second_run_shares_the_work_and_says_so(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 14)
    async with HeldSandbox() as sandbox:
        first = await upload_and_hold(manifest, sandbox, start=start_attentive)
        sandbox.answers = 1
        second = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        said = await until_said(second, "working on this manifest too")
        await until(lambda: sandbox.held == 12)
        told = await springest("status", manifest)
        sandbox.go_on.set()
        ran = [await end(first), await end(second)]

    assert said == f"A run on {platform.node()} is working on this manifest too.\n"
    assert (told.code, table_of(told.out), told.err) == (0, outcomes(stored=2) | {"being sent": 12}, "")
    assert f"2 runs on {platform.node()} are uploading.\n" in told.out
    assert [(each.code, table_of(each.out)) for each in ran] == [(0, outcomes(stored=14))] * 2
    assert "9 certificates stored in " in ran[0].out
    assert "5 certificates stored in " in ran[1].out
    assert stored(sandbox) == hashes(tmp_path)


async def test_ctrl_c_of_one_of_two_runs_lets_the_other_go_on(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 22)
    async with HeldSandbox() as sandbox:
        first = await upload_and_hold(manifest, sandbox, start=start_attentive)
        sandbox.answers = 1
        second = await start_attentive("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.held == 16)
        second.send_signal(signal.SIGINT)
        await until_said(second, "Stopping")
        second.send_signal(signal.SIGINT)
        ended = await end(second)
        sandbox.go_on.set()
        ran = await end(first)

    assert ended.code == 130
    assert f"A run on {platform.node()} is still working on this manifest.\n" in ended.err
    assert "Waiting" not in ended.err
    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=22))
    assert stored(sandbox) == hashes(tmp_path)


async def test_the_key_is_in_no_file_that_a_run_keeps(tmp_path: Path, state: Path) -> None:
    manifest = archive(tmp_path, 12)
    kept: list[bytes] = []
    paths: set[Path] = set()

    def keep() -> None:
        for path in state.rglob("*"):
            if path.is_file():
                paths.add(path)
                kept.append(path.read_bytes())

    async with HeldSandbox() as sandbox:
        process = await upload_and_hold(manifest, sandbox)
        keep()
        await kill(process)
        keep()
        sandbox.go_on.set()
        let_leases_end()
        await springest("upload", manifest, origin=sandbox.origin)
        keep()

    assert {path.name for path in paths} == {"journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"}
    for content in kept:
        assert_no_key_in(content)
    modes = {path.stat().st_mode & 0o777 for path in paths if path.exists()}
    assert modes == {0o600}


# --- the real minute ---


@pytest.mark.soak
async def test_interrupted_and_restarted_nothing_is_refused(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 40)
    async with springest_sandbox() as sandbox:
        process = await start("upload", manifest, env=environment(sandbox.origin))
        await until(lambda: sandbox.summary().stored >= 15)
        process.send_signal(signal.SIGINT)
        first = await end(process)
        between = sandbox.summary().stored
        second = await upload(manifest, sandbox, within=150)
        summary = sandbox.summary()

    assert (first.code, table_of(first.out)) == (130, outcomes(stored=between, waiting=40 - between))
    assert 15 <= between <= 30
    assert (second.code, table_of(second.out)) == (0, outcomes(stored=40))
    assert verdicts(sandbox) == {"stored": 40}
    assert summary.most_in_any_period <= 30
    assert stored(sandbox) == hashes(tmp_path)


@pytest.mark.soak
async def test_two_commands_at_once_share_the_minute(tmp_path: Path) -> None:
    folders = [tmp_path / "anna", tmp_path / "bert"]
    for folder in folders:
        folder.mkdir()
    # The same PDFs for other people, so that they are other certificates.
    others = {number: {"email": f"other{number}@example.org"} for number in range(1, 23)}
    manifests = [archive(folders[0], 22), archive(folders[1], 22, changes=others)]
    async with springest_sandbox() as sandbox:
        both = await asyncio.gather(*(upload(manifest, sandbox, within=150) for manifest in manifests))
        summary = sandbox.summary()

    assert [(ran.code, table_of(ran.out)) for ran in both] == [(0, outcomes(stored=22))] * 2
    assert verdicts(sandbox) == {"stored": 44}
    assert summary.most_in_any_period == 30
    assert len({post.fields["email"] for post in sandbox.audit}) == 44


@pytest.mark.soak
async def test_killed_five_times_every_certificate_is_stored_once(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 40)
    async with springest_sandbox() as sandbox:
        for _ in range(5):
            so_far = sandbox.summary().stored
            process = await start("upload", manifest, env=environment(sandbox.origin))
            await until(lambda so_far=so_far: sandbox.summary().stored > so_far, within=200)  # type: ignore[misc]
            await kill(process)
        # What was being sent holds its tokens until Springest certainly counts it no more: for three minutes.
        last = await upload(manifest, sandbox, within=420)
        told = await springest("status", manifest)
        summary = sandbox.summary()

    assert (last.code, table_of(last.out)) == (0, outcomes(stored=40))
    assert status_of(told) == (0, outcomes(stored=40))
    assert stored(sandbox) == hashes(tmp_path)
    assert summary.refused_for_speed == 0
    assert summary.most_in_any_period <= 30
