"""Chooses the path of a transparent forward: into a namespace, or over the network."""

from __future__ import annotations

from dataclasses import replace

from v6fwd.errors import RelayError
from v6fwd.model import NO_NETNS, Endpoint, Forward
from v6fwd.relay.target import DirectTarget
from v6fwd.relay.transparent.in_netns import NetnsPath
from v6fwd.relay.transparent.path import Path
from v6fwd.relay.transparent.resources import TransparentResources
from v6fwd.relay.transparent.routed import RoutedPath
from v6fwd.relay.transparent.target import TransparentTarget


def make_target(forward: Forward, resources: TransparentResources) -> TransparentTarget:
    """The target of a transparent forward. A namespace that is not configured is searched."""
    options = forward.transparent
    if not options.netns and _is_local(forward.target, resources):
        options = replace(options, netns=forward.target.host)
    direct = DirectTarget(forward.target, resources.reactor)
    path: Path
    if options.netns in ("", NO_NETNS):
        path = RoutedPath(direct, options, resources)
    else:
        path = NetnsPath(direct, options, resources)
    return TransparentTarget(direct, path, options.fallback, resources.log)


def _is_local(target: Endpoint, resources: TransparentResources) -> bool:
    """Whether it is in a namespace that we can enter; logs what is done instead."""
    if target.is_name:
        return False
    try:
        resources.ops.find(target.host.partition("%")[0])
    except (RelayError, OSError) as error:
        text = f"{error}, so clients of {target} are preserved by pseudo IPv4 addresses"
        resources.log.limited(f"search {target.host}", "across", text, burst=1, target=target)
        return False
    return True
