"""The shim's standalone mode: a process a port, where dockerd waits."""

from __future__ import annotations

import subprocess

from bench import installed

UNNEEDED = {"asyncio", "click", "dataclasses", "inspect", "logging", "re", "typing", "uvloop"}


def test_it_starts_without_what_it_does_not_need() -> None:
    code = (
        "import os, sys; from v6fwd.relay.life.alone import Alone;"
        "Alone.run = lambda self, ready: print(*sys.modules);"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 3);"
        "from v6fwd.docker.shim.standalone import main;"
        "main('-host-ip ::1 -host-port 1 -container-ip 127.0.0.1 -container-port 80'.split())"
    )
    done = subprocess.run(
        [installed.python(), "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    imported = set(done.stdout.split())
    assert "v6fwd.relay.ports" in imported
    assert not UNNEEDED & imported
