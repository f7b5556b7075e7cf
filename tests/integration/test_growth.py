"""The benchmark ``growth`` with a few uploads: its clients upload what they are asked to, and tell what that costs."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth_client import BulkClient, UploadClient
from benchmarks.sink import Sink


@pytest.mark.parametrize("kind", [UploadClient, BulkClient])
def test_a_client_uploads_as_often_as_it_is_asked(kind: type[UploadClient | BulkClient], tmp_path: Path) -> None:
    with Sink() as sink, ExitStack() as stack:
        client = kind(stack, sink.origin, tmp_path, in_flight=1, files=[(1, 100), (20, 200_000)])
        costs = [client.upload(count) for count in (1, 2)]
        work = sink.work()

    assert work.posts == 3
    assert all(cost.cpu > 0 for cost in costs)
    assert all(cost.now and cost.peak and cost.now <= cost.peak for cost in costs)


def test_each_size_is_a_column() -> None:
    plan = growth.Plan(uploads=(3, 6), others=(2, 5), slice=2, rounds=1, warm_up=1)
    with Sink() as sink:
        cost, growing, memory = growth.measure_uploads(sink.origin, plan)
        rows, *_ = growth.measure_rows(sink.origin, plan)

    assert [table.columns for table in (cost, growing, memory, rows)] == [["3", "6"]] * 3 + [["2", "5"]]
    assert all(
        number and number > 0 for table in (cost, growing, rows) for row in table.rows.values() for number in row
    )
