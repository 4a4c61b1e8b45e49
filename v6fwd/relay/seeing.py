"""Which kind of target a transparent forward has: inside a namespace, or across the network."""

from __future__ import annotations

from dataclasses import replace

from v6fwd.model import NO_NETNS, Endpoint, Forward
from v6fwd.relay.across import AcrossTarget
from v6fwd.relay.inside import InsideTarget
from v6fwd.relay.netns_search import search
from v6fwd.relay.sockets import RelayError
from v6fwd.relay.spaces import Spaces
from v6fwd.relay.transparent import TransparentTarget


def make_target(forward: Forward, spaces: Spaces) -> TransparentTarget:
    """The target of a transparent forward. Where nobody names its namespace, it is looked for."""
    options = forward.transparent
    if not options.netns and _is_local(forward.target, spaces):
        options = replace(options, netns=forward.target.host)
    if options.netns in ("", NO_NETNS):
        return AcrossTarget(forward.target, options, spaces)
    return InsideTarget(forward.target, options, spaces)


def _is_local(target: Endpoint, spaces: Spaces) -> bool:
    """Whether it is in a namespace that we can enter; what it is instead is told."""
    if target.is_name:
        return False
    try:
        search(target.host.partition("%")[0])
    except (RelayError, OSError) as error:
        text = f"{error}, so clients of {target} are shown by pseudo IPv4 addresses"
        spaces.log.limited(f"search {target.host}", "across", text, burst=1, target=target)
        return False
    return True
