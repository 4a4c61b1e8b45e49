"""DNS queries with dnsperf, answered by unbound: small datagrams, one each way."""

from __future__ import annotations

import re

from bench.peers.base import Peer
from bench.processes import UDP, Meter
from bench.result import Figure
from bench.scenarios.base import CPU, PEAK, SPEED, Scenario, Size, costs, set_up
from bench.targets import DNS_NAME, Unbound
from bench.trial import Trial, TrialError

_AT_ONCE = 100
"""Queries outstanding, dnsperf's default."""
_CLIENTS = 20
_SECONDS = Size(quick=1, full=3)


class Dns(Scenario):
    """Unit of work: a query answered."""

    name = "dns"
    title = f"DNS queries, {_AT_ONCE} at once from {_CLIENTS} ports"
    work = "query"
    family = "dns"
    axis = "client ports"
    at = _CLIENTS
    protocol = UDP
    programs = ("dnsperf", "unbound")
    figures = (
        Figure("rate", "speed", "1/s", higher_is_better=True, column=SPEED),
        Figure("average", "average latency", "ms"),
        Figure("cpu", "CPU", "s/million", column=CPU),
        PEAK,
    )

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        relay = set_up(trial, peer, Unbound())
        queries = trial.write("queries", f"{DNS_NAME} A\n")
        command = ["dnsperf", "-s", relay.host, "-p", str(relay.port), "-d", queries,
                   "-c", str(_CLIENTS), "-q", str(_AT_ONCE), "-t", "2"]  # fmt: skip
        answered(trial.run("client", *command, "-n", "1000"))
        with Meter(relay.roots) as meter:
            output = trial.run("client", *command, "-l", str(_SECONDS.of(quick=quick)))
        count, figures = answered(output)
        return figures | costs(relay, meter.usage, count, scale=1e6)


def answered(output: str) -> tuple[float, dict[str, float]]:
    """Queries answered, rate and latency. Raises TrialError if one was not, or not well."""
    sent, count = _number(output, "Queries sent"), _number(output, "Queries completed")
    good = re.search(r"NOERROR (\d+)", output)
    if not count or count != sent or good is None or float(good[1]) != count:
        raise TrialError(f"dnsperf: {count:.0f} of {sent:.0f} queries answered, or some wrongly")
    return count, {
        "rate": _number(output, "Queries per second"),
        "average": _number(output, "Average Latency (s)") * 1000,
    }


def _number(output: str, label: str) -> float:
    found = re.search(rf"^\s*{re.escape(label)}:\s+([\d.]+)", output, re.MULTILINE)
    if found is None:
        raise TrialError(f"dnsperf gave no {label!r}")
    return float(found[1])
