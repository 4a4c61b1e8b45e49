"""Flows that are open and do nothing: what they cost in memory."""

from __future__ import annotations

import subprocess
import time

from bench.peers.base import Peer
from bench.processes import MB, UDP, Meter, memory
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
        relay = set_up(trial, peer, Echo(self.protocol))
        empty = memory(relay.roots)
        with Meter(relay.roots) as meter:
            words = [relay.host, str(relay.port), str(self.at), *["--udp"] * (self.protocol == UDP)]
            holder = trial.helper("client", "hold", *words, stdin=subprocess.PIPE)
            trial.wait(holder, lambda: f"held {self.at}\n" in trial.log(holder), "hold")
        time.sleep(_SETTLE)
        full = memory(relay.roots)
        return {
            "memory": full / MB,
            "growth": (full - empty) / MB * 1000 / self.at,
            "cpu": meter.usage.cpu * 1e6 / self.at,
        }


class Sessions(Idle):
    """Unit of work: a UDP session: a client's port, 8 bytes sent there and back from it.

    All stay within the relays' timeout of 90 s, each with a socket towards the target.
    """

    work = "session"
    family = "UDP sessions"
    axis = "client ports"
    protocol = UDP

    def __init__(self, flows: int, *, in_quick: bool) -> None:
        super().__init__(flows, in_quick=in_quick)
        self.name = f"udp-sessions-{flows}"
        self.title = f"{flows} UDP sessions"
        self.descriptors = flows + 500
