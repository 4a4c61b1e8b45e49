"""Whether a client's packet is dropped, by what `nft -j list ruleset` prints. Pure."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from v6fwd.doctor.firewall import PASSED, RETURNED, Dropped, Packet, Rule, both, walk
from v6fwd.model import IPNetwork, Protocol

_HOOKS_IN = ("prerouting", "input")
_IPTABLES_TABLES = ("filter", "nat", "mangle", "raw", "security")


def dropped_by_nft(
    ruleset: Sequence[Mapping[str, Any]], packet: Packet, *, with_iptables: bool = False
) -> Iterator[Dropped]:
    """What drops the packet on its way to a socket of this host, or out of it.

    `with_iptables`: tables that iptables made are judged here as well.
    """
    hooks = ("output", "postrouting", "egress") if packet.is_out else ("ingress", *_HOOKS_IN)
    for chain in _base_chains(ruleset, packet, hooks):
        family, table, name = chain["family"], chain["table"], chain["name"]
        is_iptables = family in ("ip", "ip6") and table in _IPTABLES_TABLES and name.isupper()
        if is_iptables and not with_iptables:
            continue
        verdict, text = walk(_nft_chains(ruleset, family, table, packet), name)
        if verdict in (PASSED, RETURNED) and chain.get("policy") == "drop":
            verdict, text = "drop", "policy drop"
        if verdict == "drop":
            tool = "firewalld" if table == "firewalld" else "nft"
            yield Dropped(tool, family, table, name, text)


def _base_chains(
    ruleset: Iterable[Mapping[str, Any]], packet: Packet, hooks: Sequence[str]
) -> list[Mapping[str, Any]]:
    families: tuple[str, ...] = ("inet", "netdev", "ip6" if packet.is_ipv6 else "ip")
    if packet.bridge:
        families = ("bridge",)
    chains = [
        item["chain"]
        for item in ruleset
        if "chain" in item and item["chain"].get("hook") in hooks
        if item["chain"]["family"] in families and item["chain"].get("type") == "filter"
        if _is_at(item["chain"].get("dev"), packet)
    ]
    return sorted(chains, key=lambda each: (hooks.index(each["hook"]), int(each.get("prio", 0))))


def _is_at(device: str | Sequence[str] | None, packet: Packet) -> bool:
    """Whether the packet passes the devices of a chain; None: it is no chain of a device."""
    if device is None:
        return True
    names = (device,) if isinstance(device, str) else device
    return not packet.devices.isdisjoint(names)


def _nft_chains(
    ruleset: Iterable[Mapping[str, Any]], family: str, table: str, packet: Packet
) -> dict[str, list[Rule]]:
    sets: dict[str, Any] = {}
    chains: dict[str, list[Rule]] = {}
    rules = []
    for item in ruleset:
        for kind, value in item.items():
            if not isinstance(value, Mapping) or value.get("family") != family:
                continue
            if kind in ("set", "map") and value["table"] == table:
                sets[value["name"]] = value.get("elem", [])
            if kind == "rule" and value["table"] == table:
                rules.append(value)
    for rule in rules:
        chains.setdefault(rule["chain"], []).extend(_nft_rule(rule["expr"], sets, packet))
    return chains


def _nft_rule(
    expressions: Sequence[Any], sets: Mapping[str, Any], packet: Packet
) -> Iterator[Rule]:
    fits: bool | None = True
    for expression in expressions:
        if not isinstance(expression, Mapping):
            continue
        ((kind, value),) = expression.items()
        if kind == "match":
            fits = both(fits, _nft_match(value, sets, packet))
        elif kind == "limit":
            fits = both(fits, not value.get("inv", False))  # a lone client stays below a rate
        elif kind in ("xt", "ct count", "ct helper"):
            fits = None
        elif kind == "vmap":
            yield from _nft_vmap(value, sets, packet, fits)
        elif kind in ("accept", "return"):
            yield Rule(_nft_text(expressions), fits, kind)
        elif kind in ("drop", "reject"):
            yield Rule(_nft_text(expressions), fits, "drop")
        elif kind in ("jump", "goto"):
            yield Rule(_nft_text(expressions), fits, kind, value["target"])


def _nft_vmap(
    value: Mapping[str, Any], sets: Mapping[str, Any], packet: Packet, fits: bool | None
) -> Iterator[Rule]:
    for key, verdict in _elements(value["data"], sets):
        match = {"op": "==", "left": value["key"], "right": key}
        yield from _nft_rule([{"match": match}, verdict], sets, packet) if fits else ()


def _nft_match(match: Mapping[str, Any], sets: Mapping[str, Any], packet: Packet) -> bool | None:
    special = _address_match(match, sets, packet) or _flags_match(match, packet)
    if special is not None:
        return special.fits
    values = _values_of(match["left"], packet)
    if values is None:
        return None
    if not values:  # a field that the packet has not
        return False
    found = any(_is_among(value, match["right"], sets) for value in values)
    op = match["op"]
    if op in ("==", "in"):
        return found
    if op == "!=":
        return not found
    return _compared(op, values, match["right"])


class _Fits(NamedTuple):
    fits: bool | None


def _address_match(
    match: Mapping[str, Any], sets: Mapping[str, Any], packet: Packet
) -> _Fits | None:
    """A match of an address; None: it is something else."""
    what = match["left"].get("payload") if isinstance(match["left"], Mapping) else None
    if not isinstance(what, Mapping) or what.get("field") not in ("saddr", "daddr"):
        return None
    if what.get("protocol") not in ("ip", "ip6"):
        return _Fits(None)
    if (what["protocol"] == "ip6") is not packet.is_ipv6:
        return _Fits(False)
    found = packet.has_address(what["field"], _networks(match["right"], sets))
    return _Fits(found if match["op"] != "!=" or found is None else not found)


def _networks(right: Any, sets: Mapping[str, Any]) -> Iterator[IPNetwork]:
    if isinstance(right, Mapping) and "prefix" in right:
        yield ipaddress.ip_network(f"{right['prefix']['addr']}/{right['prefix']['len']}", False)
    elif isinstance(right, Mapping) and "range" in right:
        yield from ipaddress.summarize_address_range(*map(ipaddress.ip_address, right["range"]))
    elif isinstance(right, Mapping) and "elem" in right:
        yield from _networks(right["elem"].get("val"), sets)
    elif isinstance(right, list) or (isinstance(right, Mapping) and "set" in right):
        for each in right if isinstance(right, list) else _elements(right, sets):
            yield from _networks(each, sets)
    elif isinstance(right, str) and right.startswith("@"):
        yield from _networks(list(_elements(right, sets)), {})
    elif isinstance(right, str):
        with contextlib.suppress(ValueError):  # a name
            yield ipaddress.ip_network(right)


def _flags_match(match: Mapping[str, Any], packet: Packet) -> _Fits | None:
    """A match of TCP's flags, perhaps of some of them; None: it is something else."""
    left, mask = match["left"], None
    if isinstance(left, Mapping) and "&" in left:
        left, mask = left["&"][0], _flags(left["&"][1])
    what = left.get("payload") if isinstance(left, Mapping) else None
    if what != {"protocol": "tcp", "field": "flags"}:
        return None
    if not packet.flags:
        return _Fits(False)
    wanted = _flags(match["right"])
    if match["op"] == "in":
        return _Fits(bool(packet.flags & wanted))
    is_equal = (packet.flags if mask is None else packet.flags & mask) == wanted
    return _Fits(is_equal if match["op"] == "==" else not is_equal)


