"""What clients send to a container that has not started is not delivered when it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.process import eventually
from v6fwd.demo.lab import Lab

pytestmark = pytest.mark.netns

ADDRESS = "172.17.0.9"
"""Of the container, which has it only later."""
LISTEN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("0.0.0.0", 53))
    print("listens", flush=True)
    print(sock.recv(99).decode(), flush=True)
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(sys.argv[1].encode(), (sys.argv[2], 53))
"""
DROP = "import sys; from v6fwd.docker.neighbours import drop_waiting; drop_waiting(sys.argv[1:])"


def waiting(lab: Lab) -> str:
    """What the host knows of the container's hardware address."""
    return str(lab.run("host", "ip", "neighbour", "show", ADDRESS).stdout)


@pytest.mark.parametrize(("drops", "first"), [(False, "before"), (True, "after")])
def test_what_waits_for_a_container(lab: Lab, drops: bool, first: str) -> None:
    listener = lab.start(
        "container", sys.executable, "-c", LISTEN, stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "listens\n"
    lab.run("host", sys.executable, "-c", SEND, "before", ADDRESS).check_returncode()
    eventually(lambda: "INCOMPLETE" in waiting(lab), "it is asked who has the address")
    if drops:
        lab.run("host", sys.executable, "-c", DROP, ADDRESS).check_returncode()
        assert "INCOMPLETE" not in waiting(lab)
    lab.ip("container", "address", "add", f"{ADDRESS}/16", "dev", "eth0")
    lab.run("host", sys.executable, "-c", SEND, "after", ADDRESS).check_returncode()
    assert listener.stdout.readline() == f"{first}\n"


def test_nothing_waits(lab: Lab) -> None:
    for _ in range(2):
        lab.run("host", sys.executable, "-c", DROP, ADDRESS).check_returncode()
