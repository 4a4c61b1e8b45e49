"""For tests of the shim as dockerd starts it: descriptor 3 is the status pipe, 4 the listener."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path

import v6fwd.docker.shim
from tests.support.process import PATIENCE, eventually, without_stamps
from v6fwd.model import Protocol

SOURCE = Path(v6fwd.docker.shim.__file__).with_name("v6fwd-docker-proxy")
SHELLS = {"dash": ("dash",), "busybox": ("busybox", "sh")}
_ABOVE = 10  # descriptors that the test itself must not lose when 3 and 4 are laid


def install(folder: Path) -> Path:
    """The shim beside `v6fwd`, as an installation has it."""
    path = folder / SOURCE.name
    shutil.copy(SOURCE, path)
    (folder / "v6fwd").symlink_to(Path(sys.executable).with_name("v6fwd"))
    return path


class Shim:
    """One process, from its start to its exit."""

    def __init__(self, path: Path, shell: str) -> None:
        self.command = [*SHELLS[shell], str(path)]
        self._log = path.with_name("stderr.log")
        self._status = -1
        self._exit: int | None = None
        self.pid = 0

    def start(
        self,
        *flags: str,
        listener: socket.socket | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Run it with the flags, and with a listening socket if there is one."""
        command = [*self.command, *flags, *["-use-listen-fd"] * (listener is not None)]
        program = shutil.which(command[0])
        assert program is not None
        self._status, theirs = (_moved(fd) for fd in os.pipe())
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
        log = (
            os.POSIX_SPAWN_OPEN,
            2,
            str(self._log),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
            0o600,
        )
        actions = [*null, log, (os.POSIX_SPAWN_DUP2, theirs, 3)]
        if listener is not None:
            actions.append((os.POSIX_SPAWN_DUP2, listener.fileno(), 4))
        surroundings = {**os.environ, "V6FWD_RUN_DIR": "/nonexistent", **(environment or {})}
        self.pid = os.posix_spawn(program, command, surroundings, file_actions=actions)
        os.close(theirs)

    def proxy(
        self,
        protocol: Protocol,
        host: str,
        port: int,
        target: tuple[str, int],
        *,
        listener: socket.socket | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Run it with the flags of one forward."""
        words = ("-proto", protocol, "-host-ip", host, "-host-port", str(port))
        more = ("-container-ip", target[0], "-container-port", str(target[1]))
        self.start(*words, *more, listener=listener, environment=environment)

    @property
    def log(self) -> str:
        """What it has written to stderr, without the time and level of each line."""
        return without_stamps(self._log.read_text())

    def status(self, size: int = 2) -> bytes:
        """What one read(2) of the status pipe gives, as dockerd calls it; waits for it."""
        ready, _, _ = select.select([self._status], [], [], PATIENCE)
        assert ready, "no status"
        return os.read(self._status, size)

    def all_status(self) -> bytes:
        """What the status pipe gives until its end."""
        return b"".join(iter(lambda: self.status(4096), b""))

    def has_answered(self) -> bool:
        """Whether there is a status to read."""
        return bool(select.select([self._status], [], [], 0)[0])

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def exited(self) -> bool:
        """Whether it has ended."""
        if self._exit is None and self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit = os.waitstatus_to_exitcode(status)
        return self._exit is not None

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        eventually(self.exited, "the shim ends")
        assert self._exit is not None
        return self._exit

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it as dockerd does; gives its exit status."""
        self.send(number)
        return self.wait()

    def children(self) -> list[int]:
        """The processes that it has started."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def end(self) -> None:
        """Make sure that it is gone, and what it has started."""
        if self.pid and not self.exited():
            for pid in self.children():
                os.kill(pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        if self._status >= 0:
            os.close(self._status)


def _moved(fd: int) -> int:
    """The same pipe with a number that is out of the way, and that no child inherits."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    os.close(fd)
    return moved


def listening(
    protocol: Protocol, host: str, port: int = 0, *, dual_stack: bool = False
) -> socket.socket:
    """A socket as dockerd hands it over: bound and blocking, TCP listening already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
    sock.bind((host, port))
    if protocol is Protocol.TCP:
        sock.listen()
    moved = socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, _ABOVE))
    sock.close()
    return moved
