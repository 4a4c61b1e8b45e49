"""Checks of a rootless Docker: RootlessKit takes the clients of its published ports. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from v6fwd.doctor.facts import ROOTLESS_KIT, Facts, Port
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.doctor.serving import running

PAGE = "docs/rootless.md"


def published_ports(facts: Facts) -> Iterator[Finding]:
    """Ports that RootlessKit has for IPv6: it relays each client from an address of its own."""
    for port in facts.ports():
        for socket in facts.listeners(port):
            owner = facts.owners.get(socket.inode)
            if owner is None or owner.name != ROOTLESS_KIT or 6 not in socket.families:
                continue
            name, target = _publisher(facts, port)
            yield Finding(
                "rootless",
                Severity.WARNING,
                f"the listener of port {port}",
                f"{owner} takes its clients: rootless Docker, container {name}",
                "RootlessKit relays every client before Docker sees it: the container takes all of"
                " them for the bridge, and no label changes that",
                _mend(port, target),
            )


def _publisher(facts: Facts, port: Port) -> tuple[str, str]:
    """The container that has the port, and which of its own it is; blanks where unknown."""
    for container in running(facts):
        for host_port, target, protocol in sorted(container.published):
            if (host_port, protocol) == (port.number, port.protocol):
                return container.name, str(target)
    return "CONTAINER", "TARGET"


def _mend(port: Port, target: str) -> str:
    """Out of RootlessKit's way, with a header; PAGE has mode transparent as well."""
    hidden = port.number + 10000 if port.number < 50000 else port.number - 10000
    slash = "/udp" if str(port).endswith("/udp") else ""
    return (
        f"recreate it with: --publish 127.0.0.1:{hidden}:{target}{slash}; then, with a server that"
        f" takes headers: v6fwd forward '[::]:{port}' 127.0.0.1:{hidden} --client-ip proxy-v2"
        f" ({PAGE} has the way without a header)"
    )
