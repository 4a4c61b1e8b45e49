"""The shim where a daemon runs: it announces itself, waits, and gives its descriptors away.

The daemon is played by the test, with the very system calls that take descriptors over.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import eventually, free_port
from tests.support.shim import Shim, listening
from v6fwd.docker.shim.holder import find_holder
from v6fwd.docker.shim.process import SI_QUEUE
from v6fwd.model import Protocol

NOWHERE = ("127.0.0.1", 9)
PIDFD_GETFD, PIDFD_SEND_SIGNAL = 438, 424
MEMORY = 24 << 10
"""Bytes of its own that a waiting shim may take: some pages of stack, with the environment."""


class Daemon:
    """The folder that the shims look into, and whoever reads their announcements."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        os.mkfifo(folder / "shims", 0o600)
        os.mkfifo(folder / "rest", 0o600)
        self.folder = folder
        self.offers(str(find_holder()))
        self._shims = os.open(folder / "shims", os.O_RDWR | os.O_NONBLOCK)
        self._pidfds: list[int] = []

    def offers(self, holder: str) -> None:
        """Say what shims become."""
        (self.folder / "daemon").write_text(f"{os.getpid()} {start_time(os.getpid())} {holder}\n")

    def dies(self) -> None:
        """Nobody reads any more."""
        os.close(self._shims)
        self._shims = -1

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

    def serve(self, shim: Shim, listener: socket.socket | None = None) -> None:
        """Answer dockerd, and tell the shim, with a socket of ours if there is one."""
        status = self.take(shim, 3)
        os.write(status, b"0\n")
        os.close(status)
        if listener is None:
            shim.send(signal.SIGUSR1)
        else:
            who = (signal.SIGUSR1, 0, SI_QUEUE, 0, os.getpid(), os.getuid())
            info = struct.pack("8i96x", *who, listener.fileno(), 0)
            words = (PIDFD_SEND_SIGNAL, self._pidfds[-1], signal.SIGUSR1, info, 0)
            assert ctypes.CDLL(None, use_errno=True).syscall(*words) == 0
        assert shim.all_status() == b"0\n", "the status pipe is closed"

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
            if fd >= 0:
                os.close(fd)


def start_time(pid: int) -> str:
    """See proc(5), field 22."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def own_memory(pid: int) -> int:
    """Bytes that nobody shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) << 10


def open_files(pid: int) -> set[str]:
    """The numbers of a process's descriptors."""
    return set(os.listdir(f"/proc/{pid}/fd"))


def is_fifo(pid: int, fd: str) -> bool:
    """Whether a descriptor is one of the folder's."""
    return os.readlink(f"/proc/{pid}/fd/{fd}").startswith("/")


def catches(shim: Shim, number: signal.Signals) -> bool:
    """Whether a signal would be handled."""
    status = Path(f"/proc/{shim.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


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
    daemon.serve(shim)
    with socket.socket(fileno=daemon.take(shim, 4)) as taken:
        listener.close()
        with socket.create_connection(taken.getsockname()[:2]), taken.accept()[0]:
            pass
    assert own_memory(shim.pid) <= MEMORY
    with socket.socket(fileno=daemon.take(shim, 4)) as again:
        assert again.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "it still holds it"
    assert daemon.stop(shim) == 0


@pytest.fixture
def bare(shim: Shim, daemon: Daemon) -> Iterator[tuple[Shim, Daemon, socket.socket]]:
    """A shim without a listening socket that has announced itself, and one of the daemon's."""
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=daemon.environment())
    eventually(daemon.announcements, "the shim announces itself")
    with listening(Protocol.TCP, "::1", port) as listener:
        yield shim, daemon, listener


def test_it_has_the_daemons_socket(bare: Waiting) -> None:
    """Who comes while no daemon lives waits in its queue."""
    shim, daemon, listener = bare
    before = open_files(shim.pid)
    address = listener.getsockname()[:2]
    daemon.serve(shim, listener)
    listener.close()
    with (
        socket.create_connection(address) as client,
        socket.socket(fileno=daemon.take(shim, 4)) as taken,
        taken.accept()[0] as accepted,
    ):
        assert accepted.getpeername() == client.getsockname()
    eventually(lambda: open_files(shim.pid) - before == {"4"}, "it has nothing else")
    assert daemon.stop(shim) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_it_gives_the_daemons_socket_up(bare: Waiting) -> None:
    """A relay in standalone mode has one of its own."""
    shim, daemon, listener = bare
    address = listener.getsockname()[:2]
    daemon.serve(shim, listener)
    listener.close()
    shim.send(signal.SIGUSR2)
    eventually(lambda: "ready: 1 forwards" in shim.log, "a relay")
    with socket.create_connection(address) as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert shim.stop() == 0


def test_the_daemon_is_gone_before_it_has_the_socket(bare: Waiting) -> None:
    shim, daemon, _ = bare
    with socket.socket() as nobody:
        daemon.serve(shim, nobody)
        number = nobody.fileno()
    assert not os.path.exists(f"/proc/self/fd/{number}")
    assert daemon.stop(shim) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("served", [True, False])
