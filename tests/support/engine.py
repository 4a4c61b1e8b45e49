"""For tests with a real Docker Engine, on a lab's host with folders and cgroups of its own.

It lives in the network namespace `host` and in a mount namespace that ip-netns(8) makes, so its
bridge, its firewall rules and its mounts go when the last of its processes does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.process import eventually
from v6fwd.demo.lab import BRIDGE_V4, Lab, stop

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "v6fwd"
ENGINES: dict[str, Path] = {"20.10": Path("/"), "28": CACHE / "engine-28"}
"""The folder of each engine: Debian's own, and what scripts/install-engine unpacks."""
PATIENCE = 60.0


class Engine:
    """dockerd with the containerd that it starts; it may be stopped and started again."""

    def __init__(
        self, lab: Lab, folder: Path, root: Path, host: str = "host", **settings: Any
    ) -> None:
        """`host` is the lab's host that it runs on."""
        self.lab = lab
        self.host = host
        self.folder = folder
        self.socket = folder / "docker.sock"
        self._root = root
        self._process: subprocess.Popen[Any] | None = None
        self._ground: subprocess.Popen[Any] | None = None
        config = {
            "data-root": str(folder / "data"),
            "exec-root": str(folder / "run"),
            "pidfile": str(folder / "docker.pid"),
            "hosts": [f"unix://{self.socket}"],
            "bip": f"{BRIDGE_V4}/16",
            "fixed-cidr": "172.17.0.0/24",
            "shutdown-timeout": 1,
        }
        self.config = folder / "daemon.json"
        self.config.write_text(json.dumps(config | settings))

    @property
    def ground(self) -> int:
        """The process whose mounts it has, after its first start."""
        assert self._ground is not None
        return self._ground.pid

    @property
    def log(self) -> str:
        """What dockerd has said."""
        return (self.folder / "dockerd.log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        """With its own programs first; of runc there is one for all."""
        path = ":".join(f"{self._root}/usr/{name}".replace("//", "/") for name in ("sbin", "bin"))
        return {
            **os.environ,
            "PATH": f"{path}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.folder),
        }

    def start(self, **environment: str) -> None:
        """Run it; returns when it answers."""
        if self._ground is None:
            self._ground = self._hold_mounts()
        enter = ("nsenter", "--target", str(self._ground.pid), "--mount")
        with (self.folder / "dockerd.log").open("ab") as log:
            process = self.lab.start(
                self.host, *enter, "dockerd", "--config-file", str(self.config),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment | environment,
            )  # fmt: skip
        self._process = process
        eventually(
            lambda: process.poll() is not None or self._answers(), "the engine answers", PATIENCE
        )
        assert process.poll() is None, self.log[-4000:]

    def is_running(self) -> bool:
        """Whether dockerd lives."""
        return self._process is not None and self._process.poll() is None

    def _hold_mounts(self) -> subprocess.Popen[Any]:
        """A process whose mounts an engine finds again when it starts a second time."""
        script = "mount -t cgroup2 none /sys/fs/cgroup && echo ready && exec sleep infinity"
        holder = self.lab.start(self.host, "sh", "-c", script, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        return holder

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Let it end, and its containers unless they are to live on."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """It says nothing to anybody, and does nothing, as long as the block runs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def docker(self, *words: str, **options: Any) -> str:
        """Run the client; gives its output. Raises AssertionError with what it said."""
        done = self.try_docker(*words, **options)
        assert done.returncode == 0, f"docker {words[0]}: {done.stderr}\n{self.log[-3000:]}"
        return str(done.stdout).strip()

    def try_docker(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the client, whatever comes of it."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}
        command = ["docker", *words]
        settings = settings | {"env": self.environment} | options
        return subprocess.run(command, check=False, **settings)

    def version(self) -> str:
        """The server's."""
        return self.docker("version", "--format", "{{.Server.Version}}")

    def run(self, *words: str) -> str:
        """`docker run --detach WORDS`; gives the container's id."""
        return self.docker("run", "--detach", *words)

    def remove(self, *containers: str) -> None:
        """Kill and remove containers."""
        self.docker("rm", "--force", *containers)

    def processes(self) -> list[int]:
        """All processes that see the network of its host, itself included."""
        network = Path("/run/netns", self.lab.namespace(self.host)).stat().st_ino
        return [pid for pid in _pids() if _network(pid) == network]

    def proxies(self) -> list[tuple[int, list[str]]]:
        """The processes that serve published ports, as id and command line."""
        found = []
        for pid in self.processes():
            words = _words(pid)
            if "-container-ip" in words:
                found.append((pid, words))
        return found

    def listeners(self) -> set[str]:
        """`tcp [::]:8080` for each socket on the host that takes clients."""
        listed = self.lab.run(self.host, "ss", "-Htuln")
        listed.check_returncode()
        lines = (line.split() for line in listed.stdout.splitlines())
        return {f"{words[0]} {words[4]}" for words in lines}

    def end(self) -> None:
        """End it and whatever it has left: containers of a live-restore, shims, containerd."""
        for process in (self._process, self._ground):
            if process is not None:
                stop(process, grace=10)
        for _ in range(20):  # a process that ends may leave a child to us
            pids = self._left()
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _left(self) -> list[int]:
        """The processes on its host, and those of its containers: children of its containerd."""
        mine = str(self.folder)
        own = [pid for pid in _pids() if any(mine in word for word in _words(pid))]
        shims = [pid for pid in own if "containerd-shim" in _words(pid)[0]]
        inside = [pid for pid in _pids() if _parent(pid) in shims]
        return sorted({*self.processes(), *own, *inside} - {os.getpid()})

    def _answers(self) -> bool:
        return self.socket.exists() and self.try_docker("info").returncode == 0


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _network(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return 0


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return [""]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextlib.contextmanager
def engine_lab() -> Iterator[Lab]:
    """The lab without its container, whose place the engine's take."""
    with Lab() as lab:
        lab.ip("host", "link", "delete", "veth0")
        yield lab
