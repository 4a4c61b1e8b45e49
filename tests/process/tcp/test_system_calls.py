"""How many system calls a short connection costs: each is a part of the price, so all are named."""

from __future__ import annotations

import re
import signal
import socket
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.process import eventually
from tests.support.rig import Rig, echoed, read_all, read_exactly

SHORT = [
    "accept4",  # and not once more in vain
    "readv",
    "socket",
    "setsockopt TCP_NODELAY",
    "setsockopt SO_OOBINLINE",
    "setsockopt TCP_QUICKACK",
    "connect",
    "write",
    "epoll_ctl",
    "epoll_ctl",
    "readv",
    "sendto",
    "shutdown",
    "readv",
    "close",
    "close",
]
"""A request, an answer and the target's end behind it, the client's end. Waiting is not counted:
how many events come at once is a matter of luck."""
SHORT_NATIVE = [
    "accept4",
    "socket",
    "setsockopt TCP_NODELAY",
    "setsockopt SO_OOBINLINE",
    "recvfrom",
    "setsockopt TCP_QUICKACK",
    "connect",
    "sendto",
    "epoll_ctl",
    "epoll_ctl",
    "recvfrom",
    "sendto",
    "shutdown",
    "recvfrom",
    "close",
    "close",
]
WAITS = {"epoll_wait", "epoll_pwait", "epoll_pwait2"}
ROUNDS = 40
"""More than 32, and fewer than 64, from which on hops.py counts relays."""


def calls_in(trace: str) -> list[str]:
    """The calls of a trace by strace, with the option that was set, without waits."""
    found = []
    for match in re.finditer(r"^\d+ +(\w+)\((.*)$", trace, re.MULTILINE):
        name, words = match.groups()
        if name == "setsockopt":
            name += f" {words.split(', ')[2]}"
        if name not in WAITS:
            found.append(name)
    return found


def connections(calls: Sequence[str]) -> list[list[str]]:
    """Cut where a client is accepted."""
    starts = [at for at, name in enumerate(calls) if name == "accept4"]
    return [list(calls[at:to]) for at, to in pairwise(starts)]


def a_short_one(rig: Rig) -> None:
    with rig.connect() as client:
        client.sendall(b"request")
        with rig.accept() as target:
            assert read_exactly(target, 7) == b"request"
            target.sendall(b"answer")
        assert read_all(client) == b"answer"
    rig.settled()


@pytest.mark.server("strace")
@pytest.mark.usefixtures("on_sides")
def test_a_short_connection(own_rig: Rig, tmp_path: Path) -> None:
    assert SHORT in traced(own_rig, tmp_path)


@pytest.mark.server("strace")
@pytest.mark.usefixtures("on_native_epoll")
def test_a_short_connection_of_the_native_epoll(own_rig: Rig, tmp_path: Path) -> None:
    assert SHORT_NATIVE in traced(own_rig, tmp_path)


def traced(own_rig: Rig, tmp_path: Path) -> list[list[str]]:
    """The system calls of each of some short connections."""
    trace = tmp_path / "trace"
    own_rig.start(prefix=["strace", "-D", "-f", "-q", "-o", str(trace)])
    for _ in range(ROUNDS):
        a_short_one(own_rig)
    own_rig.process.signal(signal.SIGTERM)
    assert own_rig.process.wait() == 0
    eventually(lambda: "+++ exited with 0 +++" in trace.read_text(), "the trace is whole")
    return connections(calls_in(trace.read_text()))


def segments_in(sock: socket.socket) -> int:
    """Segments that have come: tcpi_segs_in of struct tcp_info."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    (count,) = struct.unpack_from("=I", info, 140)
    return int(count)


@pytest.mark.parametrize("words", [b"request", b""])
def test_segments_at_the_target(own_rig: Rig, words: bytes) -> None:
    """SYN, and the first bytes with the ACK; where the client is silent, the ACK comes at once."""
    own_rig.start()
    own_rig.process.signal(signal.SIGSTOP)
    client = own_rig.connect()
    client.sendall(words)
    own_rig.process.signal(signal.SIGCONT)
    target = own_rig.accept()
    assert read_exactly(target, len(words)) == words
    assert segments_in(target) == 2
    echoed(target, client, b"answer")
    echoed(client, target, b"more")
