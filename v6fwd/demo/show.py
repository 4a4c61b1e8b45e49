"""The demo: one request without and one with the client's address, and what the target logs.

Target, `v6fwd forward` and client are separate processes. They run in the lab's namespaces as
root, otherwise on loopback.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

from v6fwd.demo import lab as lab_network
from v6fwd.demo.lab import Lab, lab_obstacle, stop
from v6fwd.model import ClientIP

MODES = (ClientIP.NONE, ClientIP.PROXY_V2)
_PATIENCE = 20.0


class DemoError(Exception):
    """The demo failed; the text is one line."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the target logged for a request in one mode."""

    mode: ClientIP
    line: str
    client: str

    @property
    def kept(self) -> bool:
        """Whether the line names the client."""
        return self.line.startswith(f"{self.client} ")


class Place(Protocol):
    """Where the processes run."""

    words: str
    client: str
    target_host: str
    dial_host: str

    def start(self, host: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a Python module on `host`."""


class InLab:
    """The three hosts of the lab network."""

    words = "in network namespaces: client, host and IPv4-only container"
    client = lab_network.CLIENT_V6
    target_host = lab_network.CONTAINER_V4
    dial_host = lab_network.HOST_V6

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def start(self, host: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        return self._lab.start(host, sys.executable, "-m", *words, text=True, **options)


class OnLoopback:
    """One host: the client is ::1, the target is on 127.0.0.1."""

    client = "::1"
    target_host = "127.0.0.1"
    dial_host = "::1"

    def __init__(self, why: str) -> None:
        self.words = f"on loopback ({why}): the client is ::1"
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, host: str, *words: str, **options: Any) -> subprocess.Popen[str]:  # noqa: ARG002
        command = [sys.executable, "-m", *words]
        process: subprocess.Popen[str] = subprocess.Popen(command, text=True, **options)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            stop(process)


@contextlib.contextmanager
def find_place() -> Iterator[Place]:
    """The lab if permissions allow it, else loopback."""
    why = lab_obstacle()
    if why is None:
        with Lab() as lab:
            yield InLab(lab)
    else:
        with contextlib.closing(OnLoopback(why)) as loopback:
            yield loopback


def show(place: Place, mode: ClientIP) -> Shown:
    """Send one request through a forward with `mode`. Raises DemoError."""
    reads_proxy = ["--proxy"] if mode is not ClientIP.NONE else []
    target = place.start("container", "v6fwd.demo.target", place.target_host, "0", *reads_proxy,
                         stdout=subprocess.PIPE)  # fmt: skip
    target_lines = _Lines(target.stdout)
    target_port = target_lines.next("the target did not start").removeprefix("listening ")
    port = str(_free_port())
    forward = place.start("host", "v6fwd", "forward", f"[::]:{port}",
                          f"{place.target_host}:{target_port}", "--client-ip", mode,
                          stderr=subprocess.PIPE)  # fmt: skip
    ready = _Lines(forward.stderr).next("v6fwd did not start")
    if not ready.startswith("ready: "):
        raise DemoError(ready)
    client = place.start("client", "v6fwd.demo.client", place.dial_host, port)
    if client.wait(_PATIENCE):
        raise DemoError("the client got no answer")
    line = target_lines.next("the target logged nothing")
    stop(forward)
    stop(target)
    return Shown(mode, line, place.client)


def _free_port() -> int:
    """A port that is free on this host, and most likely on the lab's host too."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::", 0))
        return int(sock.getsockname()[1])


class _Lines:
    """Lines of a pipe, each with a time limit."""

    def __init__(self, pipe: IO[str] | None) -> None:
        assert pipe is not None
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # closed by `stop` meanwhile
            for line in pipe:
                self._queue.put(line.rstrip("\n"))
        self._queue.put("")

    def next(self, otherwise: str) -> str:
        """The next line. Raises DemoError(`otherwise`) if none comes in time."""
        try:
            line = self._queue.get(timeout=_PATIENCE)
        except queue.Empty:
            line = ""
        if not line:
            raise DemoError(otherwise)
        return line
