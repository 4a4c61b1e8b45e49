"""Transparent mode over time: nothing is left behind, and what changes in the container is seen."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.netns.test_transparent import PORT, Setting, exchange
from tests.support.inside import UDP, in_place, server
from tests.support.process import ForwardProcess, eventually, free_port
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, CONTAINER_V4, Lab, stop
from v6fwd.netns.lease import LEASES
from v6fwd.netns.namespace import Namespace
from v6fwd.netns.search import NAMED
from v6fwd.relay.transparent.pseudo_store import PseudoStore

pytestmark = pytest.mark.netns

LO_OFF = ("sysctl", "-w", "net.ipv6.conf.lo.disable_ipv6=1")


@pytest.fixture
def setting(lab: Lab, forward_process: ForwardProcess, tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(lab, forward_process, tmp_path)
    yield setting
    setting.close()


def use_everything(setting: Setting) -> None:
    """Have every kind of rule put in place."""
    for number, listens in enumerate(("::", "0.0.0.0", CONTAINER_V4)):
        for kind in (UDP, 1):
            target = setting.server(listens, 80 + number, kind)
            for source in (CLIENT_V6, CLIENT_V4):
                one = setting.client(source, kind=kind, listen=PORT + number)
                exchange(setting, target, one, kind)


def start(setting: Setting) -> None:
    """v6fwd for the three ports of `use_everything`."""
    now = ("--drain-timeout", "0", "--interrupt-timeout", "0")  # the clients stay
    setting.start(*now, listen=f"[::]:{PORT}-{PORT + 2}/tcp+udp", target=f"{CONTAINER_V4}:80-82")


def leases_of(lab: Lab) -> list[Path]:
    """The lease of the container's namespace, where there is one."""
    namespace = Namespace(lab.namespace("container"))
    namespace.close()
    return [path for path in LEASES.iterdir() if path.name == namespace.identity]


# ---- nothing is left behind ------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_nothing(setting: Setting, number: signal.Signals) -> None:
    """Neither rules and routes, nor IPv6 on `lo`, which was off as Docker 20.10 has it."""
    setting.lab.run("container", *LO_OFF).check_returncode()
    before = in_place(setting.lab)
    start(setting)
    use_everything(setting)
    during = in_place(setting.lab)
    assert all(during[what] != before[what] for what in before)
    setting.process.signal(number)
    assert setting.process.wait() == 0
    assert in_place(setting.lab) == before
    assert leases_of(setting.lab) == []


def test_what_a_kill_left_is_removed_at_the_next_start(setting: Setting, tmp_path: Path) -> None:
    """Even where that is for another namespace."""
    lab = setting.lab
    lab.run("container", *LO_OFF).check_returncode()
    before = in_place(lab)
    start(setting)
    use_everything(setting)
    setting.process.signal(signal.SIGKILL)
    setting.process.wait()
    assert in_place(lab) != before
    other = ForwardProcess(tmp_path)
    words = ("--client-ip", "transparent", "--target-netns", lab.namespace("client"))
    other.start(f"[::]:{PORT}", "203.0.113.2:80", *words, prefix=lab.command("host"))
    try:
        assert in_place(lab) == before
        assert leases_of(lab) == []
    finally:
        other.end()
        words = ("--client-ip", "transparent", "--pseudo-store", setting.store)
        other.start(f"[::]:{PORT}", f"{CONTAINER_V4}:80", "--target-netns",
                    lab.namespace("container"), *words, prefix=lab.command("host"))  # fmt: skip
        other.signal(signal.SIGTERM)
        assert other.wait() == 0
    assert in_place(lab, "client")["rules"].count("lookup") == 5


def test_two_processes_share_a_namespace(setting: Setting, tmp_path: Path) -> None:
    lab, folder = setting.lab, tmp_path / "other"
    folder.mkdir()
    before = in_place(lab)
    other = Setting(lab, ForwardProcess(folder), folder)
    target = setting.server("::")
    try:
        setting.start()
        other.start(listen=f"[::]:{PORT + 1}")
        for listen in (PORT, PORT + 1):
            exchange(setting, target, setting.client(listen=listen))
        setting.process.signal(signal.SIGINT)
        assert setting.process.wait() == 0
        for source in (CLIENT_V6, CLIENT_V4):
            exchange(setting, target, setting.client(source, listen=PORT + 1))
        other.process.signal(signal.SIGINT)
        assert other.process.wait() == 0
    finally:
        other.close()
    assert in_place(lab) == before


