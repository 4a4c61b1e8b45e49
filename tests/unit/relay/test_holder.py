"""Who has the port that we wanted."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from v6fwd.errors import AddressInUseError, RelayError
from v6fwd.model import Endpoint, Protocol
from v6fwd.netns.owners import holder_of, told
from v6fwd.relay.relay import listen_on
from v6fwd.relay.sockets import cannot_listen

TCP, UDP = Protocol.TCP, Protocol.UDP


@contextlib.contextmanager
def taken(host: str, protocol: Protocol = TCP) -> Iterator[int]:
    """A port of `host` that this process listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol is TCP else socket.SOCK_DGRAM
    with socket.socket(family, kind) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        sock.bind((host, 0))
        if protocol is TCP:
            sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("::1", "::1"),
        ("::1", "::"),
        ("::", "::"),
        ("::", "::1"),
        ("::", "127.0.0.1"),
        ("127.0.0.1", "::"),
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
    ],
)
def test_the_error_names_it(held: str, wanted: str, protocol: Protocol) -> None:
    """Of every socket that keeps ours from being bound."""
    with taken(held, protocol) as port:
        endpoint = Endpoint(wanted, port, protocol=protocol)
        with pytest.raises(AddressInUseError) as caught:
            listen_on(endpoint)
        mine = f"{Path('/proc/self/comm').read_text().strip()}, pid {os.getpid()}"
        in_use = f"cannot listen on {endpoint}: address already in use"
        assert told(caught.value) == f"{in_use} ({mine})"
        assert told(caught.value, lambda _: "web") == f"{in_use} ({mine}, container web)"


@pytest.mark.parametrize(
    ("held", "wanted", "protocol"),
    [("::1", "127.0.0.1", TCP), ("127.0.0.1", "127.0.0.2", TCP), ("::1", "::1", UDP)],
)
def test_who_is_not_in_the_way_is_not_named(held: str, wanted: str, protocol: Protocol) -> None:
    with taken(held) as port:
        assert holder_of(Endpoint(wanted, port, protocol=protocol)) is None


def test_nobody_can_be_seen(tmp_path: Path) -> None:
    with taken("::1") as port:
        assert holder_of(Endpoint("::1", port), tmp_path) is None


def test_other_errors_name_nobody() -> None:
    assert told(RelayError("no")) == "no"


def test_a_port_that_one_may_not_have_names_the_right() -> None:
    error = PermissionError(errno.EACCES, "")
    text = str(cannot_listen(Endpoint("::", 80), error))
    right = "; a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    assert text == f"cannot listen on [::]:80: permission denied{right}"
    assert right not in str(cannot_listen(Endpoint("::", 8080), error))
