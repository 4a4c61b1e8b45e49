"""The daemon's status as Prometheus reads it, and the dashboard that is drawn from it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from v6fwd.daemon.metrics import INDEX, UDP_DROPS, pages, render
from v6fwd.daemon.reloads import Reloads
from v6fwd.daemon.usage import Usage
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.docker.report import report
from v6fwd.errors import reason
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Transparent
from v6fwd.relay.admission import REASONS
from v6fwd.relay.counters import DURATIONS, Counters, snapshot_of
from v6fwd.relay.ends import OTHER, Cause, End
from v6fwd.relay.udp.resources import UdpCounters

DASHBOARD = ROOT / "contrib" / "grafana-dashboard.json"

Labels = tuple[tuple[str, str], ...]


def a_forward(listen: str, *, udp: bool = False, **numbers: Any) -> dict[str, Any]:
    """A forward as the daemon's status has it."""
    words = {"listen": listen, "target": "172.17.0.2:80", "client_ip": "none", "state": "open"}
    details = {"udp": snapshot_of(UdpCounters())} if udp else {}
    return words | Counters().snapshot() | details | numbers


def status(*forwards: dict[str, Any]) -> dict[str, Any]:
    """A daemon with two workers."""
    workers = [{"slot": 0, "pid": 1, "since": 1.0}, {"slot": 1, "pid": 2, "since": 1.0}]
    daemon = {"version": "1.2.3", "pid": 3, "since": 1.5e9, "workers": workers, "restarts": 4}
    daemon["bans"] = 5
    daemon |= {"reloads": Reloads().report(), "processes": {"supervisor": Usage(1.5, 4096, 9, 64)}}
    return {**daemon, "forwards": list(forwards)}


