"""`v6fwd doctor` on hosts made wrong on purpose: it names what is wrong, and its mend mends it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6, CONTAINER_V4, HOST_V6, Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("curl", "nft", "ip6tables")]

PORT = 8080
FAR_CLIENT = "2001:db8:2::2"
"""A client that is not on the host's link."""


@dataclass
class Ward:
    """The lab's host with v6fwd on it, a target in the container, and the doctor's instruments."""

    lab: Lab
    folder: Path
    forward: ForwardProcess
    more: list[ForwardProcess] = field(default_factory=list)

    @property
    def daemon_json(self) -> Path:
        """dockerd's file, as far as the doctor is told."""
        return self.folder / "daemon.json"

    def start(self) -> None:
        """A right host: routes both ways, an address on the bridge, a forward that works."""
        self.daemon_json.write_text(json.dumps({"bip": f"{BRIDGE_V4}/16"}))
        self.sh(
            f"ip -6 route add default via {CLIENT_V6} dev eth0; sysctl -qw net.ipv4.ip_forward=1"
        )
        self.lab.ip("client", "address", "add", f"{FAR_CLIENT}/128", "dev", "lo")
        (self.folder / "index.html").write_text("hello\n")
        serve = (sys.executable, "-m", "http.server", "80", "--directory", str(self.folder))
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.lab.start("container", *serve, "--bind", "0.0.0.0", **quiet)
        eventually(lambda: self.lab.run("container", "ss", "-Hltn", "sport = :80").stdout, "up")
        self.serve(f"[::]:{PORT}")
        eventually(self.is_served, "the first request arrives, and neighbours know each other")

    def serve(self, listen: str, process: ForwardProcess | None = None) -> None:
        """Run v6fwd on the host."""
        (process or self.forward).start(
            listen, f"{CONTAINER_V4}:80", prefix=self.lab.command("host")
        )

    def sh(self, command: str) -> None:
        """Run a shell command on the host; what fails, fails the test."""
        done = self.lab.run("host", "sh", "-ec", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def diagnose(self, *words: str) -> dict[str, Any]:
        """What the doctor says of the host, and its exit status."""
        nowhere = str(self.folder / "nothing.sock")
        command = (sys.executable, "-m", "v6fwd", "doctor", "--json", "--socket", nowhere,
                   "--docker-host", f"unix://{nowhere}", "--daemon-json", str(self.daemon_json),
                   *(words or (str(PORT),)))  # fmt: skip
        done = self.lab.run("host", *command)
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == found["needs_attention"], found
        return found

    def ids(self, *words: str) -> list[str]:
        """What is wrong."""
        return [finding["id"] for finding in self.diagnose(*words)["findings"]]

    def finding(self, which: str, *words: str) -> dict[str, str]:
        """The one of that name."""
        found = self.diagnose(*words)["findings"]
        (finding,) = [each for each in found if each["id"] == which] or [None]
        assert finding is not None, found
        return dict(finding)

    def mend(self, command: str, **blanks: str) -> None:
        """Do what a finding says; `blanks` are the words in it that only people can fill in."""
        for blank, value in blanks.items():
            assert blank in command
            command = command.replace(blank, value)
        if command.startswith("v6fwd forward "):
            process = ForwardProcess(self.folder / str(len(self.more)))
            self.more.append(process)
            (self.folder / str(len(self.more) - 1)).mkdir()
            process.start(*shlex.split(command)[2:], prefix=self.lab.command("host"))
        else:
            self.sh(command)

    def is_served(self, client: str = CLIENT_V6) -> bool:
        """Whether a request of an IPv6 client is answered."""
        url = f"http://[{HOST_V6}]:{PORT}/index.html"
        words = ("curl", "--silent", "--max-time", "1", "--interface", client, url)
        return self.lab.run("client", *words).stdout == "hello\n"

    def end(self) -> None:
        """End what was started."""
        for process in self.more:
            process.end()


@pytest.fixture
def ward(lab: Lab, forward_process: ForwardProcess, tmp_path: Path) -> Iterator[Ward]:
    ward = Ward(lab, tmp_path, forward_process)
    ward.start()
    yield ward
    ward.end()


def test_a_right_host(ward: Ward) -> None:
    for words in ((), (str(PORT),)):
        found = ward.diagnose(*words)
        assert (found["findings"], found["not_looked_at"]) == ([], []), found
    assert ward.is_served()
    assert ward.is_served(FAR_CLIENT)


def test_words_for_people(ward: Ward) -> None:
    ward.sh("sysctl -qw net.ipv6.bindv6only=1")
    command = (sys.executable, "-m", "v6fwd", "doctor", str(PORT), "--docker-host", "unix:///x",
               "--socket", "/x", "--daemon-json", "/x")  # fmt: skip
    done = ward.lab.run("host", *command)
    assert done.returncode == 1
    assert "warning: net.ipv6.bindv6only: it is 1\n" in done.stdout
    assert "  mend  sysctl -w net.ipv6.bindv6only=0\n" in done.stdout


GUARD = "ct state established,related accept; meta l4proto ipv6-icmp accept;"
BACK = (
    f"ip -6 address replace {HOST_V6}/64 dev eth0 nodad;"
    f"ip -6 route replace default via {CLIENT_V6} dev eth0"
)
"""What the host's network scripts do when a device has IPv6 again."""
FORGET = "\nip -6 neighbour flush dev eth0"
"""So that the client has to be found again."""


def nft(*rules: str, before: str = "", policy: str = "accept") -> str:
    """The command that makes a table with these rules for what comes in."""
    lines = ["table inet filter {", before, "chain input {",
             f"type filter hook input priority 0; policy {policy};", *rules, "}", "}"]  # fmt: skip
    return "nft -f - <<X\n" + "\n".join(lines) + "\nX"


def hooked(where: str, rule: str) -> str:
    """The same for one rule at another hook."""
    return nft(rule).replace("hook input", f"hook {where}")


@dataclass(frozen=True)
class Wrong:
    """A way to spoil a host; `then`: what others do after the mend; `is_cut`: nobody is served."""

    finding: str
    spoil: str
    is_cut: bool = True
    then: str = ""
    blanks: dict[str, str] = field(default_factory=dict)
    client: str = CLIENT_V6


WRONG = {
    "ipv6 off": Wrong("ipv6-disabled", "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", then=BACK),
    "ipv6 off everywhere": Wrong(
        "ipv6-disabled", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1", then=BACK
    ),
    "no global address": Wrong(
        "no-global-ipv6",
        "ip -6 address flush dev eth0 scope global",
        blanks={"ADDRESS": HOST_V6},
        then=BACK,
    ),
    "advertisements ignored": Wrong(
        "accept-ra",
        f"ip -6 address change {HOST_V6}/64 dev eth0 valid_lft 900 preferred_lft 900;"
        "sysctl -qw net.ipv6.conf.all.forwarding=1; sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
        is_cut=False,
    ),
    "no default route": Wrong(
        "no-ipv6-route",
        "ip -6 route delete default",
        blanks={"ROUTER": CLIENT_V6},
        client=FAR_CLIENT,
    ),
    "prefix of 128": Wrong(
        "prefix-length",
        f"ip -6 address delete {HOST_V6}/64 dev eth0;"
        f"ip -6 address add {HOST_V6}/128 dev eth0 nodad;"
        f"ip -6 route replace default via {CLIENT_V6} dev eth0 onlink",
        is_cut=False,
    ),
    "prefix of 0": Wrong(
        "prefix-length",
        f"ip -6 address delete {HOST_V6}/64 dev eth0; ip -6 address add {HOST_V6}/0 dev eth0 nodad",
        client=FAR_CLIENT,
    ),
    "tentative address": Wrong(
        "tentative-address",
        "sysctl -qw net.ipv6.conf.eth0.dad_transmits=600;"
        f"ip -6 address delete {HOST_V6}/64 dev eth0; ip -6 address add {HOST_V6}/64 dev eth0",
    ),
    "deprecated address": Wrong(
        "deprecated-address",
        f"ip -6 address change {HOST_V6}/64 dev eth0 preferred_lft 0",
        is_cut=False,
    ),
    "address of a site": Wrong(
        "no-global-ipv6",
        f"ip -6 address delete {HOST_V6}/64 dev eth0; ip -6 address add fd00::1/64 dev eth0 nodad",
        blanks={"ADDRESS": HOST_V6},
    ),
    "default route without router": Wrong(
        "no-ipv6-route",
        "ip -6 route replace default dev eth0",
        blanks={"ROUTER": CLIENT_V6},
        client=FAR_CLIENT,
    ),
    "policy routing": Wrong(
        "refusing-rule", "ip -6 rule add to 2001:db8:2::/48 prohibit prio 100", client=FAR_CLIENT
    ),
    "another table": Wrong(
        "refusing-route",
        f"ip -6 rule add from {HOST_V6} lookup 77 prio 100;"
        "ip -6 route add unreachable default table 77",
    ),
    "no neighbours": Wrong("no-arp", "ip link set eth0 arp off" + FORGET),
    "container's device down": Wrong("bridge-port-down", "ip link set veth0 down"),
    "container at no bridge": Wrong("no-bridge", "ip link set veth0 nomaster"),
    "clients routed to a bridge": Wrong(
        "stale-route", "ip -6 route add 2001:db8:2::/64 dev docker0", client=FAR_CLIENT
    ),
    "bindv6only": Wrong("bindv6only", "sysctl -qw net.ipv6.bindv6only=1", is_cut=False),
    "nft, a policy": Wrong("firewall", nft(GUARD, policy="drop")),
    "nft, a set": Wrong(
        "firewall",
        nft(
            "tcp dport @bad drop",
            before="set bad { type inet_service; flags interval; elements = { 8000-8100 } }",
        ),
    ),
    "nft, another chain": Wrong(
        "firewall",
        nft(
            'iifname "eth0" jump web',
            before="chain web { tcp dport { 80, 8080 } reject with tcp reset; }",
        ),
    ),
    "nft, a map": Wrong("firewall", nft("tcp dport vmap { 22 : accept, 8080 : drop }")),
    "ip6tables": Wrong("firewall", f"ip6tables -A INPUT -p tcp --dport {PORT} -j DROP"),
    "ip6tables, a policy": Wrong(
        "firewall",
        "ip6tables -A INPUT -p ipv6-icmp -j ACCEPT; ip6tables -A INPUT -m conntrack --ctstate"
        " ESTABLISHED -j ACCEPT; ip6tables -P INPUT DROP",
    ),
    "ip6tables, another chain": Wrong(
        "firewall",
        "ip6tables -N GUARD; ip6tables -A INPUT -i eth0 -j GUARD; ip6tables -A GUARD -p tcp -m"
        " multiport --dports 80,8000:8100 -j REJECT",
    ),
    "nft, before all else": Wrong("firewall", hooked("ingress device eth0", "tcp dport 8080 drop")),
    "nft, a device's table": Wrong(
        "firewall",
        hooked("ingress device eth0", "ip6 nexthdr tcp drop").replace("table inet", "table netdev"),
    ),
    "nft, the host's address": Wrong(
        "firewall", nft("ip6 daddr 2001:db8:1::/64 tcp flags & (syn | ack) == syn drop")
    ),
    "nft, all addresses": Wrong("firewall", nft("ip6 saddr 2000::/3 tcp dport 8080 drop")),
    "nft, a bridge's table": Wrong(
        "answers-dropped",
        hooked("input", "iifname veth0 ether type ip drop").replace("table inet", "table bridge"),
    ),
    "ip6tables, raw": Wrong(
        "firewall", f"ip6tables -t raw -A PREROUTING -p tcp --dport {PORT} -j DROP"
    ),
    "ip6tables, mangle": Wrong(
        "firewall", f"ip6tables -t mangle -A INPUT -d {HOST_V6} -p tcp --dport {PORT} -j DROP"
    ),
    "ip6tables, first packets": Wrong("firewall", "ip6tables -A INPUT -p tcp --syn -j REJECT"),
    "nft, answers": Wrong("answers-dropped", nft('iifname "docker0" drop')),
    "iptables, answers": Wrong(
        "answers-dropped", "iptables -A INPUT -i eth0 -j ACCEPT; iptables -P INPUT DROP"
    ),
    "nft, replies": Wrong(
        "replies-dropped",
        nft("oifname eth0 tcp sport 8080-8090 drop").replace("hook input", "hook output"),
    ),
    "ip6tables, replies": Wrong("replies-dropped", "ip6tables -P OUTPUT DROP"),
    "nft, to containers": Wrong(
        "way-to-container",
        nft("ct state established,related accept", "meta l4proto ipv6-icmp accept", policy="drop")
        .replace("hook input", "hook output"),
    ),
    "iptables, to containers": Wrong(
        "way-to-container",
        "iptables -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables -A OUTPUT -o lo"
        " -j ACCEPT; iptables -P OUTPUT DROP",
    ),
    "bridge without address": Wrong(
        "bridge-address", f"ip address delete {BRIDGE_V4}/16 dev docker0"
    ),
    "bridge down": Wrong("bridge-down", "ip link set docker0 down"),
    "old address": Wrong(
        "stale-address", "ip address add 172.31.0.1/16 dev docker0", is_cut=False
    ),
    "overlapping bridges": Wrong(
        "overlapping-prefixes",
        "ip link add br-0123456789ab type bridge; ip link set br-0123456789ab up;"
        "ip address add 172.17.0.1/24 dev br-0123456789ab",
    ),
    "device down": Wrong("no-uplink", "ip link set eth0 down", then=BACK),
    "small packets": Wrong("mtu", "ip link set eth0 mtu 1000", then=BACK),
    "no way to clients": Wrong(
        "refusing-route",
        "ip -6 route add unreachable 2001:db8:2::/48",
        client=FAR_CLIENT,
    ),
    "no way to containers": Wrong("refusing-route", "ip route add blackhole 172.17.0.0/24"),
    "nft, before routing": Wrong(
        "firewall", nft("tcp dport 8080 drop").replace("hook input", "hook prerouting")
    ),
    "nft, neighbours": Wrong(
        "icmpv6-dropped",
        nft("tcp dport 8080 accept; iifname docker0 accept", policy="drop") + FORGET,
    ),
    "ip6tables, neighbours": Wrong(
        "icmpv6-dropped",
        "ip6tables -A INPUT -p tcp -j ACCEPT; ip6tables -P INPUT DROP" + FORGET,
    ),
    "old route": Wrong(
        "stale-route",
        "ip link add old type bridge; ip link set old up; ip route add 172.17.0.0/24 dev old",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_host(ward: Ward, wrong: Wrong) -> None:
    eventually(lambda: ward.is_served(wrong.client), "the request arrives")
    ward.sh(wrong.spoil)
    assert ward.is_served(wrong.client) is not wrong.is_cut
    finding = ward.finding(wrong.finding)
    assert all(finding.values()), finding
    ward.mend(finding["mend"], **wrong.blanks)
    assert wrong.finding not in ward.ids()
    if wrong.then:
        ward.sh(wrong.then)
    eventually(lambda: not ward.ids(), "no finding is left, once an address is no longer tentative")
    eventually(lambda: ward.is_served(wrong.client), "the request arrives")


def test_rules_about_some_clients_are_no_finding(ward: Ward) -> None:
    """Bans and rates are about somebody else; so are rules for other ports and for IPv4."""
    rules = (
        "ip6 saddr @banned drop",
        "ip protocol tcp tcp dport 8080 drop",
        "tcp dport 22 drop",
        "ct state invalid drop",
        "tcp dport 8080 limit rate over 400/second drop",
        "udp dport 8080 drop",
        "tcp sport 8080 drop",
        'iifname "wlan0" drop',
    )
    banned = "set banned { type ipv6_addr; elements = { 2001:db8:9::1 }; }"
    ward.sh(nft(*rules, before=banned))
    ward.sh("ip6tables -A INPUT -s 2001:db8:9::/48 -j DROP; ip6tables -A INPUT -i lo -j DROP")
    assert ward.ids() == []
    assert ward.is_served()


def test_nobody_listens(ward: Ward) -> None:
    ward.forward.end()
    finding = ward.finding("nobody-listens")
    ward.mend(finding["mend"], TARGET=f"{CONTAINER_V4}:80")
    assert ward.ids() == []
    assert ward.is_served()


def test_a_listener_for_ipv4_alone(ward: Ward) -> None:
    ward.forward.end()
    ward.serve(f"0.0.0.0:{PORT}")
    assert not ward.is_served()
    finding = ward.finding("ipv4-only-listener")
    assert f"0.0.0.0:{PORT} alone, of v6fwd, pid {ward.forward.pid}" in finding["found"]
    ward.mend(finding["mend"])
    assert ward.ids() == []
    assert ward.is_served()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_listener_on_loopback(ward: Ward, host: str) -> None:
    ward.forward.end()
    ward.serve(f"{host}:{PORT}")
    finding = ward.finding("nobody-listens")
    assert f"none but {host}:{PORT}, of v6fwd" in finding["found"]
    ward.mend(finding["mend"])
    assert ward.ids() == []
    assert ward.is_served()


def test_a_listener_on_another_address(ward: Ward) -> None:
    ward.sh("ip -6 address add 2001:db8:1::77/64 dev eth0 nodad")
    ward.forward.end()
    ward.serve(f"[2001:db8:1::77]:{PORT}")
    assert not ward.is_served()
    ward.mend(ward.finding("some-addresses")["mend"])
    assert ward.ids() == []
    assert ward.is_served()


def test_a_program_that_has_stopped(ward: Ward) -> None:
    ward.forward.end()
    script = (
        f"import signal, socket; s = socket.create_server(('::', {PORT}), backlog=0,"
        " family=socket.AF_INET6, dualstack_ipv6=True); print(1, flush=True); signal.pause()"
    )
    words = (sys.executable, "-c", script)
    process = ward.lab.start("host", *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    for _ in range(2):
        assert not ward.is_served()
    finding = ward.finding("nobody-accepts")
    assert f", pid {process.pid}, which does not" in finding["found"]
    assert f"kill -CONT {process.pid}" in finding["mend"]


def test_an_address_that_somebody_else_has(ward: Ward) -> None:
    ward.lab.ip("client", "address", "add", "2001:db8:1::9/64", "dev", "eth0", "nodad")
    ward.sh("ip -6 address add 2001:db8:1::9/64 dev eth0")
    eventually(lambda: "duplicate-address" in ward.ids(), "the address is found to be taken")
    ward.mend(ward.finding("duplicate-address")["mend"])
    assert ward.ids() == []
    assert ward.is_served()


# ---- Docker's programs ---------------------------------------------------------------------


def docker_proxy(ward: Ward, host: str = "::") -> subprocess.Popen[Any]:
    """The real docker-proxy on the host, started as dockerd starts it."""
    ours, status = os.pipe()
    flags = f"-proto tcp -host-ip {host} -host-port {PORT} -container-ip {CONTAINER_V4}"
    command = f"exec 3>&{status}; exec docker-proxy {flags} -container-port 80"
    process = ward.lab.start("host", "bash", "-c", command, pass_fds=(status,))
    os.close(status)
    with os.fdopen(ours, "rb") as pipe:
        assert pipe.read(2) == b"0\n"
    return process


def fake_dockerd(ward: Ward, script: str, **options: Any) -> None:
    """A process that is called dockerd."""
    program = ward.folder / "dockerd"
    program.symlink_to(os.path.realpath(sys.executable))
    words = (str(program), "-I", "-S", "-c", f"{script}\nprint(1, flush=True); input()")
    process = ward.lab.start(
        "host", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"


@pytest.mark.server("docker-proxy")
def test_docker_user_does_not_hold_for_ipv6(ward: Ward) -> None:
    ward.forward.end()
    docker_proxy(ward)
    assert ward.ids() == []
    ward.sh("iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN")
    assert ward.ids() == []
    ward.sh(f"iptables -I DOCKER-USER -s 203.0.113.0/24 -p tcp --dport {PORT} -j DROP")
    finding = ward.finding("docker-user")
    ward.mend(finding["mend"], NETWORK="2001:db8:bad::/48")
    assert ward.ids() == []
    assert ward.is_served()


@pytest.mark.server("docker-proxy")
def test_a_port_that_was_published_before_v6fwd_came(ward: Ward) -> None:
    ward.forward.end()
    proxy = docker_proxy(ward)
    values = {"bip": f"{BRIDGE_V4}/16", "userland-proxy-path": "/usr/bin/v6fwd-docker-proxy"}
    ward.daemon_json.write_text(json.dumps(values))
    finding = ward.finding("started-without-v6fwd")
    assert f"process {proxy.pid}, for [::]:{PORT}" in finding["looked_at"]
    assert finding["mend"] == "docker restart CONTAINER"  # there is no Engine to tell its name
    assert "daemon-not-running" in ward.ids()


@pytest.mark.server("docker-proxy")
def test_a_port_published_for_ipv4_alone(ward: Ward) -> None:
    ward.forward.end()
    docker_proxy(ward, "0.0.0.0")
    finding = ward.finding("ipv4-only-listener")
    assert "of docker-proxy, pid" in finding["found"]
    ward.mend(finding["mend"])
    assert ward.ids() == []
    assert ward.is_served()


def test_an_ingress_port_of_swarm(ward: Ward) -> None:
    ward.forward.end()
    fake_dockerd(ward, f"import socket; s = socket.create_server(('::', {PORT}),"
                       " family=socket.AF_INET6, dualstack_ipv6=True)")  # fmt: skip
    assert not ward.is_served()
    assert "held by dockerd, pid" in ward.finding("swarm-ingress")["found"]


def test_a_file_that_dockerd_has_not_read(ward: Ward) -> None:
    fake_dockerd(ward, "")
    old = ward.daemon_json.stat().st_mtime
    os.utime(ward.daemon_json, (old - 3600, old - 3600))
    assert ward.ids() == []
    os.utime(ward.daemon_json, (old + 3600, old + 3600))
    finding = ward.finding("daemon-json-not-live")
    assert finding["mend"] == "systemctl restart docker"


def test_without_root(ward: Ward) -> None:
    """It says what it could not look at, and what it saw all the same."""
    ward.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")
    script = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from v6fwd.cli import main; main(['doctor', '--json', '8080', '--docker-host',"
        " 'unix:///nothing', '--socket', '/nothing', '--daemon-json', '/nothing'])"
    )
    done = ward.lab.run("host", sys.executable, "-c", script, env={**os.environ, "HOME": "/"})
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"][0]["id"] == "ipv6-disabled"
    what = {each["what"] for each in found["not_looked_at"]}
    assert {"nftables' rules", "ip6tables' rules"} <= what
    assert "whose some listening sockets are" in what