def test_stop(waiting: Waiting, served: bool, number: signal.Signals) -> None:
    shim, daemon, _ = waiting
    if served:
        daemon.serve(shim)
    assert daemon.stop(shim, number) == 0


def test_whatever_the_order(waiting: Waiting) -> None:
    """dockerd changes its mind while the daemon answers: all signals are there at once."""
    shim, daemon, _ = waiting
    expected = f"{shim.pid} {start_time(shim.pid)} stop\n"
    shim.send(signal.SIGSTOP)
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        shim.send(number)
    shim.send(signal.SIGCONT)
    assert shim.wait() == 0
    assert daemon.announcements() == expected


def test_signals_again_and_again_do_no_harm(waiting: Waiting) -> None:
    shim, daemon, _ = waiting
    daemon.serve(shim)
    for _ in range(3):
        shim.send(signal.SIGUSR1)
        (daemon.folder / "rest").write_text("somebody writes\n")
    assert daemon.stop(shim) == 0


@pytest.mark.parametrize("taken", [True, False])
def test_the_daemon_sends_it_away(waiting: Waiting, taken: bool) -> None:
    """SIGUSR2: it becomes a relay, whether it was served before or not."""
    shim, daemon, listener = waiting
    if taken:
        daemon.serve(shim)
    assert catches(shim, signal.SIGUSR1)
    shim.send(signal.SIGUSR2)
    if not taken:
        assert shim.all_status() == b"0\n"
    eventually(lambda: "ready: 1 forwards" in shim.log, "a relay")
    assert not catches(shim, signal.SIGUSR1)
    shim.send(signal.SIGUSR1)  # from a daemon that is late
    assert not {"5", "6"} & {fd for fd in open_files(shim.pid) if is_fifo(shim.pid, fd)}
    address = listener.getsockname()[:2]
    listener.close()
    with socket.create_connection(address) as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert shim.stop() == 0


def test_a_daemon_that_does_not_answer(shim: Shim, daemon: Daemon) -> None:
    port = free_port("::1")
    environment = daemon.environment(patience="0")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=environment)
    assert shim.all_status() == b"0\n"
    assert shim.stop() == 0


@pytest.mark.parametrize("taken", [True, False])
def test_stop_when_the_daemon_is_dead(waiting: Waiting, taken: bool) -> None:
    shim, daemon, _ = waiting
    if taken:
        daemon.serve(shim)
    daemon.dies()
    assert shim.stop() == 0


def test_stop_when_the_daemon_does_not_answer(shim: Shim, daemon: Daemon) -> None:
    """dockerd waits for as long as it takes."""
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=daemon.environment(patience="1"))
    eventually(daemon.announcements, "the shim announces itself")
    daemon.serve(shim)
    assert shim.stop() == 0


@pytest.mark.parametrize("trace", ["no reader", "no holder", "no such holder", "old", "no file"])
def test_what_a_dead_daemon_has_left(shim: Shim, daemon: Daemon, trace: str) -> None:
    """And what one says that has no holder for this machine."""
    if trace == "no reader":
        daemon.dies()
    if trace in ("no holder", "no such holder"):
        daemon.offers("-" if trace == "no holder" else str(daemon.folder / "holder"))
    if trace == "old":
        (daemon.folder / "daemon").write_text("1 1\n")
    if trace == "no file":
        (daemon.folder / "daemon").unlink()
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=daemon.environment())
    assert shim.all_status() == b"0\n"
    assert trace == "no reader" or daemon.announcements() == ""
    assert shim.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize("name", [".", "daemon"])
def test_a_folder_of_another_user(shim: Shim, daemon: Daemon, name: str) -> None:
    """What it names as the holder is not executed."""
    program, marker = daemon.folder / "program", daemon.folder / "executed"
    program.write_text(f"#!/bin/sh\n: >{marker}\n")
    program.chmod(0o755)
    daemon.offers(str(program))
    os.chown(daemon.folder / name, 65534, -1)
    port = free_port("::1")
    shim.proxy(Protocol.TCP, "::1", port, NOWHERE, environment=daemon.environment())
    assert shim.all_status() == b"0\n", "it falls back to standalone mode"
    assert not marker.exists()
    assert shim.stop() == 0


@pytest.mark.parametrize("fifo", ["shims", "rest"])
def test_a_folder_that_lacks_something(shim: Shim, daemon: Daemon, fifo: str) -> None:
    (daemon.folder / fifo).unlink()
    shim.proxy(Protocol.UDP, "::1", free_port("::1"), NOWHERE, environment=daemon.environment())
    assert shim.all_status() == b"0\n"
    assert shim.stop() == 0


def test_the_environment_means_nothing(shim: Shim, daemon: Daemon) -> None:
    """dockerd's variables that happen to have the names of ours."""
    names = ("stock", "python", "alone", "holder", "started", "proto", "value", "why")
    environment = {**daemon.environment(), **dict.fromkeys(names, "1")}
    shim.proxy(Protocol.TCP, "::1", free_port("::1"), NOWHERE, environment=environment)
    eventually(daemon.announcements, "the shim announces itself")
    assert not shim.has_answered()
    assert daemon.stop(shim) == 0
