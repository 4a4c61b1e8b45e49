"""The ports of the mesh that are served, and the hop for other nodes' flows."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace

from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.shim.listening import from_descriptor
from v6fwd.docker.swarm.dockerd import HeldSockets, Sandbox
from v6fwd.docker.swarm.plan import UNKNOWN, Planned, hop_port
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log, attempt, counted
from v6fwd.model import ClientIP, Endpoint, Forward
from v6fwd.netns.owners import told

LINGER = 10.0
"""Seconds for which a port stays open whose service the gossip has no more: an update that stops
the last task first empties it for a moment, and a dockerd that starts knows nothing yet."""
ANY_IPV4 = "0.0.0.0"


class MeshPorts:
    """Opens, changes and closes forwards as they are planned."""

    def __init__(self, supervisor: Supervisor, log: Log) -> None:
        self._supervisor = supervisor
        self._log = log
        self._planned: dict[Endpoint, Planned] = {}
        """What is served, as planned last, by listener."""
        self._hops: dict[Endpoint, tuple[Forward, str]] = {}
        """The hops that are open, and the identity of the namespace that each is in."""
        self._left: dict[Endpoint, tuple[Planned, str]] = {}
        """What is left to Docker, and why."""
        self._gone: dict[Endpoint, float] = {}
        """Since when the gossip has a port no more, in seconds."""

    def __iter__(self) -> Iterator[Planned]:
        return iter(self._planned.values())

    def __len__(self) -> int:
        return len(self._planned)

    def left(self) -> dict[Forward, str]:
        """Return the ports that are left to Docker, and why."""
        return {_named(planned): f"left to Docker: {why}" for planned, why in self._left.values()}

    def endpoints(self) -> list[Endpoint]:
        """Return all listeners that are open."""
        return [*self._planned, *self._hops]

    def forwards(self) -> list[tuple[Planned, Forward]]:
        """Return what is served."""
        return [(each, each.forward) for each in self if each.forward is not None]

    def report(self) -> list[dict[str, str]]:
        """Return all ports of the mesh, served or not, as `v6fwd docker status` shows them."""
        left = [planned for planned, _ in self._left.values()]
        return [_described(planned) for planned in (*self, *left)]

    def redirected(self, gateway: str) -> list[Forward]:
        """Return the ports whose IPv4 clients Docker must not send to the tasks itself.

        `gateway`: where Docker's rule would send them.
        """
        return [
            Forward(
                replace(forward.listen, host=ANY_IPV4),
                Endpoint(gateway, forward.listen.port, protocol=forward.protocol),
                forward.client_ip,
                guard=forward.guard,
            )
            for _, forward in self.forwards()
            if forward.client_ip is not ClientIP.NONE
        ]

    def follow(
        self,
        planned: Iterable[Planned],
        sandbox: Sandbox,
        held: HeldSockets,
        now: float,
        *,
        is_young: bool = False,
    ) -> None:
        """Serve what is planned. Ports that are planned no more close after LINGER.

        `is_young`: the Engine has just started, and may know no tasks yet: those known stay.
        """
        plans = {each.listen: each for each in planned}
        self._left = {}
        for each in plans.values():
            if each.forward is not None:
                if not (is_young and _loses_all(self._planned.get(each.listen), each.forward)):
                    self._serve(each, each.forward, held)
            elif each.listen not in self._planned or not (is_young or each.why == UNKNOWN):
                self._leave(each, each.why)
        self._close_gone(plans.keys(), now)
        self._follow_hops([*self._hops_of(plans.values())], sandbox)

    def move(self, netns: str, identity: str) -> None:
        """Have all that is served dial from another namespace: dockerd has made a new one."""
        for planned in list(self._planned.values()):
            if planned.forward is not None:
                mesh = replace(planned.forward.mesh, netns=netns, identity=identity)
                if mesh != planned.forward.mesh:
                    self._change(planned, replace(planned.forward, mesh=mesh))

    def _change(self, planned: Planned, forward: Forward) -> None:
        self._planned[planned.listen] = replace(planned, forward=forward)
        if planned.listen in self._supervisor.forwards:
            self._supervisor.change(forward)

    # -- clients' ports --

    def _serve(self, planned: Planned, forward: Forward, held: HeldSockets) -> None:
        listen, before = planned.listen, self._planned.get(planned.listen)
        try:
            if before is None:
                self._open(forward, held)
            elif listen in self._supervisor.forwards and before.forward != forward:
                self._supervisor.change(forward)
        except RelayError as error:
            self._leave(planned, told(error))
            return
        self._planned[listen] = planned
        if before is None or _mode(before) != _mode(planned):
            by = "handed to the nodes of its tasks" if planned.source == "hop" else planned.source
            text = f"{listen} of service {planned.service}: {forward.client_ip} ({by})"
            self._log.info("mesh", text)

    def _open(self, forward: Forward, held: HeldSockets) -> None:
        if forward.listen in self._supervisor.forwards:
            raise RelayError(f"{forward.listen} is forwarded already")
        inherited = forward.listen in self._supervisor.listen_sockets
        self._supervisor.open(forward, None if inherited else self._sockets(forward.listen, held))

    def _sockets(self, listen: Endpoint, held: HeldSockets) -> list[socket.socket] | None:
        """Return dockerd's socket; None: it has none, so that one of ours is opened."""
        try:
            fd = held.take(listen)
        except OSError as error:
            raise RelayError(f"cannot take dockerd's socket: {reason(error)}") from error
        return [from_descriptor(fd, listen)] if fd >= 0 else None

    def _leave(self, planned: Planned, why: str) -> None:
        """Serve a port no more, or not yet; say why, once."""
        self._close(planned.listen)
        self._left[planned.listen] = planned, why
        if why == UNKNOWN:
            return
        text = f"{planned.listen} of service {planned.service} is left to Docker: {why}"
        self._log.limited(f"mesh {planned.listen} {why}", "mesh-left", text, burst=1)

    def _close(self, listen: Endpoint) -> None:
        if self._planned.pop(listen, None) is not None and listen in self._supervisor.forwards:
            self._supervisor.close(listen)

    def _close_gone(self, planned: Iterable[Endpoint], now: float) -> None:
        gone = self._planned.keys() - set(planned)
        self._gone = {listen: self._gone.get(listen, now) for listen in gone}
        for listen, since in self._gone.items():
            if now - since >= LINGER:
                self._log.info("mesh", f"{listen} is closed: no service publishes it any more")
                attempt(self._close, listen)

    def without_tasks(self) -> None:
        """Lead ports that are no more planned nowhere: others may get their tasks' addresses."""
        for listen in self._gone:
            planned = self._planned.get(listen)
            if planned is None or planned.forward is None or not _tasks(planned.forward):
                continue
            mesh = replace(planned.forward.mesh, local=(), remote=(), hops=(), pids=())
            self._change(planned, replace(planned.forward, mesh=mesh))

    def reopen_drained(self) -> None:
        """Serve again what was drained by hand, when it is planned next."""
        for some in (self._planned, self._hops):
            for listen in [each for each in some if each not in self._supervisor.forwards]:
                del some[listen]

    def close(self) -> None:
        """Serve none any more."""
        for listen in list(self._planned):
            attempt(self._close, listen)
        for listen in list(self._hops):
            attempt(self._close_hop, listen)
        self._left = {}

    # -- the hop --

    def _hops_of(self, planned: Iterable[Planned]) -> Iterator[Forward]:
        """Yield the hops that are planned, and those that are while nothing new is known."""
        for each in planned:
            if each.hop is not None:
                yield each.hop
            elif each.why == UNKNOWN:
                mine = hop_port(each.listen.port), each.listen.protocol
                hops = (hop for hop, _ in self._hops.values())
                yield from (hop for hop in hops if (hop.listen.port, hop.protocol) == mine)

    def _follow_hops(self, hops: Iterable[Forward], sandbox: Sandbox) -> None:
        wanted = {hop.listen: hop for hop in hops}
        for listen, (_, identity) in list(self._hops.items()):
            if listen not in wanted or identity != sandbox.identity:
                self._close_hop(listen)
        for hop in wanted.values():
            try:
                self._serve_hop(hop, sandbox)
            except RelayError as error:
                text = f"other nodes' flows cannot be taken at {hop.listen}: {error}"
                self._log.limited(f"hop {hop.listen}", "mesh-hop", text, burst=1)

    def _serve_hop(self, hop: Forward, sandbox: Sandbox) -> None:
        before, _ = self._hops.get(hop.listen, (None, ""))
        if before is None:
            inherited = hop.listen in self._supervisor.listen_sockets
            self._supervisor.open(hop, None if inherited else [sandbox.listen(hop.listen)])
        elif before != hop and hop.listen in self._supervisor.forwards:
            self._supervisor.change(hop)
        self._hops[hop.listen] = hop, sandbox.identity

    def _close_hop(self, listen: Endpoint) -> None:
        del self._hops[listen]
        if listen in self._supervisor.forwards:
            self._supervisor.close(listen)


