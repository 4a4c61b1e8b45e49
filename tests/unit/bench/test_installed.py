"""The environment that v6fwd is measured in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import v6fwd
from bench import installed


def run(*words: str) -> str:
    """What its interpreter prints."""
    command = [installed.python(), "-P", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_v6fwd_runs_there_without_hooks_of_developers() -> None:
    hooks = "__editable__", "coverage", "_distutils_hack"
    told = run("-c", "import sys; print(*sys.modules)")
    assert not [name for name in told.split() if name.startswith(hooks)]
    command = [installed.program(), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("v6fwd, version ")


def test_all_modules_are_compiled() -> None:
    """A start that compiles them measures something else, and cannot where files are read-only."""
    told = run("-c", "import v6fwd.cli.quick as quick; print(quick.__file__, quick.__cached__)")
    source, compiled = map(Path, told.split())
    assert source.is_file()
    assert compiled.is_file()
    assert not source.is_relative_to(Path(v6fwd.__file__).parent)


def test_its_libraries_are_those_that_v6fwd_needs() -> None:
    needed = {"click", "httptools", "prometheus-client", "rich", "uvloop"}
    assert needed <= installed.libraries("v6fwd")
    assert not {"pytest", "mypy", "coverage"} & installed.libraries("v6fwd")
    run("-c", "import click, httptools, prometheus_client, rich.live, uvloop")
