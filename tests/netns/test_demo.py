"""`v6fwd demo` as a person runs it, with root and without what root would need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def _run_demo(path: str) -> tuple[int, list[str]]:
    """Its process id, and the addresses that it prints."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "v6fwd", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": path},
    )
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, errors
    return demo.pid, [line.split()[0] for line in output.splitlines()[1:]]


@pytest.mark.netns
def test_in_the_lab() -> None:
    pid, addresses = _run_demo(os.environ["PATH"])
    assert addresses == ["172.17.42.1", "2001:db8:1::2"]
    assert f"v6fwd-{pid}-" not in _namespaces(), "nothing is left behind"


def test_on_loopback() -> None:
    assert _run_demo("/nonexistent")[1] == ["127.0.0.1", "::1"]


def _namespaces() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
