"""What `v6fwd docker status` asks of the daemon: each port's container, and why it has its mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from v6fwd.docker.adopted_ports import AdoptedPorts
from v6fwd.docker.decisions import Decisions
from v6fwd.docker.direct_ports import DirectPorts
from v6fwd.docker.engine.containers import Container, find_containers
from v6fwd.docker.policy.mistakes import label_mistakes
from v6fwd.docker.policy.modes import Modes, needs_all
from v6fwd.model import Forward


def report(
    adopted: AdoptedPorts, direct: DirectPorts, decisions: Decisions, modes: Modes
) -> dict[str, Any]:
    """Return `published`, the ports, and `labels`, a line for each mistake in a label."""
    ports = [(port.forward, decisions.container_of(port)) for port in adopted]
    ports += ((forward, _only(decisions.containers, forward)) for forward in direct.forwards())
    by_listen = {forward.listen: (forward, container) for forward, container in ports}
    return {
        "published": [_described(*each, modes) for each in by_listen.values()],
        "labels": [*_mistakes(decisions.containers, modes)],
    }


def _only(containers: Sequence[Container], forward: Forward) -> Container | None:
    found = find_containers(containers, forward)
    return found[0] if len(found) == 1 else None


def _described(forward: Forward, container: Container | None, modes: Modes) -> dict[str, str]:
    return {
        "listen": str(forward.listen),
        "target": str(forward.target),
        "container": container.name if container is not None else "",
        "source": modes.source(forward, container),
        "ipv4": _ipv4(forward),
    }


def _ipv4(forward: Forward) -> str:
    """By whom the port's IPv4 clients come: `v6fwd` or `docker`, by its DNAT; "": it has none."""
    if ":" in forward.listen.host:
        return ""
    return "v6fwd" if needs_all(forward) else "docker"


def _mistakes(containers: Sequence[Container], modes: Modes) -> Iterator[str]:
    for container in containers:
        for mistake in label_mistakes(container, modes.rules):
            yield f"container {container.name}: {mistake}"
