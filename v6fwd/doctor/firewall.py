"""Whether a packet filter drops a client's first packet: what nftables and iptables share. Pure.

Not all of either language is understood. A rule that asks for something which depends on the
client (its address, a rate, a mark) is taken for one that is not about everybody, and passed over.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from v6fwd.doctor.facts import Port
from v6fwd.model import IPNetwork, Protocol

_DEPTH = 16
"""Jumps within jumps; the kernel has the same limit."""


class Way(enum.Enum):
    """Where a packet goes."""

    IN = enum.auto()  # to a socket of this host
    REPLY = enum.auto()  # from the port, to a client
    CONTAINER = enum.auto()  # from a relay of this host, to a container's port


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that comes in, or goes out, by one of these devices; over IPv6 or IPv4.

    A client's first one is `new` to conntrack, a container's answer to us is `established`.
    """

    port: Port
    devices: frozenset[str] = frozenset()
    is_ipv6: bool = True
    state: str = "new"
    is_neighbour: bool = False
    """A neighbour solicitation (RFC 4861), in place of what goes to `port`."""
    way: Way = Way.IN
    addresses: frozenset[str] = frozenset()
    """This host's, one of which is its end of the connection; empty: not known."""
    bridge: str = ""
    """Not empty: it is looked at where it passes a bridge, whose ports `devices` are."""

    @property
    def is_out(self) -> bool:
        """Whether it leaves this host."""
        return self.way is not Way.IN

    @property
    def source_port(self) -> int | None:
        """None: it depends on the client, or on the kernel."""
        return self.port.number if self.way is Way.REPLY else None

    @property
    def destination_port(self) -> int | None:
        """None: it depends on the client."""
        return None if self.way is Way.REPLY else self.port.number

    @property
    def flags(self) -> frozenset[str]:
        """Of TCP: a client's first packet, or the answer to one."""
        if self.is_neighbour or self.port.protocol is not Protocol.TCP:
            return frozenset()
        return frozenset(("syn",) if self.state == "new" else ("syn", "ack"))

    def has_address(self, field: str, networks: Iterable[IPNetwork]) -> bool | None:
        """Whether its "saddr" or "daddr" is in one of them; None: it depends on the client."""
        nets = [each for each in networks if each.version == (6 if self.is_ipv6 else 4)]
        if self.way is Way.CONTAINER or self.bridge or self.is_neighbour:
            return None
        if field == ("saddr" if self.way is Way.REPLY else "daddr"):
            own = [ipaddress.ip_address(each) for each in self.addresses]
            return any(each in net for each in own for net in nets) if own else None
        return True if any(_has_everybody(net) for net in nets) else None

    @property
    def protocols(self) -> tuple[str, ...]:
        """What rules call its protocol."""
        if self.is_neighbour:
            return ("ipv6-icmp", "icmpv6", "58")
        return (self.port.protocol.value,)


def _set(names: Iterable[str]) -> str:
    return f"{{ {', '.join(sorted(names))} }}"


def _has_everybody(network: IPNetwork) -> bool:
    """Whether all clients from elsewhere are in it (2000::/3: RFC 4291, 2.4; IANA's registry)."""
    return network.prefixlen <= (3 if network.version == 6 else 0) and (
        network.version == 4 or ipaddress.ip_address("2001::") in network
    )


@dataclass(frozen=True, slots=True)
class Dropped:
    """Which rule drops it. `chain` is where the hook begins: a rule put there comes first."""

    tool: str
    """"nft", "ip6tables", "iptables", "ufw" or "firewalld"."""
    family: str
    table: str
    chain: str
    rule: str

    def mend_replies(self, port: Port) -> str:
        """The command that lets answers of a port out."""
        return self._insert(
            f"{port.protocol} sport {port.number} accept",
            f"-p {port.protocol} --sport {port.number} -j ACCEPT",
        )

    def mend_way_to(self, device: str, members: Iterable[str]) -> str:
        """The command that lets a relay reach the containers behind a bridge."""
        names = _set(members) if self.family == "bridge" else device
        return self._insert(f"oifname {names} accept", f"-o {device} -j ACCEPT")

    def mend_neighbours(self) -> str:
        """The command that lets ICMPv6 in."""
        return self._insert("meta l4proto ipv6-icmp accept", "-p ipv6-icmp -j ACCEPT")

    def mend_answers(self, device: str, members: Iterable[str]) -> str:
        """The command that lets in what answers us by a bridge."""
        match = f"-i {device} -m conntrack --ctstate ESTABLISHED,RELATED"
        rule = f"iifname {device} ct state established,related accept"
        if self.family in ("bridge", "netdev"):  # conntrack has not seen the packet there
            rule = f"iifname {_set(members) if self.family == 'bridge' else device} accept"
        elif self.table == "raw":
            match = f"-i {device}"
        return self._insert(rule, f"{match} -j ACCEPT")

    def mend(self, port: Port) -> str:
        """The command that lets the port in."""
        if self.tool == "firewalld":
            return f"firewall-cmd --add-port={port.slashed}"
        if self.tool == "ufw":
            return f"ufw allow {port.slashed}"
        return self._insert(
            f"{port.protocol} dport {port.number} accept",
            f"-p {port.protocol} --dport {port.number} -j ACCEPT",
        )

    def _insert(self, nft: str, iptables: str) -> str:
        """Put a rule first, in nftables' words or in those of iptables."""
        if self.tool in ("nft", "firewalld"):
            return f"nft insert rule {self.family} {self.table} {self.chain} {nft}"
        tool = "iptables" if self.tool == "iptables" else "ip6tables"
        table = "" if self.table == "filter" else f" -t {self.table}"
        return f"{tool}{table} -I {self.chain} {iptables}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as one packet sees it: whether it fits (None: it depends), and what then."""

    text: str
    fits: bool | None
    verdict: str
    target: str = ""


_Chains = Mapping[str, Sequence[Rule]]
PASSED, RETURNED = "passed", "returned"


def walk(chains: _Chains, name: str, depth: int = 0) -> tuple[str, str]:
    """What becomes of the packet in a chain: "accept", "drop" or PASSED, and by which rule."""
    for rule in chains.get(name, ()):
        if not rule.fits:
            continue
        if rule.verdict in ("accept", "drop"):
            return rule.verdict, rule.text
        if rule.verdict == "return":
            return RETURNED, ""
        if rule.verdict in ("jump", "goto") and depth < _DEPTH:
            verdict, text = walk(chains, rule.target, depth + 1)
            if verdict in ("accept", "drop"):
                return verdict, text
            if rule.verdict == "goto":
                return RETURNED, ""
    return PASSED, ""


def both(one: bool | None, other: bool | None) -> bool | None:
    """Whether two conditions hold, each of which may depend on the client."""
    if one is False or other is False:
        return False
    return True if one and other else None