def samples(*forwards: dict[str, Any]) -> dict[str, dict[Labels, float]]:
    """What Prometheus' own parser makes of the text: name, labels, value."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(render(status(*forwards)).decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


def of(listen: str, **labels: str) -> Labels:
    """The labels of a sample of one forward."""
    return tuple(sorted({"listen": listen, **labels}.items()))


def test_a_daemon_without_forwards() -> None:
    found = samples()
    ((labels, one),) = found["v6fwd_build_info"].items()
    assert (dict(labels)["version"], one) == ("1.2.3", 1)
    assert found["v6fwd_start_time_seconds"] == {(): 1.5e9}
    assert found["v6fwd_workers"] == {(): 2}
    assert found["v6fwd_worker_restarts_total"] == {(): 4}
    assert found["v6fwd_bans"] == {(): 5}


def test_flows_and_bytes() -> None:
    numbers: dict[str, Any] = {"flows": 7, "ended": 4, "bytes_up": 100, "bytes_down": 2000}
    found = samples(a_forward("[::]:80", **numbers), a_forward("[::]:81"))
    assert found["v6fwd_flows_total"] == {of("[::]:80"): 7, of("[::]:81"): 0}
    assert found["v6fwd_flows_active"] == {of("[::]:80"): 3, of("[::]:81"): 0}
    assert found["v6fwd_bytes_total"][of("[::]:80", direction="up")] == 100
    assert found["v6fwd_bytes_total"][of("[::]:80", direction="down")] == 2000


def test_what_a_forward_is_stands_in_one_place() -> None:
    found = samples(a_forward("[::]:80"))
    labels = of("[::]:80", target="172.17.0.2:80", client_ip="none", state="open", container="")
    assert found["v6fwd_forward_info"] == {labels: 1}
    with_target = [name for name, series in found.items() if "target" in str(series)]
    assert with_target == ["v6fwd_forward_info"]


def test_a_forward_that_only_finishes_its_flows() -> None:
    draining = a_forward("[::]:80", state="draining", flows=1)
    del draining["target"], draining["client_ip"]
    found = samples(draining)
    assert found["v6fwd_flows_active"] == {of("[::]:80"): 1}
    labels = of("[::]:80", target="", client_ip="", state="draining", container="")
    assert labels in found["v6fwd_forward_info"]


def test_the_container_of_a_port_of_dockers() -> None:
    """As the daemon's source of Docker's ports reports them."""
    port = Forward(Endpoint("::", 80), Endpoint("172.17.0.2", 80))
    adopted: Any = [SimpleNamespace(forward=port)]
    direct: Any = SimpleNamespace(forwards=lambda: ())
    found: Any = SimpleNamespace(
        containers=(), container_of=lambda _: Container("a" * 64, "web", "httpd")
    )
    ports = report(adopted, direct, found, Modes([], Transparent(), Log()))
    shown = status(a_forward(str(port.listen)), a_forward("[::]:81")) | ports
    infos = re.findall(r"v6fwd_forward_info\{(.*)\} 1.0", render(shown).decode())
    containers = {dict(re.findall(r'(\w+)="([^"]*)"', info))["listen"]: info for info in infos}
    assert 'container="web"' in containers["[::]:80"]
    assert 'container=""' in containers["[::]:81"]


def a_swarm(*states: str, **tasks: int) -> dict[str, Any]:
    """What the daemon tells of one, with ports that are served in these ways."""
    services = [
        {"service": name, "ports": [80], "here": 1, "elsewhere": count}
        for name, count in tasks.items()
    ]
    ports = [
        {"listen": f"[::]:{at}", "container": "service web", "state": state}
        for at, state in enumerate(states)
    ]
    nodes = [{"node": "203.0.113.11", "here": True, "tasks": 0}] * 3
    return {"services": services, "nodes": nodes, "published": ports, "swarm": [{"told": 1.25e9}]}


def test_a_swarm() -> None:
    told = status() | a_swarm("served", "left", "served", web=2, dns=0)
    lines = render(told).decode().splitlines()
    assert [line for line in lines if line.startswith("v6fwd_swarm")] == [
        "v6fwd_swarm_answer_timestamp_seconds 1.25e+09",
        "v6fwd_swarm_nodes 3.0",
        'v6fwd_swarm_tasks{service="web",where="here"} 1.0',
        'v6fwd_swarm_tasks{service="web",where="elsewhere"} 2.0',
        'v6fwd_swarm_tasks{service="dns",where="here"} 1.0',
        'v6fwd_swarm_tasks{service="dns",where="elsewhere"} 0.0',
        'v6fwd_swarm_ports{state="served"} 2.0',
        'v6fwd_swarm_ports{state="handed-over"} 0.0',
        'v6fwd_swarm_ports{state="left"} 1.0',
    ]


def test_without_a_swarm_there_is_nothing_of_it() -> None:
    assert not [name for name in samples() if "swarm" in name]


def test_processes() -> None:
    found = samples()
    who = (("process", "supervisor"),)
    assert found["v6fwd_process_cpu_seconds_total"] == {who: 1.5}
    assert found["v6fwd_process_resident_memory_bytes"] == {who: 4096}
    assert found["v6fwd_process_open_fds"] == {who: 9}
    assert found["v6fwd_process_max_fds"] == {who: 64}


def test_reloads() -> None:
    shown, reloads = status(), Reloads()
    reloads.note(succeeded=True)
    reloads.note(succeeded=False)
    shown["reloads"] = reloads.report() | {"last": 1.25e9}
    text = render(shown).decode()
    assert 'v6fwd_reloads_total{result="success"} 1.0\n' in text
    assert 'v6fwd_reloads_total{result="failure"} 1.0\n' in text
    assert "v6fwd_last_reload_successful 0.0\n" in text
    assert "v6fwd_last_reload_timestamp_seconds 1.25e+09\n" in text
    reloads.note(succeeded=True)
    shown["reloads"] = reloads.report()
    assert "v6fwd_last_reload_successful 1.0\n" in render(shown).decode()


def test_a_page_says_what_there_is() -> None:
    """Every other page has its link, and nothing is loaded from anywhere."""

    async def ask() -> dict[str, Any]:
        return status()

    others = pages(ask, lambda: "").keys() - {"/"}
    text = INDEX.body.decode()
    assert {f"/{link}" for link in re.findall(r'href="([^"]+)"', text)} == others
    assert "://" not in text
    assert "src=" not in text
    (policy,) = (each for each in INDEX.fields if each.startswith("Content-Security-Policy: "))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_durations_add_up() -> None:
    counters = Counters()
    for seconds in (0.005, 0.01, 0.5, 5000.0):
        counters.flow_ended(End.CLOSED, 0, 0, seconds)
    found = samples(a_forward("[::]:80", **counters.snapshot()))
    buckets = found["v6fwd_flow_duration_seconds_bucket"]
    by_bound = {dict(labels)["le"]: count for labels, count in buckets.items()}
    assert by_bound == {
        "0.01": 2, "0.1": 2, "1.0": 3, "10.0": 3, "60.0": 3, "600.0": 3, "3600.0": 3, "+Inf": 4,
    }  # fmt: skip
    assert len(by_bound) == len(DURATIONS) + 1
    assert found["v6fwd_flow_duration_seconds_count"] == {of("[::]:80"): 4}
    assert found["v6fwd_flow_duration_seconds_sum"][of("[::]:80")] == pytest.approx(5000.515)


def test_failures_by_cause() -> None:
    failures = {"connection refused": 3, "no route to host": 2, "host is down": 1, "odd": 4, "": 1}
    found = samples(a_forward("[::]:80", dial_failures=failures))
    assert found["v6fwd_dial_failures_total"] == {
        of("[::]:80", cause="refused"): 3,
        of("[::]:80", cause="host-unreachable"): 3,
        of("[::]:80", cause=OTHER): 5,
    }


def test_every_errno_has_a_bounded_label() -> None:
    texts = {reason(OSError(number, "")): 1 for number in errno.errorcode}
    found = samples(a_forward("[::]:80", dial_failures=texts))
    causes = {dict(labels)["cause"] for labels in found["v6fwd_dial_failures_total"]}
    assert causes == {*(cause.label for cause in Cause), OTHER}


def test_refusals_by_reason() -> None:
    refused = dict.fromkeys(REASONS, 1)
    found = samples(a_forward("[::]:80", header_refused=2, http_refused=3, refused=refused))
    assert found["v6fwd_refused_total"] == {
        of("[::]:80", reason="header"): 2,
        of("[::]:80", reason="http"): 3,
        **{of("[::]:80", reason=reason): 1 for reason in REASONS},
    }


def test_ends() -> None:
    found = samples(a_forward("[::]:80", ends={"closed": 2, "cut at stop": 1, "stopped": 1}))
    assert found["v6fwd_flow_ends_total"] == {
        of("[::]:80", end="closed"): 2,
        of("[::]:80", end="cut"): 2,
    }


def test_an_end_of_another_version_is_counted_all_the_same() -> None:
    found = samples(a_forward("[::]:80", ends={"eaten by a dog": 3, "closed": 1}))
    assert found["v6fwd_flow_ends_total"] == {
        of("[::]:80", end=OTHER): 3,
        of("[::]:80", end="closed"): 1,
    }


def test_datagrams() -> None:
    numbers = UdpCounters(refused=5, too_large=1, no_room=2)
    found = samples(a_forward("[::]:53/udp", udp=True) | {"udp": snapshot_of(numbers)})
    listen = "[::]:53/udp"
    assert found["v6fwd_udp_target_refusals_total"] == {of(listen): 5}
    dropped = found["v6fwd_udp_datagrams_dropped_total"]
    assert dropped[of(listen, cause="too-large")] == 1
    assert dropped[of(listen, cause="no-room")] == 2
    assert len(dropped) == len(UDP_DROPS)


def test_every_counter_of_datagrams_is_there() -> None:
    assert set(snapshot_of(UdpCounters())) == {*UDP_DROPS, "refused", "sessions"}


def families() -> Iterator[Any]:
    """All that there are."""
    everything = a_forward("[::]:53/udp", udp=True, refused={"denied": 1}, ends={"closed": 1})
    everything["dial_failures"] = {"connection refused": 1}
    told = status(everything) | a_swarm("served", web=1)
    yield from text_string_to_metric_families(render(told).decode())


def test_names_follow_the_conventions() -> None:
    """prometheus.io/docs/practices/naming: a prefix, base units, `_total` for what adds up."""
    for family in families():
        assert family.name.startswith("v6fwd_")
        assert family.documentation.endswith(".")
        assert not re.search(r"(milli|micro|kilo|mega|minutes|hours)", family.name)
        assert (family.type == "counter") == all(
            sample.name.endswith("_total") for sample in family.samples
        )


def test_the_documentation_names_every_metric_and_no_other() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    told = set(re.findall(r"`(v6fwd_\w+)`", text))
    exporting = {
        re.sub(r"_(bucket|sum|count)$", "", sample.name)
        for family in families()
        for sample in family.samples
    }
    assert told == exporting


def test_prometheus_client_is_there_only_where_it_is_wanted() -> None:
    """It takes memory: a daemon without metrics does not import it."""
    assert loaded_with("v6fwd.daemon.serve") & {"prometheus_client"} == set()


def test_forward_has_nothing_of_the_daemon() -> None:
    """One process a port is what docker-proxy has: memory counts."""
    loaded = loaded_with("v6fwd.cli.serving, v6fwd.relay.life.alone, v6fwd.relay.foreground")
    assert "v6fwd.relay.tcp.flow" in loaded
    assert not loaded & {"tomllib", "prometheus_client", "v6fwd.daemon.serve", "v6fwd.docker"}


def test_forward_has_nothing_of_other_modes() -> None:
    """What a TCP forward in mode none does not need costs 7 MB."""
    loaded = loaded_with("v6fwd.cli.serving, v6fwd.relay.life.alone, v6fwd.relay.foreground")
    others = {"v6fwd.relay.http.flow", "v6fwd.relay.udp.listener", "v6fwd.relay.transparent.target"}
    assert not loaded & {"ssl", "_hashlib", "httptools", "proxyprotocol", *others}


def loaded_with(module: str) -> set[str]:
    """All modules that there are in a process that imports this one."""
    code = f"import sys, {module}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(told.stdout.split())


# ---- the dashboard ---------------------------------------------------------------------------


def expressions(node: Any) -> Iterator[str]:
    """Every query in a dashboard."""
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        if isinstance(node.get("query"), dict):
            yield node["query"]["query"]
        for value in node.values():
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def exported() -> dict[str, set[str]]:
    """Names of samples, with the labels that each has."""
    found: dict[str, set[str]] = {}
    for family in families():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_the_dashboard_asks_for_nothing_that_is_not_there() -> None:
    known = exported()
    queries = list(expressions(json.loads(DASHBOARD.read_text())))
    asked = {name for query in queries for name in re.findall(r"\bv6fwd_\w+", query)}
    assert len(queries) >= 10
    assert asked <= known.keys()
    labels = set().union(*known.values()) | {"instance", "job"}
    for query in queries:
        for names in re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", query):
            assert set(re.split(r",\s*", names)) <= labels, query
        for matchers in re.findall(r"\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)(?==|!)", matchers)) <= labels, query


def test_the_dashboard_shows_every_metric() -> None:
    queries = " ".join(expressions(json.loads(DASHBOARD.read_text())))
    for family in families():
        assert family.name in queries, family.name


def test_the_dashboard_names_its_source_by_a_variable() -> None:
    text = DASHBOARD.read_text()
    uids = set(re.findall(r'"uid": "([^"]*)"', text)) - {"v6fwd"}
    assert uids == {"${source}"}
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert os.linesep in text
