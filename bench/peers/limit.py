"""The limits: relays in C that do nothing but move bytes, on epoll and on io_uring.

Their source is bench/limit/. They are built when they are missing or older than that.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.peers.base import Peer, Relay, Route
from bench.trial import Trial

PROJECT = Path(__file__).parents[2]
SOURCES = PROJECT / "bench" / "limit"
BUILT = PROJECT / "build" / "limit"
BUILD = PROJECT / "scripts" / "build-limit"


class Limit(Peer):
    """One process, one thread. Knows one target, and neither UDP nor any header."""

    product = ""
    max_ports = 1
    no_udp = "relays no UDP"
    only = (
        "bulk-up-1", "bulk-up-8", "bulk-down-1", "bulk-down-8",
        "connections-1", "connections-20", "connections-200",
        "requests-1", "requests-50", "idle-1000", "idle-3000",
    )  # fmt: skip

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.name = f"limit-{engine}"

    def obstacle(self) -> str | None:
        """Say why it cannot be built, or why the kernel or its policy has no io_uring for it."""
        return _build_obstacle(self.engine) or _kernel_obstacle(self.engine)

    def version(self) -> str:
        """It has none of its own."""
        return ""

    def start(self, trial: Trial, routes: Sequence[Route]) -> Relay:
        """See Peer."""
        (route,) = routes
        ground = trial.ground
        words = [ground.listen_host, str(route.listen), ground.target_host, str(route.target)]
        process = trial.start("host", str(BUILT / self.engine), *words)
        trial.wait_for_ports(process, [route.listen], self.name)
        return self._relay(trial, routes, [process.pid])


def _build_obstacle(engine: str) -> str | None:
    if _is_current(BUILT / engine, SOURCES.iterdir()):
        return None
    if shutil.which("gcc") is None:
        return "no gcc"
    try:
        done = subprocess.run(
            [BUILD, BUILT, engine], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"cannot be built: {error}"
    return why_not_built(done.stderr) if done.returncode else None


def _is_current(program: Path, sources: Iterable[Path]) -> bool:
    if not program.exists():
        return False
    built = program.stat().st_mtime
    return all(source.stat().st_mtime <= built for source in sources)


def why_not_built(errors: str) -> str:
    """What a compiler's errors mean, in a few words."""
    if "liburing.h: No such file" in errors or "-luring" in errors:
        return "no liburing (Debian: liburing-dev)"
    lines = errors.splitlines()
    wrong = [line for line in lines if "error" in line] or lines or ["no word why"]
    return f"cannot be built: {wrong[0]}"


def _kernel_obstacle(engine: str) -> str | None:
    if engine != "ring":
        return None
    done = subprocess.run(
        [BUILT / engine, "--check"], capture_output=True, text=True, check=False, timeout=10
    )
    return done.stderr.strip() or None
