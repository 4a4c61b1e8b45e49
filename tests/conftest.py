"""Fixtures of all rings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

from tests.support.daemon import ServeProcess
from tests.support.load import Load, loading
from tests.support.process import ForwardProcess
from tests.support.servers import open_folder
from tests.support.site import Site
from tests.support.stage import Stage
from v6fwd.demo.lab import Lab
from v6fwd.relay.pairs.native import PURE, is_native
from v6fwd.relay.pairs.pump import TAKES_ALL
from v6fwd.relay.ring.choose import ENVIRONMENT

# A slow machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["tests.support.left_out"]

# A system call that the filter does not name ends the worker, so that a test sees it.
os.environ["V6FWD_SECCOMP"] = "strict"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take --engine: what moves the bytes of plain TCP flows."""
    choices = ("auto", "epoll", "ring", "pure")
    parser.addoption("--engine", choices=choices, default="auto")


def pytest_configure(config: pytest.Config) -> None:
    """Let every relay use that: what it has outside, the native epoll, the ring, or Python alone.

    The ring takes even lonely flows, and those whose answer would be looked at.
    """
    engine = config.getoption("--engine")
    if engine in ("ring", "epoll"):
        os.environ[ENVIRONMENT] = engine
    if engine == "ring":
        os.environ[TAKES_ALL] = engine
    if engine == "pure":
        os.environ[PURE] = "1"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests in the loop that v6fwd runs in."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def looks_at_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A native pump leaves the flows alone whose first answer is to be looked at, as outside."""
    monkeypatch.delenv(TAKES_ALL, raising=False)


@pytest.fixture
def on_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test breaks what is the own of the pump in Python."""
    monkeypatch.setenv(ENVIRONMENT, "epoll")
    monkeypatch.setenv(PURE, "1")


@pytest.fixture
def on_native_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is about the native epoll."""
    monkeypatch.setenv(ENVIRONMENT, "epoll")
    monkeypatch.delenv(PURE, raising=False)
    monkeypatch.setenv(TAKES_ALL, "epoll")
    if not is_native():
        pytest.skip("the native epoll is not built")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The namespaces client, host and container, for one test."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def forward_process(tmp_path: Path) -> Iterator[ForwardProcess]:
    """`v6fwd forward` as a process of its own, started by the test, ended with it."""
    process = ForwardProcess(tmp_path)
    yield process
    process.end()


@pytest.fixture
def stage(lab: Lab, forward_process: ForwardProcess) -> Iterator[Stage]:
    """The lab with a folder that servers without root may use."""
    with open_folder() as folder:
        yield Stage(lab, folder, forward_process)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ServeProcess]:
    """A daemon, to be configured and run by the test."""
    process = ServeProcess(tmp_path)
    yield process
    process.end()
    assert "internal error" not in process.log
    assert "Traceback" not in process.log


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[ServeProcess]:
    """A second one with the same configuration and control socket."""
    process = ServeProcess(tmp_path, "successor")
    yield process
    process.end()
    assert "Traceback" not in process.log


@pytest.fixture
def load() -> Iterator[Load]:
    """Steady load, as soon as the test says where."""
    with loading() as load:
        yield load


@pytest.fixture
def site(daemon: ServeProcess) -> Iterator[Site]:
    """A daemon with two targets, to be run by the test."""
    site = Site(daemon)
    yield site
    site.close()
