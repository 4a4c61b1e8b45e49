"""The table of `v6fwd docker status`."""

from __future__ import annotations

import re
from typing import Any

from v6fwd.cli.docker_status import Told, rows, text
from v6fwd.docker.shim.published import PublishedPort, ServedBy
from v6fwd.model import Endpoint, Forward
from v6fwd.relay.counters import Counters

TARGET = "172.17.0.2:80"


def port(number: int, served_by: ServedBy = ServedBy.DAEMON) -> PublishedPort:
    forward = Forward(Endpoint("::", number), Endpoint("172.17.0.2", 80))
    return PublishedPort(forward, served_by, 1000 + number)


def served(number: int, mode: str, **counts: Any) -> dict[str, Any]:
    ends = {"listen": f"[::]:{number}", "target": TARGET}
    return {**ends, "client_ip": mode, "state": "open", **Counters(**counts).snapshot()}


def published(number: int, container: str, source: str) -> dict[str, str]:
    ends = {"listen": f"[::]:{number}", "target": TARGET}
    return {**ends, "container": container, "source": source}


def held(number: int, why: str) -> dict[str, str]:
    return {"listen": f"[::]:{number}", "target": TARGET, "why": why}


NAMES = (
    "LISTEN",
    "TARGET",
    "SERVED BY",
    "CLIENT-IP",
    "WHY",
    "CONTAINER",
    "LIVE",
    "FLOWS",
    "PROCESS",
)


def shown(answer: dict[str, Any], *ports: PublishedPort) -> tuple[list[dict[str, str]], list[str]]:
    """The rows, each by column, and the lines below them."""
    told = Told.of({"forwards": [], **answer})
    found = rows(ports, told)
    head, *lines = text(found, told).splitlines()
    assert re.split("  +", head) == [*NAMES]
    cells = [re.split("  +", line) for line in lines[: len(found)]]
    return [dict(zip(NAMES, some, strict=True)) for some in cells], lines[len(found) :]


def test_what_decided() -> None:
    answer = {
        "forwards": [
            served(1, "proxy-v2", flows=5, ended=3),
            served(2, "none"),
            served(3, "transparent", flows=2, not_real={"pseudo": 2}),
        ],
        "published": [
            published(1, "web", "label v6fwd.client-ip"),
            published(2, "db", "default"),
            published(3, "mail", "rule 1"),
        ],
    }
    first, second, third = shown(answer, port(1), port(2), port(3))[0]
    assert (first["CONTAINER"], first["WHY"]) == ("web", "label v6fwd.client-ip")
    assert (first["LIVE"], first["FLOWS"], first["PROCESS"]) == ("2", "5", "pid 1001")
    assert (second["CLIENT-IP"], second["WHY"]) == ("none", "default")
    assert (third["CLIENT-IP"], third["WHY"]) == ("transparent (2 pseudo)", "rule 1")


def test_where_nothing_is_known() -> None:
    """The daemon is silent, or another program serves the port."""
    first, second = shown({}, port(1), port(2, ServedBy.DOCKER))[0]
    assert first["CLIENT-IP"] == "waits for v6fwd serve"
    assert second["CLIENT-IP"] == "none"
    for row in (first, second):
        assert {row[name] for name in ("WHY", "CONTAINER", "LIVE", "FLOWS")} == {"-"}


def test_why_a_port_is_held() -> None:
    answer = {
        "held": [held(1, "refused, as a label is wrong"), held(2, "its container starts")],
        "published": [published(1, "web", "error: label v6fwd.client-ip"), published(2, "", "")],
    }
    found, below = shown(answer, port(1), port(2))
    assert [row["CLIENT-IP"] for row in found] == ["held", "held"]
    assert [row["WHY"] for row in found] == ["error: label v6fwd.client-ip", "see below"]
    assert below == ["[::]:1: refused, as a label is wrong", "[::]:2: its container starts"]


def test_a_port_that_dockerd_starts_no_process_for() -> None:
    answer = {
        "forwards": [served(1, "proxy-v2", flows=1)],
        "published": [published(1, "web", "label v6fwd.client-ip")],
    }
    (row,) = shown(answer)[0]
    assert (row["SERVED BY"], row["CONTAINER"], row["PROCESS"]) == ("v6fwd serve", "web", "-")


def test_a_swarm() -> None:
    """Its ports, and tables of services and nodes below."""
    port_of_mesh = published(1, "service web", "hop") | {"tasks": "by 2 nodes with tasks"}
    answer = {
        "published": [port_of_mesh],
        "services": [
            {"service": "web", "ports": [8080, 8443], "here": 0, "elsewhere": 12},
            {"service": "x\x1b", "ports": [53], "here": 1, "elsewhere": 0},
        ],
        "nodes": [
            {"node": "203.0.113.11", "here": True, "tasks": 1},
            {"node": "203.0.113.12", "here": False, "tasks": 12},
        ],
    }
    (row,), below = shown(answer)
    assert row["CONTAINER"] == "service web: by 2 nodes with tasks"
    assert below == [
        "",
        "SERVICE  PORTS      HERE  ELSEWHERE",
        "web      8080 8443     0         12",
        "x\\x1b    53            1          0",
        "",
        "NODE                     TASKS",
        "203.0.113.11 (this one)      1",
        "203.0.113.12                12",
    ]


def test_a_node_that_the_gossip_leaves_out() -> None:
    _, below = shown({"nodes": [{"node": "", "here": True, "tasks": 0}]}, port(1))
    assert below == ["", "NODE        TASKS", "(this one)      0"]


def test_wrong_labels_are_below_and_nothing_in_them_is_obeyed() -> None:
    label = "container web: label v6fwd.client-ip.81=\x1b[2J: the container publishes no port 81"
    _, below = shown({"labels": [label]}, port(1))
    assert below == [label.replace("\x1b", "\\x1b")]


def test_a_daemon_of_release_0_1_tells_less() -> None:
    told = Told.of({"forwards": [served(1, "none")]})
    assert rows([port(1)], told)[0].container == "-"
