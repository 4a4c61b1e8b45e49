"""For tests of `v6fwd serve --docker` beside a real Engine, in its host's namespace."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.support.daemon import ServeProcess
from tests.support.engine import Engine
from tests.support.paths import ROOT

UNIT = ROOT / "contrib" / "systemd" / "v6fwd-docker.service"


def as_the_service() -> list[str]:
    """A prefix that leaves a command those of root's powers that the unit leaves it."""
    words = " ".join(re.findall("^CapabilityBoundingSet=(.*)", UNIT.read_text(), re.MULTILINE))
    kept = [f"+{name.removeprefix('CAP_').lower()}" for name in words.split()]
    return ["setpriv", "--no-new-privs", "--bounding-set", ",".join(["-all", *kept])]


class Served:
    """The daemon of one engine; it may be killed and started again."""

    def __init__(self, engine: Engine, programs: Path | None = None) -> None:
        """`programs`: a folder whose programs the daemon and dockerd call in place of others."""
        self.engine = engine
        path = engine.environment["PATH"]
        self._path = f"{programs}:{path}" if programs else path
        self.run_folder = engine.folder / "run-v6fwd"
        self._base = engine.folder / "serve"
        self._base.mkdir()
        self.pseudo_store = self._base / "pseudo-ipv4.sqlite"
        self._count = 0
        self._processes: list[ServeProcess] = []

    @property
    def process(self) -> ServeProcess:
        """The latest one."""
        return self._processes[-1]

    def start(self, more: str = "") -> ServeProcess:
        """Run one more; it takes over from the one before, if that lives."""
        self._count += 1
        process = ServeProcess(self._base, f"serve-{self._count}")
        docker = f'host = "unix://{self.engine.socket}"\npseudo-store = "{self.pseudo_store}"'
        process.configure(more=f"[docker]\n{docker}\n{more}")
        folder = f"V6FWD_RUN_DIR={self.run_folder}"
        path = f"PATH={self._path}"
        prefix = self.engine.lab.command(self.engine.host, *as_the_service(), "env", folder, path)
        self._processes.append(process)
        process.start("-c", str(process.config), "--docker", prefix=prefix)
        return process

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the latest one."""
        self.process.signal(number)
        self.process.wait()

    def end(self) -> None:
        """Make sure that all have ended."""
        for process in self._processes:
            process.end()

    def modes(self) -> dict[str, str]:
        """The mode of each forward."""
        forwards = self.process.status()["forwards"]
        return {each["listen"]: each["client_ip"] for each in forwards if each["state"] == "open"}

    def environment(self) -> dict[str, str]:
        """How shims find it, and dockerd its programs."""
        return {"V6FWD_RUN_DIR": str(self.run_folder), "PATH": self._path}

    @property
    def log(self) -> str:
        """What all of them have said."""
        return "".join(process.log for process in self._processes)
