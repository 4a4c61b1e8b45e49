"""For tests of `v6fwd serve` as a process, with a configuration of the test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.support.process import ForwardProcess, eventually
from v6fwd.cli import main
from v6fwd.daemon.ask import ask


class ServeProcess(ForwardProcess):
    """One `v6fwd serve`; several may share a configuration, and take over from each other."""

    command = "serve"

    def __init__(self, folder: Path, name: str = "serve") -> None:
        inner = folder / name
        inner.mkdir()
        super().__init__(inner)
        self.config = folder / "v6fwd.toml"
        self.control = folder / "control.sock"

    def configure(self, *pairs: tuple[str, str], workers: int = 2, more: str = "") -> None:
        """Write a configuration that forwards each LISTEN to its TARGET; `more` stands above."""
        lines = [f"workers = {workers}", more, "[control]", f'socket = "{self.control}"']
        for listen, target in pairs:
            lines += ["[[forward]]", f'listen = "{listen}"', f'target = "{target}"']
        self.config.write_text("\n".join(lines))

    def run(
        self, *, prefix: Sequence[str] = (), preexec: Callable[[], object] | None = None
    ) -> None:
        """Start, and wait until it is ready."""
        self.start("-c", str(self.config), prefix=prefix, preexec=preexec)

    def workers(self) -> list[int]:
        """The process ids of the workers that live."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def status(self) -> dict[str, Any]:
        """What `v6fwd status --json` says."""
        (answer,) = ask(str(self.control), {"do": "status"})
        return answer

    def flows(self) -> list[dict[str, Any]]:
        """What `v6fwd flows --json` says."""
        parts = ask(str(self.control), {"do": "flows"})
        return [flow for part in parts for flow in part.get("flows", ())]

    def reload(self) -> None:
        """Reload, which must go well."""
        list(ask(str(self.control), {"do": "reload"}))

    def command_line(self, *words: str) -> Result:
        """Run a command that asks this daemon."""
        return CliRunner().invoke(main, [*words, "--socket", str(self.control)])

    def kill_worker(self, pid: int) -> None:
        """Kill a worker, and wait for another one in its place."""
        before = set(self.workers())
        os.kill(pid, signal.SIGKILL)
        eventually(
            lambda: len(set(self.workers()) - before) == 1,
            "another worker in the killed one's place",
        )

    def end(self) -> None:
        """Make sure that it is gone, with its workers: the second signal leaves them no time."""
        for _ in range(10):
            if not self.is_running:
                return
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(0.5)
        super().end()

    def forward(self, listen: str) -> dict[str, Any]:
        """What `status` says about one forward."""
        (found,) = (each for each in self.status()["forwards"] if each["listen"] == listen)
        return dict(found)
