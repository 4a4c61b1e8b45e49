"""The contract, held against real servers: their own log names the client, and all answers fit."""

from __future__ import annotations

import pytest

from tests.support.process import eventually
from tests.support.servers import Apache, Dovecot, Exim, HAProxy, Lighttpd, Nginx, Server
from tests.support.stage import CLIENTS, Stage, url_host
from v6fwd.demo.lab import BRIDGE_V4

pytestmark = [pytest.mark.netns, pytest.mark.server("curl")]

SERVERS = [
    pytest.param(kind, marks=pytest.mark.server(kind.program), id=kind.program)
    for kind in (Apache, Nginx, HAProxy, Lighttpd, Exim, Dovecot)
]


@CLIENTS
@pytest.mark.parametrize("mode", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize("kind", SERVERS)
def test_the_server_logs_the_client(
    stage: Stage, kind: type[Server], mode: str, client: str
) -> None:
    server = kind(stage.folder)
    stage.relay_to(server, "--client-ip", mode)
    asked = stage.curl(*server.questions(url_host(client)))
    assert asked.returncode == 0, asked.stderr
    assert server.answer() in asked.stdout + asked.stderr
    server.stop()
    entries = server.entries(client)
    eventually(lambda: all(entry in server.log for entry in entries), f"the log has {entries}")
    assert [server.log.count(entry) for entry in entries] == [1] * len(entries), server.log
    assert BRIDGE_V4 not in server.named()


@CLIENTS
@pytest.mark.server("apache2")
def test_without_a_header_all_clients_are_the_bridge(stage: Stage, client: str) -> None:
    server = Apache(stage.folder, lines={})
    stage.relay_to(server)
    asked = stage.curl(*server.questions(url_host(client)))
    assert asked.stdout == server.answer()
    server.stop()
    assert server.log.splitlines() == server.entries(BRIDGE_V4)
