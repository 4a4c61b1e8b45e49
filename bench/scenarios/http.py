"""HTTP on connections that stay, with wrk: requests, and bodies of 1 MiB, with X-Forwarded-For."""

from __future__ import annotations

import json
import re
from typing import Any

from bench.peers.base import HEADER_HTTP, HEADER_OFF, Peer, Relay
from bench.processes import Meter
from bench.result import Figure
from bench.scenarios.base import (
    CPU,
    P50_LATENCY,
    P99_LATENCY,
    PEAK,
    RATE_FIGURES,
    SPEED,
    Scenario,
    Size,
    costs,
    set_up,
)
from bench.targets import BODY_FILE, BODY_SIZE, COUNT, PAGE, UPLOAD, WHO, Site
from bench.trial import Trial, TrialError, helper_command

_GB = 1e9
_SECONDS = Size(quick=1, full=3)
_WARM_UP = 1
"""Seconds: the least that wrk takes."""
_BODIES_AT_ONCE = 8
_ASKED = 3

# With the Host that wrk adds, a head of some 400 bytes: what browsers send.
_SCRIPT = """\
wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
wrk.headers["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
wrk.headers["Accept-Language"] = "en-US,en;q=0.5"
wrk.headers["Accept-Encoding"] = "gzip, deflate"
wrk.headers["Connection"] = "keep-alive"
wrk.headers["Cookie"] = "session=8f14e45fceea167a5a36dedd4bea2543"
wrk.headers["Upgrade-Insecure-Requests"] = "1"

function done(summary, latency, requests)
    local bad = summary.errors
    local text = '{"requests": %d, "bytes": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}'
    print(text:format(
        summary.requests, summary.bytes, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        bad.connect + bad.read + bad.write + bad.status + bad.timeout))
end
"""
# A page's parts: no request has the same fields as the one before it on its connection.
_PARTS = """\
local parts, next_part = {}, 0
local kinds = {"text/css,*/*;q=0.1", "*/*", "image/avif,image/webp,image/png,*/*;q=0.8"}
function init(args)
    for number = 1, 15 do
        local headers = {}
        for name, value in pairs(wrk.headers) do headers[name] = value end
        headers["Accept"] = kinds[number % 3 + 1]
        headers["Referer"] = "http://www.example.org/articles/" .. number .. ".html"
        parts[number] = wrk.format("GET", "/?part=" .. number, headers)
    end
end
function request()
    next_part = next_part % #parts + 1
    return parts[next_part]
end
"""
_POST = f"""\
wrk.method = "POST"
wrk.body = string.rep("x", {BODY_SIZE})
"""


class HttpRequests(Scenario):
    """Unit of work: a GET request like a browser's, and its answer of 12 bytes."""

    work = "request"
    family = "HTTP requests"
    axis = "connections at once"
    programs = ("wrk", "nginx")
    figures: tuple[Figure, ...] = RATE_FIGURES
    path = PAGE
    script = _SCRIPT
    least = 0
    """Bytes that an answer has at the least."""
    counted = 1
    """How often the target counts a request."""

    def __init__(self, at: int, *, in_quick: bool) -> None:
        self.at = at
        self.in_quick = in_quick
        self.name = f"http-requests-{at}"
        self.title = f"HTTP keep-alive requests, {at} at once"

    def is_about(self, peer: Peer) -> bool:
        """Those that put a field into each request."""
        return peer.header == HEADER_HTTP

    def measure(self, trial: Trial, peer: Peer, *, quick: bool) -> dict[str, float]:
        """See Scenario."""
        site = Site()
        relay = set_up(trial, peer, site)
        if peer.header == HEADER_HTTP:
            _check_named(trial, relay)
        script = trial.write("wrk.lua", self.script)
        url = relay.url + self.path.lstrip("/")
        base = ["wrk", "-t", "1", "-c", str(self.at), "-s", script]
        reported(trial.run("client", *base, "-d", f"{_WARM_UP}s", url), self.least)
        before = _counted(trial, site)
        with Meter(relay.roots) as meter:
            seconds = _SECONDS.of(quick=quick)
            output = trial.run("client", *base, "-d", f"{seconds}s", url)
        report = reported(output, self.least)
        _check_count(report["requests"], (_counted(trial, site) - before) / self.counted, self.at)
        work, scale = self.amount(report["requests"])
        figures = {"rate": work / report["seconds"], "p50": report["p50"], "p99": report["p99"]}
        return figures | costs(relay, meter.usage, work, scale=scale)

    def amount(self, requests: int) -> tuple[float, float]:
        """Units of work in so many requests; and what CPU seconds are multiplied with."""
        return requests, 1e6


