"""Any order of datagrams, answers, new clients and a target that is away: no cross-talk.

Every datagram says whose it is, and which. Each client's datagrams come from an address of its own
at the target; what the target answers there comes to that client, from where it sent to, and to
nobody else; and on loopback, with every queue read in time, nothing is lost.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.deep import examples
from tests.support.process import PATIENCE, ForwardProcess, eventually

OPTIONS = {"none": (), "proxy-v2": ("--client-ip", "proxy-v2")}
CLIENTS = 3


def bound(host: str, port: int = 0) -> socket.socket:
    """A datagram socket that waits for what should come."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.bind((host, port))
    return sock


class Udp:
    """A relay for datagrams, and the socket that is its target."""

    def __init__(self, process: ForwardProcess, options: tuple[str, ...]) -> None:
        self.process = process
        self.target = bound("127.0.0.1")
        self.target_port = self.target.getsockname()[1]
        with bound("::") as free:
            self.port = int(free.getsockname()[1])
        words = (f"[::]:{self.port}/udp", f"127.0.0.1:{self.target_port}/udp")
        process.start(*words, *options)
        self.header = bool(options)

    def away(self) -> None:
        """The target's port is closed for a moment: what is sent to it is refused."""
        self.target.close()

    def back(self) -> None:
        """And there again."""
        self.target = bound("127.0.0.1", self.target_port)


@pytest.fixture(scope="module", params=OPTIONS)
def udp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Udp]:
    """One relay for all programs of a mode."""
    process = ForwardProcess(tmp_path_factory.mktemp("udp"))
    relay = Udp(process, OPTIONS[request.param])
    yield relay
    relay.target.close()
    process.end()
    assert "internal error" not in process.log
    assert "Traceback" not in process.log


class Client:
    """A client's socket: one session."""

    serial = 0

    def __init__(self, udp: Udp) -> None:
        Client.serial += 1
        self.name = Client.serial
        self.udp = udp
        self.sock = bound("::1")
        self.sent = 0
        self.source: Any = None
        """Its address at the target."""

    def send(self, size: int) -> bytes:
        """Send a datagram of its own; gives what the target has to receive."""
        self.sent += 1
        data = struct.pack("!QQ", self.name, self.sent) + bytes(size)
        self.sock.sendto(data, ("::1", self.udp.port))
        return self.header() + data

    def header(self) -> bytes:
        """A PROXY header of version 2 for this client, by its specification, section 2.2."""
        if not self.udp.header:
            return b""
        here = socket.inet_pton(socket.AF_INET6, "::1")
        ports = struct.pack("!HH", self.sock.getsockname()[1], self.udp.port)
        return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x22\0\x24" + here + here + ports

    def comes_from(self, address: Any, others: list[Client]) -> None:
        """A datagram of its own came from there: always the same, and nobody else's."""
        assert self.source in (None, address), "a session has two addresses"
        self.source = address
        assert all(other.source != address for other in others if other is not self)


STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, CLIENTS - 1), st.sampled_from([0, 1, 1400, 9000])),
    st.tuples(st.just("burst"), st.just(0), st.integers(1, 20)),
    st.tuples(st.just("answer"), st.integers(0, CLIENTS - 1), st.integers(1, 20)),
    st.tuples(st.sampled_from(["renew", "late", "away"]), st.integers(0, CLIENTS - 1), st.just(0)),
)


def received(udp: Udp, clients: list[Client], expected: dict[int, list[bytes]]) -> None:
    """All of it comes to the target; each client's in its order."""
    for _ in range(sum(map(len, expected.values()))):
        data, address = udp.target.recvfrom(65536)
        name = struct.unpack_from("!Q", data, 52 if udp.header else 0)[0]
        (client,) = (one for one in clients if one.name == name)
        assert data == expected[name].pop(0)
        client.comes_from(address, clients)


def answered(udp: Udp, client: Client, count: int) -> None:
    """So many answers come to a client, from where it sent to."""
    if client.source is None:
        received(udp, [client], {client.name: [client.send(0)]})
    for number in range(count):
        udp.target.sendto(b"%d to %d" % (number, client.name), client.source)
    for number in range(count):
        data, address = client.sock.recvfrom(65536)
        assert data == b"%d to %d" % (number, client.name)
        assert address[:2] == ("::1", udp.port)


def away(udp: Udp, client: Client) -> None:
    """What is sent to a target that is away is lost, and what comes after it is not."""
    udp.away()
    client.send(0)
    dropped = client.sent
    udp.back()

    def is_back() -> bool:
        client.send(0)
        udp.target.settimeout(0.2)
        try:
            data, address = udp.target.recvfrom(65536)
        except TimeoutError:
            return False
        finally:
            udp.target.settimeout(PATIENCE)
        assert data.startswith(client.header() + struct.pack("!Q", client.name))
        assert struct.unpack_from("!Q", data, len(client.header()) + 8)[0] >= dropped
        client.comes_from(address, [client])
        return True

    eventually(is_back, "the target hears of the client again")
    last = client.send(0)
    while udp.target.recv(65536) != last:
        pass  # those that were sent before it was back may come, too; never behind a later one


def is_quiet(sock: socket.socket) -> bool:
    """Whether nothing has come."""
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


@examples(60)
@given(program=st.lists(STEPS, max_size=16))
def test_any_program(udp: Udp, program: list[tuple[str, int, int]]) -> None:
    clients = [Client(udp) for _ in range(CLIENTS)]
    gone: list[Client] = []
    try:
        for what, who, size in program:
            client = clients[who]
            if what == "send":
                received(udp, clients, {client.name: [client.send(size)]})
            elif what == "burst":
                expected = {one.name: [one.send(100) for _ in range(size)] for one in clients}
                received(udp, clients, expected)
            elif what == "answer":
                answered(udp, client, size)
            elif what == "renew":
                client.sock.close()
                gone.append(client)
                clients[who] = Client(udp)
            elif what == "away":
                away(udp, client)
            else:
                for one in gone:
                    if one.source is not None:
                        udp.target.sendto(b"too late", one.source)
        for one in clients:
            answered(udp, one, 1)
            assert is_quiet(one.sock), "somebody else's answer"
        assert is_quiet(udp.target)
    finally:
        for one in clients:
            one.sock.close()
