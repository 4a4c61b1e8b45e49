"""`v6fwd demo` as a person runs it, with root and without what root would need."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest


def _run_demo(path: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-m", "v6fwd", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert result.returncode == 0, result.stderr
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


@pytest.mark.netns
def test_in_the_lab() -> None:
    assert _run_demo(os.environ["PATH"]) == ["172.17.42.1", "2001:db8:1::2"]


def test_on_loopback() -> None:
    assert _run_demo("/nonexistent") == ["127.0.0.1", "::1"]


@pytest.mark.netns
def test_nothing_is_left_behind() -> None:
    _run_demo(os.environ["PATH"])
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    left = re.findall(r"v6fwd-(\d+)-\d+-\w+", listed.stdout)
    assert all(_is_alive(int(pid)) for pid in left), listed.stdout


def _is_alive(pid: int) -> bool:
    """Whether the lab's owner still runs: another test may have a lab of its own."""
    return os.path.exists(f"/proc/{pid}")
