"""`--client-ip transparent`: who the target sees at its socket, however it listens."""

from __future__ import annotations

import signal
import socket
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import TCP, UDP, client, in_place, plain, server, sock
from tests.support.process import PATIENCE, ForwardProcess, eventually
from tests.support.rig import read_all
from v6fwd.demo.lab import (
    BRIDGE_V4,
    CLIENT_V4,
    CLIENT_V6,
    CONTAINER_V4,
    HOST_V4,
    HOST_V6,
    Lab,
)
from v6fwd.relay.transparent.pseudo_store import find_pseudo

pytestmark = pytest.mark.netns

PORT = 8080
CLIENTS = {CLIENT_V6: HOST_V6, CLIENT_V4: HOST_V4}
PSEUDO = "a pseudo address"
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


class Setting:
    """A lab with v6fwd on its host, in front of port 80 of the container."""

    def __init__(self, lab: Lab, process: ForwardProcess, folder: Path) -> None:
        self.lab = lab
        self.process = process
        self.store = str(folder / "pseudo.sqlite")
        self.listen, self.target = PORT, 80
        self._open: list[socket.socket] = []
        # as Docker has it in containers of IPv4 networks
        lab.run("container", "sysctl", "-w", "net.ipv6.conf.eth0.disable_ipv6=1").check_returncode()

    def start(
        self,
        *options: str,
        listen: str = f"[::]:{PORT}/tcp+udp",
        target: str = f"{CONTAINER_V4}:80",
    ) -> None:
        """Start v6fwd for the container's namespace, unless options name another."""
        if not any(option.startswith("--target-netns") for option in options):
            options = ("--target-netns", self.lab.namespace("container"), *options)
        words = ("--client-ip", "transparent", "--pseudo-store", self.store, *options)
        self.process.start(listen, target, *words, prefix=self.lab.command("host"))

    def server(self, address: str, port: int = 0, kind: int = TCP) -> Any:
        """A server in the container."""
        return self.keep(server(self.lab, address, port or self.target, kind))

    def client(
        self, source: str = CLIENT_V6, port: int = 0, *, kind: int = TCP, listen: int = 0
    ) -> socket.socket:
        """A client that has connected to v6fwd from an address of the client's host."""
        own, to = (source, port), (CLIENTS[source], listen or self.listen)
        return self.keep(client(self.lab, "client", *to, source=own, kind=kind))

    def keep(self, one: socket.socket) -> socket.socket:
        """Close a socket with the lab, since it would keep its namespace; it waits for long."""
        one.settimeout(PATIENCE)
        self._open.append(one)
        return one

    def leave(self) -> None:
        """End all sockets; go on to the next port, of which v6fwd knows nothing yet."""
        for one in self._open:
            one.close()
        self._open.clear()
        self.listen, self.target = self.listen + 1, self.target + 1

    def close(self) -> None:
        """End all."""
        self.leave()
        self.process.end()

    def name(self, source: str) -> str:
        """Who `source` is: the client that a pseudo address stands for."""
        packed = socket.inet_pton(socket.AF_INET6 if ":" in source else socket.AF_INET, source)
        entries = find_pseudo(self.store, packed)
        assert len(entries) == 1
        return socket.inet_ntop(socket.AF_INET6, entries[0].network)


