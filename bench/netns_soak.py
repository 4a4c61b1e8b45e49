"""`python -m bench.netns_soak [COUNT]`: containers that start and stop under transparent forwards.

COUNT (1000) times, as root: a namespace with a veth pair is made, transparent mode puts everything
there is into it, and leaves; in every other cycle the namespace is deleted first, as with
a container that stops. At the end there is not one rule, route, address, lease or descriptor
more than before, and not one veth pair, which a forgotten reference to a namespace would keep.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.netns_cycles import cycle
from v6fwd.demo.lab import lab_obstacle
from v6fwd.netns.lease import LEASES

NAME, OURS, THEIRS = (f"v6soak{os.getpid()}", f"vs{os.getpid()}a", f"vs{os.getpid()}b")
PATIENCE = 10.0
"""Seconds that the kernel may take to remove a namespace."""


def run(*words: str) -> str:
    """A command's output. Raises subprocess.CalledProcessError."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def in_place() -> str:
    """Rules and routes in the namespace."""
    return "".join(
        run("ip", "-n", NAME, family, *words)
        for family in ("-4", "-6")
        for words in (("rule",), ("route", "show", "table", "all"))
    )


def one(number: int) -> None:
    """A container's life. Raises AssertionError."""
    run("ip", "netns", "add", NAME)
    deleted = number % 2 == 1
    try:
        run("ip", "-n", NAME, "link", "set", "lo", "up")
        run("ip", "link", "add", OURS, "type", "veth", "peer", "name", THEIRS, "netns", NAME)
        before = in_place()
        cycle(NAME, (lambda: run("ip", "netns", "delete", NAME)) if deleted else None)
        if not deleted:
            assert in_place() == before, "rules or routes are left"
    finally:
        if Path(f"/run/netns/{NAME}").exists():
            run("ip", "netns", "delete", NAME)
    until = time.monotonic() + PATIENCE
    while Path(f"/sys/class/net/{OURS}").exists():
        assert time.monotonic() < until, "somebody holds a namespace"
        time.sleep(0.005)


def held() -> tuple[int, int]:
    """Descriptors of this process, and leases of the machine."""
    leases = len(list(LEASES.iterdir())) if LEASES.is_dir() else 0
    return len(os.listdir("/proc/self/fd")), leases


def main(count: int) -> None:
    """Run them all, and compare."""
    why = lab_obstacle()
    if why is not None:
        sys.exit(f"left out: {why}")
    one(0)  # the libraries open what they need
    one(1)
    before = held()
    begun = time.monotonic()
    for number in range(count):
        one(number)
    after = held()
    seconds = time.monotonic() - begun
    print(f"{count} containers in {seconds:.0f} s; descriptors and leases {before} -> {after}")
    sys.exit(0 if after[0] == before[0] else 1)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
