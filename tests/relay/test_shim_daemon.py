"""The shim where a daemon runs: it announces itself, waits, and gives its descriptors away.

The daemon is played by the test, with the very system calls that take descriptors over.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import eventually, free_port
from tests.support.shim import Shim, listening
from v6fwd.model import Protocol

NOWHERE = ("127.0.0.1", 9)
PIDFD_GETFD = 438
MEMORY = 160 << 10
"""Bytes of its own that a waiting shim may take: dash has 105 KB, busybox 60."""


class Daemon:
    """The folder that the shims look into, and whoever reads their announcements."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        os.mkfifo(folder / "shims", 0o600)
        os.mkfifo(folder / "rest", 0o600)
        self.folder = folder
        self.is_alive(os.getpid(), start_time(os.getpid()))
        self._shims = os.open(folder / "shims", os.O_RDWR | os.O_NONBLOCK)
        self._pidfds: list[int] = []

    def is_alive(self, pid: int, started: str) -> None:
        """Say who the daemon is."""
        (self.folder / "daemon").write_text(f"{pid} {started}\n")

    def environment(self, patience: str = "600") -> dict[str, str]:
        """How a shim finds us, and how long it waits."""
        return {"V6FWD_RUN_DIR": str(self.folder), "V6FWD_SHIM_PATIENCE": patience}

    def announcements(self) -> str:
        """What has been announced since the last time."""
        try:
            return os.read(self._shims, 4096).decode()
        except BlockingIOError:
            return ""

    def take(self, shim: Shim, fd: int) -> int:
        """A copy of the shim's descriptor."""
        pidfd = os.pidfd_open(shim.pid)
        self._pidfds.append(pidfd)
        taken = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, fd, 0)
        assert taken >= 0, os.strerror(ctypes.get_errno())
        return int(taken)

    def stop(self, shim: Shim, number: signal.Signals = signal.SIGINT) -> int:
        """End a shim as dockerd does, and let go when it asks; gives its exit status."""
        asked = ""
        expected = f"{shim.pid} {start_time(shim.pid)} stop\n"
        shim.send(number)

        def has_asked() -> bool:
            nonlocal asked
            asked += self.announcements()
            return asked == expected

        eventually(has_asked, "the shim asks us to let go")
        assert not shim.exited()
        shim.send(signal.SIGUSR2)
        return shim.wait()

    def close(self) -> None:
        """Give everything back."""
        for fd in (self._shims, *self._pidfds):
            os.close(fd)


def start_time(pid: int) -> str:
    """See proc(5), field 22."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def catches(shim: Shim, number: signal.Signals) -> bool:
    """Whether a signal would be handled."""
    status = Path(f"/proc/{shim.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def own_memory(pid: int) -> int:
    """Bytes that nobody shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) << 10


def files(pid: int) -> dict[str, str]:
    """What a process's descriptors are."""
    folder = f"/proc/{pid}/fd"
    return {fd: os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)}


