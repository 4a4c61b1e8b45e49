"""`python -m bench.soak [--hours N | --seconds N]`: one daemon under everything at once.

Good clients come and go over TCP, HTTP and UDP, and every byte of theirs is compared; hostile ones
send slow heads, floods, chunks of one byte, garbage and resets; a target ends as it likes; the
daemon is reloaded meanwhile, and loses workers. Good clients must be served, but for those of a
worker that was killed (`soak_log` says which these are), and when all have gone, descriptors and
memory must be what they were.

Everything is on loopback, with free ports and bounded numbers. A line a minute, a table at the end;
exit status 1 where something went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import astuple
from pathlib import Path

from bench.endurance import Daemon, cpu_seconds, descriptors, free_ports, proportional_set_size
from bench.soak_clients import GOOD, HOSTILE, BrokenError, Client, Ports, odd_target
from bench.soak_log import Broken, FlowLog

EVERY = 10.0
"""Seconds from one event to the next."""
WARM = 20.0
"""Seconds of everything before memory and descriptors are looked at for the first time."""
THINK = 0.05
PATIENCE = 60.0
GROWTH_MB = 4.0
"""Megabytes that all processes together may have grown by: allocators keep some of a burst."""

_CONFIG = """\
workers = 2
log-flows = true
log-format = "json"
drain-timeout = 5
[control]
socket = "{folder}/control.sock"
[defaults]
connect-timeout = {connect}
request-timeout = 4
udp-timeout = 5
[[forward]]
listen = "[::]:{tcp}"
target = "127.0.0.1:{echo}"
[[forward]]
listen = "[::]:{proxied}"
target = "127.0.0.1:{echo_proxied}"
client-ip = "proxy-v2"
[[forward]]
listen = "[::]:{http}"
target = "127.0.0.1:{echo_http}"
client-ip = "x-forwarded-for"
[[forward]]
listen = "[::]:{udp}/udp"
target = "127.0.0.1:{echo_udp}/udp"
[[forward]]
listen = "[::]:{guarded}"
target = "127.0.0.1:{echo}"
client-rate = 10
client-flows = 20
[[forward]]
listen = "[::]:{accepting}"
target = "127.0.0.1:{echo}"
accept-proxy = "::1"
[[forward]]
listen = "[::]:{odd}"
target = "127.0.0.1:{odd_target}"
[[forward]]
listen = "[::]:{odd_http}"
target = "127.0.0.1:{odd_target}"
client-ip = "forwarded"
"""

ECHOES = {
    "echo": (),
    "echo_proxied": ("--proxy",),
    "echo_http": ("--http",),
    "echo_udp": ("--udp",),
}


class SoakDaemon(Daemon):
    """A daemon with a forward for each kind of client."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        super().__init__(folder)
        self._ports = ports

    def write(self, number: int) -> None:
        """The configuration; each `number` has another limit in it."""
        values = {"folder": self.folder, "connect": 3 + number % 3, **self._ports}
        self.config.write_text(_CONFIG.format(**values))


