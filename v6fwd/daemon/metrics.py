"""What Prometheus reads: the daemon's status as metrics, names and units by its conventions.

Imported only where metrics are wanted: prometheus-client takes 2.6 MB.

Labels are bounded: `listen` is one of the forwards, `service` one of those with ports in Swarm's
mesh, everything else one of the words below.
`v6fwd_forward_info` alone has a forward's target, mode and container, to be joined where wanted: a
reload that changes them begins no new series. `process` is `supervisor`, or has a worker's slot:
one that is replaced goes on with the series of the dead one.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from v6fwd import __version__
from v6fwd.daemon.usage import Usage
from v6fwd.daemon.web import Page, Pages
from v6fwd.relay.counters import DURATIONS
from v6fwd.relay.ends import OTHER, Cause, End, cause_of, end_of

UDP_DROPS = ("too_large", "full", "failed", "no_header", "no_room")
"""Fields of relay.udp.resources.UdpCounters that count datagrams."""

Status = Mapping[str, Any]
"""What `serve` answers to `status`, with `processes`: see daemon.serve."""

INDEX = Page(
    f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>v6fwd</title>
<h1>v6fwd {__version__}</h1>
<ul>
<li><a href="metrics">/metrics</a>: figures of this daemon, for Prometheus
<li><a href="healthz">/healthz</a>: 200 while its workers are well, else 503
</ul>
</html>
""".encode(),
    content_type="text/html; charset=utf-8",
    fields=(
        "Content-Security-Policy: default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff",
    ),
)
"""Says what there is. It has no script, style or picture, and may load none."""


def pages(ask: Callable[[], Awaitable[Status]], trouble: Callable[[], str]) -> Pages:
    """Return the pages: /metrics of what `ask` returns; /healthz, well if `trouble` is ""; /."""

    async def metrics() -> Page:
        return Page(render(await ask()), CONTENT_TYPE_LATEST)

    async def health() -> Page:
        if not (text := trouble()):
            return Page(b"ok\n")
        return Page(f"{text}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def index() -> Page:
        return INDEX

    return {"/": index, "/metrics": metrics, "/healthz": health}


def render(status: Status) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(status))
    return generate_latest(registry)


