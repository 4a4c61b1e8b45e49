"""All checks, and what they say of a host."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from v6fwd.doctor import containers, daemon_json, docker, host, ports, rootless, serving, swarm
from v6fwd.doctor.facts import Facts, Unknown
from v6fwd.doctor.finding import Diagnosis, Finding, NotLookedAt, Severity

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    host.devices,
    host.ipv6_disabled,
    host.no_global_address,
    host.duplicate_address,
    host.prefix_length,
    host.short_prefix,
    host.unusable_address,
    host.accept_ra,
    host.no_route,
    host.refusing_routes,
    host.refusing_rules,
    host.forwarding,
    host.bindv6only,
    host.denials,
    ports.listeners,
    swarm.held_by_dockerd,
    swarm.left_to_docker,
    swarm.without_mode,
    ports.firewall,
    ports.docker_user,
    ports.replies,
    ports.containers,
    ports.neighbours,
    daemon_json.daemon_json,
    daemon_json.values,
    daemon_json.exclusive,
    daemon_json.bridge_ip,
    daemon_json.contradictions,
    daemon_json.outside_bip,
    daemon_json.published_address,
    daemon_json.missing_proxy,
    daemon_json.other_proxy,
    docker.bridge_addresses,
    docker.overlaps,
    docker.stale_routes,
    docker.misled_routes,
    docker.members,
    docker.stray_bridges,
    rootless.published_ports,
    serving.daemon,
    serving.configuration,
    serving.shims,
    serving.labels,
    serving.rights,
    containers.listeners_inside,
    containers.lost_clients,
    containers.trusts_bridge,
    containers.configurations,
    containers.own_ipv6,
)
"""In the order in which a client meets what they look at."""

_SOURCES = {
    "listening": "listening sockets",
    "nft": "nftables' rules",
    "ip6tables": "ip6tables' rules",
    "iptables": "iptables' rules",
    "denials": "denials of SELinux and AppArmor",
    "engine": "Docker's containers and networks",
    "status": "the daemon of v6fwd",
    "docker_rules": "rules for Docker's ports",
}
"""What may be Unknown, in words."""
_ORDER = list(Severity)


def examine(facts: Facts) -> Diagnosis:
    """What is wrong, the gravest first, and what could not be looked at."""
    found = [finding for check in CHECKS for finding in check(facts)]
    found.sort(key=lambda finding: _ORDER.index(finding.severity))
    return Diagnosis(tuple(found), tuple(_not_looked_at(facts)))


def _not_looked_at(facts: Facts) -> Iterator[NotLookedAt]:
    for name, what in _SOURCES.items():
        value = getattr(facts, name)
        if isinstance(value, Unknown):
            yield NotLookedAt(what, value.why)
    hidden = _sockets_of_strangers(facts)
    if hidden:
        yield NotLookedAt("whose some listening sockets are", f"{hidden} are not shown to us")


def _sockets_of_strangers(facts: Facts) -> int:
    """Listening sockets of the ports in question without an owner that we may see."""
    sockets = (socket for port in facts.ports() for socket in facts.listeners(port))
    return sum(socket.inode not in facts.owners for socket in sockets)