def _loses_all(before: Planned | None, forward: Forward) -> bool:
    """Whether tasks were known, and are no more."""
    return before is not None and before.forward is not None and not _tasks(forward)


def _described(planned: Planned) -> dict[str, str]:
    """`container` is a label of a metric, and does not change with the tasks."""
    forward = planned.forward or _named(planned)
    here, elsewhere = len(forward.mesh.local), len(forward.mesh.remote)
    if planned.source == "hop":
        tasks = f"by {counted(len(forward.mesh.hops), 'node')} with tasks"
    elif planned.forward is not None:
        tasks = f"{counted(here, 'task')} here, {elsewhere} elsewhere"
    else:
        tasks = ""
    return {
        "listen": str(planned.listen),
        "target": str(forward.target),
        "container": f"service {planned.service}",
        "tasks": tasks,
        "source": planned.source,
        "ipv4": _ipv4(planned),
        "state": _state(planned),
    }


def _state(planned: Planned) -> str:
    """How this node serves the port: `served`, `handed-over`, `left` to Docker."""
    if planned.forward is None:
        return "left"
    return "handed-over" if planned.source == "hop" else "served"


def _ipv4(planned: Planned) -> str:
    """By whom the port's IPv4 clients come: `v6fwd` or `docker`, by IPVS."""
    forward = planned.forward
    return "docker" if forward is None or forward.client_ip is ClientIP.NONE else "v6fwd"


def _tasks(forward: Forward) -> tuple[str, ...]:
    return (*forward.mesh.local, *forward.mesh.remote, *forward.mesh.hops)


def _mode(planned: Planned) -> tuple[ClientIP | None, str]:
    return (planned.forward.client_ip if planned.forward else None), planned.source


def _named(planned: Planned) -> Forward:
    return Forward(planned.listen, Endpoint(planned.service, 0, protocol=planned.listen.protocol))