@pytest.fixture
def setting(lab: Lab, forward_process: ForwardProcess, tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(lab, forward_process, tmp_path)
    yield setting
    setting.close()


@pytest.fixture(scope="module")
def _lab() -> Iterator[Lab]:
    """One lab for all who have nothing to change in it."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def _running(_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """One v6fwd for all who want it without further options: a port for each."""
    yield from ranged(_lab, tmp_path_factory.mktemp("running"), PORT)


@pytest.fixture
def running(_running: Setting) -> Iterator[Setting]:
    yield _running
    _running.leave()


@pytest.fixture(scope="module")
def _trusting(_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """The same for those who send a PROXY header."""
    folder = tmp_path_factory.mktemp("trusting")
    yield from ranged(_lab, folder, PORT + 100, "--accept-proxy", CLIENT_V6)


@pytest.fixture
def trusting(_trusting: Setting) -> Iterator[Setting]:
    yield _trusting
    _trusting.leave()


def ranged(lab: Lab, folder: Path, first: int, *options: str) -> Iterator[Setting]:
    """A v6fwd with a range of ports that begins at `first`."""
    setting = Setting(lab, ForwardProcess(folder), folder)
    setting.listen, setting.target = first, first - PORT + 80
    ports = f"{setting.target}-{setting.target + 49}"
    listen = f"[::]:{first}-{first + 49}/tcp+udp"
    try:
        setting.start(*options, listen=listen, target=f"{CONTAINER_V4}:{ports}")
        yield setting
    finally:
        setting.close()


def exchange(setting: Setting, target: Any, one: socket.socket, kind: int = TCP) -> tuple[str, int]:
    """A question and its answer; gives whom the target saw. The target need not know its own
    address: a UDP answer leaves from wherever the kernel thinks."""
    if kind == UDP:
        one.send(b"question")
        data, address = target.recvfrom(100)
        target.sendto(b"answer", address)
    else:
        accepted, address = target.accept()
        setting.keep(accepted)
        one.sendall(b"question")
        data = accepted.recv(100)
        accepted.sendall(b"answer")
    assert data == b"question"
    assert one.recv(100) == b"answer"
    return plain(address)


def is_reset(one: socket.socket, place: Any) -> None:
    """The connection is, be it so soon that connect(2) tells."""

    def connect_and_read() -> None:
        one.connect(place)
        one.recv(1)

    with pytest.raises(ConnectionResetError):
        connect_and_read()


# ---- who is seen -----------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("listens", "v6", "v4"),
    [
        ("::", CLIENT_V6, CLIENT_V4),
        ("0.0.0.0", PSEUDO, CLIENT_V4),
        (CONTAINER_V4, PSEUDO, CLIENT_V4),
    ],
)
def test_the_target_sees_the_client(
    running: Setting, listens: str, v6: str, v4: str, kind: int
) -> None:
    target = running.server(listens, kind=kind)
    for source, seen in ((CLIENT_V6, v6), (CLIENT_V4, v4)):
        one = running.client(source, kind=kind)
        host, port = exchange(running, target, one, kind)
        assert port == one.getsockname()[1]
        if seen is PSEUDO:
            assert int(host.split(".")[0]) >= 240
            assert running.name(host) == "2001:db8:1::"
        else:
            assert host == seen


def test_a_stream_goes_both_ways_to_its_end(running: Setting) -> None:
    target = running.server("::")
    one = running.client()
    accepted = running.keep(target.accept()[0])
    one.sendall(b"x" * 1_000_000)
    one.shutdown(socket.SHUT_WR)
    assert len(b"".join(iter(lambda: accepted.recv(65536), b""))) == 1_000_000
    accepted.sendall(b"y" * 1_000_000)
    accepted.close()
    assert len(b"".join(iter(lambda: one.recv(65536), b""))) == 1_000_000


def test_with_128_each_address_has_a_pseudo_address(setting: Setting) -> None:
    lab, target = setting.lab, setting.server("0.0.0.0")
    lab.ip("client", "address", "add", "2001:db8:1::3/64", "dev", "eth0", "nodad")
    setting.start("--pseudo-ipv4", "128")
    seen = {}
    for source in (CLIENT_V6, "2001:db8:1::3"):
        one = client(lab, "client", HOST_V6, PORT, source=(source, 0))
        seen[source] = exchange(setting, target, setting.keep(one))[0]
    assert {source: setting.name(host) for source, host in seen.items()} == {
        source: source for source in seen
    }
    assert len(set(seen.values())) == 2


@KINDS
def test_a_target_reached_over_the_network(setting: Setting, kind: int) -> None:
    """No namespace is named: an IPv6 client comes from its pseudo address, an IPv4 one not."""
    before = in_place(setting.lab, "host")
    target = setting.server("0.0.0.0", kind=kind)
    setting.start("--target-netns=none", "--transparent-fallback", "none")
    one = setting.client(kind=kind)
    host, port = exchange(setting, target, one, kind)
    assert (setting.name(host), port) == ("2001:db8:1::", one.getsockname()[1])
    assert exchange(setting, target, setting.client(CLIENT_V4, kind=kind), kind)[0] == BRIDGE_V4
    assert "local 240.0.0.0/4 dev lo" in in_place(setting.lab, "host")["routes"]
    setting.process.signal(signal.SIGINT)
    assert setting.process.wait() == 0
    assert in_place(setting.lab, "host") == before


@pytest.mark.parametrize("netns", [True, False], ids=["inside", "across"])
def test_a_locked_store_affects_only_new_networks(setting: Setting, netns: bool) -> None:
    """Somebody else holds the store's lock: new networks are refused, those known are served."""
    target = setting.server("0.0.0.0")
    setting.start(*(() if netns else ("--target-netns=none",)))
    seen = exchange(setting, target, setting.client())[0]
    setting.lab.ip("client", "address", "add", "2001:db8:1:2::2/128", "dev", "eth0", "nodad")
    setting.lab.ip("host", "route", "add", "2001:db8:1:2::/64", "dev", "eth0")
    db = sqlite3.connect(setting.store, isolation_level=None)
    db.execute("begin exclusive")
    other = setting.keep(sock(setting.lab, "client", socket.AF_INET6))
    other.bind(("2001:db8:1:2::2", 0))
    is_reset(other, (HOST_V6, PORT))
    eventually(lambda: "database is locked" in setting.process.log, "the log line")
    assert exchange(setting, target, setting.client())[0] == seen
    db.close()
    assert "internal error" not in setting.process.log


# ---- who is not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address", "why"),
    [
        ("host", "::1", "a loopback address"),
        ("host", "127.0.0.1", "a loopback address"),
        ("host", BRIDGE_V4, "in the container's own network"),
        ("container", BRIDGE_V4, "in the container's own network"),
        ("client", "fe80::1", "a link-local address"),
    ],
)
def test_an_address_that_is_not_preserved_is_refused(
    running: Setting, host: str, address: str, why: str
) -> None:
    running.server("::")
    place: Any = (address, running.listen)
    if address == "fe80::1":
        for end, number in (("host", 1), ("client", 2)):
            running.lab.ip(end, "address", "add", f"fe80::{number}/64", "dev", "eth0", "nodad")
        place = (address, running.listen, 0, 2)
        assert running.lab.run(host, "cat", "/sys/class/net/eth0/ifindex").stdout.strip() == "2"
    one = running.keep(
        sock(running.lab, host, socket.AF_INET6 if ":" in address else socket.AF_INET)
    )
    is_reset(one, place)
    line = f" on [::]:{running.listen}: {why}; --transparent-fallback"
    eventually(lambda: line in running.process.log, "the log line")


