"""Which kind of target a transparent forward has: inside a namespace, or across the network."""

from __future__ import annotations

from dataclasses import replace

from v6fwd.errors import RelayError
from v6fwd.model import NO_NETNS, Endpoint, Forward
from v6fwd.netns.search import search
from v6fwd.relay.transparent.in_netns import InsideTarget
from v6fwd.relay.transparent.namespaces import Namespaces
from v6fwd.relay.transparent.routed import AcrossTarget
from v6fwd.relay.transparent.target import TransparentTarget


def make_target(forward: Forward, namespaces: Namespaces) -> TransparentTarget:
    """The target of a transparent forward. Where nobody names its namespace, it is looked for."""
    options = forward.transparent
    if not options.netns and _is_local(forward.target, namespaces):
        options = replace(options, netns=forward.target.host)
    if options.netns in ("", NO_NETNS):
        return AcrossTarget(forward.target, options, namespaces)
    return InsideTarget(forward.target, options, namespaces)


def _is_local(target: Endpoint, namespaces: Namespaces) -> bool:
    """Whether it is in a namespace that we can enter; what it is instead is told."""
    if target.is_name:
        return False
    try:
        search(target.host.partition("%")[0])
    except (RelayError, OSError) as error:
        text = f"{error}, so clients of {target} are shown by pseudo IPv4 addresses"
        namespaces.log.limited(f"search {target.host}", "across", text, burst=1, target=target)
        return False
    return True
