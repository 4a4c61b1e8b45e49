"""HAProxy -> v6fwd -> Apache, and clients that claim to be somebody else."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from tests.support.process import eventually
from tests.support.servers import Apache, HAProxy, page
from tests.support.stage import CLIENTS, PORT, Stage, url_host
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6, HOST_V6

pytestmark = [pytest.mark.netns, pytest.mark.server("apache2", "curl")]

MODES = pytest.mark.parametrize("mode", ["proxy-v1", "proxy-v2"])
VICTIM = "2001:db8:bad::1"
"""Whom a client may only claim to be if it is trusted."""
REQUEST = b"GET /one HTTP/1.1\r\nHost: container\r\nConnection: close\r\n\r\n"
V1_CLAIM = f"PROXY TCP6 {VICTIM} {HOST_V6} 4711 80\r\n".encode()
V2_CLAIM = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"
    + socket.inet_pton(socket.AF_INET6, VICTIM)
    + socket.inet_pton(socket.AF_INET6, HOST_V6)
    + b"\x12\x67\0\x50"
)
CLAIMS = pytest.mark.parametrize("claim", [V1_CLAIM, V2_CLAIM], ids=["v1-claim", "v2-claim"])


class Balancer(HAProxy):
    """HAProxy as a load balancer in front of v6fwd, on the same host."""

    port = 9000

    def __init__(self, folder: Path, options: str) -> None:
        super().__init__(folder)
        self._options = options

    def config(self) -> str:
        """See Server."""
        return f"""
global
    log stdout format raw local0
defaults
    mode tcp
    timeout client 60s
    timeout server 60s
    timeout connect 10s
    option httpchk GET /two
frontend clients
    bind [::]:{self.port} v4v6
    unique-id-format %ci:%cp
    default_backend relays
backend relays
    server v6fwd 127.0.0.1:{PORT} {self._options}
"""


@CLIENTS
@pytest.mark.server("haproxy")
@pytest.mark.parametrize(
    "options",
    ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"],
    ids=["v1", "v2", "v2-crc32c"],
)
def test_the_address_in_the_balancers_header_arrives(
    stage: Stage, options: str, client: str
) -> None:
    server = Apache(stage.folder)
    stage.relay_to(server, "--client-ip", "proxy-v2", "--accept-proxy", "127.0.0.1")
    Balancer(stage.folder / "balancer", options).start(stage.lab, "host")
    asked = stage.curl(*server.questions(url_host(client, Balancer.port)))
    assert asked.stdout == server.answer(), asked.stderr
    server.stop()
    assert server.log.splitlines() == server.entries(client)


@pytest.mark.server("haproxy")
def test_a_health_check_counts_as_the_balancer_itself(stage: Stage) -> None:
    server = Apache(stage.folder)
    stage.relay_to(server, "--client-ip", "proxy-v2", "--accept-proxy", "127.0.0.1")
    options = "send-proxy-v2 check inter 200ms"  # a check's header says LOCAL
    Balancer(stage.folder / "balancer", options).start(stage.lab, "host")
    check = '127.0.0.1 "GET /two HTTP/1.0" 200'
    eventually(lambda: check in server.log, "the check is logged")
    asked = stage.curl(f"http://[{HOST_V6}]:{Balancer.port}/one")
    assert asked.stdout == page("one")
    entry = f'{CLIENT_V6} "GET /one HTTP/1.1" 200'
    eventually(lambda: entry in server.log, "the request is logged")
    assert set(server.log.splitlines()) == {check, entry}


@MODES
def test_curl_speaks_the_protocol_to_v6fwd(stage: Stage, mode: str) -> None:
    server = Apache(stage.folder)
    stage.relay_to(server, "--client-ip", mode, "--accept-proxy", f"{CLIENT_V6}/128")
    asked = stage.curl("--haproxy-protocol", *server.questions(f"[{HOST_V6}]:{PORT}"))
    assert asked.stdout == server.answer(), asked.stderr
    server.stop()
    assert server.log.splitlines() == server.entries(CLIENT_V6)


@CLAIMS
@MODES
def test_a_trusted_client_is_believed(stage: Stage, mode: str, claim: bytes) -> None:
    server = Apache(stage.folder)
    network = ipaddress.ip_network(f"{CLIENT_V6}/64", strict=False)
    stage.relay_to(server, "--client-ip", mode, "--accept-proxy", f"192.0.2.7,{network}")
    assert stage.exchange(HOST_V6, claim + REQUEST).endswith(page("one").encode())
    server.stop()
    assert server.log.splitlines() == [f'{VICTIM} "GET /one HTTP/1.1" 200']


@CLAIMS
@MODES
@pytest.mark.server("haproxy")
def test_an_ordinary_client_is_itself_whatever_it_says(
    stage: Stage, mode: str, claim: bytes
) -> None:
    server = HAProxy(stage.folder)
    stage.relay_to(server, "--client-ip", mode, "--accept-proxy", "2001:db8:2::/64")
    assert stage.exchange(HOST_V6, claim + REQUEST).startswith(b"HTTP/1.1 400 ")
    server.stop()
    requests = [line for line in server.log.splitlines() if " dialled " in line]
    assert requests == [f'{CLIENT_V6} "<BADREQ>" 400 dialled {HOST_V6}']


@MODES
def test_apache_takes_a_clients_own_header_for_a_bad_request(stage: Stage, mode: str) -> None:
    server = Apache(stage.folder)
    stage.relay_to(server, "--client-ip", mode)
    url = f"http://[{HOST_V6}]:{PORT}/one"
    asked = stage.curl("--haproxy-protocol", "--write-out", "%{http_code}", url)
    assert asked.stdout.endswith("400"), asked
    stage.exchange(HOST_V6, V1_CLAIM + REQUEST)
    server.stop()
    # mod_remoteip puts the address in only after a request was understood.
    assert server.log.splitlines() == [
        f'{BRIDGE_V4} "PROXY TCP6 {claimed}" 400' for claimed in (CLIENT_V6, VICTIM)
    ]


def test_a_trusted_client_without_a_header_does_not_get_through(stage: Stage) -> None:
    server = Apache(stage.folder)
    stage.relay_to(server, "--client-ip", "proxy-v2", "--accept-proxy", CLIENT_V6)
    asked = stage.curl(f"http://[{HOST_V6}]:{PORT}/one")
    assert (asked.returncode, asked.stdout) == (56, ""), asked  # 56: reset while it waited
    eventually(lambda: "no PROXY header" in stage.forward.log, "the refusal is logged")
    server.stop()
    assert server.log == ""
