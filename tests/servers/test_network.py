"""What networks do to a relay: loss, small MTUs, black holes, links and addresses that go."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import eventually
from tests.support.servers import HAProxy, Nginx, page
from tests.support.stage import PORT, Stage, client_script, curl
from v6fwd.demo.lab import CLIENT_V6, CONTAINER_V4, HOST_V6, HOSTS, Lab

pytestmark = [pytest.mark.netns, pytest.mark.server("nginx", "curl", "nft")]

URL = f"http://[{HOST_V6}]:{PORT}"
SIZE = 20 * 1024 * 1024

Outage = Callable[[Lab], contextlib.AbstractContextManager[None]]


def sha256(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def big_file(path: Path, seed: int) -> Path:
    """20 MiB that no accident makes twice."""
    path.write_bytes(random.Random(seed).randbytes(SIZE))
    return path


def test_loss_and_a_small_mtu_cost_no_byte(stage: Stage) -> None:
    lab, server = stage.lab, Nginx(stage.folder)
    for host, device in (
        ("client", "eth0"), ("host", "eth0"),
        ("container", "eth0"), ("host", "veth0"), ("host", "docker0"),
    ):  # fmt: skip
        # One packet a segment: what is lost are single segments, as on a wire.
        lab.ip(host, "link", "set", device, "mtu", "1280", "gso_max_segs", "1")
    stage.relay_to(server, "--client-ip", "proxy-v2")
    for host in HOSTS:
        stage.drop(host, "meta l4proto tcp numgen random mod 100 < 2")
    sent = big_file(stage.folder / "sent", 26)
    offered = big_file(stage.folder / "www" / "offered", 27)
    received = stage.folder / "received"
    up = lab.start("client", *curl("--upload-file", str(sent), f"{URL}/taken"))
    down = stage.curl("--output", str(received), f"{URL}/offered")
    assert (up.wait(timeout=90), down.returncode) == (0, 0), down.stderr
    assert sha256(stage.folder / "www" / "taken") == sha256(sent)
    assert sha256(received) == sha256(offered)
    assert all(stage.dropped(host) > 0 for host in HOSTS)
    server.stop()
    # nginx closes a connection whose header is not whole in its first read.
    for request in ('"PUT /taken HTTP/1.1" 201', '"GET /offered HTTP/1.1" 200'):
        assert f"{CLIENT_V6} {request}" in server.log


@contextlib.contextmanager
def without_address(lab: Lab) -> Iterator[None]:
    """The listener's address is gone for a while."""
    words = (f"{HOST_V6}/64", "dev", "eth0")
    lab.ip("host", "address", "del", *words)
    yield
    lab.ip("host", "address", "add", *words, "nodad")


@contextlib.contextmanager
def without_link(lab: Lab) -> Iterator[None]:
    """The client is unplugged for a while."""
    lab.ip("client", "link", "set", "eth0", "down")
    yield
    lab.ip("client", "link", "set", "eth0", "up")
    # The kernel forgets the IPv6 addresses of a link that goes down.
    lab.ip("client", "address", "add", f"{CLIENT_V6}/64", "dev", "eth0", "nodad")


@pytest.mark.parametrize("outage", [without_address, without_link])
def test_a_stream_survives(stage: Stage, outage: Outage) -> None:
    server = Nginx(stage.folder)
    stage.relay_to(server, "--client-ip", "proxy-v2")
    offered = big_file(stage.folder / "www" / "offered", 25)
    words = client_script("pausing_download", HOST_V6, str(PORT), "/offered", str(SIZE))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    patient = stage.lab.start("client", *words, **pipes)
    assert patient.stdin is not None
    assert patient.stdout is not None
    assert patient.stdout.readline() == "begun\n"
    with outage(stage.lab):
        patient.stdin.write("go on\n")
        patient.stdin.flush()
        # It has read all that it had; what it tells the host about that is lost.
        eventually(
            lambda: stage.sockets("client", "established", f":{PORT}")[0][0] == "0",
            "the client waits for more",
        )
        assert patient.poll() is None
    digest, _ = patient.communicate(timeout=60)
    assert digest.strip() == sha256(offered)
    assert stage.curl(f"{URL}/one").stdout == page("one")


def test_a_black_hole_costs_its_own_clients_only(stage: Stage) -> None:
    lab, server = stage.lab, Nginx(stage.folder)
    server.start(lab)
    stage.drop("container", "tcp dport 81")
    pairs = (f"[::]:{PORT}", f"{CONTAINER_V4}:80", "[::]:8081", f"{CONTAINER_V4}:81")
    stage.start_forward(*pairs, "--client-ip", "proxy-v2", "--connect-timeout", "3")
    before = time.monotonic()
    lost = lab.start("client", *curl(f"http://[{HOST_V6}]:8081/"), stderr=subprocess.PIPE)
    eventually(lambda: stage.sockets("host", "syn-sent", ":81"), "v6fwd dials")
    assert stage.curl(f"{URL}/one").stdout == page("one")
    assert stage.sockets("host", "syn-sent", ":81")  # it was still dialling
    _, error = lost.communicate(timeout=60)
    # 56 is "reset by peer"; the kernel alone would have tried for two minutes.
    assert lost.returncode == 56, error
    assert time.monotonic() - before >= 3
    assert stage.dropped("container") > 0
    complaint = f"cannot connect to {CONTAINER_V4}:81 for [::]:8081: connection timed out (client "
    eventually(lambda: complaint in stage.forward.log, "the log line")
    assert stage.forward.log.count("cannot connect") == 1


@pytest.mark.server("haproxy")
def test_an_overflowing_accept_queue_cuts_no_answer(stage: Stage) -> None:
    lab, server, count = stage.lab, HAProxy(stage.folder), 5000
    lab.run("host", "sysctl", "-w", "net.core.somaxconn=128").check_returncode()
    # Dials may take long, too: the same crowd stands before the server.
    stage.relay_to(server, "--client-ip", "proxy-v2", "--connect-timeout", "60")
    stage.forward.signal(signal.SIGSTOP)
    words = client_script("many_requests", HOST_V6, str(PORT), str(count), page("one"))
    crowd = lab.start("client", *words, stdout=subprocess.PIPE, text=True)
    eventually(lambda: overflows(lab) > 0, "the accept queue overflows")
    stage.forward.signal(signal.SIGCONT)
    output, _ = crowd.communicate(timeout=90)
    fates = json.loads(output)
    server.stop()
    # The kernel resets a few whom it answered with SYN cookies and had no room for after all.
    assert "cut" not in fates
    assert fates["whole"] > 0.9 * count
    assert server.log.count(f'{CLIENT_V6} "GET /one HTTP/1.1" 200') == fates["whole"]


def overflows(lab: Lab) -> int:
    """How often the host's kernel had no room in an accept queue."""
    counters = lab.run("host", "nstat", "-asz", "TcpExtListenOverflows").stdout
    return int(counters.split()[-2])