class _Once(Collector):
    """Collects from one status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        forwards = self._status["forwards"]
        yield from _of_the_daemon(self._status)
        yield from _of_reloads(self._status["reloads"])
        yield from _of_processes(self._status["processes"])
        yield _info(forwards, self._status.get("published", ()))
        yield from _of_flows(forwards)
        yield _durations(forwards)
        yield from _of_failures(forwards)
        yield _mismatches(forwards)
        yield from _of_datagrams(forwards)
        for told in self._status.get("swarm", ()):
            yield from _of_the_swarm(self._status, told["told"])


def _of_the_daemon(status: Status) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "v6fwd_build",
        "Version of v6fwd and of Python.",
        value={"version": status["version"], "python": platform.python_version()},
    )
    yield GaugeMetricFamily(
        "v6fwd_start_time_seconds", "When the daemon began, since 1970.", status["since"]
    )
    yield GaugeMetricFamily("v6fwd_workers", "Worker processes alive.", len(status["workers"]))
    yield GaugeMetricFamily("v6fwd_bans", "Networks and addresses that are banned.", status["bans"])
    yield CounterMetricFamily(
        "v6fwd_worker_restarts", "Workers started in place of dead ones.", status["restarts"]
    )


def _of_reloads(reloads: Status) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "v6fwd_reloads", "Reloads of the configuration, by result.", labels=["result"]
    )
    for result, count in reloads["counts"].items():
        total.add_metric([result], count)
    yield total
    yield GaugeMetricFamily(
        "v6fwd_last_reload_successful",
        "1 if the last reload, or the start, has applied the configuration.",
        reloads["succeeded"],
    )
    yield GaugeMetricFamily(
        "v6fwd_last_reload_timestamp_seconds",
        "When the last reload, or the start, was, since 1970.",
        reloads["last"],
    )


def _of_processes(processes: Mapping[str, Usage]) -> Iterator[Metric]:
    names = ["process"]
    cpu = CounterMetricFamily(
        "v6fwd_process_cpu_seconds", "Processor time, user and system.", labels=names
    )
    memory = GaugeMetricFamily(
        "v6fwd_process_resident_memory_bytes",
        "Memory in use; what processes share counts in each.",
        labels=names,
    )
    fds = GaugeMetricFamily("v6fwd_process_open_fds", "Open descriptors.", labels=names)
    most = GaugeMetricFamily("v6fwd_process_max_fds", "Limit of descriptors.", labels=names)
    for name, usage in processes.items():
        cpu.add_metric([name], usage.cpu)
        memory.add_metric([name], usage.resident)
        fds.add_metric([name], usage.open_fds)
        most.add_metric([name], usage.max_fds)
    yield from (cpu, memory, fds, most)


def _info(forwards: Iterable[Status], published: Iterable[Status]) -> Metric:
    family = InfoMetricFamily(
        "v6fwd_forward",
        "What a forward is.",
        labels=["listen", "target", "client_ip", "state", "container"],
    )
    containers = {port["listen"]: port["container"] for port in published}
    for each in forwards:
        listen = each["listen"]
        words = [listen, each.get("target", ""), each.get("client_ip", ""), each["state"]]
        family.add_metric([*words, containers.get(listen, "")], {})
    return family


def _of_flows(forwards: Iterable[Status]) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "v6fwd_flows", "Connections accepted and UDP sessions made.", labels=["listen"]
    )
    active = GaugeMetricFamily("v6fwd_flows_active", "Flows that live.", labels=["listen"])
    moved = CounterMetricFamily(
        "v6fwd_bytes",
        "Payload passed on: up to targets, down to clients.",
        labels=["listen", "direction"],
    )
    ends = CounterMetricFamily("v6fwd_flow_ends", "How flows ended.", labels=["listen", "end"])
    for each in forwards:
        listen = each["listen"]
        total.add_metric([listen], each["flows"])
        active.add_metric([listen], each["flows"] - each["ended"])
        moved.add_metric([listen, "up"], each["bytes_up"])
        moved.add_metric([listen, "down"], each["bytes_down"])
        _add(ends, listen, each["ends"], end_of)
    yield from (total, active, moved, ends)


def _durations(forwards: Iterable[Status]) -> Metric:
    family = HistogramMetricFamily(
        "v6fwd_flow_duration_seconds", "How long flows lasted that are over.", labels=["listen"]
    )
    for each in forwards:
        buckets, count = [], 0
        for bound, flows in zip([*map(str, DURATIONS), "+Inf"], each["durations"], strict=True):
            count += flows
            buckets.append((bound, count))
        family.add_metric([each["listen"]], buckets, each["seconds"])
    return family


def _of_failures(forwards: Iterable[Status]) -> Iterator[Metric]:
    dials = CounterMetricFamily(
        "v6fwd_dial_failures", "Targets that could not be reached.", labels=["listen", "cause"]
    )
    refused = CounterMetricFamily(
        "v6fwd_refused",
        "Clients that were not served, by who refused.",
        labels=["listen", "reason"],
    )
    for each in forwards:
        listen = each["listen"]
        _add(dials, listen, each["dial_failures"], cause_of)
        refused.add_metric([listen, "header"], each["header_refused"])
        refused.add_metric([listen, "http"], each["http_refused"])
        for why, count in each["refused"].items():
            refused.add_metric([listen, why], count)
    yield from (dials, refused)


def _mismatches(forwards: Iterable[Status]) -> Metric:
    family = GaugeMetricFamily(
        "v6fwd_mismatch",
        "1 if no client is served, as the target seems to expect another client-ip mode.",
        labels=["listen"],
    )
    for each in forwards:
        family.add_metric([each["listen"]], bool(each.get("mismatch")))
    return family


def _of_datagrams(forwards: Iterable[Status]) -> Iterator[Metric]:
    dropped = CounterMetricFamily(
        "v6fwd_udp_datagrams_dropped", "Datagrams not passed on.", labels=["listen", "cause"]
    )
    gone = CounterMetricFamily(
        "v6fwd_udp_target_refusals", "Times that a UDP target was not there.", labels=["listen"]
    )
    for each in forwards:
        if "udp" not in each:
            continue
        for name in UDP_DROPS:
            dropped.add_metric([each["listen"], name.replace("_", "-")], each["udp"][name])
        gone.add_metric([each["listen"]], each["udp"]["refused"])
    yield from (dropped, gone)


def _of_the_swarm(status: Status, told: float) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "v6fwd_swarm_answer_timestamp_seconds",
        "When the local Engine last told of the swarm, since 1970; 0: not yet.",
        told,
    )
    yield GaugeMetricFamily(
        "v6fwd_swarm_nodes", "Nodes of the swarm that the Engine knows.", len(status["nodes"])
    )
    tasks = GaugeMetricFamily(
        "v6fwd_swarm_tasks",
        "Tasks of a service with ports in the routing mesh, on this node or elsewhere.",
        labels=["service", "where"],
    )
    for each in status["services"]:
        for where in ("here", "elsewhere"):
            tasks.add_metric([each["service"], where], each[where])
    ports = GaugeMetricFamily(
        "v6fwd_swarm_ports",
        "Ports of the routing mesh, by how this node serves them.",
        labels=["state"],
    )
    states = Counter(each["state"] for each in status["published"] if "state" in each)
    for state in ("served", "handed-over", "left"):
        ports.add_metric([state], states[state])
    yield from (tasks, ports)


def _add(
    family: CounterMetricFamily,
    listen: str,
    counts: Mapping[str, int],
    member_of: Callable[[str], End | Cause | None],
) -> None:
    """Add counts by text as counts by label; several texts may have one label."""
    sums: dict[str, int] = {}
    for text, number in counts.items():
        member = member_of(text)
        label = member.label if member else OTHER
        sums[label] = sums.get(label, 0) + number
    for label, number in sums.items():
        family.add_metric([listen, label], number)