def _flags(expression: Any) -> frozenset[str]:
    """The flags in `syn`, in a list, or in `fin | syn`."""
    if isinstance(expression, str):
        return frozenset((expression,))
    parts = expression.get("|", ()) if isinstance(expression, Mapping) else expression
    return frozenset[str]().union(*map(_flags, parts)) if isinstance(parts, list) else frozenset()


def _compared(op: str, values: Sequence[Any], right: Any) -> bool | None:
    (value,) = values if len(values) == 1 else (None,)
    if not isinstance(value, int) or not isinstance(right, int):
        return None
    return {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}.get(
        op
    )


def _values_of(left: Any, packet: Packet) -> Sequence[Any] | None:
    """What the packet has there; () for nothing, None where it depends on the client."""
    if not isinstance(left, Mapping):
        return None
    ((kind, what),) = left.items()
    if kind == "payload":
        return _payload(what, packet)
    if kind == "meta":
        return _meta(what.get("key", ""), packet)
    if kind == "ct":
        return (packet.state,) if what.get("key") == "state" else None
    if kind == "fib":
        return ("local",) if what.get("result") == "type" else None
    return None


def _payload(what: Mapping[str, Any], packet: Packet) -> Sequence[Any] | None:
    protocol, name = what.get("protocol"), what.get("field")
    if protocol in tuple(Protocol) or protocol == "th":
        if packet.is_neighbour or protocol not in ("th", packet.port.protocol):
            return ()
        number = {"dport": packet.destination_port, "sport": packet.source_port}.get(str(name))
        return None if number is None else (number,)
    if protocol in ("ip", "ip6"):
        if (protocol == "ip6") is not packet.is_ipv6:
            return ()
        return packet.protocols if name in ("nexthdr", "protocol") else None
    if protocol == "icmpv6" and packet.is_neighbour:
        return ("nd-neighbor-solicit",) if name == "type" else None
    if protocol == "ether":
        return _meta("protocol", packet) if name == "type" else None
    return () if protocol in ("icmp", "icmpv6", "sctp", "dccp", "arp") else None


