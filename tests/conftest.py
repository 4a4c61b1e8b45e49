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

from tests.support.process import ForwardProcess
from v6fwd.demo.lab import Lab, lab_obstacle

_left_out: dict[str, int] = {}


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
