"""In every mode the target learns the client's address first, whoever has something to say."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.rig import Rig, echoed, read_all, read_exactly
from v6fwd.client_ip.proxy.read import read_header
from v6fwd.model import Address, ClientIP

SIZES = {
    (ClientIP.NONE, "::1"): 0,
    (ClientIP.NONE, "127.0.0.1"): 0,
    (ClientIP.PROXY_V2, "::1"): 52,
    (ClientIP.PROXY_V2, "127.0.0.1"): 28,
}


# A transparent forward refuses clients from loopback: tests/interop/test_transparent.py.
MODES = [mode for mode in ClientIP if not (mode.is_http or mode is ClientIP.TRANSPARENT)]


@pytest.fixture(scope="module", params=MODES)
def telling_rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, ClientIP]]:
    """A process for every mode."""
    rig = Rig(tmp_path_factory.mktemp("telling"))
    yield rig.start("--client-ip", request.param.value), request.param
    rig.end()


Telling = tuple[Rig, ClientIP]


@pytest.fixture
def telling(telling_rig: Telling) -> Iterator[Telling]:
    """Nothing is left of any flow."""
    yield telling_rig
    telling_rig[0].drop()
    telling_rig[0].settled()


def packed(sockaddr: tuple[str, int]) -> Address:
    family = socket.AF_INET6 if ":" in sockaddr[0] else socket.AF_INET
    return Address(socket.inet_pton(family, sockaddr[0]), sockaddr[1])


def expected_line(client: socket.socket) -> bytes:
    (host, port), (dialled, dialled_port) = client.getsockname()[:2], client.getpeername()[:2]
    family = "TCP6" if ":" in host else "TCP4"
    return f"PROXY {family} {host} {dialled} {port} {dialled_port}\r\n".encode()


def take_header(mode: ClientIP, client: socket.socket, target_end: socket.socket) -> None:
    """Read the header at the target; it names the client and what the client dialled."""
    if mode is ClientIP.PROXY_V1:
        line = expected_line(client)
        assert read_exactly(target_end, len(line)) == line
        return
    size = SIZES[mode, client.getsockname()[0]]
    if size:
        header = read_header(read_exactly(target_end, size))
        assert header is not None
        assert header.source == packed(client.getsockname()[:2])
        assert header.destination == packed(client.getpeername()[:2])


hosts = pytest.mark.parametrize("host", ["::1", "127.0.0.1"], ids=["v6", "v4-mapped"])


@hosts
def test_target_speaks_first(telling: Telling, host: str) -> None:
    """As in SSH and SMTP: the header must not wait for the client's first byte."""
    rig, mode = telling
    client, target_end = rig.pair(host)
    take_header(mode, client, target_end)
    echoed(target_end, client, b"220 ready")
    echoed(client, target_end, b"EHLO")


@hosts
def test_client_speaks_first(telling: Telling, host: str) -> None:
    rig, mode = telling
    client = rig.connect(host)
    client.sendall(b"GET /")
    target_end = rig.accept()
    take_header(mode, client, target_end)
    assert read_exactly(target_end, 5) == b"GET /"
    echoed(target_end, client, b"200")


@hosts
def test_client_says_much_at_once(telling: Telling, host: str) -> None:
    """More than is read before there is a target."""
    rig, mode = telling
    client = rig.connect(host)
    client.sendall(bytes(range(256)) * 1000)
    client.shutdown(socket.SHUT_WR)
    target_end = rig.accept()
    take_header(mode, client, target_end)
    assert read_all(target_end) == bytes(range(256)) * 1000


@hosts
def test_client_ends_at_once(telling: Telling, host: str) -> None:
    rig, mode = telling
    client = rig.connect(host)
    client.shutdown(socket.SHUT_WR)
    target_end = rig.accept()
    take_header(mode, client, target_end)
    assert target_end.recv(1) == b""
    echoed(target_end, client, b"banner")


@hosts
def test_nobody_speaks(telling: Telling, host: str) -> None:
    rig, mode = telling
    client, target_end = rig.pair(host)
    take_header(mode, client, target_end)
    target_end.close()
    assert client.recv(1) == b""
