"""Labels and rules: which client-ip mode a published port gets."""

from __future__ import annotations

import pytest

from v6fwd.config.rules import Published, Rule, parse_host_ports
from v6fwd.docker.policy.labels import read_labels, resembles_header
from v6fwd.docker.policy.modes import Choice, choose
from v6fwd.model import ClientIP, InputError, Protocol

V1, V2, NONE = ClientIP.PROXY_V1, ClientIP.PROXY_V2, ClientIP.NONE
TCP, UDP = Protocol.TCP, Protocol.UDP


@pytest.mark.parametrize(
    ("labels", "modes"),
    [
        ({}, (None, None, None)),
        ({"other.client-ip": "x", "v6fwdclient-ip": "x"}, (None, None, None)),
        ({"v6fwd.client-ip": "proxy-v2"}, (V2, V2, V2)),
        ({"v6fwd.client-ip": " proxy-v2 "}, (V2, V2, V2)),
        ({"v6fwd.client-ip.80": "proxy-v1"}, (V1, None, None)),
        ({"v6fwd.client-ip.53": "proxy-v2"}, (None, V2, V2)),
        ({"v6fwd.client-ip.53-udp": "proxy-v2"}, (None, None, V2)),
        ({"v6fwd.client-ip.53/udp": "proxy-v2"}, (None, None, V2)),
        ({"v6fwd.client-ip.53/tcp": "proxy-v1"}, (None, V1, None)),
        (
            {
                "v6fwd.client-ip": "none",
                "v6fwd.client-ip.53": "proxy-v2",
                "v6fwd.client-ip.53-tcp": "proxy-v1",
            },
            (NONE, V1, V2),
        ),
    ],
)
def test_the_narrowest_goes(
    labels: dict[str, str], modes: tuple[ClientIP | None, ClientIP | None, ClientIP | None]
) -> None:
    read = read_labels(labels)
    found = [read.find(*port) for port in ((80, TCP), (53, TCP), (53, UDP))]
    assert [label.client_ip if label else None for label in found] == list(modes)
    assert read.errors == ()


@pytest.mark.parametrize(
    ("key", "value", "error", "refused"),
    [
        (
            "v6fwd.client-ip",
            "proxy",
            "'proxy' is not a mode; write one of none, proxy-v1, proxy-v2",
            True,
        ),
        ("v6fwd.client-ip", "", "'' is not a mode", False),
        ("v6fwd.client_ip", "proxy-v2", "there is no such label; write v6fwd.client-ip", True),
        ("v6fwd.client-ip.0", "proxy-v2", "'0' is not a port; write 80 or 53-udp", True),
        ("v6fwd.client-ip.65536", "proxy-v2", "'65536' is not a port", True),
        ("v6fwd.client-ip.", "proxy-v2", "'' is not a port", True),
        ("v6fwd.client-ip.http", "proxy-v2", "'http' is not a port", True),
        ("v6fwd.client-ip.٨٠", "proxy-v2", "is not a port", True),
        (
            "v6fwd.client-ip.53-sctp",
            "proxy-v2",
            "'sctp' is not a protocol; write tcp or udp",
            False,
        ),
        ("v6fwd.client-ip.53-udp", "proxy-v1", "proxy-v1 is for TCP only", False),
        ("v6fwd.client-ip.53-udp", "forwarded", "forwarded is for HTTP over TCP", False),
    ],
)
def test_a_wrong_label_is_one_line(key: str, value: str, error: str, refused: bool) -> None:
    read = read_labels({key: value, "v6fwd.client-ip.81": "proxy-v2"})
    assert len(read.errors) == 1
    assert read.errors[0].startswith(f"label {key}={value}: ")
    assert error in read.errors[0]
    assert "\n" not in read.errors[0]
    choice = choose(Published(8080, 80, labels={key: value}))
    expected = (None, f"label {key}") if refused else (NONE, "default")
    assert (choice.client_ip, choice.source) == expected


@pytest.mark.parametrize(
    ("value", "is_header"),
    [
        *((mode, mode not in (NONE, ClientIP.TRANSPARENT)) for mode in ClientIP),
        *((wrong, True) for wrong in ("proxy-v3", "PROXY_V2", "Proxy protocol", "x-forwarded-by")),
        *((wrong, True) for wrong in ("XFF", "forwraded", "poxy-v2", "send-proxy", "X-Real-IP")),
        *((wrong, False) for wrong in ("", "nonsense", "None", "transparant", "yes", "x" * 99999)),
    ],
)
def test_what_resembles_a_mode_with_a_header(value: str, is_header: bool) -> None:
    assert resembles_header(value) is is_header


