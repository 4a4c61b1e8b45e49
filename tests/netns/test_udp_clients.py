"""UdpClients: answers to exactly the clients with a session stay inside, within bounds."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator

import pytest

from v6fwd.demo.lab import Lab
from v6fwd.model import Address
from v6fwd.netns.policy import NetnsPolicy
from v6fwd.netns.udp_clients import POOL, SLOTS, UdpClients

pytestmark = pytest.mark.netns

ONE, TWO = "198.51.100.1", "2001:db8::7"
SERVER = 53


def at(host: str, port: int) -> Address:
    return Address(ipaddress.ip_address(host).packed, port)


class Inside:
    """A container's namespace with UdpClients."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._before = self.rules()
        self._policy = NetnsPolicy(lab.namespace("container"))
        self.clients: UdpClients = self._policy.udp_clients
        for family in (socket.AF_INET, socket.AF_INET6):
            self._policy.accept_datagrams(family, SERVER)

    def rules(self) -> str:
        return self._lab.run("container", "sh", "-c", "ip -4 rule; ip -6 rule").stdout

    def stays(self, host: str, port: int, server: int = SERVER) -> bool:
        """Whether what the server sends there stays inside."""
        words = ("get", host, "ipproto", "udp", "sport", str(server), "dport", str(port))
        family = "-6" if ":" in host else "-4"
        return self._lab.run("container", "ip", family, "route", *words).stdout.startswith("local")

    def close(self) -> None:
        self._policy.close()
        assert self.rules() == self._before


@pytest.fixture
def box(lab: Lab) -> Iterator[Inside]:
    with contextlib.closing(Inside(lab)) as one:
        yield one


@pytest.mark.parametrize("host", [ONE, TWO])
def test_exactly_a_client_and_its_port(box: Inside, host: str) -> None:
    other = {ONE: "198.51.100.9", TWO: "2001:db8::9"}[host]
    box.clients.add(at(host, 4711))
    box.clients.add(at(other, 4712))  # no pair of one's address and the other's port
    assert [box.stays(host, 4711), box.stays(host, 4712)] == [True, False]
    assert [box.stays(other, 4711), box.stays(other, 4712)] == [False, True]
    assert not box.stays(host, 4711, server=SERVER + 1)
    box.clients.remove(at(host, 4711))
    assert [box.stays(host, 4711), box.stays(other, 4712)] == [False, True]


def test_two_clients_with_one_port(box: Inside) -> None:
    for host in (ONE, TWO):
        box.clients.add(at(host, 4711))
    box.clients.remove(at(ONE, 4711))
    assert [box.stays(ONE, 4711), box.stays(TWO, 4711)] == [False, True]
    box.clients.remove(at(ONE, 4711))  # again: nothing happens
    assert box.stays(TWO, 4711)
    box.clients.remove(at(TWO, 4711))
    assert "dport" not in box.rules()


def test_a_port_for_which_there_can_be_no_rule(box: Inside) -> None:
    assert next(box.clients.ports(at(ONE, 65_535))) == POOL[0]


def test_a_server_that_comes_later(box: Inside) -> None:
    box.clients.add(at(ONE, 4711))
    box.clients.serve(socket.AF_INET, SERVER + 1)
    assert box.stays(ONE, 4711, server=SERVER + 1)


def test_a_flood_of_ports_is_bounded(box: Inside) -> None:
    """Whoever comes then keeps the address, with a port of the pool; nobody else's changes."""
    room = SLOTS - len(POOL)
    for port in range(1, room + 1):
        assert next(box.clients.ports(at(ONE, port))) == port
        box.clients.add(at(ONE, port))
    assert next(box.clients.ports(at(ONE, 7))) == 7
    for expected in POOL:
        assert next(box.clients.ports(at(ONE, 5000))) == expected
        box.clients.add(at(ONE, expected))
    assert list(box.clients.ports(at(ONE, 5000))) == []
    assert next(box.clients.ports(at(TWO, 5000))) == POOL[0]
    assert box.rules().count("dport") == 2 * SLOTS
    box.clients.remove(at(ONE, 1))
    assert next(box.clients.ports(at(TWO, 5000))) == 5000
