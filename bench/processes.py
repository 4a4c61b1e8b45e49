"""CPU and memory of process trees, listening ports, and the end of a process group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

MB = 1_000_000
_SAMPLE_INTERVAL = 0.2
"""Seconds between two looks at memory: often enough for a peak, too seldom to disturb."""
TCP, UDP = "tcp", "udp"
_WAITING = {TCP: "0A", UDP: "07"}
"""States in /proc/net/: TCP_LISTEN, and that of a UDP socket that is not connected."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process tree used: CPU in seconds, memory in bytes at its peak."""

    cpu: float
    memory: int


def tree(roots: Collection[int]) -> list[psutil.Process]:
    """The processes of these ids and all that descend from them."""
    children: dict[int, list[psutil.Process]] = {}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid in roots:
                found.append(process)
            else:
                children.setdefault(process.ppid(), []).append(process)
    for process in found:  # grows while we walk it
        found += children.get(process.pid, [])
    return found


def cpu_seconds(roots: Collection[int]) -> float:
    """CPU time of a tree so far: of the processes that live, and of children that they waited for.

    Of a living thread the scheduler's own sum, to the nanosecond (schedstat). What has ended has
    none. The kernel adds its time up all the same, of threads for their process, of children for
    the parent that waited for them, but tells the sums in ticks (stat). So the ended children of
    a parent, however many, are counted 20 ms short at most; among the peers socat has such, a
    process a connection. A child that nobody waits for (SIGCHLD ignored) is not counted.
    """
    total = 0.0
    for process in tree(roots):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            living = scheduled_seconds(Path(f"/proc/{process.pid}/task"))
            # The ticks are a few ms behind, unless threads have ended.
            total += max(living, times.user + times.system)
            total += times.children_user + times.children_system
    return total


def scheduled_seconds(threads: Path) -> float:
    """CPU time of the threads in a process's task folder; of one that ends meanwhile, nothing."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in threads.iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def memory(roots: Collection[int]) -> int:
    """Resident bytes of a tree: what each process has alone, and what they share once.

    For one process that is its RSS. PSS would do the same within a tree, but shares the pages
    of a program with strangers too: v6fwd would look lighter because this suite is Python.
    """
    alone, shared = 0, 0
    for process in tree(roots):
        with contextlib.suppress(psutil.NoSuchProcess):
            info = process.memory_full_info()
            alone += info.uss
            shared = max(shared, info.rss - info.uss)
    return alone + shared


class Meter:
    """Measures a process tree while its `with` block runs; `usage` is there afterwards."""

    def __init__(self, roots: Collection[int]) -> None:
        self._roots = roots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._peak = 0
        self._cpu = 0.0
        self.usage = Usage(0.0, 0)

    def __enter__(self) -> Meter:
        self._look()
        self._cpu = cpu_seconds(self._roots)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        used = cpu_seconds(self._roots) - self._cpu
        self._stop.set()
        self._thread.join()
        self._look()
        self.usage = Usage(used, self._peak)

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_INTERVAL):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, memory(self._roots))


def listening_ports(pid: int, protocol: str = TCP) -> set[int]:
    """The ports somebody listens on in the network namespace of a process."""
    ports = set()
    for name in (protocol, f"{protocol}6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == _WAITING[protocol]:
                    ports.add(int(local.rpartition(":")[2], 16))
    return ports


def end(process: subprocess.Popen[Any], grace: float = 5.0) -> None:
    """End a process that leads a group of its own, and whoever else is in it."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    _close(stream for stream in (process.stdin, process.stdout, process.stderr) if stream)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _close(streams: Iterable[Any]) -> None:
    for stream in streams:
        with contextlib.suppress(OSError):
            stream.close()
