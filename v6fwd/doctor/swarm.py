"""Checks of the ports that Swarm publishes through its routing mesh. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from v6fwd.docker.engine.containers import SERVICE
from v6fwd.docker.policy.labels import read_labels
from v6fwd.doctor.facts import Facts, is_ingress, known
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.doctor.serving import running
from v6fwd.model import ClientIP

_DAEMON = "the mesh as `v6fwd serve` knows it"


def held_by_dockerd(facts: Facts) -> Iterator[Finding]:
    """Ports of which dockerd has the socket, accepts nobody, and nobody else does.

    `v6fwd serve` takes dockerd's socket, which dockerd keeps, too.
    """
    by_others = _open(facts) | {each["listen"] for each in _left(facts)}
    for port in facts.ports():
        for socket in facts.listeners(port):
            owner = facts.owners.get(socket.inode)
            if owner is None or not is_ingress(socket, owner) or f"[::]:{port}" in by_others:
                continue
            yield Finding(
                "swarm-ingress",
                Severity.ERROR,
                f"the listener of port {port}",
                f"{socket.host}:{port} is held by {owner}, which never accepts",
                "an ingress port of Swarm is for IPv4 alone: IPv6 clients connect, and hang",
                "swarm = true below [docker] in v6fwd.toml and v6fwd serve --docker, on every"
                f" node; or docker service update --publish-rm {port.number} --publish-add"
                f" mode=host,published={port.number},target=TARGET SERVICE",
            )


def left_to_docker(facts: Facts) -> Iterator[Finding]:
    """Ports that the daemon knows and does not serve."""
    status = known(facts.status) or {}
    why = {each["listen"]: each["why"] for each in status.get("held") or ()}
    for each in _left(facts):
        listen = each["listen"]
        yield Finding(
            "mesh-left",
            Severity.ERROR,
            _DAEMON,
            f"{listen} of {each['container']}: {why.get(listen, 'not served')}",
            "IPv6 clients of this node connect, and hang or are refused; IPv4 clients all look"
            " like the node",
            f'a [[docker.rule]] with service = "{_service(each)}" and a client-ip, if the label is'
            " not to be mended",
        )


def without_mode(facts: Facts) -> Iterator[Finding]:
    """Ports that are served in mode `none`, as nobody said another one."""
    modes = {each["listen"]: each.get("client_ip") for each in _forwards(facts)}
    for each in _of_the_mesh(facts):
        if each["state"] != "served" or modes.get(each["listen"]) != ClientIP.NONE:
            continue
        if each["source"] != "label" or _has_label(facts, _service(each)):
            continue  # somebody wants it
        yield Finding(
            "mesh-client-lost",
            Severity.WARNING,
            _DAEMON,
            f"{each['listen']} of {each['container']} has neither a rule nor a label: mode none",
            "its tasks see the node in place of every client, over IPv6 and IPv4",
            f'a [[docker.rule]] with service = "{_service(each)}" and client-ip = "proxy-v2"'
            " (or another mode), on every node; or docker service update --container-label-add"
            f" v6fwd.client-ip=transparent {_service(each)}",
        )


def _of_the_mesh(facts: Facts) -> list[Mapping[str, Any]]:
    """Ports of the mesh, as the daemon tells of them."""
    status = known(facts.status) or {}
    return [each for each in status.get("published") or () if "state" in each]


def _left(facts: Facts) -> list[Mapping[str, Any]]:
    return [each for each in _of_the_mesh(facts) if each["state"] == "left"]


def _forwards(facts: Facts) -> list[Mapping[str, Any]]:
    status = known(facts.status) or {}
    return [each for each in status.get("forwards") or () if each.get("state") == "open"]


def _has_label(facts: Facts, service: str) -> bool:
    """Whether a task of the service on this node has a label about a mode."""
    return any(
        read_labels(container.labels).labels
        for container in running(facts)
        if container.labels.get(SERVICE) == service
    )


def _open(facts: Facts) -> set[str]:
    return {each["listen"] for each in _forwards(facts)}


def _service(port: Mapping[str, Any]) -> str:
    return str(port["container"]).removeprefix("service ")
