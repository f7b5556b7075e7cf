"""Random names: each is new, and few of them ask the system."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from springest_async import random_names
from springest_async.random_names import new_request_id, random_name


def test_a_name_is_32_hex_digits_and_never_the_same() -> None:
    with ThreadPoolExecutor(4) as threads:
        names = [*threads.map(lambda _: random_name(), range(3000))]

    assert len(set(names)) == 3000
    assert {len(bytes.fromhex(name)) for name in names} == {16}


def test_a_request_id_begins_with_the_time_and_is_new() -> None:
    before = time.time_ns()

    ids = [new_request_id() for _ in range(1000)]

    assert len({each[16:] for each in ids}) == 1000
    assert all(len(bytes.fromhex(each)) == 16 for each in ids)
    assert all(before <= int(each[:16], 16) <= time.time_ns() for each in ids)


def test_the_system_is_asked_for_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    urandom = os.urandom
    monkeypatch.setattr(random_names, "_names", random_names._Names())

    def counted(size: int) -> bytes:
        asked.append(size)
        return urandom(size)

    monkeypatch.setattr(os, "urandom", counted)

    for _ in range(1000):
        random_name()

    assert len(asked) == 4


_FORK = """
import os
from springest_async.random_names import random_name

random_name()  # so that there are names left
if os.fork():
    os.wait()
print(random_name(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_names_of_its_own() -> None:
    names = subprocess.run([sys.executable, "-c", _FORK], check=True, capture_output=True, text=True).stdout.split()

    assert len(names) == len(set(names)) == 2
