"""Connections per second: one HTTP request each, with ab, which checks every answer."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from bench.peers.base import TRANSPARENT, Peer, Relay
from bench.processes import Meter
from bench.scenarios.base import RATE_FIGURES, Scenario, Size, costs, set_up
from bench.stats import percentile_of
from bench.targets import Web
from bench.trial import Trial, TrialError

_COUNTS = {1: Size(800, 4000), 20: Size(2500, 15000), 200: Size(2500, 15000)}
_WARM_UP = 400


class Connections(Scenario):
    """Unit of work: a connection, opened, one request and its answer, closed."""

    work = "connection"
    family = "connections"
    axis = "connections at once"
    programs = ("ab", "nginx")
    figures = RATE_FIGURES

    def __init__(self, at: int, *, in_quick: bool) -> None:
        self.at = at
        self.name = f"connections-{at}"
        self.title = f"new connections, {at} at once"
        self.in_quick = in_quick
        self._count = _COUNTS[at]

    def is_about(self, peer: Peer) -> bool:
        """See Scenario; this is where the way around the bridge shows."""
        return super().is_about(peer) or peer.header == TRANSPARENT

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        relay = set_up(trial, peer, Web())
        return load_with_ab(trial, relay, self._count.of(quick=quick), self.at)


def load_with_ab(trial: Trial, relay: Relay, count: int, at: int) -> dict[str, float]:
    """Warm up, then `count` connections, `at` at once; gives RATE_FIGURES. Raises TrialError."""
    table = trial.folder / "ab.csv"
    command = ["ab", "-q", "-c", str(at), "-e", str(table)]
    _checked(trial.run("client", *command, "-n", str(_WARM_UP), relay.url), _WARM_UP)
    with Meter(relay.roots) as meter:
        output = trial.run("client", *command, "-n", str(count), relay.url)
    rows = _percentiles(table)
    figures = {
        "rate": _checked(output, count),
        "p50": percentile_of(rows, 50),
        "p99": percentile_of(rows, 99),
    }
    return figures | costs(relay, meter.usage, count, scale=1e6)


def _checked(output: str, count: int) -> float:
    """Connections per second. Raises TrialError unless ab calls every answer good."""
    complete = int(_number(output, "Complete requests"))
    failed = int(_number(output, "Failed requests"))
    if complete != count or failed or "Non-2xx" in output:
        raise TrialError(f"ab: {complete} of {count} answered, {failed} of them wrongly")
    return _number(output, "Requests per second")


def _number(output: str, label: str) -> float:
    found = re.search(rf"^{label}:\s+([\d.]+)", output, re.MULTILINE)
    if found is None:
        raise TrialError(f"ab gave no {label!r}")
    return float(found[1])


def _percentiles(table: Path) -> list[tuple[float, float]]:
    """Rows of (percentage, milliseconds)."""
    with table.open(newline="") as file:
        return [(float(row[0]), float(row[1])) for row in list(csv.reader(file))[1:]]
