"""The adopter and the Engine that it is told to ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.logged import Logged
from tests.support.process import PATIENCE
from v6fwd.config import Docker
from v6fwd.config.rules import Rule
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.controller import Controller
from v6fwd.model import ClientIP, Limits


class Room:
    """An adopter at work, without a shim and without nft, and two Engines."""

    def __init__(self, folder: Path) -> None:
        self.engines = [FakeEngine(folder / name) for name in ("one", "two")]
        self.logged = Logged()
        self.adopter = Controller(Docker(self.engines[0].host), Limits(), self.logged.log)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let others go on until it is so."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - others do not know what we wait for
                await asyncio.sleep(0.001)

    def asked(self) -> list[int]:
        """How often each Engine has been asked for its containers."""
        return [engine.asked("/containers/json") for engine in self.engines]


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setenv("V6FWD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", str(tmp_path))  # this host's rules are none of our business
    room = Room(tmp_path)
    for engine in room.engines:
        await engine.start()
    await room.adopter.begin(Supervisor(1, Limits(), room.logged.log))
    await room.until(lambda: room.asked() == [1, 0])
    yield room
    room.adopter.close(succeeded=False)
    for engine in room.engines:
        await engine.stop()
    room.logged.close()


async def test_other_rules(room: Room) -> None:
    """The same Engine is asked again, at its open ear."""
    room.adopter.reconfigure(Docker(room.engines[0].host, (Rule(ClientIP.PROXY_V2),)))
    await room.until(lambda: room.asked() == [2, 0])
    assert room.engines[0].asked("/events") == 1


async def test_another_engine(room: Room) -> None:
    """It is asked at once, and the one before no more; nothing was lost, so nothing is told."""
    room.adopter.reconfigure(Docker(room.engines[1].host))
    await room.until(lambda: room.asked() == [1, 1])
    room.engines[0].tell()
    room.engines[1].tell()
    await room.until(lambda: room.asked()[1] == 2)
    assert room.asked() == [1, 2]
    assert room.logged.lines() == []
    room.adopter.reconfigure(Docker(room.engines[0].host))
    await room.until(lambda: room.asked()[0] == 2)


async def test_another_engine_that_is_not_there(room: Room, tmp_path: Path) -> None:
    room.adopter.reconfigure(Docker(f"unix://{tmp_path}/none"))
    told: list[tuple[str, str]] = []

    def is_told() -> bool:
        told.extend(room.logged.lines())
        return bool(told)

    await room.until(is_told)
    [(event, text)] = told
    assert event == "engine-lost"
    assert f"unix://{tmp_path}/none: no such file" in text
    room.adopter.reconfigure(Docker(room.engines[1].host))
    await room.until(lambda: room.asked()[1] == 1)
