"""The host tracks connections, as Docker's always does: its table is emptied, and full.

How large the table is can only be said for the whole machine, so a full one is played: what is
not in it yet is dropped on its way out, and the sender is told EPERM, as nf_conntrack_in has it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.process import eventually
from tests.support.stage import PORT, Stage, client_script
from v6fwd.demo.lab import CONTAINER_V4, HOST_V6, Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("nft", "conntrack")]

ECHO_PORT = 7

FIREWALL = f"""
add table inet firewall
add chain inet firewall input {{ type filter hook input priority 0; policy drop; }}
add rule inet firewall input meta l4proto {{ icmp, ipv6-icmp }} accept
add rule inet firewall input ct state established,related accept
add rule inet firewall input meta l4proto {{ tcp, udp }} th dport {PORT} accept
"""
"""Answers pass only if the table knows the question."""

FULL = """
add table inet fault
add chain inet fault output { type filter hook output priority 0; }
add rule inet fault output meta l4proto { tcp, udp } ct state new,untracked counter drop
"""

NO_UDP_ANSWERS = f"""
add table inet fault
add chain inet fault output {{ type filter hook output priority 0; }}
add rule inet fault output udp sport {PORT} counter drop
"""


class DualClient:
    """A UDP session and a TCP connection of one client, which stay open."""

    def __init__(self, lab: Lab) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        words = client_script("udp_and_tcp", HOST_V6, str(PORT))
        self._process = lab.start("client", *words, **pipes)

    def send(self, protocol: str, text: str) -> None:
        """Send a line, and wait for nothing."""
        self._command(f"send {protocol} {text}")

    def receive(self, protocol: str) -> str:
        """The next line that comes back."""
        self._command(f"receive {protocol}")
        assert self._process.stdout is not None
        return str(self._process.stdout.readline()).strip()

    def exchange(self, text: str) -> None:
        """Send a line on both, and receive it back."""
        for protocol in ("udp", "tcp"):
            self.send(protocol, text)
            assert self.receive(protocol) == text

    def end(self) -> None:
        """Close both."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=20) == 0

    def _command(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@pytest.fixture
def client(stage: Stage) -> DualClient:
    """A client connected through a relay on a host with a firewall."""
    nft(stage.lab, FIREWALL)
    words = (sys.executable, "-c", ECHO, str(ECHO_PORT))
    stage.lab.start("container", *words, stdin=subprocess.DEVNULL)
    listens = ("ss", "-Hltun", f"sport = :{ECHO_PORT}")
    eventually(
        lambda: len(stage.lab.run("container", *listens).stdout.splitlines()) == 2, "it listens"
    )
    target = f"{CONTAINER_V4}:{ECHO_PORT}"
    stage.start_forward(f"[::]:{PORT}/tcp+udp", target, "--log-flows")
    return DualClient(stage.lab)


ECHO = """
import socket, sys, threading
address = ("0.0.0.0", int(sys.argv[1]))
server = socket.create_server(address)
def stream():
    sock, _ = server.accept()
    while data := sock.recv(65536):
        sock.sendall(data)
threading.Thread(target=stream, daemon=True).start()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(address)
while True:
    sock.sendto(*sock.recvfrom(65536))
"""


def nft(lab: Lab, rules: str) -> None:
    """Add rules on the host."""
    lab.run("host", "nft", "-f", "-", input=rules).check_returncode()


def forget_all(lab: Lab) -> None:
    """Empty the host's table, in which the session and the connection were: four entries."""
    assert len(lab.run("host", "conntrack", "-L").stdout.splitlines()) >= 4
    lab.run("host", "conntrack", "-F").check_returncode()


def has_dropped(stage: Stage, count: int) -> Callable[[], bool]:
    """Whether the host has dropped so many packets."""
    return lambda: stage.dropped("host") >= count


def udp_flows(stage: Stage, client: DualClient) -> list[str]:
    """What the relay, once it has ended, says of its UDP sessions."""
    client.end()
    stage.forward.signal(signal.SIGTERM)
    assert stage.forward.wait() == 0
    return re.findall(r".* datagrams up, .*", stage.forward.log)


def test_a_table_that_is_emptied(stage: Stage, client: DualClient) -> None:
    client.exchange("begin")
    for number in range(10):
        forget_all(stage.lab)
        client.exchange(f"question {number}")
    [flow] = udp_flows(stage, client)
    assert " in 11 datagrams up, " in flow


@pytest.mark.parametrize("rules", [FULL, NO_UDP_ANSWERS], ids=["on the way up", "on the way down"])
def test_a_table_that_is_full(stage: Stage, client: DualClient, rules: str) -> None:
    """What cannot be sent is lost, or for TCP sent again; the session is the same afterwards."""
    lab = stage.lab
    client.exchange("begin")
    nft(lab, rules)
    if rules is FULL:
        lab.run("host", "conntrack", "-F").check_returncode()
        client.send("tcp", "late")
    for number in range(5):
        client.send("udp", f"lost {number}")
        eventually(has_dropped(stage, number + 1), "it is dropped")
    lab.run("host", "nft", "delete", "table", "inet", "fault").check_returncode()
    if rules is FULL:
        assert client.receive("tcp") == "late"
    for number in range(5):
        client.exchange(f"question {number}")
    [flow] = udp_flows(stage, client)
    up = 6 if rules is FULL else 11
    assert f" in {up} datagrams up, " in flow
