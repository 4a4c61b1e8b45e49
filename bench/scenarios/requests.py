"""Request and response on connections that stay, with redis-benchmark; redis counts along."""

from __future__ import annotations

import csv
import re

from bench.peers.base import Peer
from bench.processes import Meter
from bench.scenarios.base import RATE_FIGURES, Scenario, Size, costs, set_up
from bench.targets import Redis
from bench.trial import Trial, TrialError

_COUNTS = {1: Size(4000, 30000), 50: Size(20000, 150000)}
_WARM_UP = 1000
_RATE, _P50, _P99 = "rps", "p50_latency_ms", "p99_latency_ms"


class Requests(Scenario):
    """Unit of work: a PING and its PONG."""

    work = "request"
    family = "requests"
    axis = "connections at once"
    programs = ("redis-server", "redis-benchmark", "redis-cli")
    figures = RATE_FIGURES

    def __init__(self, at: int) -> None:
        self.at = at
        self.name = f"requests-{at}"
        self.title = f"request and response, {at} at once"
        self._count = _COUNTS[at]

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        redis = Redis()
        relay = set_up(trial, peer, redis)
        count = self._count.of(quick=quick)
        command = ["redis-benchmark", "-h", relay.host, "-p", str(relay.port),
                   "-t", "ping_mbulk", "--csv", "-c", str(self.at)]  # fmt: skip
        trial.run("client", *command, "-n", str(_WARM_UP))
        with Meter(relay.roots) as meter:
            output = trial.run("client", *command, "-n", str(count))
        row = parse(output)
        _check_count(trial, redis, _WARM_UP + count)
        figures = {"rate": row[_RATE], "p50": row[_P50], "p99": row[_P99]}
        return figures | costs(relay, meter.usage, count, scale=1e6)


def parse(output: str) -> dict[str, float]:
    """The numbers of redis-benchmark's table, by its column names. Raises TrialError."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))
    if len(rows) != 1 or _RATE not in rows[0]:
        raise TrialError("redis-benchmark gave no table")
    return {name: float(rows[0][name]) for name in (_RATE, _P50, _P99)}


def _check_count(trial: Trial, redis: Redis, count: int) -> None:
    host, port = trial.ground.target_host, str(redis.port)
    stats = trial.run("container", "redis-cli", "-h", host, "-p", port, "info", "commandstats")
    found = re.search(r"cmdstat_ping:calls=(\d+)", stats)
    answered = int(found[1]) if found else 0
    if answered != count:
        raise TrialError(f"redis answered {answered} requests of {count}")
