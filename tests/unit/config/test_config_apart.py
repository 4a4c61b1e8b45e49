"""The configuration, read in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from v6fwd.config import ConfigError, load
from v6fwd.config.apart import load_apart

_GOOD = '[[forward]]\nlisten = "[::]:80-89"\ntarget = "172.17.0.2:80-89"\nallow = "10.0.0.0/8"\n'
_BAD = 'workers = 0\n[[forward]]\nlisten = "80"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a good configuration."""
    path = tmp_path / "v6fwd.toml"
    path.write_text(_GOOD)
    return path


def test_it_is_the_same_configuration(path: Path) -> None:
    assert load_apart(path) == load(path)


def test_every_mistake_comes_back(path: Path) -> None:
    path.write_text(_BAD)
    with pytest.raises(ConfigError) as here:
        load(path)
    with pytest.raises(ConfigError) as apart:
        load_apart(path)
    assert len(here.value.mistakes) > 1
    assert apart.value.mistakes == here.value.mistakes


def test_what_reads_it_is_not_kept(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from v6fwd.config.apart import load_apart;"
        "print(len(load_apart(Path(sys.argv[1])).forwards), 'marshmallow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
    )
    assert done.stdout == "10 False\n"


def test_without_a_process_it_is_read_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", no_process)
    assert load_apart(path) == load(path)
