"""Results made by hand for the tests of bench's pure parts."""

from __future__ import annotations

from bench.result import Figure, PeerResult, Result, ScenarioResult

RATE = Figure("rate", "speed", "1/s", higher_is_better=True, column="speed")
CPU = Figure("cpu", "CPU", "us each", column="CPU")
GROWTH = Figure("growth", "growth", "MB/1000", column="memory", row="the flows alone")


def peer(*rounds: dict[str, float] | None) -> PeerResult:
    """A peer with these rounds; the failed ones have an error."""
    errors = ["ab: no"] * sum(one is None for one in rounds)
    return PeerResult(list(rounds), errors, ["host$ relay"], {"relay.conf": "listen 1\n"})


def scenario(
    peers: dict[str, PeerResult], *, family: str = "connections", figures: tuple[Figure, ...] = ()
) -> ScenarioResult:
    """A scenario with these peers."""
    return ScenarioResult(
        name="connections-20",
        title="new connections, 20 at once",
        work="connection",
        family=family,
        axis="connections at once",
        at=20,
        figures=list(figures or (RATE, CPU)),
        peers=peers,
    )


def result(*scenarios: ScenarioResult, rounds: int = 2) -> Result:
    """A run with these scenarios."""
    return Result(
        date="2026-01-28T00:20:53+00:00",
        command="python -m bench --rounds 2",
        place="network namespaces",
        quick=False,
        rounds=rounds,
        machine={
            "cpu": "Abacus 1",
            "cores": "2",
            "memory": "8.0 GB",
            "kernel": "6.1.0",
            "system": "Debian 12",
            "python": "3.11.2",
        },
        versions={"v6fwd": "0.1.0", "nginx": "1.22.1"},
        left_out={"socat": "no socat"},
        checks={"v6fwd": "sha256 00 of 16 bytes, there and back"},
        scenarios=list(scenarios),
    )
