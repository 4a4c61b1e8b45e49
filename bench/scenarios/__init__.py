"""The scenarios, in the order in which they run. To add one, write its class and list it."""

from __future__ import annotations

from bench.scenarios.base import Scenario
from bench.scenarios.bulk import Bulk
from bench.scenarios.connections import Connections
from bench.scenarios.idle import Idle
from bench.scenarios.ports import Ports
from bench.scenarios.proxy_header import ProxyHeader
from bench.scenarios.requests import Requests

SCENARIOS: tuple[Scenario, ...] = (
    Bulk("up", 1, in_quick=True),
    Bulk("up", 8, in_quick=False),
    Bulk("down", 1, in_quick=False),
    Bulk("down", 8, in_quick=True),
    Connections(1, in_quick=False),
    Connections(20, in_quick=True),
    Connections(200, in_quick=False),
    Requests(1),
    Requests(50),
    Idle(1000, in_quick=True),
    Idle(3000, in_quick=False),
    ProxyHeader(),
    Ports(20, in_quick=False),
    Ports(200, in_quick=True),
)

SCENARIOS_NOT_YET = {
    "http": "keep-alive requests with header injection: v6fwd has no HTTP mode yet",
    "udp": "datagrams, plain and in trains: v6fwd has no UDP yet",
    "dns": "queries with dnsperf: v6fwd has no UDP yet",
}
"""Scenarios that wait for a feature of v6fwd, and why."""
