"""A run: scenario by scenario, round by round, every peer in each round."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from bench.ground import Ground
from bench.peers.base import HEADER_HTTP, Peer
from bench.result import PeerResult, Result, ScenarioResult
from bench.scenarios.base import Scenario, set_up
from bench.targets import Echo
from bench.trial import Trial, TrialError, helper_command

CHECKED_BYTES = 16 << 20
"""Bytes that each peer carries there and back once a run, compared by their SHA-256."""

_FAILURES = (TrialError, OSError, ValueError, KeyError, subprocess.SubprocessError, psutil.Error)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, and what is left out."""

    scenarios: Sequence[Scenario]
    peers: Sequence[Peer]
    rounds: int
    quick: bool
    obstacles: dict[str, str] = field(default_factory=dict)
    """What cannot run on this machine, and why."""
    unsuited: dict[str, str] = field(default_factory=dict)
    """"PEER in SCENARIO", and why it takes no part there."""

    @property
    def steps(self) -> int:
        """How many measurements and checks there are."""
        return len(self.peers) + sum(
            self.rounds * len(self.peers_of(scenario)) for scenario in self.scenarios
        )

    def peers_of(self, scenario: Scenario) -> list[Peer]:
        """The peers that take part in a scenario."""
        about = [peer for peer in self.peers if scenario.is_about(peer)]
        return [peer for peer in about if scenario.unsuited(peer) is None]


def make_plan(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], *, rounds: int, quick: bool
) -> Plan:
    """Keep what can run on this machine; the rest is left out with a word."""
    things: list[Scenario | Peer] = [*scenarios, *peers]
    found = {thing.name: thing.obstacle() for thing in things}
    obstacles = {name: why for name, why in found.items() if why is not None}
    scenarios = [scenario for scenario in scenarios if scenario.name not in obstacles]
    peers = [peer for peer in peers if peer.name not in obstacles]
    unsuited = {}
    for scenario in scenarios:
        for peer in peers:
            if scenario.is_about(peer) and (why := scenario.unsuited(peer)) is not None:
                unsuited[f"{peer.name} in {scenario.name}"] = why
    return Plan(scenarios, peers, rounds, quick, obstacles, unsuited)


def interleave(peers: Sequence[_T], rounds: int) -> Iterator[_T]:
    """A B C, B C A, ...: each round has all, and nobody always follows the same one's noise."""
    for number in range(rounds):
        first = number % len(peers) if peers else 0
        yield from (*peers[first:], *peers[:first])


def carry_out(plan: Plan, ground: Ground, result: Result, step: Callable[[str], None]) -> None:
    """Measure all that is planned, into `result`; `step` hears of each measurement before it."""
    sound = set()
    for peer in plan.peers:
        step(f"bytes checked, {peer.name}")
        try:
            result.checks[peer.name] = _check_bytes(ground, peer)
            sound.add(peer.name)
        except _FAILURES as error:
            result.checks[peer.name] = f"failed: {_line(error)}"
    for scenario in plan.scenarios:
        into = _empty(scenario)
        result.scenarios.append(into)
        peers = [peer for peer in plan.peers_of(scenario) if peer.name in sound]
        into.peers = {peer.name: PeerResult() for peer in peers}
        for peer in interleave(peers, plan.rounds):
            number = len(into.peers[peer.name].rounds) + 1
            step(f"{scenario.name}, round {number} of {plan.rounds}, {peer.name}")
            _measure(ground, scenario, peer, into.peers[peer.name], quick=plan.quick)


def _measure(
    ground: Ground, scenario: Scenario, peer: Peer, into: PeerResult, *, quick: bool
) -> None:
    with own_trial(ground) as trial:
        try:
            into.rounds.append(scenario.measure(trial, peer, quick=quick))
        except _FAILURES as error:
            into.rounds.append(None)
            into.errors.append(_line(error))
        if not into.commands:  # the rounds differ in nothing but port numbers
            into.commands, into.configs = trial.commands, trial.configs


def _check_bytes(ground: Ground, peer: Peer) -> str:
    with own_trial(ground) as trial:
        relay = set_up(trial, peer, Echo())
        command = [*helper_command("transfer"), relay.host, str(relay.port), str(CHECKED_BYTES)]
        command += ["--http"] * (peer.header == HEADER_HTTP)
        digest = trial.run("client", *command).strip()
        return f"sha256 {digest} of {CHECKED_BYTES} bytes, there and back"


class own_trial(Trial):  # noqa: N801 - reads as a verb where it is used
    """A trial with a folder of its own, removed with it."""

    def __init__(self, ground: Ground) -> None:
        self._holder = tempfile.TemporaryDirectory(prefix="v6fwd-bench-")
        folder = Path(self._holder.name)
        folder.chmod(0o755)  # servers that give up root read their files from it
        super().__init__(ground, folder)
        self._ends.callback(self._holder.cleanup)


def _empty(scenario: Scenario) -> ScenarioResult:
    return ScenarioResult(
        name=scenario.name,
        title=scenario.title,
        work=scenario.work,
        family=scenario.family,
        axis=scenario.axis,
        at=scenario.at,
        figures=list(scenario.figures),
    )


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
