"""A target that expects another mode, as a daemon tells: one line, `status`, a metric."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from tests.support.process import eventually, free_port
from tests.support.rig import read_all
from tests.support.site import Site

pytestmark = pytest.mark.usefixtures("looks_at_answers")

GET = b"GET / HTTP/1.0\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LINE = "20 of 20 connections right after the PROXY header: does it expect one? v6fwd probe"


@pytest.fixture
def http(site: Site) -> Iterator[None]:
    """The first target is a web server that knows no header."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = site.one.accept()
                with sock:
                    head = sock.recv(4096)
                    sock.sendall(PAGE if head.startswith(b"GET") else BAD)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(4096):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    site.one.shutdown(socket.SHUT_RDWR)
    thread.join()


def ask(site: Site) -> None:
    """One request, and its answer."""
    with site.connect() as sock:
        sock.sendall(GET)
        read_all(sock)


def configure(site: Site, mode: str, metrics: int) -> None:
    """The forward in that mode."""
    more = f'[metrics]\nlisten = "[::1]:{metrics}"\n[defaults]\nclient-ip = "{mode}"'
    site.daemon.configure((site.listen, site.target(site.one)), more=more)


@pytest.mark.usefixtures("http")
def test_it_is_told_once_for_all_workers_and_is_over_when_mended(site: Site) -> None:
    metrics = free_port()

    def metric() -> str:
        with urlopen(f"http://[::1]:{metrics}/metrics") as page:
            lines = page.read().decode().splitlines()
        (line,) = (each for each in lines if each.startswith("v6fwd_mismatch{"))
        return str(line.rpartition(" ")[2])

    configure(site, "proxy-v2", metrics)
    site.daemon.run()
    assert metric() == "0.0"
    for _ in range(20):
        ask(site)
    eventually(lambda: LINE in site.daemon.log, "the line is in the log")
    for _ in range(20):
        ask(site)
    assert metric() == "1.0"
    assert "right after the PROXY header" in site.daemon.forward(site.listen)["mismatch"]
    _, _, row, note = site.daemon.command_line("status").stdout.splitlines()
    assert "proxy-v2 (mismatch)" in row
    assert note.startswith(f"{site.listen}: {site.target(site.one)} ended 40 of 40 connections")
    configure(site, "none", metrics)
    site.daemon.reload()
    ask(site)
    assert metric() == "0.0"
    assert site.daemon.forward(site.listen)["mismatch"] == ""
    assert len(site.daemon.command_line("status").stdout.splitlines()) == 3
    assert site.daemon.log.count("does it expect one") == 1
