"""What packet filters do with a client's first packet: tables of nft's JSON and iptables-save."""

from __future__ import annotations

from typing import Any

import pytest

from v6fwd.doctor.facts import Port
from v6fwd.doctor.firewall import Dropped, Packet
from v6fwd.doctor.iptables import dropped_by_iptables
from v6fwd.doctor.nftables import dropped_by_nft
from v6fwd.model import Protocol

WEB = Packet(Port(8080), frozenset({"eth0"}), addresses=frozenset({"2001:db8::1"}))
DNS = Packet(Port(53, Protocol.UDP), frozenset({"eth0"}))


def ruleset(*rules: list[Any], policy: str = "accept", **more: list[list[Any]]) -> list[Any]:
    """A table with these rules for what comes in, and other chains by name."""
    base = {"family": "inet", "table": "filter"}
    chain = {"name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}
    found: list[Any] = [{"metainfo": {}}, {"chain": base | chain}]
    for name, each in {"input": list(rules), **more}.items():
        found += [{"rule": base | {"chain": name, "handle": 1, "expr": expr}} for expr in each]
    return found


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    """An expression."""
    return {"match": {"op": op, "left": left, "right": right}}


TCP_PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
DROP: dict[str, Any] = {"drop": None}
ACCEPT: dict[str, Any] = {"accept": None}
STATE = {"ct": {"key": "state"}}
SOURCE = {"payload": {"protocol": "ip6", "field": "saddr"}}
DESTINATION = {"payload": {"protocol": "ip6", "field": "daddr"}}
FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}


@pytest.mark.parametrize(
    ("rules", "dropped"),
    [
        ([[match(TCP_PORT, 8080), DROP]], "tcp dport 8080 drop"),
        ([[match(TCP_PORT, 8081), DROP]], None),
        ([[match(TCP_PORT, 80, "!="), DROP]], "tcp dport != 80 drop"),
        ([[match(TCP_PORT, 1024, ">"), {"reject": {"type": "tcp reset"}}]],
         "tcp dport > 1024 reject"),
        ([[match(TCP_PORT, {"range": [8000, 8100]}), DROP]], "tcp dport 8000-8100 drop"),
        ([[match(TCP_PORT, {"set": [80, {"range": [8000, 8100]}]}), DROP]],
         "tcp dport { 80, 8000-8100 } drop"),
        ([[match(TCP_PORT, 8080), ACCEPT], [DROP]], None),
        ([[match(STATE, ["established", "related"], "in"), ACCEPT], [DROP]], "drop"),
        ([[match(STATE, "invalid"), DROP]], None),
        ([[match(STATE, ["new", "untracked"], "in"), DROP]], "ct state new,untracked drop"),
        ([[match(SOURCE, "2001:db8::1"), DROP]], None),
        ([[match(SOURCE, "2001:db8::1"), ACCEPT], [DROP]], "drop"),
        ([[match({"meta": {"key": "iifname"}}, "lo"), ACCEPT], [DROP]], "drop"),
        ([[match({"meta": {"key": "iifname"}}, "eth*"), DROP]], "meta iifname eth* drop"),
        ([[match({"meta": {"key": "nfproto"}}, "ipv4"), DROP]], None),
        ([[match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}), DROP]],
         "meta l4proto { tcp, udp } drop"),
        ([[{"limit": {"rate": 10, "per": "second"}}, ACCEPT], [DROP]], None),
        ([[{"limit": {"rate": 10, "per": "second", "inv": True}}, DROP]], None),
        ([[{"xt": {"type": "match", "name": "recent"}}, DROP]], None),
        ([[{"jump": {"target": "web"}}], [ACCEPT]], "tcp dport 8080 drop"),
        ([[{"goto": {"target": "empty"}}], [DROP]], None),
        ([[{"vmap": {"key": TCP_PORT, "data": {"set": [[80, ACCEPT], [8080, DROP]]}}}]],
         "tcp dport 8080 drop"),
        ([[{"return": None}], [DROP]], None),
        ([[match(SOURCE, {"prefix": {"addr": "2000::", "len": 3}}), DROP]],
         "ip6 saddr 2000::/3 drop"),
        ([[match(SOURCE, {"prefix": {"addr": "fc00::", "len": 7}}), DROP]], None),
        ([[match(SOURCE, {"prefix": {"addr": "::", "len": 0}}, "!="), DROP]], None),
        ([[match(DESTINATION, "2001:db8::1"), DROP]], "ip6 daddr 2001:db8::1 drop"),
        ([[match(DESTINATION, "2001:db8::2"), DROP]], None),
        ([[match(DESTINATION, {"set": ["2001:db8::1", "2001:db8::2"]}), ACCEPT], [DROP]], None),
        ([[match(DESTINATION, "2001:db8::1", "!="), DROP]], None),
        ([[match({"payload": {"protocol": "ip", "field": "daddr"}}, "192.0.2.1"), DROP]], None),
        ([[match(FLAGS, "syn", "in"), DROP]], "tcp flags syn drop"),
        ([[match(FLAGS, "ack", "in"), DROP]], None),
        ([[match({"&": [FLAGS, {"|": ["fin", "syn"]}]}, "syn"), DROP]],
         "tcp flags & fin | syn syn drop"),
        ([[match({"&": [FLAGS, ["fin", "syn"]]}, "syn", "!="), DROP]], None),
    ],
)  # fmt: skip
def test_nft(rules: list[list[Any]], dropped: str | None) -> None:
    found = list(dropped_by_nft(ruleset(*rules, web=[[match(TCP_PORT, 8080), DROP]]), WEB))
    assert [each.rule for each in found] == ([dropped] if dropped else [])


