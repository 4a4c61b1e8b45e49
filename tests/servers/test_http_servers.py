"""HTTP modes against real servers and clients: each server's own log names the client, always."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.process import eventually
from tests.support.servers import (
    DIALLED,
    FIELD_LINES,
    PAGES,
    Apache,
    HttpServer,
    Lighttpd,
    Nginx,
    is_listening,
)
from tests.support.stage import CLIENTS, PORT, Stage, client_script, url_host
from v6fwd.demo.lab import BRIDGE_V4, CLIENT_V6, CONTAINER_V4

pytestmark = [pytest.mark.netns, pytest.mark.server("curl", "wrk")]

SERVERS = [
    pytest.param(kind, marks=pytest.mark.server(kind.program), id=kind.program)
    for kind in (Apache, Nginx, Lighttpd)
]
SPOOFED = ("--header", "X-Forwarded-For: 192.0.2.66", "--header", "X-Real-IP: 192.0.2.66")
CONNECTIONS, REQUESTS = 6, 60


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, stage: Stage) -> HttpServer:
    """Each kind, behind v6fwd in the mode that it can read."""
    made: HttpServer = request.param(stage.folder, FIELD_LINES)
    stage.relay_to(made, "--client-ip", "x-forwarded-for")
    return made


@CLIENTS
def test_the_server_logs_the_client(stage: Stage, server: HttpServer, client: str) -> None:
    asked = stage.curl(*SPOOFED, *server.questions(url_host(client)))
    assert asked.stdout == server.answer(), asked.stderr
    server.stop()
    entries = [f'{client} "GET /{name} HTTP/1.1" 200' for name in PAGES]
    eventually(lambda: all(entry in server.log for entry in entries), f"the log has {entries}")
    assert len(server.log.splitlines()) == len(PAGES)
    assert BRIDGE_V4 not in server.log


def test_every_request_of_a_browser(stage: Stage, server: HttpServer) -> None:
    paths = [f"/{name}" for name in PAGES]
    words = (DIALLED[CLIENT_V6], str(PORT), str(CONNECTIONS), str(REQUESTS), *paths)
    browsed = stage.lab.run("client", *client_script("browser", *words))
    count = CONNECTIONS * REQUESTS
    assert json.loads(browsed.stdout) == {"whole": count}, browsed.stderr
    server.stop()
    eventually(lambda: len(server.log.splitlines()) == count, "all is logged")
    assert {line.split()[0] for line in server.log.splitlines()} == {CLIENT_V6}


def test_load(stage: Stage, server: HttpServer) -> None:
    url = f"http://{url_host(CLIENT_V6)}/one"
    loaded = stage.lab.run("client", "wrk", "-t1", "-c20", "-d1s", url)
    assert re.search(r"^  Requests/sec: |^Requests/sec:", loaded.stdout, re.MULTILINE)
    assert "Socket errors" not in loaded.stdout, loaded.stdout
    assert "Non-2xx" not in loaded.stdout
    server.stop()
    assert {line.split()[0] for line in server.log.splitlines()} == {CLIENT_V6}


def test_upload_with_expectation(stage: Stage) -> None:
    """curl asks first whether the body is wanted, for one as large as this."""
    server = Nginx(stage.folder, FIELD_LINES)
    stage.relay_to(server, "--client-ip", "x-forwarded-for")
    body = stage.folder / "body"
    body.write_bytes(b"0123456789" * 300_000)
    url = f"http://{url_host(CLIENT_V6)}/uploaded"
    sent = stage.curl("--verbose", "--header", "Expect: 100-continue", "-T", str(body), url)
    assert "HTTP/1.1 100 Continue" in sent.stderr, sent.stderr
    assert "HTTP/1.1 201 Created" in sent.stderr
    assert (stage.folder / "www" / "uploaded").read_bytes() == body.read_bytes()
    eventually(lambda: f'{CLIENT_V6} "PUT /uploaded' in server.log, "it is logged")


def test_websocket(stage: Stage) -> None:
    stage.lab.start("container", *client_script("websocket", "serve", CONTAINER_V4, "80"))
    eventually(lambda: is_listening(stage.lab, "container", 80), "the echo listens")
    stage.start_forward(f"[::]:{PORT}", f"{CONTAINER_V4}:80", "--client-ip", "x-forwarded-for")
    url = f"ws://{url_host(CLIENT_V6)}/"
    asked = stage.lab.run("client", *client_script("websocket", "ask", url))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == f"{CLIENT_V6}\n"