@pytest.mark.parametrize("fallback", ["none", "proxy-v2"])
@KINDS
def test_the_fallback_connects_from_the_bridge(setting: Setting, fallback: str, kind: int) -> None:
    """And those who can be shown have no header still."""
    target = setting.server("::", kind=kind)
    setting.start("--transparent-fallback", fallback)
    assert exchange(setting, target, setting.client(kind=kind), kind)[0] == CLIENT_V6
    one = setting.keep(client(setting.lab, "host", "::1", PORT, kind=kind))
    one.send(b"hello")
    if kind == UDP:
        data, address = target.recvfrom(200)
    else:
        accepted, address = target.accept()
        one.shutdown(socket.SHUT_WR)
        data = read_all(setting.keep(accepted))  # the header may come before the client speaks
    assert plain(address)[0] == BRIDGE_V4
    if fallback == "none":
        assert data == b"hello"
    else:
        source, destination = (socket.inet_pton(socket.AF_INET6, "::1"),) * 2
        assert data[16:48] == source + destination
        assert struct.unpack("!H", data[48:50])[0] == one.getsockname()[1]
        assert data[52:] == b"hello"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_listens_on_loopback_alone_is_not_published(running: Setting, address: str) -> None:
    """Naming the container's address never led to it, and does not now."""
    hidden = running.server(address)
    hidden.settimeout(0.2)
    for source in CLIENTS:
        with pytest.raises(ConnectionResetError):
            running.client(source).recv(1)
    with pytest.raises(TimeoutError):
        hidden.accept()


