"""When a process began, whatever it calls itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from v6fwd.docker.shim.process import NoShimError, start_time

RENAMED = """
import ctypes, os
ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0)
print(1, flush=True)
input()
"""


@pytest.mark.parametrize("name", [b"web", b"a) S 1 (b", b"\xff\xfe\x80", b"\n\r) "])
def test_any_name(name: bytes) -> None:
    """The first process of a container gives itself one by prctl(2), and we look at it."""
    words = [sys.executable, "-I", "-c", RENAMED.format(name=name)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        found = start_time(process.pid)
        process.kill()
    assert found >= start_time(os.getpid())


def test_no_process() -> None:
    with pytest.raises(NoShimError):
        start_time(2**22 + 1)
