"""The controller and the Engine that it is told to ask."""

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


class Bench:
    """A controller at work, without a shim and without nft, and two Engines."""

    def __init__(self, folder: Path) -> None:
        self.engines = [FakeEngine(folder / name) for name in ("one", "two")]
        self.logged = Logged()
        self.controller = Controller(Docker(self.engines[0].host), Limits(), self.logged.log)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let others go on until it is so."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - others do not know what we wait for
                await asyncio.sleep(0.001)

    def asked(self) -> list[int]:
        """How often each Engine has been asked for its containers."""
        return [engine.asked("/containers/json") for engine in self.engines]


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("V6FWD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(tmp_path))  # this host's rules are none of our business
    bench = Bench(tmp_path)
    for engine in bench.engines:
        await engine.start()
    await bench.controller.begin(Supervisor(1, Limits(), bench.logged.log))
    await bench.until(lambda: bench.asked() == [1, 0])
    yield bench
    bench.controller.close(succeeded=False)
    for engine in bench.engines:
        await engine.stop()
    bench.logged.close()


async def test_other_rules(bench: Bench) -> None:
    """The same Engine is asked again, at its open ear."""
    bench.controller.reconfigure(Docker(bench.engines[0].host, (Rule(ClientIP.PROXY_V2),)))
    await bench.until(lambda: bench.asked() == [2, 0])
    assert bench.engines[0].asked("/events") == 1


async def test_another_engine(bench: Bench) -> None:
    """It is asked at once, and the one before no more; nothing was lost, so nothing is told."""
    bench.controller.reconfigure(Docker(bench.engines[1].host))
    await bench.until(lambda: bench.asked() == [1, 1])
    bench.engines[0].tell()
    bench.engines[1].tell()
    await bench.until(lambda: bench.asked()[1] == 2)
    assert bench.asked() == [1, 2]
    assert bench.logged.lines() == []
    bench.controller.reconfigure(Docker(bench.engines[0].host))
    await bench.until(lambda: bench.asked()[0] == 2)


async def test_another_engine_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    bench.controller.reconfigure(Docker(f"unix://{tmp_path}/none"))
    told: list[tuple[str, str]] = []

    def is_told() -> bool:
        told.extend(bench.logged.lines())
        return bool(told)

    await bench.until(is_told)
    [(event, text)] = told
    assert event == "engine-lost"
    assert f"unix://{tmp_path}/none: no such file" in text
    bench.controller.reconfigure(Docker(bench.engines[1].host))
    await bench.until(lambda: bench.asked()[1] == 1)
