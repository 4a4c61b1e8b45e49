"""Daemons for the tests of this ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.load import Load, loading
from tests.support.site import Site


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