def has_ended(pid: int) -> bool:
    """Whether a process is gone, but for what its new parent has not asked for yet."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def is_resting(shim: Shim) -> bool:
    """Whether it waits for nothing but signals any more."""
    number = Path(f"/proc/{shim.pid}/syscall").read_text().split()[0]
    return number in ("0", "7") and not shim.children()  # read(2), or poll(2) as busybox has it


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "run")
    yield daemon
    daemon.close()


@pytest.fixture
def waiting(shim: Shim, daemon: Daemon) -> Iterator[tuple[Shim, Daemon, socket.socket]]:
    """A shim with a listening socket that has announced itself."""
    with listening(Protocol.TCP, "::1") as listener:
        port = listener.getsockname()[1]
        environment = daemon.environment()
        shim.proxy(Protocol.TCP, "::1", port, NOWHERE, listener=listener, environment=environment)
        expected = f"{shim.pid} {start_time(shim.pid)}\n"
        announced = ""

        def is_announced() -> bool:
            nonlocal announced
            announced += daemon.announcements()
            return announced == expected

        eventually(is_announced, "the shim announces itself once, with its start time")
        yield shim, daemon, listener


Waiting = tuple[Shim, Daemon, socket.socket]


def test_the_daemon_answers_and_serves(waiting: Waiting) -> None:
    shim, daemon, listener = waiting
    assert not shim.has_answered()
    status = daemon.take(shim, 3)
    os.write(status, b"0\n")
    assert shim.status() == b"0\n"
    os.close(status)
    shim.send(signal.SIGUSR1)
    with socket.socket(fileno=daemon.take(shim, 4)) as taken:
        listener.close()
        with socket.create_connection(taken.getsockname()[:2]), taken.accept()[0]:
            pass
    [sleeper] = shim.children()
    os.kill(sleeper, signal.SIGKILL)  # as if its time were over
    eventually(lambda: is_resting(shim), "the shim rests")
    assert shim.status() == b"", "the status pipe is closed"
    assert own_memory(shim.pid) < MEMORY
    with socket.socket(fileno=daemon.take(shim, 4)) as again:
        assert again.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "it still holds it"
    assert daemon.stop(shim) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["announced", "taken", "resting"])
def test_stop(waiting: Waiting, when: str, number: signal.Signals) -> None:
    shim, daemon, _ = waiting
    eventually(lambda: len(shim.children()) == 1, "the clock runs")
    [sleeper] = shim.children()
    if when != "announced":
        shim.send(signal.SIGUSR1)
    if when == "resting":
        os.kill(sleeper, signal.SIGKILL)
        eventually(lambda: is_resting(shim), "the shim rests")
    assert daemon.stop(shim, number) == 0
    eventually(lambda: has_ended(sleeper), "its clock is gone")


def test_the_clock_holds_nothing(waiting: Waiting) -> None:
    """dockerd reads the status to its end, and the port must be free when the shim ends."""
    shim = waiting[0]
    eventually(lambda: len(shim.children()) == 1, "the clock runs")
    [sleeper] = shim.children()
    mine = {files(shim.pid)[fd] for fd in ("3", "4", "5")}
    eventually(lambda: not mine & {*files(sleeper).values()}, "the clock runs alone")


def test_the_resting_are_woken_to_no_harm(waiting: Waiting) -> None:
    shim, daemon, _ = waiting
    shim.send(signal.SIGUSR1)
    eventually(lambda: len(shim.children()) == 1, "the clock runs")
    os.kill(shim.children()[0], signal.SIGKILL)
    for _ in range(3):
        eventually(lambda: is_resting(shim), "the shim rests")
        shim.send(signal.SIGUSR1)
        (daemon.folder / "rest").write_text("somebody writes\n")
    eventually(lambda: is_resting(shim), "the shim rests")
    assert daemon.stop(shim) == 0


@pytest.mark.parametrize("taken", [True, False])
def test_the_daemon_sends_it_away(waiting: Waiting, taken: bool) -> None:
    """SIGUSR2: it becomes a relay, whether it was served before or not."""
    shim, daemon, listener = waiting
    if taken:
        status = daemon.take(shim, 3)
        os.write(status, b"0\n")
        os.close(status)
        shim.send(signal.SIGUSR1)
        assert shim.status() == b"0\n"
        eventually(lambda: len(shim.children()) == 1, "the clock runs")
        os.kill(shim.children()[0], signal.SIGKILL)
        eventually(lambda: is_resting(shim), "the shim rests")
    shim.send(signal.SIGUSR2)
    if not taken:
        assert shim.all_status() == b"0\n"
    eventually(lambda: "ready: 1 forwards" in shim.log, "a relay")
    assert not catches(shim, signal.SIGUSR1)
    shim.send(signal.SIGUSR1)  # from a daemon that is late
    address = listener.getsockname()[:2]
    listener.close()
    with socket.create_connection(address) as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert shim.stop() == 0


def test_a_daemon_that_does_not_answer(shim: Shim, daemon: Daemon) -> None:
    port = free_port("::1")
    environment = daemon.environment(patience="0.1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=environment)
    assert shim.all_status() == b"0\n"
    assert not shim.children()
    assert shim.stop() == 0


@pytest.mark.parametrize("taken", [True, False])
def test_stop_when_the_daemon_is_dead(waiting: Waiting, taken: bool) -> None:
    shim, daemon, _ = waiting
    if taken:
        shim.send(signal.SIGUSR1)
    daemon.is_alive(2**22 + 1, "1")
    assert shim.stop() == 0
    assert daemon.announcements() == ""


def test_stop_when_the_daemon_does_not_answer(shim: Shim, daemon: Daemon) -> None:
    """dockerd waits for as long as it takes."""
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=daemon.environment(patience="0.5"))
    eventually(lambda: daemon.announcements(), "the shim announces itself")
    shim.send(signal.SIGUSR1)
    assert shim.stop() == 0


@pytest.mark.parametrize("trace", ["nobody", "reused", "no start time", "garbage", "no file"])
def test_what_a_dead_daemon_has_left(shim: Shim, daemon: Daemon, trace: str) -> None:
    """Its process id may belong to somebody else by now."""
    daemon.is_alive(*{"nobody": (2**22 + 1, "1"), "reused": (os.getpid(), "1")}.get(trace, (1, "")))
    if trace == "garbage":
        (daemon.folder / "daemon").write_text("../../etc/passwd x\n\n")
    if trace == "no file":
        (daemon.folder / "daemon").unlink()
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=daemon.environment())
    assert shim.all_status() == b"0\n"
    assert daemon.announcements() == ""
    assert shim.stop() == 0


@pytest.mark.parametrize("fifo", ["shims", "rest"])
def test_a_folder_that_lacks_something(shim: Shim, daemon: Daemon, fifo: str) -> None:
    (daemon.folder / fifo).unlink()
    shim.proxy(Protocol.UDP, "::1", free_port("::1"), NOWHERE, environment=daemon.environment())
    assert shim.all_status() == b"0\n"
    assert shim.stop() == 0


def test_the_environment_means_nothing(shim: Shim, daemon: Daemon) -> None:
    """dockerd's variables that happen to have the names of ours."""
    names = ("stock", "python", "taken", "alone", "sleeper", "started", "proto", "value")
    environment = {**daemon.environment(), **dict.fromkeys(names, "1")}
    shim.proxy(Protocol.TCP, "::1", free_port("::1"), NOWHERE, environment=environment)
    eventually(lambda: daemon.announcements(), "the shim announces itself")
    eventually(lambda: len(shim.children()) == 1, "the clock runs")
    assert not shim.has_answered()
    assert daemon.stop(shim) == 0
