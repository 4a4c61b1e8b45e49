"""Checks of Docker's networks: bridges, their addresses, and routes to them. Pure."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from v6fwd.doctor.daemon_json import RESTART, is_host
from v6fwd.doctor.facts import Facts, known
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.model import IPNetwork
from v6fwd.netns.view import DeviceAddress

_BRIDGE_RE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")
"""How Docker calls bridges, unless it is told otherwise."""
_VETH_RE = re.compile(r"veth[0-9a-f]+")
"""How it calls the host's ends of containers' devices."""
_NAME = "com.docker.network.bridge.name"


@dataclass(frozen=True, slots=True)
class Expected:
    """The address that a bridge must have, and who says so."""

    device: str
    gateway: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    source: str


def expected_addresses(facts: Facts) -> list[Expected]:
    """From the Engine's networks, else from daemon.json."""
    engine = known(facts.engine)
    if engine is not None and engine.networks:
        return [each for network in engine.networks for each in _of_network(network)]
    bip = facts.daemon_json.values.get("bip") if facts.daemon_json else None
    if not isinstance(bip, str):
        return []
    try:
        source = f'"bip" in {facts.daemon_json.path}' if facts.daemon_json else ""
        interface = ipaddress.ip_interface(bip)
        return [Expected("docker0", interface, source)] if is_host(bip) else []
    except ValueError:
        return []


def _of_network(network: Mapping[str, object]) -> Iterator[Expected]:
    if network.get("Driver") != "bridge":
        return
    options, ipam = network.get("Options") or {}, network.get("IPAM") or {}
    assert isinstance(options, Mapping)
    assert isinstance(ipam, Mapping)
    name = options.get(_NAME) or f"br-{str(network.get('Id', ''))[:12]}"
    for config in ipam.get("Config") or ():
        gateway, subnet = config.get("Gateway"), config.get("Subnet")
        if gateway and subnet:
            length = subnet.rpartition("/")[2]
            interface = ipaddress.ip_interface(f"{gateway.partition('/')[0]}/{length}")
            yield Expected(str(name), interface, f"Docker's network {network.get('Name')}")


def bridge_addresses(facts: Facts) -> Iterator[Finding]:
    """Each bridge has the address of its network, is up, and has no other."""
    expected = expected_addresses(facts)
    for each in expected:
        device = facts.device(each.device)
        if device is None:
            continue  # a network without containers may have no bridge before dockerd starts
        have = [address for address in facts.addresses if address.device == each.device]
        if str(each.gateway.ip) not in {address.address for address in have}:
            yield Finding(
                "bridge-address",
                Severity.ERROR,
                f"addresses of {each.device}, and {each.source}",
                f"{each.device} has not its address {each.gateway}",
                "its containers cannot be reached, and have no gateway",
                f"ip address add {each.gateway} dev {each.device}",
            )
        if not device.is_up:
            yield Finding(
                "bridge-down",
                Severity.ERROR,
                f"device {each.device}",
                "it is down",
                "its containers cannot be reached",
                f"ip link set {each.device} up",
            )
    if not expected:
        yield from _bare_bridges(facts)
    yield from _stale_addresses(facts, expected)


def members(facts: Facts) -> Iterator[Finding]:
    """The host's ends of containers' devices: up, and at a bridge."""
    bridges = {bridge.index: bridge.name for bridge in facts.bridges}
    dockers = [name for name in bridges.values() if _BRIDGE_RE.fullmatch(name)]
    for device in facts.devices:
        name = device.name
        if device.kind != "veth" or not _VETH_RE.fullmatch(name):
            continue
        if device.master in bridges and not device.is_up:
            yield Finding(
                "bridge-port-down",
                Severity.ERROR,
                f"device {name}, a port of {bridges[device.master]}",
                "it is down",
                "the container behind it cannot be reached",
                f"ip link set {name} up",
            )
        elif dockers and not device.master and not _has_address(facts, name):
            yield Finding(
                "no-bridge",
                Severity.ERROR,
                f"device {name}",
                "it is at no bridge",
                "the container behind it cannot be reached",
                f"ip link set {name} master {dockers[0] if len(dockers) == 1 else 'BRIDGE'} up",
            )


def _has_address(facts: Facts, name: str) -> bool:
    return any(each.device == name and each.is_global for each in facts.addresses)


def stray_bridges(facts: Facts) -> Iterator[Finding]:
    """Bridges of networks that the Engine does not have any more: their routes are still there."""
    engine = known(facts.engine)
    if engine is None or not engine.networks or engine.is_rootless:
        return
    wanted = {each.device for each in expected_addresses(facts)}
    wanted |= {f"br-{str(network.get('Id', ''))[:12]}" for network in engine.networks}
    for bridge in facts.bridges:
        if re.fullmatch("br-[0-9a-f]{12}", bridge.name) and bridge.name not in wanted:
            has = [str(each) for each in facts.addresses if each.device == bridge.name]
            yield Finding(
                "stale-bridge",
                Severity.WARNING,
                "the bridges of this host, and Docker's networks",
                f"{bridge.name} ({', '.join(has) or 'no address'}) is of none of them",
                "its network leads there, and to no container",
                f"ip link delete {bridge.name}",
            )


