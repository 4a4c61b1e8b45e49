"""The checks that need Docker, as tables of facts: each names its fault; a right host has none."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from v6fwd import __version__
from v6fwd.config.rules import Rule
from v6fwd.docker.shim.published import PublishedPort, ServedBy
from v6fwd.doctor.configs import ConfigFile, read_configs
from v6fwd.doctor.examine import examine
from v6fwd.doctor.facts import DaemonJson, Engine, Facts, Port, Unknown, known
from v6fwd.doctor.finding import Severity
from v6fwd.model import ClientIP, Endpoint, Forward, Protocol
from v6fwd.netns.owners import Process
from v6fwd.netns.view import Device, DeviceAddress, Listening, Route

GATEWAY, ADDRESS = "172.17.0.1", "172.17.0.2"
DEFAULT = Route(ipaddress.ip_network("::/0"), "eth0", "2001:db8:1::fe")
RIGHT = Facts(
    sysctls={"net/ipv6/bindv6only": "0", "net/ipv6/conf/eth0/accept_ra": "1"},
    devices=(
        Device(1, "lo"),
        Device(2, "eth0"),
        Device(3, "docker0", "bridge"),
        Device(4, "veth1", "veth", master=3),
    ),
    addresses=(
        DeviceAddress("eth0", "2001:db8:1::1", 64),
        DeviceAddress("eth0", "192.0.2.1", 24),
        DeviceAddress("docker0", GATEWAY, 16),
    ),
    routes=(DEFAULT,),
)
NETWORK: dict[str, Any] = {
    "Name": "bridge",
    "Id": "0" * 64,
    "Driver": "bridge",
    "Options": {"com.docker.network.bridge.name": "docker0"},
    "IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": GATEWAY}]},
}
SAYS_NONE = {"com.docker.swarm.service.name": "demo_web", "v6fwd.client-ip": "none"}
NONE, TRANSPARENT = {}, {"v6fwd.client-ip": "transparent"}  # type: ignore[var-annotated]


def container(labels: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A container as the Engine tells of it."""
    network = {"IPAddress": ADDRESS, "Gateway": GATEWAY, "GlobalIPv6Address": ""}
    return {
        "Id": "c1",
        "Names": ["/web"],
        "Image": "nginx:1.27",
        "State": "running",
        "Labels": dict(labels),
        "Ports": [{"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
        "NetworkSettings": {"Networks": {"bridge": network | more.pop("network", {})}},
    } | more


def with_engine(*containers: dict[str, Any], config: Mapping[str, Any] | None = None) -> Facts:
    """A right host with these containers."""
    details = {"c1": {"Config": config or {}, "State": {"Pid": 1}}}
    engine = Engine("unix:///x", containers, (NETWORK,), {}, details)
    return replace(RIGHT, engine=engine)


def with_file(values: Mapping[str, Any], **more: Any) -> Facts:
    """A right host with this daemon.json."""
    return replace(RIGHT, daemon_json=DaemonJson("/etc/docker/daemon.json", values, **more))


def published(served_by: ServedBy, **more: Any) -> Facts:
    """A right host, and a process that serves port 8080."""
    forward = Forward(Endpoint("::", 8080), Endpoint(ADDRESS, 80))
    sockets = (Listening(Protocol.TCP, "::", 8080, True, 99),)
    owner = Process(77, "docker-proxy")
    facts = replace(with_engine(container(TRANSPARENT)), **more)
    return replace(facts, published=(PublishedPort(forward, served_by, 77),), listening=sockets,
                   owners={99: owner})  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    """What a daemon of this version answers."""
    return {"version": __version__, "pid": 5, "forwards": []} | more


LISTENS = {"c1": (Listening(Protocol.TCP, "::", 80, False, 1),)}
IPV4 = {"c1": (Listening(Protocol.TCP, "0.0.0.0", 80, False, 1),)}
LOOPBACK = {"c1": (Listening(Protocol.TCP, "127.0.0.1", 80, False, 1),)}
DAEMON = Process(5, "v6fwd", capabilities=1 << 21 | 1 << 12)
OWN_V6 = {"GlobalIPv6Address": "2001:db8:5::2"}

INGRESS = replace(
    RIGHT,
    listening=(Listening(Protocol.TCP, "::", 8080, False, 8080),),
    owners={8080: Process(9, "dockerd")},
)
"""dockerd holds a port of Swarm's mesh."""


def mesh(
    state: str,
    *,
    mode: str = "proxy-v1",
    source: str = "label",
    listen: str = "[::]:8080",
    **more: Any,
) -> dict[str, Any]:
    """What a daemon answers that knows that port."""
    port = {"listen": listen, "container": "service demo_web", "state": state, "source": source}
    forwards = [] if state == "left" else [{"listen": listen, "client_ip": mode, "state": "open"}]
    return status(published=[port], forwards=forwards) | more


OLD = Engine("unix:///x", info={"ServerVersion": "20.10.24"})

WRONG: dict[str, tuple[Facts, str, str]] = {
    "broken file": (with_file({}, error="it is not JSON"), "daemon-json-broken", "json.tool"),
    "gateway outside": (
        with_file({"fixed-cidr-v6": "2001:db8:5::/64", "default-gateway-v6": "2001:db8:5::1"}),
        "gateway-outside",
        'remove "default-gateway-v6"',
    ),
    "no userland proxy": (
        with_file({"userland-proxy": False}), "userland-proxy-off", '"userland-proxy": true'
    ),
    "ports on IPv4": (with_file({"ip": "0.0.0.0"}), "published-on-ipv4", 'remove "ip"'),
    "no shim": (
        replace(
            with_file({"userland-proxy-path": "/gone/v6fwd-docker-proxy"}),
            proxy_missing="/gone/v6fwd-docker-proxy",
        ),
        "proxy-missing",
        "v6fwd docker install",
    ),
    "another program": (
        with_file({"userland-proxy-path": "/usr/bin/socat"}),
        "proxy-unknown",
        "v6fwd docker install --daemon-json",
    ),
    "a value in quotes": (
        with_file({"userland-proxy": "false"}), "daemon-json-value", '"userland-proxy", a bool'
    ),
    "a misspelt key": (
        with_file({"userland_proxy_path": "/x"}), "daemon-json-value", '"userland-proxy-path", a'
    ),
    "a bridge with bip": (
        with_file({"bridge": "br7", "bip": f"{GATEWAY}/16"}), "options-exclude", 'remove "bip"'
    ),
    "icc without iptables": (
        with_file({"icc": False, "iptables": False}), "options-exclude", 'remove "iptables"'
    ),
    "ip6tables before 27": (
        replace(with_file({"ip6tables": True}), engine=OLD),
        "option-missing",
        '"experimental": true',
    ),
    "ipv6 before 27": (
        replace(with_file({"ipv6": True}), engine=OLD),
        "option-missing",
        '"fixed-cidr-v6": "fd00:db8::/64"',
    ),
    "bip is a network": (
        with_file({"bip": "172.17.0.0/16"}), "bip-invalid", '"bip": "172.17.0.1/16"'
    ),
    "bip without a length": (
        with_file({"bip": GATEWAY}), "bip-invalid", '"bip": "172.17.0.1/16"'
    ),
    "a removed network's bridge": (
        replace(
            with_engine(),
            devices=(*RIGHT.devices, Device(5, "br-0123456789ab", "bridge")),
            addresses=(*RIGHT.addresses, DeviceAddress("br-0123456789ab", "172.18.0.1", 16)),
        ),
        "stale-bridge",
        "ip link delete br-0123456789ab",
    ),
    "outside bip": (
        with_file({"bip": f"{GATEWAY}/16", "fixed-cidr": "172.18.0.0/24"}),
        "outside-bip",
        'remove "fixed-cidr"',
    ),
    "nothing is forwarded": (
        replace(RIGHT, dockerd=(Process(9, "dockerd"),), sysctls={**RIGHT.sysctls,
                "net/ipv4/ip_forward": "0"}),
        "ip-forward",
        "sysctl -w net.ipv4.ip_forward=1",
    ),
    "bip": (
        replace(with_file({"bip": "172.30.0.1/16"}), addresses=RIGHT.addresses[:2]),
        "bridge-address",
        "ip address add 172.30.0.1/16 dev docker0",
    ),
    "a network's bridge": (
        replace(with_engine(), addresses=RIGHT.addresses[:2]),
        "bridge-address",
        f"ip address add {GATEWAY}/16 dev docker0",
    ),
    "nobody knows the address": (
        replace(RIGHT, addresses=RIGHT.addresses[:2]), "bridge-address", "systemctl restart docker"
    ),
    "same IPv6 network twice": (
        replace(RIGHT, addresses=(*RIGHT.addresses, DeviceAddress("docker0", "2001:db8:1::5", 80))),
        "overlapping-prefixes",
        "ip address delete 2001:db8:1::5/80 dev docker0",
    ),
    "SELinux": (
        replace(RIGHT, denials=('type=AVC msg=audit(1): avc:  denied  { bind } comm="v6fwd"',)),
        "denied",
        "audit2allow",
    ),
    "AppArmor": (
        replace(RIGHT, denials=('apparmor="DENIED" profile="docker-default" comm="v6fwd"',)),
        "denied",
        "aa-complain docker-default",
    ),
    "no daemon": (
        replace(RIGHT, shim_installed=True), "daemon-not-running", "systemctl start v6fwd-docker"
    ),
    "another version": (
        replace(RIGHT, status=status(version="0.0.9")), "versions-differ", "systemctl restart"
    ),
    "alone": (published(ServedBy.STANDALONE), "stands-alone", "docker restart web"),
    "before v6fwd": (
        published(ServedBy.DOCKER, shim_installed=True, status=status()),
        "started-without-v6fwd",
        "docker restart web",
    ),
    "a file with mistakes": (
        replace(RIGHT, config_error="/etc/v6fwd/v6fwd.toml: no key 'port'\n/etc/v6fwd/x: no"),
        "configuration",
        "v6fwd serve --check -c /etc/v6fwd/v6fwd.toml",
    ),
    "before v6fwd, and a file that was not read": (
        replace(
            published(ServedBy.DOCKER, shim_installed=True, status=status()),
            dockerd=(Process(9, "dockerd", started=100.0),),
            daemon_json=DaemonJson("/etc/docker/daemon.json", written=200.0),
        ),
        "daemon-json-not-live",
        "systemctl restart docker",
    ),
    "an ingress port of Swarm, beside Swarm's own": (
        replace(
            RIGHT,
            listening=tuple(Listening(Protocol.TCP, "::", n, False, n) for n in (2377, 7946, 8080)),
            owners={number: Process(9, "dockerd") for number in (2377, 7946, 8080)},
        ),
        "swarm-ingress",
        "docker service update --publish-rm 8080",
    ),
    "a port of a swarm that is left to Docker": (
        replace(
            INGRESS,
            status=mesh("left", held=[{"listen": "[::]:8080", "why": "several services"}]),
        ),
        "mesh-left",
        'service = "demo_web"',
    ),
    "a service of a swarm without a mode": (
        replace(INGRESS, status=mesh("served", mode="none")),
        "mesh-client-lost",
        "--container-label-add v6fwd.client-ip=transparent demo_web",
    ),
    "a port that is served on other nodes' behalf alone": (
        replace(INGRESS, status=mesh("served", listen="[::]:8081")),
        "swarm-ingress",
        "swarm = true below [docker]",
    ),
    "wrong label": (
        with_engine(container({"v6fwd.client-ip": "transparent", "v6fwd.client-ip.80": "proxy"})),
        "wrong-label",
        "--label v6fwd.client-ip=transparent",
    ),
    "the host's port in a label": (
        with_engine(container(TRANSPARENT | {"v6fwd.client-ip.8080": "proxy-v2"})),
        "label-without-port",
        "--label v6fwd.client-ip.80=proxy-v2",
    ),
    "no rights": (
        replace(
            with_engine(container(TRANSPARENT)),
            status=status(),
            daemon=replace(DAEMON, capabilities=1 << 12),
        ),
        "missing-rights",
        "AmbientCapabilities=CAP_SYS_ADMIN",
    ),
    "no mode": (
        with_engine(container(NONE)),
        "client-lost",
        f"; or proxy-v2, and for nginx: listen 80 proxy_protocol; set_real_ip_from {GATEWAY}",
    ),
    "server on IPv4 alone": (
        replace(with_engine(container(TRANSPARENT)), inside=IPV4),
        "pseudo-clients",
        "listen on [::]:80",
    ),
    "server on loopback": (
        replace(with_engine(container(TRANSPARENT)), inside=LOOPBACK),
        "nobody-in-container",
        "listen on 0.0.0.0:80",
    ),
    "no server": (
        replace(with_engine(container(TRANSPARENT)), inside={"c1": ()}),
        "nobody-in-container",
        "listen on 0.0.0.0:80",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "which", "mend"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_host(facts: Facts, which: str, mend: str) -> None:
    (finding,) = examine(facts).findings
    assert finding.id == which
    assert mend in finding.mend
    assert finding.looked_at
    assert finding.found
    assert finding.why
    assert finding.severity is not Severity.NOTE


@pytest.mark.parametrize(
    "facts",
    [
        RIGHT,
        with_file({"bip": f"{GATEWAY}/16", "userland-proxy": True}),
        with_engine(container(TRANSPARENT)),
        replace(with_engine(container(TRANSPARENT)), inside=LISTENS, status=status(), daemon=DAEMON,
                shim_installed=True),
        published(ServedBy.DAEMON, status=status(), daemon=DAEMON, shim_installed=True),
        with_engine(container(NONE, State="exited")),
        with_engine(container({"v6fwd.client-ip.80": "proxy-v2"})),
        replace(INGRESS, status=mesh("served")),
        replace(INGRESS, status=mesh("handed-over", mode="proxy-v2", source="hop")),
        replace(INGRESS, status=mesh("served", mode="none", source="rule")),
        replace(
            INGRESS,
            status=mesh("served", mode="none"),
            engine=Engine("unix:///x", (container(SAYS_NONE, Ports=[]),)),
        ),
    ],
    ids=["bare", "file", "engine", "whole", "shim", "stopped", "label",
         "mesh", "hop", "none by rule", "none by label"],
)  # fmt: skip
def test_a_right_host(facts: Facts) -> None:
    diagnosis = examine(facts)
    assert diagnosis.findings == ()
    assert not diagnosis.needs_attention


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"Env": ["MYNETWORKS=127.0.0.0/8 172.16.0.0/12"]}, "172.16.0.0/12"),
        ({"Env": ["PERMIT_DOCKER=network"]}, "PERMIT_DOCKER=network"),
        ({"Cmd": ["gunicorn", "--proxy-allow-from", GATEWAY]}, GATEWAY),
        ({"Entrypoint": ["run", "--trusted=10.0.0.0/8,172.17.0.0/16"]}, "172.17.0.0/16"),
        ({"Env": ["LISTEN=0.0.0.0/0", "PEER=192.168.0.0/16", "V=1.2.3.4.5", "X=172.17.0.12"]}, ""),
        ({"Env": ["PERMIT_DOCKER=none"]}, ""),
    ],
)
def test_who_trusts_the_bridge(config: dict[str, Any], found: str) -> None:
    findings = examine(with_engine(container(NONE), config=config)).findings
    trusts = [finding for finding in findings if finding.id == "trusts-bridge"]
    assert [finding.found.split()[0] for finding in trusts] == ([found] if found else [])


