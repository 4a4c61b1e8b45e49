"""One measurement: one peer, one scenario, one round; with its processes, commands and files."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import installed
from bench.ground import Ground
from bench.processes import TCP, end, listening_ports

PROJECT = Path(__file__).resolve().parents[1]
HELPERS = PROJECT / "bench" / "helpers"
PATIENCE = 20.0
"""Seconds after which a process that should be ready counts as failed."""
LOAD_TIMEOUT = 60.0
"""Seconds that a load may take; all are sized for a few."""


class TrialError(Exception):
    """A measurement that gives no figures; the text is one line."""


class Trial:
    """Starts and runs things on the ground, writes down how, and ends them all in reverse."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground = ground
        self.folder = folder
        self.commands: list[str] = []
        self.configs: dict[str, str] = {}
        self._ends = contextlib.ExitStack()
        self._logs: dict[int, Path] = {}

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()

    def write(self, name: str, text: str) -> str:
        """Write a configuration file; gives its path."""
        self.configs[name] = self._plain(text)
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def start(self, host: str, *words: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a process on a host; what it says goes to a file, unless options say else."""
        self._note(host, words)
        log = self.folder / f"log-{len(self.commands)}"
        with log.open("wb") as file:
            settings: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": file,
                "stderr": file,
                # Its own group, so that its children end with it, and Ctrl-C reaches us alone.
                "start_new_session": True,
            }
            command = self.ground.command(host, words)
            process: subprocess.Popen[Any] = subprocess.Popen(command, **settings | options)
        self._logs[process.pid] = log
        self._ends.callback(end, process)
        return process

    def run(self, host: str, *words: str, timeout: float = LOAD_TIMEOUT) -> str:
        """Run a command on a host to its end; gives its standard output. Raises TrialError."""
        self._note(host, words)
        command = self.ground.command(host, words)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TrialError(f"{_name(words)} took more than {timeout:.0f} s") from None
        finally:
            end(process)
        if process.returncode:
            raise TrialError(f"{_name(words)}: {_last_line(errors) or _last_line(output)}")
        return output

    def helper(self, host: str, name: str, *words: str, **options: Any) -> subprocess.Popen[Any]:
        """Start one of our helpers on a host."""
        return self.start(host, *helper_command(name), *words, **options)

    def wait(self, process: subprocess.Popen[Any], ready: Callable[[], object], what: str) -> None:
        """Wait until a process is ready. Raises TrialError if it ends or takes too long."""
        until = time.monotonic() + PATIENCE
        while not ready():
            if process.poll() is not None:
                raise TrialError(f"{what} ended: {_last_line(self.log(process))}")
            if time.monotonic() > until:
                raise TrialError(f"{what} was not ready in {PATIENCE:.0f} s")
            time.sleep(0.01)  # seldom enough not to compete with what starts

    def wait_for_ports(
        self,
        process: subprocess.Popen[Any],
        ports: Iterable[int],
        what: str,
        protocol: str = TCP,
    ) -> None:
        """Wait until a process, or another in its network namespace, listens on these ports."""
        wanted = set(ports)
        self.wait(process, lambda: wanted <= listening_ports(process.pid, protocol), what)

    def log(self, process: subprocess.Popen[Any]) -> str:
        """What a process has said so far."""
        return self._logs[process.pid].read_text(errors="replace")

    def _note(self, host: str, words: Iterable[str]) -> None:
        self.commands.append(f"{host}$ {self._plain(shlex.join(words))}")

    def _plain(self, text: str) -> str:
        """Without the names of this machine's folders."""
        text = text.replace(str(self.folder), "DIR").replace(sys.executable, "python")
        text = text.replace(installed.program(), "v6fwd")
        return text.replace(f"{PROJECT}/", "")


def helper_command(name: str) -> tuple[str, ...]:
    """The command of one of our helpers; -P: its folder shall not shadow anybody's modules."""
    return (sys.executable, "-P", str(HELPERS / f"{name}.py"))


def _name(words: Sequence[str]) -> str:
    """What people call a command: the program, or the helper."""
    return Path(words[2]).stem if words[0] == sys.executable else words[0]


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no word why"
