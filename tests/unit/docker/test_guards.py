"""Labels and rules that say who may use a published port."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from v6fwd.config.rules import Published, Rule
from v6fwd.docker.policy.guards import guarded, read_guard, resembled
from v6fwd.docker.policy.modes import choose
from v6fwd.model import ClientIP, Guard, Protocol

TCP, UDP = Protocol.TCP, Protocol.UDP
NET, OTHER = ip_network("2001:db8::/32"), ip_network("192.0.2.7/32")


def settings(labels: dict[str, str], port: int = 80, protocol: Protocol = TCP) -> dict[str, Any]:
    read = read_guard(labels, port, protocol)
    assert read.errors == read.wrong == ()
    return dict(read.settings)


def test_what_labels_set() -> None:
    labels = {
        "v6fwd.allow": "2001:db8::/32, 192.0.2.7",
        "v6fwd.deny.80": "192.0.2.7",
        "v6fwd.client-flows.53-udp": "20",
        "v6fwd.client-rate": " 2.5 ",
        "v6fwd.client-ip": "proxy-v2",
        "other.allow": "nonsense",
    }
    both = {"allow": (NET, OTHER), "client_rate": 2.5}
    assert settings(labels) == both | {"deny": (OTHER,)}
    assert settings(labels, 53, UDP) == both | {"client_flows": 20}
    assert settings(labels, 53, TCP) == both


def test_the_narrowest_wins() -> None:
    labels = {
        "v6fwd.client-flows.53-udp": "3",
        "v6fwd.client-flows.53": "2",
        "v6fwd.client-flows": "1",
    }
    found = [settings(labels, *each)["client_flows"] for each in ((53, UDP), (53, TCP), (80, TCP))]
    assert found == [3, 2, 1]


def test_of_two_labels_for_one_port_the_first_by_name_goes() -> None:
    labels = {"v6fwd.client-flows.80": "2", "v6fwd.client-flows.0080": "1"}
    assert settings(labels)["client_flows"] == 1


@pytest.mark.parametrize(
    ("key", "text", "refuses"),
    [
        ("v6fwd.allow", "everybody", "both"),
        ("v6fwd.allow", "", "both"),
        ("v6fwd.alow", "2001:db8::/32", "both"),
        ("v6fwd.Deny", "192.0.2.7", "both"),
        ("v6fwd.client_rate", "2", "both"),
        ("v6fwd.client-rate", "-1", "both"),
        ("v6fwd.client-flows", "٣", "both"),
        ("v6fwd.deny.8O", "192.0.2.7", "both"),
        ("v6fwd.deny.80", "192.0.2.300", "80"),
        ("v6fwd.deny.80-sctp", "192.0.2.7", "80"),
        ("v6fwd.deny.53-udp", "192.0.2.300", "neither"),
        ("v6fwd.deny.0", "192.0.2.7", "both"),
        ("v6fwd.deny.65536", "192.0.2.7", "both"),
        ("v6fwd.deny.65535-sctp", "192.0.2.7", "neither"),
        ("v6fwd.deny.1-sctp", "192.0.2.7", "neither"),
    ],
)
def test_a_wrong_label_lets_nobody_in(key: str, text: str, refuses: str) -> None:
    found = []
    for port in (80, 81):
        choice = choose(Published(8080, port, labels={key: text, "v6fwd.allow.99": "::/0"}))
        assert len(choice.errors) == 1
        assert choice.errors[0].startswith(f"label {key}={text}: ")
        found.append(choice.client_ip is None)
    assert found == [refuses in ("both", "80"), refuses == "both"]


def test_a_rule_takes_precedence_setting_by_setting() -> None:
    labels = {"v6fwd.allow": "2001:db8::/32", "v6fwd.client-flows": "5"}
    rule = Rule(ClientIP.NONE, guard=(("allow", (OTHER,)),))
    choice = choose(Published(8080, 80, labels=labels), [rule])
    assert guarded(Guard(), choice.guard) == Guard(allow=(OTHER,), client_flows=5)
    wrong = choose(Published(8080, 80, labels={"v6fwd.allow": "x", "v6fwd.deny": "y"}), [rule])
    assert (wrong.client_ip, wrong.source) == (None, "label deny"), "the rule has no deny"
    assert choose(Published(8080, 80, labels={"v6fwd.allow": "x"}), [rule]).client_ip is not None


def test_what_the_file_denies_stays_denied() -> None:
    base = Guard(deny=(NET,), client_flows=7)
    assert guarded(base, [("deny", (OTHER, NET))]) == Guard(deny=(NET, OTHER), client_flows=7)
    assert guarded(base, []) == base


@pytest.mark.parametrize("name", ["client-ip", "client_ip", "", "http", "x" * 99999])
def test_names_of_others(name: str) -> None:
    assert resembled(name) == ""
