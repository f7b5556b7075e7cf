"""``springest upload`` as scripts and services see it: the JSON log, metrics, hooks and pings of the same run."""

import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

from springest_async.sandbox import Mishap
from tests.machine_docs import METRICS, faults_of, faults_of_event
from tests.pdfs import archive
from tests.waiting import A_WHILE, until

from .canary import KEY
from .command import (
    HeldSandbox,
    Ran,
    end,
    environment,
    outcomes,
    springest,
    springest_sandbox,
    start,
    table_of,
    until_said,
)
from .servers.postgresql import Database

HEADER = "file,certification_id,email,valid_from\n"


def lines_of(ran: Ran) -> list[dict[str, Any]]:
    """Return the objects of a log, in which nothing else is and no address."""
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert [fault for line in lines for fault in faults_of_event(line)] == []
    assert [line["event"] for line in lines].index("end") == len(lines) - 1
    assert "example.org" not in ran.err
    assert "employee" not in ran.err
    return lines


def values(path: Path) -> dict[str, float]:
    """Return the metrics of a file, the rows by their state."""
    families = text_string_to_metric_families(path.read_text())
    samples = [sample for family in families for sample in family.samples]
    return {"_".join(filter(None, (sample.name, sample.labels.get("state")))): sample.value for sample in samples}


async def test_log_metrics_hook_ping_and_status_agree(tmp_path: Path) -> None:
    # Certification 3 is not verified, so its certificates are shown in no list; there is no 99.
    others = {number: {"certification_id": "3"} for number in range(2, 6)} | {6: {"certification_id": "99"}}
    manifest = archive(tmp_path, 6, changes=others)
    heard: list[Any] = []
    metrics, hook = tmp_path / "x.prom", tmp_path / "hook.json"

    async def ping(request: web.Request) -> web.Response:
        assert request.match_info["token"] == KEY
        heard.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/{token}", ping)
    async with springest_sandbox() as sandbox, TestServer(app) as service:
        sandbox.mishap = iter([None, Mishap.DROP_AFTER_STORING]).__next__
        ran = await springest(
            *("upload", manifest, "--log-format", "json", "--metrics", metrics),
            *("--on-finish", f"cat > {hook}"),
            origin=sandbox.origin,
            SPRINGEST_CERTIFICATIONS_API_KEY=None,
            SPRINGEST_PING=f"http://127.0.0.1:{service.port}/{quote(KEY, safe='')}",
        )
    status = json.loads((await springest("status", manifest, "--format", "json")).out)

    lines = lines_of(ran)
    told = json.loads(hook.read_text())
    assert faults_of(status, "status") == []
    assert faults_of_event(told) == []
    assert [fault for each in heard for fault in faults_of_event(each)] == []
    assert [each["event"] for each in heard] == ["begin", "end"]
    assert told == heard[-1]
    assert {name: told[name] for name in ("status", "run", "exit_code", "error")} == {
        name: lines[-1][name] for name in ("status", "run", "exit_code", "error")
    }
    assert told["exit_code"] == ran.code
    assert told["status"]["counts"] == status["counts"]
    assert told["status"]["last"] == status["last"]
    printed = table_of(ran.out)
    assert printed == outcomes(stored=4, rejected=1, in_doubt=1)
    assert {name.replace(" ", "_"): rows for name, rows in printed.items()} == {
        name: rows for name, rows in status["counts"].items() if name != "sending"
    }
    found = values(metrics)
    assert {name: found[f"springest_rows_{name}"] for name in status["counts"]} == status["counts"]
    assert found["springest_run_exit_code"] == ran.code
    assert found["springest_run_posts_total"] == told["run"]["posts"]
    assert {re.sub(r"(?<=rows)_(?!faulty)\w+", "", name) for name in found} == METRICS.keys()


async def test_the_end_of_a_stopped_run_has_its_last_outcomes(tmp_path: Path) -> None:
    manifest = archive(tmp_path, 30, changes={4: {"certification_id": "99"}})  # there is none
    metrics = tmp_path / "x.prom"
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", manifest, "--log-format", "json", "--metrics", metrics, "--max-failures", "1"),
            origin=sandbox.origin,
            SPRINGEST_CERTIFICATIONS_API_KEY=None,
        )

    end = lines_of(ran)[-1]
    status = end["status"]
    assert end["stopped_by"] == "max-failures"
    printed = {name.replace(" ", "_"): rows for name, rows in table_of(ran.out).items()}
    assert (ran.code, status["activity"]) == (5, "stopped")
    assert status["counts"] == printed | {"sending": 0}
    found = values(metrics)
    assert {name: found[f"springest_rows_{name}"] for name in printed} == printed
    assert re.search(
        r'^springest_run_stopped\{by="max-failures",file="x.prom",.*\} 1.0$', metrics.read_text(), re.MULTILINE
    )


