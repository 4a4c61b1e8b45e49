"""v6fwd-docker.service and docker.service under a real systemd, in a user-mode Linux.

Its kernel has no nftables for IPv4, so modes with a header are for IPv6 clients there, and Docker
uses iptables-legacy.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.images import echo_image
from tests.support.installed import install_v6fwd
from tests.support.machine import Machine

pytestmark = [
    pytest.mark.server("linux.uml", "systemctl", "iptables-legacy", "nft"),
    pytest.mark.timeout(400),  # it has one processor, which others want as well
]

UNIT = "v6fwd-docker.service"
MODULES = (
    *("ipv6", "veth", "bridge", "br_netfilter", "nf_conntrack", "nf_conntrack_netlink"),
    *("iptable_nat", "iptable_filter", "ip6table_nat", "ip6table_filter", "nf_tables"),
    *("xt_MASQUERADE", "xt_addrtype", "xt_conntrack", "xt_nat", "xt_tcpudp", "xt_comment"),
)
SETUP = """
ln -sf /usr/sbin/iptables-legacy etc/alternatives/iptables
ln -sf /usr/sbin/ip6tables-legacy etc/alternatives/ip6tables
rm -rf etc/docker
for folder in var/lib/docker var/lib/containerd; do
    mkdir -p $folder
    mount -t tmpfs none $folder
done
"""
CLIENT = "2001:db8:1::2"
NETWORK = f"""
ip netns add client
ip link add veth0 type veth peer name eth0 netns client
ip address add 2001:db8:1::1/64 dev veth0 nodad
ip link set veth0 up
ip -n client address add {CLIENT}/64 dev eth0 nodad
ip -n client link set eth0 up
"""
ASK = """\
#!/bin/bash
# Asks a port until the answer has a word.
while ((SECONDS < 60)); do
    told=$(echo hello | ip netns exec client timeout 5 socat -t 2 - "$1" 2>&1 | tr -d '\\0')
    case $told in *"$2"*) exit ;; esac
    sleep 0.05
done
echo "$1: $told"
exit 1
"""
DOCKER = """
printf '[control]\\ngroup = "daemon"\\n' >/etc/v6fwd/v6fwd.toml
mkdir /etc/systemd/system/v6fwd-docker.service.d
printf '[Service]\\nExecStartPost=nft add table bridge sandboxed\\n' \\
    >/etc/systemd/system/v6fwd-docker.service.d/test.conf
systemctl enable --now v6fwd-docker
v6fwd docker install
systemctl start docker
docker import --change 'ENV PATH=/usr/bin:/bin' /machine/echo.tar echo
docker run --detach --publish 8080:80 --publish 8081:81 \\
    --label v6fwd.client-ip.80=transparent --label v6fwd.client-ip.81=proxy-v2 echo sh -c '
        for port in 80 81; do
            socat TCP6-LISTEN:$port,fork,reuseaddr "SYSTEM:echo from \\$SOCAT_PEERADDR; cat" &
        done
        wait'
"""
CLIENT_SEEN = "from [2001:0db8:0001:0000:0000:0000:0000:0002]"
SERVED = f"""
ask 'TCP:[2001:db8:1::1]:8080' '{CLIENT_SEEN}'
ask 'TCP:[2001:db8:1::1]:8081' QUIT
"""
HELPERS_MAY = 1 << 12 | 1 << 19 | 1 << 21
"""CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With v6fwd and Docker as services, as docs/docker.md says, and a container."""
    folder = tmp_path_factory.mktemp("machine")
    setup = install_v6fwd("v6fwd.service", UNIT) + SETUP
    with Machine(folder, setup=setup, modules=MODULES, memory="2G") as machine:
        machine.add("bin/ask", ASK.encode())
        machine.add("echo.tar", echo_image().finished())
        machine.check(NETWORK + DOCKER, patience=240)
        yield machine


def test_a_container_sees_its_client(machine: Machine) -> None:
    """One port is transparent: namespaces, sysctls, shims' descriptors are all within reach."""
    machine.check(SERVED)
    log = machine.log(UNIT)
    assert "internal error" not in log
    assert "does not judge" not in log  # iptables-legacy cannot be run


def test_what_its_processes_may_do(machine: Machine) -> None:
    [main] = machine.properties(UNIT, "MainPID")
    found = machine.processes(UNIT)
    supervisor = found.pop(int(main))
    assert (supervisor["NoNewPrivs"], supervisor["Seccomp"]) == ("1", "2")
    helpers = [status for status in found.values() if int(status["CapEff"], 16)]
    workers = [status for status in found.values() if status not in helpers]
    assert workers
    for status in workers:
        assert status["Uid"] == "65534"
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {int(status["CapEff"], 16) for status in helpers} == {HELPERS_MAY}


def test_what_the_sandbox_lets_it_do(machine: Machine) -> None:
    """nft changes rules (for a bridge, as this kernel can), and the socket has its group."""
    assert "table bridge sandboxed" in machine.check("nft list tables")
    assert machine.check("stat -c '%G %a' /run/v6fwd/control.sock") == "daemon 660\n"


def test_a_stop_says_what_hangs_and_the_next_start_serves_it(machine: Machine) -> None:
    """Nor is a file with a mistake tried for ever."""
    machine.check(f"systemctl reload {UNIT}\n{SERVED}\nsystemctl stop {UNIT}")
    assert machine.properties(UNIT, "ActiveState", "Result") == ["inactive", "success"]
    assert "clients of 4 published ports HANG from now on" in machine.log(UNIT)
    wrong = "cd /etc/v6fwd; cp v6fwd.toml right; echo 'lissten = 1' >>v6fwd.toml"
    assert machine.run(f"{wrong}\nsystemctl start {UNIT}").returncode != 0
    failed = machine.properties(UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert failed == ["failed", "2", "0"]
    machine.check(f"mv /etc/v6fwd/right /etc/v6fwd/v6fwd.toml\nsystemctl start {UNIT}\n{SERVED}")
