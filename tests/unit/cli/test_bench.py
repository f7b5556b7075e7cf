"""What ``springest bench`` needs before it can measure: a plan, certificates, and a server that is this machine."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from springest_async import ConfigurationError, Journal, Settings
from springest_async.bulk import Manifest, check_pdf
from springest_async.cli import bench, environment


@pytest.mark.parametrize(
    ("text", "size"), [("50KB", 50_000), ("5MB", 5_000_000), ("1.5 mb", 1_500_000), ("2g", 2 * 10**9), ("200", 200)]
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert bench.size_of(text) == size


@pytest.mark.parametrize("text", ["", "KB", "-5MB", "5 XB", "1e6", "5_0KB", "5MB of it"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="such as 50KB"):
        bench.size_of(text)


@pytest.mark.parametrize("changes", [{"count": 0}, {"concurrency": 0}, {"size": 100}])
def test_a_plan_without_uploads_is_refused(changes: dict[str, int]) -> None:
    values: dict[str, Any] = {"count": 1, "size": 1000, "concurrency": 1, "limited": True}

    with pytest.raises(ConfigurationError, match="--"):
        bench.Plan(**(values | changes))


@pytest.mark.parametrize("links", [True, False])
def test_the_certificates_are_whole_pdfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(bench, "_LINKS", 2)

    manifest = Manifest.open(bench._archive(tmp_path, bench.Plan(count=5, size=3_000_000, concurrency=1, limited=True)))

    assert len({manifest.fields(row).email for row in manifest}) == 5
    files = sorted(tmp_path.glob("*.pdf"))
    assert [file.stat().st_size for file in files] == [3_000_000] * 5
    assert len({file.stat().st_ino for file in files}) == (3 if links else 5)
    assert [list(check_pdf(file)) for file in files] == [[]] * 5


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:8080", "http://localhost:1", "https://[::1]:8443", "http://127.8.9.1"]
)
def test_a_server_on_this_machine_may_be_measured(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("SPRINGEST_HOST", host)

    assert environment.local_origin() == host


@pytest.mark.parametrize("host", ["nl", "https://api.springest.nl", "https://localhost.example", "https://10.0.0.1"])
def test_no_other_machine_is_measured(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("SPRINGEST_HOST", host)

    with pytest.raises(ConfigurationError, match="invented certificates"):
        environment.local_origin()


def test_no_proxy_leads_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRINGEST_HOST", "https://localhost:8443")
    monkeypatch.setenv("SPRINGEST_API_KEY", "a key")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")

    client = environment.local_springest(Journal("/nowhere/journal.sqlite3"), Settings(concurrency=3))

    assert (client.origin, client.settings.proxy, client.settings.concurrency) == ("https://localhost:8443", None, 3)
