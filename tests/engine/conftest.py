"""Engines for the tests of this ring: started once for a module, as they are slow."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import ENGINES, Engine, engine_lab
from tests.support.images import load_echo
from tests.support.shim import install

ASK = Path(__file__).with_name("ask.py")
PROGRAMS = ("docker", "runc", "socat", "apache2", "busybox", "iptables")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs namespaces and these programs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.netns)
            item.add_marker(pytest.mark.server(*PROGRAMS))


every_engine = [
    pytest.param(name, marks=pytest.mark.server(str(root / "usr/sbin/dockerd")))
    for name, root in ENGINES.items()
]


@pytest.fixture(scope="module", params=every_engine)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine, with the shim for its userland proxy and no daemon of ours."""
    folder = Path(tempfile.mkdtemp(prefix="v6fwd-engine-"))
    try:
        with engine_lab() as lab:
            shim = install(folder)
            engine = Engine(
                lab, folder, ENGINES[request.param],
                **{"userland-proxy-path": str(shim), "live-restore": True},
            )  # fmt: skip
            try:
                engine.start(V6FWD_RUN_DIR=str(folder / "v6fwd"))
                assert engine.version().startswith(request.param)
                load_echo(engine)
                yield engine
            finally:
                engine.end()
                assert not engine.processes()
    finally:
        shutil.rmtree(folder)


def ask(engine: Engine, protocol: str, host: str, *ports: int) -> list[str]:
    """What the client in its namespace is told by these ports."""
    words = (sys.executable, str(ASK), protocol, host, *map(str, ports))
    asked: subprocess.CompletedProcess[str] = engine.lab.run("client", *words)
    assert asked.returncode == 0, asked.stderr + engine.log[-3000:]
    return asked.stdout.splitlines()
