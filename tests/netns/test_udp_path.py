"""Datagrams across links with an MTU of 1,500 bytes: what is too long for it is still whole."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.process import ForwardProcess, eventually
from v6fwd.demo.lab import CONTAINER_V4, HOST_V4, HOST_V6, Lab

pytestmark = pytest.mark.netns

ECHO = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
sock.bind(("0.0.0.0", 7))
while True:
    data, source = sock.recvfrom(65536)
    sock.sendto(data[{header}:], source)
"""

CLIENT = """
import json, random, socket, sys
host, size, segment = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
sock.settimeout(20)
sock.connect((host, 7))
# The first packet between two hosts waits for the neighbour's address, and few can wait with it.
sock.send(b"hello")
assert sock.recv(100) == b"hello"
data = random.Random(size).randbytes(size)
if segment:
    sock.sendmsg([data], [(17, 103, segment.to_bytes(2, "little"))])
else:
    sock.send(data)
parts = [data[at:at + segment] for at in range(0, size, segment)] if segment else [data]
print(json.dumps([sock.recv(65536) == part for part in parts]))
"""


@pytest.mark.parametrize("host", [HOST_V6, HOST_V4], ids=["ipv6", "ipv4"])
@pytest.mark.parametrize(
    ("size", "segment"),
    [(65_000, 0), (1400 * 40 + 5, 1400), (1440 * 40 + 5, 1440), (1452 * 3, 1452)],
    ids=["fragments", "train", "too long with the header", "longest"],
)
@pytest.mark.parametrize("mode", ["none", "proxy-v2"])
def test_datagrams_arrive_whole_and_in_order(
    lab: Lab, forward_process: ForwardProcess, mode: str, size: int, segment: int, host: str
) -> None:
    """A train may be of segments that fit one link and, with a header, not the next."""
    header = 0 if mode == "none" else 52 if ":" in host else 28
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    lab.start("container", sys.executable, "-c", ECHO.format(header=header), **options)
    eventually(lambda: lab.run("container", "ss", "-Hlun", "sport = :7").stdout, "echo listens")
    words = ("[::]:7/udp", f"{CONTAINER_V4}:7", "--client-ip", mode)
    forward_process.start(*words, prefix=lab.command("host"))
    asked = lab.run("client", sys.executable, "-c", CLIENT, host, str(size), str(segment))
    assert asked.returncode == 0, asked.stderr
    assert set(json.loads(asked.stdout)) == {True}
