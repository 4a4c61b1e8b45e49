"""For tests of `v6fwd forward` as a process: start, wait for, measure, stop."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 20.0
"""Seconds after which something that should have happened counts as not happening."""
SLOWNESS = float(os.environ.get("V6FWD_TESTS_SLOWNESS", "1"))
"""How many times slower the machine is than those that patience was chosen for."""
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def eventually(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until `condition()` is true; asks often, fails with `what`.

    On a slow machine it leaves the processor to what it waits for four fifths of the time.
    """
    asked = time.monotonic()
    until = asked + patience * SLOWNESS
    while not condition():
        took = time.monotonic() - asked
        if asked + took > until:
            raise AssertionError(f"in {patience * SLOWNESS} s it did not happen: {what}")
        time.sleep(max(0.005, 4 * took if SLOWNESS > 1 else 0))
        asked = time.monotonic()


def free_port(host: str = "::") -> int:
    """A port that nobody has now, of TCP or UDP.

    Below those that the kernel hands out (ip_local_port_range): while a program starts, no
    socket that is bound or connected without a port gets it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.randrange(10_000, 32_000)
        with (
            socket.socket(family) as tcp,
            socket.socket(family, socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind((host, port))
            udp.bind((host, port))
            return port


def without_stamps(log: str) -> str:
    """The texts of a log that was written to a file."""
    return re.sub(r"^[0-9-]{10} [0-9:]{8} (info|warning|error): ", "", log, flags=re.MULTILINE)


def heeding_signals(then: Callable[[], object] | None = None) -> Callable[[], object] | None:
    """What a program runs before it is executed, so that it hears what the tests send.

    Whoever runs these by nohup(1), or in the background of a shell, lets signals be ignored, and
    programs inherit that. `then` is run behind it.
    """
    ignored = [each for each in _ENDING if signal.getsignal(each) is signal.SIG_IGN]

    def prepare() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_DFL)
        if then is not None:
            then()

    return prepare if ignored else then  # without any, fork(2) is not needed


class ForwardProcess:
    """One `v6fwd forward`; its log goes to a file, so that nothing waits for a reader."""

    command = "forward"

    def __init__(self, folder: Path) -> None:
        self._log = folder / "stderr.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *words: str,
        prefix: Sequence[str] = (),
        ready: bool = True,
        preexec: Callable[[], object] | None = None,
    ) -> None:
        """Run `v6fwd COMMAND WORDS` behind `prefix`, and wait until it is ready."""
        command = [*prefix, sys.executable, "-m", "v6fwd", self.command, *words]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stderr=log,
                stdout=subprocess.DEVNULL,
                preexec_fn=heeding_signals(preexec),
            )
        if ready:
            eventually(lambda: "ready: " in self.log or self._exited(), "ready")
            assert "ready: " in self.log, self.log

    @property
    def log(self) -> str:
        """All that it has logged so far, without the time and level of each line."""
        return without_stamps(self._log.read_text()) if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of v6fwd itself, behind `ip netns exec` too, which execs it."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        return self._process.wait(patience)

    def descriptors(self) -> int:
        """How many descriptors it holds."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Bytes of memory that are its own now (RssAnon)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def cpu_seconds(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and not self._exited():
            self._process.kill()
            self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and has not ended."""
        return self._process is not None and not self._exited()

    def _exited(self) -> bool:
        return self._process is not None and self._process.poll() is not None


def failing(call: str, error: str, when: str) -> list[str]:
    """strace in front of the program; -D keeps the program's own process id."""
    calls = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
    return ["strace", "-D", "-f", "-qq", "-o", os.devnull, *calls]