@pytest.mark.parametrize(
    ("line", "labels", "which", "mend"),
    [
        ("mynetworks = 127.0.0.0/8, 172.16.0.0/12", NONE, "trusts-bridge", "=transparent"),
        ("mynetworks = 127.0.0.0/8, 172.16.0.0/12", TRANSPARENT, "", ""),
        (f"mynetworks = {GATEWAY}", NONE, "trusts-bridge", "=transparent"),
        ("# mynetworks = 172.16.0.0/12", NONE, "", ""),
        ("mynetworks = 10.0.0.0/8 127.0.0.0/8", NONE, "", ""),
        ("allow 172.17.0.0/16;", NONE, "trusts-bridge", "=transparent"),
        ("set_real_ip_from 172.17.0.0/16;", NONE, "trusts-network", f"from {GATEWAY};"),
        ("set_real_ip_from 172.17.0.0/16;", TRANSPARENT, "trusts-network", f"from {GATEWAY};"),
        (f"set_real_ip_from {GATEWAY};", NONE, "trusts-bridge", "=transparent"),
        (f"set_real_ip_from {GATEWAY};", {"v6fwd.client-ip": "proxy-v2"}, "", ""),
        ("RemoteIPInternalProxy 172.16.0.0/12", TRANSPARENT, "trusts-network", GATEWAY),
        ("proxy-protocol-networks = 172.17.0.0/16", TRANSPARENT, "trusts-network", GATEWAY),
        ("proxy_protocol_networks = 172.17.0.0/16", TRANSPARENT, "trusts-network", GATEWAY),
        ("proxy-protocol-from=172.16.0.0/12", TRANSPARENT, "trusts-network", GATEWAY),
        ("listen 172.17.0.1:80;", NONE, "", ""),
    ],
)
def test_lines_that_trust(line: str, labels: dict[str, str], which: str, mend: str) -> None:
    file = ConfigFile("/etc/x.conf", f"first\n  {line}\n")
    facts = replace(with_engine(container(labels)), configs={"c1": (file,)})
    found = [each for each in examine(facts).findings if each.id.startswith("trusts")]
    assert [each.id for each in found] == ([which] if which else [])
    for each in found:
        assert mend in each.mend
        assert each.looked_at == "/etc/x.conf, line 2, of container web"


