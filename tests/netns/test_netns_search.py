"""Transparent mode where nobody names the namespace: it is found by the target's address."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.netns.test_transparent import Setting, exchange
from tests.support.inside import inside, server
from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V4, CLIENT_V6, CONTAINER_V4, Lab
from v6fwd.errors import RelayError
from v6fwd.netns.namespace import Namespace
from v6fwd.netns.search import NAMED, search

pytestmark = pytest.mark.netns

PEER = ("peer", "name", "eth0", "netns")
FOUND = "--target-netns="
"""Nobody names it."""


@pytest.fixture
def setting(lab: Lab, forward_process: ForwardProcess, tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(lab, forward_process, tmp_path)
    yield setting
    setting.close()


@pytest.fixture
def second(lab: Lab) -> Iterator[str]:
    """Another container at the same bridge, 172.17.0.3; gives its namespace's name."""
    name = f"{lab.namespace('container')}-2"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        _attach(lab, name, "172.17.0.3")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _attach(lab: Lab, name: str, address: str) -> None:
    host = lab.namespace("host")
    for words in (
        ("link", "add", "veth1", "netns", host, "type", "veth", *PEER, name),
        ("-n", host, "link", "set", "veth1", "master", "docker0", "up"),
        ("-n", name, "address", "add", f"{address}/16", "dev", "eth0"),
        ("-n", name, "link", "set", "eth0", "up"),
        ("-n", name, "link", "set", "lo", "up"),
    ):
        subprocess.run(["ip", *words], check=True)


def found(lab: Lab, address: str) -> str:
    """The name of the namespace that is found from the lab's host."""
    with inside(lab, "host"):
        path = search(address)
    identity = Path(path).stat().st_ino
    return next(each.name for each in NAMED.iterdir() if each.stat().st_ino == identity)


def test_the_namespace_with_the_address_is_found(setting: Setting, second: str) -> None:
    assert found(setting.lab, CONTAINER_V4) == setting.lab.namespace("container")
    assert found(setting.lab, "172.17.0.3") == second


def test_a_namespace_routed_to_without_a_bridge_is_found(setting: Setting) -> None:
    assert found(setting.lab, CLIENT_V4) == setting.lab.namespace("client")
    assert found(setting.lab, CLIENT_V6) == setting.lab.namespace("client")


@pytest.mark.parametrize("address", [BRIDGE_V4, "172.17.0.9", "127.0.0.1", "::1", "192.0.2.1"])
def test_an_address_in_no_container(setting: Setting, address: str) -> None:
    message = f"{address} is in no network namespace"
    with inside(setting.lab, "host"), pytest.raises(RelayError, match=message):
        search(address)


@pytest.mark.parametrize("device", ["lo", "veth9"])
def test_a_container_cannot_claim_another_ones_address(
    setting: Setting, second: str, device: str
) -> None:
    """On a device that does not lead to the target's bridge it may have whatever it likes."""
    for words in (
        ("link", "add", "veth9", "type", "veth", "peer", "name", "veth8"),
        ("address", "add", f"{CONTAINER_V4}/32", "dev", device),
        ("link", "set", device, "up"),
    ):
        subprocess.run(["ip", "-n", second, *words], check=True)
    assert found(setting.lab, CONTAINER_V4) == setting.lab.namespace("container")
    setting.lab.ip("container", "address", "delete", f"{CONTAINER_V4}/16", "dev", "eth0")
    with inside(setting.lab, "host"), pytest.raises(RelayError, match="no network namespace"):
        search(CONTAINER_V4)


def test_an_address_in_two_namespaces_is_refused(setting: Setting, second: str) -> None:
    """Which one gets the packets is anybody's guess: nobody is shown to either by mistake."""
    subprocess.run(
        ["ip", "-n", second, "address", "add", f"{CONTAINER_V4}/16", "dev", "eth0"], check=True
    )
    with inside(setting.lab, "host"), pytest.raises(RelayError, match="in more than one network"):
        search(CONTAINER_V4)
    setting.start(FOUND)
    assert f"{CONTAINER_V4} is in more than one network namespace" in setting.process.log
    assert "preserved by pseudo IPv4 addresses" in setting.process.log


@pytest.mark.parametrize("option", [FOUND, f"--target-netns={CONTAINER_V4}"])
def test_clients_of_both_families_are_preserved(setting: Setting, option: str) -> None:
    target = setting.server("::")
    setting.start(option)
    for source in (CLIENT_V6, CLIENT_V4):
        one = setting.client(source)
        assert exchange(setting, target, one) == (source, one.getsockname()[1])


def test_a_process_that_ends_is_not_the_namespace(setting: Setting) -> None:
    """It was found by that process, and is found again without."""
    lab = setting.lab
    holder = lab.start("container", "sleep", "60")
    with inside(lab, "host"):
        namespace = Namespace(CONTAINER_V4)
        with closing(namespace):
            holder.terminate()
            holder.wait()
            assert not namespace.is_gone()
            lab.ip("container", "address", "delete", f"{CONTAINER_V4}/16", "dev", "eth0")
            assert namespace.is_gone()


def test_a_container_that_restarts_is_found_again(setting: Setting) -> None:
    """Another namespace, the same address at the same bridge."""
    lab, name = setting.lab, setting.lab.namespace("container")
    setting.start(FOUND)
    target = setting.keep(server(lab, "::", 80))
    assert exchange(setting, target, setting.client())[0] == CLIENT_V6
    for one in setting._open:
        one.close()
    for words in (("netns", "delete"), ("netns", "add")):
        subprocess.run(["ip", *words, name], check=True)
    _attach(lab, name, CONTAINER_V4)
    target = setting.keep(server(lab, "::", 80))
    target.settimeout(0.3)

    def served() -> bool:
        with suppress(OSError):
            one = setting.client()
            one.settimeout(0.3)
            return exchange(setting, target, one) == (CLIENT_V6, one.getsockname()[1])
        return False

    eventually(served, "the client is seen")
