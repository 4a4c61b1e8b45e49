"""Numbered datagrams one way, single or in trains; what counts is what was delivered."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bench.peers.base import Peer
from bench.processes import UDP, Meter
from bench.result import Figure
from bench.scenarios.base import CPU, PEAK, SPEED, Scenario, Size, costs, set_up
from bench.targets import Sink
from bench.trial import Trial, TrialError, helper_command

_SECONDS = Size(quick=1, full=3)
_WARM_UP = 0.3
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Payload bytes of a datagram, datagrams of a train (1: none), datagrams under way at most."""

    title: str
    size: int
    train: int
    window: int


KINDS = {
    "plain": Kind("datagrams of 512 bytes, one by one", 512, 1, 64),
    "trains": Kind("trains of 40 datagrams of 1400 bytes, 2 under way", 1400, 40, 80),
    "trains-wide": Kind("trains of 40 datagrams of 1400 bytes, 48 under way", 1400, 40, 1920),
}
"""The first two windows fit into a socket's buffer as Linux has it by default (208 KB), so that a
relay that does not ask for more need not lose anything; the last does not: more than that relay can
take, always."""


class Datagrams(Scenario):
    """Unit of work: a datagram delivered. As fast as they arrive, `window` under way at most."""

    work = "datagram"
    axis = "flows"
    at = 1
    protocol = UDP
    figures = (
        Figure("rate", "delivered", "1/s", higher_is_better=True, column=SPEED),
        Figure("lost", "lost", "%"),
        Figure("late", "out of order", "%"),
        Figure("cpu", "CPU", "s/million", column=CPU),
        PEAK,
    )

    def __init__(self, kind: str, *, in_quick: bool) -> None:
        self.in_quick = in_quick
        self._kind = KINDS[kind]
        self.name = self.family = f"udp-{kind}"
        self.title = self._kind.title

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        kind = self._kind
        sink = Sink(max(1, kind.window // 4), trains=kind.train > 1)
        relay = set_up(trial, peer, sink)
        numbers = [str(number) for number in (kind.size, kind.train, kind.window)]
        command = [*helper_command("datagrams"), relay.host, str(relay.port),
                   trial.ground.target_host, str(sink.port), *numbers]  # fmt: skip
        delivered(trial.run("client", *command, str(_WARM_UP)))
        with Meter(relay.roots) as meter:
            output = trial.run("client", *command, str(_SECONDS.of(quick=quick)))
        received, figures = delivered(output)
        return figures | costs(relay, meter.usage, received, scale=1e6)


def delivered(output: str) -> tuple[int, dict[str, float]]:
    """Datagrams received, and the figures about them. Raises TrialError where there are none."""
    counts = json.loads(output)
    sent, received = counts["sent"], counts["received"]
    if not 0 < received <= sent:
        raise TrialError(f"{received} datagrams were received, {sent} were sent")
    return received, {
        "rate": received / counts["seconds"],
        "lost": 100 * (sent - received) / sent,
        "late": 100 * counts["late"] / received,
    }
