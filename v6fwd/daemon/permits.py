"""What a worker may ask its helper for: the targets of its forwards that need one, nothing else.

The supervisor sends permits to the helper ahead of the forwards to the worker. A permit that is
revoked or replaced is good for GRACE seconds more: the worker may not have been told yet.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace

from v6fwd.client_ip.destination import Destination, is_loopback
from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.daemon.messages import Permit, Revoke
from v6fwd.model import NO_NETNS, ClientIP, Forward, Mesh, Protocol, is_ip

GRACE = 60.0
"""Seconds."""


def permit_for(forward: Forward) -> Permit:
    """Return what serving a forward takes."""
    listen, options = str(forward.listen), forward.transparent
    store = options.pseudo_store, options.pseudo_bits
    return Permit(listen, forward.target, options.netns, *store, mesh=forward.mesh)


def wants_permit(forward: Forward) -> bool:
    """Whether serving a forward needs a helper."""
    is_transparent = forward.client_ip is ClientIP.TRANSPARENT
    return bool(forward.mesh.netns) or (is_transparent and not forward.target.is_absent)


class Permits:
    """The permits in force. `later` calls back after some seconds."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._permits: dict[str, Permit] = {}
        self._granted: Counter[Hashable] = Counter()

    def apply(self, message: Permit | Revoke) -> None:
        """Grant or revoke."""
        before = self._permits.pop(message.listen, None)
        if before is not None:
            self._later(GRACE, lambda: self._forget(before))
        if isinstance(message, Permit):
            self._permits[message.listen] = message
            self._granted.update(_grants(message))

    def _forget(self, permit: Permit) -> None:
        for grant in _grants(permit):
            self._granted[grant] -= 1
            if not self._granted[grant]:
                del self._granted[grant]

    # -- questions --

    def may_find(self, address: str) -> bool:
        """Whether the namespace of this address may be looked for."""
        return ("find", address) in self._granted

    def may_use(self, netns: str) -> bool:
        """Whether a namespace is that of a target."""
        return ("netns", netns) in self._granted

    def may_look(self, netns: str, target: bytes, protocol: Protocol, port: int) -> bool:
        """Whether this is a target there."""
        return ("target", netns, target, protocol, port) in self._granted

    def may_probe(self, netns: str, target: bytes, port: int) -> bool:
        """Whether this is a target there, of any protocol."""
        return any(self.may_look(netns, target, protocol, port) for protocol in Protocol)

    def may_reach(
        self, netns: str, destination: Destination, protocol: Protocol, port: int
    ) -> bool:
        """Whether a destination leads to a target: its own address, or loopback on its port."""
        if destination.is_loopback:
            return ("port", netns, protocol, port) in self._granted
        return self.may_look(netns, destination.address, protocol, port)

    def may_store(self, path: str, bits: int | None = None) -> bool:
        """Whether a store may be used, for networks of so many bits."""
        return ("store", path) in self._granted and (
            bits is None or ("bits", path, bits) in self._granted
        )

    def may_connect(self, netns: str, protocol: Protocol, task: bytes, port: int) -> bool:
        """Whether this is a task of a service that is forwarded to."""
        return ("task", netns, protocol, task, port) in self._granted

    def may_route(self) -> bool:
        """Whether there are targets that are reached over the network."""
        return ("route",) in self._granted


def _grants(permit: Permit) -> Iterator[Hashable]:
    target, protocol, port = permit.target, permit.target.protocol, permit.target.port
    if permit.mesh.pids:
        for host, pid in zip(permit.mesh.local, permit.mesh.pids, strict=False):
            alone = replace(permit, target=replace(target, host=host), netns=pid, mesh=Mesh())
            yield from _grants(alone)
    if permit.mesh.netns:
        mesh = permit.mesh
        tasks = () if mesh.pids else (*mesh.local, *mesh.remote)
        reached = [(task, port) for task in tasks] + [(node, mesh.hop_port) for node in mesh.hops]
        for host, at in reached:
            yield ("task", mesh.netns, protocol, ipaddress.ip_address(host).packed, at)
        return
    yield ("store", permit.store)
    yield ("bits", permit.store, permit.bits)
    if permit.netns in ("", NO_NETNS):
        yield ("route",)
    host = target.host.partition("%")[0]
    if permit.netns == NO_NETNS or not is_ip(target.host):
        return
    packed = ipaddress.ip_address(host).packed
    if not permit.netns:
        yield ("find", host)
    for netns in {permit.netns or target.host}:
        yield ("netns", netns)
        yield ("port", netns, protocol, port)
        yield ("target", netns, packed, protocol, port)


def why_not_bound(source: bytes, destination: Destination, own: SourceFilter) -> str | None:
    """Why a socket must not be bound to a source address on its way to a destination."""
    if destination.is_pseudo:
        return None if is_pseudo(source) else "not a pseudo IPv4 address"
    if len(source) != len(destination.address):
        return "of another family than the target"
    return "a loopback address" if is_loopback(source) else own.why(source)
