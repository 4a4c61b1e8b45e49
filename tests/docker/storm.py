"""All that happens to a host with Docker, one after the other, while clients forge headers.

`python -m tests.docker.storm ENGINE TRIES SILENCE` is the long form, in which clients come TRIES
times and the Engine is silent for SILENCE seconds once; `test_storm.py` has a short one.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.docker.conftest import shimmed_engine
from tests.support.images import AS_HERE, load_bare
from tests.support.process import eventually
from tests.support.served import Served
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6

FORGE = Path(__file__).with_name("forge.py")
SERVER = ("python3", "-c", Path(__file__).with_name("says_who.py").read_text(), "80")
PORT = 8080
KINDS = ("tcp4", "tcp6", "udp4", "udp6")
LABELS = ("v6fwd.client-ip.80-tcp=proxy-v1", "v6fwd.client-ip.80-udp=proxy-v2")
ENDPOINTS = {f"{host}:{PORT}{what}" for host in ("0.0.0.0", "[::]") for what in ("", "/udp")}
FORGERS = 4
"""How many come over IPv4 and TCP at once: as many as forge.py has."""
AFTER = 10
"""Clients of each kind that must be served after an event."""


class Storm:
    """A container whose clients forge headers, and what happens meanwhile."""

    def __init__(self, served: Served, silence: float = 1.0, iptables: str = "iptables") -> None:
        self.served = served
        self._iptables = iptables
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.silence = silence
        self._lines = threading.Condition()
        self.events: dict[str, Callable[[], object]] = {
            "the daemon is killed": self.kill,
            "the daemon stops": self.stop,
            "a daemon takes over": served.start,
            "a worker is killed": self.kill_worker,
            "dockerd restarts": self.restart_engine,
            "the container restarts": self.restart_container,
            "the Engine is silent": self.silent,
            "the redirect is deleted": lambda: self.delete("v6fwd"),
            "the guard is deleted": lambda: self.delete("v6fwd-guard"),
            "the redirect is deleted while no daemon runs": self.deleted_meanwhile,
            "iptables is flushed": lambda: self.host(self._iptables, "-w", "-F"),
            "a client is banned": lambda: self.judged("-s", CLIENT_V4),
            "clients are in no allow list": lambda: self.judged("!", "-s", "198.51.100.0/24"),
            "the ruleset is flushed": self.flush,
        }

    # -- clients --

    @contextlib.contextmanager
    def forging(self) -> Iterator[None]:
        """Clients come while the block runs."""
        lab = self.served.engine.lab
        process = lab.start(
            "client", sys.executable, str(FORGE), HOST_V4, HOST_V6, str(PORT), CLIENT_V4, CLIENT_V6,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        reader = threading.Thread(target=self._read, args=(process,))
        reader.start()
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            reader.join(30)
            process.kill()
            process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told = json.loads(line)
            with self._lines:
                self.counts, self.wrong = Counter(told["counts"]), told["wrong"]
                self._lines.notify_all()

    def tries(self) -> int:
        """How often clients have come."""
        return sum(self.counts.values())

    def right(self) -> list[int]:
        """How many clients of each kind have been served as they should be."""
        return [self.counts[f"{kind} right"] for kind in KINDS]

    def some_more(self, count: int = AFTER) -> None:
        """Wait until some more clients of each kind have been served."""
        before = self.right()

        def are_served() -> bool:
            return all(now >= then + count for now, then in zip(self.right(), before, strict=True))

        with self._lines:
            if not self._lines.wait_for(are_served, 60):
                raise AssertionError(
                    f"{before} {self.right()} {self.counts} {self.wrong}\n{self.served.log}"
                )

    def wait_for(self, what: str, count: int) -> None:
        """Wait until that has been found so many times more."""
        before = self.counts[what]
        with self._lines:
            assert self._lines.wait_for(lambda: self.counts[what] >= before + count, 60), what

    # -- what happens --

    def host(self, *words: str) -> None:
        """Run a command on the host."""
        self.served.engine.lab.run("host", *words).check_returncode()

    def delete(self, table: str) -> None:
        """Delete a table of ours."""
        self.host("nft", "delete", "table", "ip", table)

    def run(self) -> None:
        """Start the container, and wait until its ports are served."""
        labels = [word for label in LABELS for word in ("--label", label)]
        published = ("--publish", f"{PORT}:80/tcp", "--publish", f"{PORT}:80/udp")
        self.served.engine.run("--name", "one", *labels, *published, *AS_HERE, "bare", *SERVER)
        self.wait_served()

    def wait_served(self) -> None:
        """Wait until its ports are served."""
        eventually(lambda: self.served.modes().keys() >= ENDPOINTS, "its ports are served")

    def kill(self) -> None:
        self.served.stop(signal.SIGKILL)
        self.served.start()

    def stop(self) -> None:
        self.served.stop()
        self.served.start()

    def kill_worker(self) -> None:
        workers = self.served.process.status()["workers"]
        subprocess.run(["kill", "-KILL", str(workers[0]["pid"])], check=True)

    def restart_engine(self) -> None:
        self.served.engine.stop()
        self.served.engine.start(**self.served.environment())
        self.wait_served()

    def restart_container(self) -> None:
        self.served.engine.docker("restart", "--time", "1", "one")
        self.wait_served()

    def silent(self) -> None:
        """And the daemon is killed and started meanwhile: it must remember the modes."""
        with self.served.engine.silent():
            self.kill()
            self.some_more()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.served.process.wait(self.silence)
        self.some_more()

    def deleted_meanwhile(self) -> None:
        self.served.stop(signal.SIGKILL)
        self.delete("v6fwd")
        self.wait_for("tcp4 none", FORGERS + 1)
        self.served.start()

    def judged(self, *which: str) -> None:
        """DOCKER-USER drops the packets of all clients for a while, and of nobody else."""
        rule = ("DOCKER-USER", "-i", "eth0", *which, "-j", "DROP")
        self.host(self._iptables, "-w", "-I", *rule)
        self.wait_for("tcp4 none", FORGERS + 1)  # one may have come before, for each forger
        before = self.counts["tcp4 right"]
        self.wait_for("tcp6 right", AFTER)
        self.wait_for("tcp4 none", 1)
        assert self.counts["tcp4 right"] == before, "it holds"
        self.host(self._iptables, "-w", "-D", *rule)

    def flush(self) -> None:
        """Docker's rules go as well, and dockerd makes them when it starts."""
        self.host("nft", "flush", "ruleset")
        self.some_more()
        self.restart_engine()


def main(engine: str, tries: str = "10000", silence: str = "30") -> None:
    """The long form, on one Engine."""
    with shimmed_engine(engine) as running:
        served = Served(running)
        try:
            served.start()
            running.start(**served.environment())
            load_bare(running, "bare")
            storm = Storm(served, float(silence))
            storm.run()
            with storm.forging():
                while storm.tries() < int(tries):
                    for name, happens in storm.events.items():
                        began = time.monotonic()
                        happens()
                        storm.some_more()
                        took = time.monotonic() - began
                        told = f"{storm.tries()} tries, {len(storm.wrong)} wrong, {took:.1f} s"
                        print(f"{name}: {told}", flush=True)
                    storm.silence = 1.0  # once is enough
            print(json.dumps(storm.counts, indent=1), *storm.wrong, sep="\n")
            if any("internal error" in line for line in served.log.splitlines()):
                print(served.log)
            running.remove("one")
        finally:
            served.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
