"""A check that was skipped has not passed: with CI set, every kind of skip fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SKIPS = {
    "body": "def test_it():\n    pytest.skip('not here')",
    "marker": "@pytest.mark.skip(reason='not here')\ndef test_it(): pass",
    "condition": "@pytest.mark.skipif(True, reason='not here')\ndef test_it(): pass",
    "fixture": "@pytest.fixture\ndef part(): pytest.skip('not here')\ndef test_it(part): pass",
    "module": "pytest.skip('not here', allow_module_level=True)",
    "unittest": "import unittest\ndef test_it(): raise unittest.SkipTest('not here')",
    "program": "@pytest.mark.server('not-a-program')\ndef test_it(): pass",
}
RUNS = {
    "passed": "def test_it(): pass",
    "expected failure": "@pytest.mark.xfail\ndef test_it(): assert False",
}


def run(folder: Path, test: str, ci: str) -> subprocess.CompletedProcess[str]:
    """Pytest with the plugin alone, on a file with that test and one that passes."""
    (folder / "test_some.py").write_text(f"import pytest\n{test}\n")
    (folder / "test_other.py").write_text("def test_it(): pass\n")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    server\n    netns\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.left_out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CI": ci}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", SKIPS)
def test_a_skip_fails_the_run_where_nothing_may_be_left_out(kind: str, tmp_path: Path) -> None:
    told = run(tmp_path, SKIPS[kind], ci="true")
    assert told.returncode == 2
    assert "left out: 1 tests (no" in told.stdout


def test_a_skip_is_reported_and_passes_elsewhere(tmp_path: Path) -> None:
    told = run(tmp_path, SKIPS["body"], ci="")
    assert told.returncode == 0
    assert "left out: 1 tests (not here)" in told.stdout


@pytest.mark.parametrize("kind", RUNS)
def test_what_ran_is_not_left_out(kind: str, tmp_path: Path) -> None:
    told = run(tmp_path, RUNS[kind], ci="true")
    assert told.returncode == 0
    assert "left out" not in told.stdout
