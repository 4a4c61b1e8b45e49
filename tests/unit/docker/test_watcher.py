"""The watcher and an Engine that comes, goes, comes back and talks nonsense."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.fake_engine import EVENT, HEAD, Answer, FakeEngine, says
from tests.support.logged import Logged
from tests.support.process import PATIENCE
from v6fwd.docker.engine import watcher
from v6fwd.docker.engine.client import EngineApi
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.engine.watcher import Watcher


class Watched:
    """A watcher, what it has called and logged, and how long it has paused."""

    def __init__(self, folder: Path, ask_every: float = PATIENCE) -> None:
        self.engine = FakeEngine(folder / "docker.sock")
        self.calls: list[str] = []
        self.pauses: list[float] = []
        self.listed: list[str] = []
        self.pids: list[int] = []
        self.enters = ""
        self.fail: Callable[[], object] = lambda: None
        self._logged = Logged()
        self._events: list[str] = []
        self.watcher = Watcher(
            EngineApi(self.engine.host),
            self._logged.log,
            self._found,
            self._listed,
            self._changed,
            lambda container: container.name == self.enters,
            sleep=self._sleep,
            ask_every=ask_every,
        )

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def _found(self) -> None:
        self.calls.append("found")

    def _listed(self, containers: Sequence[Container]) -> None:
        self.listed = [each.name for each in containers]

    def _changed(self, containers: Sequence[Container]) -> None:
        assert not self.watcher.is_lost
        self.fail()
        self.calls.append(" ".join(each.name for each in containers))
        self.pids = [each.pid for each in containers]

    @property
    def log(self) -> list[str]:
        """The events that were logged."""
        self._events += [event for event, _ in self._logged.lines()]
        return list(self._events)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let others go on until it is so."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - others do not know what we wait for
                await asyncio.sleep(0)

    def runs(self, *names: str, created: Sequence[str] = ()) -> None:
        """These containers run from now on, and those are about to."""
        states = dict.fromkeys(names, "running") | dict.fromkeys(created, "created")
        items = [
            {"Id": name, "Names": [f"/{name}"], "State": state} for name, state in states.items()
        ]
        self.engine.containers = says(HEAD + json.dumps(items).encode())

    def close(self) -> None:
        """Give the log back."""
        self._logged.close()


@pytest.fixture
def ask_every() -> float:
    """Seconds until an Engine is asked without an event: longer than a test."""
    return PATIENCE


@pytest.fixture
async def watched(tmp_path: Path, ask_every: float) -> AsyncIterator[Watched]:
    """It is at work; its pauses take no time, and an Engine must be started."""
    watched = Watched(tmp_path, ask_every)
    task = asyncio.ensure_future(watched.watcher.run())
    yield watched
    has_ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watched.engine.stop()
    watched.close()
    assert not has_ended, "it watches for good"


async def test_at_the_start_and_after_an_event(watched: Watched) -> None:
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", "one"])
    watched.runs("one", "two")
    watched.engine.tell()
    await watched.until(lambda: watched.calls == ["found", "one", "one two"])
    watched.watcher.stir()
    await watched.until(lambda: watched.calls == ["found", "one", "one two", "one two"])


async def test_it_outlives_those_whom_it_tells(watched: Watched) -> None:
    """A task that ends with an exception, and is kept, is mentioned by nobody."""
    defects = iter([OSError("a process has just ended"), KeyError("one")])

    def fail() -> None:
        for defect in defects:
            raise defect

    watched.fail = fail
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.calls[-1:] == ["one"])
    assert watched.log.count("defect") >= 1
    watched.runs("one", "two")
    watched.engine.tell()
    await watched.until(lambda: watched.calls[-1] == "one two")


@pytest.mark.parametrize("ask_every", [0.001])
async def test_it_asks_again_without_an_event(watched: Watched) -> None:
    """What stood in the way of a port may have gone, and no event tells of that."""
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.calls.count("one") >= 3)
    assert watched.engine.asked("/events") == 1


async def test_many_events_at_once_are_asked_about_once(watched: Watched) -> None:
    await watched.engine.start()
    await watched.until(lambda: len(watched.calls) == 2)
    watched.engine.tell(EVENT * 500)
    await watched.until(lambda: len(watched.calls) == 3)
    for _ in range(100):
        await asyncio.sleep(0)
    assert watched.engine.asked("/containers/json") == 2


async def test_what_happens_while_we_ask_is_asked_about(watched: Watched) -> None:
    """The answer on its way may be older than the event."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        writer.write(HEAD + b"[]")

    watched.engine.containers = slowly
    await watched.engine.start()
    await asked.wait()
    watched.engine.tell()
    await watched.until(watched.watcher._stirred.is_set)
    watched.runs("new")
    go_on.set()
    await watched.until(lambda: watched.calls == ["found", "", "new"])