def test_a_policy() -> None:
    (found,) = dropped_by_nft(ruleset([match(TCP_PORT, 80), ACCEPT], policy="drop"), WEB)
    assert found == Dropped("nft", "inet", "filter", "input", "policy drop")
    assert found.mend(WEB.port) == "nft insert rule inet filter input tcp dport 8080 accept"


def test_a_named_set() -> None:
    rules = ruleset([match(TCP_PORT, "@bad"), DROP])
    bad = {
        "family": "inet",
        "table": "filter",
        "name": "bad",
        "elem": [22, {"range": [8000, 9000]}],
    }
    assert not list(dropped_by_nft(rules, WEB))
    assert list(dropped_by_nft([*rules, {"set": bad}], WEB))


def test_firewalld_is_told_by_its_table() -> None:
    rules = ruleset([DROP])
    for item in rules[1:]:
        next(iter(item.values()))["table"] = "firewalld"
    (found,) = dropped_by_nft(rules, WEB)
    assert found.mend(WEB.port) == "firewall-cmd --add-port=8080/tcp"


def test_what_iptables_made_is_judged_once() -> None:
    rules = ruleset([DROP])
    for item in rules[1:]:
        value = next(iter(item.values()))
        value["family"] = "ip6"
        value["name" if "name" in value else "chain"] = "INPUT"
    assert not list(dropped_by_nft(rules, WEB))
    assert list(dropped_by_nft(rules, WEB, with_iptables=True))


def saved(*lines: str, policy: str = "ACCEPT") -> str:
    """What ip6tables-save prints."""
    return "\n".join(
        ["*nat", ":INPUT ACCEPT [0:0]", "-A INPUT -j DROP", "COMMIT", "*filter",
         f":INPUT {policy} [0:0]", ":GUARD - [0:0]", *lines, "COMMIT"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "packet", "rule"),
    [
        (["-A INPUT -p tcp -m tcp --dport 8080 -j DROP"], WEB, True),
        (["-A INPUT -p tcp -m tcp --dport 8080 -j DROP"], DNS, False),
        (["-A INPUT -p udp -m udp --dport 53 -j REJECT --reject-with icmp6-port-unreachable"],
         DNS, True),
        (["-A INPUT -p tcp -m multiport --dports 80,8000:8100 -j DROP"], WEB, True),
        (["-A INPUT -p tcp -m tcp ! --dport 8080 -j DROP"], WEB, False),
        (["-A INPUT ! -i eth0 -j DROP"], WEB, False),
        (["-A INPUT -i eth+ -j DROP"], WEB, True),
        (["-A INPUT -s 2001:db8::/32 -j DROP"], WEB, False),
        (["-A INPUT ! -s 2001:db8::/32 -j DROP"], WEB, False),  # an allow list is for some
        (["-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -j DROP"],
         WEB, True),
        (["-A INPUT -m conntrack --ctstate INVALID -j DROP"], WEB, False),
        (["-A INPUT -s 2000::/3 -j DROP"], WEB, True),
        (["-A INPUT -d 2001:db8::/32 -j DROP"], WEB, True),
        (["-A INPUT -d 2001:db8:1::/48 -j DROP"], WEB, False),
        (["-A INPUT ! -d 2001:db8::1/128 -j DROP"], WEB, False),
        (["-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"], WEB, True),
        (["-A INPUT -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP"], WEB, False),
        (["-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN FIN,SYN -j DROP"], WEB, False),
        (["-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN NONE -j DROP"], WEB, False),
        (["COMMIT", "*mangle", "-A INPUT -j DROP"], WEB, True),
        (["COMMIT", "*raw", "-A OUTPUT -j DROP"], WEB, False),
        (['-A INPUT -m comment --comment "no web -j ACCEPT" -j DROP'], WEB, True),
        (["-A INPUT -j GUARD", "-A GUARD -p tcp -m tcp --dport 8080 -j DROP"], WEB, True),
        (["-A INPUT -j GUARD", "-A GUARD -j RETURN", "-A GUARD -j DROP"], WEB, False),
        (["-A INPUT -j LOG --log-prefix x", "-A INPUT -p tcp -j ACCEPT", "-A INPUT -j DROP"],
         WEB, False),
    ],
)  # fmt: skip
def test_iptables(lines: list[str], packet: Packet, rule: bool) -> None:
    found = dropped_by_iptables(saved(*lines), packet)
    assert (found is not None) is rule


def test_a_policy_of_ip6tables() -> None:
    found = dropped_by_iptables(saved(policy="DROP"), DNS)
    assert found is not None
    assert found.mend(DNS.port) == "ip6tables -I INPUT -p udp --dport 53 -j ACCEPT"


def test_ufw_is_told_by_its_chains() -> None:
    lines = (":ufw6-user-input - [0:0]", "-A INPUT -j ufw6-user-input")
    found = dropped_by_iptables(saved(*lines, policy="DROP"), WEB)
    assert found is not None
    assert found.mend(WEB.port) == "ufw allow 8080/tcp"