async def test_a_row_in_doubt_calls_for_help_once(tmp_path: Path) -> None:
    """Also in a second run, which calls for a third row that is in doubt since then."""
    manifest, trouble = archive(tmp_path, 3), tmp_path / "trouble.json"
    *begin, last = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(begin))

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server:

        async def upload() -> Ran:
            return await springest(
                *("upload", manifest, "--log-format=json", "--on-trouble", f"cat >> {trouble}"),
                origin=f"http://127.0.0.1:{server.port}",
                SPRINGEST_CERTIFICATIONS_API_KEY=None,
            )

        ran, again = await upload(), await upload()
        manifest.write_text("".join((*begin, last)))
        more = await upload()

    told, later = map(json.loads, trouble.read_text().splitlines())
    assert (again.code, more.code, later["words"].partition(":")[0]) == (3, 3, "row 4")
    assert [line for line in lines_of(again) if line["event"] == "trouble"] == []
    assert (ran.code, told["trouble"]) == (3, "in_doubt")
    assert faults_of_event(told) == []
    assert [line["trouble"] for line in lines_of(ran) if line["event"] == "trouble"] == ["in_doubt"]


async def test_a_doubt_calls_when_a_run_cannot_settle_it(tmp_path: Path) -> None:
    """The run that was aborted has called nobody."""
    manifest, told = archive(tmp_path, 2, changes={2: {"certification_id": "3"}}), tmp_path / "told"
    async with HeldSandbox() as sandbox:
        env = environment(sandbox.origin, SPRINGEST_CERTIFICATIONS_API_KEY=None)
        process = await start("upload", manifest, env=env)
        await until(lambda: sandbox.held == 1)
        process.send_signal(signal.SIGINT)
        await until_said(process, "Stopping")
        process.send_signal(signal.SIGINT)
        await end(process)
        sandbox.go_on.set()
        for _ in range(2):
            ran = await springest(
                *("upload", manifest, "--on-trouble", f"cat >> {told}"),
                origin=sandbox.origin,
                SPRINGEST_CERTIFICATIONS_API_KEY=None,
            )
            assert (ran.code, table_of(ran.out)) == (3, outcomes(stored=1, in_doubt=1))

    (trouble,) = map(json.loads, told.read_text().splitlines())
    assert (trouble["trouble"], trouble["words"].partition(":")[0]) == ("in_doubt", "row 3")


async def test_a_refused_key_calls_for_help_and_finishes(tmp_path: Path) -> None:
    manifest, told = archive(tmp_path, 2), tmp_path / "told"
    hook = f"cat >> {told}"
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", manifest, "--on-trouble", hook, "--on-finish", hook),
            origin=sandbox.origin,
            SPRINGEST_API_KEY="wr0ng-key",
        )

    trouble, end = map(json.loads, told.read_text().splitlines())
    assert (ran.code, trouble["trouble"], end["exit_code"]) == (4, "key_refused", 4)
    assert trouble["words"] == end["error"]
    assert "401" in end["error"]
    assert "wr0ng-key" not in told.read_text() + ran.err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            "file,certification_id,email,valid_from\nnowhere.pdf,1,employee1@example.org,2026-01-31\n",
            "1 fault in 1 row",
        ),
        ("file,certification_id,email,valid_from\n1.pdf,1,employee1.example.org,2026-01-31\n", "1 fault in 1 row"),
        ("nonsense\n", "certification_id"),
    ],
)
async def test_faults_of_a_manifest_are_logged_without_addresses(rows: str, words: str, tmp_path: Path) -> None:
    archive(tmp_path, 1)
    manifest, told = tmp_path / "certificates.csv", tmp_path / "told"
    manifest.write_text(rows)
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", manifest, "--log-format", "json", "--on-finish", f"cat > {told}"), origin=sandbox.origin
        )

    last = lines_of(ran)[-1]
    assert (ran.code, last["exit_code"], last["status"]) == (2, 2, None)
    assert words in last["error"]
    assert json.loads(told.read_text())["error"] == last["error"]