async def test_who_is_created_is_listed_while_processes_are_asked_for(watched: Watched) -> None:
    """The Engine says nothing about a container that it starts, for as long as that takes."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        writer.write(HEAD + json.dumps({"State": {"Pid": 4711}}).encode())

    watched.enters = "one"
    watched.engine.inspect = slowly
    watched.runs("one")
    await watched.engine.start()
    await asked.wait()
    watched.runs("one", "three", created=("two",))
    watched.engine.tell()
    await watched.until(lambda: watched.listed == ["one", "three", "two"])
    assert watched.calls == ["found", "", "three"]
    go_on.set()
    await watched.until(lambda: watched.calls == ["found", "", "three", "one three"])
    assert watched.pids == [4711, 0]


def process(pid: int) -> Answer:
    """What the Engine says of a container whose first process is this one."""
    return says(HEAD + json.dumps({"State": {"Pid": pid}}).encode())


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that the test may end."""
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


async def test_a_process_is_asked_for_once(
    watched: Watched, child: subprocess.Popen[bytes]
) -> None:
    """As long as it lives."""
    watched.enters = "one"
    watched.engine.inspect = process(child.pid)
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", "", "one"])
    for count in (2, 3):
        watched.watcher.stir()
        await watched.until(lambda: watched.calls == ["found", "", *["one"] * count])  # noqa: B023
    assert (watched.pids, watched.engine.asked("/containers/one/json")) == ([child.pid], 1)
    child.kill()
    child.wait()
    watched.engine.inspect = process(os.getpid())
    watched.watcher.stir()
    await watched.until(lambda: watched.calls[-3:] == ["one", "", "one"])
    assert (watched.pids, watched.engine.asked("/containers/one/json")) == ([os.getpid()], 2)


