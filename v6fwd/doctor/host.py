"""Checks of the host's own IPv6: addresses, routes, sysctls, and who refuses what. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from v6fwd.doctor.facts import Facts, known
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.netns.view import Device, DeviceAddress

_DEFAULT = ipaddress.ip_network("::/0")
_UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")
_LEAST_MTU = 1280
_SHORTEST_PREFIX = 48
"""Nobody has more than a site of his own on one link (RFC 6177)."""


def ipv6_disabled(facts: Facts) -> Iterator[Finding]:
    """The kernel's switch, for all devices or for one by which clients come."""
    if facts.sysctls and "net/ipv6/bindv6only" not in facts.sysctls:
        yield Finding(
            "no-ipv6-kernel",
            Severity.ERROR,
            "/proc/sys/net/ipv6",
            "the kernel has no IPv6",
            "no program of this host can have an IPv6 client",
            "remove ipv6.disable=1 from the kernel's command line, and reboot",
        )
        return
    for name in _switched_off(facts):
        yield Finding(
            "ipv6-disabled",
            Severity.ERROR,
            f"net.ipv6.conf.{name}.disable_ipv6",
            "it is 1",
            "the kernel drops all IPv6 packets there, and has removed the addresses",
            f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=0",
        )


def _switched_off(facts: Facts) -> list[str]:
    names = [name for name in ("all", *_names(facts.uplinks)) if _conf(facts, name, "disable_ipv6")]
    return names[:1] if names[:1] == ["all"] else names


def no_global_address(facts: Facts) -> Iterator[Finding]:
    """An address that clients from elsewhere can reach."""
    if not facts.uplinks or _switched_off(facts) or global_addresses(facts):
        return
    if any(device.mtu < _LEAST_MTU for device in facts.uplinks):
        return  # told of as such
    names = _names(facts.uplinks)
    local = [each for each in facts.addresses if each.device in names and _is_local(each)]
    yield Finding(
        "no-global-ipv6",
        Severity.ERROR,
        f"addresses of {', '.join(names)}",
        f"none but {local[0]}, of a site (RFC 4193)" if local else "no global IPv6 address",
        "no IPv6 client from elsewhere can reach this host",
        f"ip -6 address add ADDRESS/64 dev {names[0]}",
    )


def duplicate_address(facts: Facts) -> Iterator[Finding]:
    """Duplicate address detection (RFC 4862, 5.4) has found somebody else."""
    for address in facts.addresses:
        if address.is_duplicate:
            yield Finding(
                "duplicate-address",
                Severity.ERROR,
                f"addresses of {address.device}",
                f"{address} is used by another host of the link (dadfailed)",
                "the kernel does not use the address",
                f"ip -6 address delete {address} dev {address.device}",
            )


def accept_ra(facts: Facts) -> Iterator[Finding]:
    """A host that forwards ignores router advertisements, unless accept_ra is 2 (ip-sysctl)."""
    for device in facts.uplinks:
        forwards = _conf(facts, "all", "forwarding") or _conf(facts, device.name, "forwarding")
        value = facts.sysctls.get(f"net/ipv6/conf/{device.name}/accept_ra")
        if forwards and value == "1" and not _is_static(facts, device):
            yield Finding(
                "accept-ra",
                Severity.ERROR,
                f"net.ipv6.conf.{device.name}.accept_ra and forwarding",
                "accept_ra is 1 while the host forwards IPv6",
                "router advertisements are ignored: address and default route are not renewed",
                f"sysctl -w net.ipv6.conf.{device.name}.accept_ra=2",
            )


def _is_static(facts: Facts, device: Device) -> bool:
    """Whether somebody has set address and default route by hand."""
    routes = any(r.network == _DEFAULT and r.device == device.name for r in facts.routes)
    return routes and any(
        address.is_permanent for address in global_addresses(facts) if address.device == device.name
    )


