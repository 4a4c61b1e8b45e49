"""Many published ports: how soon the last one answers, and what they weigh."""

from __future__ import annotations

import time

from bench.peers.base import Peer, Route
from bench.processes import MB, cpu_seconds, memory
from bench.result import Figure
from bench.scenarios.base import CPU, MEMORY, SPEED, Scenario
from bench.targets import BODY, Web
from bench.trial import PATIENCE, Trial, TrialError


class Ports(Scenario):
    """Unit of work: a port, listening, with one request answered through it.

    One process with all ports, where the peer can; docker-proxy has a process a port.
    """

    work = "port"
    family = "published ports"
    axis = "ports"
    programs = ("nginx",)
    figures = (
        Figure("rate", "speed", "1/s", higher_is_better=True, column=SPEED),
        Figure("start", "start", "s"),
        Figure("cpu", "CPU", "ms each", column=CPU),
        Figure("memory", "memory", "MB", column=MEMORY),
    )

    def __init__(self, ports: int, *, in_quick: bool) -> None:
        self.at = ports
        self.name = f"ports-{ports}"
        self.title = f"{ports} published ports"
        self.in_quick = in_quick
        self.descriptors = 2 * ports + 500

    def unsuited(self, peer: Peer) -> str | None:
        """See Scenario."""
        if not peer.max_ports:
            return "has no process to weigh"
        if peer.max_ports < self.at:
            return f"makes no sense with {self.at} ports"
        return super().unsuited(peer)

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:  # noqa: ARG002
        """See Scenario."""
        targets = Web(self.at).start(trial, peer.header)
        ports = trial.ground.ports(self.at)
        routes = [Route(*pair) for pair in zip(ports, targets, strict=True)]
        asker = trial.helper("client", "answers", trial.ground.dial_host,
                             str(ports[0]), str(ports[-1]))  # fmt: skip
        trial.wait(asker, lambda: "asking\n" in trial.log(asker), "answers")
        begun = time.monotonic()
        relay = peer.start(trial, routes)
        asker.wait(PATIENCE)
        seconds = time.monotonic() - begun
        if trial.log(asker) != f"asking\n{BODY}":
            raise TrialError(f"not every port answered: {trial.log(asker)!r}")
        return {
            "rate": self.at / seconds,
            "start": seconds,
            "cpu": cpu_seconds(relay.roots) * 1000 / self.at,
            "memory": memory(relay.roots) / MB,
        }
