"""A real server and a mode that disagree are named within 20 connections, in both directions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import pytest

from tests.support.more_servers import MORE_LINES, Postfix
from tests.support.process import eventually
from tests.support.servers import (
    PROXY_LINES,
    Apache,
    Dovecot,
    Exim,
    HAProxy,
    Lighttpd,
    Nginx,
    Server,
)
from tests.support.stage import Stage, curl, url_host
from v6fwd.demo.lab import CLIENT_V6, CONTAINER_V4

pytestmark = [pytest.mark.netns, pytest.mark.server("curl")]

CONNECTIONS = 20
LINES = PROXY_LINES | MORE_LINES
KINDS = (Apache, Nginx, HAProxy, Lighttpd, Postfix, Exim, Dovecot)


def cases(**kinds: Iterable[type[Server]]) -> pytest.MarkDecorator:
    """Parameters: a mode, and each of its servers."""
    return pytest.mark.parametrize(
        ("mode", "kind"),
        [
            pytest.param(
                mode.replace("_", "-"),
                kind,
                marks=pytest.mark.server(kind.program),
                id=f"{mode}-{kind.__name__}",
            )
            for mode in kinds
            for kind in kinds[mode]
        ],
    )


def ask(stage: Stage, server: Server) -> None:
    """Ask by that many clients at once, each with a connection of its own."""
    questions = server.questions(url_host(CLIENT_V6))
    urls = [word for word in questions if "://" in word]
    words = curl(*(word for word in questions if word not in urls), urls[0])
    clients = [
        stage.lab.start("client", *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(CONNECTIONS)
    ]
    for client in clients:
        client.wait(90)


def lines(stage: Stage) -> list[str]:
    """What is told of the server."""
    return [line for line in stage.forward.log.splitlines() if "v6fwd probe" in line]


@cases(proxy_v2=KINDS, proxy_v1=(Nginx, Postfix, Dovecot))
def test_a_header_that_the_server_does_not_expect(
    stage: Stage, mode: str, kind: type[Server]
) -> None:
    server = kind(stage.folder, {})
    stage.relay_to(server, "--client-ip", mode)
    ask(stage, server)
    eventually(lambda: lines(stage), "the server is named")
    (line,) = lines(stage)
    target = f"{CONTAINER_V4}:{server.port}"
    assert line.startswith(f"{target} ")
    assert line.endswith(f"right after the PROXY header: does it expect one? v6fwd probe {target}")
    assert ("ended 20 of 20" in line) == (server.port == 80)


@cases(none=KINDS)
def test_a_header_that_the_server_misses(stage: Stage, mode: str, kind: type[Server]) -> None:
    server = kind(stage.folder, LINES)
    stage.relay_to(server, "--client-ip", mode)
    ask(stage, server)
    eventually(lambda: lines(stage), "the server is named")
    (line,) = lines(stage)
    assert line.endswith(
        f": does it expect a PROXY header? v6fwd probe {CONTAINER_V4}:{server.port}"
    )


@cases(proxy_v2=(Apache, HAProxy, Postfix, Dovecot), none=(Nginx, Exim))
def test_a_server_that_agrees(stage: Stage, mode: str, kind: type[Server]) -> None:
    server = kind(stage.folder, {} if mode == "none" else LINES)
    stage.relay_to(server, "--client-ip", mode)
    ask(stage, server)
    assert lines(stage) == []