class HttpParts(HttpRequests):
    """The same, with fields that change from request to request: nothing read can be reused."""

    family = "HTTP requests that differ"
    script = _SCRIPT + _PARTS

    def __init__(self, at: int, *, in_quick: bool) -> None:
        super().__init__(at, in_quick=in_quick)
        self.name = f"http-parts-{at}"
        self.title = f"HTTP keep-alive requests that differ, {at} at once"


class HttpBodies(HttpRequests):
    """Unit of work: a GB (10^9 bytes) of bodies of 1 MiB; `up` is from client to target."""

    work = "GB"
    figures = (
        Figure("rate", "speed", "GB/s", higher_is_better=True, column=SPEED),
        P50_LATENCY,
        P99_LATENCY,
        Figure("cpu", "CPU", "s/GB", column=CPU),
        PEAK,
    )

    def __init__(self, direction: str, *, in_quick: bool) -> None:
        super().__init__(_BODIES_AT_ONCE, in_quick=in_quick)
        self.name = f"http-bodies-{direction}"
        self.family = f"HTTP bodies {direction}"
        self.title = f"HTTP bodies of 1 MiB {direction}, {self.at} at once"
        if direction == "up":
            self.path, self.script, self.counted = UPLOAD, _SCRIPT + _POST, 2
        else:
            self.path, self.least = BODY_FILE, BODY_SIZE

    def is_about(self, peer: Peer) -> bool:
        """Also v6fwd as a TCP relay."""
        return super().is_about(peer) or (peer.name == "v6fwd" and peer.header == HEADER_OFF)

    def amount(self, requests: int) -> tuple[float, float]:
        """See HttpRequests."""
        return requests * BODY_SIZE / _GB, 1.0


def reported(output: str, least: int) -> dict[str, Any]:
    """What our script says of wrk's run. Raises TrialError unless all is well.

    `least`: bytes that every answer has at the least.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise TrialError("wrk gave no report")
    report: dict[str, Any] = json.loads(lines[0])
    if not report["requests"] or report["errors"]:
        raise TrialError(f"wrk: {report['requests']} requests, {report['errors']} errors")
    if report["bytes"] < report["requests"] * least:
        raise TrialError(f"wrk got {report['bytes']} bytes in {report['requests']} answers")
    return report


def _check_named(trial: Trial, relay: Relay) -> None:
    """The target must name the client to each request of a connection."""
    words = (*helper_command("gets"), relay.host, str(relay.port), WHO, str(_ASKED))
    told, wanted = trial.run("client", *words), f"{trial.ground.client}\n" * _ASKED
    if told != wanted:
        raise TrialError(f"the target answered {told!r}, not {wanted!r}")


def _counted(trial: Trial, site: Site) -> int:
    """Requests that the target has had, this one not counted."""
    words = (*helper_command("gets"), trial.ground.target_host, str(site.port), COUNT, "1")
    told = trial.run("container", *words)
    found = re.search(r"requests\s+\d+ \d+ (\d+)", told)
    if found is None:
        raise TrialError(f"the target counts nothing: {told!r}")
    return int(found[1])


def _check_count(answers: int, counted: float, at: int) -> None:
    """What wrk had under way at its end, and our own questions, may be counted on top."""
    if not answers <= counted <= answers + at + 1:
        raise TrialError(f"wrk had {answers} answers, the target {counted:.0f} requests")
