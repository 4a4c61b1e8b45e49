"""The container of a process that has a port."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.controlled import container
from tests.support.fake_engine import HEAD, FakeEngine, hangs, says
from v6fwd.docker import holder_container
from v6fwd.docker.holder_container import container_of
from v6fwd.netns.owners import Process

FLAGS = [
    "-proto",
    "tcp",
    "-host-ip",
    "::",
    "-host-port",
    "8080",
    "-container-ip",
    "127.0.0.1",
    "-container-port",
    "9",
]
PROXY = Process(7, "docker-proxy", words=("/usr/bin/docker-proxy", *FLAGS))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    return engine


async def asked(engine: FakeEngine, process: Process) -> str:
    await engine.start()
    found = await asyncio.to_thread(container_of, process)
    await engine.stop()
    return found


CODE = "import os\nfrom v6fwd.docker.shim.standalone import main\n"


@pytest.mark.parametrize(
    "words",
    [
        ("/usr/bin/docker-proxy",),
        ("/v/hold-x86_64", "/run/v6fwd/shims", "5", "/bin/v6fwd-docker-proxy"),
        ("/usr/bin/python3", "-I", "-c", CODE, "/usr/bin/docker-proxy"),
    ],
)
async def test_the_programs_of_dockerd(engine: FakeEngine, words: tuple[str, ...]) -> None:
    listed = [container("a", 8080), container("b", 8081)]
    engine.containers = says(HEAD, json.dumps(listed).encode())
    assert await asked(engine, Process(7, "x", words=(*words, *FLAGS))) == "name-a"


async def test_a_port_that_nobody_publishes(engine: FakeEngine) -> None:
    assert await asked(engine, PROXY) == ""


@pytest.mark.parametrize("words", [(), ("nginx",), ("docker-proxy", "-proto", "sctp")])
async def test_another_program_is_not_asked_about(
    engine: FakeEngine, words: tuple[str, ...]
) -> None:
    assert await asked(engine, Process(7, "x", words=words)) == ""
    assert engine.paths == []


async def test_a_silent_engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_container, "PATIENCE", 0.05)
    engine.containers = hangs
    assert await asked(engine, PROXY) == ""


@pytest.mark.usefixtures("engine")
def test_no_engine() -> None:
    assert container_of(PROXY) == ""
