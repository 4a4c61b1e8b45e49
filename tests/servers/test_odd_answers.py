"""What HAProxy, nginx and curl do with answers that are not by the letter of RFC 9112.

The table is the unit tests'; here the real programs are asked whether it is true, on loopback.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import eventually
from tests.unit.client_ip.http_odd_answers import ALL_PASS, ONE_REFUSES

RAW = {name: odd.raw for name, odd in ALL_PASS.items()} | ONE_REFUSES
NAMES = list(RAW)

_HAPROXY = """defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s
frontend f
  bind 127.0.0.1:{listen}
  default_backend b
backend b
  server s 127.0.0.1:{target}
"""
_NGINX = """daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://127.0.0.1:{target}; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


def free_port() -> int:
    """A port on loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(listener: socket.socket) -> None:
    """Answer each connection's one request with the bytes that its path names, then end."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.settimeout(10)
            try:
                answer(client)
            except OSError:
                continue


def answer(client: socket.socket) -> None:
    """Read the request, write the answer, and read until the other has closed."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = client.recv(65536)
        if not piece:
            return
        request += piece
    path = re.match(rb"GET /(\d+) ", request)
    if path is not None:
        client.sendall(RAW[NAMES[int(path[1])]])
    client.shutdown(socket.SHUT_WR)
    while client.recv(65536):
        pass


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def peers() -> Iterator[dict[str, int]]:
    """The ports of curl's server, HAProxy and nginx."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as name:
        target = listener.getsockname()[1]
        for _ in range(8):
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        ports = {"curl": target, "haproxy": free_port(), "nginx": free_port()}
        folder = Path(name)
        texts = {"haproxy": _HAPROXY, "nginx": _NGINX}
        for kind, text in texts.items():
            told = text.format(listen=ports[kind], target=target, folder=folder)
            folder.joinpath(kind).write_text(told)
        running = [
            subprocess.Popen(words, stderr=subprocess.DEVNULL)
            for words in (
                ["haproxy", "-db", "-q", "-f", str(folder / "haproxy")],
                ["nginx", "-c", str(folder / "nginx")],
            )
        ]
        try:
            eventually(lambda: all(map(accepts, ports.values())), "all three listen")
            yield ports
        finally:
            for process in running:
                process.terminate()
                process.wait()


def passes(port: int, number: int) -> bool:
    """Whether curl gets the two bytes of the body, whole, through what listens there."""
    words = ["curl", "-s", "-m", "5", "-w", "%{http_code}", f"http://127.0.0.1:{port}/{number}"]
    done = subprocess.run(words, capture_output=True, check=False)
    return done.returncode == 0 and done.stdout.startswith(b"ok") and done.stdout != b"ok502"


@pytest.mark.parametrize("name", ALL_PASS)
def test_all_pass(peers: dict[str, int], name: str) -> None:
    number = NAMES.index(name)
    assert {kind: passes(port, number) for kind, port in peers.items()} == dict.fromkeys(
        peers, True
    )


@pytest.mark.parametrize("name", ONE_REFUSES)
def test_one_refuses(peers: dict[str, int], name: str) -> None:
    number = NAMES.index(name)
    assert not all(passes(port, number) for port in peers.values())
