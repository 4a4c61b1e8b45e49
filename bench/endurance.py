"""`python -m bench.endurance [--seconds N] [--json FILE]`: what operators may rely on in `serve`.

1. 500 forwards in one daemon: time to start, memory in all, and a reload beside 500 live flows.
2. Steady load, while in turn the daemon is reloaded, loses a worker, is upgraded, runs out of
   descriptors, and its target is restarted. Short flows come and go; long ones stay, and every
   byte of both is compared.

Everything happens on loopback, with free ports, bounded in count and time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import scheduled_seconds
from v6fwd.daemon.ask import ask

FORWARDS = 500
SHORT, LONG = 24, 40
"""Clients at once that come and go, and that stay."""
PIECE = 2048
PATIENCE = 30.0
FEW = 6
"""Descriptors more than it has that a worker may have while it is short of them."""


@dataclass
class Tally:
    """What became of clients."""

    words: Counter[str] = field(default_factory=Counter)
    broken: list[int] = field(default_factory=list)
    """Own port of each client whose connection broke, in that order."""
    slowest: float = 0.0

    def copy(self) -> Counter[str]:
        """As it is now."""
        return Counter(self.words)


class Clients:
    """Short and long flows, on the running loop, until `stop`."""

    def __init__(self, port: int, tally: Tally, think: float) -> None:
        self._port = port
        self._tally = tally
        self._think = think
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, short: int, long: int) -> None:
        """Let them come."""
        create = asyncio.get_running_loop().create_task
        self._tasks += [create(self._again(self._short)) for _ in range(short)]
        self._tasks += [create(self._again(self._long)) for _ in range(long)]

    async def stop(self) -> None:
        """Let them finish."""
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _again(self, visit: Callable[[socket.socket], Any]) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop:
            with socket.socket(socket.AF_INET6) as sock:
                sock.setblocking(False)
                began = loop.time()
                try:
                    async with asyncio.timeout(PATIENCE):
                        await loop.sock_connect(sock, ("::1", self._port))
                    word = await visit(sock)
                except ConnectionRefusedError:
                    word = "refused"
                except TimeoutError:
                    word = "left waiting"
                except OSError:
                    word = "reset"
                if word in ("reset", "cut"):
                    self._tally.broken.append(_own_port(sock))
                if visit == self._short:
                    self._tally.slowest = max(self._tally.slowest, loop.time() - began)
                self._tally.words[word] += 1
            await asyncio.sleep(self._think)

    async def _short(self, sock: socket.socket) -> str:
        """One piece there and back."""
        word = await self._exchange(sock)
        return word if word != "same" else "served"

    async def _long(self, sock: socket.socket) -> str:
        """A piece every while, for some seconds: shorter than a drain, longer than an event."""
        until = time.monotonic() + random.uniform(5, 12)
        while not self._stop and time.monotonic() < until:
            word = await self._exchange(sock)
            if word != "same":
                return word
            await asyncio.sleep(0.05)
        return "stayed"

    @staticmethod
    async def _exchange(sock: socket.socket) -> str:
        loop = asyncio.get_running_loop()
        piece, answer = random.randbytes(PIECE), b""
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(sock, piece)
            while len(answer) < PIECE:
                data = await loop.sock_recv(sock, PIECE)
                if not data:
                    break
                answer += data
        if answer == piece:
            return "same"
        return "cut" if piece.startswith(answer) else "corrupted"


def _own_port(sock: socket.socket) -> int:
    with contextlib.suppress(OSError):
        return int(sock.getsockname()[1])
    return 0


class Daemon:
    """A `v6fwd serve` of ours; its successors share folder and configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "v6fwd.toml"
        self.control = folder / "control.sock"
        self._generation = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "stderr.0"

    def configure(self, pairs: Sequence[tuple[str, str]], connect_timeout: int = 5) -> None:
        """Write the configuration."""
        lines = ["workers = 2", "[control]", f'socket = "{self.control}"']
        lines += ["[defaults]", f"connect-timeout = {connect_timeout}"]
        for listen, target in pairs:
            lines += ["[[forward]]", f'listen = "{listen}"', f'target = "{target}"']
        self.config.write_text("\n".join(lines))

    async def start(self) -> float:
        """Start a daemon, or a successor; gives the seconds until it was ready."""
        self._generation += 1
        self.log = self.folder / f"stderr.{self._generation}"
        command = [sys.executable, "-m", "v6fwd", "serve", "-c", str(self.config)]
        began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)  # noqa: ASYNC220 - 1 ms
        while "ready: " not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > began + PATIENCE:
                raise RuntimeError(f"serve is not ready: {self.log.read_text()}")
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def ask(self, do: str) -> list[dict[str, Any]]:
        """Ask it."""
        return await asyncio.to_thread(lambda: list(ask(str(self.control), {"do": do})))

    async def workers(self) -> list[int]:
        """Process ids."""
        (status,) = await self.ask("status")
        return [worker["pid"] for worker in status["workers"]]

    async def processes(self) -> list[int]:
        """The supervisor's and the workers' ids."""
        assert self.process is not None
        return [self.process.pid, *await self.workers()]

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process is not None and self.process.poll() is None:
            for _ in range(2):
                self.process.terminate()
                time.sleep(0.2)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def echo_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The target; restart it with `start_echo`."""
    process = start_echo(port)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start_echo(port: int) -> subprocess.Popen[bytes]:
    """Wait until it listens."""
    command = [sys.executable, "-m", "bench.helpers.echo", "127.0.0.1", str(port)]
    process = subprocess.Popen(command)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process
        time.sleep(0.01)
    raise RuntimeError("the echo server does not listen")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to clients."""
    found: list[int] = []
    for port in random.sample(range(10_000, 32_000), 20_000):
        with socket.socket(socket.AF_INET6) as sock, contextlib.suppress(OSError):
            sock.bind(("::", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} ports are free")


def proportional_set_size(pids: Sequence[int]) -> float:
    """Megabytes of all of them, shared pages counted once."""
    total = 0
    for pid in pids:
        found = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
        total += int(found[1]) if found else 0
    return total / 1024


def cpu_seconds(pids: Sequence[int]) -> float:
    """Used so far by the threads that these processes have now."""
    return sum(scheduled_seconds(Path(f"/proc/{pid}/task")) for pid in pids)


def descriptors(pid: int) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


# -- many forwards --


async def many_forwards(folder: Path) -> dict[str, Any]:
    """500 forwards: start, memory, a reload beside as many flows."""
    target, *ports = free_ports(FORWARDS + 2)
    spare = ports.pop()
    pairs = [(f"[::1]:{port}", f"127.0.0.1:{target}") for port in ports]
    daemon = Daemon(folder)
    daemon.configure(pairs)
    with echo_server(target):
        try:
            ready = await daemon.start()
            pids = await daemon.processes()
            cpu = cpu_seconds(pids)
            idle = proportional_set_size(pids)
            flows = [_Held(port) for port in ports]
            for flow in flows:
                flow.exchange()
            loaded = proportional_set_size(pids)
            daemon.configure([*pairs[:-1], (f"[::1]:{spare}", pairs[0][1])])
            began = time.monotonic()
            await daemon.ask("reload")
            reload = time.monotonic() - began
            disturbed = sum(not flow.lives() for flow in flows)
            for flow in flows:
                flow.sock.close()
        finally:
            daemon.stop()
    return {
        "forwards": FORWARDS,
        "ready_s": round(ready, 3),
        "cpu_until_ready_s": cpu,
        "pss_mb": round(idle, 1),
        "pss_with_500_flows_mb": round(loaded, 1),
        "reload_s": round(reload, 3),
        "flows_disturbed_by_reload": disturbed,
    }


class _Held:
    """A flow that is held open."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("::1", port), PATIENCE)

    def exchange(self) -> None:
        """A piece there and back."""
        piece, answer = random.randbytes(100), b""
        self.sock.sendall(piece)
        while len(answer) < len(piece):
            data = self.sock.recv(100)
            if not data:
                raise ConnectionResetError
            answer += data
        if answer != piece:
            raise RuntimeError("corrupted")

    def lives(self) -> bool:
        """Whether bytes still pass."""
        try:
            self.exchange()
        except OSError:
            return False
        return True


# -- steady load --


class Ordeal:
    """One daemon under load, and what is done to it."""

    def __init__(self, folder: Path) -> None:
        self.target, self.port, self.other = free_ports(3)
        self.daemon = Daemon(folder)
        self.tally = Tally()
        self.left: list[subprocess.Popen[bytes]] = []
        self.innocent: Counter[str] = Counter()
        """Flows that broke and had no reason to, by what was going on."""
        self.guilty: Counter[str] = Counter()
        """Those of a killed worker, and those that found no target."""
        self.counts: Counter[str] = Counter()
        self._echo: subprocess.Popen[bytes] | None = None

    def pairs(self, count: int) -> list[tuple[str, str]]:
        """One forward, or two."""
        ports = (self.port, self.other)[:count]
        return [(f"[::]:{port}", f"127.0.0.1:{self.target}") for port in ports]

    async def run(self, seconds: float) -> dict[str, Any]:
        """The whole of it."""
        self._echo = start_echo(self.target)
        self.daemon.configure(self.pairs(1))
        try:
            await self.daemon.start()
            clients = Clients(self.port, self.tally, think=0.01)
            clients.begin(SHORT, LONG)
            until = time.monotonic() + seconds
            await asyncio.sleep(2)
            events = [self.reload, self.kill, self.upgrade, self.exhaust, self.restart_target]
            if not await self._may_exhaust():
                print("left out: descriptors, without CAP_SYS_RESOURCE", file=sys.stderr)
                events.remove(self.exhaust)
            while time.monotonic() < until:
                for event in events:
                    await self._watch(event)
            await clients.stop()
            leaked = await self._leaked()
        finally:
            for process in (*self.left, self._echo):
                process.kill()
                process.wait()
            self.daemon.stop()
        return {
            "seconds": seconds,
            "events": dict(self.counts),
            "clients": dict(self.tally.words),
            "cut_without_reason": dict(self.innocent),
            "cut_with_their_worker_or_target": dict(self.guilty),
            "slowest_short_flow_s": round(self.tally.slowest, 3),
            "leaked_descriptors": leaked,
        }

    async def _watch(self, event: Callable[[], Any]) -> None:
        """Do it, let it settle, and account for every flow that broke meanwhile."""
        name = event.__name__.replace("_", " ")
        before = len(self.tally.broken)
        has_reason: Callable[[int], bool] = await event()
        await asyncio.sleep(1.5)
        self.counts[name] += 1
        for port in self.tally.broken[before:]:
            (self.guilty if has_reason(port) else self.innocent)[name] += 1

    async def reload(self) -> Callable[[int], bool]:
        """A second forward comes or goes, and the limits of the first change."""
        number = self.counts["reload"]
        self.daemon.configure(self.pairs(1 + number % 2), connect_timeout=3 + number % 3)
        await self.daemon.ask("reload")
        return _never

    async def kill(self) -> Callable[[int], bool]:
        """A worker. Whoever was with another one has no reason to break."""
        victim = (await self.daemon.workers())[0]
        flows = [flow for part in await self.daemon.ask("flows") for flow in part.get("flows", ())]
        others = {flow["client_port"] for flow in flows if flow["worker"] != victim}
        os.kill(victim, signal.SIGKILL)
        return lambda port: port not in others

    async def upgrade(self) -> Callable[[int], bool]:
        """Another daemon takes over; long flows stay with the old one while it drains."""
        old = self.daemon.process
        assert old is not None
        self.left.append(old)
        await self.daemon.start()
        return _never

    async def _may_exhaust(self) -> bool:
        """Workers are of another user: their limits need a capability, which containers lack."""
        pid = (await self.daemon.workers())[0]
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE)
        except PermissionError:
            return False
        return True

    async def exhaust(self) -> Callable[[int], bool]:
        """Two seconds with hardly a descriptor left in any worker."""
        pids = await self.daemon.workers()
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + FEW, hard))
        await asyncio.sleep(2)
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        return _never

    async def restart_target(self) -> Callable[[int], bool]:
        """It takes its flows along, and whoever comes while it is away is told."""
        assert self._echo is not None
        self._echo.kill()
        self._echo.wait()
        self._echo = await asyncio.to_thread(start_echo, self.target)
        return _always

    async def _leaked(self) -> int:
        """Descriptors more in the last daemon than in a new one that serves the same."""
        old = await self.daemon.processes()
        await asyncio.sleep(1)
        used = [descriptors(pid) for pid in old]
        self.left.append(self.daemon.process)  # type: ignore[arg-type]
        await self.daemon.start()
        await asyncio.sleep(1)
        fresh = [descriptors(pid) for pid in await self.daemon.processes()]
        return sum(used) - sum(fresh)


def _never(_: int) -> bool:
    return False


def _always(_: int) -> bool:
    return True


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.endurance")
    parser.add_argument("--seconds", type=float, default=120.0, help="of steady load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("many", "ordeal"):
            (Path(folder) / name).mkdir()
        many = asyncio.run(many_forwards(Path(folder) / "many"))
        print(json.dumps(many, indent=1))
        ordeal = asyncio.run(Ordeal(Path(folder) / "ordeal").run(options.seconds))
        print(json.dumps(ordeal, indent=1))


if __name__ == "__main__":
    main()