class Soak:
    """The clients, what becomes of them, and what is done to the daemon meanwhile."""

    def __init__(self, daemon: SoakDaemon, ports: Ports) -> None:
        self._daemon = daemon
        self._ports = ports
        self._stop = False
        self.words: Counter[tuple[str, str]] = Counter()
        self.events: Counter[str] = Counter()
        self.accidents: Counter[str] = Counter()
        """Good clients that were not served and should have been, by kind and word."""
        self.with_their_worker: Counter[str] = Counter()
        self._broken: list[Broken] = []
        self._kills: dict[int, float] = {}
        """Process ids of the workers that were killed, and when, in seconds since 1970."""
        self._flows = FlowLog(daemon.log)

    async def run(self, seconds: float) -> None:
        """Everything at once, for so long; then all clients go."""
        self._stop = False
        kinds = {**GOOD, **HOSTILE}
        tasks = [
            asyncio.create_task(self._again(kind))
            for kind, count in kinds.items()
            for _ in range(count)
        ]
        try:
            await self._disturb(time.monotonic() + seconds)
        finally:
            self._stop = True
            await asyncio.gather(*tasks)
        self.judge()

    async def _again(self, kind: Client) -> None:
        while not self._stop:
            name = kind.__name__
            try:
                async with asyncio.timeout(PATIENCE):
                    word = await kind(self._ports)
            except BrokenError as error:
                word = error.word
                what = f"{name}: {word}"
                self._broken.append(Broken(what, error.ports, error.began, error.broke))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                word = type(error).__name__
            if kind in GOOD and word not in ("served", "reset", "cut"):
                self.accidents[f"{name}: {word}"] += 1
            self.words[name, word] += 1
            await asyncio.sleep(THINK)

    async def _disturb(self, until: float) -> None:
        minute = time.monotonic() + 60
        while (now := time.monotonic()) < until:
            await asyncio.sleep(min(EVERY, until - now))
            await (self._kill() if sum(self.events.values()) % 3 == 2 else self._reload())
            if time.monotonic() >= minute:
                minute += 60
                await self._progress()

    async def _reload(self) -> None:
        self.judge()
        self.events["reload"] += 1
        self._daemon.write(self.events["reload"])
        await self._daemon.ask("reload")

    async def _kill(self) -> None:
        """A worker, each in its turn."""
        self.judge()
        victim = (await self._daemon.workers())[self.events["kill"] % 2]
        self._kills[victim] = time.time()
        os.kill(victim, signal.SIGKILL)
        self.events["kill"] += 1

    def judge(self) -> None:
        """Account for those that broke since the last time, and for what the log says besides."""
        self._flows.read()
        for broken in self._broken:
            how = self._flows.end_of(broken)
            if how is None and self._lost_its_worker(broken):
                self.with_their_worker[broken.what] += 1
            else:
                self._accident(f"{broken.what} ({how or 'by nobody'})", broken)
        self._broken.clear()
        for pid in set(self._flows.died) - self._kills.keys():
            self._accident("a worker died", pid)
        for text in self._flows.trouble:
            self._accident("trouble in the log", text)
        self._flows.died.clear()
        self._flows.trouble.clear()

    def _lost_its_worker(self, broken: Broken) -> bool:
        return any(broken.began <= at <= broken.broke for at in self._kills.values())

    def _accident(self, what: str, details: object) -> None:
        self.accidents[what] += 1
        print(f"accident: {what}: {details}, kills {self._kills}", flush=True)

    async def _progress(self) -> None:
        used, memory = await self.held()
        good = sum(count for (_, word), count in self.words.items() if word == "served")
        cpu = cpu_seconds(await self._daemon.processes())
        print(
            f"{time.strftime('%H:%M:%S')}  served {good}, hostile"
            f" {sum(self.words.values()) - good}, accidents {sum(self.accidents.values())},"
            f" {dict(self.events)}, descriptors {used}, memory {memory:.1f} MB, CPU {cpu:.0f} s",
            flush=True,
        )

    async def held(self) -> tuple[int, float]:
        """Descriptors of all processes of the daemon, and megabytes."""
        pids = await self._daemon.processes()
        return sum(map(descriptors, pids)), proportional_set_size(pids)

    async def quiet(self) -> tuple[int, float]:
        """The same, once no flow and no session is left."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            parts = await self._daemon.ask("flows")
            if not any(part.get("flows") for part in parts):
                break
            await asyncio.sleep(0.2)
        await asyncio.sleep(6)  # UDP sessions have 5 s
        return await self.held()


@contextlib.contextmanager
def echoes(ports: dict[str, int]) -> Iterator[None]:
    """The targets that send everything back."""
    command = [sys.executable, "-m", "bench.helpers.echo", "127.0.0.1"]
    processes = [
        subprocess.Popen([*command, str(ports[name]), *options]) for name, options in ECHOES.items()
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Soak]:
    """A daemon, its targets, and nobody there yet."""
    names = [*Ports.__dataclass_fields__, *ECHOES, "odd_target"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    outside = Ports(**{name: ports[name] for name in Ports.__dataclass_fields__})
    assert len(set(astuple(outside))) == len(astuple(outside))
    with tempfile.TemporaryDirectory(prefix="v6fwd-soak-") as folder, echoes(ports):
        server = await asyncio.start_server(odd_target, "127.0.0.1", ports["odd_target"])
        daemon = SoakDaemon(Path(folder), ports)
        daemon.write(0)
        try:
            await daemon.start()
            yield Soak(daemon, outside)
        finally:
            daemon.stop()
            server.close()


def table(soak: Soak, before: tuple[int, float], after: tuple[int, float]) -> int:
    """Print what became of everybody; gives the exit status."""
    for kind in (*GOOD, *HOSTILE):
        found = {
            word: count
            for (name, word), count in sorted(soak.words.items())
            if name == kind.__name__
        }
        words = ", ".join(f"{count} {word}" for word, count in found.items())
        print(f"{kind.__name__:16} {'good' if kind in GOOD else 'hostile':8} {words}")
    print(f"events           {dict(soak.events)}")
    print(f"killed workers'  {dict(soak.with_their_worker) or 'none'}")
    print(f"descriptors      {before[0]} before, {after[0]} after")
    print(f"memory           {before[1]:.1f} MB before, {after[1]:.1f} MB after")
    print(f"accidents        {dict(soak.accidents) or 'none'}")
    grown = after[0] > before[0] or after[1] > before[1] + GROWTH_MB
    return 1 if soak.accidents or grown else 0


async def soaked(seconds: float) -> int:
    """The whole of it; gives the exit status."""
    async with serving() as soak:
        await soak.run(WARM)
        before = await soak.quiet()
        await soak.run(seconds)
        return table(soak, before, await soak.quiet())


def main() -> int:
    """Run it; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, help="in place of hours")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writes after a reset
    return asyncio.run(soaked(options.seconds or 3600 * options.hours))


if __name__ == "__main__":
    sys.exit(main())