def _meta(key: str, packet: Packet) -> Sequence[Any] | None:
    if key == "l4proto":
        return packet.protocols
    if key in ("nfproto", "protocol"):
        return ("ipv6", "ip6") if packet.is_ipv6 else ("ipv4", "ip")
    if key in ("ibrname", "obrname"):
        return (packet.bridge,) if packet.bridge and key[0] == "io"[packet.is_out] else ()
    if key in ("iifname", "iif", "oifname", "oif"):
        is_meant = key.startswith("o") is packet.is_out
        return (tuple(packet.devices) or None) if is_meant else ()
    return None


def _is_among(value: Any, right: Any, sets: Mapping[str, Any]) -> bool:
    if isinstance(right, str) and right.endswith("*") and isinstance(value, str):
        return value.startswith(right[:-1])
    if isinstance(right, str) and right.startswith("@"):
        return any(_is_among(value, each, sets) for each in sets.get(right[1:], []))
    if isinstance(right, list):  # ct state established,related
        return any(_is_among(value, each, sets) for each in right)
    if isinstance(right, Mapping):
        if "set" in right:
            return any(_is_among(value, each, sets) for each in _elements(right, sets))
        if "range" in right:
            low, high = right["range"]
            return isinstance(value, int) and isinstance(low, int) and low <= value <= high
        if "elem" in right:
            return _is_among(value, right["elem"].get("val"), sets)
        return False
    return bool(value == right)


def _elements(right: Any, sets: Mapping[str, Any]) -> Sequence[Any]:
    if isinstance(right, str):
        found: Sequence[Any] = sets.get(right.removeprefix("@"), [])
        return found
    elements = right.get("set", []) if isinstance(right, Mapping) else []
    return elements if isinstance(elements, list) else [elements]


def _nft_text(expressions: Sequence[Any]) -> str:
    """A rule about as nft(8) writes it."""
    return " ".join(filter(None, map(_nft_word, expressions)))


def _nft_word(expression: Any) -> str:
    if not isinstance(expression, Mapping):
        return ""
    ((kind, value),) = expression.items()
    if kind == "match":
        op = "" if value["op"] in ("==", "in") else f"{value['op']} "
        return f"{_nft_left(value['left'])} {op}{_nft_right(value['right'])}"
    if kind in ("jump", "goto"):
        return f"{kind} {value['target']}"
    return "" if kind in ("counter", "log", "comment") else kind


def _nft_left(left: Any) -> str:
    if not isinstance(left, Mapping):
        return str(left)
    ((kind, what),) = left.items()
    if kind == "payload":
        return f"{what.get('protocol', '')} {what.get('field', '')}"
    if kind == "&":
        return f"{_nft_left(what[0])} & {_nft_right(what[1])}"
    return f"{kind} {what.get('key', '')}" if isinstance(what, Mapping) else kind


def _nft_right(right: Any) -> str:
    if isinstance(right, Mapping):
        if "set" in right:
            return f"{{ {', '.join(map(_nft_right, _elements(right, {})))} }}"
        if "range" in right:
            return "-".join(map(str, right["range"]))
        if "|" in right:
            return " | ".join(map(_nft_right, right["|"]))
        if "prefix" in right:
            return f"{right['prefix']['addr']}/{right['prefix']['len']}"
    if isinstance(right, list):
        return ",".join(map(str, right))
    return str(right)
