"""What transparent mode puts into a container's namespace changes nothing of its other traffic.

All rules that there are are in place: for IPv6 and IPv4 clients of servers on all addresses and
on the container's own, over TCP and UDP, with a session open for each kind; and the address on `lo`
that makes servers listen on `::`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.test_transparent import CLIENTS, PORT, Setting, exchange
from tests.support.inside import TCP, UDP, client, family_of, in_place, plain, server, sock
from tests.support.process import ForwardProcess
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, CONTAINER_V4, HOST_V4, Lab
from v6fwd.netns.policy import add_placeholder

pytestmark = pytest.mark.netns

KINDS = {"tcp": TCP, "udp": UDP}
LISTENS = {80: "::", 81: CONTAINER_V4, 82: "0.0.0.0"}
"""The ports of the container that are published, and where its servers listen."""

OUTSIDE = "192.0.2.1"
"""An address of the client's host that the container reaches by its default route."""


class Busy(Setting):
    """A container all of whose ports are in use by transparent clients."""

    def __init__(self, lab: Lab, process: ForwardProcess, folder: Path) -> None:
        super().__init__(lab, process, folder)
        self.before = in_place(lab)
        self.placeholder = add_placeholder(lab.namespace("container"))
        self.servers = {
            (name, port): self.server(address, port, kind)
            for name, kind in KINDS.items()
            for port, address in LISTENS.items()
        }
        self.start(listen=f"[::]:{PORT}-{PORT + 2}/tcp+udp", target=f"{CONTAINER_V4}:80-82")
        self.talk()

    def talk(self) -> None:
        """Every kind of client has an exchange with every server, and stays."""
        for source in CLIENTS:
            for (name, port), target in self.servers.items():
                one = self.client(source, kind=KINDS[name], listen=PORT + port - 80)
                exchange(self, target, one, KINDS[name])


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """One lab for all these tests: none of them changes anything."""
    folder = tmp_path_factory.mktemp("busy")
    with Lab() as lab:
        lab.run("host", "sysctl", "-w", "net.ipv4.ip_forward=1").check_returncode()
        lab.ip("client", "address", "add", f"{OUTSIDE}/32", "dev", "lo")
        lab.ip("host", "route", "add", OUTSIDE, "via", CLIENT_V4)
        lab.ip("client", "route", "add", f"{CONTAINER_V4}/32", "via", HOST_V4)
        busy = Busy(lab, ForwardProcess(folder), folder)
        try:
            yield busy
        finally:
            busy.close()
            busy.placeholder.close()


@pytest.fixture(autouse=True)
def _all_in_place(busy: Busy) -> Iterator[None]:
    """The rules are there before, and transparent clients are served after."""
    rules = in_place(busy.lab)["rules"]
    for part in ("from ::1 ", "from 127.0.0.0/8 ", "to 240.0.0.0/4 ", "fwmark ", "udp sport 82 "):
        assert part in rules
    yield
    one = busy.client()
    assert exchange(busy, busy.servers["tcp", 80], one)[1] == one.getsockname()[1]


def ask(busy: Busy, target: Any, one: socket.socket, name: str) -> tuple[str, int]:
    """An exchange; gives whom the server saw."""
    return exchange(busy, target, busy.keep(one), KINDS[name])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("host", "address"), [("host", BRIDGE_V4), ("client", OUTSIDE)])
def test_outgoing_connections(busy: Busy, host: str, address: str, name: str) -> None:
    """To a neighbour and through the default route, from any port."""
    other = busy.keep(server(busy.lab, address, 4000, KINDS[name], host))
    one = client(busy.lab, "container", address, 4000, kind=KINDS[name])
    assert ask(busy, other, one, name) == (CONTAINER_V4, one.getsockname()[1])


@pytest.mark.parametrize("port", LISTENS)
def test_outgoing_from_a_published_port(busy: Busy, port: int) -> None:
    """As DNS and NTP servers ask others; the rules for UDP answers look at such datagrams."""
    other = busy.keep(server(busy.lab, OUTSIDE, 4001 + port, UDP, "client"))
    asking = busy.servers["udp", port]
    mapped = f"::ffff:{OUTSIDE}" if LISTENS[port] == "::" else OUTSIDE
    asking.sendto(b"question", (mapped, 4001 + port))
    data, address = other.recvfrom(100)
    assert (data, plain(address)) == (b"question", (CONTAINER_V4, port))
    other.sendto(b"answer", address)
    assert asking.recv(100) == b"answer"


