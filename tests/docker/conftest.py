"""Engines for the tests of this ring: started once for a module, as they are slow."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import ENGINES, Engine, engine_lab
from tests.support.images import load_echo, load_httpd
from tests.support.labelled import cleared
from tests.support.served import Served
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


@contextlib.contextmanager
def shimmed_engine(name: str) -> Iterator[Engine]:
    """An engine with live-restore and our shim, to be started; all that it leaves ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="v6fwd-engine-"))
    try:
        with engine_lab() as lab:
            settings: dict[str, Any] = {
                "userland-proxy-path": str(install(folder)),
                "live-restore": True,
            }
            engine = Engine(lab, folder, ENGINES[name], **settings)
            try:
                yield engine
            finally:
                engine.end()
                assert not engine.processes()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=every_engine)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine, with the shim for its userland proxy and no daemon of ours."""
    with shimmed_engine(request.param) as engine:
        engine.start(V6FWD_RUN_DIR=str(engine.folder / "v6fwd"))
        assert engine.version().startswith(request.param)
        load_echo(engine)
        yield engine


@pytest.fixture(scope="module", params=every_engine)
def whole(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Each engine, whose shims meet a daemon of ours, for all tests of a module."""
    with shimmed_engine(request.param) as engine:
        served = Served(engine)
        try:
            served.start()
            engine.start(**served.environment())
            load_echo(engine)
            load_httpd(engine, "httpd")
            yield served
        finally:
            served.end()


@pytest.fixture
def labelled(whole: Served) -> Iterator[Served]:
    """The same, for containers in mode `transparent`."""
    with cleared(whole):
        yield whole


def apache_conf(served: Served, text: str) -> tuple[str, str]:
    """What gives a container `httpd` this configuration."""
    file = served.engine.folder / "httpd.conf"
    file.write_text(text)
    return "--volume", f"{file}:/usr/local/apache2/conf/httpd.conf:ro"


@contextlib.contextmanager
def without_userland_proxy(served: Served) -> Iterator[None]:
    """dockerd starts no shim, for a while; its containers must have gone at the end of it."""
    engine = served.engine
    engine.stop()
    before = engine.config.read_text()
    engine.config.write_text(json.dumps(json.loads(before) | {"userland-proxy": False}))
    try:
        engine.start()
        yield
    finally:
        engine.stop()
        engine.config.write_text(before)
        engine.start(**served.environment())


def fetch(served: Served, host: str, path: str = "/") -> subprocess.CompletedProcess[str]:
    """Ask a web server for a page, from the client's namespace; it may be just starting."""
    url = f"http://[{host}]:8080{path}" if ":" in host else f"http://{host}:8080{path}"
    again = ("--retry", "40", "--retry-all-errors", "--retry-delay", "0", "--retry-max-time", "20")
    asked: subprocess.CompletedProcess[str] = served.engine.lab.run(
        "client", "curl", "--silent", "--show-error", *again, url
    )
    return asked


def ask(engine: Engine, protocol: str, host: str, *ports: int) -> list[str]:
    """What the client in its namespace is told by these ports."""
    words = (sys.executable, str(ASK), protocol, host, *map(str, ports))
    asked: subprocess.CompletedProcess[str] = engine.lab.run("client", *words)
    assert asked.returncode == 0, asked.stderr + engine.log[-3000:]
    return asked.stdout.splitlines()
