"""The flags of docker-proxy: every form that Go's flag package takes, and clear errors."""

from __future__ import annotations

import pytest

from v6fwd.docker.shim.flags import ProxyFlags, parse_flags
from v6fwd.model import Endpoint, Forward, InputError, Protocol

TCP = Forward(Endpoint("::", 8080), Endpoint("172.17.0.2", 80))


@pytest.mark.parametrize(
    "text",
    [
        "-proto tcp -host-ip :: -host-port 8080 -container-ip 172.17.0.2 -container-port 80",
        "-container-port=80 -container-ip=172.17.0.2 -host-port=8080 -host-ip=::",
        "--proto=tcp --host-ip :: --host-port=8080 --container-ip 172.17.0.2 --container-port 80",
        "-host-ip 0.0.0.0 -host-ip :: -host-port 8080 -container-ip 172.17.0.2 -container-port 80",
    ],
)
@pytest.mark.parametrize(
    ("more", "use"),
    [
        ("", False),
        (" -use-listen-fd", True),
        (" --use-listen-fd=true", True),
        (" -use-listen-fd=0", False),
    ],
)
def test_every_form(text: str, more: str, use: bool) -> None:
    assert parse_flags((text + more).split()) == ProxyFlags(TCP, use)


def test_the_bool_takes_no_word() -> None:
    words = ["-use-listen-fd", "-proto", "udp", "-host-port", "53", "-container-port", "53"]
    listen, target = (Endpoint("0.0.0.0", 53, protocol=Protocol.UDP) for _ in range(2))
    assert parse_flags(words) == ProxyFlags(Forward(listen, target), use_listen_fd=True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("-proto sctp -host-port 1", "unsupported protocol sctp"),
        ("-host-ip ::g", "-host-ip: '::g' is not an IP address"),
        ("-host-port 1 -container-ip [::1]", "-container-ip: '[::1]' is not an IP address"),
        ("-host-port 65536", "-host-port: '65536' is not a port; write 1 to 65535"),
        ("-host-port ٣", "-host-port: '٣' is not a port"),
        ("", "-host-port: '-1' is not a port"),
        ("-new 1", "flag provided but not defined: -new"),
        ("-proto", "flag needs an argument: -proto"),
        ("-use-listen-fd=maybe", "-use-listen-fd: 'maybe' is neither true nor false"),
        ("tcp", "'tcp' is no flag"),
        ("--", "'--' is no flag"),
    ],
)
def test_errors(words: str, error: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_flags(words.split())
    assert error in str(caught.value)
