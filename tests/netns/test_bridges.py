"""A target on a bridge of Docker's: one line says that containers change such addresses."""

from __future__ import annotations

import pytest

from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import CONTAINER_V4, Lab

pytestmark = pytest.mark.netns


def test_forward_says_so_once_it_serves(lab: Lab, forward_process: ForwardProcess) -> None:
    words = ("[::]:8080", f"{CONTAINER_V4}:80", "[::]:8081", "127.0.0.1:80")
    forward_process.start(*words, prefix=lab.command("host"))
    eventually(lambda: "bridge" in forward_process.log, "the line")
    ready, *_, line = forward_process.log.splitlines()
    assert ready == "ready: 2 forwards"
    assert forward_process.log.count("bridge") == 1
    assert line.startswith(f"target {CONTAINER_V4}:80 is on Docker's bridge docker0")
