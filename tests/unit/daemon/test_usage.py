"""What processes take, from files in /proc that each opens before it hides."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from v6fwd.daemon.privileges import hide_memory
from v6fwd.daemon.usage import ChildUsage, UsageFiles, measured


def test_this_process() -> None:
    files = UsageFiles.own()
    usage = files.read()
    assert usage is not None
    assert usage.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with open(os.devnull) as _, open(os.devnull) as _:
        more = files.read()
    assert more is not None
    assert more.open_fds == usage.open_fds + 2
    assert more.cpu >= usage.cpu > 0
    status = Path("/proc/self/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    assert 0.5 * resident < usage.resident < 2 * resident
    files.close()
    assert files.read() is None


class Child:
    """Opens two descriptors beside those it was given, hides, and waits."""

    def __init__(self) -> None:
        self.usage = ChildUsage()
        hidden, hides = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setresuid(65534, 65534, 65534) if not os.geteuid() else None
                self.usage.pass_own()
                os.closerange(3, hides)
                os.closerange(hides + 1, os.sysconf("SC_OPEN_MAX"))
                hide_memory()
                os.write(hides, b".")
                signal.pause()
            finally:
                os._exit(1)
        self.usage.forked()
        os.close(hides)
        assert os.read(hidden, 1) == b"."
        os.close(hidden)

    def end(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.usage.close()


def test_a_child_that_hides_and_one_that_is_gone(child: Child) -> None:
    usage = child.usage.read()
    assert usage is not None
    assert usage.open_fds == 4  # standard ones and its end of the pipe
    assert usage.resident > 1 << 20
    assert measured({"worker-0": child.usage}).keys() == {"supervisor", "worker-0"}
    child.end()
    assert child.usage.read() is None
    assert measured({"worker-0": child.usage}).keys() == {"supervisor"}


def test_a_kernel_that_does_not_count(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.2 the folder of descriptors has no size."""
    monkeypatch.setattr("v6fwd.daemon.usage.os.fstat", lambda _: SimpleNamespace(st_size=0))
    for _ in range(2):  # from its beginning each time
        usage = child.usage.read()
        assert usage is not None
        assert usage.open_fds == 4
    child.end()


def test_a_child_that_could_not_open_its_files() -> None:
    usage = ChildUsage()
    usage.forked()
    assert usage.read() is None
    assert usage.read() is None
    usage.close()


def test_nothing_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    child = Child()
    assert child.usage.read() is not None
    child.end()
    child.usage.close()
    assert os.listdir("/proc/self/fd") == before
