"""The table of `v6fwd docker status`: what /proc says of the published ports, and the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from v6fwd.cli.status import client_ip, flow_counts
from v6fwd.cli.tables import table
from v6fwd.daemon.view.rows import container
from v6fwd.docker.shim.published import PublishedPort, ServedBy
from v6fwd.log import escaped

Described = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What the daemon says, each by listener; nothing where it is silent."""

    forwards: Mapping[str, Described] = field(default_factory=dict)
    held: Mapping[str, Described] = field(default_factory=dict)
    published: Mapping[str, Described] = field(default_factory=dict)
    labels: Sequence[str] = ()
    """A line for each mistake in a label."""
    services: Sequence[Described] = ()
    """Of a swarm: those with ports in its mesh."""
    nodes: Sequence[Described] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Told:
        """Sort the answer to a request for the status; release 0.1 has no `published`."""
        return cls(
            _by_listen(each for each in answer["forwards"] if each["state"] == "open"),
            _by_listen(answer.get("held", ())),
            _by_listen(answer.get("published", ())),
            tuple(answer.get("labels", ())),
            tuple(answer.get("services", ())),
            tuple(answer.get("nodes", ())),
        )


def _by_listen(described: Any) -> dict[str, Described]:
    return {each["listen"]: each for each in described}


@dataclass(frozen=True, slots=True)
class Row:
    """A published port. `pid` is 0 where dockerd has started no process for it."""

    listen: str
    target: str
    served_by: ServedBy
    pid: int
    told: Told

    @property
    def container(self) -> str:
        """Its name, or its service's and where the tasks are; "-": the daemon does not know."""
        return container(self.told.published.get(self.listen, {})) or "-"

    @property
    def client_ip(self) -> str:
        """The mode that new clients are served in."""
        if self.served_by is not ServedBy.DAEMON:
            return "none"
        if self.listen in self.told.forwards:
            return client_ip(self.told.forwards[self.listen])
        return "held" if self.listen in self.told.held else "waits for v6fwd serve"

    @property
    def why(self) -> str:
        """What decided the mode: label, rule, default; or that an error did."""
        if self.served_by is not ServedBy.DAEMON:
            return "-"
        source = str(self.told.published.get(self.listen, {}).get("source", ""))
        if self.listen in self.told.held and not source.startswith("error"):
            return "see below"
        return source or "-"

    @property
    def flows(self) -> tuple[str, str]:
        """How many live, and how many began."""
        forward = self.told.forwards.get(self.listen)
        if self.served_by is not ServedBy.DAEMON or forward is None:
            return "-", "-"
        return flow_counts(forward)


_COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "LISTEN": lambda row: row.listen,
    "TARGET": lambda row: row.target,
    "SERVED BY": lambda row: row.served_by,
    "CLIENT-IP": lambda row: row.client_ip,
    "WHY": lambda row: row.why,
    "CONTAINER": lambda row: row.container,
    "LIVE": lambda row: row.flows[0],
    "FLOWS": lambda row: row.flows[1],
    "PROCESS": lambda row: f"pid {row.pid}" if row.pid else "-",
}


def rows(ports: Sequence[PublishedPort], told: Told) -> list[Row]:
    """Return a row for each process of dockerd's, and for each port that has none."""
    found = [
        Row(str(port.forward.listen), str(port.forward.target), port.served_by, port.pid, told)
        for port in ports
    ]
    listens = {row.listen for row in found}
    return found + [
        Row(listen, each["target"], ServedBy.DAEMON, 0, told)
        for listen, each in told.published.items()
        if listen not in listens
    ]


def text(found: Sequence[Row], told: Told) -> str:
    """Return the table, why ports are held, what is wrong with labels, and the swarm's tables."""
    cells = [[column(row) for column in _COLUMNS.values()] for row in found]
    lines = [table(tuple(_COLUMNS), cells, right="LIVE FLOWS")] if found else []
    return "\n".join((*lines, *map(escaped, _notes(found, told)), *_swarm(told)))


def _swarm(told: Told) -> Iterator[str]:
    """Yield the services of a swarm with ports in its mesh, and its nodes."""
    if told.services:
        cells = [
            [
                str(each["service"]),
                " ".join(map(str, each["ports"])),
                str(each["here"]),
                str(each["elsewhere"]),
            ]
            for each in told.services
        ]
        yield ""
        yield table(("SERVICE", "PORTS", "HERE", "ELSEWHERE"), cells, right="HERE ELSEWHERE")
    if told.nodes:
        cells = [[_node(each), str(each["tasks"])] for each in told.nodes]
        yield ""
        yield table(("NODE", "TASKS"), cells, right="TASKS")


def _node(told: Described) -> str:
    return " ".join(filter(None, (str(told["node"]), "(this one)" if told["here"] else "")))


def _notes(found: Sequence[Row], told: Told) -> Iterator[str]:
    for row in found:
        if row.listen in told.held and row.served_by is not ServedBy.DOCKER:
            yield f"{row.listen}: {told.held[row.listen]['why']}"
        if mismatch := told.forwards.get(row.listen, {}).get("mismatch"):
            yield f"{row.listen}: {mismatch}"
    yield from told.labels
