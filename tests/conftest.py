"""Fixtures of all rings, and the word on what a machine cannot run."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import uvloop

from tests.support.daemon import ServeProcess
from tests.support.load import Load, loading
from tests.support.process import ForwardProcess
from tests.support.servers import open_folder
from tests.support.site import Site
from tests.support.stage import Stage
from v6fwd.demo.lab import Lab, lab_obstacle

_left_out: dict[str, int] = {}

os.environ["V6FWD_SECCOMP"] = "strict"  # a system call that is not in the filter ends the worker


@cache
def _obstacle(kind: str, *programs: str) -> str | None:
    if kind == "netns":
        return lab_obstacle()
    missing = [program for program in programs if shutil.which(program) is None]
    return f"no {', '.join(missing)}" if missing else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs root or a server that is not here; on CI that is an error instead."""
    for item in items:
        for marker in item.iter_markers():
            if marker.name not in ("netns", "server"):
                continue
            why = _obstacle(marker.name, *marker.args)
            if why is not None:
                _left_out[why] = _left_out.get(why, 0) + 1
                item.add_marker(pytest.mark.skip(reason=why))
                break


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out."""
    if _left_out:
        words = "; ".join(f"{count} tests ({why})" for why, count in _left_out.items())
        terminalreporter.write_line(f"left out: {words}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI leaves nothing out: a skipped check is no passed check."""
    if _left_out and os.environ.get("CI"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The product's loop."""
    return {"uvloop": uvloop.new_event_loop}


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