async def test_a_missing_manifest_or_key_is_one_object(tmp_path: Path) -> None:
    for changes in ({}, {"SPRINGEST_API_KEY": None}):
        manifest = archive(tmp_path, 1) if changes else tmp_path / "nowhere.csv"
        ran = await springest("upload", manifest, "--log-format", "json", origin="nl", **changes)

        last = lines_of(ran)[-1]
        assert (ran.code, last["exit_code"]) == (2, 2)
        assert last["error"]


async def test_a_hook_that_fails_changes_no_exit_code_and_no_stdout(tmp_path: Path) -> None:
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", archive(tmp_path, 2), "--on-finish", "env; echo from the hook; exit 7"), origin=sandbox.origin
        )

    assert (ran.code, table_of(ran.out)) == (0, outcomes(stored=2))
    assert "from the hook" in ran.err
    assert "from the hook" not in ran.out
    assert "SPRINGEST_HOST=http" in ran.err
    assert "API_KEY" not in ran.err
    assert "Warning: the command of --on-finish ended with exit code 7." in ran.err


async def test_ctrl_c_ends_a_hook_at_the_end_and_keeps_the_exit_code(tmp_path: Path) -> None:
    began = tmp_path / "began"
    async with springest_sandbox() as sandbox:
        process = await start(
            *("upload", archive(tmp_path, 1), "--on-finish", f"touch {began}; exec sleep 600"),
            env=environment(sandbox.origin),
        )
        await until(began.exists)
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    assert ran.code == 0


async def test_an_interrupted_run_says_so_to_its_hook(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with springest_sandbox(limit=1) as sandbox:
        process = await start(
            *("upload", archive(tmp_path, 40), "--log-format", "json", "--on-finish", f"cat > {told}"),
            env=environment(sandbox.origin),
        )
        await until_said(process, '"refused"')
        process.send_signal(signal.SIGINT)
        ran = await end(process)

    summary = json.loads(told.read_text())
    assert (ran.code, summary["exit_code"], summary["stopped_by"]) == (130, 130, None)
    assert summary["status"]["activity"] == "stopped"
    assert json.loads(ran.err.splitlines()[-1])["event"] == "end"


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "2>&1 >/dev/null | head -n 1"])
async def test_a_log_that_nobody_reads_stops_nothing(where: str, tmp_path: Path) -> None:
    manifest = archive(tmp_path, 3)
    async with springest_sandbox() as sandbox:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'"$@" {where}', "sh", sys.executable, "-m", "springest_async.cli"),
            *("upload", manifest, "--log-format", "json"),
            env=environment(sandbox.origin),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(A_WHILE):
            await process.communicate()
    status = json.loads((await springest("status", manifest, "--format", "json")).out)

    assert process.returncode == 0
    assert status["counts"]["stored"] == 3


async def test_an_aborted_run_tells_of_its_end(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with HeldSandbox() as sandbox:
        process = await start(
            *("upload", archive(tmp_path, 12), "--log-format", "json"),
            *("--on-trouble", f"cat >> {told}", "--on-finish", f"cat >> {told}"),
            env=environment(sandbox.origin),
        )
        await until(lambda: sandbox.held == 8)
        process.send_signal(signal.SIGINT)
        await until_said(process, "Stopping")
        process.send_signal(signal.SIGINT)
        ran = await end(process)
        sandbox.go_on.set()

    trouble, last = map(json.loads, told.read_text().splitlines())
    assert (ran.code, last["exit_code"], trouble["trouble"]) == (130, 130, "in_doubt")
    assert (last["status"]["activity"], last["status"]["counts"]["in_doubt"]) == ("stopped", 8)
    assert json.loads(ran.err.splitlines()[-1])["event"] == "end"


@pytest.mark.postgresql
async def test_on_postgresql_nobody_is_told_the_password(tmp_path: Path, database: Database) -> None:
    told, metrics = tmp_path / "told", tmp_path / "x.prom"
    async with springest_sandbox() as sandbox:
        ran = await springest(
            *("upload", archive(tmp_path, 2), "--log-format", "json", "--metrics", metrics),
            *("--on-finish", f"cat > {told}; env >> {told}"),
            origin=sandbox.origin,
            SPRINGEST_JOURNAL=database.url,
            PGPASSWORD=database.cluster.password,
        )

    assert (ran.code, lines_of(ran)[-1]["status"]["counts"]["stored"]) == (0, 2)
    shown = ran.err + ran.out + told.read_text() + metrics.read_text()
    assert "SPRINGEST_HOST" in shown
    assert database.cluster.password not in shown
