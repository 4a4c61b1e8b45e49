"""Flows that are open and do nothing: what they cost in memory."""

from __future__ import annotations

import subprocess
import time

from bench.peers.base import Peer
from bench.processes import MB, Meter, memory
from bench.result import Figure
from bench.scenarios.base import CPU, MEMORY, Scenario, set_up
from bench.targets import Echo
from bench.trial import Trial

_SETTLE = 0.5
"""Seconds that pass before the look: allocators and collectors may give back what they can."""


class Idle(Scenario):
    """Unit of work: a flow, opened, 8 bytes sent there and back, held."""

    work = "flow"
    family = "idle flows"
    axis = "flows held"
    figures = (
        Figure("memory", "memory", "MB", column=MEMORY),
        Figure("growth", "growth", "MB/1000", column=MEMORY, row="the flows alone"),
        Figure("cpu", "CPU", "us each", column=CPU),
    )

    def __init__(self, flows: int, *, in_quick: bool) -> None:
        self.at = flows
        self.name = f"idle-{flows}"
        self.title = f"{flows} idle flows"
        self.in_quick = in_quick
        self.descriptors = 3 * flows + 500

    def unsuited(self, peer: Peer) -> str | None:
        """See Scenario."""
        return super().unsuited(peer) or (None if peer.max_ports else "has no process to weigh")

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:  # noqa: ARG002
        """See Scenario."""
        relay = set_up(trial, peer, Echo())
        empty = memory(relay.roots)
        with Meter(relay.roots) as meter:
            holder = trial.helper("client", "hold", relay.host, str(relay.port), str(self.at),
                                  stdin=subprocess.PIPE)  # fmt: skip
            trial.wait(holder, lambda: f"held {self.at}\n" in trial.log(holder), "hold")
        time.sleep(_SETTLE)
        full = memory(relay.roots)
        return {
            "memory": full / MB,
            "growth": (full - empty) / MB * 1000 / self.at,
            "cpu": meter.usage.cpu * 1e6 / self.at,
        }
