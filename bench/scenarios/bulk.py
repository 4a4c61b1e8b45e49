"""Bulk data with iperf3; what counts is what was received."""

from __future__ import annotations

import json
from typing import Any

from bench.peers.base import TRANSPARENT, Peer
from bench.processes import Meter
from bench.result import Figure
from bench.scenarios.base import CPU, PEAK, SPEED, Scenario, Size, costs, set_up
from bench.targets import Iperf
from bench.trial import Trial, TrialError

_GB = 1e9
_IN_FLIGHT = 64e6
"""Bytes a stream may have under way when its time is up: socket buffers of two connections."""
_SECONDS = Size(quick=1, full=3)
_WARM_UP = "32M"


class Bulk(Scenario):
    """`up` is from client to target; unit of work: a GB (10^9 bytes) received."""

    work = "GB"
    axis = "streams"
    programs = ("iperf3",)
    figures = (
        Figure("rate", "speed", "GB/s", higher_is_better=True, column=SPEED),
        Figure("cpu", "CPU", "s/GB", column=CPU),
        PEAK,
    )

    def __init__(self, direction: str, streams: int, *, in_quick: bool) -> None:
        self.at = streams
        self.in_quick = in_quick
        self.name = f"bulk-{direction}-{streams}"
        self.family = f"bulk {direction}"
        self.title = f"bulk {direction}, {streams} stream{'s' if streams > 1 else ''}"
        self._words = ["-P", str(streams), *(["-R"] if direction == "down" else [])]

    def is_about(self, peer: Peer) -> bool:
        """See Scenario; this is where the way around the bridge shows."""
        return super().is_about(peer) or peer.header == TRANSPARENT

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        relay = set_up(trial, peer, Iperf())
        base = ["iperf3", "-J", "-c", relay.host, "-p", str(relay.port), *self._words]
        received(trial.run("client", *base, "-n", _WARM_UP), self.at)
        with Meter(relay.roots) as meter:
            output = trial.run("client", *base, "-t", str(_SECONDS.of(quick=quick)))
        size, seconds = received(output, self.at)
        figures = {"rate": size / _GB / seconds}
        return figures | costs(relay, meter.usage, size / _GB)


def received(output: str, streams: int) -> tuple[float, float]:
    """Bytes received, and in how many seconds. Raises TrialError where iperf3's counts differ."""
    report: dict[str, Any] = json.loads(output)
    if "error" in report:
        raise TrialError(f"iperf3: {report['error']}")
    sent, got = report["end"]["sum_sent"], report["end"]["sum_received"]
    missing = sent["bytes"] - got["bytes"]
    if got["bytes"] <= 0 or missing < 0 or missing > _IN_FLIGHT * streams:
        raise TrialError(f"iperf3 sent {sent['bytes']} bytes, {got['bytes']} were received")
    return got["bytes"], got["seconds"]
