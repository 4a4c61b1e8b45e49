"""Rules and routes that somebody removes from a container are put back, and the log says so."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.netns.test_transparent import Setting, exchange
from tests.support.inside import in_place
from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, Lab
from v6fwd.model import Address, Protocol
from v6fwd.netns.policy import NetnsPolicy

pytestmark = pytest.mark.netns

V4, V6 = socket.AF_INET, socket.AF_INET6
SOURCES = (CLIENT_V6, CLIENT_V4)


def flush_rules(lab: Lab) -> None:
    """As scripts of network managers and VPNs do: all go but the one of table local."""
    for family in ("-4", "-6"):
        lab.ip("container", family, "rule", "flush")
        lab.ip("container", family, "rule", "add", "from", "all", "lookup", "main", "pref", "32766")
    lab.ip("container", "-4", "rule", "add", "from", "all", "lookup", "default", "pref", "32767")


def lo_down_and_up(lab: Lab) -> None:
    """Routes by `lo` go."""
    lab.ip("container", "link", "set", "lo", "down")
    lab.ip("container", "link", "set", "lo", "up")


def what_is_there(lab: Lab) -> dict[str, list[str]]:
    """What is ours; rules of one priority stand in the order in which they came: that may change.

    The kernel's own routes of a device come and go with it.
    """
    ours = {what: sorted(text.splitlines()) for what, text in in_place(lab).items()}
    return ours | {"routes": [line for line in ours["routes"] if "proto 118" in line]}


REMOVALS = [flush_rules, lo_down_and_up]
removing = pytest.mark.parametrize("remove", REMOVALS)


@removing
def test_all_that_was_put_there(lab: Lab, remove: Callable[[Lab], None]) -> None:
    policy = NetnsPolicy(lab.namespace("container"))
    try:
        for family in (V4, V6):
            policy.accept_loopback(family, 80)
            policy.accept_marked(family)
            policy.accept_datagrams(family, 53)
        policy.accept_pseudo(Protocol.TCP, 80)
        for packed in (bytes((192, 0, 2, 7)), bytes(15) + b"\2"):
            for port in (5000, 5001):
                policy.udp_clients.add(Address(packed, port))
        before = what_is_there(lab)
        assert policy.restore() == 0
        remove(lab)
        assert what_is_there(lab) != before
        assert policy.restore() > 0
        assert what_is_there(lab) == before
        assert policy.restore() == 0
    finally:
        policy.close()


def test_a_sysctl_that_was_switched_back(lab: Lab) -> None:
    lo_off = ("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    lab.run("container", *lo_off).check_returncode()
    policy = NetnsPolicy(lab.namespace("container"))
    try:
        policy.accept_loopback(V6, 80)
        before = what_is_there(lab)
        lab.run("container", *lo_off).check_returncode()
        assert policy.restore() > 0
        assert what_is_there(lab) == before
    finally:
        policy.close()


@pytest.fixture
def setting(lab: Lab, forward_process: ForwardProcess, tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(lab, forward_process, tmp_path)
    yield setting
    setting.close()


@removing
def test_clients_come_again(setting: Setting, remove: Callable[[Lab], None]) -> None:
    target = setting.server("::")
    setting.start("--connect-timeout", "0.2")

    def is_served(source: str) -> bool:
        one = setting.client(source)
        one.settimeout(0.5)
        try:
            exchange(setting, target, one)
        except (OSError, AssertionError):
            return False
        return True

    assert all(map(is_served, SOURCES))
    target.settimeout(0.5)
    remove(setting.lab)
    # One after the other: the target takes whoever comes for the one that is meant.
    eventually(lambda: all(map(is_served, SOURCES)), "all clients are served again")
    assert "somebody removed rules or routes of v6fwd" in setting.process.log
