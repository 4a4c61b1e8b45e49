"""Finds what is wrong with a container's labels, for `status` and `doctor`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from v6fwd.config.rules import Rule
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.guards import PREFIX, port_of, read_guard
from v6fwd.docker.policy.labels import read_labels
from v6fwd.docker.policy.modes import choose
from v6fwd.model import InputError, Protocol

ContainerPort = tuple[int, Protocol]


def label_mistakes(container: Container, rules: Sequence[Rule] = ()) -> list[str]:
    """Return a line for each label that cannot be read, does not fit a port, or fits none."""
    labels = container.labels
    found = [*read_labels(labels).errors, *read_guard(labels, 0, Protocol.TCP).errors]
    for published in sorted(container.published):
        found += choose(container.as_published(*published), rules).errors
    ports = {(port, protocol) for _, port, protocol in container.published}
    told = tuple(found)
    found += (
        f"label {key}={labels[key]}: the container publishes no port {port} of its own"
        f" (published: {listed(ports)})"
        for key, port in labels_without_port(labels, ports)
        if not is_told(key, told)
    )
    return list(dict.fromkeys(found))


def is_told(key: str, mistakes: Iterable[str]) -> bool:
    """Whether a label is among the mistakes already: one line for each is enough."""
    return any(mistake.startswith(f"label {key}=") for mistake in mistakes)


def labels_without_port(
    labels: Mapping[str, str], ports: Collection[ContainerPort]
) -> Iterator[tuple[str, int]]:
    """Yield the labels, with their port, that are for none of a container's published ports."""
    for key in sorted(labels):
        _, dot, where = key.removeprefix(PREFIX).partition(".")
        if not key.startswith(PREFIX) or not dot:
            continue
        try:
            port, protocol = port_of(where)
        except InputError:  # told as a mistake of the label itself
            continue
        if not any(port == each and protocol in (None, of) for each, of in ports):
            yield key, port


def listed(ports: Collection[ContainerPort]) -> str:
    """Return ports for people: 80/tcp, 443/tcp; "none" for none."""
    return ", ".join(f"{port}/{protocol}" for port, protocol in sorted(ports)) or "none"
