"""Bytes that a child makes, with what the parent then does not import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from v6fwd.client_ip.proxy import write
from v6fwd.daemon.apart import made_apart


def test_what_a_child_makes_comes_back() -> None:
    assert made_apart(lambda: str(os.getpid()).encode()) != str(os.getpid()).encode()
    assert made_apart(lambda: bytes(64)) == bytes(64)


def test_a_child_that_fails_gives_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> bytes:
        raise RuntimeError("of the child")

    assert made_apart(fail) == b""
    assert capfd.readouterr().err == ""


def test_no_child_and_no_descriptor_is_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    child = int(made_apart(lambda: str(os.getpid()).encode()))
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_the_starts_of_v2_headers_need_no_library_here() -> None:
    code = (
        "import sys; from v6fwd.client_ip.proxy import write;"
        "from v6fwd.daemon.apart import made_apart;"
        "write.learn_v2_starts(made_apart(write.packed_v2_starts));"
        "print('proxyprotocol' in sys.modules, write.v2_starts())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == f"False {write.v2_starts()}"


@pytest.mark.parametrize("packed", [b"", bytes(63), bytes(65)])
def test_other_bytes_are_no_starts(packed: bytes) -> None:
    before = dict(write.v2_starts())
    with pytest.raises(ValueError, match="PROXY v2"):
        write.learn_v2_starts(packed)
    assert write.v2_starts() == before
