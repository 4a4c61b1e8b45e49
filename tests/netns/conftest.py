"""Fixtures of tests in namespaces of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.daemon_scene import Scene
from v6fwd.demo.lab import Lab


@pytest.fixture
def scene(lab: Lab, folder: Path) -> Iterator[Scene]:
    """A daemon that the test configures and starts; each module says what its `folder` is."""
    daemon = ServeProcess(folder)
    scene = Scene(lab, daemon, folder)
    yield scene
    scene.close()
    daemon.end()
    assert "internal error" not in daemon.log
    assert "Traceback" not in daemon.log
