"""Checks of v6fwd itself: its daemon, its shims, labels and rights. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from v6fwd import __version__
from v6fwd.docker.engine.containers import Container, find_containers, read_containers
from v6fwd.docker.policy.labels import read_labels
from v6fwd.docker.policy.mistakes import is_told, labels_without_port, listed
from v6fwd.docker.shim.published import PublishedPort, ServedBy
from v6fwd.doctor.facts import Facts, Unknown, known
from v6fwd.doctor.finding import Finding, Severity
from v6fwd.model import ClientIP

SERVICE = "v6fwd-docker"
_NEEDS = {"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12}
"""What a daemon needs for mode `transparent` (linux/capability.h)."""


def running(facts: Facts) -> list[Container]:
    """The containers that run; none where the Engine is not asked."""
    engine = known(facts.engine)
    containers = read_containers(engine.containers) if engine is not None else []
    return [container for container in containers if container.is_running]


def daemon(facts: Facts) -> Iterator[Finding]:
    """Whether `v6fwd serve` runs, where shims are there for it, and in this version."""
    if isinstance(facts.status, Unknown):
        return
    waiting = [port for port in facts.published if port.served_by is ServedBy.DAEMON]
    if facts.status is None:
        if (facts.shim_installed and not facts.is_rootless) or waiting:
            count = f"{len(waiting)} ports wait for it" if waiting else "dockerd has its shim"
            yield Finding(
                "daemon-not-running",
                Severity.ERROR,
                "the control socket of `v6fwd serve`",
                f"nobody answers, and {count}",
                "clients of those ports hang; ports that open now stand alone, in mode none",
                f"systemctl start {SERVICE}",
            )
        return
    version = facts.status.get("version")
    if version != __version__:
        yield Finding(
            "versions-differ",
            Severity.WARNING,
            "the control socket of `v6fwd serve`",
            f"the daemon is {version}, this program and the shim are {__version__}",
            "an upgrade is not in force until the daemon is replaced; no connection is lost by it",
            f"systemctl restart {SERVICE}",
        )


def configuration(facts: Facts) -> Iterator[Finding]:
    """A file with which the daemon does not start again."""
    if facts.config_error:
        first, *others = facts.config_error.splitlines()
        path = first.partition(":")[0]
        yield Finding(
            "configuration",
            Severity.ERROR,
            "v6fwd's configuration file",
            f"{first}{f', and {len(others)} more' if others else ''}",
            "`v6fwd serve` refuses to start with it, and a reload changes nothing",
            f"v6fwd serve --check -c {path}",
        )


def shims(facts: Facts) -> Iterator[Finding]:
    """Ports that stand alone, and those that docker-proxy has still."""
    containers = running(facts)
    for port in facts.published:
        if port.served_by is ServedBy.STANDALONE:
            yield _by_restart(
                "stands-alone",
                port,
                containers,
                "v6fwd-docker-proxy stands alone: no daemon answered when it started",
                "in mode none: the container sees the bridge's address, and labels do not count",
            )
        elif port.served_by is ServedBy.DOCKER and facts.shim_installed:
            if _is_unread(facts):
                continue  # told of as such; the restart of dockerd mends both
            yield _by_restart(
                "started-without-v6fwd",
                port,
                containers,
                "docker-proxy serves it: it was started before v6fwd was installed",
                "the container sees the bridge's address in place of IPv6 clients'",
            )


def _is_unread(facts: Facts) -> bool:
    """Whether dockerd runs with an older file: then it starts docker-proxy still."""
    file = facts.daemon_json
    return file is not None and any(file.written > each.started + 1 for each in facts.dockerd)


def _by_restart(
    which: str, port: PublishedPort, containers: list[Container], found: str, why: str
) -> Finding:
    publishing = find_containers(containers, port.forward)
    container = publishing[0] if len(publishing) == 1 else None
    name = container.name if container is not None else "CONTAINER"
    looked_at = f"process {port.pid}, for {port.forward.listen}"
    return Finding(
        which, Severity.WARNING, looked_at, f"{found} (container {name})", why,
        f"docker restart {name}",
    )  # fmt: skip


def labels(facts: Facts) -> Iterator[Finding]:
    """Labels that say nothing, or speak of a port that is not published."""
    for container in running(facts):
        read = read_labels(container.labels)
        for error in read.errors:
            yield Finding(
                "wrong-label",
                Severity.WARNING,
                f"labels of container {container.name}",
                error,
                "its port is served in the default mode, none",
                "recreate it with: --label v6fwd.client-ip=transparent (or another mode)",
            )
        ports = {(port, protocol) for _, port, protocol in container.published}
        for key, port in labels_without_port(container.labels, ports):
            if is_told(key, read.errors):
                continue
            yield Finding(
                "label-without-port",
                Severity.WARNING,
                f"labels and published ports of container {container.name}",
                f"{key} is for port {port}; published: {listed(ports)}",
                "the label has no effect: it names the container's own port, not the host's",
                f"recreate it with: --label {_renamed(key, ports)}={container.labels[key]}",
            )


def _renamed(key: str, ports: set[tuple[int, Any]]) -> str:
    port = min(port for port, _ in ports) if ports else "PORT"
    return f"{'.'.join(key.split('.')[:2])}.{port}"


def rights(facts: Facts) -> Iterator[Finding]:
    """What the daemon may not do that a mode of its ports needs."""
    status = known(facts.status)
    if status is None or facts.daemon is None:
        return
    modes = {forward.get("client_ip") for forward in _forwards(status)}
    for container in running(facts):
        modes |= {label.client_ip for label in read_labels(container.labels).labels}
    missing = [name for name, bit in _NEEDS.items() if not facts.daemon.capabilities >> bit & 1]
    if ClientIP.TRANSPARENT in modes and missing:
        yield Finding(
            "missing-rights",
            Severity.ERROR,
            f"CapEff of {facts.daemon}",
            f"{' and '.join(missing)} missing, and a port asks for transparent",
            "it cannot make sockets with clients' addresses",
            f"AmbientCapabilities={' '.join(_NEEDS)} in {SERVICE}.service",
        )


def _forwards(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    forwards: list[Mapping[str, Any]] = status.get("forwards") or []
    return forwards
