"""Relay processes for the tests of this ring."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rig import Rig
from tests.support.shim import SHELLS, Shim, install
from tests.support.web import web_probe
from v6fwd.relay.pairs.pump import TAKES_ALL

_EPOLL = ("auto", "epoll")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let the native epoll take flows whose first answer would be looked at, before any fixture.

    With `auto`, too: tests have too few flows at once for the ring.
    """
    if item.config.getoption("--engine") in _EPOLL:
        os.environ[TAKES_ALL] = "epoll"


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Elsewhere flows are as outside."""
    if item.config.getoption("--engine") in _EPOLL:
        os.environ.pop(TAKES_ALL, None)


@pytest.fixture(scope="session")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One process for all tests that need nothing but the defaults; see `rig`."""
    rig = Rig(tmp_path_factory.mktemp("rig"))
    yield rig.start()
    rig.end()


@pytest.fixture
def rig(shared_rig: Rig) -> Iterator[Rig]:
    """The shared process; whatever a test does to it, it keeps no socket and still serves."""
    yield shared_rig
    shared_rig.drop()
    shared_rig.probe()
    shared_rig.settled()
    assert "internal error" not in shared_rig.process.log
    assert "Traceback" not in shared_rig.process.log


@pytest.fixture
def own_rig(tmp_path: Path) -> Iterator[Rig]:
    """A process of the test's own, to be started with options or signalled."""
    rig = Rig(tmp_path)
    yield rig
    rig.end()
    assert "Traceback" not in rig.process.log


@pytest.fixture(params=SHELLS)
def shim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shim]:
    """The shim under each shell, to be started by the test."""
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"no {request.param}")
    shim = Shim(install(tmp_path), request.param)
    yield shim
    shim.end()


@pytest.fixture(scope="session")
def web_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One process in an HTTP mode for all tests that need no other options; see `web`."""
    rig = Rig(tmp_path_factory.mktemp("web"))
    yield rig.start("--client-ip", "x-forwarded-for", "--log-flows")
    rig.end()


@pytest.fixture
def web(web_process: Rig) -> Iterator[Rig]:
    """As `rig`, in an HTTP mode."""
    yield web_process
    web_process.drop()
    web_probe(web_process)
    web_process.drop()
    web_process.settled()
    assert "internal error" not in web_process.process.log
    assert "Traceback" not in web_process.process.log
