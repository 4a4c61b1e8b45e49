"""A worker that was taken over, or that hangs: the supervisor survives it and replaces it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually
from tests.support.site import Site
from v6fwd.daemon.messages import MAX_MESSAGE, Report, to_bytes
from v6fwd.relay.counters import Counters

pytestmark = pytest.mark.netns  # root takes a worker's end of the channel out of it

_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def site(site: Site) -> Site:
    site.run()
    return site


@contextlib.contextmanager
def channel_of(pid: int) -> Iterator[socket.socket]:
    """A worker's end of its channel, as code in the worker would have it."""
    (fd,) = channels_of(pid)
    with socket.socket(fileno=fd) as sock:
        sock.settimeout(PATIENCE)
        yield sock


def channels_of(pid: int) -> list[int]:
    """Copies of a worker's channels, to the supervisor and to a helper if there is one."""
    pidfd = os.pidfd_open(pid)
    found = []
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            taken = _libc.syscall(_PIDFD_GETFD, pidfd, int(fd), 0)
            if taken >= 0 and _is_channel(taken):
                found.append(int(taken))
            elif taken >= 0:
                os.close(taken)
    finally:
        os.close(pidfd)
    return found


def _is_channel(fd: int) -> bool:
    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=fd)
        found = (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.detach()
        return found
    return False


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return open, (str(self._path), "w")


def packets(path: Path, listen: str) -> dict[str, list[bytes]]:
    """What a hostile worker may send, by name."""
    forged = json.dumps(["Report", [listen, {**Counters().snapshot(), "flows": -1}]]).encode()
    return {
        "pickle": [pickle.dumps(Evil(path))],
        "another's forward": [to_bytes(Report("[::]:1", Counters().snapshot()))],
        "forged counters": [forged],
        "largest": [b"[" * (MAX_MESSAGE - 1)],
        "cut": [b'["Report",["' + b"x" * (MAX_MESSAGE + 1000)],
        "order": [b'["Hurry",[]]'],
    }


@pytest.mark.parametrize("name", packets(Path(), ""))
def test_a_message_that_is_none(site: Site, tmp_path: Path, name: str) -> None:
    """The worker is killed and replaced, with one line; the others go on."""
    victim, other = site.daemon.workers()
    ran = tmp_path / "ran"
    with channel_of(victim) as sock:
        for packet in packets(ran, site.listen)[name]:
            sock.send(packet)
    eventually(lambda: victim not in site.daemon.workers(), "the worker is gone")
    eventually(lambda: len(site.daemon.workers()) == 2, "another one in its place")
    assert other in site.daemon.workers()
    assert not ran.exists()
    lines = [line for line in site.daemon.log.splitlines() if str(victim) in line]
    assert len(lines) == 1
    assert f"worker {victim} died: killed, since it sent an invalid message (" in lines[0]
    site.pair()


def test_a_flood_of_messages_does_not_keep_the_supervisor(site: Site) -> None:
    """Valid ones, as fast as it takes them; meanwhile it answers."""
    victim, _ = site.daemon.workers()
    report = to_bytes(Report(site.listen, Counters(flows=1, ended=1).snapshot()))
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException), channel_of(victim) as sock:
            while True:
                sock.send(report)
        os._exit(0)
    try:
        before = site.daemon.resident()
        for _ in range(20):
            assert len(site.daemon.workers()) == 2
        assert site.daemon.resident() - before < 4 << 20
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_descriptors_of_a_worker_are_not_taken(site: Site) -> None:
    victim, _ = site.daemon.workers()
    before = site.daemon.descriptors()
    report = to_bytes(Report(site.listen, Counters().snapshot()))
    with channel_of(victim) as sock, Path(os.devnull).open() as file:
        for _ in range(50):
            socket.send_fds(sock, [report], [file.fileno()] * 100)
    site.daemon.status()
    assert site.daemon.descriptors() <= before + 1  # the one that asks


def test_shared_memory_keeps_its_size(site: Site) -> None:
    """Were it shrunk, whoever looks into it would die of SIGBUS."""
    victim, _ = site.daemon.workers()
    memory = next(
        path
        for path in Path(f"/proc/{victim}/fd").iterdir()
        if "memfd:v6fwd-clients" in str(path.readlink())
    )
    with memory.open("r+b") as file, pytest.raises(PermissionError):
        os.ftruncate(file.fileno(), 0)
    site.daemon.kill_worker(victim)


def test_a_hung_worker_is_replaced(site: Site) -> None:
    """SIGSTOP stands for an endless loop, or a call that never returns."""
    victim, other = site.daemon.workers()
    os.kill(victim, signal.SIGSTOP)
    eventually(
        lambda: f"worker {victim} died: killed, since it hung" in site.daemon.log,
        "the worker is killed",
        3 * PATIENCE,
    )
    eventually(lambda: len(site.daemon.workers()) == 2, "another one in its place")
    assert victim not in site.daemon.workers()
    assert other in site.daemon.workers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_hung_worker_does_not_keep_the_daemon(
    daemon: ServeProcess, number: signal.Signals
) -> None:
    daemon.configure(more="drain-timeout = 0.5\ninterrupt-timeout = 0.5")
    daemon.run()
    victim, _ = daemon.workers()
    os.kill(victim, signal.SIGSTOP)
    try:
        daemon.signal(number)
        assert daemon.wait() == 0
        assert f"worker {victim} did not end in time: killed" in daemon.log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
