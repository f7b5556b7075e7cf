"""Real servers for the tests that ask: a mark checks that a server can be had, a fixture starts it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from .browser import chromium
from .command import kill_what_is_left
from .servers import REQUIREMENTS, require
from .servers.nginx import nginx_in_front_of
from .servers.postgresql import Cluster, Database, postgresql_cluster
from .servers.rails import RailsServer, rails_server


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that is marked with a program that this machine lacks, before any fixture starts it."""
    for name in REQUIREMENTS:
        if item.get_closest_marker(name) is not None:
            require(name)


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set a state folder of the test's own, where the command keeps its limit, and return it."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
async def _no_process_outlives_its_test() -> AsyncIterator[None]:
    yield
    await kill_what_is_left()


@pytest.fixture
async def rails() -> AsyncIterator[RailsServer]:
    """Start a Springest on Rails, with the documented limit: 30 POSTs in 60 s."""
    require("rails")
    async with rails_server() as server:
        yield server


@pytest.fixture
async def nginx_and_rails(rails: RailsServer) -> AsyncIterator[tuple[str, RailsServer]]:
    """Yield the origin of an nginx that lets a POST through every two seconds, and the Rails behind it."""
    require("nginx")
    async with nginx_in_front_of(rails.origin) as origin:
        yield origin, rails


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """Start a PostgreSQL for all tests: what a test stops it starts again, and what it configures it sets back."""
    require("postgresql")
    with postgresql_cluster() as cluster:
        yield cluster


@pytest.fixture
def database(postgresql: Cluster) -> Iterator[Database]:
    """Make an empty database for the test."""
    with postgresql.database() as database:
        yield database


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Start a browser without a window."""
    require("chromium")
    async with chromium() as browser:
        yield browser
