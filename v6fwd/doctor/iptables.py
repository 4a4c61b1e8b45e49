"""The same question for what iptables-save prints. Pure."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Sequence

from v6fwd.doctor.firewall import PASSED, RETURNED, Dropped, Packet, Rule, both, walk

_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_NO_MATCH = ("-m", "--match", "--comment", "--reject-with", "--log-prefix", "--log-level")
"""Options with a value that say nothing about which packets fit."""


_IN = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "INPUT"), ("filter", "INPUT"),
       ("security", "INPUT"))  # fmt: skip
_OUT = (("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"), ("security", "OUTPUT"),
        ("mangle", "POSTROUTING"))  # fmt: skip
"""The tables and chains that a packet passes, in their order (iptables(8))."""


def dropped_by_iptables(saved: str, packet: Packet) -> Dropped | None:
    """The first rule that drops the packet on its way to a socket of this host, or out."""
    for table, hook in _OUT if packet.is_out else _IN:
        dropped = _dropped_in(saved, table, hook, packet)
        if dropped is not None:
            return dropped
    return None


def _dropped_in(saved: str, table: str, hook: str, packet: Packet) -> Dropped | None:
    tool = "ip6tables" if packet.is_ipv6 else "iptables"
    chains, policies = read(saved, packet, table)
    verdict, text = walk(chains, hook)
    if verdict in (PASSED, RETURNED) and policies.get(hook) == "DROP":
        verdict, text = "drop", "policy DROP"
    if verdict != "drop":
        return None
    is_ufw = any(name.startswith(("ufw-", "ufw6-")) for name in policies)
    return Dropped("ufw" if is_ufw else tool, "", table, hook, text)


def read(
    saved: str, packet: Packet, of: str = "filter"
) -> tuple[dict[str, list[Rule]], dict[str, str]]:
    """The chains of a table as the packet sees them, and their policies."""
    chains: dict[str, list[Rule]] = {}
    policies: dict[str, str] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table == of and line.startswith(":"):
            name, policy = line[1:].split()[:2]
            policies[name] = policy
        elif table == of and line.startswith("-A "):
            name, *words = shlex.split(line)[1:]
            chains.setdefault(name, []).extend(_rule(line, words, packet))
    return chains, policies


def _rule(line: str, words: Sequence[str], packet: Packet) -> Iterator[Rule]:
    fits: bool | None = True
    inverted, at = False, 0
    while at < len(words):
        word = words[at]
        value = words[at + 1] if at + 1 < len(words) else ""
        at += 2
        if word == "!":
            inverted, at = True, at - 1
            continue
        if word in ("-j", "--jump", "-g", "--goto"):
            kind = "goto" if word in ("-g", "--goto") else "jump"
            verdict = _VERDICTS.get(value, kind)
            yield Rule(line, fits, verdict, value if verdict == kind else "")
            return
        if word == "--tcp-flags":  # two values
            mask, at = value, at + 1
            found: bool | None = _has_flags(mask, words[at - 1] if at <= len(words) else "", packet)
            fits = both(fits, found is not inverted)
        elif word not in _NO_MATCH:
            found = _fits(word, value, packet)
            fits = both(fits, (not found) if inverted and found is not None else found)
        inverted = False


def _fits(option: str, value: str, packet: Packet) -> bool | None:
    if option in ("-p", "--protocol"):
        return value in (*packet.protocols, "all")
    if option in ("--icmpv6-type", "--icmpv6type"):
        return packet.is_neighbour and value in ("135", "neighbour-solicitation")
    if option in ("--dport", "--dports", "--destination-port"):
        return _has_port(packet.destination_port, value)
    if option in ("--sport", "--sports", "--source-port"):
        return _has_port(packet.source_port, value)
    if option in ("-i", "--in-interface"):
        return _is_device(value, packet) if not packet.is_out else False
    if option in ("-o", "--out-interface"):
        return _is_device(value, packet) if packet.is_out else False
    if option in ("--ctstate", "--state"):
        return packet.state.upper() in value.split(",")
    if option in ("--dst-type",):
        return value == "LOCAL"
    if option in ("-s", "--source", "-d", "--destination"):
        field = "saddr" if option in ("-s", "--source") else "daddr"
        return packet.has_address(field, [ipaddress.ip_network(value, strict=False)])
    return None  # a set, a rate: not about everybody


def _has_flags(mask: str, set_: str, packet: Packet) -> bool:
    if not packet.flags:
        return False
    return packet.flags & set(mask.lower().split(",")) == set(set_.lower().split(",")) - {"none"}


def _is_device(value: str, packet: Packet) -> bool | None:
    if not packet.devices:
        return False if value == "lo" else None
    if value.endswith("+"):
        return any(name.startswith(value[:-1]) for name in packet.devices)
    return value in packet.devices


def _has_port(port: int | None, value: str) -> bool | None:
    """Whether it is among them; None where it depends on the client."""
    return None if port is None else any(_in_range(port, part) for part in value.split(","))


def _in_range(port: int, part: str) -> bool:
    low, colon, high = part.partition(":")
    return int(low or 0) <= port <= int(high or 65535 if colon else low or 0)