@pytest.mark.parametrize(
    ("labels", "modes"),
    [
        ({"v6fwd.client-ip.80": "proxy-v3"}, (None, V2, V2)),
        ({"v6fwd.client-ip.53-udp": "proxy-v1"}, (V2, V2, None)),
        ({"v6fwd.client-ip.53-sctp": "proxy-v1"}, (V2, None, None)),
        ({"v6fwd.client-ip.8O": "proxy-v1"}, (None, None, None)),
        ({"v6fwd.client-ip.8O": "proxy-v1", "v6fwd.client-ip.53": "none"}, (None, NONE, NONE)),
        ({"v6fwd.client-ip.53-udp": "none", "v6fwd.client-ip.53/udp": "proxy-v2"}, (V2, V2, None)),
    ],
)
def test_which_ports_a_wrong_label_refuses(
    labels: dict[str, str], modes: tuple[ClientIP | None, ClientIP | None, ClientIP | None]
) -> None:
    read = read_labels({"v6fwd.client-ip": "proxy-v2", **labels})
    found = [read.find(*port) for port in ((80, TCP), (53, TCP), (53, UDP))]
    assert [label.client_ip if label else "no label" for label in found] == list(modes)


@pytest.mark.parametrize("port", [1, 65535])
def test_a_wrong_label_of_the_first_or_last_port_refuses_that_port_alone(port: int) -> None:
    read = read_labels({"v6fwd.client-ip": "proxy-v2", f"v6fwd.client-ip.{port}": "proxy-v3"})
    wrong, other = read.find(port, TCP), read.find(80, TCP)
    assert wrong is not None
    assert other is not None
    assert (wrong.client_ip, other.client_ip) == (None, V2)


def test_a_wrong_label_contradicts_nothing() -> None:
    """Its own mistake is one line, and says all."""
    for first, second in (("proxy-v3", "none"), ("none", "proxy-v3")):
        labels = {"v6fwd.client-ip.53-udp": first, "v6fwd.client-ip.53/udp": second}
        (error,) = read_labels(labels).errors
        assert "'proxy-v3' is not a mode" in error


@pytest.mark.parametrize("port", [1, 65535])
@pytest.mark.parametrize("mode", [V1, ClientIP.FORWARDED])
def test_the_first_and_the_last_port(port: int, mode: ClientIP) -> None:
    read = read_labels({f"v6fwd.client-ip.{port}-tcp": mode})
    assert read.errors == ()
    found = read.find(port, TCP)
    assert found is not None
    assert found.client_ip is mode


def test_two_labels_that_differ() -> None:
    read = read_labels({"v6fwd.client-ip.53-udp": "none", "v6fwd.client-ip.53/udp": "proxy-v2"})
    assert read.errors == (
        "label v6fwd.client-ip.53/udp=proxy-v2: v6fwd.client-ip.53-udp says none",
    )
    found = read.find(53, UDP)
    assert found is not None
    assert found.client_ip is None, "refused, as one of them wants a header"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", (range(8080, 8081), None)),
        ("5000-5009", (range(5000, 5010), None)),
        ("53/udp", (range(53, 54), UDP)),
        ("1-65535/tcp", (range(1, 65536), TCP)),
    ],
)
def test_host_ports(text: str, expected: tuple[range, Protocol | None]) -> None:
    assert parse_host_ports(text) == expected


@pytest.mark.parametrize("text", ["", "0", "65536", "2-1", "80/sctp", "a", "80-", "-80", "80 "])
def test_host_ports_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a port; write 8080, 5000-5009 or 53/udp"):
        parse_host_ports(text)


PORT = Published(
    8080, 80, TCP, "web-1", "httpd:2.4", ("front", "back"), {"v6fwd.client-ip": "proxy-v1"}
)


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule(V2), True),
        (Rule(V2, host_ports=range(8000, 9000)), True),
        (Rule(V2, host_ports=range(80, 81)), False),
        (Rule(V2, protocol=UDP), False),
        (Rule(V2, container="web-*"), True),
        (Rule(V2, container="web"), False),
        (Rule(V2, network="back"), True),
        (Rule(V2, network="other"), False),
        (Rule(V2, image="httpd:*"), True),
        (Rule(V2, image="nginx"), False),
        (Rule(V2, range(8080, 8081), TCP, "web-1", "front", "httpd:2.4"), True),
        (Rule(V2, range(8080, 8081), TCP, "web-1", "front", "nginx"), False),
    ],
)
def test_a_rule_goes_before_labels(rule: Rule, fits: bool) -> None:
    expected = Choice(V2, "rule 1") if fits else Choice(V1, "label v6fwd.client-ip")
    assert choose(PORT, [rule]) == expected


def test_the_first_rule_that_fits() -> None:
    rules = [Rule(V1, image="nginx"), Rule(NONE, container="web-1"), Rule(V2)]
    assert choose(PORT, rules) == Choice(NONE, "rule 2")


def test_a_mode_that_there_is_not_for_the_protocol() -> None:
    port = Published(53, 53, UDP, labels={"v6fwd.client-ip": "proxy-v1"})
    error = "label v6fwd.client-ip: proxy-v1 is for TCP only; for UDP write proxy-v2"
    assert choose(port, default=V2) == Choice(V2, "default", (error,))
    error = error.replace("label v6fwd.client-ip", "rule 1")
    assert choose(port, [Rule(V1)]) == Choice(NONE, "default", (error,))
