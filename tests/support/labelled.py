"""For tests of mode `transparent` by label, on a real Engine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.process import eventually
from tests.support.served import Served
from v6fwd.netns.lease import LEASES
from v6fwd.netns.namespace import identity_of

LABEL = ("--label", "v6fwd.client-ip=transparent")


def inside(served: Served, name: str, *words: str) -> str:
    """What a command says in the network namespace of a container."""
    pid = served.engine.docker("inspect", "--format", "{{.State.Pid}}", name)
    command = ["nsenter", "--target", pid, "--net", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(served: Served, *words: str) -> None:
    """Start the container `one`, and wait until its port is served."""
    served.engine.run("--name", "one", *LABEL, *words)
    wait_served(served)


def wait_served(served: Served, listen: str = "[::]:8080") -> None:
    """Wait until the port is served in its mode."""
    eventually(lambda: served.modes().get(listen) == "transparent", "its port is served")


@contextlib.contextmanager
def cleared(served: Served) -> Iterator[Served]:
    """No container is left behind, and of those that there were no lease."""
    yield served
    print(served.log[-4000:], served.engine.log[-4000:])  # shown where a test failed
    left = served.engine.docker("ps", "--all", "--quiet").split()
    leases = [_lease(served, name) for name in left]
    if left:
        served.engine.remove(*left)
    eventually(lambda: not served.modes(), "its ports are closed")
    eventually(lambda: not any(lease.exists() for lease in leases), "its lease is given back")
    routes = served.engine.lab.run("host", "ip", "route", "show", "table", "local").stdout
    assert "240.0.0.0/4" not in routes, "nobody was served without the container's namespace"
    assert "Traceback" not in served.log


def _lease(served: Served, name: str) -> Path:
    """What there is for a container's namespace as long as somebody uses it."""
    pid = served.engine.docker("inspect", "--format", "{{.State.Pid}}", name)
    found = identity_of(pid)
    assert found is not None
    return LEASES / found