def test_entering_200_times_leaves_nothing_behind(setting: Setting) -> None:
    """In one process: not a descriptor more than before, and nothing in the container."""
    setting.lab.run("container", *LO_OFF).check_returncode()
    before = in_place(setting.lab)
    namespace = setting.lab.namespace("container")
    done = subprocess.run(
        [sys.executable, "-m", "bench.netns_cycles", namespace, "200"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "200 times, 0 descriptors left\n"
    assert in_place(setting.lab) == before
    assert leases_of(setting.lab) == []


@pytest.mark.parametrize("by", ["name", "pid"])
def test_a_deleted_namespace_is_released(setting: Setting, by: str) -> None:
    """Its end of the veth pair goes when the last reference to it has gone."""
    lab = setting.lab
    holder = lab.start("container", "sleep", "60")
    with server(lab, "::", 80) as target:
        setting.start("--target-netns", str(holder.pid) if by == "pid" else namespace_of(lab))
        with setting.client() as one:
            assert exchange(setting, target, one)[0] == CLIENT_V6
        setting.keep(target)
    for one in setting._open:
        one.close()
    stop(holder)
    lab.run("host", "ip", "netns", "delete", namespace_of(lab)).check_returncode()
    eventually(lambda: "veth0" not in in_place(lab, "host")["addresses"] + links(lab), "veth0 goes")
    assert "has gone" in setting.process.log
    subprocess.run(["ip", "netns", "add", namespace_of(lab)], check=True)  # for the lab's end


def namespace_of(lab: Lab) -> str:
    """The container's."""
    return lab.namespace("container")


def links(lab: Lab) -> str:
    """The devices of the host."""
    return lab.run("host", "ip", "-brief", "link").stdout


# ---- what changes is noticed -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, UDP], ids=["tcp", "udp"])
def test_a_container_that_restarts(setting: Setting, kind: int) -> None:
    """Its namespace is another one under the old name."""
    lab = setting.lab
    setting.start()
    for _ in range(2):
        target = server(lab, "::", 80, kind)
        setting.keep(target)

        def served(target: Any = target) -> bool:
            try:
                drop_late_datagrams(target, kind)
                one = setting.client(kind=kind)
                one.settimeout(0.3)
                target.settimeout(0.3)
                return exchange(setting, target, one, kind) == (CLIENT_V6, one.getsockname()[1])
            except OSError:
                return False

        eventually(served, "the client is seen")
        for one in setting._open:
            one.close()
        for words in (("netns", "delete"), ("netns", "add")):
            subprocess.run(["ip", *words, namespace_of(lab)], check=True)
        lab.ip("container", "link", "set", "lo", "up")
        lab.ip("container", "link", "add", "eth0", "type", "veth", "peer", "name", "nowhere")
        lab.ip("container", "address", "add", f"{CONTAINER_V4}/32", "dev", "eth0")


def test_a_name_that_leads_to_another_container(setting: Setting, tmp_path: Path) -> None:
    """As where a process id is given away again: nobody gets another one's clients."""
    lab, name = setting.lab, tmp_path / "container"
    name.symlink_to(NAMED / lab.namespace("container"))
    setting.start("--target-netns", str(name))
    target = setting.server("::")
    assert exchange(setting, target, setting.client(), socket.SOCK_STREAM)[0] == CLIENT_V6
    name.unlink()
    name.symlink_to(NAMED / lab.namespace("client"))
    stranger = setting.keep(server(lab, "::", 80, socket.SOCK_STREAM, "client"))
    stranger.settimeout(0)
    text = f"{CONTAINER_V4} is no address of network namespace {name}"

    def refused() -> bool:
        with contextlib.suppress(OSError):
            one = setting.client()
            one.settimeout(0.3)
            one.recv(1)
        with pytest.raises(BlockingIOError):
            stranger.accept()
        return text in setting.process.log

    eventually(refused, "clients are refused")


def drop_late_datagrams(target: Any, kind: int) -> None:
    """Drop datagrams of clients that no longer wait: each would be taken for the next one's."""
    target.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while kind == UDP:
            target.recv(100)


def test_a_port_that_opens_late_and_changes_its_address(setting: Setting) -> None:
    setting.start()
    with pytest.raises(ConnectionResetError):
        setting.client().recv(1)
    for listens, is_shown in (("0.0.0.0", False), ("::", True), (CONTAINER_V4, False)):
        with setting.server(listens) as target:
            wanted = {CLIENT_V6} if is_shown else {CLIENT_V6, pseudo_of(setting)}
            eventually(partial(is_reached, setting, target, wanted), f"{listens} is reached")


def is_reached(setting: Setting, target: Any, wanted: set[str]) -> bool:
    """Whether the target is, and by one of those."""
    target.settimeout(0.3)
    try:
        return exchange(setting, target, setting.client())[0] in wanted
    except (ConnectionResetError, TimeoutError):
        return False


def pseudo_of(setting: Setting) -> str:
    """The client's pseudo address, which it has from now on if it had none."""
    store = PseudoStore(setting.store)
    packed = store.address_of(socket.inet_pton(socket.AF_INET6, CLIENT_V6), 64)
    store.close()
    return socket.inet_ntoa(packed)


# ---- what is missing -------------------------------------------------------------------------

LACKS = [
    ("-sys_admin", "needs CAP_SYS_ADMIN"),
    ("-net_admin", "needs CAP_NET_ADMIN"),
    ("-net_admin,-net_raw", "needs CAP_NET_ADMIN"),
]


def without(capabilities: str) -> list[str]:
    """The command in front of one that lacks them."""
    return ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]


@pytest.mark.server("setpriv")
@pytest.mark.parametrize(("capabilities", "text"), LACKS)
def test_without_the_rights_it_does_not_start(
    setting: Setting, capabilities: str, text: str
) -> None:
    words = ("--client-ip", "transparent", "--target-netns", namespace_of(setting.lab))
    prefix = [*setting.lab.command("host"), *without(capabilities)]
    pair = (f"[::]:{PORT}", f"{CONTAINER_V4}:80")
    setting.process.start(*pair, *words, prefix=prefix, ready=False)
    assert setting.process.wait() == 1
    assert len(setting.process.log.splitlines()) == 1
    assert text in setting.process.log


@pytest.mark.server("setpriv")
def test_without_the_rights_the_fallback_serves(setting: Setting) -> None:
    words = ("--client-ip", "transparent", "--target-netns", namespace_of(setting.lab),
             "--transparent-fallback", "proxy-v2")  # fmt: skip
    prefix = [*setting.lab.command("host"), *without("-sys_admin")]
    target = setting.server("::")
    setting.process.start(f"[::]:{PORT}", f"{CONTAINER_V4}:80", *words, prefix=prefix)
    assert "fall back to proxy-v2: cannot use network namespace" in setting.process.log
    setting.client().sendall(b"hello")
    accepted = setting.keep(target.accept()[0])
    assert accepted.recv(100)[12:14] == b"\x21\x21"


@pytest.mark.parametrize(
    ("netns", "text"),
    [
        ("no-such-name", "cannot open network namespace /run/netns/no-such-name: no such file"),
        ("/nowhere/at/all", "cannot open network namespace /nowhere/at/all: no such file"),
        ("4194305", "there is no process 4194305"),
        ("/proc/self/ns/net", "is v6fwd's own, not a container's"),
        ("/etc/hostname", "cannot use network namespace /etc/hostname: invalid argument"),
    ],
)
def test_a_target_netns_that_is_no_namespace(
    forward_process: ForwardProcess, netns: str, text: str
) -> None:
    words = ("--client-ip", "transparent", "--target-netns", netns)
    forward_process.start(f"[::1]:{free_port()}", "127.0.0.1:80", *words, ready=False)
    assert forward_process.wait() == 1
    assert text in forward_process.log


def test_an_address_that_is_not_the_containers(setting: Setting) -> None:
    words = ("--client-ip", "transparent", "--target-netns", namespace_of(setting.lab))
    pair = (f"[::]:{PORT}", "172.17.0.99:80")
    setting.process.start(*pair, *words, prefix=setting.lab.command("host"), ready=False)
    assert setting.process.wait() == 1
    assert "172.17.0.99 is no address of network namespace" in setting.process.log
    assert "lookup 19" not in in_place(setting.lab)["rules"]