def test_files_of_a_container(tmp_path: Path) -> None:
    """Regular files alone: what else is there, the container may have put there to hold us up."""
    folder = tmp_path / "etc/nginx/conf.d"
    folder.mkdir(parents=True)
    (folder / "a.conf").write_text("set_real_ip_from 10.0.0.0/8;")
    (folder / "b.conf").symlink_to("/etc/passwd")
    os.mkfifo(folder / "c.conf")
    (folder / "d.conf").mkdir()
    assert read_configs(tmp_path) == (
        ConfigFile("/etc/nginx/conf.d/a.conf", "set_real_ip_from 10.0.0.0/8;"),
    )


def test_nobody_is_trusted_in_place_of_the_client_where_it_is_seen() -> None:
    config = {"Env": ["MYNETWORKS=172.16.0.0/12"]}
    assert examine(with_engine(container(TRANSPARENT), config=config)).findings == ()


def test_a_container_with_ipv6_of_its_own() -> None:
    """A note, which is no reason for exit status 1."""
    diagnosis = examine(with_engine(container(NONE, network=OWN_V6)))
    assert [(each.id, each.severity) for each in diagnosis.findings] == [("own-ipv6", "note")]
    assert not diagnosis.needs_attention


def test_what_could_not_be_looked_at_is_said() -> None:
    facts = replace(RIGHT, nft=Unknown("no nft"), engine=Unknown("silent"), named=(Port(80),),
                    listening=Unknown("no netlink"))  # fmt: skip
    diagnosis = examine(facts)
    assert diagnosis.findings == (), "nothing is said of a port whose sockets were not seen"
    assert {each.what for each in diagnosis.not_looked_at} == {
        "listening sockets",
        "nftables' rules",
        "Docker's containers and networks",
    }


def test_the_gravest_come_first() -> None:
    facts = replace(with_engine(container(NONE)), routes=(), sysctls={"net/ipv6/bindv6only": "1"})
    severities = [finding.severity for finding in examine(facts).findings]
    assert severities == [Severity.ERROR, Severity.WARNING, Severity.WARNING]


def test_rules_of_the_file_count_while_the_daemon_is_down() -> None:
    """The port is not served now, but nobody has forgotten the client."""
    facts = with_engine(container(NONE))
    assert [each.id for each in examine(facts).findings] == ["client-lost"]
    rules = (Rule(ClientIP.TRANSPARENT, container="web"),)
    assert not examine(replace(facts, docker_rules=rules)).findings


def test_the_way_out_of_a_rootless_docker_is_no_label() -> None:
    trusting = container(NONE) | {"Labels": {}}
    facts = with_engine(trusting)
    engine = known(facts.engine)
    assert engine is not None
    env = {"c1": {"Config": {"Env": ["MYNETWORKS=172.16.0.0/12"]}}}
    info = {"SecurityOptions": ["name=rootless"]}
    found = examine(replace(facts, engine=replace(engine, info=info, details=env))).findings
    assert [(each.id, "label" in each.mend) for each in found] == [("trusts-bridge", False)]
