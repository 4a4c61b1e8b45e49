"""UDP system calls that fail, by strace's hand: a datagram may go, the session stays."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.support.datagrams import SOL_UDP, UDP_SEGMENT
from tests.support.process import PATIENCE, ForwardProcess, free_port

pytestmark = pytest.mark.server("strace")


class Ends:
    """A target and a client on both sides of a `v6fwd forward` process."""

    def __init__(self, process: ForwardProcess) -> None:
        self._process = process
        self.target = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.target.bind(("127.0.0.1", 0))
        self.client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        for sock in (self.target, self.client):
            sock.settimeout(PATIENCE)
        self.back = None

    def start(self, call: str, error: str, when: str, *options: str) -> None:
        """Forward, with this call failing."""
        port = free_port()
        calls = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
        target = f"127.0.0.1:{self.target.getsockname()[1]}"
        self._process.start(
            f"[::]:{port}/udp",
            target,
            *options,
            prefix=["strace", "-D", "-f", "-qq", "-o", os.devnull, *calls],
        )
        self.client.connect(("::1", port))

    def up(self, data: bytes) -> bytes:
        """Send from the client; gives what the target gets next."""
        self.client.send(data)
        got, self.back = self.target.recvfrom(65536)
        return got

    def down(self, data: bytes) -> bytes:
        """Send from the target; gives what the client gets next."""
        self.target.sendto(data, self.back or ("", 0))
        return self.client.recv(65536)

    def close(self) -> None:
        """Close both."""
        self.target.close()
        self.client.close()
        assert "internal error" not in self._process.log
        assert "Traceback" not in self._process.log


@pytest.fixture
def ends(forward_process: ForwardProcess) -> Iterator[Ends]:
    both = Ends(forward_process)
    yield both
    both.close()


@pytest.mark.parametrize("error", ["ECONNREFUSED", "EHOSTUNREACH"])
def test_an_old_error_costs_no_datagram(ends: Ends, error: str) -> None:
    """The header and its payload go by writev: told of an earlier datagram's fate, it is called
    once more."""
    ends.start("writev", error, "2+2", "--client-ip", "proxy-v2")
    for number in range(10):
        assert ends.up(b"%d" % number)[52:] == b"%d" % number


@pytest.mark.parametrize("error", ["ENOBUFS", "EMSGSIZE", "EAGAIN", "EPERM"])
def test_a_datagram_that_cannot_go_up_is_lost_alone(ends: Ends, error: str) -> None:
    ends.start("writev", error, "2", "--client-ip", "proxy-v2")
    assert ends.up(b"first")[52:] == b"first"
    ends.client.send(b"lost")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.connect(ends.client.getpeername())
        other.send(b"another client")  # when this one is through, the other was tried
        assert ends.target.recv(100)[52:] == b"another client"
    assert ends.up(b"third")[52:] == b"third"
    assert ends.down(b"answer") == b"answer"


@pytest.mark.parametrize("error", ["ENOBUFS", "EMSGSIZE", "EAGAIN", "EPERM", "ECONNREFUSED"])
def test_a_reply_that_cannot_go_down_is_lost_alone(ends: Ends, error: str) -> None:
    ends.start("sendmmsg", error, "2")
    assert ends.up(b"question") == b"question"
    assert ends.down(b"first") == b"first"
    ends.target.sendto(b"lost", ends.back or ("", 0))
    for number in range(5):  # longer: it could not be the lost one's neighbour in a train
        assert ends.down(b"answer %d" % number) == b"answer %d" % number
        assert ends.up(b"%d" % number) == b"%d" % number


@pytest.mark.parametrize("error", ["ECONNREFUSED", "EHOSTUNREACH", "ENOMEM", "EAGAIN"])
@pytest.mark.parametrize("call", ["readv", "recvmmsg"])
def test_a_receive_that_fails_is_made_again(ends: Ends, call: str, error: str) -> None:
    ends.start(call, error, "1+3")
    for number in range(20):
        assert ends.up(b"%d" % number) == b"%d" % number
        assert ends.down(b"%d" % number) == b"%d" % number


@pytest.mark.parametrize("error", ["EIO", "EINVAL", "EMSGSIZE"])
def test_a_train_that_is_refused_goes_in_pieces(ends: Ends, error: str) -> None:
    ends.start("sendmmsg", error, "1")
    ends.client.sendmsg([b"aabbccd"], [(SOL_UDP, UDP_SEGMENT, b"\2\0")])
    assert [ends.target.recv(100) for _ in range(4)] == [b"aa", b"bb", b"cc", b"d"]


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"])
def test_no_socket_for_a_newcomer(ends: Ends, error: str) -> None:
    """Its first datagram is lost, its next one makes a session."""
    ends.start("connect", error, "1")
    ends.client.send(b"lost or late")
    assert ends.up(b"next") in (b"lost or late", b"next")
    assert ends.up(b"more") in (b"next", b"more")
