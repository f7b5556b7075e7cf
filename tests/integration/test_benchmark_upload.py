"""The ways to upload that the benchmark compares each upload as many as they are asked to. Nothing is timed."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from benchmarks import upload
from benchmarks.peers import AIOHTTP, BULK, ON_UVLOOP, OURS, SENDFILE, WAYS, Job
from benchmarks.report import Table
from benchmarks.sink import Sink

PDF = b"%PDF-1.7\n" + bytes(100_000) + b"\n%%EOF\n"


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


@pytest.fixture(scope="module")
def tls_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sink, Path]]:
    folder, ca = tmp_path_factory.mktemp("tls"), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    with Sink(folder / "server.pem") as running:
        yield running, folder / "ca.pem"


def job(folder: Path, sink: Sink, ca_file: Path | None = None) -> Job:
    (folder / "certificate.pdf").write_bytes(PDF)
    return Job(origin=sink.origin, file=folder / "certificate.pdf", in_flight=2, folder=folder, ca_file=ca_file)


def arrived(name: str, job: Job, sink: Sink) -> list[int]:
    """Upload five certificates and then three, and return how many the sink has answered of each."""
    found = []
    with WAYS[name](job) as prepare:
        for uploads in (5, 3):
            run = prepare(uploads)
            before = sink.work().posts
            run()
            found.append(sink.work().posts - before)
    return found


@pytest.mark.parametrize("name", WAYS)
def test_each_way_uploads_what_it_is_asked_to(name: str, sink: Sink, tmp_path: Path) -> None:
    if name.endswith(ON_UVLOOP):
        pytest.importorskip("uvloop")

    assert arrived(name, job(tmp_path, sink), sink) == [5, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # niquests leaves a socket open
@pytest.mark.parametrize("name", [name for name in WAYS if name != SENDFILE and not name.endswith(ON_UVLOOP)])
def test_each_way_but_sendfile_speaks_tls(name: str, tls_sink: tuple[Sink, Path], tmp_path: Path) -> None:
    sink, ca_file = tls_sink

    assert arrived(name, job(tmp_path, sink, ca_file), sink) == [5, 3]


def test_a_bulk_run_leaves_no_files(sink: Sink, tmp_path: Path) -> None:
    arrived(BULK, job(tmp_path, sink), sink)

    assert [path.name for path in tmp_path.iterdir()] == ["certificate.pdf"]


def connected(sink: Sink) -> socket.socket:
    port = int(sink.origin.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def head(length: int, *more: str) -> bytes:
    return "\r\n".join(["POST /x HTTP/1.1", f"content-length: {length}", *more, "", ""]).encode()


def test_the_sink_says_at_once_that_a_body_may_come(sink: Sink) -> None:
    with connected(sink) as client:
        client.sendall(head(4, "Expect: 100-continue"))
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert client.recv(1000).startswith(b"HTTP/1.1 201 Created\r\n")


def test_the_sink_counts_up_and_keeps_the_connection(sink: Sink) -> None:
    ids = []
    with connected(sink) as client:
        for body in (b"", b"x", b"y" * 70_000):
            whole = head(len(body)) + body
            for piece in (whole[:9], whole[9:]):
                client.sendall(piece)
            answer = client.recv(4000)
            assert answer.startswith(b"HTTP/1.1 201 Created\r\n")
            ids.append(int(answer.partition(b'{"id":')[2].partition(b",")[0]))

    assert ids == [ids[0], ids[0] + 1, ids[0] + 2]


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"x" * 20_000])
def test_the_sink_hangs_up_on_what_is_no_upload(sink: Sink, request_: bytes) -> None:
    with connected(sink) as client:
        client.sendall(request_)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_the_benchmark_prints_ratios_rates_and_costs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--size", "10KB", "--in-flight", "2", "--ways", "documented", "upload", "--rounds", "1"]

    assert upload.main([*options, "--seconds", "0.01", "--folder", str(tmp_path)]) == 0
    tables = capsys.readouterr().out.split("**Uploads")

    lines = [line for line in tables[1].splitlines() if line.startswith("|")]
    assert lines[0] == "| | 10 KB, 2 |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| {AIOHTTP}", f"| {OURS}"]
    assert list(tmp_path.iterdir()) == []


def quick_tables(rate: float, cost: float) -> list[Table]:
    """Return what `--quick` would print if ours were so many times as fast as aiohttp, and as dear."""
    found = {
        name: upload.Found([rate if name != AIOHTTP else 1.0], [cost if name != AIOHTTP else 1.0], [0.5])
        for name in upload._QUICK.ways
    }
    return [*upload._tables("http", upload._QUICK, dict.fromkeys(upload._QUICK.cells, found), quick=True)]


def test_the_guard_looks_at_each_rate_and_cost_of_ours() -> None:
    number = 2 * len(upload._QUICK.cells)  # an upload and a bulk run

    assert [table.broken() for table in quick_tables(2.0, 0.5)] == [[], [], [], []]
    assert [len(table.broken()) for table in quick_tables(0.01, 0.5)] == [number, 0, 0, 0]
    assert [len(table.broken()) for table in quick_tables(2.0, 100.0)] == [0, 0, 0, number]


@pytest.mark.parametrize("size", ["50", "0KB", "KB", "-5MB", "5GB"])
def test_a_size_has_a_number_and_a_unit(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        upload.main([f"--size={size}"])
    assert "is no size such as 50KB" in capsys.readouterr().err
