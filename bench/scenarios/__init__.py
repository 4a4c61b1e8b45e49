"""The scenarios, in the order in which they run. To add one, write its class and list it."""

from __future__ import annotations

from bench.scenarios.base import Scenario
from bench.scenarios.bulk import Bulk
from bench.scenarios.connections import Connections
from bench.scenarios.datagrams import Datagrams
from bench.scenarios.dns import Dns
from bench.scenarios.http import HttpBodies, HttpParts, HttpRequests
from bench.scenarios.idle import Idle, Sessions
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
    HttpRequests(1, in_quick=False),
    HttpRequests(50, in_quick=True),
    HttpParts(50, in_quick=False),
    HttpBodies("up", in_quick=True),
    HttpBodies("down", in_quick=False),
    Ports(20, in_quick=False),
    Ports(200, in_quick=True),
    Datagrams("plain", in_quick=False),
    Datagrams("trains", in_quick=False),
    Datagrams("trains-wide", in_quick=True),
    Dns(),
    Sessions(1000, in_quick=False),
    Sessions(10_000, in_quick=False),
)