async def test_a_number_that_was_given_away_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, which began at another time."""
    watched.enters = "one"
    watched.engine.inspect = process(os.getpid())
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", "", "one"])
    monkeypatch.setattr(watcher, "start_time", lambda _: 1)
    watched.watcher.stir()
    await watched.until(lambda: watched.calls == ["found", "", "one", "", "one"])


async def test_processes_that_cannot_be_seen_from_here(watched: Watched) -> None:
    """From inside of a container: they are asked for each time, and told meanwhile."""
    watched.enters = "one"
    watched.engine.inspect = process(2**22 + 1)
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", "", "one"])
    watched.engine.inspect = process(2**22 + 2)
    watched.watcher.stir()
    await watched.until(lambda: watched.calls == ["found", "", "one", "one", "one"])
    assert watched.pids == [2**22 + 2]


async def test_a_process_that_is_not_there_yet(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "ASK_AGAIN", 0.0)
    watched.enters = "one"
    watched.engine.inspect = process(0)
    watched.runs("one")
    await watched.engine.start()
    await watched.until(lambda: watched.engine.asked("/containers/one/json") == 3)
    assert set(watched.calls) == {"found", ""}
    watched.engine.inspect = process(os.getpid())
    await watched.until(lambda: watched.calls[-1] == "one")


async def test_an_engine_that_comes_late(watched: Watched) -> None:
    """The pauses double up to a limit, and it is told once that it is not there."""
    await watched.until(lambda: len(watched.pauses) >= 10)
    assert watched.pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert watched.log == ["engine-lost"]
    assert watched.watcher.is_lost
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", ""])
    assert watched.log == ["engine-lost", "engine-found"]
    assert not watched.watcher.is_lost


async def test_an_engine_that_goes_and_comes_back(watched: Watched) -> None:
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", ""])
    before = watched.log  # it may have been looked for before it was there
    for count in (2, 3):
        await watched.engine.stop()
        await watched.until(lambda: watched.watcher.is_lost)
        await watched.engine.start()
        await watched.until(lambda: not watched.watcher.is_lost)
        await watched.until(lambda: watched.engine.asked("/events") == count)  # noqa: B023
    await watched.until(lambda: watched.calls == ["found", ""] * 3)
    assert watched.log == before + ["engine-lost", "engine-found"] * 2


async def test_a_long_life_is_forgiven(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Engine that was there for a while is looked for often again."""
    await watched.until(lambda: len(watched.pauses) >= 7)
    await watched.engine.start()
    await watched.until(lambda: watched.calls == ["found", ""])
    monkeypatch.setattr(watcher, "LONGEST_PAUSE", -1.0)  # any life is longer, on any clock
    before = len(watched.pauses)
    await watched.engine.stop()
    await watched.until(lambda: len(watched.pauses) > before)
    assert watched.pauses[before] == 0.1


async def test_an_engine_that_cannot_list(watched: Watched) -> None:
    """Events alone are not enough: it is lost until it has answered, and asked less and less."""
    watched.engine.containers = says(b"HTTP/1.0 500 Internal Server Error\r\n\r\nno\n")
    await watched.engine.start()
    await watched.until(lambda: len(watched.pauses) >= 8)
    assert watched.pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert watched.calls == []
    assert watched.log == ["engine-lost"]
    watched.runs("one")
    await watched.until(lambda: watched.calls == ["found", "one"])
    assert watched.log == ["engine-lost", "engine-found"]


@pytest.mark.parametrize(
    "events",
    [HEAD, HEAD + b"garbage\n", HEAD + EVENT + b"{", HEAD + bytes(5 << 20), b"HTTP/1.0 404 "],
)
async def test_events_that_break_off(watched: Watched, events: bytes) -> None:
    watched.engine.events = says(events)
    await watched.engine.start()
    await watched.until(lambda: len(watched.pauses) >= 8)
    assert watched.pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    watched.engine.events = watched.engine._listen
    watched.runs("one")
    await watched.until(lambda: watched.calls[-2:] == ["found", "one"])


@pytest.mark.parametrize(
    "item",
    [
        b"{}",
        b'{"Id": "1", "Names": 3}',
        b'{"Id": "1", "Ports": [{"PublicPort": 80}]}',
        b'{"Id": "1", "NetworkSettings": {"Networks": [1]}}',
        b'{"Id": "1", "NetworkSettings": {"Networks": {"a": 1}}}',
    ],
)
async def test_a_container_that_is_not_understood(watched: Watched, item: bytes) -> None:
    watched.engine.containers = says(HEAD + b"[" + item + b"]")
    await watched.engine.start()
    await watched.until(lambda: len(watched.pauses) >= 2)
    assert watched.log == ["engine-lost"]
    watched.runs("one")
    await watched.until(lambda: watched.calls == ["found", "one"])


async def test_nothing_is_left_open(watched: Watched) -> None:
    """However often it is found and lost."""
    counts = []
    for _ in range(4):
        await watched.engine.start()
        await watched.until(lambda: not watched.watcher.is_lost)
        await watched.engine.stop()
        await watched.until(lambda: watched.watcher.is_lost)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[1:] == counts[1:2] * 3
