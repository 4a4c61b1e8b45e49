"""What a scenario is: a load with a unit of work, whose answers are checked, and its figures."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from bench.peers.base import HEADER_OFF, Peer, Relay, Route, descriptor_limit
from bench.processes import MB, TCP, UDP, Usage
from bench.result import Figure
from bench.targets import Target
from bench.trial import Trial

SPEED, P99, CPU, MEMORY = "speed", "p99", "CPU", "memory"
"""Columns of the summary."""

PEAK = Figure("peak", "peak memory", "MB", column=MEMORY)
P50_LATENCY = Figure("p50", "p50", "ms")
P99_LATENCY = Figure("p99", "p99", "ms", column=P99)
RATE_FIGURES = (
    Figure("rate", "speed", "1/s", higher_is_better=True, column=SPEED),
    P50_LATENCY,
    P99_LATENCY,
    Figure("cpu", "CPU", "us each", column=CPU),
    PEAK,
)
"""Of work whose pieces are alike and many: requests, connections."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much load: in a quick run, and in a full one."""

    quick: int
    full: int

    def of(self, *, quick: bool) -> int:
        """The size for this run."""
        return self.quick if quick else self.full


class Scenario(ABC):
    """One load. `at` is how much of `axis` (streams, connections, flows, ports) it has at once."""

    name: str
    title: str
    work: str
    family: str
    axis: str
    at: int
    figures: tuple[Figure, ...]
    programs: ClassVar[tuple[str, ...]] = ()
    in_quick: bool = True
    protocol: str = TCP
    descriptors: int = 0
    """Descriptors that a process of it needs."""

    def obstacle(self) -> str | None:
        """Why it cannot run on this machine, in a few words, or None."""
        missing = [program for program in self.programs if shutil.which(program) is None]
        if missing:
            return f"no {', '.join(missing)}"
        if self.descriptors > (limit := descriptor_limit()):
            return f"needs {self.descriptors} descriptors, {limit} are allowed"
        return None

    def is_about(self, peer: Peer) -> bool:
        """Whether the scenario asks anything about this peer; others are left out silently."""
        return peer.header == HEADER_OFF and (not peer.only or self.name in peer.only)

    def unsuited(self, peer: Peer) -> str | None:
        """Why a peer that it is about takes no part after all, in a few words, or None."""
        if self.protocol == UDP and peer.no_udp:
            return peer.no_udp
        if self.at > peer.max_flows:
            return f"makes no sense with more than {peer.max_flows} flows"
        return None

    @abstractmethod
    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """One round of one peer: the figures by their keys. Raises TrialError."""


def set_up(trial: Trial, peer: Peer, target: Target) -> Relay:
    """Start a target, and a peer in front of it."""
    targets = target.start(trial, peer.header)
    listens = trial.ground.ports(len(targets))
    pairs = zip(listens, targets, strict=True)
    return peer.start(trial, [Route(*pair, target.protocol) for pair in pairs])


def costs(relay: Relay, usage: Usage, work: float, *, scale: float = 1.0) -> dict[str, float]:
    """CPU per unit of work, in seconds times `scale`, and peak memory in MB; none for `direct`."""
    if not relay.roots:
        return {}
    return {"cpu": usage.cpu * scale / work, "peak": usage.memory / MB}
