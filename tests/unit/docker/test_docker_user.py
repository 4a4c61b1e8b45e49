"""DOCKER-USER's rules as they are for packets that come to v6fwd instead of a container."""

from __future__ import annotations

import pytest

from v6fwd.docker.policy.docker_user import UntranslatableError, quoted, read_rules, translate
from v6fwd.model import Endpoint, Forward

WEB = Forward(Endpoint("0.0.0.0", 8080), Endpoint("172.17.0.2", 80))
FAIL2BAN = """-N f2b-web
-A f2b-web -s 192.0.2.7/32 -j REJECT --reject-with icmp-port-unreachable
-A f2b-web -m set --match-set banned src -j DROP
-A f2b-web -j RETURN
"""


def translated(*rules: str, more: str = "") -> list[str]:
    """DOCKER-USER's rules for the web server's port."""
    lines = [f"-A DOCKER-USER {rule}" for rule in rules]
    listing = "\n".join(["-P INPUT ACCEPT", "-N DOCKER-USER", *lines, more])
    return [quoted(rule) for rule in translate(read_rules(listing), WEB)]


@pytest.mark.parametrize(
    "rule",
    [
        "-s 203.0.113.2/32 -j DROP",
        "! -s 203.0.113.0/24 -i eth0 -j REJECT --reject-with icmp-port-unreachable",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP",
        "-m set --match-set banned src -j DROP",
        "-m iprange ! --src-range 10.0.0.1-10.0.0.9 -j DROP",
        '-s 192.0.2.0/24 -m comment --comment "two words" -j DROP',
        "-p tcp -m tcp --sport 1024 -s 192.0.2.0/24 -j DROP",
        "-m state --state NEW -s 192.0.2.0/24 -j DROP",
        "-m conntrack --ctorigdst 192.0.2.1/32 --ctorigsrc 192.0.2.0/24 -j DROP",
        "-m limit --limit 3/min --limit-burst 5 -s 192.0.2.0/24 -j ACCEPT",
        "-m geoip --src-cc CN --source-country RU -s 192.0.2.0/24 -j DROP",
        "-s 192.0.2.0/24 -j LOG --log-prefix banned --log-level 4",
        "-p tcp -m tcp --tcp-flags SYN,ACK SYN -s 192.0.2.0/24 -j DROP",
        "-p tcp -m tcp --syn -s 192.0.2.0/24 -j DROP",
        "-m addrtype --src-type LOCAL -s 192.0.2.0/24 -j DROP",
        "-p tcp -m multiport --sports 80,443 -s 192.0.2.0/24 -j DROP",
    ],
)
def test_what_holds_in_both_places(rule: str) -> None:
    assert translated(rule) == [rule.removeprefix("-p tcp ").removeprefix("-m tcp ")]


@pytest.mark.parametrize("line", ["-A", "-N", "-P"])
def test_a_line_that_breaks_off(line: str) -> None:
    with pytest.raises(ValueError, match="without a chain"):
        read_rules(f"-P INPUT ACCEPT\n{line}\n")


def test_a_chain_without_rules_is_one() -> None:
    assert read_rules("-P INPUT ACCEPT\n-N empty\n") == {"INPUT": [], "empty": []}


def test_a_condition_that_no_parser_knows_is_told_with_its_rule() -> None:
    """Not as the error of whoever parses numbers."""
    with pytest.raises(UntranslatableError, match="--dport http -j DROP"):
        translated("-p tcp -m tcp --dport http -j DROP")
    with pytest.raises(UntranslatableError, match="-d nowhere -j DROP"):
        translated("-d nowhere -j DROP")


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("-p tcp -m tcp --dport 80 -s 192.0.2.7/32 -j DROP", "-s 192.0.2.7/32 -j DROP"),
        ("-p tcp -m tcp --dport 8080 -j DROP", None),
        ("-p tcp -m tcp ! --dport 443 -j DROP", "-j DROP"),
        ("-p tcp -m multiport --dports 80,443 -j DROP", "-j DROP"),
        ("-p tcp -m multiport --dports 443,8000:9000 -j DROP", None),
        ("-p tcp -m tcp --dport 70:90 -j DROP", "-j DROP"),
        ("-p tcp -m tcp --dport 70: -j DROP", "-j DROP"),
        ("-p tcp -m tcp --dport 81: -j DROP", None),
        ("-p tcp -m tcp --dport :80 -j DROP", "-j DROP"),
        ("-p tcp -m tcp --dport :79 -j DROP", None),
        ("-p udp -m udp --dport 80 -j DROP", None),
        ("! -p tcp -j DROP", None),
        ("-d 172.17.0.0/16 -j DROP", "-j DROP"),
        ("-d 172.18.0.0/16 -j DROP", None),
        ("! -d 172.18.0.0/16 -j DROP", "-j DROP"),
    ],
)
def test_what_is_decided_for_the_port(rule: str, kept: str | None) -> None:
    assert translated(rule) == [kept] * (kept is not None)


@pytest.mark.parametrize(
    "rule",
    [
        "-o docker0 -j DROP",
        "! -o eth0 -j DROP",
        "-m mark --mark 0x1 -j DROP",
        "-m set --match-set mine dst -j DROP",
        "-m conntrack --ctstate DNAT -j ACCEPT",
        "-m conntrack --ctstatus DNAT -j ACCEPT",
        "-s 192.0.2.7/32 -j MARK --set-xmark 0x1/0xffffffff",
        "-j unknown",
    ],
)
def test_what_cannot_be_told(rule: str) -> None:
    with pytest.raises(UntranslatableError, match=rule[:8]):
        translated(rule)


def test_chains_that_are_jumped_to() -> None:
    rule = "-p tcp -m multiport --dports 80 -j f2b-web"
    assert translated(rule, more=FAIL2BAN) == ["-j f2b-web"]
    with pytest.raises(UntranslatableError, match="dport 80"):
        translated(rule, more=FAIL2BAN + "-A f2b-web -p tcp -m tcp --dport 80 -j DROP\n")
    of_any_port = "-N a\n-A a -p tcp -j DROP\n"
    assert translated("-j a", more=of_any_port) == ["-j a"]
    loop = "-N a\n-A a -j a\n"
    assert translated("-j a", more=loop) == ["-j a"]


def test_what_is_not_reached() -> None:
    assert translated("-j RETURN") == []
    assert translated("-s 10.0.0.0/8 -j RETURN", "-j RETURN", "-o docker0 -j DROP") == [
        "-s 10.0.0.0/8 -j RETURN"
    ]
    assert translate({}, WEB) == [], "no such chain"


def test_words_as_iptables_restore_reads_them() -> None:
    assert quoted(["-A", "X", "two words", 'a"b', "10.0.0.1/8"]) == (
        '-A X "two words" "a\\"b" 10.0.0.1/8'
    )