def test_the_server_on_loopback_is_not_the_one_on_all_addresses(running: Setting) -> None:
    """Two programs share a port number; the published one is reached, by the other way."""
    hidden = running.server("127.0.0.1")
    hidden.settimeout(0.2)
    target = running.server(CONTAINER_V4)
    assert exchange(running, target, running.client(CLIENT_V4))[0] == CLIENT_V4
    with pytest.raises(TimeoutError):
        hidden.accept()


# ---- nobody can claim what is not theirs -----------------------------------------------------


def test_a_header_of_an_untrusted_client_is_data(running: Setting) -> None:
    target = running.server("::")
    one = running.client()
    claim = b"PROXY TCP6 2001:db8:bad::1 2001:db8:1::1 1 80\r\n"
    one.sendall(claim)
    accepted, address = target.accept()
    assert plain(address) == (CLIENT_V6, one.getsockname()[1])
    assert running.keep(accepted).recv(100) == claim


@pytest.mark.parametrize(
    ("claimed", "seen"),
    [("2001:db8:7::7", "2001:db8:7::7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("::1", None),
     ("127.0.0.1", None), (CONTAINER_V4, None), ("240.1.2.3", None), ("ff02::1", None)],
)  # fmt: skip
def test_the_header_of_a_trusted_proxy_is_used(
    trusting: Setting, claimed: str, seen: str | None
) -> None:
    """But it can make nobody local either."""
    target = trusting.server("::")
    one = trusting.client()
    family = "TCP6" if ":" in claimed else "TCP4"
    destination = "2001:db8:1::1" if ":" in claimed else "203.0.113.1"
    one.sendall(f"PROXY {family} {claimed} {destination} 5555 80\r\nhello".encode())
    if seen is None:
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        return
    accepted, address = target.accept()
    assert plain(address) == (seen, 5555)
    assert trusting.keep(accepted).recv(100) == b"hello"


# ---- ports -----------------------------------------------------------------------------------


@KINDS
def test_the_source_port_changes_where_the_container_listens_on_it(
    running: Setting, kind: int
) -> None:
    """A client comes from a port where the container listens; its address stays its own."""
    target = running.server("::", kind=kind)
    one = running.client(CLIENT_V6, running.target, kind=kind)
    host, port = exchange(running, target, one, kind)
    assert host == CLIENT_V6
    assert port != running.target


@pytest.mark.parametrize("first", ["client", "target"])
def test_the_same_port_again_at_once(running: Setting, first: str) -> None:
    """What is left of the last connection (TIME_WAIT) is in nobody's way."""
    target = running.server("::")
    for _ in range(3):
        one = running.client(CLIENT_V6, 7000)
        assert exchange(running, target, one)[0] == CLIENT_V6
        accepted = running._open[-1]
        ends = [one, accepted] if first == "client" else [accepted, one]
        ends[0].shutdown(socket.SHUT_WR)
        assert ends[1].recv(1) == b""
        ends[1].close()
        assert ends[0].recv(1) == b""
        # no TIME_WAIT of the client's own
        ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends[0].close()


def test_one_port_to_two_ports_of_the_target(setting: Setting) -> None:
    targets = [setting.server("::", port) for port in (80, 81)]
    setting.start(listen=f"[::]:{PORT}-{PORT + 1}", target=f"{CONTAINER_V4}:80-81")
    ones = [setting.client(CLIENT_V6, 7100, listen=PORT + number) for number in (0, 1)]
    for target, one in zip(targets, ones, strict=True):
        assert exchange(setting, target, one) == (CLIENT_V6, 7100)


def test_the_same_connection_by_two_listeners(setting: Setting) -> None:
    """Only the address can be kept for both: the target cannot have one connection twice."""
    target = setting.server("::")
    more = (f"[::]:{PORT + 1}", f"{CONTAINER_V4}:80")
    setting.start(*more, listen=f"[::]:{PORT}")
    first = exchange(setting, target, setting.client(CLIENT_V6, 7200))
    second = exchange(setting, target, setting.client(CLIENT_V6, 7200, listen=PORT + 1))
    assert first == (CLIENT_V6, 7200)
    assert second[0] == CLIENT_V6
    assert second[1] != 7200
