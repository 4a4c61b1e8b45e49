"""Real DNS servers in an IPv4-only container, asked over IPv6: they know who asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dns_servers import ADDRESS, NAME, DnsServer, Knot, Unbound
from tests.support.process import ForwardProcess, eventually
from tests.support.servers import open_folder
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, CLIENT_V6, CONTAINER_V4, HOST_V4, HOST_V6, Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("dig")]

CLIENTS = pytest.mark.parametrize(
    ("client", "dialled"), [(CLIENT_V6, HOST_V6), (CLIENT_V4, HOST_V4)], ids=["ipv6", "ipv4"]
)
MODE = ("--client-ip", "proxy-v2")


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


def relay_to(server: DnsServer, lab: Lab, process: ForwardProcess, *options: str) -> None:
    """Start the server in the container and `v6fwd forward` in front of it."""
    server.start(lab)
    process.start("[::]:53/udp", f"{CONTAINER_V4}:53", *options, prefix=lab.command("host"))


def ask(lab: Lab, host: str, *words: str) -> str:
    """What dig prints on the client; it takes an answer from the address it asked alone."""
    asked = lab.run("client", "dig", f"@{host}", "+short", "+tries=1", "+time=5", *words)
    return asked.stdout.strip()


@CLIENTS
@pytest.mark.server("unbound")
def test_unbound(
    lab: Lab, folder: Path, forward_process: ForwardProcess, client: str, dialled: str
) -> None:
    """Its access list lets this client in alone, and its log names it for every query."""
    server = Unbound(folder)
    relay_to(server, lab, forward_process, *MODE)
    answer = ask(lab, dialled, NAME, "A", NAME, "A", NAME, "A")
    assert answer.split() == [ADDRESS] * 3
    eventually(lambda: server.log.count(f" {client} {NAME}. A IN") == 3, "three queries logged")
    assert BRIDGE_V4 not in server.log


@CLIENTS
@pytest.mark.server("knotd")
def test_knot(
    lab: Lab, folder: Path, forward_process: ForwardProcess, client: str, dialled: str
) -> None:
    """It is asked who asks it."""
    relay_to(Knot(folder), lab, forward_process, *MODE)
    assert ask(lab, dialled, NAME, "A") == ADDRESS
    kind = "AAAA" if ":" in client else "A"
    assert ask(lab, dialled, "whoami", kind) == client


@pytest.mark.server("knotd")
def test_without_a_header_it_is_the_bridge(
    lab: Lab, folder: Path, forward_process: ForwardProcess
) -> None:
    relay_to(Knot(folder), lab, forward_process)
    assert ask(lab, HOST_V6, "whoami", "A") == BRIDGE_V4


@pytest.mark.server("unbound")
def test_replies_come_from_the_address_asked(
    lab: Lab, folder: Path, forward_process: ForwardProcess
) -> None:
    """A host with more addresses than one on the same link; dig refuses all other sources."""
    others = ("2001:db8:1::53", "2001:db8:1::54")
    for other in others:
        lab.ip("host", "address", "add", f"{other}/64", "dev", "eth0", "nodad")
    relay_to(Unbound(folder), lab, forward_process, *MODE)
    for host in (*others, HOST_V6):
        assert ask(lab, host, NAME, "A") == ADDRESS


@pytest.mark.server("knotd")
def test_a_link_local_client(lab: Lab, folder: Path, forward_process: ForwardProcess) -> None:
    """It asks the host's link-local address, and the answer finds the way back to its link."""
    for name, address in (("host", "fe80::aa"), ("client", "fe80::bb")):
        lab.ip(name, "-6", "address", "flush", "dev", "eth0", "scope", "link")
        lab.ip(name, "address", "add", f"{address}/64", "dev", "eth0", "nodad")
    relay_to(Knot(folder), lab, forward_process, *MODE)
    assert ask(lab, "fe80::aa%eth0", "whoami", "AAAA") == "fe80::bb"


@pytest.mark.server("unbound")
def test_unbound_refuses_whom_its_list_does_not_name(
    lab: Lab, folder: Path, forward_process: ForwardProcess
) -> None:
    lab.ip("client", "address", "add", "2001:db8:1::3/64", "dev", "eth0", "nodad")
    relay_to(Unbound(folder), lab, forward_process, *MODE)
    assert ask(lab, HOST_V6, NAME, "A", "-b", "2001:db8:1::3") == ""
    assert ask(lab, HOST_V6, NAME, "A", "-b", CLIENT_V6) == ADDRESS


@pytest.mark.server("knotd")
def test_the_listeners_address_goes_and_comes(
    lab: Lab, folder: Path, forward_process: ForwardProcess
) -> None:
    """The listener on [::] is none the worse for it, nor for a link that was down."""
    extra = "2001:db8:1::53"
    lab.ip("host", "address", "add", f"{extra}/64", "dev", "eth0", "nodad")
    relay_to(Knot(folder), lab, forward_process, *MODE)
    assert ask(lab, extra, NAME, "A") == ADDRESS
    lab.ip("host", "address", "delete", f"{extra}/64", "dev", "eth0")
    assert ask(lab, HOST_V6, NAME, "A") == ADDRESS
    lab.ip("host", "link", "set", "eth0", "down")
    lab.ip("host", "link", "set", "eth0", "up")
    for address in (HOST_V6, extra):  # the kernel dropped them with the link
        lab.ip("host", "address", "replace", f"{address}/64", "dev", "eth0", "nodad")
    assert ask(lab, extra, NAME, "A") == ADDRESS
    assert ask(lab, HOST_V6, NAME, "A") == ADDRESS