def _bare_bridges(facts: Facts) -> Iterator[Finding]:
    """Without anybody to say which address: none at all is wrong, too."""
    for bridge in facts.bridges:
        have = [each for each in facts.addresses if each.device == bridge.name and each.is_global]
        if _BRIDGE_RE.fullmatch(bridge.name) and not have:
            yield Finding(
                "bridge-address",
                Severity.ERROR,
                f"addresses of {bridge.name}",
                "none",
                "its containers cannot be reached, and have no gateway",
                RESTART,
            )


def _stale_addresses(facts: Facts, expected: list[Expected]) -> Iterator[Finding]:
    for name in sorted({each.device for each in expected}):
        gateways = [each.gateway for each in expected if each.device == name]
        versions = {gateway.version for gateway in gateways}
        for address in facts.addresses:
            if address.device != name or not address.is_global:
                continue
            own = ipaddress.ip_address(address.address)
            if own.version in versions and own not in {gateway.ip for gateway in gateways}:
                yield Finding(
                    "stale-address",
                    Severity.WARNING,
                    f"addresses of {name}",
                    f"{address} is not of its network, which has {gateways[0]}",
                    "containers may see connections come from an address that they do not know",
                    f"ip address delete {address} dev {name}",
                )


def overlaps(facts: Facts) -> Iterator[Finding]:
    """Two devices with the same network: the kernel sends to one of them alone."""
    nets = [each for each in facts.addresses if each.is_global and each.length < _full(each)]
    for one, other in itertools.combinations(nets, 2):
        if one.device == other.device or not _overlap(one.network, other.network):
            continue
        if not {one.device, other.device} & {bridge.name for bridge in facts.bridges}:
            continue
        wrong, right = _which_is_wrong(facts, one, other)
        yield Finding(
            "overlapping-prefixes",
            Severity.ERROR,
            "addresses of all devices",
            f"{wrong} on {wrong.device} overlaps {right} on {right.device}",
            "packets for one of the networks leave by the other's device",
            f"ip address delete {wrong} dev {wrong.device}",
        )


def _which_is_wrong(
    facts: Facts, one: DeviceAddress, other: DeviceAddress
) -> tuple[DeviceAddress, DeviceAddress]:
    """A bridge rather than a device that leads outside; of two bridges the one that is empty."""

    def guilt(address: DeviceAddress) -> tuple[bool, bool, bool]:
        device = facts.device(address.device)
        gateways = {str(each.gateway.ip) for each in expected_addresses(facts)}
        return (
            device is not None and device.kind == "bridge",
            address.address not in gateways,
            device is not None and not device.has_carrier,
        )

    return (one, other) if guilt(one) > guilt(other) else (other, one)


def stale_routes(facts: Facts) -> Iterator[Finding]:
    """A route that takes a container's network elsewhere."""
    for bridge in facts.bridges:
        for address in facts.addresses:
            if address.device != bridge.name or not address.is_global:
                continue
            for route in facts.routes:
                if route.refuses or route.device == bridge.name:
                    continue
                if not _within(route.network, address.network):
                    continue
                if any(
                    _overlap(each.network, route.network)
                    for each in facts.addresses
                    if each.device == route.device
                ):
                    continue  # told of as overlapping prefixes
                family = "-6 " if route.network.version == 6 else ""
                yield Finding(
                    "stale-route",
                    Severity.ERROR,
                    "the main routing table",
                    f"{route} takes a part of {address.network}, which is on {bridge.name}",
                    "containers there cannot be reached",
                    f"ip {family}route delete {route}",
                )


def misled_routes(facts: Facts) -> Iterator[Finding]:
    """A route to a bridge of Docker's for a network that is not there."""
    for route in facts.routes:
        if route.refuses or route.gateway or not _BRIDGE_RE.fullmatch(route.device):
            continue
        here = [each.network for each in facts.addresses if each.device == route.device]
        if route.network.is_link_local or any(_within(route.network, each) for each in here):
            continue
        family = "-6 " if route.network.version == 6 else ""
        yield Finding(
            "stale-route",
            Severity.ERROR,
            "the main routing table",
            f"{route}: {route.device} has no address of that network",
            "what goes to those addresses, clients' perhaps, is lost in Docker's network",
            f"ip {family}route delete {route}",
        )


def _full(address: DeviceAddress) -> int:
    return 128 if ":" in address.address else 32


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    if inner.version != outer.version:
        return False
    return inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)