@pytest.mark.parametrize("port", [81, 82])
def test_what_a_server_asks_a_host_that_is_a_client_too(busy: Busy, port: int) -> None:
    """One forged datagram would do, whatever its port: that is why the rules know the port."""
    other = busy.keep(server(busy.lab, CLIENT_V4, 4101 + port, UDP, "client"))
    one = busy.client(CLIENT_V4, kind=UDP, listen=PORT + port - 80)
    assert exchange(busy, busy.servers["udp", port], one, UDP)[0] == CLIENT_V4
    asking = busy.servers["udp", port]
    asking.sendto(b"question", (CLIENT_V4, 4101 + port))
    data, address = other.recvfrom(100)
    assert (data, plain(address)[1]) == (b"question", port)
    other.sendto(b"answer", address)
    assert asking.recv(100) == b"answer"


def test_ipv6_is_as_unreachable_as_before(busy: Busy) -> None:
    """A program that tries IPv6 first must learn at once that there is none.

    `eth0` has no IPv6 address, so ::1 and PLACEHOLDER are the only sources that the kernel finds.
    """
    for kind in KINDS.values():
        one = busy.keep(sock(busy.lab, "container", socket.AF_INET6, kind))
        with pytest.raises(OSError, match="unreachable"):
            one.connect(("2001:db8:ffff::1", 80))


@pytest.mark.server("nft")
def test_dns_on_127_0_0_11(busy: Busy) -> None:
    """Docker's resolver in the container: redirected to another port there, answers mapped back."""
    rules = """
        add table ip docker
        add chain ip docker output { type nat hook output priority -100; }
        add rule ip docker output ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
        add chain ip docker postrouting { type nat hook postrouting priority 100; }
        add rule ip docker postrouting ip saddr 127.0.0.11 udp sport 40053 snat to :53
    """
    busy.lab.run("container", "nft", "-f", "-", input=rules).check_returncode()
    resolver = busy.keep(server(busy.lab, "127.0.0.11", 40053, UDP))
    one = client(busy.lab, "container", "127.0.0.11", 53, kind=UDP)
    assert ask(busy, resolver, one, "udp")[0] == "127.0.0.1"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("address", "port"),
    [("127.0.0.1", 80), ("::1", 80), ("127.0.0.1", 82), (CONTAINER_V4, 81), (CONTAINER_V4, 80)],
)
def test_its_own_loopback_traffic(busy: Busy, address: str, port: int, name: str) -> None:
    """To the very ports that are published, on loopback and on its own address: health checks."""
    one = client(busy.lab, "container", address, port, kind=KINDS[name])
    seen = ask(busy, busy.servers[name, port], one, name)
    assert seen == (address, one.getsockname()[1])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("port", LISTENS)
def test_health_checks_of_the_host(busy: Busy, port: int, name: str) -> None:
    """Health checks of the host, straight to the container."""
    one = client(busy.lab, "host", CONTAINER_V4, port, kind=KINDS[name])
    seen = ask(busy, busy.servers[name, port], one, name)
    assert seen == (BRIDGE_V4, one.getsockname()[1])


@pytest.mark.parametrize("port", LISTENS)
def test_ipv4_clients_that_do_not_pass_through_v6fwd(busy: Busy, port: int) -> None:
    """Docker's DNAT leads them straight here, from the very address that others are shown with."""
    one = client(busy.lab, "client", CONTAINER_V4, port, source=(CLIENT_V4, 0))
    seen = ask(busy, busy.servers["tcp", port], one, "tcp")
    assert seen == (CLIENT_V4, one.getsockname()[1])


@pytest.mark.parametrize("port", LISTENS)
def test_udp_clients_that_do_not_pass_through_v6fwd(busy: Busy, port: int) -> None:
    """From an address that has no session."""
    one = client(busy.lab, "client", CONTAINER_V4, port, source=(OUTSIDE, 0), kind=UDP)
    seen = ask(busy, busy.servers["udp", port], one, "udp")
    assert seen == (OUTSIDE, one.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", CONTAINER_V4, BRIDGE_V4])
def test_a_port_where_nobody_listens_refuses(busy: Busy, address: str) -> None:
    one = busy.keep(sock(busy.lab, "container", family_of(address)))
    with pytest.raises(ConnectionRefusedError):
        one.connect((address, 4444))


def test_nothing_else_is_in_place(busy: Busy) -> None:
    """Every line that is new is ours, and nothing that was there has gone."""
    now = in_place(busy.lab)
    for part in ("rules", "routes"):
        lines, old = now[part].splitlines(), busy.before[part].splitlines()
        assert [line for line in old if line not in lines] == []
        assert [line for line in lines if line not in old and "proto 118" not in line] == []
    assert now["addresses"] == busy.before["addresses"]