def no_route(facts: Facts) -> Iterator[Finding]:
    """A way back to clients that are not on the link: by a router, unless it has but one end."""
    if not global_addresses(facts):
        return
    lines = {device.name for device in facts.devices if not device.has_neighbours}
    defaults = [r for r in facts.routes if r.network == _DEFAULT and not r.refuses]
    if any(each.gateway or each.device in lines for each in defaults):
        return
    name = global_addresses(facts)[0].device
    yield Finding(
        "no-ipv6-route",
        Severity.ERROR,
        "the main routing table",
        f"{defaults[0]}, without a router" if defaults else "no IPv6 default route",
        "answers to clients beyond the link cannot leave: they see a timeout",
        f"ip -6 route replace default via ROUTER dev {name}",
    )


def refusing_rules(facts: Facts) -> Iterator[Finding]:
    """Rules of policy routing that say "nowhere"."""
    for rule in facts.rules:
        if rule.refuses:
            family = "-6 " if rule.version == 6 else ""
            yield Finding(
                "refusing-rule",
                Severity.ERROR,
                f"ip {family}rule",
                f"the rule of priority {rule.priority} says {rule.refuses}",
                "answers to clients, or packets for containers, go nowhere",
                f"ip {family}rule delete priority {rule.priority}",
            )


def refusing_routes(facts: Facts) -> Iterator[Finding]:
    """Routes that say "nowhere" to clients or to containers."""
    bridges = [each for each in facts.addresses if facts.bridges and each.is_global]
    for route in facts.routes:
        if not route.refuses:
            continue
        takes = [
            each
            for each in bridges
            if each.network.version == route.network.version
            if each.network.overlaps(route.network)
        ]
        if route.network == _DEFAULT or takes or route.network.version == 6:
            family = "-6 " if route.network.version == 6 else ""
            yield Finding(
                "refusing-route",
                Severity.ERROR,
                f"routing table {route.table or 'main'}",
                str(route),
                "answers to clients, or packets for containers, go nowhere",
                f"ip {family}route delete {route}",
            )


def devices(facts: Facts) -> Iterator[Finding]:
    """Whether any device leads outside, and may carry IPv6 (RFC 8200, 5: 1280 bytes at least)."""
    down = [
        device
        for device in facts.devices
        if not device.is_up and device.kind in ("", "veth", "bond", "vlan") and not device.master
        if device.name != "lo"
    ]
    if facts.devices and not facts.uplinks and down:
        yield Finding(
            "no-uplink",
            Severity.ERROR,
            "the devices of this host",
            f"none that leads outside is up; {', '.join(each.name for each in down)} down",
            "nobody reaches this host",
            f"ip link set {down[0].name} up",
        )
    for device in facts.uplinks:
        if device.no_arp and device.has_neighbours:
            yield Finding(
                "no-arp",
                Severity.ERROR,
                f"device {device.name}",
                "it has the flag NOARP",
                "neighbours are neither looked for nor answered: nobody reaches this host",
                f"ip link set {device.name} arp on",
            )
        if device.mtu < _LEAST_MTU:
            yield Finding(
                "mtu",
                Severity.ERROR,
                f"device {device.name}",
                f"its MTU is {device.mtu}",
                "the kernel has no IPv6 on a link that cannot carry 1280 bytes",
                f"ip link set {device.name} mtu 1500",
            )


def forwarding(facts: Facts) -> Iterator[Finding]:
    """Docker needs it for everything but the proxied ports."""
    if facts.dockerd and facts.sysctls.get("net/ipv4/ip_forward") == "0":
        yield Finding(
            "ip-forward",
            Severity.ERROR,
            "net.ipv4.ip_forward",
            "it is 0, and dockerd runs",
            "IPv4 clients do not reach containers, and containers reach nobody outside",
            "sysctl -w net.ipv4.ip_forward=1",
        )


