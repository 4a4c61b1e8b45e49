"""The placeholder address, and detecting a container before its first process runs."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.inside import in_place, inside
from tests.support.starting import (
    Attach,
    as_engine_20_10,
    as_engine_28,
    new_namespace,
    on_lo,
    running_in,
)
from v6fwd.demo.lab import Lab
from v6fwd.errors import RelayError
from v6fwd.netns.policy import NetnsPolicy, add_placeholder
from v6fwd.netns.search import processes_in
from v6fwd.netns.watch import LinkWatch, all_numbers

pytestmark = pytest.mark.netns

WHERE_TO_LISTEN = """
import socket
flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
print(*sorted({found[4][0] for found in socket.getaddrinfo(None, 80, flags=flags)}))
"""
"""What Apache's library asks for `Listen 80`, and others do."""


def where_to_listen(lab: Lab) -> list[str]:
    """What a server in the container that leaves it to the system is told."""
    asked = lab.run("container", sys.executable, "-c", WHERE_TO_LISTEN)
    asked.check_returncode()
    return asked.stdout.split()


def routes_of(lab: Lab) -> str:
    """Where the container sends what is not for itself."""
    return lab.run("container", "ip", "-6", "route", "show", "table", "main").stdout


# ---- the placeholder ------------------------------------------------------------------------


@pytest.mark.parametrize("off", [(), ("lo",), ("all",)])
def test_where_a_server_listens(lab: Lab, off: tuple[str, ...]) -> None:
    """Engine 28 leaves IPv6 on `lo`, 20.10 switches it off; put back as it was."""
    for name in (*off, "eth0"):
        lab.run("container", "sysctl", "-w", f"net.ipv6.conf.{name}.disable_ipv6=1")
    before, routes = in_place(lab), routes_of(lab)
    assert where_to_listen(lab) == ["0.0.0.0"]
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(contextlib.closing(add_placeholder(lab.namespace("container"))))
            assert where_to_listen(lab) == ["0.0.0.0", "::"]
            assert on_lo(lab.namespace("container")) == ["fe80::76:3666:7764"]
            assert routes_of(lab) == routes, "it leads nowhere"
    assert where_to_listen(lab) == ["0.0.0.0"]
    assert (on_lo(lab.namespace("container")), in_place(lab)) == ([], before)


def test_a_disk_that_is_full(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed cannot be noted: one line, and nothing is left behind."""
    lab.run("container", "sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr("v6fwd.netns.lease.Lease.remember", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RelayError, match="no space left on device"):
        add_placeholder(lab.namespace("container"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert on_lo(lab.namespace("container")) == []


def test_it_stays_as_long_as_somebody_is_inside(lab: Lab) -> None:
    name = lab.namespace("container")
    with contextlib.closing(NetnsPolicy(name)):
        add_placeholder(name).close()
        assert on_lo(lab.namespace("container")) == ["fe80::76:3666:7764"]
    assert on_lo(lab.namespace("container")) == []


def test_the_placeholder_is_removed(lab: Lab) -> None:
    """Whoever else is inside: what it was for is over."""
    name = lab.namespace("container")
    with contextlib.closing(NetnsPolicy(name)), contextlib.closing(add_placeholder(name)) as second:
        for _ in range(2):
            second.remove_placeholder()
            assert on_lo(name) == []


def test_what_a_kill_left_goes_with_the_next_one(lab: Lab) -> None:
    script = (
        "import os, signal, sys; from v6fwd.netns.policy import add_placeholder;"
        "add_placeholder(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, lab.namespace("container")], check=False)
    assert on_lo(lab.namespace("container")) == ["fe80::76:3666:7764"]
    NetnsPolicy(lab.namespace("client")).close()
    assert on_lo(lab.namespace("container")) == []


# ---- noticing --------------------------------------------------------------------------------


@pytest.fixture
def watch(lab: Lab) -> Iterator[LinkWatch]:
    """Of the lab's host, to which nothing has happened yet."""
    with inside(lab, "host"):
        watch = LinkWatch()
    yield watch
    watch.close()


@pytest.fixture
def starting(lab: Lab) -> Iterator[str]:
    with new_namespace(lab) as name:
        yield name


def found(watch: LinkWatch) -> list[int]:
    """The processes in namespaces that have come into use.

    The lab's own are among them as long as the kernel has not told of its devices.
    """
    return [pid for _, pid in processes_in(watch.read())]


@pytest.mark.parametrize("attach", [as_engine_20_10, as_engine_28])
def test_a_namespace_that_gets_a_device(
    lab: Lab, watch: LinkWatch, starting: str, attach: Attach
) -> None:
    with running_in(starting) as process, inside(lab, "host"):
        assert process.pid not in found(watch)
        attach(lab, starting)
        assert found(watch).count(process.pid) == 1
        lab.ip("host", "link", "set", "veth1", "up")
        watch.read()
        lab.ip("host", "link", "set", "veth1", "down")
        assert process.pid not in found(watch), "where the other end is, is no news"


def test_devices_that_stay_are_no_news(lab: Lab, watch: LinkWatch) -> None:
    with inside(lab, "host"):
        before = all_numbers()
        lab.ip("host", "link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
        lab.ip("host", "link", "set", "veth2", "master", "docker0", "up")
        lab.ip("host", "link", "delete", "veth1")
        assert watch.read() <= before


def test_more_news_than_the_kernel_keeps(lab: Lab, watch: LinkWatch, starting: str) -> None:
    """What was lost is looked for: all namespaces that devices lead to."""
    flips = "link set docker0 down\nlink set docker0 up\n" * 400
    name = lab.namespace("host")
    with running_in(starting) as process, inside(lab, "host"):
        subprocess.run(["ip", "-n", name, "-batch", "-"], input=flips, text=True, check=True)
        as_engine_28(lab, starting)
        assert process.pid in found(watch)


def test_a_namespace_without_a_number(lab: Lab, starting: str) -> None:
    """Nothing leads to it from here, so it is none of our host's."""
    with running_in(starting) as process, inside(lab, "host"):
        assert process.pid not in [found for _, found in processes_in({0, 1, 2})]
