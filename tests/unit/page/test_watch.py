"""How often the journal is read for the page: once for all viewers, seldom if it takes long, and never for nobody."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest

from springest_async import Journal, JournalError
from springest_async.page.picture import Picture
from springest_async.page.watch import JournalWatch

pytestmark = pytest.mark.looptime(start=0, noop_cycles=0)


class SlowReader:
    """Stands for a `StatusReader` whose every read takes some seconds, or fails."""

    def __init__(self, _: Journal) -> None:
        self.began: list[float] = []
        self.seconds = 0.0
        self.error: JournalError | None = None
        self.late = 0.0  # seconds more that one read takes

    async def __aenter__(self) -> "SlowReader":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def take_over(self) -> None: ...

    async def read(self, _: Callable[[Any], object]) -> Picture:
        self.began.append(asyncio.get_running_loop().time())
        late, self.late = self.late, 0.0
        await asyncio.sleep(self.seconds + late)
        if self.error is not None:
            raise self.error
        return Picture(orphans=len(self.began))


@pytest.fixture
def reader() -> Iterator[SlowReader]:
    reader = SlowReader(Journal("unused"))
    with patch("springest_async.page.watch.StatusReader", lambda _: reader):
        yield reader


async def _look(watch: JournalWatch, seconds: float) -> list[Picture]:
    """Return the pictures that a viewer gets in this time."""
    pictures: list[Picture] = []
    with watch.viewer():
        try:
            async with asyncio.timeout(seconds):
                while True:
                    pictures.append(await watch.newer(pictures[-1] if pictures else None))
        except TimeoutError:
            return pictures


async def test_nobody_looks_and_nothing_is_read(reader: SlowReader) -> None:
    async with JournalWatch(Journal("unused")) as watch:
        await asyncio.sleep(60)
        assert reader.began == []
        await _look(watch, 2.5)
        read = len(reader.began)
        await asyncio.sleep(60)
        assert len(reader.began) == read


async def test_ten_viewers_share_each_read(reader: SlowReader) -> None:
    async with JournalWatch(Journal("unused")) as watch:
        seen = await asyncio.gather(*(_look(watch, 4.5) for _ in range(10)))

    assert reader.began == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [[picture.orphans for picture in pictures] for pictures in seen] == [[1, 2, 3, 4, 5]] * 10


async def test_a_read_that_takes_long_rests_ten_times_as_long(reader: SlowReader) -> None:
    reader.seconds = 2.0
    async with JournalWatch(Journal("unused")) as watch:
        await _look(watch, 50)

    assert reader.began == [0.0, 22.0, 44.0]


async def test_who_presses_a_button_sees_it_at_once(reader: SlowReader) -> None:
    reader.seconds = 2.0
    async with JournalWatch(Journal("unused")) as watch:
        viewer = asyncio.create_task(_look(watch, 12))
        await asyncio.sleep(5)
        watch.look()
        await viewer

    assert reader.began == [0.0, 5.0]


async def test_a_new_viewer_sees_nothing_old(reader: SlowReader) -> None:
    async with JournalWatch(Journal("unused")) as watch:
        await _look(watch, 0.5)
        await asyncio.sleep(3600)
        (picture,) = await _look(watch, 0.5)

    assert picture.orphans == 2


async def test_while_the_journal_is_away_the_last_picture_stays(reader: SlowReader) -> None:
    async with JournalWatch(Journal("unused")) as watch:
        viewer = asyncio.create_task(_look(watch, 3.5))
        await asyncio.sleep(0.5)
        reader.error = JournalError("the journal", "is away")
        await asyncio.sleep(1)
        reader.error = None
        pictures = await viewer

    assert [(picture.orphans, picture.trouble) for picture in pictures] == [
        (1, ""),
        (1, "the journal: is away"),
        (3, ""),
        (4, ""),
    ]


async def test_a_journal_that_does_not_answer_is_told(reader: SlowReader) -> None:
    async with JournalWatch(Journal("unused")) as watch:
        viewer = asyncio.create_task(_look(watch, 2000))
        await asyncio.sleep(0.5)
        reader.late = 60.0  # as a database that is frozen, or a table that is locked
        pictures = await viewer

    assert [(picture.orphans, picture.trouble) for picture in pictures] == [
        (1, ""),
        (1, "it does not answer"),
        (2, ""),
        *((read, "") for read in range(3, len(reader.began) + 1)),
    ]
    assert len(reader.began) > 3


async def test_the_watch_ends_while_the_journal_does_not_answer(reader: SlowReader) -> None:
    reader.late = 1e6
    async with JournalWatch(Journal("unused")) as watch:
        await _look(watch, 20)

    assert asyncio.get_running_loop().time() == 20