def prefix_length(facts: Facts) -> Iterator[Finding]:
    """An address of /128 is alone on its link, unless a route says what else is there."""
    for address in global_addresses(facts):
        own = ipaddress.ip_address(address.address)
        is_covered = any(
            own in route.network
            for route in facts.routes
            if route.device == address.device and not route.gateway and route.network.prefixlen
            if not route.refuses
            if route.network.prefixlen < 128
        )
        if address.length == 128 and not is_covered and address.is_permanent:
            network = ipaddress.ip_network(f"{own}/64", strict=False)
            yield Finding(
                "prefix-length",
                Severity.ERROR,
                f"addresses and routes of {address.device}",
                f"{address} has a prefix length of 128, and nothing routes its network there",
                "neighbours on the link are not answered directly, or not at all",
                f"ip -6 route add {network} dev {address.device}",
            )


def short_prefix(facts: Facts) -> Iterator[Finding]:
    """A prefix that has half the world on the link."""
    for address in global_addresses(facts):
        if address.length < _SHORTEST_PREFIX and address.is_permanent:
            right, device = f"{address.address}/64", address.device
            yield Finding(
                "prefix-length",
                Severity.ERROR,
                f"addresses of {device}",
                f"{address} has a prefix length of {address.length}",
                "clients elsewhere in that network are looked for on the link, in vain",
                f"ip -6 address delete {address} dev {device};"
                f" ip -6 address add {right} dev {device}",
            )


def unusable_address(facts: Facts) -> Iterator[Finding]:
    """Addresses that the kernel does not use yet, or not for long."""
    for address in global_addresses(facts):
        device = address.device
        if address.is_tentative:
            yield Finding(
                "tentative-address",
                Severity.ERROR,
                f"addresses of {device}",
                f"{address} is tentative: duplicate address detection has not ended",
                "the kernel does not use the address; this lasts a second or two on most hosts",
                f"ip -6 address delete {address} dev {device};"
                f" ip -6 address add {address} dev {device} nodad",
            )
        elif address.is_deprecated and not address.is_temporary and address.is_permanent:
            yield Finding(
                "deprecated-address",
                Severity.WARNING,
                f"addresses of {device}",
                f"{address} is deprecated (preferred_lft 0)",
                "clients are served, but programs of this host connect from another address",
                f"ip -6 address change {address} dev {device} preferred_lft forever",
            )


def bindv6only(facts: Facts) -> Iterator[Finding]:
    """What `[::]` means to programs that do not say it themselves."""
    if facts.sysctls.get("net/ipv6/bindv6only") == "1":
        yield Finding(
            "bindv6only",
            Severity.WARNING,
            "net.ipv6.bindv6only",
            "it is 1",
            "programs that listen on [::] and expect both families get no IPv4 client",
            "sysctl -w net.ipv6.bindv6only=0",
        )


def denials(facts: Facts) -> Iterator[Finding]:
    """SELinux and AppArmor."""
    lines = known(facts.denials) or ()
    if not lines:
        return
    is_selinux = "avc:" in lines[-1]
    profile = lines[-1].partition('profile="')[2].partition('"')[0]
    yield Finding(
        "denied",
        Severity.ERROR,
        "the audit log" if is_selinux else "the kernel's log",
        lines[-1].strip()[-160:],
        f"{'SELinux' if is_selinux else 'AppArmor'} has refused this {len(lines)} times",
        "ausearch -m avc -ts boot | audit2allow -M v6fwd && semodule -i v6fwd.pp"
        if is_selinux
        else f"aa-complain {profile or 'PROFILE'}",
    )


def global_addresses(facts: Facts) -> list[DeviceAddress]:
    """IPv6 addresses of the devices by which clients come."""
    names = _names(facts.uplinks)
    return [
        address
        for address in facts.addresses
        if address.device in names and ":" in address.address
        if address.is_global and not address.is_duplicate and not _is_local(address)
    ]


def _is_local(address: DeviceAddress) -> bool:
    return ":" in address.address and ipaddress.ip_address(address.address) in _UNIQUE_LOCAL


def _names(devices: list[Device]) -> list[str]:
    return [device.name for device in devices]


def _conf(facts: Facts, name: str, key: str) -> bool:
    return facts.sysctls.get(f"net/ipv6/conf/{name}/{key}", "0") == "1"
