"""The header comes whole and first, seen at v6fwd's system calls.

HAProxy and nginx close a connection whose header is cut in two, so one write has to carry it.
"""

from __future__ import annotations

import ast
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.process import eventually
from tests.support.servers import Apache, Exim, page
from tests.support.stage import PORT, Stage, client_script
from v6fwd.client_ip.proxy.read import read_header
from v6fwd.demo.lab import CLIENT_V6, HOST_V6
from v6fwd.model import Address

pytestmark = [pytest.mark.netns, pytest.mark.server("strace")]

REQUEST = b"GET /one HTTP/1.1\r\nHost: container\r\nConnection: close\r\n\r\n"
MODES = pytest.mark.parametrize("mode", ["proxy-v1", "proxy-v2"])
_CALLS = "connect,close,write,writev,sendto,sendmsg,sendfile,splice"
_CONNECT = re.compile(r"\bconnect\((\d+), \{sa_family=AF_INET,")
_WRITE = re.compile(r"\b(\w+)\((\d+), (\"[^\"]*\").* = (\d+)$")  # no match where it failed


def traced(path: Path) -> tuple[str, ...]:
    """The command that v6fwd runs behind; -D leaves v6fwd the process that was started."""
    # -xx writes every byte as \x..: unlike the short escapes, these never run into each other.
    words = ["-D", "-f", "-qq", "-xx", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    return ("strace", *words, "-o", str(path))


def first_write(trace: Path) -> bytes | None:
    """The bytes that the kernel took at the first write to the target; None before there is one."""
    target = None
    for line in trace.read_text().splitlines():
        if connect := _CONNECT.search(line):
            target = connect[1]
        elif (call := _WRITE.search(line)) and call[2] == target:
            data: bytes = ast.literal_eval(f"b{call[3]}")
            return data[: int(call[4])]
    return None


def split_header(data: bytes) -> tuple[Address | None, bytes]:
    """Who the header at the start of `data` names, and what comes behind the header."""
    header = read_header(data)
    assert header is not None, data
    return header.source, data[header.length :]


@MODES
@pytest.mark.server("apache2")
def test_a_client_that_spoke_first_is_in_the_headers_segment(stage: Stage, mode: str) -> None:
    trace = stage.folder / "trace"
    stage.relay_to(Apache(stage.folder), "--client-ip", mode, prefix=traced(trace))
    # Stopped, v6fwd finds connection and request at once: the order is fixed, not a race.
    stage.forward.signal(signal.SIGSTOP)
    words = client_script("send_stdin", HOST_V6, str(PORT))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    client = stage.lab.start("client", *words, **pipes)
    assert client.stdin is not None
    client.stdin.write(REQUEST)
    client.stdin.close()
    client.stdin = None
    eventually(
        lambda: (
            [line[0] for line in stage.sockets("host", "established", f":{PORT}")]
            == [str(len(REQUEST))]
        ),
        "the request waits in the kernel",
    )
    stage.forward.signal(signal.SIGCONT)
    answer, _ = client.communicate(timeout=60)
    assert answer.endswith(page("one").encode())
    eventually(lambda: first_write(trace) is not None, "strace has written it down")
    source, rest = split_header(first_write(trace) or b"")
    assert source is not None
    assert (source.host, rest) == (CLIENT_V6, REQUEST)


@MODES
@pytest.mark.server("exim4")
def test_a_silent_clients_header_is_a_write_of_its_own(stage: Stage, mode: str) -> None:
    trace = stage.folder / "trace"
    stage.relay_to(Exim(stage.folder), "--client-ip", mode, prefix=traced(trace))
    words = client_script("send_stdin", HOST_V6, str(PORT))
    client = stage.lab.start("client", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    eventually(lambda: first_write(trace) is not None, "v6fwd writes without a word of the client")
    source, rest = split_header(first_write(trace) or b"")
    assert source is not None
    assert (source.host, rest) == (CLIENT_V6, b"")
    answer, _ = client.communicate(b"QUIT\r\n", timeout=60)
    assert answer.startswith(b"220 mail.example ")
