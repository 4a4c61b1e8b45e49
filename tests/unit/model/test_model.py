"""What users type: every form that is taken, its text form, and every refusal's words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.client_ip.strategies import PACKED_IPV4, PACKED_IPV6, PORTS
from v6fwd.model import (
    MAPPED_PREFIX,
    Address,
    ClientIP,
    Endpoint,
    Forward,
    InputError,
    Limits,
    Transparent,
    UdpProxy,
    bracketed,
    ip_text,
    is_ip,
    pair_up,
    parse_listen,
    parse_max_head,
    parse_networks,
    parse_seconds,
    parse_target,
    refuse_misfits,
    refuse_twins,
)
from v6fwd.model.hints import did_you_mean


def ip(text: str) -> bytes:
    """Network bytes of an address."""
    return ipaddress.ip_address(text).packed


def texts(endpoints: list[Endpoint]) -> list[str]:
    """How endpoints print."""
    return [str(endpoint) for endpoint in endpoints]


# ---- Address ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (ip("192.0.2.7"), "192.0.2.7:80"),
        (ip("2001:db8::7"), "[2001:db8::7]:80"),
        (MAPPED_PREFIX + ip("192.0.2.7"), "192.0.2.7:80"),
        (MAPPED_PREFIX + bytes(4), "0.0.0.0:80"),
        (bytes(12) + ip("192.0.2.7"), "[::c000:207]:80"),  # IPv4-compatible is not v4-mapped
        (ip("::fffe:192.0.2.7"), "[::fffe:c000:207]:80"),
        (ip("1::ffff:c000:207"), "[1::ffff:c000:207]:80"),
        (ip("64:ff9b::c000:207"), "[64:ff9b::c000:207]:80"),  # NAT64 stays what it is
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_address_of_network_bytes(packed: bytes, expected: str) -> None:
    assert str(Address.of(packed, 80)) == expected


@given(PACKED_IPV4, PORTS)
def test_a_mapped_address_is_the_ipv4_one(packed: bytes, port: int) -> None:
    assert Address.of(MAPPED_PREFIX + packed, port) == Address.of(packed, port)
    assert Address.of(packed, port) == Address(packed, port)


@given(PACKED_IPV6, PORTS)
def test_any_other_ipv6_address_is_kept(packed: bytes, port: int) -> None:
    assert Address.of(packed, port) == (packed, port)


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (bytes(16), "::"),
        (bytes(15) + b"\1", "::1"),
        (ip("2001:0db8:0000:0000:0000:0000:0002:0001"), "2001:db8::2:1"),  # 4.1, 4.2.1
        (ip("2001:db8:0:1:1:1:1:1"), "2001:db8:0:1:1:1:1:1"),  # 4.2.2: not one group alone
        (ip("2001:0:0:1:0:0:0:1"), "2001:0:0:1::1"),  # 4.2.3: the longest run
        (ip("2001:db8:0:0:1:0:0:1"), "2001:db8::1:0:0:1"),  # 4.2.3: the first of two equal ones
        (ip("2001:DB8:ABCD:EF01::"), "2001:db8:abcd:ef01::"),  # 4.3: lower case
        (bytes([0xFF] * 16), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (ip("::ffff:192.0.2.7"), "::ffff:192.0.2.7"),  # section 5: dotted
        (ip("::ffff:0:192.0.2.7"), "::ffff:0:c000:207"),  # SIIT's prefix is another one
        (bytes(4), "0.0.0.0"),
        (bytes([255] * 4), "255.255.255.255"),
        (ip("10.0.0.1"), "10.0.0.1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ip_text_is_rfc_5952(packed: bytes, text: str) -> None:
    assert ip_text(packed) == text


@given(st.one_of(PACKED_IPV4, PACKED_IPV6))
@example(MAPPED_PREFIX + bytes(4))
def test_ip_text_reads_back(packed: bytes) -> None:
    text = ip_text(packed)
    assert ip(text) == packed
    assert text == text.lower()


@pytest.mark.parametrize(
    ("host", "text"),
    [("::1", "[::1]"), ("fe80::1%eth0", "[fe80::1%eth0]"), ("10.0.0.1", "10.0.0.1"), ("a", "a")],
)
def test_bracketed(host: str, text: str) -> None:
    assert bracketed(host) == text


@pytest.mark.parametrize("size", [0, 3, 5, 12, 15, 17])
def test_ip_text_takes_addresses_only(size: int) -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        ip_text(bytes(size))


# ---- LISTEN ----------------------------------------------------------------------------------

GOOD_LISTEN = [
    ("8080", ["[::]:8080"]),
    ("8080/tcp", ["[::]:8080"]),
    ("[::]:8080", ["[::]:8080"]),
    ("[::]:8080/tcp", ["[::]:8080"]),
    ("0.0.0.0:8080", ["0.0.0.0:8080"]),
    ("127.0.0.1:1", ["127.0.0.1:1"]),
    ("[2001:db8::5]:65535", ["[2001:db8::5]:65535"]),
    ("[fe80::1%eth0]:80", ["[fe80::1%eth0]:80"]),
    ("5000-5002", ["[::]:5000", "[::]:5001", "[::]:5002"]),
    ("[::1]:5000-5001", ["[::1]:5000", "[::1]:5001"]),
    ("0.0.0.0:7-7/tcp", ["0.0.0.0:7"]),
    ("53/udp", ["[::]:53/udp"]),
    ("[::]:53/udp", ["[::]:53/udp"]),
    ("0.0.0.0:53/tcp+udp", ["0.0.0.0:53", "0.0.0.0:53/udp"]),
    ("53-54/udp+tcp", ["[::]:53", "[::]:54", "[::]:53/udp", "[::]:54/udp"]),
]

NO_PORT = "is not a port; a port is a number from 1 to 65535"
LISTEN_FORM = "write [::]:8080, 0.0.0.0:8080 or 8080"

BAD_LISTEN = [
    ("", f"'' is not an address and port: {LISTEN_FORM}"),
    ("-", f"'-' is not an address and port: {LISTEN_FORM}"),
    ("http", f"'http' is not an address and port: {LISTEN_FORM}"),
    (" 8080", f"' 8080' is not an address and port: {LISTEN_FORM}"),
    ("8080\n", f"'8080\\n' is not an address and port: {LISTEN_FORM}"),
    ("+80", f"'+80' is not an address and port: {LISTEN_FORM}"),
    ("8_0", f"'8_0' is not an address and port: {LISTEN_FORM}"),
    ("::1:80", "'::1:80' is not an address and port: an IPv6 address needs brackets, write"),
    ("2001:db8::5", "an IPv6 address needs brackets, write [::]:8080"),
    ("[::1]", "'[::1]' is not an address and port"),
    ("[::1]80", "'[::1]80' is not an address and port"),
    ("[[::1]]:80", "'[[::1]]:80' is not an address and port"),
    ("x[::1]:80", "'x[::1]:80' is not an address and port"),
    (":80", f"':80' names no address: {LISTEN_FORM}"),
    ("[]:80", "'[]:80': '' is not an IPv6 address"),
    ("[1.2.3.4]:80", "'[1.2.3.4]:80': '1.2.3.4' is not an IPv6 address"),
    ("[::1::]:80", "'[::1::]:80': '::1::' is not an IPv6 address"),
    ("[fe80::1%]:80", "'[fe80::1%]:80': 'fe80::1%' is not an IPv6 address"),
    ("[::12345]:80", "'[::12345]:80': '::12345' is not an IPv6 address"),
    ("localhost:80", "write [::1]:80 or 127.0.0.1:80 for localhost"),
    ("*:80", "'*' is not an IP address; write [::] to listen on all"),
    ("1.2.3:80", "'1.2.3' is not an IP address"),
    ("1.2.3.256:80", "'1.2.3.256' is not an IP address"),
    ("1.2.3.04:80", "'1.2.3.04' is not an IP address"),
    ("0", f"'0': '0' {NO_PORT}"),
    ("[::]:0", f"'[::]:0': '0' {NO_PORT}"),
    ("[::]:65536", f"'[::]:65536': '65536' {NO_PORT}"),
    ("99999999999999999999", f"'99999999999999999999' {NO_PORT}"),
    ("[::]:", f"'[::]:': '' {NO_PORT}"),
    ("[::]:http", f"'[::]:http': 'http' {NO_PORT}"),
    ("[::]:+80", f"'+80' {NO_PORT}"),
    ("[::]: 80", f"' 80' {NO_PORT}"),
    ("[::]:8_0", f"'8_0' {NO_PORT}"),
    ("[::]:80\n", f"'80\\n' {NO_PORT}"),
    ("[::]:\uff18\uff10", f"'\uff18\uff10' {NO_PORT}"),  # full-width digits, which int() takes
    ("\u0668\u0660", f"'\u0668\u0660' {NO_PORT}"),  # Arabic ones
    ("[::]:\u00b2", f"'\u00b2' {NO_PORT}"),  # str.isdigit() takes a superscript
    ("5000-", f"'5000-': '' {NO_PORT}"),
    ("-5000", f"'-5000': '' {NO_PORT}"),
    ("1-2-3", f"'1-2-3': '2-3' {NO_PORT}"),
    ("1-65536", f"'1-65536': '65536' {NO_PORT}"),
    ("0-5", f"'0-5': '0' {NO_PORT}"),
    ("5002-5000", "'5002-5000': the range 5002-5000 runs backwards; write 5000-5002"),
    ("53/sctp", "'53/sctp': protocol 'sctp' cannot be forwarded; only tcp and udp can"),
    ("53/tcp+", "'53/tcp+': protocol '' cannot be forwarded"),
    ("53/udp+udp", "'53/udp+udp': a protocol is named twice"),
    ("8080/TCP", "'8080/TCP': protocol 'TCP' cannot be forwarded"),
    ("8080/", "'8080/': protocol '' cannot be forwarded"),
    ("80/tcp/tcp", "'80/tcp/tcp' is not an address and port"),
    ("unix:/run/x.sock", "'unix:/run/x.sock': protocol 'x.sock' cannot be forwarded"),
    # Nothing of the kind is an interface; the resolver chokes on it with another exception.
    ("[fe80::1%\udcff]:80", "is not an IPv6 address"),
    ("[fe80::1%e\n]:80", "is not an IPv6 address"),
    (f"[fe80::1%{'e' * 64}]:80", "is not an IPv6 address"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD_LISTEN, ids=[row[0] for row in GOOD_LISTEN])
def test_listen(text: str, expected: list[str]) -> None:
    assert texts(parse_listen(text)) == expected


@pytest.mark.parametrize(("text", "why"), BAD_LISTEN, ids=[ascii(row[0]) for row in BAD_LISTEN])
def test_listen_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)):
        parse_listen(text)


# ---- TARGET ----------------------------------------------------------------------------------

LONGEST_LABEL = "a" * 63
LONGEST_NAME = ".".join([LONGEST_LABEL] * 3) + "." + "a" * 61  # 253 characters, RFC 1035
LONGEST_PATH = "/" + "x" * 106  # sun_path: 107 bytes and a NUL

GOOD_TARGET = [
    ("172.17.0.2:80", ["172.17.0.2:80"]),
    ("172.17.0.2:80/tcp", ["172.17.0.2:80"]),
    ("172.17.0.2:53/udp", ["172.17.0.2:53/udp"]),
    ("[2001:db8::5]:80", ["[2001:db8::5]:80"]),
    ("localhost:80", ["localhost:80"]),
    ("App_1.example-net.org.:443", ["App_1.example-net.org.:443"]),
    ("3com.example:80", ["3com.example:80"]),
    ("h:1-3", ["h:1", "h:2", "h:3"]),
    (f"{LONGEST_LABEL}:80", [f"{LONGEST_LABEL}:80"]),
    (f"{LONGEST_NAME}:80", [f"{LONGEST_NAME}:80"]),
    ("unix:/run/app.sock", ["unix:/run/app.sock"]),
    ("unix:/run/a:b-c/tcp", ["unix:/run/a:b-c/tcp"]),
    (f"unix:{LONGEST_PATH}", [f"unix:{LONGEST_PATH}"]),
]

TARGET_FORM = "write 172.17.0.2:80, name:80 or unix:/run/app.sock"
NO_HOST = "is neither an IP address nor a host name"

BAD_TARGET = [
    ("", f"'' is not an address and port: {TARGET_FORM}"),
    ("80", f"'80' is not an address and port: {TARGET_FORM}"),
    ("host", f"'host' is not an address and port: {TARGET_FORM}"),
    ("::1:80", "an IPv6 address needs brackets, write 172.17.0.2:80"),
    (":80", f"':80' names no address: {TARGET_FORM}"),
    ("host:", f"'host:': '' {NO_PORT}"),
    ("host:0", f"'host:0': '0' {NO_PORT}"),
    ("host:65536", f"'host:65536': '65536' {NO_PORT}"),
    ("host:80\n", f"'host:80\\n': '80\\n' {NO_PORT}"),
    ("host:9-8", "'host:9-8': the range 9-8 runs backwards; write 8-9"),
    ("host:53/sctp", "'host:53/sctp': protocol 'sctp' cannot be forwarded"),
    ("http://host:80", "'http://host:80' is a URL; write host:80"),
    ("[host]:80", "'[host]:80': 'host' is not an IPv6 address"),
    ("300.1.1.1:80", f"'300.1.1.1' {NO_HOST}"),  # RFC 3696: no name ends in a label of digits
    ("10.0.0:80", f"'10.0.0' {NO_HOST}"),
    ("172.17.0.2.:80", f"'172.17.0.2.' {NO_HOST}"),
    ("2:80", f"'2' {NO_HOST}"),
    ("a..b:80", f"'a..b' {NO_HOST}"),
    (".a:80", f"'.a' {NO_HOST}"),
    (".:80", f"'.' {NO_HOST}"),
    ("-a:80", f"'-a' {NO_HOST}"),
    ("a-.b:80", f"'a-.b' {NO_HOST}"),
    ("a b:80", f"'a b' {NO_HOST}"),
    ("a\n:80", f"'a\\n' {NO_HOST}"),
    ("b\u00fccher:80", f"'b\u00fccher' {NO_HOST}"),
    ("user@host:80", f"'user@host' {NO_HOST}"),
    (f"{LONGEST_LABEL}a:80", NO_HOST),
    (f"{LONGEST_NAME}a:80", NO_HOST),
    ("unix:", "'unix:': the path must start with /, as in unix:/run/app.sock"),
    ("unix:run/app.sock", "'unix:run/app.sock': the path must start with /"),
    (f"unix:{LONGEST_PATH}x", "the path is longer than 107 bytes"),
    ("unix:/" + "\u00fc" * 54, "the path is longer than 107 bytes"),  # bytes, not characters
    ("[fe80::1%\udcff]:80", "is not an IPv6 address"),
    (f"[fe80::1%{'e' * 64}]:80", "is not an IPv6 address"),
]


@pytest.mark.parametrize(
    ("text", "expected"), GOOD_TARGET, ids=[row[0][:40] for row in GOOD_TARGET]
)
def test_target(text: str, expected: list[str]) -> None:
    assert texts(parse_target(text)) == expected


@pytest.mark.parametrize(
    ("text", "why"), BAD_TARGET, ids=[ascii(row[0])[:40] for row in BAD_TARGET]
)
def test_target_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)):
        parse_target(text)


def test_a_unix_endpoint_has_no_host() -> None:
    assert parse_target("unix:/run/app.sock") == [Endpoint("", 0, "/run/app.sock")]


@pytest.mark.parametrize(
    ("text", "is_name"),
    [("h:1", True), ("10.0.0.1:1", False), ("[fe80::1%eth0]:1", False), ("unix:/h", False)],
)
def test_only_names_need_a_resolver(text: str, is_name: bool) -> None:
    assert parse_target(text)[0].is_name is is_name


@pytest.mark.parametrize("text", ["fe80::1%eth0", "::", "1.2.3.4"])
def test_is_ip(text: str) -> None:
    assert is_ip(text)


@pytest.mark.parametrize(
    "text", ["", "h", "1.2.3", "[::1]", "::1/128", "\u0661.2.3.4", "1.2.3.4%e"]
)
def test_is_not_ip(text: str) -> None:
    assert not is_ip(text)


# ---- both together ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "target", "expected"),
    [
        ("80", "h:8080", ["[::]:80 -> h:8080"]),
        ("80", "unix:/a", ["[::]:80 -> unix:/a"]),
        ("0.0.0.0:1-2", "[::1]:3-4", ["0.0.0.0:1 -> [::1]:3", "0.0.0.0:2 -> [::1]:4"]),
        ("53/udp", "h:5353", ["[::]:53/udp -> h:5353/udp"]),
        ("53/udp", "h:5353/udp", ["[::]:53/udp -> h:5353/udp"]),
        ("53/tcp+udp", "h:1", ["[::]:53 -> h:1", "[::]:53/udp -> h:1/udp"]),
        ("53/udp", "h:1/tcp+udp", ["[::]:53/udp -> h:1/udp"]),
    ],
)
def test_pair_up(listen: str, target: str, expected: list[str]) -> None:
    assert [str(Forward(*pair)) for pair in pair_up(listen, target)] == expected


@pytest.mark.parametrize(
    ("listen", "target", "why"),
    [
        ("1-3", "h:1-2", "'1-3' has 3 ports and 'h:1-2' has 2 ports; both need as many"),
        ("1-3", "h:1", "'1-3' has 3 ports and 'h:1' has 1 port; both need as many"),
        ("1", "h:1-2", "'1' has 1 port and 'h:1-2' has 2 ports; both need as many"),
        ("1-2", "unix:/a", "'1-2' has 2 ports and 'unix:/a' has 1 port; both need as many"),
        ("1-3/tcp+udp", "h:1", "'1-3/tcp+udp' has 3 ports and 'h:1' has 1 port; both need"),
        ("1/udp", "h:1/tcp", "'h:1/tcp': LISTEN is for udp; both ends need the same protocol"),
        ("1", "h:1/udp", "'h:1/udp': LISTEN is for tcp; both ends need the same protocol"),
        ("1/tcp+udp", "h:1/udp", "'h:1/udp': LISTEN is for tcp"),
        ("1/udp", "unix:/a", "'unix:/a': a unix socket cannot be the target of udp"),
        ("x", "h:1", "'x' is not an address and port"),
        ("1", "h", "'h' is not an address and port"),
    ],
)
def test_pair_up_refused(listen: str, target: str, why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)):
        pair_up(listen, target)


def forwards_of(*listens: str) -> list[Forward]:
    """Forwards to as many ports of one host."""
    return [
        Forward(parse_listen(listen)[0], Endpoint("h", port))
        for port, listen in enumerate(listens, 1)
    ]


def test_neighbours_are_no_twins() -> None:
    refuse_twins(forwards_of("80", "81", "0.0.0.0:80", "[::1]:80", "[::1%lo]:80", "80/udp"))


@pytest.mark.parametrize(
    ("first", "second"),
    [("[::]:80", "80"), ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[0:0:0::0:1]:80")],
    ids=["short form", "same text", "other spelling"],
)
def test_twins_refused(first: str, second: str) -> None:
    forwards = forwards_of(first, "[2001:db8::1]:80", second)
    why = f"{forwards[0].listen} is given twice, for h:1 and for h:3"
    with pytest.raises(InputError, match=re.escape(why)):
        refuse_twins(forwards)


def test_proxy_v1_is_refused_for_udp() -> None:
    tcp, udp = forwards_of("80", "81/udp")
    refuse_misfits([replace(tcp, client_ip=ClientIP.PROXY_V1), udp])
    refuse_misfits([replace(udp, client_ip=ClientIP.PROXY_V2)])
    why = "[::]:81/udp: proxy-v1 is for TCP alone"
    with pytest.raises(InputError, match=re.escape(why)):
        refuse_misfits([tcp, replace(udp, client_ip=ClientIP.PROXY_V1)])


NETWORKS = parse_networks("10.0.0.0/8")
INSIDE = Transparent("name")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"client_ip": ClientIP.TRANSPARENT}, ""),
        ({"client_ip": ClientIP.TRANSPARENT, "accept_proxy": NETWORKS}, ""),
        ({"client_ip": ClientIP.TRANSPARENT, "udp_proxy": UdpProxy.FIRST}, ""),
        (
            {"client_ip": ClientIP.TRANSPARENT, "trust_forwarded": NETWORKS},
            "trust-forwarded goes with x-forwarded-for or forwarded, not with transparent",
        ),
        *(
            (
                {"client_ip": mode, "transparent": INSIDE},
                f"target-netns goes with transparent, not with {mode}",
            )
            for mode in ClientIP
            if mode is not ClientIP.TRANSPARENT
        ),
    ],
)
def test_what_goes_with_transparent(more: dict[str, Any], why: str) -> None:
    (tcp,) = (replace(forward, **more) for forward in forwards_of("80"))
    if not why:
        refuse_misfits([tcp])
        return
    with pytest.raises(InputError, match=re.escape(f"[::]:80: {why}")):
        refuse_misfits([tcp])


@pytest.mark.parametrize(
    ("listen", "mode", "why"),
    [
        ("80", ClientIP.PROXY_V2, ""),
        ("80", ClientIP.PROXY_V1, "not with proxy-v1 over TCP"),
        ("80", ClientIP.X_FORWARDED_FOR, "not with x-forwarded-for over TCP"),
        ("80/udp", ClientIP.PROXY_V2, "not with proxy-v2 over UDP"),
    ],
)
def test_what_goes_with_tlvs(listen: str, mode: ClientIP, why: str) -> None:
    (forward,) = forwards_of(listen)
    forward = replace(forward, client_ip=mode, pass_tlvs=232)
    if not why:
        refuse_misfits([forward])
        return
    with pytest.raises(
        InputError, match=re.escape(f"pass-tlvs goes with proxy-v2 over TCP, {why}")
    ):
        refuse_misfits([forward])


# ---- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("0.25", 0.25),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("1d", 86_400.0),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text, zero=True) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 s", "5S", "5min", "-5s", "1h30m", "367d", "\u0661s"])
def test_times_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a time; write 0 to 31622400 seconds, or 500ms"):
        parse_seconds(text, zero=True)


# ---- what may have been meant ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("proxyv2", "proxy-v2"),
        ("proxy_v2", "proxy-v2"),
        ("PROXY-V1", "proxy-v1"),
        ("xff", "x-forwarded-for"),
        ("X-Forwarded-For", "x-forwarded-for"),
        ("forwardd", "forwarded"),
        ("tproxy", "transparent"),
        ("off", "none"),
        ("", ""),
        ("-", ""),
        ("quic", ""),
        ("z" * 100_000, ""),
    ],
)
def test_did_you_mean(word: str, meant: str) -> None:
    assert did_you_mean(word, ClientIP) == (f"; did you mean {meant}?" if meant else "")


def test_an_alias_is_for_those_who_have_the_word() -> None:
    assert did_you_mean("xff", ["status", "flows"]) == ""


# ---- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("16k", 16384), ("16384", 16384), ("20000", 20000), ("256k", 262144)]
)
def test_sizes_of_heads(text: str, size: int) -> None:
    assert parse_max_head(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "0", "16383", "15k", "257k", "262145", "-1", "32K", "32kB", "32 k", "1e5", "\u0661k"],
)
def test_sizes_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a size; write 16k to 256k, or bytes"):
        parse_max_head(text)


# ---- CIDR ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("192.0.2.7", ["192.0.2.7/32"]),
        ("2001:DB8::/32", ["2001:db8::/32"]),
        ("::1", ["::1/128"]),
        ("::/0", ["::/0"]),
        ("0.0.0.0/0", ["0.0.0.0/0"]),
        (" 10.0.0.0/8 ,\t::1 ", ["10.0.0.0/8", "::1/128"]),
        ("::ffff:192.0.2.7", ["192.0.2.7/32"]),  # clients that are v4-mapped are IPv4 clients
        ("::ffff:10.0.0.0/104", ["10.0.0.0/8"]),
        ("::ffff:0:0/96", ["0.0.0.0/0"]),
        ("::fffe:0:0/95", ["::fffe:0:0/95"]),  # more than the mapped ones: stays IPv6
    ],
)
def test_networks(text: str, expected: list[str]) -> None:
    assert [str(network) for network in parse_networks(text)] == expected


CIDR_FORM = "is not a network: write a CIDR such as 10.0.0.0/8 or 2001:db8::/32"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", f"'' {CIDR_FORM}"),
        ("10.0.0.0/8,", f"'' {CIDR_FORM}"),
        ("10.0.0.0/8,,::1", f"'' {CIDR_FORM}"),
        ("10.0.0.0/8 ::1", f"'10.0.0.0/8 ::1' {CIDR_FORM}"),
        ("bridge", f"'bridge' {CIDR_FORM}"),
        ("10/8", f"'10/8' {CIDR_FORM}"),
        ("10.0.0.0/33", f"'10.0.0.0/33' {CIDR_FORM}"),
        ("10.0.0.0/-1", f"'10.0.0.0/-1' {CIDR_FORM}"),
        ("2001:db8::/129", f"'2001:db8::/129' {CIDR_FORM}"),
        ("[::1]", f"'[::1]' {CIDR_FORM}"),
        ("10.0.0.1/8", "'10.0.0.1/8' is not a network: it has host bits set; write 10.0.0.0/8"),
        ("2001:db8::1/32", "it has host bits set; write 2001:db8::/32"),
        # Packets carry no zone, so a trust bound to one link would hold on every link.
        ("fe80::1%eth0", "'fe80::1%eth0' is not a network"),
        ("fe80::%eth0/64", "'fe80::%eth0/64' is not a network"),
    ],
)
def test_networks_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)):
        parse_networks(text)


@given(st.one_of(PACKED_IPV4, PACKED_IPV6), st.data())
def test_networks_read_back(packed: bytes, data: st.DataObject) -> None:
    prefix = data.draw(st.integers(0, len(packed) * 8))
    network = ipaddress.ip_network((packed, prefix), strict=False)
    (parsed,) = parse_networks(str(network))
    assert parsed == network or network.network_address.packed.startswith(MAPPED_PREFIX)
    assert parse_networks(str(parsed)) == (parsed,)


# ---- limits ----------------------------------------------------------------------------------


def test_limits_unless_told_otherwise() -> None:
    """What a user gets who sets nothing: changing one of these is a line in the changelog."""
    assert Limits() == Limits(
        connect_timeout=5.0,
        drain_timeout=30.0,
        interrupt_timeout=1.0,
        idle_timeout=0.0,
        header_timeout=3.0,
        max_flows=0,
    )


# ---- anything at all -------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        *("[", "]", ":", "::", "/", "tcp", "udp", "+", "-", "%", ".", ",", " ", "\n", "\0"),
        *("80", "65535", "0", "\uff11", "10.0.0.1", "fe80::1"),
        *("unix:", "/a", "host", "eth0", "\udcff"),
    ]
)
ANYTHING = st.one_of(
    st.text(st.characters(exclude_categories=[]), max_size=40),  # surrogates too: argv has them
    st.lists(_PIECES, max_size=8).map("".join),
)


_Parsed = TypeVar("_Parsed")


def parsed_or_refused(parse: Callable[[str], Sequence[_Parsed]], text: str) -> Sequence[_Parsed]:
    """What `text` parses to; nothing where it is refused, in one line."""
    try:
        return parse(text)
    except InputError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) == 1
    return ()


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
@example("unix:/\udcff")  # a path that is not UTF-8, as it stands in sys.argv
@example("[::1%\ud800]:1")
def test_any_target_parses_or_is_refused(text: str) -> None:
    for endpoint in parsed_or_refused(parse_target, text)[:3]:
        assert parse_target(str(endpoint)) == [endpoint]


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
@example("[::1%a\n]:1")
def test_any_listen_parses_or_is_refused(text: str) -> None:
    for endpoint in parsed_or_refused(parse_listen, text)[:3]:
        assert parse_listen(str(endpoint)) == [endpoint]
        assert str(endpoint).isprintable()


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
@example("::1,10.0.0.0/8")
def test_any_cidr_parses_or_is_refused(text: str) -> None:
    networks = parsed_or_refused(parse_networks, text)
    if networks:
        assert parse_networks(",".join(map(str, networks))) == networks


@given(st.one_of(PACKED_IPV4, PACKED_IPV6), st.integers(1, 65535))
@example(bytes.fromhex("fe80") + bytes(14), 1)
def test_an_endpoint_reads_back(packed: bytes, port: int) -> None:
    host = ip_text(packed)
    is_of_a_link = ipaddress.ip_address(host).is_link_local and ":" in host  # names its device
    endpoint = Endpoint(f"{host}%eth0" if is_of_a_link else host, port)
    assert parse_listen(str(endpoint)) == [endpoint]
    assert parse_target(str(endpoint)) == [endpoint]


@given(st.integers(1, 65000), st.integers(0, 500))
def test_a_range_has_every_port_once(first: int, more: int) -> None:
    endpoints = parse_listen(f"[::]:{first}-{first + more}")
    assert [endpoint.port for endpoint in endpoints] == list(range(first, first + more + 1))


@pytest.mark.parametrize(
    ("text", "container", "port"),
    [
        ("docker:web:80", "web", 80),
        ("docker:web@back-end:80", "web@back-end", 80),
        ("docker:app_web.1:53/udp", "app_web.1", 53),
        ("docker:0123456789ab:80", "0123456789ab", 80),
    ],
)
def test_a_container_as_target(text: str, container: str, port: int) -> None:
    (endpoint,) = parse_target(text)
    assert (endpoint.container, endpoint.port, endpoint.host) == (container, port, "")
    assert str(endpoint) == text
    assert endpoint.is_absent
    assert not endpoint.is_name
    there = replace(endpoint, host="172.17.0.2")
    assert str(there) == text
    assert not there.is_absent


def test_a_container_and_a_range_of_ports() -> None:
    pairs = pair_up("[::]:80-81", "docker:web:8080-8081")
    assert [str(target) for _, target in pairs] == ["docker:web:8080", "docker:web:8081"]


@pytest.mark.parametrize("text", ["docker:80", "docker:0080"])
def test_a_host_that_is_called_docker(text: str) -> None:
    assert parse_target(text) == [Endpoint("docker", 80)]


@pytest.mark.parametrize(
    "text", ["docker::80", "docker:a b:80", "docker:web@:80", "docker:-web:80", "docker:we/b:80"]
)
def test_no_container(text: str) -> None:
    with pytest.raises(InputError):
        parse_target(text)


def test_a_container_has_a_namespace_of_its_own() -> None:
    ((listen, target),) = pair_up("[::]:80", "docker:web:80")
    how = Transparent(netns="4711")
    forward = Forward(listen, target, ClientIP.TRANSPARENT, transparent=how)
    with pytest.raises(InputError, match="leave target-netns out"):
        refuse_misfits([forward])
    refuse_misfits([replace(forward, transparent=Transparent())])
