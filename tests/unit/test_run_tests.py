"""scripts/run-tests: what fails beside the other parts is tried once more alone, and named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RINGS = ("unit", "docker", "servers", "netns", "process/tcp", "process/http", "process/daemon")
PASSES = "def test_it(): pass"
FAILS = "def test_it(): raise AssertionError"
FAILS_ONCE = """
from pathlib import Path
def test_it():
    ran = Path(__file__).with_suffix(".ran")
    before = ran.exists()
    ran.touch()
    assert before
"""


class Tree:
    """A project with a copy of the script, and one passing test in each ring."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/run-tests", root / "scripts")
        program = root / ".venv/bin/pytest"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pytest "$@"\n')
        program.chmod(0o755)
        (root / "conftest.py").write_text(
            "def pytest_addoption(parser): parser.addoption('--engine')\n"
        )
        for ring in RINGS:
            self.write(ring, PASSES)
        modules = re.findall(
            r'"(\w+/[\w/]*test_\w+\.py)"', (ROOT / "scripts/run-tests").read_text()
        )
        for module in modules:
            (root / "tests" / module).write_text(PASSES)

    def write(self, ring: str, source: str, name: str = "it") -> None:
        folder = self.root / "tests" / ring
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"test_{name}_{ring.replace('/', '_')}.py").write_text(source)

    def run(self) -> tuple[int, str]:
        """Exit status and output."""
        done = subprocess.run(
            [sys.executable, "scripts/run-tests"],
            cwd=self.root,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_all_pass(tree: Tree) -> None:
    status, told = tree.run()
    assert status == 0
    assert "alone" not in told


@pytest.mark.parametrize("ring", ["unit", "process/daemon"])
def test_what_passes_alone_is_named(tree: Tree, ring: str) -> None:
    tree.write(ring, FAILS_ONCE)
    status, told = tree.run()
    assert status == 0
    name = f"tests/{ring}/test_it_{ring.replace('/', '_')}.py::test_it"
    assert f"once more alone: {name}\n" in told
    assert f"passed alone: {name}\n" in told


@pytest.mark.parametrize("ring", ["unit", "process/daemon"])
def test_what_fails_again_fails_all(tree: Tree, ring: str) -> None:
    tree.write(ring, FAILS)
    status, told = tree.run()
    assert status == 1
    assert "failed again: " in told


def test_many_failures_are_final(tree: Tree) -> None:
    for number in range(4):
        tree.write("servers", FAILS_ONCE, f"fails{number}")
    status, told = tree.run()
    assert status == 1
    assert "alone" not in told


def test_a_broken_module_is_final(tree: Tree) -> None:
    tree.write("netns", "raise OSError")
    status, told = tree.run()
    assert status == 2
    assert "alone" not in told


def test_python_alone_is_a_part(tree: Tree) -> None:
    tree.write("process/tcp", "def test_it(request): assert request.config.option.engine != 'pure'")
    status, told = tree.run()
    assert status == 1
    assert "failed again: tests/process/tcp/test_it_process_tcp.py::test_it" in told


def test_the_native_epoll_alone_is_a_part(tree: Tree) -> None:
    source = "def test_it(request): assert request.config.option.engine != 'epoll'"
    (tree.root / "tests/process/tcp/test_resets.py").write_text(source)
    status, told = tree.run()
    assert status == 1
    assert "failed again: tests/process/tcp/test_resets.py::test_it" in told


def test_one_part_does_not_hide_another(tree: Tree) -> None:
    tree.write("unit", FAILS_ONCE)
    tree.write("docker", FAILS)
    assert tree.run()[0] == 1
