"""Which processes may stand in the way of a published port."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from tests.support.process import eventually, free_port
from v6fwd.demo.lab import Lab, stop
from v6fwd.docker.shim.published import published_here, published_ports

pytestmark = [pytest.mark.netns, pytest.mark.server("docker-proxy", "setpriv")]

NOBODY = ("setpriv", "--reuid", "65534", "--clear-groups")


@contextlib.contextmanager
def docker_proxy(port: int, *prefix: str) -> Iterator[int]:
    """A docker-proxy for [::1]:`port`; gives its process id."""
    flags = f"-proto tcp -host-ip ::1 -host-port {port} -container-ip 127.0.0.1 -container-port 9"
    command = ("sh", "-c", f"exec 3>/dev/null; exec {' '.join(prefix)} docker-proxy {flags}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: process.pid in {each.pid for each in published_ports()}, "it runs")
        yield process.pid
    finally:
        stop(process)


@pytest.mark.parametrize("user", [(), NOBODY])
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_whose_they_are(lab: Lab, user: Sequence[str], is_elsewhere: bool) -> None:
    """Not those of Docker in a container, nor whom somebody else has given such a name."""
    network = ("ip", "netns", "exec", lab.namespace("container")) if is_elsewhere else ()
    with docker_proxy(free_port(), *network, *user) as pid:
        is_in_the_way = pid in {each.pid for each in published_here()}
        assert is_in_the_way == (not is_elsewhere and not user)
