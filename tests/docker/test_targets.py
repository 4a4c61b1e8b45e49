"""Targets by container under real engines: a restart at another address, the old one taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import ask
from tests.support.engine import Engine
from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import HOST_V6

GATEWAY, FIRST, SECOND = "172.30.0.1", "172.30.0.2", "172.30.0.3"


@contextlib.contextmanager
def network(engine: Engine) -> Iterator[None]:
    """A network `back`, whose containers go with it."""
    engine.docker("network", "create", "--subnet", "172.30.0.0/24", "back")
    try:
        yield
    finally:
        engine.try_docker("rm", "--force", "web", "thief")
        engine.docker("network", "rm", "back")


def address(engine: Engine, container: str) -> str:
    form = "{{.NetworkSettings.Networks.back.IPAddress}}"
    return engine.docker("inspect", "--format", form, container)


@pytest.mark.parametrize("mode", ["none", "transparent"])
def test_a_container_that_moves(engine: Engine, tmp_path: Path, mode: str) -> None:
    """In mode transparent `echo`, which listens on IPv4 only, sees a pseudo address."""
    process = ForwardProcess(tmp_path)
    host = f"DOCKER_HOST=unix://{engine.socket}"
    target, store = "docker:web@back:80", str(tmp_path / "pseudo.sqlite")

    def serves() -> None:
        for protocol in ("tcp", "udp"):
            (told,) = ask(engine, protocol, HOST_V6, 9090)
            assert told.endswith(" hello"), process.log
            assert (told == f"from {GATEWAY} hello") is (mode == "none"), told

    with network(engine):
        engine.run("--name", "web", "--network", "back", "echo", "80")
        assert address(engine, "web") == FIRST
        try:
            process.start(
                *("[::]:9090/tcp+udp", target, "--client-ip", mode, "--pseudo-store", store),
                prefix=engine.lab.command("host", "env", host),
            )
            serves()
            engine.docker("stop", "--time", "0", "web")
            eventually(lambda: process.log.count("web is not running") == 2, "it is seen")
            engine.run("--name", "thief", "--network", "back", "--ip", FIRST, "echo", "81")
            engine.docker("start", "web")
            assert address(engine, "web") == SECOND
            eventually(lambda: process.log.count(f"is at {SECOND}") == 2, "both forwards follow")
            serves()
        finally:
            process.end()
        assert "internal error" not in process.log
