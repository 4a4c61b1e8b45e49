"""Whether a packet filter drops a client's first packet: what nftables and iptables share. Pure.

Not all of either language is understood. A rule that asks for something which depends on the
client (its address, a rate, a mark) is taken for one that is not about everybody, and passed over.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from v6fwd.doctor.facts import Port

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
    def protocols(self) -> tuple[str, ...]:
        """What rules call its protocol."""
        if self.is_neighbour:
            return ("ipv6-icmp", "icmpv6", "58")
        return (self.port.protocol.value,)


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
        if self.tool == "nft":
            rule = f"{port.protocol} sport {port.number} accept"
            return f"nft insert rule {self.family} {self.table} {self.chain} {rule}"
        return f"ip6tables -I {self.chain} -p {port.protocol} --sport {port.number} -j ACCEPT"

    def mend_way_to(self, device: str) -> str:
        """The command that lets a relay reach the containers behind a device."""
        if self.tool == "nft":
            rule = f"oifname {device} accept"
            return f"nft insert rule {self.family} {self.table} {self.chain} {rule}"
        return f"iptables -I {self.chain} -o {device} -j ACCEPT"

    def mend_neighbours(self) -> str:
        """The command that lets ICMPv6 in."""
        if self.tool == "nft":
            rule = "meta l4proto ipv6-icmp accept"
            return f"nft insert rule {self.family} {self.table} {self.chain} {rule}"
        return f"ip6tables -I {self.chain} -p ipv6-icmp -j ACCEPT"

    def mend_answers(self, device: str) -> str:
        """The command that lets in what answers us by a device."""
        if self.tool == "nft":
            rule = f"iifname {device} ct state established,related accept"
            return f"nft insert rule {self.family} {self.table} {self.chain} {rule}"
        match = f"-i {device} -m conntrack --ctstate ESTABLISHED,RELATED"
        return f"iptables -I {self.chain} {match} -j ACCEPT"

    def mend(self, port: Port) -> str:
        """The command that lets the port in."""
        if self.tool == "firewalld":
            return f"firewall-cmd --add-port={port.slashed}"
        if self.tool == "ufw":
            return f"ufw allow {port.slashed}"
        if self.tool == "nft":
            rule = f"{port.protocol} dport {port.number} accept"
            return f"nft insert rule {self.family} {self.table} {self.chain} {rule}"
        return f"{self.tool} -I {self.chain} -p {port.protocol} --dport {port.number} -j ACCEPT"


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
